"""Preparation of data sets for training and evaluation: choose the splits, scan them, report the findings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from utils.cli.class_names import match_class_names, read_class_names
from utils.cli.console import log, plural, warn
from utils.cli.errors import UserError
from utils.cli.shared_config import DataConfig
from utils.data.annotation_cache import AnnotationCache
from utils.data.dataset import VocDataset
from utils.data.dataset_report import (
    DatasetReport,
    count_overlap,
    describe_idle_renames,
    report_findings,
    require_objects,
    scan_samples,
)
from utils.data.samples import (
    DataFolder,
    Sample,
    choose_evaluation_splits,
    choose_training_splits,
    load_samples,
)
from utils.data.stratify import group_near_duplicates, hold_out


@dataclass(frozen=True)
class TrainingData:
    """Data sets of a training run."""

    train: VocDataset
    val: VocDataset | None  # None for training without evaluation
    train_splits: tuple[str, ...]  # their names
    val_splits: tuple[str, ...]  # empty if a part of the training images was held out

    @property
    def selection(self) -> tuple[str, ...]:
        """Names of what the validation images are, for the run's records."""
        return self.val_splits or tuple(f"a tenth of {split}" for split in self.train_splits)


def prepare_training(
    config: DataConfig, train: Sequence[str] | None = None, val: Sequence[str] | None = None, seed: int = 0
) -> TrainingData:
    """Scan the training and the validation images, and log what they are.

    Args:
        config: the data folder and how to read it; class names are by default those of the training
            annotations, sorted.
        train: names of the training splits; None chooses them.
        val: names of the validation splits; None chooses them or holds out a tenth of the training images;
            ("none",) trains without evaluation.
        seed: determines which images are held out.

    Raises:
        UserError: the data cannot be used.
    """
    folder = DataFolder(config.data)
    train_splits, default_val = choose_training_splits(folder, train)
    without = val is not None and tuple(val) == ("none",)
    val_splits = () if without else tuple(default_val if val is None else val)
    names = read_class_names(config.classes) if config.classes else None
    train_samples, val_samples = (_load(config, folder, splits) for splits in (train_splits, val_splits))
    _announce_unused(config, folder, [*train_splits, *(default_val if without else val_splits)])
    holds_out = not val_splits and not without
    options: dict[str, Any] = {"renames": config.renames, "skip_unreviewed": config.skip_unreviewed}
    with AnnotationCache([*train_samples, *val_samples]) as options["cache"]:
        report = scan_samples(train_samples, class_names=names, hashes=holds_out, **options)
        names = names or report.class_names
        reports = [report]
        if val_splits:
            reports.append(scan_samples(val_samples, class_names=names, training=False, **options))
    _report(config, reports)
    require_objects(report)
    _announce("train", train_splits, report)
    if without:
        return TrainingData(VocDataset(report.records, names), None, train_splits, ())
    if holds_out:
        groups = group_near_duplicates([record.image_hash or 0 for record in report.records])
        kept, held = hold_out(report.records, groups, seed)
        log(f"val: {len(held)} of {plural(len(report.records), 'training image')} held out (seed {seed})")
        return TrainingData(VocDataset(kept, names), VocDataset(held, names), train_splits, ())
    val_records = reports[1].records
    _announce("val", val_splits, reports[1])
    _warn_about_validation(val_splits, count_overlap(report.records, val_records))
    return TrainingData(
        VocDataset(report.records, names), VocDataset(val_records, names), train_splits, val_splits
    )


def prepare_evaluation(
    config: DataConfig, splits: Sequence[str] | None = None, known: Sequence[str] = ()
) -> tuple[VocDataset, DatasetReport, tuple[str, ...]]:
    """Scan the images to evaluate on, and log what they are.

    Args:
        config: the data folder and how to read it.
        splits: names of the splits; None takes the test lists, else the val lists.
        known: class names of the weights; those without annotations become classes without ground truth.
            Empty takes the classes of the annotations, sorted. The file of `config.classes` replaces both.

    Returns:
        The data set, the report of the scan, and the names of the splits.

    Raises:
        UserError: the data cannot be used.
    """
    folder = DataFolder(config.data)
    chosen = tuple(splits) if splits else choose_evaluation_splits(folder)
    known_splits = [*_choose_default(folder), *folder.list_usual_splits()]
    dataset, report = _scan_splits(config, folder, chosen, known_splits, training=False)
    if known and not config.classes:
        dataset = VocDataset(dataset.records, _join_names(known, dataset.class_names))
    return dataset, report, chosen


def _join_names(known: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the known names in the spelling of the data, then the other names of the data."""
    matched = match_class_names(known, found)
    spelled = {label: name for name, label in zip(found, matched, strict=True) if label is not None}
    names = [spelled.get(label, name) for label, name in enumerate(known)]
    return names + [name for name, label in zip(found, matched, strict=True) if label is None]


def prepare_splits(
    config: DataConfig, splits: Sequence[str] | None = None, *, training: bool = True, hashes: bool = False
) -> tuple[VocDataset, DatasetReport]:
    """Scan the images of some splits, and log what they are.

    Args:
        config: the data folder and how to read it.
        splits: names of the splits; None takes the default training splits.
        training: False applies the stricter rule of val and test.
        hashes: give the records their `image_hash`.

    Raises:
        UserError: the data cannot be used.
    """
    folder = DataFolder(config.data)
    chosen = tuple(splits) if splits else choose_training_splits(folder)[0]
    return _scan_splits(config, folder, chosen, _choose_default(folder), training=training, hashes=hashes)


def _choose_default(folder: DataFolder) -> list[str]:
    """Return the splits that train.py takes by default, if any."""
    with suppress(UserError):
        return [split for splits in choose_training_splits(folder) for split in splits]
    return []


def _scan_splits(
    config: DataConfig,
    folder: DataFolder,
    chosen: tuple[str, ...],
    known_splits: Sequence[str],
    *,
    training: bool,
    hashes: bool = False,
) -> tuple[VocDataset, DatasetReport]:
    """Scan the chosen splits; images of the known ones are not counted as unused."""
    names = read_class_names(config.classes) if config.classes else None
    samples = _load(config, folder, chosen)
    _announce_unused(config, folder, [*chosen, *known_splits])
    report = scan_samples(
        samples,
        class_names=names,
        renames=config.renames,
        training=training,
        hashes=hashes,
        skip_unreviewed=config.skip_unreviewed,
    )
    _report(config, [report])
    _announce("data", chosen, report)
    return VocDataset(report.records, names or report.class_names), report


def _load(config: DataConfig, folder: DataFolder, splits: Sequence[str]) -> list[Sample]:
    found = (load_samples(folder, split, unlabelled=config.unlabelled) for split in splits)
    return [sample for samples in found for sample in samples]


def _announce_unused(config: DataConfig, folder: DataFolder, splits: Sequence[str]) -> None:
    """Log how many images and annotations are neither in these splits nor in a test split."""
    for note in folder.notes:
        log(note)
    if unused := folder.describe_unused(config.unlabelled, splits):
        log(f"not used: {unused}; which: python data.py check --data {shlex.quote(config.data)}")


def _report(config: DataConfig, reports: Sequence[DatasetReport]) -> None:
    """Report the findings, and warn about renamed classes that no object has."""
    advice = f"; all of them: python data.py check --data {shlex.quote(config.data)}"
    report_findings(reports, skip_bad=config.skip_bad, advice=advice)
    for line in describe_idle_renames(config.renames, reports):
        warn(line)


def _announce(role: str, splits: Sequence[str], report: DatasetReport) -> None:
    for line in report.summary():
        log(f"{role} ({', '.join(splits)}): {line}")


def _warn_about_validation(val_splits: Sequence[str], overlap: int) -> None:
    if overlap:
        warn(
            f"{plural(overlap, 'image')} in both training and validation splits; the score will be optimistic"
        )
    tests = [split for split in val_splits if split.rpartition("/")[2] == "test"]
    if tests:
        warn(f"{', '.join(tests)} selects the best epoch; its score is no test result")
