"""data.py check: what all splits of a data set hold, and every fault in it, found before training."""

from __future__ import annotations

import csv
import filecmp
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from utils.cli.anchor_file import read_anchors
from utils.cli.class_names import parse_renames, read_class_names
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.tool_configs import CheckConfig
from utils.data.annotation_cache import AnnotationCache
from utils.data.dataset_report import (
    MAX_SHOWN,
    DatasetReport,
    Finding,
    Record,
    describe_idle_renames,
    require_objects,
    scan_samples,
)
from utils.data.samples import (
    NO_XML,
    UNREAD_LISTS,
    DataFolder,
    Sample,
    choose_training_splits,
    count_files,
    load_samples,
)
from utils.data.stratify import group_near_duplicates
from utils.tools.printing import next_command, print_lines, text_table

_MIN_OBJECTS = 5  # of a class; fewer teach little
_LEVELS = ("error", "warning", "note")
_ROLES = ("train", "val", "test")  # what a split is for; later ones have the stricter rule
_USED = ("image", "annotation", "list")  # kinds of files; all other kinds are not used
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
    files: dict[str, list[str]] = field(default_factory=dict)  # every file, by what it is used for or why not

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
        finding = Finding(level, kind, Path(file if colon else ""), reason if colon else line)
        self.findings += [finding] if finding not in self.findings else []


def run(config: CheckConfig) -> int:
    """Check the data and print the report; returns 0 if there is no error, or --skip-bad skips all of them.

    Raises:
        UserError: there are errors; repeats the first below the report.
    """
    report = _check(config)
    following = _next_command(config, report)
    counts = {f"{level}s": report.count(level) for level in _LEVELS}
    if config.json or config.csv:
        _write_report(config, report, counts, following)
    totals = ", ".join(f"{level}: {count}" for level, count in counts.items())
    print_lines([*_count_lines(report), *_finding_lines(report), totals, following])
    errors = counts["errors"]
    if not errors:
        return 0
    if config.skip_bad and report.can_be_skipped:
        log("the errors are skipped with --skip-bad")
        return 0
    more = f" (and {errors - 1} more, see above)" if errors > 1 else ""
    advice = "fix the data or add --skip-bad" if report.can_be_skipped else "fix the data"
    raise UserError(f"{report.findings[0]}{more}; {advice}")


def _count_lines(report: CheckReport) -> list[str]:
    """Return three tables: a row per split, a row per class with a column per split, and all files."""
    splits = list(report.splits.items())
    rows: list[list[object]] = [["split", "images", "usable", "background", "objects", "difficult"]]
    for name, split in splits:
        counts = [split.images, split.usable, split.background, split.objects.total(), split.difficult]
        rows.append([name, *counts])
    names = sorted({name for _, split in splits for name in split.objects})
    classes: list[list[object]] = [["class", *report.splits]]
    classes += [[name, *(split.objects[name] for _, split in splits)] for name in names]
    kinds = [(f"{kind}, used" if kind in _USED else kind, len(files)) for kind, files in report.files.items()]
    files: list[list[object]] = [["file", "count"], *map(list, kinds), ["all", sum(n for _, n in kinds)]]
    return [*text_table(rows), *(["", *text_table(classes)] if names else []), "", *text_table(files)]


def _finding_lines(report: CheckReport) -> Iterator[str]:
    """Yield the findings by level and kind, at most MAX_SHOWN of a kind."""
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in report.findings:
        kinds[finding.level, finding.kind].append(finding)
    for (level, kind), findings in kinds.items():
        yield ""
        yield f"{kind} ({level}): {len(findings)}"
        yield from (f"  {finding}" for finding in findings[:MAX_SHOWN])
        if len(findings) > MAX_SHOWN:
            yield f"  … and {len(findings) - MAX_SHOWN} more; --csv FILE lists all"
    yield ""


def _next_command(config: CheckConfig, report: CheckReport) -> str:
    if not report.can_be_skipped:
        command = next_command("data.py", "check", *config.data_arguments())
        return command.replace("next:", "fix the lists and files above, then:", 1)
    merged = parse_renames(report.renames)
    renames = {old: merged.get(new, new) for old, new in config.renames.items()} | merged
    rename = tuple(f"{old}={new}" for old, new in renames.items()) or None
    changed = replace(config, rename=rename, skip_bad=report.count("error") > 0)
    return next_command("train.py", *changed.data_arguments())


def _write_report(config: CheckConfig, report: CheckReport, counts: dict[str, int], following: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "level": finding.level,
            "kind": finding.kind,
            "splits": report.splits_of.get(finding.image_id, []),
            "file": str(finding.file),
            "object": finding.number or None,
            "class": finding.name or None,
            "reason": finding.reason,
        }
        for finding in report.findings
    ]
    if config.json:
        splits = {
            name: {**vars(split), "objects": dict(sorted(split.objects.items()))}
            for name, split in report.splits.items()
        }
        files = {
            "total": sum(map(len, report.files.values())),
            "used": {kind: len(report.files.get(kind, ())) for kind in _USED},
            "not_used": {kind: files for kind, files in report.files.items() if kind not in _USED},
        }
        content = {"data": config.data, "splits": splits, "files": files, **counts, "findings": rows}
        content["next"] = following
        with atomic_write(config.json, "w") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")
    if config.csv:
        columns = ("level", "kind", "splits", "file", "object", "class", "reason")
        with atomic_write(config.csv, "w") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "splits": " ".join(row["splits"])} for row in rows)


def _check(config: CheckConfig) -> CheckReport:
    """Check the splits of a data set; a UserError tells that there is no data in any of the layouts.

    An image in a val or test list is held to their stricter rule, even if a training list has it too.
    """
    report = CheckReport()
    names = None
    with report.collect("class names"):
        names = read_class_names(config.classes) if config.classes else None
    with report.collect("anchors"):
        _ = read_anchors(config.anchors) if config.anchors else None
    root = Path(config.data)
    folder = DataFolder(root)
    splits = list(dict.fromkeys(config.split or sorted(folder.list_main_splits(), key=_sort_key)))
    samples = _list_samples(config, folder, splits, report)
    learned, tested = _divide_by_role(folder, samples)
    options: dict[str, Any] = {"renames": config.renames, "decode": config.decode, "hashes": True}
    options["skip_unreviewed"] = config.skip_unreviewed
    with AnnotationCache([*learned, *tested]) as options["cache"]:
        training = scan_samples(learned, class_names=names, **options)
        known = names or (training.class_names if training.records else None)
        testing = scan_samples(tested, class_names=known, training=False, **options)
    records = {record.image_id: record for record in (*training.records, *testing.records)}
    report.splits = {split: _summarize(part, records) for split, part in samples.items()}
    strict = {image_id for image_id, found in report.splits_of.items() if _strictest_role(found) != "train"}
    report.findings += [finding for finding in training.findings if finding.image_id not in strict]
    report.findings += testing.findings
    report.findings += _find_overlaps(root, samples)
    report.findings += _find_duplicates(list(records.values()), report.splits_of)
    _check_classes(root, training, testing, report)
    for line in describe_idle_renames(config.renames, (training, testing)):
        report.findings.append(Finding("warning", "unknown class in --rename", root, line))
    known_splits = [split for split in splits if split in {*samples, *folder.list_splits()}]
    files = folder.account(config.unlabelled, known_splits)
    report.files = _set_apart_unusable(files, root, samples, records)
    report.findings += _find_unused(root, report.files)
    report.findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    return report


def _list_samples(
    config: CheckConfig, folder: DataFolder, splits: Sequence[str], report: CheckReport
) -> dict[str, list[Sample]]:
    """Return the images of each split; what is wrong with the lists goes into the report."""
    kind = "split list"
    if not config.split:
        with report.collect(kind):
            choose_training_splits(folder)
        with suppress(UserError):  # of a list, which is reported below
            if untrained := folder.describe_untrained():
                report.add_line("warning", kind, f"{folder.root}: {untrained}")
    for note in folder.notes:
        report.add_line("note", kind, note)
    samples: dict[str, list[Sample]] = {}
    for split in splits:
        warnings: list[str] = []
        with report.collect(kind):
            samples[split] = load_samples(
                folder, split, unlabelled=config.unlabelled, on_warning=warnings.append
            )
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
    folder: DataFolder, samples: Mapping[str, Sequence[Sample]]
) -> tuple[list[Sample], list[Sample]]:
    """Return the images that training would use, and those of val and test lists.

    A trainval beside train and val is not trained on. Images that only it, or a list of another name, has
    are checked like training images.
    """
    try:
        chosen = choose_training_splits(folder)[0]
    except UserError:
        chosen = ()
    by_role = [split for split in samples if _role(split) == "train"]
    trained_on = chosen if chosen and set(chosen) <= samples.keys() else by_role
    learned = [sample for split in trained_on for sample in samples[split]]
    tested = [sample for split, part in samples.items() if _role(split) != "train" for sample in part]
    seen = {sample.image_id for sample in (*learned, *tested)}
    rest = [sample for split in by_role for sample in samples[split] if sample.image_id not in seen]
    return [*learned, *rest], tested


def _set_apart_unusable(
    files: dict[str, list[str]],
    root: Path,
    samples: Mapping[str, Sequence[Sample]],
    records: Mapping[str, Record],
) -> dict[str, list[str]]:
    """Return all files by kind; those of images that cannot be used are kinds of their own."""
    unusable = {
        str(path)
        for part in samples.values()
        for sample in part
        if sample.image_id not in records
        for path in (sample.image_path, sample.xml_path)
        if path is not None
    }
    for kind, reason in (("image", "with an error"), ("annotation", "of an image with an error")):
        bad = {file for file in files.get(kind, ()) if unusable and str(root / file) in unusable}
        files[f"{kind} {reason}"] = sorted(bad)
        files[kind] = [file for file in files.get(kind, ()) if file not in bad]
    nouns = (*_USED, "other", "system")
    order = sorted(files, key=lambda kind: (kind not in _USED, nouns.index(kind.split()[0]), kind))
    return {kind: files[kind] for kind in order if files[kind]}


def _find_unused(root: Path, files: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield a note for each kind of images and annotations that are in no split, and of lists not read.

    With an error in a list, nobody knows what is in it.
    """
    if "list with an error" in files:
        return
    for kind, found in files.items():
        known = kind in _USED or kind.endswith((NO_XML, "of another split", "with an error"))
        if kind.startswith(("image", "annotation", *UNREAD_LISTS)) and not known:
            reason = f"{count_files(kind, found)}, such as {', '.join(found[:3])}"
            yield Finding("note", "not used", root, reason)


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
            reason = f"{first} and {second} share {plural(len(shared), 'image')}, such as {min(shared)}"
            yield Finding("warning", "in two splits", data_dir, reason)


def _find_duplicates(records: Sequence[Record], splits_of: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield a warning for each look-alike across train, val and test, and a note with their count in one."""
    places = [max(splits_of[record.image_id], key=lambda s: _ROLES.index(_role(s))) for record in records]
    roles = [_role(place) for place in places]
    within: Counter[str] = Counter()
    for group in group_near_duplicates([record.image_hash or 0 for record in records]):
        first = min(group, key=lambda index: _ROLES.index(roles[index]))
        others = [index for index in group if roles[index] != roles[first]]
        within[places[first]] += len(group) - len(others) > 1
        for index in others:
            record, twin = records[index], records[first]
            exact = filecmp.cmp(record.image_path, twin.image_path, shallow=False)
            likeness = "the same file as" if exact else "nearly the same image as"
            reason = f"in {places[index]}, is {likeness} {twin.image_path} in {places[first]}"
            kind = f"{'exact' if exact else 'near'} duplicate across splits"
            yield Finding("warning", kind, record.image_path, reason, image_id=record.image_id)
    for place, groups in within.items():
        if groups:
            folder = records[places.index(place)].image_path.parent
            reason = f"{place} has {plural(groups, 'group')} of near-duplicate images"
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
            can_merge = not any("=" in name for name in names)
            pairs = [f"{name}={names[0]}" for name in names[1:] if can_merge]
            listed = ", ".join(f"{name!r} ({counts[name]})" for name in names)
            advice = f"; merge them: --rename {shlex.join(pairs)}" if pairs else ""
            reason = f"{listed} differ only in case, blanks or dashes{advice}"
            report.findings.append(Finding("warning", "class names alike", data_dir, reason))
            report.renames += pairs
    for name, count in sorted(training.class_counts.items()):
        if count < _MIN_OBJECTS:
            counted = f"{count} object{'s' * (count != 1)} to train on, fewer than {_MIN_OBJECTS}"
            place = next(record.image_path for record in training.records if name in record.names)
            reason = f"class {name!r}: {counted}, such as in {place.name}"
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
