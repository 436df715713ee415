"""One look at every annotation and every image header before training, so that no fault waits for epoch 37.

In training an object that reaches out of the image is clipped if at least 1 px and 20 % of its area remain,
else left out; the image stays, a warning names file, object and reason. In validation and test a left-out
object is an error unless bad data is to be skipped, because it would change the score. A box is checked
against the pixels of the image; a <size> that says otherwise is only warned about.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.console import warn
from utils.data.clip import clip_box, turn_box
from utils.data.layout import Sample
from utils.data.voc import VocAnnotation, VocObject, read_annotation
from utils.errors import UserError
from utils.images import ImageHeader, read_header

_SHOWN = 10


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
    """

    image_id: str
    image_path: Path
    width: int
    height: int
    names: tuple[str, ...]
    boxes: NDArray[np.float32]
    difficult: NDArray[np.bool_]


@dataclass
class ScanReport:
    """What the scan found.

    Attributes:
        records: the usable images, in the order of the samples.
        class_counts: objects a class, over the records.
        total: images looked at.
        skipped: images left out, counted by reason.
        objects_left_out: objects left out of images that stay.
        objects_clipped: objects that were cut at the border of their image.
        unknown_classes: objects left out because their class is not wanted, by name.
    """

    records: list[Record] = field(default_factory=list)
    class_counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    objects_left_out: int = 0
    objects_clipped: int = 0
    unknown_classes: Counter[str] = field(default_factory=Counter)

    def summary(self) -> list[str]:
        """Describe the data in lines for the log: images, objects a class, and what was left out."""
        objects = sum(self.class_counts.values())
        classes = ", ".join(f"{name} {count}" for name, count in sorted(self.class_counts.items()))
        lines = [f"{len(self.records)} images, {objects} objects: {classes}"]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            lines.append(f"skipped {self.skipped.total()} of {self.total} images: {reasons}")
        if self.objects_clipped or self.objects_left_out:
            lines.append(f"objects clipped: {self.objects_clipped}, left out: {self.objects_left_out}")
        return lines


@dataclass
class _Look:
    """What looking at one sample gave: a record, or the fault that rules it out; and words on its objects."""

    record: Record | None = None
    fault: str = ""
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    clipped: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


def scan(
    samples: Sequence[Sample],
    *,
    class_names: Collection[str] | None = None,
    skip_bad: bool = False,
    training: bool = True,
) -> ScanReport:
    """Look at every sample: parse its XML, read its image header, check every box.

    Args:
        samples: the images of one or more splits; an id that comes twice counts once.
        class_names: the wanted classes; objects of others are left out with a warning. None takes all.
        skip_bad: leave faulty images out with a warning instead of raising.
        training: False holds the data to the rule of val and test.

    Returns:
        The usable images and the counts. Warnings have been written: ten of a kind, then their number.

    Raises:
        UserError: faults that may not be skipped (several are listed as warnings first), no image left, or,
            in training, no object of a wanted class.
    """
    unique = list({sample.image_id: sample for sample in samples}.values())
    wanted = None if class_names is None else frozenset(class_names)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # files on a network drive take their time
        looks = list(pool.map(lambda sample: _look(sample, wanted), unique))
    report = _collect(looks)
    faults = [look.fault for look in looks if look.fault]
    left_out = [note for look in looks for note in look.left_out]
    if not skip_bad:
        _refuse(faults if training else faults + left_out)
    _warn_each("left out: ", faults)
    _warn_each("left out: ", left_out)
    _warn_each("", [note for look in looks for note in look.notes])
    _warn_about_unknown(looks, report.unknown_classes)
    _require_something(report, training)
    return report


def collect_class_names(report: ScanReport) -> tuple[str, ...]:
    """Return the class names of the scanned annotations, sorted, which for VOC's twenty is VOC's order."""
    return tuple(sorted(report.class_counts))


def count_overlap(first: Iterable[Record], second: Iterable[Record]) -> int:
    """Count the images that stand in both lists, by file."""
    return len({record.image_path for record in first} & {record.image_path for record in second})


def _look(sample: Sample, wanted: frozenset[str] | None) -> _Look:
    if sample.problem:
        return _Look(fault=sample.problem, reason="missing or ambiguous")
    annotation = VocAnnotation(None, ())
    if sample.xml_path is not None:
        try:
            annotation = read_annotation(sample.xml_path)
        except UserError as error:
            reason = "with a broken annotation" if sample.xml_path.exists() else "without annotation"
            return _Look(fault=str(error), reason=reason)
    try:
        header = read_header(sample.image_path)
    except UserError as error:
        return _Look(fault=str(error), reason="unreadable")
    return _check_objects(sample, annotation, header, wanted)


def _check_objects(
    sample: Sample, annotation: VocAnnotation, header: ImageHeader, wanted: frozenset[str] | None
) -> _Look:
    look = _Look()
    turned = _written_for_stored_pixels(annotation, header)
    if annotation.size not in (None, (header.width, header.height)) and not turned:
        stated = "x".join(map(str, annotation.size or ()))
        look.notes.append(f"{sample.xml_path}: <size> is {stated}, the image {header.width}x{header.height}")
    kept: list[VocObject] = []
    for number, item in enumerate(annotation.objects, start=1):
        if wanted is not None and item.name not in wanted:
            look.unknown[item.name] += 1
            continue
        box = turn_box(item.box, header) if turned else item.box
        clipped, reason = clip_box(box, header.width, header.height)
        where = f"{sample.xml_path}: object {number} ({item.name})"
        if clipped is None:
            look.left_out.append(f"{where}: {reason}")
            continue
        if reason:
            look.notes.append(f"{where}: clipped, {reason}")
        look.clipped += clipped != box
        kept.append(VocObject(item.name, clipped, item.difficult))
    look.record = _make_record(sample, header, kept)
    return look


def _make_record(sample: Sample, header: ImageHeader, objects: Sequence[VocObject]) -> Record:
    return Record(
        sample.image_id,
        sample.image_path,
        header.width,
        header.height,
        tuple(item.name for item in objects),
        np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
        np.array([item.difficult for item in objects], dtype=np.bool_),
    )


def _written_for_stored_pixels(annotation: VocAnnotation, header: ImageHeader) -> bool:
    """Tell whether the boxes were drawn on the stored picture, which EXIF turns by 90 degrees for display."""
    stored = header.height, header.width
    return header.swapped and header.width != header.height and annotation.size == stored


def _collect(looks: Sequence[_Look]) -> ScanReport:
    report = ScanReport(total=len(looks))
    for look in looks:
        if look.record is None:
            report.skipped[look.reason] += 1
            continue
        report.records.append(look.record)
        report.class_counts.update(look.record.names)
        report.unknown_classes.update(look.unknown)
        report.objects_left_out += len(look.left_out)
        report.objects_clipped += look.clipped
    return report


def _refuse(faults: Sequence[str]) -> None:
    if len(faults) > 1:
        _warn_each("", faults)
    if faults:
        more = f" (and {len(faults) - 1} more, see above)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}; mend the data or add --skip-bad")


def _warn_each(prefix: str, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        warn(prefix + line)
    if len(lines) > _SHOWN:
        warn(f"… and {len(lines) - _SHOWN} more")


def _warn_about_unknown(looks: Sequence[_Look], unknown: Counter[str]) -> None:
    if unknown:
        first = next(look.record.image_id for look in looks if look.unknown and look.record)
        counts = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common())
        warn(f"objects of unknown classes are left out: {counts}; the first in {first}.xml")


def _require_something(report: ScanReport, training: bool) -> None:
    if not report.records:
        raise UserError(f"none of the {report.total} images can be used; the reasons are listed above")
    if training and not report.class_counts:
        others = ", ".join(repr(name) for name in list(report.unknown_classes)[:10])
        found = f"there are only objects of {others}" if others else "no image has an object"
        raise UserError(f"nothing to learn: {found}; check the annotations and --classes")
