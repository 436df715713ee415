"""Report of data.py check: what all splits of a data set hold, and every fault, in one pass."""

from __future__ import annotations

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.data.anchor_boxes import read_anchors
from utils.data.dataset_report import DatasetReport, require_objects, scan_samples
from utils.data.sample_report import Finding, Record
from utils.data.samples import Sample, choose_training_splits, list_main_splits, list_unused, load_samples
from utils.data.stratify import group_near_duplicates

MIN_OBJECTS = 5  # of a class; fewer teach little
LEVELS = ("error", "warning", "note")
_ROLES = ("train", "val", "test")  # what a split is for; later ones have the stricter rule
_SPLIT_ORDER = ("train", "val", "valid", "trainval", "test")


@dataclass
class SplitSummary:
    """Counts of one split: images listed, usable ones, usable ones without objects, and objects."""

    images: int = 0
    usable: int = 0
    background: int = 0
    difficult: int = 0  # objects
    objects: Counter[str] = field(default_factory=Counter)  # by class, with the difficult ones


@dataclass
class CheckReport:
    """What a data set holds."""

    splits: dict[str, SplitSummary] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)  # errors first, then warnings, then notes
    splits_of: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by image_id
    renames: list[str] = field(default_factory=list)  # for --rename, to merge class names that are alike

    def count(self, level: str) -> int:
        """Count the findings of a level: error, warning or note."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def can_be_skipped(self) -> bool:
        """Tell whether --skip-bad skips every error."""
        return not any(finding.level == "error" and not finding.image_id for finding in self.findings)

    @contextmanager
    def collect(self, kind: str) -> Iterator[None]:
        """Turn a UserError of the block into a finding."""
        try:
            yield
        except UserError as error:
            self.add_line("error", kind, str(error))

    def add_line(self, level: str, kind: str, line: str) -> None:
        """Add a finding from a line `<file>: <reason>`."""
        file, colon, reason = line.partition(": ")
        self.findings.append(Finding(level, kind, Path(file if colon else ""), reason if colon else line))


def build_check_report(
    data_dir: Path | str,
    *,
    splits: Sequence[str] | None = None,
    classes: Path | str | None = None,
    anchors: Path | str | None = None,
    renames: Mapping[str, str] | None = None,
    unlabelled: str = "skip",
    decode: bool = False,
) -> CheckReport:
    """Check all splits of a data set.

    An image in a val or test list is held to their stricter rule, even if a training list has it too.

    Args:
        data_dir: folder in one of the layouts.
        splits: the splits to check; None takes all but VOC's lists of one class.
        classes: file of class names; None takes those of the training splits.
        anchors: anchor file to check too.
        renames: new names for classes of the annotations.
        unlabelled: "skip" or "background", see `load_samples`.
        decode: read every pixel.

    Raises:
        UserError: there is no data in any of the layouts.
    """
    report = CheckReport()
    names = None
    with report.collect("class names"):
        names = read_class_names(classes) if classes else None
    with report.collect("anchors"):
        _ = read_anchors(anchors) if anchors else None
    samples = _list_samples(data_dir, splits, unlabelled, report)
    learned, tested = _divide_by_role(data_dir, samples)
    training = scan_samples(learned, class_names=names, renames=renames, decode=decode, hashes=True)
    known = names or (training.class_names if training.records else None)
    testing = scan_samples(
        tested, class_names=known, renames=renames, training=False, decode=decode, hashes=True
    )
    records = {record.image_id: record for record in (*training.records, *testing.records)}
    report.splits = {split: _summarize(part, records) for split, part in samples.items()}
    strict = {image_id for image_id, found in report.splits_of.items() if _strictest_role(found) != "train"}
    report.findings += [finding for finding in training.findings if finding.image_id not in strict]
    report.findings += testing.findings
    report.findings += _find_overlaps(Path(data_dir), samples)
    report.findings += _find_duplicates(list(records.values()), report.splits_of)
    _check_classes(Path(data_dir), training, testing, report)
    unused = list_unused(data_dir) if splits is None else ()
    report.findings += [Finding("note", "in no list", folder, reason) for folder, reason in unused]
    report.findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return report


def _list_samples(
    data_dir: Path | str, splits: Sequence[str] | None, unlabelled: str, report: CheckReport
) -> dict[str, list[Sample]]:
    """Return the images of each split; what is wrong with the lists goes into the report."""
    kind = "split list"
    names = list(dict.fromkeys(splits or sorted(list_main_splits(data_dir), key=_sort_key)))
    if not splits:
        with report.collect(kind):
            choose_training_splits(data_dir)
    samples: dict[str, list[Sample]] = {}
    for split in names:
        warnings: list[str] = []
        with report.collect(kind):
            samples[split] = load_samples(data_dir, split, unlabelled=unlabelled, on_warning=warnings.append)
        for line in warnings:
            report.add_line("warning", kind, line)
        for sample in samples.get(split, ()):
            report.splits_of[sample.image_id].append(split)
    return samples


def _sort_key(split: str) -> tuple[str, int, str]:
    folder, _, name = split.rpartition("/")
    return folder, _SPLIT_ORDER.index(name) if name in _SPLIT_ORDER else len(_SPLIT_ORDER), name


def _role(split: str) -> str:
    """Return what a split is for: train, val or test."""
    return {"val": "val", "valid": "val", "test": "test"}.get(split.rpartition("/")[2], "train")


def _strictest_role(splits: Sequence[str]) -> str:
    return max(map(_role, splits), key=_ROLES.index)


def _divide_by_role(
    data_dir: Path | str, samples: Mapping[str, Sequence[Sample]]
) -> tuple[list[Sample], list[Sample]]:
    """Return the images that training would use, and those of val and test lists.

    A trainval beside train and val is not trained on. Images that only it, or a list of another name, has
    are checked like training images.
    """
    try:
        chosen = choose_training_splits(data_dir)[0]
    except UserError:
        chosen = ()
    by_role = [split for split in samples if _role(split) == "train"]
    trained_on = chosen if chosen and set(chosen) <= samples.keys() else by_role
    learned = [sample for split in trained_on for sample in samples[split]]
    tested = [sample for split, part in samples.items() if _role(split) != "train" for sample in part]
    seen = {sample.image_id for sample in (*learned, *tested)}
    rest = [sample for split in by_role for sample in samples[split] if sample.image_id not in seen]
    return [*learned, *rest], tested


def _summarize(samples: Iterable[Sample], records: Mapping[str, Record]) -> SplitSummary:
    summary = SplitSummary()
    for sample in samples:
        summary.images += 1
        if record := records.get(sample.image_id):
            summary.usable += 1
            summary.background += not record.names
            summary.difficult += int(record.difficult.sum())
            summary.objects.update(record.names)
    return summary


def _find_overlaps(data_dir: Path, samples: Mapping[str, Sequence[Sample]]) -> Iterator[Finding]:
    """Yield a warning for two splits of different roles that share images; trainval may contain val."""
    for first, second in combinations(samples, 2):
        shared = {s.image_id for s in samples[first]} & {s.image_id for s in samples[second]}
        names = {first.rpartition("/")[2], second.rpartition("/")[2]}
        nested = names in ({"trainval", "val"}, {"trainval", "valid"})
        if shared and _role(first) != _role(second) and not nested:
            reason = f"{first} and {second} share {len(shared)} images, such as {min(shared)}"
            yield Finding("warning", "in two splits", data_dir, reason)


def _find_duplicates(records: Sequence[Record], splits_of: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield a warning for each look-alike across train, val and test, and a note with their count in one."""
    roles = [_strictest_role(splits_of[record.image_id]) for record in records]
    within: Counter[str] = Counter()
    for group in group_near_duplicates([record.image_hash or 0 for record in records]):
        first = min(group, key=lambda index: _ROLES.index(roles[index]))
        others = [index for index in group if roles[index] != roles[first]]
        within[roles[first]] += len(group) - len(others) > 1
        for index in others:
            record, twin = records[index], records[first]
            exact = filecmp.cmp(record.image_path, twin.image_path, shallow=False)
            likeness = "the same file as" if exact else "nearly the same image as"
            reason = f"in {roles[index]}, is {likeness} {twin.image_path} in {roles[first]}"
            kind = f"{'exact' if exact else 'near'} duplicate across splits"
            yield Finding("warning", kind, record.image_path, reason, image_id=record.image_id)
    for role, groups in within.items():
        if groups:
            folder = records[roles.index(role)].image_path.parent
            reason = f"{role} has {groups} groups of near-duplicate images"
            yield Finding("note", "near duplicates within a split", folder, reason)


def _check_classes(
    data_dir: Path, training: DatasetReport, testing: DatasetReport, report: CheckReport
) -> None:
    """Report class names that are alike, classes with few objects, and data without any object or image."""
    counts: Counter[str] = Counter()
    for part in (training, testing):
        counts += part.class_counts + part.unknown_classes
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        alike["".join(name.casefold().replace("_", " ").replace("-", " ").split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            pairs = [f"{name}={names[0]}" for name in names[1:]]
            listed = ", ".join(f"{name!r} ({counts[name]})" for name in names)
            reason = f"{listed} differ only in case, blanks or dashes; merge them: --rename {' '.join(pairs)}"
            report.findings.append(Finding("warning", "class names alike", data_dir, reason))
            report.renames += [] if any("=" in name for name in names) else pairs
    for name, count in sorted(training.class_counts.items()):
        if count < MIN_OBJECTS:
            counted = f"{count} object{'s' * (count != 1)} to train on, fewer than {MIN_OBJECTS}"
            reason = f"class {name!r}: {counted}"
            report.findings.append(Finding("warning", "few objects", data_dir, reason, name=name))
    for part, purpose in ((training, "train on"), (testing, "evaluate on")):
        if part.total and not part.records:
            reason = f"none of the {part.total} images to {purpose} can be used"
            report.findings.append(Finding("error", "no image left", data_dir, reason))
    if training.records:
        try:
            require_objects(training)
        except UserError as error:
            report.findings.append(Finding("error", "nothing to learn", data_dir, str(error)))
