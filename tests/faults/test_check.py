"""data.py check sees every fault, before it costs a night, and lists it with file, kind and reason."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeRoom
from tests.faults.room import Outcome, check
from tests.faults.rows import MAKERS, ROWS, rows


def assert_listed(outcome: Outcome, level: str, says: str) -> None:
    """Expect a finding that names what it must, in the report and on stdout."""
    found = outcome.findings(level)
    assert all(row["file"] and row["kind"] and row["reason"] for row in found)
    matching = [row for row in found if says in f"{row['file']}: object {row['object']} ({row['class']})"]
    matching += [row for row in found if says in f"{row['file']}: {row['reason']} {row['class']}"]
    assert matching, (says, found)
    assert says in outcome.out


@pytest.mark.parametrize("name", rows("ok"))
def test_what_is_no_fault_passes(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    outcome = check(room)
    assert outcome.status == 0, outcome.text
    assert outcome.findings("error") == []
    assert {row["kind"] for row in outcome.findings("warning")} <= {"few objects"}
    look = ROWS[name].look
    assert look is not None
    look(room, room.records())


@pytest.mark.parametrize("name", rows("warned", "object"))
def test_what_is_put_right_or_left_out_is_told(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    outcome = check(room)
    assert outcome.status == 0
    assert outcome.findings("error") == []
    assert_listed(outcome, "warning", ROWS[name].says.format(id=room.image_id))
    look = ROWS[name].look
    assert look is not None
    look(room, room.records())


@pytest.mark.parametrize("name", rows("image", "error"))
def test_a_fault_is_an_error(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    says = ROWS[name].says.format(id=room.image_id)
    outcome = check(room)
    assert says in outcome.error
    if name != "split_no_voc":  # without data there is no report
        assert_listed(outcome, "error", says)
    assert check(room, "--skip-bad").status == (0 if ROWS[name].outcome == "image" else 2)


@pytest.mark.parametrize("name", rows("image", "object", prefix="xml"))
def test_a_fault_in_val_is_an_error(make_room: MakeRoom, name: str) -> None:
    room = make_room("000006")
    MAKERS[name](room)
    outcome = check(room)
    assert "000006.xml" in outcome.error
    assert_listed(outcome, "error", "000006.xml")
    assert all(row["splits"] == ["val"] for row in outcome.findings("error"))
