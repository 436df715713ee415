"""Why a trained network finds nothing: the usual mistakes each leave a trace that can be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nets.boxes import box_iou, xyxy_to_cxcywh
from nets.structures import Detections, Target

LOW_SCORE = 0.05
ENOUGH_STEPS = 500
_IOU = 0.5
_LEAST_SHARE = 0.3  # of the objects that a mistake must explain
_ROUNDS = 3  # what is nearest changes with the fit
_LEAST_PAIRS = 5  # a scale or shift can be made to fit fewer by chance
_LOOK = "look at val_batch0.jpg"
_LOOK_BOTH = "look at train_batch0.jpg and val_batch0.jpg"

Pair = tuple[Detections, Target]
Change = Callable[[Tensor], Tensor]


def explain_low_map(
    detections: Sequence[Detections], targets: Sequence[Target], class_names: Sequence[str], steps: int
) -> str:
    """Say in a sentence or two why mAP50 is next to nothing, and what to do.

    Mistakes are tried out on the ground truth: another class, x and y swapped, a scale, a shift. The one with
    which most objects are found is named if it explains three in ten.

    Args:
        detections: one an image, boxes in pixels of the image, highest score first.
        targets: one an image, in the same order; difficult objects are left out.
        class_names: the names behind the labels of both.
        steps: optimizer steps that the network has taken.
    """
    easy = [target.to("cpu")[~target.difficult.cpu()] for target in targets]
    objects = sum(len(target) for target in easy)
    if not objects:
        hard = sum(len(target) for target in targets)
        known = f"all {hard} objects are difficult" if hard else "there is no object"
        return (
            f"mAP50 says nothing: {known} in the {len(targets)} validation images; check --val and the "
            f"annotations, and {_LOOK}"
        )
    highest = max((found.scores.max().item() for found in detections if len(found)), default=0.0)
    if highest <= LOW_SCORE:
        return _explain_low_scores(highest, sum(map(len, detections)), objects, steps)

    pairs = [(_choose(found, len(target)), target) for found, target in zip(detections, easy, strict=True)]
    right, confusions = _count_found(pairs), _count_confusions(pairs)
    reasons = [(right + sum(confusions.values()), _explain_classes(confusions, class_names, objects))]
    for mistake, undo in _possible_mistakes(pairs):
        found = _count_found(_changed(pairs, undo))
        reasons.append((found, _explain_boxes(mistake, found, right, objects)))
    explained, sentence = max(reasons, key=lambda reason: reason[0])
    if explained - right >= _LEAST_SHARE * objects:
        return sentence
    return (
        f"{right} of {objects} objects are found and {sum(confusions.values())} found as another class; the "
        f"highest score is {highest:.2f} after {steps} steps; {_advise_steps(steps)}, and {_LOOK_BOTH}"
    )


def _explain_low_scores(highest: float, boxes: int, objects: int, steps: int) -> str:
    best = f"the best of {boxes} boxes has {highest:.3f}" if boxes else "there is no box"
    return (
        f"nothing scores above {LOW_SCORE} ({best}) in images with {objects} objects, after {steps} steps; "
        f"{_advise_steps(steps)}, and {_LOOK if steps < ENOUGH_STEPS else _LOOK_BOTH}"
    )


def _advise_steps(steps: int) -> str:
    if steps < ENOUGH_STEPS:
        return "a network usually needs some hundred steps: give more --epochs or a smaller --batch-size"
    return "that should be steps enough: check the annotations, --lr and --weights"


def _explain_classes(confusions: Counter[tuple[int, int]], class_names: Sequence[str], objects: int) -> str:
    if not confusions:
        return ""
    (label, instead), count = confusions.most_common(1)[0]
    return (
        f"{sum(confusions.values())} of {objects} objects are found in the right place but as another class, "
        f"most often {class_names[label]} found as {class_names[instead]} ({count}); check the order of the "
        f"names in --classes and the names in the annotations, and {_LOOK}"
    )


def _explain_boxes(mistake: str, found: int, right: int, objects: int) -> str:
    return (
        f"the annotated boxes look {mistake}: with that undone {found} of {objects} objects are found, else "
        f"{right}; check the annotations (x and y swapped? XML written for another size of the picture?), "
        f"and {_LOOK_BOTH}"
    )


def _choose(found: Detections, count: int) -> Detections:
    """Return the detections that mean something: what scores, and as many of the best as objects."""
    found = found.to("cpu")
    return found[(found.scores > LOW_SCORE) | (torch.arange(len(found)) < count)]


def _agree(found: Detections, target: Target) -> tuple[Tensor, Tensor]:
    """Return Tensor[N, M] bool twice: at the same place (IoU of at least 0.5), and of the same class."""
    close = box_iou(found.boxes.double(), target.boxes.double()) >= _IOU
    return close, found.labels[:, None] == target.labels[None]


def _count_found(pairs: Sequence[Pair]) -> int:
    """Count the objects with a detection of their class at their place."""
    agreements = [_agree(*pair) for pair in pairs]
    return sum(int((close & same).any(dim=0).sum()) for close, same in agreements)


def _count_confusions(pairs: Sequence[Pair]) -> Counter[tuple[int, int]]:
    """Count (label, label found instead) of the objects with detections of other classes only."""
    confusions: Counter[tuple[int, int]] = Counter()
    for found, target in pairs:
        close, same = _agree(found, target)
        missed = close.any(dim=0) & ~(close & same).any(dim=0)
        for index in missed.nonzero().flatten().tolist():
            best = int(close[:, index].nonzero()[0])  # the first has the highest score
            confusions[int(target.labels[index]), int(found.labels[best])] += 1
    return confusions


def _possible_mistakes(pairs: Sequence[Pair]) -> list[tuple[str, Change]]:
    """Return what may be wrong with the annotated boxes, in words, and what undoes it."""
    mistakes: list[tuple[str, Change]] = [("swapped in x and y", _swap)]
    if len(_nearest(pairs, torch.ones(2))[0]) < _LEAST_PAIRS:
        return mistakes
    scale, shift = _fit_scale(pairs), _fit_shift(pairs)
    right, down = (-shift).tolist()
    wide, high = (1 / scale).tolist()
    mistakes.append((f"scaled by {wide:.2f} in x and {high:.2f} in y", lambda boxes: boxes * scale.repeat(2)))
    mistakes.append(
        (f"shifted by {right:+.0f} pixels in x and {down:+.0f} in y", lambda boxes: boxes + shift.repeat(2))
    )
    return mistakes


def _swap(boxes: Tensor) -> Tensor:
    return boxes[:, [1, 0, 3, 2]]


def _changed(pairs: Sequence[Pair], change: Change) -> list[Pair]:
    """Return the pairs with the boxes Tensor[M, 4] of every target changed."""
    return [
        (found, Target(change(target.boxes), target.labels, target.difficult, target.image_id))
        for found, target in pairs
    ]


def _fit_scale(pairs: Sequence[Pair]) -> Tensor:
    """Return Tensor[2], the (x, y) factors from annotated to detected sizes."""
    scale = torch.ones(2)
    for _ in range(_ROUNDS):
        truth, found = _nearest(pairs, scale)
        scale = (found[:, 2:] / truth[:, 2:].clamp(min=1e-3)).median(dim=0).values.clamp(min=1e-3)
    return scale


def _fit_shift(pairs: Sequence[Pair]) -> Tensor:
    """Return Tensor[2], the (x, y) pixels from annotated to detected centers."""
    truth, found = _nearest(pairs, torch.ones(2))
    return (found[:, :2] - truth[:, :2]).median(dim=0).values


def _nearest(pairs: Sequence[Pair], scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return annotated boxes, and the detected ones of their class that are nearest once scaled.

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
