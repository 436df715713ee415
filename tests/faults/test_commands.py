"""train.py and evaluate.py stop at a fault before the first step, and go on where that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeRoom
from tests.faults.room import Outcome, Room, learn, measure
from tests.faults.rows import ANCHOR_ROWS, MAKERS, ROWS, rows

FEW = ("good_control", "xml_empty", "xml_box_outside", "xml_unknown_class", "img_missing", "img_1x1")


def of_images(quick: Collection[str]) -> list[Any]:
    """Return the rows whose fault sits in the files of one image."""
    return [*rows("image", "object", prefix="xml", quick=quick), *rows("image", prefix="img", quick=quick)]


def warnings_of(outcome: Outcome) -> str:
    return "\n".join(line for line in outcome.err.splitlines() if line.startswith("warning: "))


@pytest.mark.parametrize("name", rows("error", "image"))
def test_training_does_not_begin(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    assert ROWS[name].says.format(id=room.image_id) in learn(room).error
    if ROWS[name].outcome == "error":
        assert learn(room, "--skip-bad").status == 2


@pytest.mark.parametrize("name", of_images(quick=FEW))
def test_a_fault_in_val_stops_both(make_room: MakeRoom, weights: Path, name: str) -> None:
    room = make_room("000006")
    MAKERS[name](room)
    assert "000006" in learn(room).error
    assert "000006" in measure(room, weights).error


@pytest.mark.parametrize("name", ["split_val_empty", "split_no_voc", "img_truncated_in_val", "xml_empty"])
def test_an_evaluation_stops(make_room: MakeRoom, weights: Path, name: str) -> None:
    room = make_room("000006")
    MAKERS[name](room)
    assert ROWS[name].says.format(id=room.image_id) in measure(room, weights).error


@pytest.mark.parametrize("name", rows("ok", "warned", "object", quick=FEW))
def test_training_goes_through(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    outcome = learn(room)
    assert outcome.status == 0, outcome.err
    if ROWS[name].outcome == "ok":
        assert not warnings_of(outcome)
    else:
        assert ROWS[name].says.format(id=room.image_id) in warnings_of(outcome)
    if ROWS[name].outcome == "object":
        assert "objects clipped: 0, skipped: 1" in outcome.err


@pytest.mark.parametrize("name", rows("image", quick=FEW))
def test_training_leaves_an_image_out_when_asked(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    outcome = learn(room, "--skip-bad")
    assert outcome.status == 0, outcome.err
    says = ROWS[name].says.format(id=room.image_id)
    assert [line for line in warnings_of(outcome).splitlines() if says in line and "skipped" in line]
    total = {"img_truncated_in_val": 2, "split_unknown_id": 5}.get(name, 4)
    assert f"skipped 1 of {total} images: 1 " in outcome.err


@pytest.mark.parametrize("name", of_images(quick=FEW))
def test_an_evaluation_says_over_how_many_images(make_room: MakeRoom, weights: Path, name: str) -> None:
    room = make_room("000006")
    MAKERS[name](room)
    outcome = measure(room, weights, "--skip-bad")
    assert outcome.status == 0, outcome.err
    assert "000006" in warnings_of(outcome)
    counted = "1 of 2 images" if ROWS[name].outcome == "image" else "2 images"
    assert f"mAP over {counted}" in outcome.out


def truths(outcome: Outcome) -> tuple[int, int, int]:
    """Return the number of images, of squares and of circles that an evaluation counted."""
    assert outcome.status == 0, outcome.err
    counts = {name: row["ground_truths"] for name, row in outcome.report["per_class"].items()}
    return outcome.report["images"], counts["square"], counts["circle"]


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("good_control", (2, 2, 2)),
        ("xml_difficult", (2, 2, 1)),
        pytest.param("xml_difficult_text", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("xml_no_objects", (2, 1, 1), marks=pytest.mark.slow),
        pytest.param("xml_parts", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("xml_duplicate_object", (2, 3, 2), marks=pytest.mark.slow),
        pytest.param("xml_unknown_class", (2, 1, 2), marks=pytest.mark.slow),
        pytest.param("split_duplicate", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("split_overlap", (4, 4, 4), marks=pytest.mark.slow),
        pytest.param("img_1x1", (2, 1, 1), marks=pytest.mark.slow),
    ],
)
def test_an_evaluation_counts_what_is_there(
    make_room: MakeRoom, weights: Path, name: str, counted: tuple[int, int, int]
) -> None:
    room = make_room("000006")
    MAKERS[name](room)
    assert truths(measure(room, weights)) == counted


def both_empty(room: Room) -> None:
    for image_id in ("000002", "000003"):
        Room(room.folder, image_id, room.captured).xml.write_bytes(b"")


def one_in_each_split(room: Room) -> None:
    for image_id in ("000003", "000006"):
        Room(room.folder, image_id, room.captured).xml.write_bytes(b"")


def xml_and_image(room: Room) -> None:
    Room(room.folder, "000002", room.captured).xml.write_bytes(b"")
    Room(room.folder, "000005", room.captured).image.unlink()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (both_empty, ("000002.xml", "000003.xml")),
        (one_in_each_split, ("000003.xml", "000006.xml")),
        (xml_and_image, ("000002.xml", "000005.jpg")),
    ],
)
def test_all_faults_are_told_at_once(
    make_room: MakeRoom, make: Callable[[Room], None], named: tuple[str, str]
) -> None:
    room = make_room()
    make(room)
    outcome = learn(room)
    assert "(and 1 more, see above)" in outcome.error
    assert all(name in warnings_of(outcome) for name in named)


def test_nothing_is_left(make_room: MakeRoom, weights: Path) -> None:
    room = make_room()
    for path in room.xml.parent.iterdir():
        path.write_bytes(b"")
    assert "none of the 4 images can be used" in learn(room, "--skip-bad").error
    assert "none of the 2 images can be used" in measure(room, weights, "--skip-bad").error


@pytest.mark.parametrize("name", ANCHOR_ROWS[:-1])
def test_anchors_that_are_none_are_an_error(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    MAKERS[name](room)
    assert ROWS[name].says in learn(room, "--anchors", "anchors.txt").error


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "1e308"])
def test_anchors_have_sides(make_room: MakeRoom, value: str) -> None:
    room = make_room()
    path = room.folder / "anchors.txt"
    path.write_text(path.read_text().replace("37", value))
    assert "anchors.txt" in learn(room, "--anchors", "anchors.txt").error


def test_anchors_in_lines(make_room: MakeRoom) -> None:
    room = make_room()
    MAKERS["cfg_anchors_lines"](room)
    assert learn(room, "--anchors", "anchors.txt").status == 0
