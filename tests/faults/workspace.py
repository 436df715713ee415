"""A small data set, and the commands that read it; none of them may change it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
import evaluate
import train
from tests.training_room import errors_in
from utils.cli.shared_config import DataConfig
from utils.data.dataset_report import Record
from utils.data.prepare import prepare_training

DATA = "VOCdevkit"
TRAIN, VAL = ("000001", "000002", "000003", "000004"), ("000005", "000006")
WIDTH, HEIGHT = 200, 150
SQUARE, CIRCLE = (21, 31, 80, 90), (101, 41, 160, 100)  # xmin, ymin, xmax, ymax as VOC counts
ON_DATA = ("--data", DATA, "--classes", "classes.txt")
QUICK = ("--weights", "none", "--imgsz", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0")
QUICK += ("--device", "cpu", "--mosaic", "0", "--warmup-epochs", "0")
ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
Captured = pytest.CaptureFixture[str]


def bndbox(box: tuple[Any, ...]) -> str:
    pairs = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    return f"<bndbox>{''.join(f'<{tag}>{value}</{tag}>' for tag, value in pairs)}</bndbox>"


def item(name: str = "square", box: tuple[Any, ...] = SQUARE, more: str = "<difficult>0</difficult>") -> str:
    """Write one <object>."""
    return f"<object><name>{name}</name>{more}{bndbox(box)}</object>"


def size(width: int = WIDTH, height: int = HEIGHT) -> str:
    return f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"


BOTH = item() + item("circle", CIRCLE)


@dataclass(frozen=True)
class Workspace:
    """The folder of a test: VOCdevkit/ in VOC layout, with classes.txt and anchors.txt beside it."""

    folder: Path  # the current one
    image_id: str  # the image with the fault, one of TRAIN or of VAL
    captured: Captured  # the output of the commands

    @property
    def xml(self) -> Path:
        return self.folder / DATA / "Annotations" / f"{self.image_id}.xml"

    @property
    def image(self) -> Path:
        return self.folder / DATA / "JPEGImages" / f"{self.image_id}.jpg"

    @property
    def lists(self) -> Path:
        return self.folder / DATA / "ImageSets" / "Main"

    def write(
        self, objects: str = BOTH, head: str = size(), start: str = "", root: str = "annotation"
    ) -> None:
        """Replace the annotation of the image by a new one."""
        closing = root.split()[0]
        text = f"{start}<{root}><filename>{self.image_id}.jpg</filename>{head}{objects}</{closing}>"
        self.xml.write_text(text, encoding="utf-8")

    def picture(self) -> Image.Image:
        """Return the picture of the image as it was drawn, before JPEG."""
        return draw(int(self.image_id))

    def records(self) -> dict[str, Record]:
        """Return the usable images of the training split by id."""
        found = prepare_training(DataConfig(DATA, classes="classes.txt", skip_bad=True))
        return {record.image_id: record for record in found.train.records}


def draw(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Draw a smooth random picture, which JPEG keeps nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_dataset(folder: Path, image_id: str, captured: Captured) -> Workspace:
    """Write the data set without a fault."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / DATA / part).mkdir(parents=True)
    for name in (*TRAIN, *VAL):
        workspace = Workspace(folder, name, captured)
        workspace.picture().save(workspace.image, quality=95)
        workspace.write()
    for split, names in (("train", TRAIN), ("val", VAL)):
        (workspace.lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "classes.txt").write_text("square\ncircle\n")
    (folder / "anchors.txt").write_text(ANCHORS)
    return Workspace(folder, image_id, captured)


def snapshot(folder: Path) -> dict[str, Any]:
    """Describe every file below a folder but runs/: kind, mode, time and bytes; links are not followed."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = str(path.relative_to(folder))
        state = path.lstat()
        described: list[Any] = [oct(state.st_mode), state.st_mtime_ns]
        if path.is_symlink():
            described.append(os.readlink(path))
        elif stat.S_ISREG(state.st_mode) and os.access(path, os.R_OK):
            described.append(hashlib.sha256(path.read_bytes()).hexdigest())
        if not name.startswith("runs") and name not in ("report.json", "", ".", "log.txt"):
            found[name] = described
    return found


@dataclass(frozen=True)
class Outcome:
    """How a command ended, with what it printed on stdout and stderr."""

    status: int
    out: str
    err: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The one error line."""
        assert self.status == 2, self.err
        (line,) = errors_in(self.err)
        assert len(line) <= 400
        return line

    @property
    def text(self) -> str:
        assert not errors_in(self.err) or self.status
        return self.out + self.err

    def findings(self, level: str) -> list[dict[str, Any]]:
        """Return what the report of data.py check lists on a level."""
        return [row for row in self.report["findings"] if row["level"] == level]


def run(workspace: Workspace, command: Callable[[list[str]], int], argv: tuple[str, ...]) -> Outcome:
    """Run a command in this process; nothing but runs/ may have changed afterwards."""
    before = snapshot(workspace.folder)
    workspace.captured.readouterr()
    status = command([*argv])
    outcome = Outcome(status, *workspace.captured.readouterr())
    assert "Traceback" not in outcome.err, outcome.err
    assert snapshot(workspace.folder) == before, "the data were changed"
    return outcome


def run_check(workspace: Workspace, *argv: str) -> Outcome:
    """Run data.py check, with its report."""
    report = workspace.folder / "report.json"
    outcome = run(workspace, data.main, ("check", *ON_DATA, "--json", str(report), *argv))
    content = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    report.unlink(missing_ok=True)
    return Outcome(outcome.status, outcome.out, outcome.err, content)


def run_train(workspace: Workspace, *argv: str) -> Outcome:
    """Run train.py for an epoch; a run that an error stops must not have begun."""
    outcome = run(workspace, train.main, (*ON_DATA, *QUICK, *argv))
    folder = workspace.folder / "runs" / "train"
    assert folder.exists() == (outcome.status == 0), "stopped after the first step, or without a run folder"
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def run_evaluate(workspace: Workspace, weights: Path, *argv: str) -> Outcome:
    """Run evaluate.py on the split val; the report is its metrics."""
    words = (*ON_DATA, "--weights", str(weights), "--split", "val", "--device", "cpu", "--exist-ok")
    outcome = run(workspace, evaluate.main, (*words, *argv))
    metrics = workspace.folder / "runs" / "evaluate" / "exp" / "metrics.json"
    content = json.loads(metrics.read_text()) if outcome.status == 0 else {}
    return Outcome(outcome.status, outcome.out, outcome.err, content)
