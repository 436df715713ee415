"""COCO average precision by pycocotools, with VOC's difficult objects as ignored ground truth.

A detection on an ignored object counts neither as right nor as wrong. The dictionaries made here are both
what is evaluated and what is written to ground_truth.json and detections.json.
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
from torch import Tensor

from nets.structures import Detections, Target

MAX_DETECTIONS = 100  # an image and class, as COCO caps them


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


class _EvaluationWithIgnored(COCOeval):
    """pycocotools' evaluation, which overwrites `ignore` by `iscrowd`; here `ignore` stays."""

    def _prepare(self) -> None:
        ignored = [annotation["ignore"] for annotation in self.cocoGt.dataset["annotations"]]
        super()._prepare()
        for annotation, ignore in zip(self.cocoGt.dataset["annotations"], ignored, strict=True):
            annotation["ignore"] = ignore


def build_ground_truth(
    targets: Sequence[Target],
    class_names: Sequence[str],
    file_names: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, list[dict[str, Any]]]:
    """Lay out the ground truth in COCO's format.

    Args:
        targets: one an image, boxes in pixels of the image.
        class_names: the K names; category_id is the index plus 1.
        file_names: the name of each image.
        image_sizes: (height, width) of each image.
    """
    images = [
        {"id": index, "file_name": name, "width": width, "height": height}
        for index, (name, (height, width)) in enumerate(zip(file_names, image_sizes, strict=True), start=1)
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names, start=1)]
    annotations: list[dict[str, Any]] = []
    for image_id, target in enumerate(targets, start=1):
        rows = zip(_xywh(target.boxes), target.labels.tolist(), target.difficult.tolist(), strict=True)
        for box, label, difficult in rows:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": box,
            }
            annotations.append(annotation | {"area": box[2] * box[3], "iscrowd": 0, "ignore": int(difficult)})
    return {"images": images, "categories": categories, "annotations": annotations}


def build_detections(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Lay out detections, one Detections an image, as the list that COCO calls results."""
    return [
        {"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score}
        for image_id, found in enumerate(detections, start=1)
        for box, label, score in zip(
            _xywh(found.boxes), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def coco_ap(ground_truth: dict[str, list[dict[str, Any]]], detections: list[dict[str, Any]]) -> CocoResult:
    """Compute COCO's figures from what `build_ground_truth` and `build_detections` return, unchanged."""
    with redirect_stdout(StringIO()):  # pycocotools reports every step
        truth = _build_index(ground_truth, ground_truth["annotations"])
        found = (
            truth.loadRes([dict(row) for row in detections]) if detections else _build_index(ground_truth, [])
        )
        evaluation = _EvaluationWithIgnored(truth, found, iouType="bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][
        ..., 0
    ]  # (IoU thresholds, recalls, K, areas); -1 without ground truth
    recall = evaluation.eval["recall"][..., 0]  # (IoU thresholds, K, areas)
    everything, small, medium, large = range(4)
    classes = range(len(ground_truth["categories"]))
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


def _xywh(boxes: Tensor) -> list[list[float]]:
    """Return rows of [x1, y1, width, height] in pixels, to 1e-4; float32 holds little more."""
    edges = boxes.cpu().double().numpy()
    return np.concatenate((edges[:, :2], edges[:, 2:] - edges[:, :2]), axis=1).round(4).tolist()


def _build_index(ground_truth: dict[str, list[dict[str, Any]]], annotations: list[dict[str, Any]]) -> COCO:
    index = COCO()
    index.dataset = {**ground_truth, "annotations": [dict(annotation) for annotation in annotations]}
    index.createIndex()
    return index


def _mean_known(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
