"""What an evaluation found, as metrics.json, as COCO's files and as a table for the console."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.cli.files import atomic_write
from utils.metrics.analysis import Analysis
from utils.metrics.coco_ap import CocoResult
from utils.metrics.coco_format import build_ground_truth, write_detections
from utils.metrics.curves import Rates
from utils.metrics.matching import Matching
from utils.metrics.voc_ap import VocResult, mean_known

_COLUMNS = ("AP50", "AP50-95", "VOC area", "VOC 11-point", "precision", "recall", "best F1", "at score")


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found; figures are None where there is no ground truth to find.

    Attributes:
        class_names: the data's classes; per-class figures are in this order.
        skipped: number of images that were left out because they, or their annotations, could not be read.
        coco: pycocotools' figures.
        voc: the VOC devkit's figures.
        matching: all detections and ground truths, and who found what.
        analysis: what the matching says: rates, interval, error kinds, confusion, curves, worst images.
        speed_ms: mean milliseconds an image for preprocess, network and postprocess.
        indices: the place of each image in the data set.
        file_names: the name of each image in ground_truth.json.
        image_sizes: (height, width) of each image in pixels.
        weights: what was evaluated, for the record.
        splits: on what, for the record.
    """

    class_names: tuple[str, ...]
    skipped: int
    coco: CocoResult
    voc: VocResult
    matching: Matching
    analysis: Analysis
    speed_ms: dict[str, float]
    indices: tuple[int, ...]
    file_names: tuple[str, ...]
    image_sizes: tuple[tuple[int, int], ...]
    weights: str
    splits: tuple[str, ...]

    @property
    def images(self) -> int:
        """Number of images that were looked at."""
        return len(self.indices)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        means = ("map50", "map75", "map50_95", "map_small", "map_medium", "map_large", "ar100")
        interval = self.analysis.map50_interval
        confusion = self.analysis.confusion
        return {
            "images": self.images,
            "skipped": self.skipped,
            **{name: getattr(self.coco, name) for name in means},
            "map50_interval": None if interval is None else list(interval),
            "voc_ap50_area": self.voc.mean_area,
            "voc_ap50_11point": self.voc.mean_eleven_point,
            "report_conf": self.analysis.report_conf,
            "per_class": {name: self._class_as_dict(index) for index, name in enumerate(self.class_names)},
            "errors": {kind: asdict(error) for kind, error in self.analysis.errors.items()},
            "confusion": {
                "conf": confusion.conf,
                "iou": confusion.iou,
                "labels": [*self.class_names, "background"],
                "matrix": confusion.matrix.tolist(),
            },
            "speed_ms": self.speed_ms,
            "weights": self.weights,
            "splits": list(self.splits),
        }

    def _class_as_dict(self, index: int) -> dict[str, Any]:
        reported = asdict(self.analysis.at_report_conf[index])
        del reported["threshold"]  # the same for all of them
        return {
            "ground_truths": self.voc.ground_truths[index],
            "ap50": self.coco.ap50[index],
            "ap50_95": self.coco.ap50_95[index],
            "voc_ap50_area": self.voc.area[index],
            "voc_ap50_11point": self.voc.eleven_point[index],
            **asdict(self.analysis.best[index]),
            "at_report_conf": reported,
        }

    def table(self) -> str:
        """Return the figures as lines for a console: a line a class, the means, the number of images."""
        coco, voc, analysis = self.coco, self.voc, self.analysis
        rows = [
            (name, voc.ground_truths[index], self._figures(index))
            for index, name in enumerate(self.class_names)
        ]
        means = [coco.map50, coco.map50_95, voc.mean_area, voc.mean_eleven_point]
        rows.append(("mean", sum(voc.ground_truths), [*means, *_mean_rates(analysis.best), None]))
        width = max(len("class"), *(len(name) for name, _, _ in rows))
        lines = ["  ".join((f"{'class':<{width}}", "objects", *(f"{name:>6}" for name in _COLUMNS)))]
        for name, count, figures in rows:
            shown = (f"{_shown(v):>{max(6, len(c))}}" for c, v in zip(_COLUMNS, figures, strict=True))
            lines.append("  ".join((f"{name:<{width}}", f"{count:>7}", *shown)))
        unseen = sum(count == 0 for count in voc.ground_truths)
        if unseen:
            lines.append(
                f"{unseen} of {len(self.class_names)} classes have no ground truth (-), left out of the means"
            )
        precision, recall, f1 = map(_shown, _mean_rates(analysis.at_report_conf))
        lines.append(
            f"means at score {analysis.report_conf:g}: precision {precision}  recall {recall}  F1 {f1}"
        )
        if analysis.map50_interval:
            low, high = map(_shown, analysis.map50_interval)
            lines.append(f"mAP50 {_shown(coco.map50)}, 95 % interval over the images {low} to {high}")
        of_all = f" of {self.images + self.skipped}" if self.skipped else ""
        return "\n".join([*lines, f"mAP over {self.images}{of_all} images"])

    def _figures(self, index: int) -> list[float | None]:
        """Return a class's figures in the order of _COLUMNS."""
        coco, voc, best = self.coco, self.voc, self.analysis.best[index]
        aps = [coco.ap50[index], coco.ap50_95[index], voc.area[index], voc.eleven_point[index]]
        return [*aps, best.precision, best.recall, best.f1, best.threshold]

    def error_table(self) -> str:
        """Return a line a kind of error: how many there are, and what mAP50 would gain without them."""
        lines = ["error         count  cost in mAP50"]
        for kind, error in self.analysis.errors.items():
            lines.append(f"{kind:<10}  {error.count:>7}  {_shown(error.cost):>13}")
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
        boxes = self.matching.boxes
        write_detections(boxes, folder / "detections.json")
        truth = build_ground_truth(boxes, self.class_names, self.file_names, self.image_sizes)
        write_json(truth, folder / "ground_truth.json")


def write_json(content: Any, path: Path, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path, "w") as file:
        # json.dump is far slower
        file.write(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def _mean_rates(rates: Sequence[Rates]) -> list[float | None]:
    """Return the means of precision, recall and F1 over the classes that have them."""
    return [mean_known([getattr(one, name) for one in rates]) for name in ("precision", "recall", "f1")]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
