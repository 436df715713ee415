"""train.py and evaluate.py stop at a fault before the first step, and continue with --skip-bad."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeWorkspace
from tests.faults.rows import ANCHOR_ROWS, ROWS, rows
from tests.faults.workspace import Outcome, Workspace, run_evaluate, run_train

FEW = ("good_control", "xml_empty", "xml_box_outside", "xml_unknown_class", "img_missing", "img_1x1")


def of_images(quick: Collection[str]) -> list[Any]:
    """Return the rows whose fault sits in the files of one image."""
    return [*rows("image", "object", prefix="xml", quick=quick), *rows("image", prefix="img", quick=quick)]


def warnings_of(outcome: Outcome) -> str:
    return "\n".join(line for line in outcome.err.splitlines() if line.startswith("warning: "))


@pytest.mark.parametrize("name", rows("error", "image"))
def test_training_does_not_begin(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    assert ROWS[name].says.format(id=workspace.image_id) in run_train(workspace).error
    if ROWS[name].outcome == "error":
        assert run_train(workspace, "--skip-bad").status == 2


@pytest.mark.parametrize("name", of_images(quick=FEW))
def test_a_fault_in_val_stops_both(make_workspace: MakeWorkspace, weights: Path, name: str) -> None:
    workspace = make_workspace(name, "000006")
    assert "000006" in run_train(workspace).error
    assert "000006" in run_evaluate(workspace, weights).error


@pytest.mark.parametrize("name", ["split_val_empty", "split_no_voc", "img_truncated_in_val", "xml_empty"])
def test_an_evaluation_stops(make_workspace: MakeWorkspace, weights: Path, name: str) -> None:
    workspace = make_workspace(name, "000006")
    assert ROWS[name].says.format(id=workspace.image_id) in run_evaluate(workspace, weights).error


@pytest.mark.parametrize("name", rows("ok", "warned", "object", quick=FEW))
def test_training_goes_through(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    outcome = run_train(workspace)
    assert outcome.status == 0, outcome.err
    if ROWS[name].outcome == "ok":
        assert not warnings_of(outcome)
    else:
        assert ROWS[name].says.format(id=workspace.image_id) in warnings_of(outcome)
    if ROWS[name].outcome == "object":
        assert "objects clipped: 0, skipped: 1" in outcome.err


@pytest.mark.parametrize("name", rows("image", quick=FEW))
def test_training_leaves_an_image_out_when_asked(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    outcome = run_train(workspace, "--skip-bad")
    assert outcome.status == 0, outcome.err
    says = ROWS[name].says.format(id=workspace.image_id)
    assert [line for line in warnings_of(outcome).splitlines() if says in line and "skipped" in line]
    total = {"img_truncated_in_val": 2, "split_unknown_id": 5}.get(name, 4)
    assert f"skipped 1 of {total} images: 1 " in outcome.err


@pytest.mark.parametrize("name", of_images(quick=FEW))
def test_an_evaluation_says_over_how_many_images(
    make_workspace: MakeWorkspace, weights: Path, name: str
) -> None:
    workspace = make_workspace(name, "000006")
    outcome = run_evaluate(workspace, weights, "--skip-bad")
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
    make_workspace: MakeWorkspace, weights: Path, name: str, counted: tuple[int, int, int]
) -> None:
    workspace = make_workspace(name, "000006")
    assert truths(run_evaluate(workspace, weights)) == counted


def test_all_faults_are_told_at_once(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace()
    Workspace(workspace.folder, "000002", workspace.captured).xml.write_bytes(b"")
    Workspace(workspace.folder, "000005", workspace.captured).image.unlink()
    outcome = run_train(workspace)
    assert "(and 1 more, see above)" in outcome.error
    assert all(name in warnings_of(outcome) for name in ("000002.xml", "000005.jpg"))


def test_nothing_is_left(make_workspace: MakeWorkspace, weights: Path) -> None:
    workspace = make_workspace()
    for path in workspace.xml.parent.iterdir():
        path.write_bytes(b"")
    assert "none of the 4 images can be used" in run_train(workspace, "--skip-bad").error
    assert "none of the 2 images can be used" in run_evaluate(workspace, weights, "--skip-bad").error


@pytest.mark.parametrize("name", ANCHOR_ROWS[:-1])
def test_anchors_that_are_none_are_an_error(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace(name)
    assert ROWS[name].says in run_train(workspace, "--anchors", "anchors.txt").error


def test_anchors_in_lines(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace("cfg_anchors_lines")
    assert run_train(workspace, "--anchors", "anchors.txt").status == 0
