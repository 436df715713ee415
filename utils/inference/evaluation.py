"""Evaluation of a predictor on a data set: the two calls that prediction makes, then the metrics."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nets.structures import Detections, Target
from utils.cli.class_names import match_class_names
from utils.cli.console import log, progress, warn
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.data.targets import build_target
from utils.inference.predictor import Predictor, Prepared, Timings
from utils.inference.prefetch import batched, prefetch
from utils.metrics.analysis import Rates, best_rates, count_confusion, rates_at
from utils.metrics.coco_ap import CocoResult, build_ground_truth, coco_ap, list_detections
from utils.metrics.error_kinds import ErrorKind, find_error_kinds
from utils.metrics.interval import map50_of_draws, percentile_interval
from utils.metrics.matching import IOU, Integers, Matching, flatten, match, mean_known
from utils.metrics.voc_ap import VocResult, voc_ap

_COLUMNS = ("AP50", "AP50-95", "VOC area", "VOC 11-point", "precision", "recall", "best F1", "at score")


@dataclass(frozen=True)
class DatasetDetections:
    """The detections in some images of a data set, beside their ground truth."""

    indices: list[int]  # the images' indices in the data set
    detections: list[Detections]  # one per image, with the labels of the data set
    targets: list[Target]  # one per image
    timings: Timings  # without the first batch if there are others: it is slower
    conditions: dict[str, Any] = field(default_factory=dict)  # see `Predictor.speed_conditions`


@dataclass(frozen=True)
class EvalResult:
    """The metrics of an evaluation; None where there is no ground truth."""

    class_names: tuple[str, ...]  # the data's classes; per-class metrics are in this order
    records: tuple[Record, ...]
    skipped: int  # number of images without metrics, as they or their annotations could not be read
    matching: Matching  # all detections and ground truths, and which match
    coco: CocoResult  # pycocotools' metrics
    voc: VocResult  # the VOC devkit's metrics
    best: tuple[Rates, ...]  # each class's rates at its best F1
    report_conf: float  # the minimum score of `at_report_conf` and `confusion`
    at_report_conf: tuple[Rates, ...]  # each class's rates at it
    confusion: Integers  # int64 (K + 1, K + 1), see `count_confusion`
    map50_draws: tuple[float | None, ...]  # mAP50 in draws of the images, see `map50_of_draws`
    errors: dict[str, ErrorKind]  # count and cost of each kind of error
    speed_ms: dict[str, float]  # mean milliseconds per image for the stages of `Timings`
    weights: str
    splits: tuple[str, ...]
    speed_conditions: dict[str, Any] = field(default_factory=dict)  # see `Predictor.speed_conditions`

    @property
    def images(self) -> int:
        """Number of evaluated images."""
        return len(self.records)

    @property
    def map50_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of mAP50 over the images."""
        return percentile_interval(self.map50_draws)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        means = ("map50", "map75", "map50_95", "map_small", "map_medium", "map_large", "ar100")
        return {
            "images": self.images,
            "skipped": self.skipped,
            **{name: getattr(self.coco, name) for name in means},
            "map50_interval": self.map50_interval and list(self.map50_interval),
            "voc_ap50_area": mean_known(self.voc.area),
            "voc_ap50_11point": mean_known(self.voc.eleven_point),
            "report_conf": self.report_conf,
            "per_class": {name: self._class_as_dict(index) for index, name in enumerate(self.class_names)},
            "errors": {kind: asdict(error) for kind, error in self.errors.items()},
            "confusion": {
                "conf": self.report_conf,
                "iou": IOU,
                "labels": [*self.class_names, "background"],
                "matrix": self.confusion.tolist(),
            },
            "speed_ms": self.speed_ms,
            "speed_conditions": self.speed_conditions,
            "weights": self.weights,
            "splits": list(self.splits),
            "map50_draws": list(self.map50_draws),  # last: a long list
        }

    def _class_as_dict(self, index: int) -> dict[str, Any]:
        reported = asdict(self.at_report_conf[index])
        del reported["threshold"]  # the same for all
        return {
            "ground_truths": self.voc.ground_truths[index],
            "ap50": self.coco.ap50[index],
            "ap50_95": self.coco.ap50_95[index],
            "voc_ap50_area": self.voc.area[index],
            "voc_ap50_11point": self.voc.eleven_point[index],
            **asdict(self.best[index]),
            "at_report_conf": reported,
        }

    def table(self) -> str:
        """Return the metrics as lines: one per class, the means, the number of images."""
        coco, voc = self.coco, self.voc
        per_class = (coco.ap50, coco.ap50_95, voc.area, voc.eleven_point)
        rows = [
            (name, count, [*aps, best.precision, best.recall, best.f1, best.threshold])
            for name, count, best, *aps in zip(
                self.class_names, voc.ground_truths, self.best, *per_class, strict=True
            )
        ]
        means = [coco.map50, coco.map50_95, mean_known(voc.area), mean_known(voc.eleven_point)]
        rows.append(("mean", sum(voc.ground_truths), [*means, *_mean_rates(self.best), None]))
        width = max(len("class"), *(len(name) for name, _, _ in rows))
        lines = ["  ".join((f"{'class':<{width}}", "objects", *(f"{name:>6}" for name in _COLUMNS)))]
        for name, count, figures in rows:
            shown = (f"{_shown(v):>{max(6, len(c))}}" for c, v in zip(_COLUMNS, figures, strict=True))
            lines.append("  ".join((f"{name:<{width}}", f"{count:>7}", *shown)))
        unseen = voc.ground_truths.count(0)
        if unseen:
            lines.append(
                f"{unseen} of {len(self.class_names)} classes have no ground truth (-), left out of the means"
            )
        precision, recall, f1 = map(_shown, _mean_rates(self.at_report_conf))
        lines.append(f"means at score {self.report_conf:g}: precision {precision}  recall {recall}  F1 {f1}")
        if self.map50_interval:
            low, high = map(_shown, self.map50_interval)
            lines.append(f"mAP50 {_shown(coco.map50)}, 95 % interval over the images {low} to {high}")
        of_all = f" of {self.images + self.skipped}" if self.skipped else ""
        return "\n".join([*lines, f"mAP over {self.images}{of_all} images"])

    def error_table(self) -> str:
        """Return a line per kind of error: their number, and what mAP50 would gain without them."""
        lines = ["error         count  cost in mAP50"]
        for kind, error in self.errors.items():
            lines.append(f"{kind:<10}  {error.count:>7}  {_shown(error.cost):>13}")
        return "\n".join(lines)

    def write_metrics(self, path: Path) -> None:
        """Write metrics.json."""
        _write_json(self.as_dict(), path, indent=1)

    def write(self, folder: Path) -> None:
        """Write metrics.json, detections.json and ground_truth.json into a folder."""
        self.write_metrics(folder / "metrics.json")
        boxes, sizes = self.matching.boxes, [(record.height, record.width) for record in self.records]
        _write_json(list_detections(boxes), folder / "detections.json")
        truth = build_ground_truth(boxes, self.class_names, _file_names(self.records), sizes)
        _write_json(truth, folder / "ground_truth.json")


def detect_dataset(
    predictor: Predictor, dataset: VocDataset, *, batch_size: int = 8, skip_bad: bool = False
) -> DatasetDetections:
    """Detect objects in the images of a data set, and show the progress.

    Args:
        predictor: its `conf` should be low (0.001) and its `max_det` 100, or the curves end early.
        dataset: images and targets; its classes are matched with the predictor's by name.
        batch_size: images that the network takes at a time.
        skip_bad: skip an unreadable image with a warning, instead of stopping.

    Raises:
        UserError: the predictor lacks a class of the data, or an image cannot be read.
    """
    matched = match_classes(predictor.class_names, dataset)
    limited = predictor.limited_to(matched)
    to_data = torch.full((len(predictor.class_names),), -1)
    to_data[matched] = torch.arange(len(matched))
    found = DatasetDetections([], [], [], Timings(), predictor.speed_conditions(batch_size))
    first, tiles = Timings(), 0
    for number, batch in enumerate(batched(_load(limited, dataset, batch_size, skip_bad), batch_size)):
        for index, prepared, target in batch:
            found.indices.append(index)
            found.targets.append(target)
            tiles += len(prepared.tiles)
        for one in limited.detect([prepared for _, prepared, _ in batch], found.timings if number else first):
            found.detections.append(Detections(one.boxes, one.scores, to_data[one.labels]))
    if predictor.tile_size:
        log(f"tiles: {tiles / max(len(found.indices), 1):.1f} per image, beside the whole image")
    return found if found.timings.images else replace(found, timings=first)


def score_detections(
    found: DatasetDetections,
    dataset: VocDataset,
    *,
    skipped: int = 0,
    report_conf: float = 0.25,
    weights: str = "",
    splits: Sequence[str] = (),
) -> EvalResult:
    """Compare detections with the ground truth of their data set.

    `skipped` images, which the data set lacks because they are faulty, are counted with the unreadable ones.

    Raises:
        UserError: there is no image.
    """
    if not found.indices:
        raise UserError(
            "nothing to evaluate: not one image could be read" if len(dataset) else "no images to evaluate"
        )
    boxes = flatten(found.detections, found.targets, len(dataset.class_names))
    matching = match(boxes)
    return EvalResult(
        class_names=tuple(dataset.class_names),
        records=tuple(dataset.records[index] for index in found.indices),
        skipped=skipped + len(dataset) - len(found.indices),
        matching=matching,
        coco=coco_ap(boxes),
        voc=voc_ap(matching),
        best=best_rates(matching),
        report_conf=report_conf,
        at_report_conf=rates_at(matching, report_conf),
        confusion=count_confusion(matching, report_conf),
        map50_draws=map50_of_draws(matching),
        errors=find_error_kinds(matching),
        speed_ms=found.timings.milliseconds(),
        speed_conditions=found.conditions,
        weights=weights,
        splits=tuple(splits),
    )


def match_classes(known: Sequence[str], dataset: VocDataset) -> list[int]:
    """Return the label among `known`, the weights' classes, of each class of the data.

    Raises:
        UserError: the weights lack a class, or two classes of the data match the same one.
    """
    names = dataset.class_names
    matched = match_class_names(known, names)
    missing = [name for name, label in zip(names, matched, strict=True) if label is None]
    if missing:
        present = {name for record in dataset.records for name in record.names} | set(missing)
        raise UserError(
            f"class {', '.join(missing)} of the data is not among the weights' classes: the data have "
            f"{', '.join(sorted(present))}; the weights have {', '.join(known)}; "
            "use weights trained on these classes, or evaluate those that they know: --classes FILE"
        )
    doubled = [name for name, label in zip(names, matched, strict=True) if matched.count(label) > 1]
    if doubled:
        raise UserError(
            f"classes {', '.join(doubled)} of the data match one class of the weights; merge them: --rename "
            f"{shlex.quote(f'{doubled[1]}={doubled[0]}')}"
        )
    return [label for label in matched if label is not None]


def _write_json(content: Any, path: Path, indent: int | None = None) -> None:
    with atomic_write(path, "w") as file:  # json.dump is far slower
        file.write(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def _load(
    predictor: Predictor, dataset: VocDataset, batch_size: int, skip_bad: bool
) -> Iterator[tuple[int, Prepared, Target]]:
    """Yield (index, prepared image, target) of the readable images in order, read ahead in threads."""

    def load(index: int) -> tuple[int, Prepared, Target] | UserError:
        try:
            image, target = dataset.read(index), build_target(dataset, index)
            return index, predictor.prepare(image, dataset.records[index].image_path), target
        except UserError as error:
            return error

    # The tiles keep the whole image in memory.
    results = prefetch(load, range(len(dataset)), depth=4 if predictor.tile_size else max(16, 2 * batch_size))
    for result in progress(results, "evaluate", total=len(dataset)):
        if not isinstance(result, UserError):
            yield result
        elif skip_bad:
            warn(f"{result}; skipped")
        else:
            raise UserError(f"{result}; --skip-bad skips such images")


def _file_names(records: Sequence[Record]) -> list[str]:
    """Return each image's path relative to the common folder of all."""
    paths = [os.path.abspath(record.image_path) for record in records]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]


def _mean_rates(rates: Sequence[Rates]) -> list[float | None]:
    """Return the means of precision, recall and F1 over the classes that have them."""
    return [mean_known([getattr(one, name) for one in rates]) for name in ("precision", "recall", "f1")]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
