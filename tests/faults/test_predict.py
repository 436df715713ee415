"""predict.py on image faults: skipped with a warning in a folder, one error line if given alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import predict
from tests.faults.conftest import MakeWorkspace
from tests.faults.rows import ROWS
from tests.faults.workspace import DATA, HEIGHT, WIDTH, Outcome, Workspace, draw, run
from tests.training_room import errors_in, started

IMAGES = f"{DATA}/JPEGImages"
FEW = ("img_truncated", "img_gray16", "img_exif_stored", "img_1x1")
# To annotations these are faults; a folder of pictures is whole without one, with two of a name, or a folder.
NO_FAULT = ("img_missing", "img_is_directory", "img_two_candidates")
SIZES = {"img_exif_display": (HEIGHT, WIDTH), "img_exif_stored": (HEIGHT, WIDTH)}
SIZES |= {"img_1x1": (1, 1), "img_extreme_aspect": (3000, 2)}
COUNTS = {"img_missing": 5, "img_is_directory": 5, "img_two_candidates": 7}


def rows(*, broken: bool) -> list[Any]:
    """Return the rows that a reader of pictures must refuse, or the others."""
    names = [name for name in ROWS if name.startswith(("img_", "dir_"))]
    names = [name for name in names if name not in ("img_fifo", "img_unreadable")]  # have their own tests
    chosen = [name for name in names if (ROWS[name].outcome == "image" and name not in NO_FAULT) == broken]
    return [
        name if name in FEW else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.exhaustive])
        for name in chosen
    ]


def run_predict(
    workspace: Workspace, weights: Path, *sources: str
) -> tuple[Outcome, dict[str, dict[str, Any]]]:
    """Run predict.py; returns how it ended, and the lines of JSON by file name."""
    found = workspace.folder / "runs" / "found.jsonl"
    found.parent.mkdir(exist_ok=True)
    argv = (*sources, "--weights", str(weights), "--device", "cpu", "--conf", "1e-6", "--json", str(found))
    outcome = run(workspace, predict.main, argv)
    lines = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    return outcome, {Path(line["path"]).name: line for line in lines}


@pytest.mark.parametrize("name", rows(broken=False))
def test_pictures_of_every_kind(make_workspace: MakeWorkspace, weights: Path, name: str) -> None:
    workspace = make_workspace(name)
    outcome, lines = run_predict(workspace, weights, IMAGES)
    assert outcome.status == 0, outcome.err
    assert "warning" not in outcome.err
    assert len(lines) == COUNTS.get(name, 6)
    for file_name, line in lines.items():
        is_changed = file_name == "000001.jpg"
        expected = SIZES.get(name, (WIDTH, HEIGHT)) if is_changed else (WIDTH, HEIGHT)
        assert (line["width"], line["height"]) == expected
        with Image.open(next(Path("runs/predict/exp").glob(f"{Path(file_name).stem}.*"))) as picture:
            assert picture.size == expected


@pytest.mark.parametrize("name", rows(broken=True))
def test_a_broken_picture(make_workspace: MakeWorkspace, weights: Path, name: str) -> None:
    workspace = make_workspace(name)
    bad = ROWS[name].says.format(id=workspace.image_id)
    outcome, lines = run_predict(workspace, weights, IMAGES)
    assert outcome.status == 1
    (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {IMAGES}/{bad}: ")
    assert warning.endswith("; skipped")
    assert "skipped 1 of 6 images: unreadable" in outcome.err
    assert len(lines) == 5
    alone, kept = run_predict(workspace, weights, f"{IMAGES}/{bad}")
    assert alone.status == 1
    (error,) = errors_in(alone.err)
    assert error.startswith(f"error: {IMAGES}/{bad}: ")
    assert len(error) <= 400
    assert kept == lines  # the file of the first run: where nothing can be read none is written


def test_a_pipe_under_an_image_s_name_does_not_stop_it(make_workspace: MakeWorkspace, weights: Path) -> None:
    make_workspace("img_fifo")
    with started(IMAGES, "--weights", str(weights), "--no-save", work=predict.main) as command:
        assert command.wait() == 1
        assert "000001.jpg: not a regular file; skipped" in command.text


@pytest.mark.parametrize(
    ("source", "status", "named"),
    [
        ("notes.txt", 1, "notes.txt: not an image"),
        ("nothing", 2, "nothing: no images directly in this folder"),
    ],
    ids=["predict_text", "predict_empty_dir"],
)
def test_predict_inputs(
    make_workspace: MakeWorkspace, weights: Path, source: str, status: int, named: str
) -> None:
    workspace = make_workspace()
    Path("nothing").mkdir()
    Path("notes.txt").write_text("no picture")
    outcome, _ = run_predict(workspace, weights, source)
    assert outcome.status == status
    (error,) = errors_in(outcome.err)
    assert named in error


def test_predict_mixed_dir(make_workspace: MakeWorkspace, weights: Path) -> None:
    workspace = make_workspace()
    Path("mixed").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw(1).save(f"mixed/{name}")
    os.truncate("mixed/b.jpg", 900)
    Path("mixed/notes.txt").write_text("not asked for")
    outcome, lines = run_predict(workspace, weights, "mixed")
    assert outcome.status == 1
    assert set(lines) == {"a.jpg", "c.jpg"}
    assert outcome.err.count("warning: ") == 1
    assert "warning: mixed/b.jpg: " in outcome.err
