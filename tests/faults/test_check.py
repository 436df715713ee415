"""data.py check lists every fault with file, kind and reason."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeWorkspace
from tests.faults.rows import ROWS, rows
from tests.faults.workspace import Outcome, run_check


def assert_listed(outcome: Outcome, level: str, says: str) -> None:
    """Expect a finding that names what it must, in the report and on stdout."""
    found = outcome.findings(level)
    assert all(row["file"] and row["kind"] and row["reason"] for row in found)
    matching = [row for row in found if says in f"{row['file']}: object {row['object']} ({row['class']})"]
    matching += [row for row in found if says in f"{row['file']}: {row['reason']} {row['class']}"]
    assert matching, (says, found)
    assert says in outcome.out


@pytest.mark.parametrize("name", rows("ok"))
def test_good_data_pass(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    outcome = run_check(workspace)
    assert outcome.status == 0, outcome.text
    assert outcome.findings("error") == []
    assert {row["kind"] for row in outcome.findings("warning")} <= {"few objects"}
    verify = ROWS[name].verify
    assert verify is not None
    verify(workspace, workspace.records())


@pytest.mark.parametrize("name", rows("warned", "object"))
def test_corrections_and_skipped_objects_are_warnings(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    outcome = run_check(workspace)
    assert outcome.status == 0
    assert outcome.findings("error") == []
    assert_listed(outcome, "warning", ROWS[name].says.format(id=workspace.image_id))
    verify = ROWS[name].verify
    assert verify is not None
    verify(workspace, workspace.records())


@pytest.mark.parametrize("name", rows("image", "error"))
def test_a_fault_is_an_error(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    says = ROWS[name].says.format(id=workspace.image_id)
    outcome = run_check(workspace)
    assert says in outcome.error
    if name != "split_no_voc":  # without data there is no report
        assert_listed(outcome, "error", says)
    assert run_check(workspace, "--skip-bad").status == (0 if ROWS[name].outcome == "image" else 2)


@pytest.mark.parametrize("name", rows("image", "object", prefix="xml"))
def test_a_fault_in_val_is_an_error(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name, "000006")
    outcome = run_check(workspace)
    assert "000006.xml" in outcome.error
    assert_listed(outcome, "error", "000006.xml")
    assert all(row["splits"] == ["val"] for row in outcome.findings("error"))
