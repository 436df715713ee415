"""Scan of a data set: every annotation and image header is checked before training or evaluation starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.annotation_cache import read_samples
from utils.data.sample_report import CLIPPED, SKIPPED, UNKNOWN, Finding, Record, inspect_sample
from utils.data.samples import Sample

MAX_SHOWN = 10  # findings of a kind; the others are counted


@dataclass
class DatasetReport:
    """Result of a scan.

    Attributes:
        records: the usable images, in the order of the samples.
        findings: errors, warnings and notes, in the order of the samples.
        class_counts: objects per class, over the records.
        total: images scanned.
        skipped: images that cannot be used, counted by reason.
        written_names: class names as in the annotations, before renaming.
    """

    records: list[Record] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    class_counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    written_names: set[str] = field(default_factory=set)

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
        lines = [f"{len(self.records)} images, {objects} objects: {classes}"]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            lines.append(f"skipped {self.skipped.total()} of {self.total} images: {reasons}")
        clipped, skipped = self.count(CLIPPED), self.count(SKIPPED)
        if clipped or skipped:
            lines.append(f"objects clipped: {clipped}, skipped: {skipped}")
        return lines


def scan_samples(
    samples: Sequence[Sample],
    *,
    class_names: Collection[str] | None = None,
    renames: Mapping[str, str] | None = None,
    training: bool = True,
    decode: bool = False,
    hashes: bool = False,
) -> DatasetReport:
    """Scan images: parse the XML, read the image header, check every box.

    Args:
        samples: the images of one or more splits; a repeated id counts once.
        class_names: the wanted classes; objects of others are skipped. None takes all.
        renames: new names for classes of the annotations, applied before `class_names`.
        training: False applies the rule of val and test: a skipped object is an error.
        decode: read every pixel too.
        hashes: give the records their `image_hash`.
    """
    unique = list({sample.image_id: sample for sample in samples}.values())
    wanted = None if class_names is None else frozenset(class_names)
    report = DatasetReport(total=len(unique))
    contents = read_samples(unique, decode=decode, hashes=hashes)
    for sample, content in zip(unique, contents, strict=True):
        record, findings = inspect_sample(
            sample, content, wanted=wanted, renames=renames or {}, training=training
        )
        report.findings += findings
        if content.annotation:
            report.written_names |= {item.name for item in content.annotation.objects}
        if record is None:
            report.skipped[findings[0].kind] += 1
        else:
            report.records.append(record)
            report.class_counts.update(record.names)
    return report


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
    others = [f for f in findings if f.level == "warning" and f.kind not in (SKIPPED, UNKNOWN)]
    warn_each(others, advice=advice)
    for report in reports:
        if unknown := report.unknown_classes:
            first = next(finding.file for finding in report.findings if finding.kind == UNKNOWN)
            counts = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common())
            warn(f"objects of unknown classes are skipped: {counts}; the first in {first}")
    for report in reports:
        if not report.records:
            raise UserError(f"none of the {report.total} images can be used; the reasons are listed above")


def require_objects(report: DatasetReport) -> None:
    """Raise a UserError if training data have no object of a wanted class; it names the classes found."""
    if not report.class_counts:
        others = ", ".join(repr(name) for name in list(report.unknown_classes)[:10])
        found = f"there are only objects of {others}" if others else "no image has an object"
        raise UserError(f"nothing to learn: {found}; check the annotations and --classes")


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
