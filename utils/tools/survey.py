"""One pass over all splits of a data set: what is in them, and everything that is wrong or worth knowing."""

from __future__ import annotations

import filecmp
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.data.anchor_boxes import read_anchors
from utils.data.dataset_report import DatasetReport, require_objects, scan_samples
from utils.data.layout import choose_training_splits, list_main_splits
from utils.data.near_duplicates import group_near_duplicates
from utils.data.sample_report import Finding, Record
from utils.data.samples import Sample, list_unused, load_samples

Read = TypeVar("Read")
FEW = 5  # objects of a class; fewer teach little
_LISTS = "split list"
_ROLES = ("train", "val", "test")


@dataclass
class SplitSummary:
    """What one split holds.

    Attributes:
        images: images listed.
        usable: those that can be read, with their annotations.
        background: usable images without objects.
        difficult: objects that are marked as difficult.
        objects: objects a class, the difficult ones among them.
    """

    images: int = 0
    usable: int = 0
    background: int = 0
    difficult: int = 0
    objects: Counter[str] = field(default_factory=Counter)


@dataclass
class Survey:
    """What a data set holds.

    Attributes:
        splits: by name.
        findings: errors first, then warnings, then notes; each in the order of the data.
        splits_of: the splits that an image stands in, by image_id.
        renames: what --rename should say to merge class names that are alike.
    """

    splits: dict[str, SplitSummary] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    splits_of: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    renames: list[str] = field(default_factory=list)

    def count(self, level: str) -> int:
        """Count the findings of a level: error, warning or note."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def can_be_skipped(self) -> bool:
        """Tell whether --skip-bad leaves out all that is an error."""
        return not any(finding.level == "error" and not finding.image_id for finding in self.findings)


def survey(
    data_dir: Path | str,
    *,
    splits: Sequence[str] | None = None,
    classes: Path | str | None = None,
    anchors: Path | str | None = None,
    renames: Mapping[str, str] | None = None,
    unlabelled: str = "skip",
    decode: bool = False,
) -> Survey:
    """Look at all splits of a data set.

    An image of a val or test list is held to their stricter rule even if a training list has it too.

    Args:
        data_dir: folder in one of the three layouts.
        splits: the splits to look at; None takes all but VOC's lists of one class.
        classes: file of class names; None takes those of the training splits.
        anchors: file of anchors to check too.
        renames: other names for classes of the annotations.
        unlabelled: "skip" or "background", see `load_samples`.
        decode: read every pixel.

    Raises:
        UserError: there is no data in any of the layouts.
    """
    found = Survey()
    names = _try(found, "class names", read_class_names, classes)
    _try(found, "anchors", read_anchors, anchors)
    listed = _list_samples(data_dir, splits, unlabelled, found)
    training, testing = _look_over_all(_divide(data_dir, listed), names, renames, decode)
    records = {record.image_id: record for record in (*training.records, *testing.records)}
    for split, part in listed.items():
        found.splits[split] = _summarize(part, records)
    strict = {image_id for image_id, splits in found.splits_of.items() if _strictest(splits) != "train"}
    found.findings += [finding for finding in training.findings if finding.image_id not in strict]
    found.findings += testing.findings
    found.findings += _find_overlaps(data_dir, listed)
    found.findings += _find_duplicates(list(records.values()), found.splits_of)
    _judge_classes(Path(data_dir), training, testing, found)
    unused = list_unused(data_dir) if splits is None else ()
    found.findings += [Finding("note", "in no list", folder, reason) for folder, reason in unused]
    found.findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    return found


def _try(
    found: Survey, kind: str, read: Callable[[Path | str], Read], path: Path | str | None
) -> Read | None:
    """Read a file if there is one; what is wrong with it is a finding."""
    try:
        return None if path is None else read(path)
    except UserError as error:
        found.findings.append(_as_finding(kind, error))
        return None


def _divide(
    data_dir: Path | str, listed: Mapping[str, Sequence[Sample]]
) -> tuple[list[Sample], list[Sample]]:
    """Divide the images into those that training would learn from, and those of val and test lists.

    A trainval beside train and val says nothing about what is learnt from; what no other list has of it, and
    of lists with other names, is looked at like the images to learn from.
    """
    try:
        chosen = choose_training_splits(data_dir)[0]
    except UserError:
        chosen = ()
    by_role = [split for split in listed if _role(split) == "train"]
    learnt_from = chosen if chosen and set(chosen) <= listed.keys() else by_role
    learnt = [sample for split in learnt_from for sample in listed[split]]
    tested = [sample for split, part in listed.items() if _role(split) != "train" for sample in part]
    met = {sample.image_id for sample in (*learnt, *tested)}
    rest = [sample for split in by_role for sample in listed[split] if sample.image_id not in met]
    return [*learnt, *rest], tested


def _look_over_all(
    divided: tuple[Sequence[Sample], Sequence[Sample]],
    names: Sequence[str] | None,
    renames: Mapping[str, str] | None,
    decode: bool,
) -> tuple[DatasetReport, DatasetReport]:
    """Scan the images to train on, and by the stricter rule those of val and test lists; some are in both."""

    def look(part: Sequence[Sample], names: Sequence[str] | None, training: bool) -> DatasetReport:
        return scan_samples(
            part, class_names=names, renames=renames, training=training, decode=decode, hashes=True
        )

    learnt, tested = divided
    training = look(learnt, names, training=True)
    known = names or (training.class_names if training.records else None)
    return training, look(tested, known, training=False)


def _list_samples(
    data_dir: Path | str, splits: Sequence[str] | None, unlabelled: str, found: Survey
) -> dict[str, list[Sample]]:
    names = list(dict.fromkeys(splits or sorted(list_main_splits(data_dir), key=_order)))
    if not splits:
        try:
            choose_training_splits(data_dir)
        except UserError as error:
            found.findings.append(_as_finding(_LISTS, error))
    listed: dict[str, list[Sample]] = {}
    for split in names:
        said: list[str] = []
        try:
            listed[split] = load_samples(data_dir, split, unlabelled=unlabelled, on_warning=said.append)
        except UserError as error:
            found.findings.append(_as_finding(_LISTS, error))
        found.findings += [_as_finding(_LISTS, line, "warning") for line in said]
        for sample in listed.get(split, ()):
            found.splits_of[sample.image_id].append(split)
    return listed


def _order(split: str) -> tuple[str, int, str]:
    folder, _, name = split.rpartition("/")
    usual = ("train", "val", "valid", "trainval", "test")
    return folder, usual.index(name) if name in usual else len(usual), name


def _as_finding(kind: str, message: UserError | str, level: str = "error") -> Finding:
    """Take a line `<file>: <reason>` apart."""
    file, colon, reason = str(message).partition(": ")
    return Finding(level, kind, Path(file), reason) if colon else Finding(level, kind, Path(), str(message))


def _role(split: str) -> str:
    """Return what a split is for: train, val or test."""
    name = split.rpartition("/")[2]
    return {"val": "val", "valid": "val", "test": "test"}.get(name, "train")


def _strictest(splits: Sequence[str]) -> str:
    """Return what an image is for that stands in several splits: to test before to select before to train."""
    return max(map(_role, splits), key=_ROLES.index)


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


def _find_overlaps(data_dir: Path | str, listed: Mapping[str, Sequence[Sample]]) -> list[Finding]:
    """Report images that stand in two splits with different purposes; trainval may hold val."""
    findings = []
    for first, second in combinations(listed, 2):
        shared = {s.image_id for s in listed[first]} & {s.image_id for s in listed[second]}
        within = {first.rpartition("/")[2], second.rpartition("/")[2]} in (
            {"trainval", "val"},
            {"trainval", "valid"},
        )
        if shared and _role(first) != _role(second) and not within:
            reason = f"{first} and {second} share {len(shared)} images, such as {min(shared)}"
            findings.append(Finding("warning", "in two splits", Path(data_dir), reason))
    return findings


def _find_duplicates(records: Sequence[Record], splits_of: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Report pictures that look the same: each across train, val and test; within one how many groups."""
    roles = [_strictest(splits_of[record.image_id]) for record in records]
    findings, within = [], Counter[str]()
    for group in group_near_duplicates([record.image_hash or 0 for record in records]):
        first = min(group, key=lambda index: _ROLES.index(roles[index]))
        others = [index for index in group if roles[index] != roles[first]]
        within[roles[first]] += len(group) - len(others) > 1
        for index in others:
            record, twin = records[index], records[first]
            exact = filecmp.cmp(record.image_path, twin.image_path, shallow=False)
            likeness = "the same file as" if exact else "nearly the same picture as"
            reason = f"in {roles[index]}, is {likeness} {twin.image_path} in {roles[first]}"
            kind = f"{'exact' if exact else 'near'} duplicate across splits"
            findings.append(Finding("warning", kind, record.image_path, reason, image_id=record.image_id))
    for role, groups in within.items():
        if groups:
            folder = next(r.image_path.parent for r, own in zip(records, roles, strict=True) if own == role)
            reason = f"{role} has {groups} groups of pictures that look nearly the same"
            findings.append(Finding("note", "near duplicates within a split", folder, reason))
    return findings


def _judge_classes(data_dir: Path, training: DatasetReport, testing: DatasetReport, found: Survey) -> None:
    """Report classes that are alike in name, and those with too few objects to learn from."""
    reports = (training, testing)
    counts = sum((report.class_counts + report.unknown_classes for report in reports), Counter[str]())
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        alike["".join(name.casefold().replace("_", " ").replace("-", " ").split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            pairs = [f"{name}={names[0]}" for name in names[1:]]
            shown = ", ".join(f"{name!r} ({counts[name]})" for name in names)
            reason = f"{shown} differ in case, blanks or dashes only; --rename merges them: {' '.join(pairs)}"
            found.findings.append(Finding("warning", "class names alike", data_dir, reason))
            found.renames += [] if any("=" in name for name in names) else pairs
    for name, count in sorted(training.class_counts.items()):
        if count < FEW:
            reason = f"{count} object{'s' * (count != 1)} to train on, fewer than {FEW}"
            found.findings.append(
                Finding("warning", "few objects", data_dir, f"class {name!r}: {reason}", name=name)
            )
    for report, aim in ((training, "train on"), (testing, "measure on")):
        if report.total and not report.records:
            reason = f"none of the {report.total} images to {aim} can be used"
            found.findings.append(Finding("error", "no image left", data_dir, reason))
    if training.records:
        try:
            require_objects(training)
        except UserError as error:
            found.findings.append(Finding("error", "nothing to learn", data_dir, str(error)))
