"""COCO average precision by pycocotools, and the two JSON files that it reads.

VOC's difficult objects are COCO's crowd regions (`iscrowd`): they need not be detected, and detections inside
one count neither as right nor as wrong, however many there are. Inside means that at an IoU threshold of X at
least the share X of the detection's area is in the region. Any COCO evaluation of the two files gives the
same values. faster-coco-eval computes them several times faster; optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.metrics.matching import MAX_DETECTIONS, FlatBoxes

try:
    import faster_coco_eval as faster
except ImportError:  # an optional package
    faster = None


@dataclass(frozen=True)
class CocoResult:
    """COCO's metrics; None where there is no ground truth."""

    map50: float | None  # mean over the classes of AP at IoU 0.5
    map75: float | None  # the same at IoU 0.75
    map50_95: float | None  # the same, mean over IoU 0.5, 0.55 ... 0.95
    map_small: float | None  # map50_95 for objects of at most 32 x 32 pixels
    map_medium: float | None  # map50_95 for objects of 32 x 32 to 96 x 96 pixels
    map_large: float | None  # map50_95 for objects of at least 96 x 96 pixels
    ar100: float | None  # mean recall with at most 100 detections per image and class, over IoU 0.5 ... 0.95
    ap50: tuple[float | None, ...]  # AP at IoU 0.5 of each class
    ap50_95: tuple[float | None, ...]  # AP over IoU 0.5 ... 0.95 of each class


ENGINES: dict[str, tuple[Any, Any]] = {"pycocotools": (COCO, COCOeval)}
if faster is not None:
    ENGINES["faster-coco-eval"] = (faster.COCO, faster.COCOeval_faster)
ENGINE = [*ENGINES][-1]  # the default


def coco_ap(boxes: FlatBoxes, engine: str = ENGINE) -> CocoResult:
    """Compute COCO's metrics; `engine` is one of ENGINES."""
    build_index, build_evaluation = ENGINES[engine]
    header = {
        "images": [{"id": number + 1} for number in range(boxes.num_images)],
        "categories": [{"id": number + 1} for number in range(boxes.num_classes)],
    }
    detections = [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(list_detections(boxes), start=1)
    ]
    with redirect_stdout(StringIO()):  # pycocotools prints every step
        indices = [build_index(), build_index()]
        for index, rows in zip(indices, (list_truths(boxes), detections), strict=True):
            index.dataset = {**header, "annotations": rows}
            index.createIndex()
        evaluation = build_evaluation(*indices, iouType="bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0]  # (IoU thresholds, recalls, K, areas)
    recall = evaluation.eval["recall"][..., 0]  # (IoU thresholds, K, areas)
    everything, small, medium, large = range(4)
    return CocoResult(
        map50=_mean(precision[0, ..., everything]),
        map75=_mean(precision[5, ..., everything]),
        map50_95=_mean(precision[..., everything]),
        map_small=_mean(precision[..., small]),
        map_medium=_mean(precision[..., medium]),
        map_large=_mean(precision[..., large]),
        ar100=_mean(recall[..., everything]),
        ap50=tuple(_mean(precision[0, :, label, everything]) for label in range(boxes.num_classes)),
        ap50_95=tuple(_mean(precision[..., label, everything]) for label in range(boxes.num_classes)),
    )


def list_truths(boxes: FlatBoxes) -> list[dict[str, Any]]:
    """Return the ground truths as COCO annotations, ids from 1; VOC's difficult objects are crowds.

    `ignore` repeats the flag for readers that know it; COCOeval overwrites it by `iscrowd`.
    """
    columns = (boxes.truth_image, boxes.truth_label, boxes.truth_box, boxes.difficult)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            "id": number,
            "image_id": image + 1,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(difficult),
            "ignore": int(difficult),
        }
        for number, (image, label, box, difficult) in enumerate(rows, start=1)
    ]


def list_detections(boxes: FlatBoxes) -> list[dict[str, Any]]:
    """Return the detections as COCO results, the content of detections.json."""
    columns = (boxes.image, boxes.label, boxes.box, boxes.score)
    return [
        {"image_id": image + 1, "category_id": label + 1, "bbox": box, "score": score}
        for image, label, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


def build_ground_truth(
    boxes: FlatBoxes,
    class_names: Sequence[str],
    file_names: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, list[dict[str, Any]]]:
    """Build the content of ground_truth.json; image_sizes are (height, width) in pixels."""
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, (height, width)) in enumerate(zip(file_names, image_sizes, strict=True), start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    return {"images": images, "categories": categories, "annotations": list_truths(boxes)}


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]  # -1 is no ground truth
    return float(known.mean()) if known.size else None
