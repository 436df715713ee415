"""COCO average precision by pycocotools, with VOC's difficult objects as ignored ground truth.

The detection on an ignored object counts neither as right nor as wrong, a second one as wrong.
faster-coco-eval, where it is installed, computes the same several times faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.metrics.coco_format import iterate_detections, list_truths
from utils.metrics.flat import FlatBoxes
from utils.metrics.matching import MAX_DETECTIONS

try:
    import faster_coco_eval as faster
except ImportError:  # an optional package
    faster = None


@dataclass(frozen=True)
class CocoResult:
    """COCO's figures; None where there is no ground truth to find.

    Attributes:
        map50: mean over the classes of AP at IoU 0.5.
        map75: the same at IoU 0.75.
        map50_95: the same, mean over IoU 0.5, 0.55 ... 0.95.
        map_small: map50_95 for objects of at most 32 x 32 pixels.
        map_medium: map50_95 for objects of 32 x 32 to 96 x 96 pixels.
        map_large: map50_95 for objects of at least 96 x 96 pixels.
        ar100: mean recall with at most 100 detections an image and class, over IoU 0.5 ... 0.95.
        ap50: AP at IoU 0.5 of each class.
        ap50_95: AP over IoU 0.5 ... 0.95 of each class.
    """

    map50: float | None
    map75: float | None
    map50_95: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ar100: float | None
    ap50: tuple[float | None, ...]
    ap50_95: tuple[float | None, ...]


class _KeepIgnored:
    """Both evaluations overwrite `ignore` by `iscrowd`; before the classes they are mixed into, it stays."""

    cocoGt: Any  # noqa: N815, as pycocotools names it

    def _prepare(self) -> None:
        annotations = self.cocoGt.dataset["annotations"]
        ignored = [annotation["ignore"] for annotation in annotations]
        super()._prepare()  # type: ignore[misc]
        for annotation, ignore in zip(annotations, ignored, strict=True):
            annotation["ignore"] = ignore


class _Evaluation(_KeepIgnored, COCOeval):
    pass


ENGINES: dict[str, tuple[Any, Any]] = {"pycocotools": (COCO, _Evaluation)}
if faster is not None:

    class _FasterEvaluation(_KeepIgnored, faster.COCOeval_faster):
        pass

    ENGINES["faster-coco-eval"] = (faster.COCO, _FasterEvaluation)
ENGINE = [*ENGINES][-1]  # what computes, where nothing else is asked for


def coco_ap(boxes: FlatBoxes, engine: str = ENGINE) -> CocoResult:
    """Compute COCO's figures; `engine` is one of ENGINES."""
    build_index, build_evaluation = ENGINES[engine]
    frame = {
        "images": [{"id": number} for number in range(1, boxes.num_images + 1)],
        "categories": [{"id": number} for number in range(1, boxes.num_classes + 1)],
    }
    found = (
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(iterate_detections(boxes), start=1)
    )
    with redirect_stdout(StringIO()):  # pycocotools reports every step
        indices = [_index(build_index(), frame, rows) for rows in (list_truths(boxes), found)]
        evaluation = build_evaluation(*indices, iouType="bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, K, areas) and (IoU thresholds, K, areas); -1 without ground truth
    return _summarize(evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0])


def _index(index: Any, frame: dict[str, Any], rows: Iterable[dict[str, Any]]) -> Any:
    index.dataset = {**frame, "annotations": list(rows)}
    index.createIndex()
    return index


def _summarize(precision: np.ndarray, recall: np.ndarray) -> CocoResult:
    everything, small, medium, large = range(4)
    classes = range(precision.shape[2])
    return CocoResult(
        map50=_mean_known(precision[0, ..., everything]),
        map75=_mean_known(precision[5, ..., everything]),
        map50_95=_mean_known(precision[..., everything]),
        map_small=_mean_known(precision[..., small]),
        map_medium=_mean_known(precision[..., medium]),
        map_large=_mean_known(precision[..., large]),
        ar100=_mean_known(recall[..., everything]),
        ap50=tuple(_mean_known(precision[0, :, label, everything]) for label in classes),
        ap50_95=tuple(_mean_known(precision[..., label, everything]) for label in classes),
    )


def _mean_known(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
