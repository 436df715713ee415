"""Measuring a predictor on a data set: the same two calls that prediction makes, then the metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nets.structures import Detections, Target
from utils.classes import match_class_names
from utils.console import progress as show_progress
from utils.console import warn
from utils.data.dataset import VocDataset
from utils.data.look import Record
from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.ahead import batched, map_ahead
from utils.inference.predictor import Predictor, Prepared, Timings
from utils.metrics.coco_ap import CocoResult, build_detections, build_ground_truth, coco_ap
from utils.metrics.voc_ap import VocResult, voc_ap


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found; figures are None where there is no ground truth to find.

    Attributes:
        class_names: the data's classes; per-class figures are in this order.
        images: number of images that were looked at.
        skipped: number of images that were left out because they, or their annotations, could not be read.
        coco: pycocotools' figures.
        voc: the VOC devkit's figures.
        speed_ms: mean milliseconds an image for preprocess, network and postprocess.
        ground_truth: the ground truth in COCO's format.
        detections: the detections in COCO's format.
        weights: what was evaluated, for the record.
        splits: on what, for the record.
    """

    class_names: tuple[str, ...]
    images: int
    skipped: int
    coco: CocoResult
    voc: VocResult
    speed_ms: dict[str, float]
    ground_truth: dict[str, list[dict[str, Any]]]
    detections: list[dict[str, Any]]
    weights: str
    splits: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        per_class = {
            name: {
                "ground_truths": self.voc.ground_truths[index],
                "ap50": self.coco.ap50[index],
                "ap50_95": self.coco.ap50_95[index],
                "voc_ap50_area": self.voc.area[index],
                "voc_ap50_11point": self.voc.eleven_point[index],
            }
            for index, name in enumerate(self.class_names)
        }
        means = ("map50", "map75", "map50_95", "map_small", "map_medium", "map_large", "ar100")
        return {
            "images": self.images,
            "skipped": self.skipped,
            **{name: getattr(self.coco, name) for name in means},
            "voc_ap50_area": self.voc.mean_area,
            "voc_ap50_11point": self.voc.mean_eleven_point,
            "per_class": per_class,
            "speed_ms": self.speed_ms,
            "weights": self.weights,
            "splits": list(self.splits),
        }

    def table(self) -> str:
        """Return the figures as lines for a console: a line a class, the means, the number of images."""
        voc, coco = self.voc, self.coco
        columns = zip(coco.ap50, coco.ap50_95, voc.area, voc.eleven_point, strict=True)
        rows = list(zip(self.class_names, voc.ground_truths, columns, strict=True))
        means = (coco.map50, coco.map50_95, voc.mean_area, voc.mean_eleven_point)
        rows.append(("mean", sum(voc.ground_truths), means))
        width = max(len("class"), *(len(name) for name, _, _ in rows))
        lines = [f"{'class':<{width}}  objects    AP50  AP50-95  VOC area  VOC 11-point"]
        for name, count, (ap50, ap50_95, area, eleven) in rows:
            figures = f"{_shown(ap50):>6}  {_shown(ap50_95):>7}  {_shown(area):>8}  {_shown(eleven):>12}"
            lines.append(f"{name:<{width}}  {count:>7}  {figures}")
        unseen = sum(count == 0 for count in voc.ground_truths)
        if unseen:
            lines.append(
                f"{unseen} of {len(self.class_names)} classes have no ground truth (-), left out of the means"
            )
        lines.append(
            f"mAP over {self.images}{f' of {self.images + self.skipped}' if self.skipped else ''} images"
        )
        return "\n".join(lines)

    def write_metrics(self, path: Path) -> None:
        """Write metrics.json.

        Raises:
            UserError: the file cannot be written.
        """
        write_json(self.as_dict(), path, indent=1)

    def write(self, folder: Path) -> None:
        """Write metrics.json, detections.json and ground_truth.json into a folder.

        Raises:
            UserError: a file cannot be written.
        """
        self.write_metrics(folder / "metrics.json")
        write_json(self.detections, folder / "detections.json")
        write_json(self.ground_truth, folder / "ground_truth.json")


@dataclass(frozen=True)
class Findings:
    """What a predictor found in some images of a data set.

    Attributes:
        indices: the images' places in the data set.
        detections: one each, labelled as the data set labels.
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
        weights: noted in the result.
        splits: noted in the result.

    Raises:
        UserError: the predictor lacks a class of the data, or an image cannot be read.
    """
    findings = find(predictor, dataset, batch_size=batch_size, progress=progress, skip_bad=skip_bad)
    return score(findings, dataset, left_out=left_out, weights=weights, splits=splits)


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
    matched = _match_classes(predictor.class_names, dataset.class_names)
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
    weights: str = "",
    splits: Sequence[str] = (),
) -> EvalResult:
    """Compare findings with the ground truth of the data set that they were made in; see `evaluate`."""
    if not findings.indices:
        raise UserError(
            "nothing to evaluate: not one image could be read" if len(dataset) else "no images to evaluate"
        )
    records = [dataset.records[index] for index in findings.indices]
    sizes = [(record.height, record.width) for record in records]
    names = _file_names(records)
    ground_truth = build_ground_truth(findings.targets, dataset.class_names, names, sizes)
    detections = build_detections(findings.detections)
    return EvalResult(
        class_names=tuple(dataset.class_names),
        images=len(records),
        skipped=left_out + len(dataset) - len(records),
        coco=coco_ap(ground_truth, detections),
        voc=voc_ap(findings.detections, findings.targets, len(dataset.class_names)),
        speed_ms=findings.timings.milliseconds(),
        ground_truth=ground_truth,
        detections=detections,
        weights=weights,
        splits=tuple(splits),
    )


def write_json(content: Any, path: Path, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def _match_classes(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the label among `known` of each class of the data."""
    matched = match_class_names(known, wanted)
    missing = [name for name, label in zip(wanted, matched, strict=True) if label is None]
    if missing:
        raise UserError(
            f"class {', '.join(missing)} of the data is not among the weights' classes: the data have "
            f"{', '.join(wanted)}; the weights have {', '.join(known)}; use weights trained on these classes"
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
            image, target = dataset.load(index)
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


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
