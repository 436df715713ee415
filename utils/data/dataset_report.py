"""Scan of a data set: every annotation and image header is checked before training or evaluation starts.

In training an object that extends past the image is clipped if at least 1 px and 20 % of its area remain,
else skipped; the image stays. In validation and test a skipped object is an error, because it would change
the score. A box is checked against the pixels of the image, whatever <size> says.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.cli.console import plural, warn
from utils.cli.errors import UserError
from utils.data.annotation_cache import AnnotationCache, SampleContent, read_samples
from utils.data.samples import Sample, exists
from utils.data.voc_xml import DELETED, Box
from utils.vision.image_reader import ImageHeader

MAX_SHOWN = 10  # findings of a kind; the others are counted
SKIPPED = "object skipped"
CLIPPED = "object clipped"
UNKNOWN = "unknown class"
UNREVIEWED = "unreviewed predictions"
_MIN_SIDE = 1.0  # pixels of a clipped box
_MIN_AREA = 0.2  # of the annotated box


@dataclass(frozen=True)
class Record:
    """One usable image with its objects."""

    image_id: str  # unique over all splits of the data
    image_path: Path
    width: int  # pixels of the image as displayed
    height: int
    names: tuple[str, ...]  # class name of each object
    boxes: NDArray[np.float32]  # (M, 4), (x1, y1, x2, y2) edges in pixels of the displayed image, inside it
    difficult: NDArray[np.bool_]  # (M,), VOC's difficult flag
    image_hash: int | None = None  # 64-bit difference hash, if requested


@dataclass(frozen=True)
class Finding:
    """An error, a warning, or a note about what is corrected without loss."""

    level: str
    kind: str  # findings are counted by kind
    file: Path
    reason: str
    number: int = 0  # the object's place in its file, counted from 1; 0 for the whole file
    name: str = ""  # the object's class
    image_id: str = ""  # empty if it is about no single image

    def __str__(self) -> str:
        named = f" ({self.name})" if self.name else ""
        place = f": object {self.number}{named}" if self.number else ""
        return f"{self.file}{place}: {self.reason}"


@dataclass
class DatasetReport:
    """Result of a scan."""

    records: list[Record] = field(default_factory=list)  # the usable images, in the order of the samples
    findings: list[Finding] = field(default_factory=list)  # in the order of the samples
    class_counts: Counter[str] = field(default_factory=Counter)  # objects per class, over the records
    total: int = 0  # images scanned
    skipped: Counter[str] = field(default_factory=Counter)  # images that cannot be used, counted by reason
    written_names: set[str] = field(default_factory=set)  # class names as in the annotations, before renaming
    unreviewed: int = 0  # objects with a score, in the records or skipped
    counted: Counter[str] = field(default_factory=Counter)  # over the images, as in `VocAnnotation`

    @property
    def unknown_classes(self) -> Counter[str]:
        """Skipped objects of classes that are not wanted, counted by class."""
        return Counter(finding.name for finding in self.findings if finding.kind == UNKNOWN)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names of the objects, sorted, which for VOC's twenty is VOC's order."""
        return tuple(sorted(self.class_counts))

    def count(self, kind: str) -> int:
        """Count the findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    def summary(self) -> list[str]:
        """Describe the data in lines: images, objects per class, and what was skipped."""
        objects = sum(self.class_counts.values())
        classes = ", ".join(f"{name} {count}" for name, count in sorted(self.class_counts.items()))
        lines = [f"{plural(len(self.records), 'image')}, {plural(objects, 'object')}: {classes}"]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            lines.append(f"skipped {self.skipped.total()} of {plural(self.total, 'image')}: {reasons}")
        clipped, skipped = self.count(CLIPPED), self.count(SKIPPED)
        if clipped or skipped:
            lines.append(f"objects clipped: {clipped}, skipped: {skipped}")
        return lines + ([describe_counted(self.counted)] if self.counted else [])


def describe_counted(counted: Mapping[str, int]) -> str:
    """Describe the `counted` of annotations in a line."""
    shapes = ", ".join(f"{count} <{tag}>" for tag, count in counted.items() if tag != DELETED)
    said = [f"read as the box around the shape: {shapes}"] if shapes else []
    deleted = counted.get(DELETED, 0)
    return "; ".join([*said, *([f"skipped as <deleted>: {plural(deleted, 'object')}"] if deleted else [])])


def scan_samples(
    samples: Sequence[Sample],
    *,
    class_names: Collection[str] | None = None,
    renames: Mapping[str, str] | None = None,
    training: bool = True,
    decode: bool = False,
    hashes: bool = False,
    skip_unreviewed: bool = False,
    cache: AnnotationCache | None = None,
) -> DatasetReport:
    """Scan images: parse the XML, read the image header, check every box.

    Args:
        samples: the images of one or more splits; a repeated id counts once.
        class_names: the wanted classes; objects of others are skipped. None takes all.
        renames: new names for classes of the annotations, applied before `class_names`.
        training: False applies the rule of val and test: a skipped object is an error.
        decode: read every pixel too.
        hashes: give the records their `image_hash`.
        skip_unreviewed: skip objects with a score, and images that have no others.
        cache: an open one, which saves a second scan of the same folders from reading it again.
    """
    unique = list({sample.image_id: sample for sample in samples}.values())
    wanted = None if class_names is None else frozenset(class_names)
    report = DatasetReport(total=len(unique))
    contents = read_samples(unique, decode=decode, hashes=hashes, cache=cache)
    options: dict[str, Any] = {"training": training, "skip_unreviewed": skip_unreviewed}
    for sample, content in zip(unique, contents, strict=True):
        record, findings = _inspect_sample(sample, content, wanted=wanted, renames=renames or {}, **options)
        report.findings += findings
        if content.annotation:
            report.written_names |= {item.name for item in content.annotation.objects}
            report.unreviewed += sum(item.score is not None for item in content.annotation.objects)
            report.counted.update(content.annotation.counted)
        if record is None:
            report.skipped[findings[0].kind] += 1
        else:
            report.records.append(record)
            report.class_counts.update(record.names)
    return report


def _inspect_sample(
    sample: Sample,
    content: SampleContent,
    *,
    wanted: Collection[str] | None,
    renames: Mapping[str, str],
    training: bool,
    skip_unreviewed: bool,
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
    scored = sum(item.score is not None for item in annotation.objects)
    if scored:
        used = "skipped" if skip_unreviewed else "used; --skip-unreviewed skips them"
        add(
            "warning",
            UNREVIEWED,
            f"{scored} of {plural(len(annotation.objects), 'object')} with a score: {used}",
        )
        if skip_unreviewed and scored == len(annotation.objects):  # no background: nobody looked at it
            return None, findings
    if annotation.counted:
        add("note", "other than <bndbox>", describe_counted(annotation.counted))
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
        if skip_unreviewed and item.score is not None:
            continue
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


def report_findings(reports: Sequence[DatasetReport], *, skip_bad: bool, advice: str = "") -> None:
    """Write warnings, at most ten of a kind, and raise if the data cannot be used.

    With `skip_bad` errors are warnings, since faulty images and objects are skipped. `advice` tells where the
    full list is, for the end of a long one.

    Raises:
        UserError: there are errors without `skip_bad`, or no image is left.
    """
    findings = [finding for report in reports for finding in report.findings]
    errors = [finding for finding in findings if finding.level == "error"]
    if not skip_bad:
        raise_errors(errors, advice=advice)
    warn_each([finding for finding in errors if finding.kind != SKIPPED], "skipped: ", advice)
    warn_each([finding for finding in findings if finding.kind == SKIPPED], "skipped: ", advice)
    others = [f for f in findings if f.level == "warning" and f.kind not in (SKIPPED, UNKNOWN, UNREVIEWED)]
    warn_each(others, advice=advice)
    for report in reports:
        if unknown := report.unknown_classes:
            first = next(finding.file for finding in report.findings if finding.kind == UNKNOWN)
            counts = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common())
            warn(f"objects of unknown classes are skipped: {counts}; the first in {first}")
    if unreviewed := [finding for finding in findings if finding.kind == UNREVIEWED]:
        objects = plural(sum(report.unreviewed for report in reports), "object")
        where = f"{plural(len(unreviewed), 'image')}, the first in {unreviewed[0].file}"
        used = unreviewed[0].reason.partition(": ")[2]
        warn(f"{objects} with a score, as unreviewed predictions have, in {where}: {used}")
    for report in reports:
        if not report.records:
            raise UserError(f"none of the {report.total} images can be used; the reasons are listed above")


def require_objects(report: DatasetReport) -> None:
    """Raise a UserError if training data have no object of a wanted class; it names the classes found."""
    if not report.class_counts:
        others = ", ".join(repr(name) for name in list(report.unknown_classes)[:10])
        found = f"there are only objects of {others}" if others else "no image has an object"
        raise UserError(f"nothing to learn: {found}; check the annotations and --classes")


def describe_idle_renames(renames: Mapping[str, str], reports: Iterable[DatasetReport]) -> list[str]:
    """Return a line for each renamed class that no object has."""
    written = {name for report in reports for name in report.written_names}
    return [
        f"--rename {shlex.quote(f'{old}={new}')}: no object is called {old}"
        for old, new in renames.items()
        if old not in written
    ]


def count_overlap(first: Iterable[Record], second: Iterable[Record]) -> int:
    """Count the image files that are in both lists."""
    return len({record.image_path for record in first} & {record.image_path for record in second})


def warn_each(items: Sequence[object], prefix: str = "", advice: str = "") -> None:
    """Warn about the first ten items, with a prefix, and how many more there are; `advice` follows."""
    for item in items[:MAX_SHOWN]:
        warn(f"{prefix}{item}")
    if len(items) > MAX_SHOWN:
        warn(f"… and {len(items) - MAX_SHOWN} more{advice}")


def raise_errors(*kinds: Sequence[object], advice: str = "") -> None:
    """Raise a UserError with the first error; several are listed as warnings first, kind by kind."""
    errors = [item for kind in kinds for item in kind]
    if len(errors) > 1:
        for kind in kinds:
            warn_each(kind, advice=advice)
    if errors:
        more = f" (and {len(errors) - 1} more, see above)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}; fix the data or add --skip-bad")


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


def unrotate_box(box: Box, header: ImageHeader) -> Box:
    """Map a box from pixels of the displayed image to the stored one, the inverse of `rotate_box`."""
    inverse = {6: 8, 8: 6}.get(header.orientation, header.orientation)
    return rotate_box(box, ImageHeader(height=header.width, width=header.height, orientation=inverse))


def clip_box(box: Box, width: int, height: int) -> tuple[Box | None, str]:
    """Clip a box, (x1, y1, x2, y2) edges in pixels, to its image, or reject it.

    A box one pixel wide or high (xmin = xmax) is a labeling mistake and rejected. A box that extends past
    the image by up to a pixel, as in files that count pixels from 0, is clipped without a reason.

    Returns:
        The box inside the image, or None; and the reason, empty if there is nothing to report.
    """
    x1, y1, x2, y2 = box
    if x2 - x1 > 1 and y2 - y1 > 1 and x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return box, ""
    written = f"xmin {x1 + 1:g}, ymin {y1 + 1:g}, xmax {x2:g}, ymax {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return None, f"inverted ({written})"
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None, f"less than a pixel wide or high ({written})"
    if x2 - x1 == 1 or y2 - y1 == 1:
        return None, f"no area ({written})"
    inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    new_width, new_height = inside[2] - inside[0], inside[3] - inside[1]
    share = new_width * new_height / ((x2 - x1) * (y2 - y1))
    outside = f"outside the image of {width}x{height} ({written})"
    if new_width <= 0 or new_height <= 0:
        return None, f"wholly {outside}"
    if min(new_width, new_height) < _MIN_SIDE or share < _MIN_AREA:
        return None, f"mostly {outside}"
    slight = all(abs(new - old) <= 1 for new, old in zip(inside, box, strict=True))
    return inside, "" if slight else f"partly {outside}"
