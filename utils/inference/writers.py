"""What a prediction leaves behind: annotated pictures, cut-out objects, lines of JSON and for the console."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nets.structures import Detections
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.inference.frames import Frame
from utils.inference.sources import VIDEO_SUFFIXES


class PictureWriter:
    """Writes pictures into a folder under the names of their sources; a name that is taken gets a number."""

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        """Choose a file for every source.

        Args:
            folder: where the pictures go; must exist.
            sources: the files that the pictures are made from.

        Raises:
            UserError: a picture would overwrite a source.
        """
        self.targets: dict[Path, Path] = {}
        taken: set[str] = set()
        for source in sources:
            target = _free_name(folder, source, taken)
            taken.add(target.name.casefold())  # some file systems take A.jpg and a.jpg for one
            self.targets[source] = target
        refuse_overwriting(self.targets.values(), sources)

    def write(self, source: Path, image: np.ndarray) -> Path:
        """Write the picture of a source, uint8 (H, W, 3) in RGB, and return its path.

        Raises:
            UserError: it cannot be written.
        """
        target = self.targets[source]
        _save(image, target)
        return target


class CropWriter:
    """Writes each object that was found to FOLDER/CLASS/IMAGE_N.jpg, N counting those of the image."""

    def __init__(self, folder: Path, sources: Sequence[Path], class_names: Sequence[str]) -> None:
        """Choose a stem for every source; one that is taken gets a number.

        Args:
            folder: where the folders of the classes go.
            sources: the files that the objects are cut from.
            class_names: the names behind the labels.
        """
        self._stems: dict[Path, str] = {}
        taken: set[str] = set()
        for source in sources:
            stem = _free_stem(source.stem, taken)
            taken.add(stem.casefold())
            self._stems[source] = stem
        self._folders = [folder / _as_file_name(name) for name in class_names]

    def write(self, frame: Frame, found: Detections) -> None:
        """Write the objects found in a picture; of a video IMAGE is followed by the number of the frame.

        Raises:
            UserError: a file cannot be written.
        """
        stem = self._stems[frame.path]
        if frame.number is not None:
            stem = f"{stem}_frame{frame.number:06}"
        rows = zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
        for number, ((left, top, right, bottom), label) in enumerate(rows, start=1):
            folder = self._folders[label]
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder}: cannot write here: {error.strerror}", exit_code=1) from None
            rows_of, columns = slice(int(top), math.ceil(bottom)), slice(int(left), math.ceil(right))
            _save(frame.image[rows_of, columns], folder / f"{stem}_{number}.jpg")


def refuse_overwriting(outputs: Any, sources: Sequence[Path]) -> None:
    """Hold that no file to be written is one that is read.

    Raises:
        UserError: one is; names it.
    """
    read = {os.path.realpath(source) for source in sources}  # Path.resolve stumbles over a link to itself
    for output in outputs:
        if os.path.realpath(output) in read:
            raise UserError(
                f"{output}: is also a source, which is never overwritten; choose another place to write to"
            )


def json_line(frame: Frame, found: Detections, class_names: Sequence[str]) -> str:
    """Describe what was found in a picture as one line of JSON.

    Args:
        frame: the picture; one of a video adds its number, from 0, and its time in seconds.
        found: detections in pixels of the picture.
        class_names: the names behind the labels.
    """
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    detections = [
        {
            "box": [round(edge, 3) for edge in box],
            "score": round(score, 6),
            "label": class_names[label],
            "class_id": label,
        }
        for box, score, label in rows
    ]
    height, width = frame.image.shape[:2]
    line: dict[str, Any] = {"path": shown(frame.name), "width": width, "height": height}
    if frame.number is not None and frame.time_s is not None:
        line |= {"frame": frame.number, "time_s": round(frame.time_s, 3)}
    return json.dumps(line | {"detections": detections}, ensure_ascii=False, allow_nan=False)


def console_line(path: Path, found: Detections, class_names: Sequence[str], milliseconds: float) -> str:
    """Describe what was found in an image for a reader, such as `a.jpg  2 cat 1 dog  31 ms`."""
    counts = Counter(class_names[label] for label in found.labels.tolist())
    return f"{path}  {describe_counts(counts)}  {milliseconds:.0f} ms"


def shown(path: Path | str) -> str:
    """Return a path as text that any file can hold: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def describe_counts(counts: Counter[str]) -> str:
    """Describe how many objects there are of each class, such as `2 cat 1 dog`."""
    return " ".join(f"{count} {name}" for name, count in counts.most_common()) or "0 objects"


def _save(image: np.ndarray, target: Path) -> None:
    kind = {"format": "PNG"} if target.suffix == ".png" else {"format": "JPEG", "quality": 92}
    with atomic_write(target) as file:
        Image.fromarray(image).save(file, **kind)


def _free_name(folder: Path, source: Path, taken: set[str]) -> Path:
    suffix = source.suffix.lower()
    suffix = ".mp4" if suffix in VIDEO_SUFFIXES else ".png" if suffix == ".png" else ".jpg"
    return folder / f"{_free_stem(source.stem, taken, suffix)}{suffix}"


def _free_stem(stem: str, taken: set[str], suffix: str = "") -> str:
    number = 1
    while True:
        candidate = stem if number == 1 else f"{stem}_{number}"
        if f"{candidate}{suffix}".casefold() not in taken:
            return candidate
        number += 1


def _as_file_name(class_name: str) -> str:
    """Return the name of a class as that of a folder: a name such as ../x must not lead out of its place."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", class_name).strip(" .") or "_"
