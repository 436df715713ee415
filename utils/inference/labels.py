"""What was found as annotations to correct and to train on: VOC XML, or YOLO's label files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nets.structures import Detections
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.voc import Box, VocObject, write_annotation
from utils.inference.frames import Frame
from utils.inference.writers import shown

_CLASSES = "classes.txt"


class XmlWriter:
    """Writes NAME.xml an image, as labelImg opens and train.py reads it."""

    def __init__(self, folder: Path, sources: Sequence[Path], class_names: Sequence[str]) -> None:
        """Choose a file for every image and make the folder.

        Args:
            folder: where the files go; beside the images makes them a data set.
            sources: the image files.
            class_names: the names behind the labels.

        Raises:
            UserError: two images would share a file, or one is there already.
        """
        self._targets = _choose_targets("--xml", folder, ".xml", sources)
        self._class_names = class_names

    def write(self, frame: Frame, found: Detections) -> None:
        """Write the annotation of an image.

        Boxes are rounded to whole pixels, which is what labelImg reads; what is left without two pixels a
        side is left out, as it is no box that could be corrected.

        Raises:
            UserError: it cannot be written.
        """
        height, width = frame.image.shape[:2]
        rows = zip(found.boxes.round().tolist(), found.labels.tolist(), strict=True)
        objects = [VocObject(self._class_names[label], _as_box(box)) for box, label in rows if _has_area(box)]
        write_annotation(self._targets[frame.path], shown(frame.path.name), width, height, objects)


class TxtWriter:
    """Writes NAME.txt an image with a line `class cx cy w h` an object, and classes.txt beside them."""

    def __init__(
        self, folder: Path, sources: Sequence[Path], class_names: Sequence[str], *, scores: bool = False
    ) -> None:
        """Choose a file for every image, make the folder and write the names of the classes into it.

        Args:
            folder: where the files go.
            sources: the image files.
            class_names: the names behind the labels.
            scores: end each line with the score, which no training tool takes.

        Raises:
            UserError: two images would share a file, or one is there already.
        """
        self._targets = _choose_targets("--txt", folder, ".txt", sources)
        self._scores = scores
        listed = folder / _CLASSES
        if listed in self._targets.values():
            raise UserError(f"--txt {folder}: {_CLASSES} names the classes; give the image another name")
        text = "".join(f"{name}\n" for name in class_names)
        if not listed.exists():
            with atomic_write(listed, "w") as file:
                file.write(text)
        elif listed.read_text(encoding="utf-8", errors="replace") != text:
            raise UserError(f"--txt {folder}: {_CLASSES} there names other classes; choose another folder")

    def write(self, frame: Frame, found: Detections) -> None:
        """Write the labels of an image: center and size of each box in fractions of the image.

        Raises:
            UserError: the file cannot be written.
        """
        height, width = frame.image.shape[:2]
        sides = found.boxes.new_tensor((width, height))
        centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 / sides
        sizes = (found.boxes[:, 2:] - found.boxes[:, :2]) / sides
        columns = [centers, sizes, found.scores[:, None]] if self._scores else [centers, sizes]
        with atomic_write(self._targets[frame.path], "w") as file:
            for label, *numbers in zip(
                found.labels.tolist(), *(part.tolist() for part in columns), strict=True
            ):
                file.write(f"{label} {' '.join(f'{value:.6f}' for part in numbers for value in part)}\n")


def _choose_targets(flag: str, folder: Path, suffix: str, sources: Sequence[Path]) -> dict[Path, Path]:
    """Return the file of each source, and make the folder.

    No number can tell two images of one name apart here, as the name is what joins a picture and its
    annotation. And no file is replaced: it may hold hours of somebody's corrections.
    """
    targets: dict[Path, Path] = {}
    owners: dict[str, Path] = {}
    for source in sources:
        target = folder / f"{source.stem}{suffix}"
        other = owners.setdefault(target.name.casefold(), source)  # some file systems take A and a for one
        if other is not source:
            raise UserError(
                f"{flag} {folder}: {other} and {source} would both become {target.name}; rename one of them, "
                "or predict them into folders of their own"
            )
        targets[source] = target
    there = [target for target in targets.values() if target.exists()]
    if there:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise UserError(
            f"{flag} {folder}: {there[0].name}{more} there already and may hold corrections, which are never "
            "overwritten; choose another folder, or name only the images without"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write here: {error.strerror or error}") from None
    return targets


def _as_box(box: Sequence[float]) -> Box:
    left, top, right, bottom = box
    return left, top, right, bottom


def _has_area(box: Sequence[float]) -> bool:
    return box[2] - box[0] >= 2 and box[3] - box[1] >= 2
