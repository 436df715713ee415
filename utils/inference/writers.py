"""Writers of detections: annotated images, crops, VOC XML, YOLO label files, JSON and console lines."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nets.boxes import xyxy_to_cxcywh
from nets.structures import Detections
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.voc import VocObject, write_annotation
from utils.inference.frames import Frame
from utils.inference.sources import VIDEO_SUFFIXES
from utils.vision.image_reader import Pixels

_CLASSES = "classes.txt"
_MIN_SIDE = 2  # pixels of a box in XML; nobody could correct a smaller one


class ImageWriter:
    """Writes images into a folder under the names of their sources; a name that is taken gets a number.

    Attributes:
        targets: the file of each source.
    """

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        """Choose a file for every source.

        Raises:
            UserError: an image would overwrite a source.
        """
        self.targets: dict[Path, Path] = {}
        taken: set[str] = set()
        for source in sources:
            suffix = source.suffix.lower()
            suffix = ".mp4" if suffix in VIDEO_SUFFIXES else ".png" if suffix == ".png" else ".jpg"
            self.targets[source] = folder / _free_name(source.stem, taken, suffix)
        refuse_overwriting(self.targets.values(), sources)

    def write(self, source: Path, image: Pixels) -> Path:
        """Write the image of a source, uint8 (H, W, 3) in RGB, and return its path."""
        target = self.targets[source]
        _save(image, target)
        return target


class CropWriter:
    """Writes each detected object to FOLDER/CLASS/IMAGE_N.jpg, N counting those of the image."""

    def __init__(self, folder: Path, sources: Sequence[Path], class_names: Sequence[str]) -> None:
        taken: set[str] = set()
        self._stems = {source: _free_name(source.stem, taken) for source in sources}
        # A class named ../x must not lead out of the folder.
        safe = (re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip(" .") or "_" for name in class_names)
        self._folders = [folder / name for name in safe]

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the objects of a frame; in a video IMAGE is followed by the number of the frame."""
        stem = self._stems[frame.path]
        if frame.number is not None:
            stem = f"{stem}_frame{frame.number:06}"
        rows = zip(detections.boxes.tolist(), detections.labels.tolist(), strict=True)
        for number, ((left, top, right, bottom), label) in enumerate(rows, start=1):
            folder = self._folders[label]
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder}: cannot write here: {error.strerror}", exit_code=1) from None
            crop = frame.image[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
            _save(crop, folder / f"{stem}_{number}.jpg")


class XmlWriter:
    """Writes NAME.xml for each image, which labelImg and train.py read."""

    def __init__(self, folder: Path, sources: Sequence[Path], class_names: Sequence[str]) -> None:
        """Choose a file for every image and make the folder; the images' own folder makes them a data set.

        Raises:
            UserError: two images would share a file, or a file exists.
        """
        self._targets = _choose_label_files("--xml", folder, ".xml", sources)
        self._class_names = class_names

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the annotation of an image, boxes rounded to whole pixels, which is what labelImg reads."""
        height, width = frame.image.shape[:2]
        objects = [
            VocObject(self._class_names[label], (left, top, right, bottom))
            for (left, top, right, bottom), label in zip(
                detections.boxes.round().tolist(), detections.labels.tolist(), strict=True
            )
            if right - left >= _MIN_SIDE and bottom - top >= _MIN_SIDE
        ]
        write_annotation(self._targets[frame.path], as_utf8(frame.path.name), width, height, objects)


class TxtWriter:
    """Writes NAME.txt for each image with a line `class cx cy w h` an object, and classes.txt beside them."""

    def __init__(
        self, folder: Path, sources: Sequence[Path], class_names: Sequence[str], *, scores: bool = False
    ) -> None:
        """Choose a file for every image, make the folder and write classes.txt.

        Args:
            folder: where the files go.
            sources: the image files.
            class_names: the name of each label.
            scores: end each line with the score, which training tools do not accept.

        Raises:
            UserError: two images would share a file, or a file exists.
        """
        self._targets = _choose_label_files("--txt", folder, ".txt", sources)
        self._scores = scores
        classes = folder / _CLASSES
        if classes in self._targets.values():
            raise UserError(f"--txt {folder}: {_CLASSES} is for the class names; rename that image")
        text = "".join(f"{name}\n" for name in class_names)
        if not classes.exists():
            with atomic_write(classes, "w") as file:
                file.write(text)
        elif classes.read_text(encoding="utf-8", errors="replace") != text:
            raise UserError(f"--txt {folder}: {_CLASSES} there names other classes; choose another folder")

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the labels of an image: center and size of each box as fractions of the image."""
        height, width = frame.image.shape[:2]
        boxes = xyxy_to_cxcywh(detections.boxes) / detections.boxes.new_tensor((width, height) * 2)
        columns = [boxes, detections.scores[:, None]] if self._scores else [boxes]
        rows = torch.cat(columns, dim=1).tolist()
        with atomic_write(self._targets[frame.path], "w") as file:
            for label, row in zip(detections.labels.tolist(), rows, strict=True):
                file.write(f"{label} {' '.join(f'{value:.6f}' for value in row)}\n")


def refuse_overwriting(outputs: Iterable[Path | str], sources: Sequence[Path]) -> None:
    """Check that no file to be written is also read.

    Raises:
        UserError: one is; names it.
    """
    read = {os.path.realpath(source) for source in sources}  # Path.resolve fails on a link to itself
    for output in outputs:
        if os.path.realpath(output) in read:
            raise UserError(
                f"{output}: is also a source, which is never overwritten; choose another place to write to"
            )


def json_line(frame: Frame, detections: Detections, class_names: Sequence[str]) -> str:
    """Describe the detections of a frame as one line of JSON; a video's has number and time of the frame."""
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    height, width = frame.image.shape[:2]
    line: dict[str, Any] = {"path": as_utf8(frame.name), "width": width, "height": height}
    if frame.number is not None and frame.time_s is not None:
        line |= {"frame": frame.number, "time_s": round(frame.time_s, 3)}
    line["detections"] = [
        {
            "box": [round(edge, 3) for edge in box],
            "score": round(score, 6),
            "label": class_names[label],
            "class_id": label,
        }
        for box, score, label in rows
    ]
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def console_line(path: Path, detections: Detections, class_names: Sequence[str], milliseconds: float) -> str:
    """Describe the detections of an image for the console, such as `a.jpg  2 cat 1 dog  31 ms`."""
    counts = Counter(class_names[label] for label in detections.labels.tolist())
    return f"{path}  {describe_counts(counts)}  {milliseconds:.0f} ms"


def describe_counts(counts: Counter[str]) -> str:
    """Describe the number of objects of each class, such as `2 cat 1 dog`."""
    return " ".join(f"{count} {name}" for name, count in counts.most_common()) or "0 objects"


def as_utf8(path: Path | str) -> str:
    """Return a path as text that any file can hold: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _save(image: Pixels, target: Path) -> None:
    options = {"format": "PNG"} if target.suffix == ".png" else {"format": "JPEG", "quality": 92}
    with atomic_write(target) as file:
        Image.fromarray(image).save(file, **options)


def _free_name(stem: str, taken: set[str], suffix: str = "") -> str:
    """Return STEM with the suffix, numbered where it is taken, and add it to the taken ones."""
    name, number = f"{stem}{suffix}", 1
    while name.casefold() in taken:  # some file systems take A.jpg and a.jpg for one
        number += 1
        name = f"{stem}_{number}{suffix}"
    taken.add(name.casefold())
    return name


def _choose_label_files(flag: str, folder: Path, suffix: str, sources: Sequence[Path]) -> dict[Path, Path]:
    """Return the file of each source, and make the folder.

    An annotation belongs to the image of the same name, so a name that is taken cannot get a number. And no
    file is replaced: it may hold hours of corrections.
    """
    targets: dict[Path, Path] = {}
    owners: dict[str, Path] = {}
    for source in sources:
        target = folder / f"{source.stem}{suffix}"
        other = owners.setdefault(target.name.casefold(), source)
        if other is not source:
            raise UserError(
                f"{flag} {folder}: {other} and {source} would both become {target.name}; rename one of them, "
                "or predict them into separate folders"
            )
        targets[source] = target
    existing = [target for target in targets.values() if target.exists()]
    if existing:
        more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise UserError(
            f"{flag} {folder}: {existing[0].name}{more} and may hold corrections, which are never "
            "overwritten; choose another folder, or name only the images without"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write here: {error.strerror or error}") from None
    return targets
