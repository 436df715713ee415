"""Inputs that a command line names, weights and data folder: found before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from utils.cli.class_names import MODEL_DATA, read_class_names
from utils.cli.errors import UserError

RUNS = Path("runs/train")
COCO_WEIGHTS = MODEL_DATA / "yolov4-tiny.weights"  # the official ones, fetched when they are first needed
VOC_WEIGHTS = MODEL_DATA / "yolov4-tiny-voc.pth"  # described by yolov4-tiny-voc.md beside it


def locate_weights(weights: str) -> Path:
    """Return the file that `--weights` names: "coco", "voc", "last" (the newest best.pth of a run) or a path.

    Nothing is fetched: the file of "coco" may not be there yet.

    Raises:
        UserError: there is no such file.
    """
    if weights == "coco":
        return COCO_WEIGHTS
    if weights == "voc":
        if not VOC_WEIGHTS.is_file():
            raise UserError(
                f"{VOC_WEIGHTS}: missing, though it is part of the project; restore it "
                f"(git checkout -- {VOC_WEIGHTS.name} in its folder), or use --weights coco"
            )
        return VOC_WEIGHTS
    if weights == "last":
        newest = find_newest("best.pth")
        if newest is None:
            raise UserError(
                f"--weights last: no run with weights/best.pth in {RUNS}; train first, or name a file"
            )
        return newest
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; --weights takes coco, voc, last or a file")
    return path


def locate_checkpoint(resume: str) -> Path:
    """Return the file that `--resume` names: "auto" (the newest last.pth under runs/train) or a path.

    Raises:
        UserError: there is no such file.
    """
    path = find_newest("last.pth") if resume == "auto" else Path(resume)
    if path is None:
        raise UserError(f"--resume: no run with weights/last.pth in {RUNS}; name one: --resume FILE")
    if not path.is_file():
        raise UserError(f"--resume {path}: no such file; name the last.pth of a run")
    return path


def find_newest(name: str) -> Path | None:
    """Return the newest weights file of that name among the runs under runs/train, or None."""
    return max(RUNS.glob(f"*/weights/{name}"), key=lambda path: path.stat().st_mtime, default=None)


def check_data_folder(data: Path | str) -> None:
    """Check that the folder that `--data` names exists.

    Raises:
        UserError: it does not; names the layouts and --demo.
    """
    if not Path(data).is_dir():
        raise UserError(describe_layouts(data))


def say_current_folder(path: Path | str) -> str:
    """Return what a relative path is relative to, for a message; "" for an absolute one."""
    return "" if Path(path).is_absolute() else f", relative to the current folder {Path.cwd()}"


def check_class_file(classes: str | None) -> None:
    """Check the file that `--classes` names, if it is given.

    Raises:
        UserError: as `read_class_names`.
    """
    if classes:
        read_class_names(classes)


def describe_layouts(data: Path | str, contents: str = "") -> str:
    """Return the message for a folder that is missing or has no layout; `contents` is what it has."""
    state = "no data in VOC layout" if Path(data).is_dir() else f"no such folder{say_current_folder(data)}"
    if contents:
        return f"{data}: {state}: {contents}"
    return (
        f"{data}: {state}; give a VOCdevkit, a folder with Annotations/, JPEGImages/ and ImageSets/Main/, a "
        "folder with images/ and annotations/, or images with XML beside them; "
        "to try it without data of your own: --demo"
    )
