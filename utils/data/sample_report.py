"""What becomes of one image and its objects: the record to work with, and what there is to say about it.

In training an object that reaches out of the image is clipped if at least 1 px and 20 % of its area remain,
else left out; the image stays. In validation and test a left-out object is an error, because it would change
the score. A box is checked against the pixels of the image, whatever <size> says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.data.annotation_cache import Facts
from utils.data.clip import clip_box, turn_box
from utils.data.samples import Sample, is_there
from utils.data.voc import VocAnnotation, VocObject
from utils.vision.image_reader import ImageHeader

BROKEN = "with a broken annotation"
LEFT_OUT = "object left out"
CLIPPED = "object clipped"
UNKNOWN = "unknown class"


@dataclass(frozen=True)
class Record:
    """One image that passed the scan, with its objects.

    Attributes:
        image_id: unique over all splits of the data.
        image_path: the image file.
        width: columns in pixels, as displayed.
        height: rows in pixels, as displayed.
        names: class name of each object.
        boxes: float32 (M, 4), (x1, y1, x2, y2) edges in pixels of the displayed image, inside it.
        difficult: bool (M,), VOC's difficult flag.
        image_hash: 64-bit difference hash, where it was asked for.
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
    """One thing that is wrong, or worth knowing, in the data.

    Attributes:
        level: "error", "warning", or "note" for what is put right without a loss.
        kind: what it is counted under.
        file: where it stands.
        reason: what it is.
        number: the object's place in its file, counted from 1; 0 when it is about the whole file.
        name: the object's class.
        image_id: the image it belongs to; empty when it belongs to none.
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


@dataclass
class Look:
    """What looking at one sample gave.

    Attributes:
        record: None when the image cannot be used; the first finding says why.
        findings: what is wrong or worth knowing.
    """

    record: Record | None = None
    findings: list[Finding] = field(default_factory=list)


def look_at(
    sample: Sample,
    facts: Facts,
    *,
    wanted: Collection[str] | None,
    renames: Mapping[str, str],
    training: bool,
) -> Look:
    """Judge what the files of one sample hold.

    Args:
        sample: the image.
        facts: what was read from its files.
        wanted: class names; objects of others are left out. None takes all.
        renames: other names for classes of the annotations, looked up first.
        training: False makes an object that is left out an error.
    """
    faults = _faults_of(sample, facts)
    if faults or facts.annotation is None or facts.header is None:
        return Look(None, faults)
    xml = sample.xml_path or sample.image_path
    findings: list[Finding] = []

    def say(level: str, kind: str, reason: str, number: int = 0, name: str = "") -> None:
        findings.append(Finding(level, kind, xml, reason, number, name, sample.image_id))

    header = facts.header
    turned = _written_for_stored_pixels(facts.annotation, header)
    if turned:
        sides = f"stored as {header.height}x{header.width}, displayed as {header.width}x{header.height}"
        say("note", "turned by EXIF", f"{sides}; its boxes, drawn on the stored pixels, are turned with it")
    elif facts.annotation.size not in (None, (header.width, header.height)):
        stated = "x".join(map(str, facts.annotation.size or ()))
        say("warning", "wrong <size>", f"<size> is {stated}, the image {header.width}x{header.height}")
    kept: list[VocObject] = []
    for number, item in enumerate(facts.annotation.objects, start=1):
        name = renames.get(item.name, item.name)
        box = turn_box(item.box, header) if turned else item.box
        clipped, reason = clip_box(box, header.width, header.height)
        if wanted is not None and name not in wanted:
            say("warning", UNKNOWN, "its class is not among the wanted ones", number, name)
        elif clipped is None:
            say("warning" if training else "error", LEFT_OUT, reason, number, name)
        else:
            kept.append(VocObject(name, clipped, item.difficult))
            if clipped != box:  # files that count pixels from 0 are many, and reach out by one
                say(
                    "warning" if reason else "note",
                    CLIPPED,
                    f"clipped, {reason or 'by a pixel'}",
                    number,
                    name,
                )
    return Look(_make_record(sample, header, kept, facts.image_hash), findings)


def _faults_of(sample: Sample, facts: Facts) -> list[Finding]:
    """Return what rules the image out."""
    image, xml = sample.image_path, sample.xml_path or sample.image_path
    found = []
    if sample.problem:
        found.append(("missing or ambiguous", image, sample.problem, 0, ""))
    if facts.xml_fault:
        found.append((BROKEN if is_there(xml) else "without annotation", xml, facts.xml_fault, 0, ""))
    for number, name, reason in facts.annotation.faults if facts.annotation else ():
        found.append((BROKEN, xml, reason, number, name))
    if facts.image_fault:
        found.append(("unreadable", image, facts.image_fault, 0, ""))
    return [
        Finding("error", kind, file, reason.removeprefix(f"{file}: "), number, name, sample.image_id)
        for kind, file, reason, number, name in found
    ]


def _make_record(
    sample: Sample, header: ImageHeader, objects: Collection[VocObject], image_hash: int | None
) -> Record:
    return Record(
        sample.image_id,
        sample.image_path,
        header.width,
        header.height,
        tuple(item.name for item in objects),
        np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
        np.array([item.difficult for item in objects], dtype=np.bool_),
        image_hash,
    )


def _written_for_stored_pixels(annotation: VocAnnotation, header: ImageHeader) -> bool:
    """Tell whether the boxes were drawn on the stored picture, which EXIF turns by 90 degrees for display."""
    stored = header.height, header.width
    return header.swapped and header.width != header.height and annotation.size == stored
