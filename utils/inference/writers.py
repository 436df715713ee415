"""What a prediction leaves behind: annotated pictures, a line of JSON an image, a line for the console."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nets.structures import Detections
from utils.errors import UserError
from utils.files import atomic_write


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
        self._targets: dict[Path, Path] = {}
        taken: set[str] = set()
        for source in sources:
            target = _free_name(folder, source, taken)
            taken.add(target.name.casefold())  # some file systems take A.jpg and a.jpg for one
            self._targets[source] = target
        refuse_overwriting(self._targets.values(), sources)

    def write(self, source: Path, image: np.ndarray) -> Path:
        """Write the picture of a source, uint8 (H, W, 3) in RGB, and return its path.

        Raises:
            UserError: it cannot be written.
        """
        target = self._targets[source]
        kind = {"format": "PNG"} if target.suffix == ".png" else {"format": "JPEG", "quality": 92}
        with atomic_write(target) as file:
            Image.fromarray(image).save(file, **kind)
        return target


def refuse_overwriting(outputs: Any, sources: Sequence[Path]) -> None:
    """Hold that no file to be written is one that is read.

    Raises:
        UserError: one is; names it.
    """
    read = {source.resolve() for source in sources}
    for output in outputs:
        if Path(output).resolve() in read:
            raise UserError(
                f"{output}: is also a source, which is never overwritten; choose another place to write to"
            )


def json_line(path: Path, image_size: tuple[int, int], found: Detections, class_names: Sequence[str]) -> str:
    """Describe what was found in an image as one line of JSON.

    Args:
        path: the image's file.
        image_size: (height, width) as displayed.
        found: detections in pixels of the image.
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
    height, width = image_size
    line = {"path": str(path), "width": width, "height": height, "detections": detections}
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def console_line(path: Path, found: Detections, class_names: Sequence[str], milliseconds: float) -> str:
    """Describe what was found in an image for a reader, such as `a.jpg  2 cat 1 dog  31 ms`."""
    counts = Counter(class_names[label] for label in found.labels.tolist())
    objects = " ".join(f"{count} {name}" for name, count in counts.most_common()) or "0 objects"
    return f"{path}  {objects}  {milliseconds:.0f} ms"


def _free_name(folder: Path, source: Path, taken: set[str]) -> Path:
    suffix = ".png" if source.suffix.lower() == ".png" else ".jpg"
    number = 1
    while True:
        name = f"{source.stem}{suffix}" if number == 1 else f"{source.stem}_{number}{suffix}"
        if name.casefold() not in taken:
            return folder / name
        number += 1
