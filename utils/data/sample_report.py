"""Inspection of one image: the record of its usable objects, and findings about the rest.

In training an object that extends past the image is clipped if at least 1 px and 20 % of its area remain,
else skipped; the image stays. In validation and test a skipped object is an error, because it would change
the score. A box is checked against the pixels of the image, whatever <size> says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.data.annotation_cache import SampleContent
from utils.data.samples import Sample, exists
from utils.data.voc import Box
from utils.vision.image_reader import ImageHeader

SKIPPED = "object skipped"
CLIPPED = "object clipped"
UNKNOWN = "unknown class"
_MIN_SIDE = 1.0  # pixels of a clipped box
_MIN_AREA = 0.2  # of the annotated box


@dataclass(frozen=True)
class Record:
    """One usable image with its objects.

    Attributes:
        image_id: unique over all splits of the data.
        width, height: pixels of the image as displayed.
        names: class name of each object.
        boxes: float32 (M, 4), (x1, y1, x2, y2) edges in pixels of the displayed image, inside it.
        difficult: bool (M,), VOC's difficult flag.
        image_hash: 64-bit difference hash, if requested.
    """

    image_id: str
    image_path: Path
    width: int
    height: int
    names: tuple[str, ...]
    boxes: NDArray[np.float32]
    difficult: NDArray[np.bool_]
    image_hash: int | None = None


@dataclass(frozen=True)
class Finding:
    """An error, a warning, or a note about what is corrected without loss.

    Attributes:
        kind: findings are counted by kind.
        number: the object's place in its file, counted from 1; 0 for the whole file.
        name: the object's class.
        image_id: empty if it is about no single image.
    """

    level: str
    kind: str
    file: Path
    reason: str
    number: int = 0
    name: str = ""
    image_id: str = ""

    def __str__(self) -> str:
        named = f" ({self.name})" if self.name else ""
        place = f": object {self.number}{named}" if self.number else ""
        return f"{self.file}{place}: {self.reason}"


def inspect_sample(
    sample: Sample,
    content: SampleContent,
    *,
    wanted: Collection[str] | None,
    renames: Mapping[str, str],
    training: bool,
) -> tuple[Record | None, list[Finding]]:
    """Check the annotation of one image against its pixels.

    Objects of classes that are not `wanted`, after the renames, are skipped; None takes all. Unless in
    training, a skipped object is an error.

    Returns:
        The record, None if the image cannot be used (the first finding says why), and the findings.
    """
    image, xml, broken = sample.image_path, sample.xml_path or sample.image_path, "with a broken annotation"
    annotation, header = content.annotation, content.header
    findings: list[Finding] = []

    def add(level: str, kind: str, reason: str, number: int = 0, name: str = "", file: Path = xml) -> None:
        reason = reason.removeprefix(f"{file}: ")
        findings.append(Finding(level, kind, file, reason, number, name, sample.image_id))

    if sample.problem:
        add("error", "missing or ambiguous", sample.problem, file=image)
    if content.xml_error:
        add("error", broken if exists(xml) else "without annotation", content.xml_error)
    for number, name, reason in annotation.errors if annotation else ():
        add("error", broken, reason, number, name)
    if content.image_error:
        add("error", "unreadable", content.image_error, file=image)
    if findings or annotation is None or header is None:
        return None, findings
    stored, displayed = (header.height, header.width), (header.width, header.height)
    stated = annotation.size
    rotated = header.is_stored_size(stated)
    if rotated:
        sides = "stored as {}x{}, displayed as {}x{}".format(*stored, *displayed)
        add("note", "rotated by EXIF", f"{sides}; its boxes, drawn on the stored pixels, are rotated too")
    elif stated is not None and stated != displayed:
        add("warning", "wrong <size>", "<size> is {}x{}, the image {}x{}".format(*stated, *displayed))
    names, boxes, difficult = [], [], []
    for number, item in enumerate(annotation.objects, start=1):
        name = renames.get(item.name, item.name)
        box = rotate_box(item.box, header) if rotated else item.box
        clipped, reason = clip_box(box, header.width, header.height)
        if wanted is not None and name not in wanted:
            add("warning", UNKNOWN, "its class is not among the wanted ones", number, name)
        elif clipped is None:
            add("warning" if training else "error", SKIPPED, reason, number, name)
        else:
            names.append(name)
            boxes.append(clipped)
            difficult.append(item.difficult)
            if clipped != box:  # often by one pixel, in files that count pixels from 0
                level = "warning" if reason else "note"
                add(level, CLIPPED, f"clipped, {reason or 'by a pixel'}", number, name)
    record = Record(
        sample.image_id,
        sample.image_path,
        header.width,
        header.height,
        tuple(names),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(difficult, dtype=np.bool_),
        content.image_hash,
    )
    return record, findings


def rotate_box(box: Box, header: ImageHeader) -> Box:
    """Map a box from pixels of the stored image to the displayed one, for EXIF orientations 5 to 8."""
    x1, y1, x2, y2 = box
    if header.orientation in (6, 7):  # the stored bottom is displayed at the left
        left, right = header.width - y2, header.width - y1
    else:
        left, right = y1, y2
    if header.orientation in (7, 8):  # the stored right is displayed at the top
        top, bottom = header.height - x2, header.height - x1
    else:
        top, bottom = x1, x2
    return left, top, right, bottom


def clip_box(box: Box, width: int, height: int) -> tuple[Box | None, str]:
    """Clip a box, (x1, y1, x2, y2) edges in pixels, to its image, or reject it.

    A box one pixel wide or high (xmin = xmax) is a slip of the labeler and rejected. A box that extends past
    the image by up to a pixel, as in files that count pixels from 0, is clipped without a reason.

    Returns:
        The box inside the image, or None; and the reason, empty if there is nothing to report.
    """
    x1, y1, x2, y2 = box
    written = f"xmin {x1 + 1:g}, ymin {y1 + 1:g}, xmax {x2:g}, ymax {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return None, f"inverted ({written})"
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None, f"less than a pixel wide or high ({written})"
    if x2 - x1 == 1 or y2 - y1 == 1:
        return None, f"no area ({written})"
    inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if inside == box:
        return box, ""
    new_width, new_height = inside[2] - inside[0], inside[3] - inside[1]
    share = new_width * new_height / ((x2 - x1) * (y2 - y1))
    outside = f"outside the image of {width}x{height} ({written})"
    if new_width <= 0 or new_height <= 0:
        return None, f"wholly {outside}"
    if min(new_width, new_height) < _MIN_SIDE or share < _MIN_AREA:
        return None, f"mostly {outside}"
    slight = all(abs(new - old) <= 1 for new, old in zip(inside, box, strict=True))
    return inside, "" if slight else f"partly {outside}"
