"""One look at every annotation and image header before training, so that no fault waits for epoch 37."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.annotation_cache import gather_facts
from utils.data.faults import refuse, warn_each
from utils.data.sample_report import CLIPPED, LEFT_OUT, UNKNOWN, Finding, Record, look_at
from utils.data.samples import Sample


@dataclass
class ScanReport:
    """What the scan found.

    Attributes:
        records: the usable images, in the order of the samples.
        findings: all that is wrong or worth knowing, in the order of the samples.
        class_counts: objects a class, over the records.
        total: images looked at.
        skipped: images left out, counted by reason.
        written_names: classes as the annotations spell them, before any renaming.
    """

    records: list[Record] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    class_counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    written_names: set[str] = field(default_factory=set)

    @property
    def unknown_classes(self) -> Counter[str]:
        """Count the objects left out because their class is not wanted, by name."""
        return Counter(finding.name for finding in self.findings if finding.kind == UNKNOWN)

    def count(self, kind: str) -> int:
        """Count the findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    def summary(self) -> list[str]:
        """Describe the data in lines for the log: images, objects a class, and what was left out."""
        objects = sum(self.class_counts.values())
        classes = ", ".join(f"{name} {count}" for name, count in sorted(self.class_counts.items()))
        lines = [f"{len(self.records)} images, {objects} objects: {classes}"]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            lines.append(f"skipped {self.skipped.total()} of {self.total} images: {reasons}")
        clipped, left_out = self.count(CLIPPED), self.count(LEFT_OUT)
        if clipped or left_out:
            lines.append(f"objects clipped: {clipped}, left out: {left_out}")
        return lines


def scan(
    samples: Sequence[Sample],
    *,
    class_names: Collection[str] | None = None,
    renames: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    training: bool = True,
) -> ScanReport:
    """Look at every sample, say what is wrong, and stop where it may not be passed over.

    Arguments are those of `look_over` and `accept`, and so are the errors.

    Returns:
        The usable images and the counts.
    """
    report = look_over(samples, class_names=class_names, renames=renames, training=training)
    accept([report], skip_bad=skip_bad)
    if training:
        require_objects(report)
    return report


def look_over(
    samples: Sequence[Sample],
    *,
    class_names: Collection[str] | None = None,
    renames: Mapping[str, str] | None = None,
    training: bool = True,
    decode: bool = False,
    hashes: bool = False,
) -> ScanReport:
    """Look at every sample: parse its XML, read its image header, check every box.

    Args:
        samples: the images of one or more splits; an id that comes twice counts once.
        class_names: the wanted classes; objects of others are left out. None takes all.
        renames: other names for classes of the annotations, looked up before `class_names`.
        training: False holds the data to the rule of val and test.
        decode: read every pixel too.
        hashes: give the records their `image_hash`.
    """
    unique = list({sample.image_id: sample for sample in samples}.values())
    wanted = None if class_names is None else frozenset(class_names)
    report = ScanReport(total=len(unique))
    facts = gather_facts(unique, decode=decode, hashes=hashes)
    for sample, one in zip(unique, facts, strict=True):
        look = look_at(sample, one, wanted=wanted, renames=renames or {}, training=training)
        report.findings += look.findings
        report.written_names |= {item.name for item in one.annotation.objects} if one.annotation else set()
        if look.record is None:
            report.skipped[look.findings[0].kind] += 1
        else:
            report.records.append(look.record)
            report.class_counts.update(look.record.names)
    return report


def accept(reports: Sequence[ScanReport], *, skip_bad: bool, advice: str = "") -> None:
    """Write the warnings, ten of a kind and then their number, and stop where the data cannot be used.

    Args:
        reports: of all the splits that a command uses; the faults of all are told at once.
        skip_bad: faulty images and objects have been left out, and a warning is enough.
        advice: where more is to be learnt, for the end of a long list.

    Raises:
        UserError: faults that may not be skipped (several are listed as warnings first), or no image left.
    """
    findings = [finding for report in reports for finding in report.findings]
    errors = [finding for finding in findings if finding.level == "error"]
    if not skip_bad:
        refuse(errors, advice=advice)
    warn_each([finding for finding in errors if finding.kind != LEFT_OUT], "left out: ", advice)
    warn_each([finding for finding in findings if finding.kind == LEFT_OUT], "left out: ", advice)
    others = [f for f in findings if f.level == "warning" and f.kind not in (LEFT_OUT, UNKNOWN)]
    warn_each(others, advice=advice)
    for report in reports:
        _warn_about_unknown(report)
    for report in reports:
        if not report.records:
            raise UserError(f"none of the {report.total} images can be used; the reasons are listed above")


def require_objects(report: ScanReport) -> None:
    """Refuse training data without an object of a wanted class.

    Raises:
        UserError: there is nothing to learn; names the classes that are there.
    """
    if not report.class_counts:
        others = ", ".join(repr(name) for name in list(report.unknown_classes)[:10])
        found = f"there are only objects of {others}" if others else "no image has an object"
        raise UserError(f"nothing to learn: {found}; check the annotations and --classes")


def _warn_about_unknown(report: ScanReport) -> None:
    if unknown := report.unknown_classes:
        first = next(finding.file for finding in report.findings if finding.kind == UNKNOWN)
        counts = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common())
        warn(f"objects of unknown classes are left out: {counts}; the first in {first}")


def collect_class_names(report: ScanReport) -> tuple[str, ...]:
    """Return the class names of the scanned annotations, sorted, which for VOC's twenty is VOC's order."""
    return tuple(sorted(report.class_counts))


def count_overlap(first: Iterable[Record], second: Iterable[Record]) -> int:
    """Count the images that stand in both lists, by file."""
    return len({record.image_path for record in first} & {record.image_path for record in second})
