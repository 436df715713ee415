"""Preparation of data sets for training and evaluation: choose the splits, scan them, report the findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli.class_names import match_class_names, read_class_names
from utils.cli.console import log, warn
from utils.data.dataset import VocDataset
from utils.data.dataset_report import (
    DatasetReport,
    count_overlap,
    report_findings,
    require_objects,
    scan_samples,
)
from utils.data.layout import choose_evaluation_splits, choose_training_splits
from utils.data.near_duplicates import group_near_duplicates
from utils.data.samples import Sample, load_samples
from utils.data.stratify import hold_out


@dataclass(frozen=True)
class TrainingData:
    """Data sets of a training run.

    Attributes:
        train: the training images.
        val: the validation images; None for training without evaluation.
        train_splits: names of the training splits.
        val_splits: names of the validation splits; empty if a part of the training images was held out.
    """

    train: VocDataset
    val: VocDataset | None
    train_splits: tuple[str, ...]
    val_splits: tuple[str, ...]

    @property
    def selection(self) -> tuple[str, ...]:
        """Names of what the validation images are, for the run's records."""
        return self.val_splits or tuple(f"a tenth of {split}" for split in self.train_splits)


def prepare_training(
    data_dir: Path | str,
    *,
    train: Sequence[str] | None = None,
    val: Sequence[str] | None = None,
    classes: Path | str | None = None,
    renames: Mapping[str, str] | None = None,
    unlabelled: str = "skip",
    skip_bad: bool = False,
    seed: int = 0,
) -> TrainingData:
    """Scan the training and the validation images, and log what they are.

    Args:
        data_dir: folder in one of the three layouts.
        train: names of the training splits; None chooses them.
        val: names of the validation splits; None chooses them or holds out a tenth of the training images;
            ("none",) trains without evaluation.
        classes: file of class names; None takes those of the training annotations, sorted.
        renames: new names for classes of the annotations, applied before `classes`.
        unlabelled: "skip" or "background", see `load_samples`.
        skip_bad: skip faulty images and objects with a warning instead of raising.
        seed: determines which images are held out.

    Raises:
        UserError: the data cannot be used.
    """
    train_splits, default_val = choose_training_splits(data_dir, train)
    without = val is not None and tuple(val) == ("none",)
    val_splits = () if without else tuple(default_val if val is None else val)
    names = None if classes is None else read_class_names(classes)
    train_samples = _load(data_dir, train_splits, unlabelled)
    val_samples = _load(data_dir, val_splits, unlabelled)
    holds_out = not val_splits and not without
    report = scan_samples(train_samples, class_names=names, renames=renames, hashes=holds_out)
    names = names or report.class_names
    reports = [report]
    if val_splits:
        reports.append(scan_samples(val_samples, class_names=names, renames=renames, training=False))
    report_findings(reports, skip_bad=skip_bad, advice=_advice(data_dir))
    require_objects(report)
    _warn_about_renames(renames, reports)
    _announce("train", train_splits, report)
    if without:
        return TrainingData(VocDataset(report.records, names), None, train_splits, ())
    if holds_out:
        groups = group_near_duplicates([record.image_hash or 0 for record in report.records])
        kept, held = hold_out(report.records, groups, seed)
        log(f"val: {len(held)} of the {len(report.records)} training images are held out (seed {seed})")
        return TrainingData(VocDataset(kept, names), VocDataset(held, names), train_splits, ())
    val_report = reports[1]
    _announce("val", val_splits, val_report)
    _warn_about_validation(val_splits, count_overlap(report.records, val_report.records))
    return TrainingData(
        VocDataset(report.records, names), VocDataset(val_report.records, names), train_splits, val_splits
    )


def prepare_evaluation(
    data_dir: Path | str,
    *,
    splits: Sequence[str] | None = None,
    known: Sequence[str] = (),
    classes: Path | str | None = None,
    renames: Mapping[str, str] | None = None,
    unlabelled: str = "skip",
    skip_bad: bool = False,
) -> tuple[VocDataset, DatasetReport, tuple[str, ...]]:
    """Scan the images to evaluate on.

    Args:
        data_dir: folder in one of the three layouts.
        splits: names of the splits; None takes the test lists, else the val lists.
        known: class names of the weights; those without annotations become classes without ground truth.
            Empty takes the classes of the annotations, sorted.
        classes: file of class names; replaces both.
        renames: as in `prepare_training`, like the rest.
        unlabelled: see there.
        skip_bad: see there.

    Returns:
        The data set, the report of the scan, and the names of the splits.

    Raises:
        UserError: the data cannot be used.
    """
    chosen = tuple(splits) if splits else choose_evaluation_splits(data_dir)
    dataset, report = prepare_splits(
        data_dir,
        chosen,
        training=False,
        classes=classes,
        renames=renames,
        unlabelled=unlabelled,
        skip_bad=skip_bad,
    )
    if known and classes is None:
        dataset = VocDataset(dataset.records, _join_names(known, dataset.class_names))
    return dataset, report, chosen


def _join_names(known: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the known names in the spelling of the data, then the other names of the data."""
    matched = match_class_names(known, found)
    spelled = {label: name for name, label in zip(found, matched, strict=True) if label is not None}
    names = [spelled.get(label, name) for label, name in enumerate(known)]
    return names + [name for name, label in zip(found, matched, strict=True) if label is None]


def prepare_splits(
    data_dir: Path | str,
    splits: Sequence[str] | None,
    *,
    training: bool = True,
    hashes: bool = False,
    classes: Path | str | None = None,
    renames: Mapping[str, str] | None = None,
    unlabelled: str = "skip",
    skip_bad: bool = False,
) -> tuple[VocDataset, DatasetReport]:
    """Scan the images of some splits, and log what they are.

    Args:
        data_dir: folder in one of the three layouts.
        splits: names of the splits; None takes the default training splits.
        training: False applies the stricter rule of val and test.
        hashes: give the records their `image_hash`.
        classes: as in `prepare_training`, like the rest.
        renames: see there.
        unlabelled: see there.
        skip_bad: see there.

    Raises:
        UserError: the data cannot be used.
    """
    chosen = tuple(splits) if splits else choose_training_splits(data_dir)[0]
    names = None if classes is None else read_class_names(classes)
    samples = _load(data_dir, chosen, unlabelled)
    report = scan_samples(samples, class_names=names, renames=renames, training=training, hashes=hashes)
    report_findings([report], skip_bad=skip_bad, advice=_advice(data_dir))
    _warn_about_renames(renames, [report])
    _announce("data", chosen, report)
    return VocDataset(report.records, names or report.class_names), report


def _load(data_dir: Path | str, splits: Sequence[str], unlabelled: str) -> list[Sample]:
    return [sample for split in splits for sample in load_samples(data_dir, split, unlabelled=unlabelled)]


def _advice(data_dir: Path | str) -> str:
    return f"; all of them: python data.py check --data {shlex.quote(str(data_dir))}"


def _warn_about_renames(renames: Mapping[str, str] | None, reports: Sequence[DatasetReport]) -> None:
    """Warn about old names that no object has."""
    written = {name for report in reports for name in report.written_names}
    for old, new in (renames or {}).items():
        if old not in written:
            warn(f"--rename {old}={new}: no object is called {old}")


def _announce(role: str, splits: Sequence[str], report: DatasetReport) -> None:
    for line in report.summary():
        log(f"{role} ({', '.join(splits)}): {line}")


def _warn_about_validation(val_splits: Sequence[str], overlap: int) -> None:
    if overlap:
        warn(f"{overlap} images are in the training and the validation splits; the score will be optimistic")
    tests = [split for split in val_splits if split.rpartition("/")[2] == "test"]
    if tests:
        warn(f"{', '.join(tests)} selects the best epoch; its score is no test result")
