"""Measuring a predictor on a data set: the same two calls that prediction makes, then the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nets.structures import Detections, Target
from utils.cli.class_names import match_class_names
from utils.cli.console import progress as show_progress
from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.data.sample_report import Record
from utils.data.targets import build_target
from utils.inference.predictor import Predictor, Prepared, Timings
from utils.inference.prefetch import batched, map_ahead
from utils.inference.result import EvalResult
from utils.metrics.analysis import analyze
from utils.metrics.coco_ap import coco_ap
from utils.metrics.flat import flatten
from utils.metrics.matching import match
from utils.metrics.voc_ap import voc_ap


@dataclass(frozen=True)
class Findings:
    """What a predictor found in some images of a data set.

    Attributes:
        indices: the images' places in the data set.
        detections: one each, labeled as the data set labels.
        targets: one each.
        timings: what it took.
    """

    indices: list[int]
    detections: list[Detections]
    targets: list[Target]
    timings: Timings


def evaluate(
    predictor: Predictor,
    dataset: VocDataset,
    *,
    batch_size: int = 8,
    progress: bool = True,
    skip_bad: bool = False,
    left_out: int = 0,
    report_conf: float = 0.25,
    weights: str = "",
    splits: Sequence[str] = (),
) -> EvalResult:
    """Compare what a predictor finds with the ground truth of a data set.

    Args:
        predictor: its `conf` should be low (0.001) and its `max_det` 100, or the curves end early.
        dataset: images and targets; its classes are found among the predictor's by name.
        batch_size: images that go through the network at a time.
        progress: show how far it is on stderr.
        skip_bad: leave an unreadable image out with a warning and count it, instead of stopping.
        left_out: images that the data set lacks because they are faulty; counted with the skipped ones.
        report_conf: lowest score for precision, recall and F1 at one score and for the confusion matrix.
        weights: noted in the result.
        splits: noted in the result.

    Raises:
        UserError: the predictor lacks a class of the data, or an image cannot be read.
    """
    findings = find(predictor, dataset, batch_size=batch_size, progress=progress, skip_bad=skip_bad)
    return score(
        findings, dataset, left_out=left_out, report_conf=report_conf, weights=weights, splits=splits
    )


def find(
    predictor: Predictor,
    dataset: VocDataset,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 8,
    progress: bool = True,
    skip_bad: bool = False,
) -> Findings:
    """Run a predictor over the images of a data set, or over those at `indices`; see `evaluate`."""
    matched = match_classes(predictor.class_names, dataset)
    limited = predictor.limited_to(matched)
    to_data = torch.full((len(predictor.class_names),), -1)
    to_data[matched] = torch.arange(len(matched))
    findings = Findings([], [], [], Timings())
    chosen = range(len(dataset)) if indices is None else indices
    for batch in batched(_load(limited, dataset, chosen, batch_size, progress, skip_bad), batch_size):
        for index, _, target in batch:
            findings.indices.append(index)
            findings.targets.append(target)
        for one in limited.detect([prepared for _, prepared, _ in batch], findings.timings):
            findings.detections.append(Detections(one.boxes, one.scores, to_data[one.labels]))
    return findings


def join_findings(parts: Sequence[Findings]) -> Findings:
    """Put together what was found in several shares of a data set, in the order of its images."""
    found = [item for part in parts for item in zip(part.indices, part.detections, part.targets, strict=True)]
    found.sort(key=lambda item: item[0])
    return Findings(
        [index for index, _, _ in found],
        [detections for _, detections, _ in found],
        [target for _, _, target in found],
        parts[0].timings,
    )


def score(
    findings: Findings,
    dataset: VocDataset,
    *,
    left_out: int = 0,
    report_conf: float = 0.25,
    weights: str = "",
    splits: Sequence[str] = (),
) -> EvalResult:
    """Compare findings with the ground truth of the data set that they were made in; see `evaluate`."""
    if not findings.indices:
        raise UserError(
            "nothing to evaluate: not one image could be read" if len(dataset) else "no images to evaluate"
        )
    records = [dataset.records[index] for index in findings.indices]
    boxes = flatten(findings.detections, findings.targets, len(dataset.class_names))
    matching = match(boxes)
    return EvalResult(
        class_names=tuple(dataset.class_names),
        skipped=left_out + len(dataset) - len(records),
        coco=coco_ap(boxes),
        voc=voc_ap(boxes, matching.overlaps),
        matching=matching,
        analysis=analyze(matching, report_conf),
        speed_ms=findings.timings.milliseconds(),
        indices=tuple(findings.indices),
        file_names=tuple(_file_names(records)),
        image_sizes=tuple((record.height, record.width) for record in records),
        weights=weights,
        splits=tuple(splits),
    )


def match_classes(known: Sequence[str], dataset: VocDataset) -> list[int]:
    """Return the label among `known`, the weights' classes, of each class of the data.

    Raises:
        UserError: the weights lack one, or two are one of theirs.
    """
    matched = match_class_names(known, dataset.class_names)
    missing = [name for name, label in zip(dataset.class_names, matched, strict=True) if label is None]
    if missing:
        present = {name for record in dataset.records for name in record.names} | set(missing)
        raise UserError(
            f"class {', '.join(missing)} of the data is not among the weights' classes: the data have "
            f"{', '.join(sorted(present))}; the weights have {', '.join(known)}; "
            "use weights trained on these classes"
        )
    doubled = [
        name for name, label in zip(dataset.class_names, matched, strict=True) if matched.count(label) > 1
    ]
    if doubled:
        raise UserError(
            f"classes {', '.join(doubled)} of the data are one of the weights'; merge them: --rename "
            f"{doubled[1]}={doubled[0]}"
        )
    return [label for label in matched if label is not None]


def _load(
    predictor: Predictor,
    dataset: VocDataset,
    indices: Sequence[int],
    batch_size: int,
    progress: bool,
    skip_bad: bool,
) -> Iterator[tuple[int, Prepared, Target]]:
    """Yield (index, prepared image, target) of the readable images in order, read ahead in threads."""

    def load(index: int) -> tuple[int, Prepared, Target] | UserError:
        try:
            image, target = dataset.read(index), build_target(dataset, index)
        except UserError as error:
            return error
        return index, predictor.prepare(image), target

    results = map_ahead(load, indices, ahead=max(16, 2 * batch_size))
    for result in show_progress(results, "evaluate", total=len(indices)) if progress else results:
        if not isinstance(result, UserError):
            yield result
        elif skip_bad:
            warn(f"{result}; left out")
        else:
            raise UserError(f"{result} (--skip-bad leaves such images out)")


def _file_names(records: Sequence[Record]) -> list[str]:
    """Return each image's path below the folder that holds them all."""
    paths = [os.path.abspath(record.image_path) for record in records]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]
