"""Diagnosis of an mAP50 near zero: common mistakes in data and training, measured on the detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nets.boxes import box_iou, xyxy_to_cxcywh
from nets.structures import Detections, Target
from utils.metrics.matching import IOU

LOW_SCORE = 0.05
ENOUGH_STEPS = 500
_MIN_SHARE = 0.3  # of the objects that a mistake must explain
_ROUNDS = 3  # the nearest boxes change with the fit
_MIN_PAIRS = 5  # a scale or shift fits fewer by chance
_LOOK = "look at val_batch0.jpg"
_LOOK_BOTH = "look at train_batch0.jpg and val_batch0.jpg"

Pair = tuple[Detections, Target]


def explain_low_map(
    detections: Sequence[Detections], targets: Sequence[Target], class_names: Sequence[str], steps: int
) -> str:
    """Explain in a sentence or two why mAP50 is near zero, and what to do.

    Each common mistake is undone on the ground truth: another class, x and y swapped, a scale, a shift. The
    one with which most objects are detected is named if it explains three in ten.

    Detections, highest score first, and targets are one per image, in its pixels; difficult objects do not
    count. `steps` is the number of optimizer steps that the network has taken.
    """
    easy = [target.to("cpu")[~target.difficult.cpu()] for target in targets]
    objects = sum(len(target) for target in easy)
    if not objects:
        difficult = sum(len(target) for target in targets)
        reason = f"all {difficult} objects are difficult" if difficult else "there is no object"
        return (
            f"mAP50 is undefined: {reason} in the {len(targets)} validation images; check --val and the "
            f"annotations, and {_LOOK}"
        )
    advice = "a network usually needs some hundred steps: give more --epochs or a smaller --batch-size"
    if steps >= ENOUGH_STEPS:
        advice = "that should be enough steps: check the annotations, --lr and --weights"
    highest = max((found.scores.max().item() for found in detections if len(found)), default=0.0)
    if highest <= LOW_SCORE:
        boxes = sum(map(len, detections))
        best = f"the best of {boxes} boxes has {highest:.3f}" if boxes else "there is no box"
        return (
            f"nothing scores above {LOW_SCORE} ({best}) in images with {objects} objects, after {steps} "
            f"steps; {advice}, and {_LOOK if steps < ENOUGH_STEPS else _LOOK_BOTH}"
        )

    pairs = []
    for found, target in zip(detections, easy, strict=True):
        found = found.to("cpu")
        chosen = (found.scores > LOW_SCORE) | (torch.arange(len(found)) < len(target))  # at least the M best
        pairs.append((found[chosen], target))
    right, confusions = _compare(pairs)
    confused = sum(confusions.values())
    reasons = [(right, "")]
    if confusions:
        (label, instead), most = confusions.most_common(1)[0]
        sentence = (
            f"{confused} of {objects} objects are detected in the right place but as another class, most "
            f"often {class_names[label]} as {class_names[instead]} ({most}); check the order of the names in "
            f"--classes and the names in the annotations, and {_LOOK}"
        )
        reasons = [(right + confused, sentence)]
    for mistake, undo in _possible_mistakes(pairs):
        count, _ = _compare([(found, replace(target, boxes=undo(target.boxes))) for found, target in pairs])
        sentence = (
            f"the annotated boxes look {mistake}: with that undone {count} of {objects} objects are "
            f"detected, else {right}; check the annotations (x and y swapped? XML written for another "
            f"image size?), and {_LOOK_BOTH}"
        )
        reasons.append((count, sentence))
    explained, sentence = max(reasons, key=lambda reason: reason[0])
    if explained - right >= _MIN_SHARE * objects:
        return sentence
    return (
        f"{right} of {objects} objects are detected and {confused} detected as another class; the highest "
        f"score is {highest:.2f} after {steps} steps; {advice}, and {_LOOK_BOTH}"
    )


def _compare(pairs: Sequence[Pair]) -> tuple[int, Counter[tuple[int, int]]]:
    """Count the objects with a detection of their class in their place (IoU of at least 0.5).

    Of objects with detections of other classes only, (label, detected label) is counted.
    """
    right, confusions = 0, Counter[tuple[int, int]]()
    for found, target in pairs:
        close = box_iou(found.boxes.double(), target.boxes.double()) >= IOU  # (N, M)
        is_right = (close & (found.labels[:, None] == target.labels)).any(dim=0)
        right += int(is_right.sum())
        for index in (close.any(dim=0) & ~is_right).nonzero().flatten().tolist():
            best = int(close[:, index].nonzero()[0])  # the first has the highest score
            confusions[int(target.labels[index]), int(found.labels[best])] += 1
    return right, confusions


def _possible_mistakes(pairs: Sequence[Pair]) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """Return possible mistakes in the annotated boxes Tensor[M, 4], in words, and what undoes each."""
    swapped = ("swapped in x and y", lambda boxes: boxes[:, [1, 0, 3, 2]])
    scale = torch.ones(2)  # (x, y) factors from annotated to detected sizes
    truth, found = _nearest(pairs, scale)
    if len(truth) < _MIN_PAIRS:
        return [swapped]
    shift = (found[:, :2] - truth[:, :2]).median(dim=0).values  # (x, y) pixels
    for _ in range(_ROUNDS):
        truth, found = _nearest(pairs, scale)
        scale = (found[:, 2:] / truth[:, 2:].clamp(min=1e-3)).median(dim=0).values.clamp(min=1e-3)
    right, down = (-shift).tolist()
    wide, high = (1 / scale).tolist()
    return [
        swapped,
        (f"scaled by {wide:.2f} in x and {high:.2f} in y", lambda boxes: boxes * scale.repeat(2)),
        (
            f"shifted by {right:+.0f} pixels in x and {down:+.0f} in y",
            lambda boxes: boxes + shift.repeat(2),
        ),
    ]


def _nearest(pairs: Sequence[Pair], scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the annotated boxes, and for each the nearest detection of its class once scaled.

    Both are Tensor[P, 4] (center x, center y, width, height); scale is Tensor[2] (x, y).
    """
    truths, nearest = [torch.zeros(0, 4)], [torch.zeros(0, 4)]
    for found, target in pairs:
        if not len(found):
            continue
        boxes, others = xyxy_to_cxcywh(target.boxes), xyxy_to_cxcywh(found.boxes)
        same = found.labels[:, None] == target.labels[None]
        distances = torch.cdist(others[:, :2], boxes[:, :2] * scale).masked_fill(~same, torch.inf)
        distance, index = distances.min(dim=0)
        known = distance.isfinite()
        truths.append(boxes[known])
        nearest.append(others[index[known]])
    return torch.cat(truths), torch.cat(nearest)
