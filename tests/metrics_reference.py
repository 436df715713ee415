"""Random detections with all that is awkward, and the references that the figures are compared with.

The references read what ground_truth.json and detections.json hold.
"""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.structures import Detections, Target
from utils.metrics.coco_ap import CocoResult, build_ground_truth, list_detections
from utils.metrics.matching import FlatBoxes, flatten

CLASSES = 4
Rows = list[dict]


def make_detections(*rows: tuple[list[float], int, float]) -> Detections:
    """Make the (box, label, score) of one image."""
    boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4)
    scores, labels = (
        torch.tensor([row[i] for row in rows], dtype=d) for i, d in ((2, torch.float), (1, torch.int64))
    )
    return Detections(boxes, scores, labels)


def make_target(*rows: tuple[list[float], int] | tuple[list[float], int, bool]) -> Target:
    """Make the (box, label, difficult) of one image; not difficult where nothing is said."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    return Target(
        boxes, labels, torch.tensor([len(row) > 2 and bool(row[2]) for row in rows], dtype=torch.bool)
    )


def random_boxes(
    seed: int, images: int = 6, difficult: float = 0.25, is_exact: bool | None = None
) -> tuple[list[Detections], list[Target]]:
    """Make a case with duplicates, difficult objects, empty images and, mostly, a class without objects.

    Every second one has whole coordinates and few different scores, and so equal scores and equal IoUs.
    """
    rng = np.random.default_rng(seed)
    is_exact = seed % 2 == 0 if is_exact is None else is_exact

    def settle(boxes: np.ndarray) -> torch.Tensor:
        boxes = np.concatenate((boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)), axis=1)
        return torch.tensor(boxes.round() if is_exact else boxes, dtype=torch.float32).reshape(-1, 4)

    def anywhere(count: int) -> np.ndarray:
        corner = rng.uniform(0, 40, (count, 2))
        return np.concatenate((corner, corner + rng.choice([8, 12, 40, 110], (count, 2))), axis=1)

    found, targets = [], []
    for _ in range(images):
        objects = int(rng.integers(0, 6))
        truth = anywhere(objects)
        labels = rng.integers(0, CLASSES - (seed % 3 > 0), objects)
        hard = torch.tensor(rng.random(objects) < difficult, dtype=torch.bool)
        targets.append(Target(settle(truth), torch.tensor(labels), hard))
        near = truth.repeat(3, axis=0) + rng.choice([0, 0, 1, 3], (3 * objects, 4)) * rng.normal(
            0, 1, (3 * objects, 4)
        )
        everything = settle(np.concatenate((near, anywhere(int(rng.integers(0, 5))))))
        guesses = rng.integers(0, CLASSES, len(everything))
        copied = rng.random(len(near)) < 0.7
        guesses[: len(near)][copied] = labels.repeat(3)[copied]
        scores = rng.integers(1, 8, len(everything)) / 8 if is_exact else rng.random(len(everything))
        order = np.argsort(-scores, kind="stable")
        if rng.random() < 0.15:
            order = order[:0]
        made = Detections(everything, torch.tensor(scores, dtype=torch.float32), torch.tensor(guesses))
        found.append(made[torch.tensor(order)])
    return found, targets


def random_case(seed: int, **knobs) -> FlatBoxes:
    return flatten(*random_boxes(seed, **knobs), CLASSES)


def as_files(boxes: FlatBoxes) -> tuple[dict, Rows]:
    """Return the content of ground_truth.json and detections.json."""
    names, files = [str(k) for k in range(boxes.num_classes)], [str(i) for i in range(boxes.num_images)]
    return build_ground_truth(boxes, names, files, [(200, 200)] * len(files)), list_detections(boxes)


def devkit_ap(truth: dict, found: Rows, category: int) -> tuple[float, float] | None:
    """VOCevaldet.m, line by line, one class: (area AP, 11-point AP), None without objects."""
    objects: dict[int, Rows] = {}
    for row in truth["annotations"]:
        if row["category_id"] == category:
            objects.setdefault(row["image_id"], []).append({**row, "taken": False})
    count = sum(not row["ignore"] for rows in objects.values() for row in rows)
    if not count:
        return None
    true, false = [], []
    for row in sorted(
        (row for row in found if row["category_id"] == category), key=lambda row: -row["score"]
    ):
        best, nearest = -1.0, None
        for other in objects.get(row["image_id"], []):
            overlap = devkit_iou(row["bbox"], other["bbox"])
            if overlap > max(best, 0):
                best, nearest = overlap, other
        if nearest is None or best < 0.5:
            true.append(0), false.append(1)
        elif not nearest["ignore"]:
            true.append(int(not nearest["taken"])), false.append(int(nearest["taken"]))
            nearest["taken"] = True
    hits, misses = np.cumsum(true), np.cumsum(false)
    recall = [0.0, *(hits / count), 1.0]
    precision = [0.0, *(h / (h + m) for h, m in zip(hits, misses, strict=True)), 0.0]
    eleven = 0.0
    for tenth in range(11):
        reached = [p for h, p in zip(hits, precision[1:-1], strict=True) if 10 * h >= tenth * count]
        eleven += max(reached, default=0.0) / 11
    for index in range(len(precision) - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1)), eleven


def devkit_iou(one: list[float], other: list[float]) -> float:
    both = intersection(one, other)
    return both and both / (one[2] * one[3] + other[2] * other[3] - both)


def share_inside(one: list[float], region: list[float]) -> float:
    both = intersection(one, region)
    return both and both / (one[2] * one[3])


def intersection(one: list[float], other: list[float]) -> float:
    (x, y, w, h), (u, v, p, q) = one, other
    width, height = min(x + w, u + p) - max(x, u), min(y + h, v + q) - max(y, v)
    return width * height if min(width, height) > 0 else 0.0


def save_files(boxes: FlatBoxes, folder: Path) -> tuple[Path, Path]:
    """Write ground_truth.json and detections.json."""
    paths = folder / "ground_truth.json", folder / "detections.json"
    for path, content in zip(paths, as_files(boxes), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return paths


def plain_coco(truth: Path, found: Path) -> CocoResult:
    """Compute what anybody does with pycocotools from the two files."""
    with redirect_stdout(StringIO()):
        index = COCO(str(truth))
        evaluation = COCOeval(index, index.loadRes(str(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [None if value == -1 else float(value) for value in evaluation.stats]
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # all sizes, 100 detections
    per_class = [np.moveaxis(part, -1, 0) for part in (precision[:1], precision)]
    ap50, ap50_95 = (
        tuple(None if (one == -1).all() else float(one.mean()) for one in part) for part in per_class
    )
    return CocoResult(stats[1], stats[2], stats[0], stats[3], stats[4], stats[5], stats[8], ap50, ap50_95)
