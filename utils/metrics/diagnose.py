"""Diagnosis of a low mAP50: common mistakes in data and training, measured on the detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil

import torch
from torch import Tensor

from nets.boxes import box_iou, cxcywh_to_xyxy, xyxy_to_cxcywh
from nets.structures import Detections, Target
from utils.metrics.matching import IOU, class_aps, flatten, match, mean_known

LOW_SCORE = 0.05
ENOUGH_STEPS = 500
_MIN_SHARE = 0.3  # of the objects that a mistake must explain
_ROUNDS = 3  # the nearest boxes change with the fit
_MIN_PAIRS = 5  # a scale or shift fits fewer by chance
_MIN_GAIN = 0.1  # of mAP50 that a correction must bring
_MAX_IMAGES = 300  # that are compared
_MAX_SWAPS = 3  # pairs of classes that are tried
_LOOK = "look at val_batch0.jpg"
_LOOK_BOTH = "look at train_batch0.jpg and val_batch0.jpg"

Pair = tuple[Detections, Target]
Undo = Callable[[Target], Target]


def explain_low_map(
    detections: Sequence[Detections], targets: Sequence[Target], class_names: Sequence[str], steps: int
) -> str:
    """Explain in a sentence or two why mAP50 is near zero, and what to do.

    Each common mistake is undone on the ground truth: another class, x and y swapped, a scale, a shift. The
    one with which most objects are detected is named if it explains three in ten.

    Detections, highest score first, and targets are one per image, in its pixels; difficult objects do not
    count. `steps` is the number of optimizer steps that the network has taken.
    """
    easy = [_without_difficult(target) for target in targets]
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

    pairs = _choose_pairs(detections, easy)
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
        count, _ = _compare([(found, undo(target)) for found, target in pairs])
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


def find_correction(
    detections: Sequence[Detections], targets: Sequence[Target], class_names: Sequence[str]
) -> str | None:
    """Say in a sentence which systematic correction of the annotations would raise mAP50 by 0.1 or more.

    The corrections are those of `explain_low_map`, and two classes exchanged, which are judged by the mean
    AP50 of the two. AP50 with and without them is estimated on at most 300 images, spread evenly, and on the
    detections above a score of 0.05. None is no such correction. Arguments as in `explain_low_map`.
    """
    step = ceil(len(targets) / _MAX_IMAGES) or 1
    pairs = _choose_pairs(detections[::step], [_without_difficult(target) for target in targets[::step]])
    aps, right = _measure(pairs, len(class_names))
    if (mean_known(aps) or 0.0) > 1 - _MIN_GAIN:
        return None
    _, confusions = _compare(pairs)
    mutual = Counter({pair: min(count, confusions[pair[::-1]]) for pair, count in confusions.items()})
    swaps = [(one, other) for (one, other), count in mutual.most_common() if one < other and count]
    every = range(len(class_names))
    corrections: list[tuple[str, Undo, Sequence[int]]] = [
        (f"{class_names[one]} and {class_names[other]} exchanged", _exchange(one, other), (one, other))
        for one, other in swaps[:_MAX_SWAPS]
    ]
    corrections += [(f"boxes {mistake}", undo, every) for mistake, undo in _possible_mistakes(pairs)]
    most, reason = right + _MIN_PAIRS, None
    for mistake, undo, labels in corrections:
        corrected, count = _measure([(found, undo(target)) for found, target in pairs], len(class_names))
        before, after = (mean_known([one[label] for label in labels]) or 0.0 for one in (aps, corrected))
        if count >= most and after - before >= _MIN_GAIN:
            most = count
            name = "mAP50" if labels is every else "the mean AP50 of the two"
            reason = (
                f"the annotations may have {mistake}: with that undone {name} would be about {after:.2f} "
                f"instead of {before:.2f}"
            )
    return reason


def _measure(pairs: Sequence[Pair], num_classes: int) -> tuple[list[float | None], int]:
    """Return the AP50 of each class and the number of objects that are detected."""
    matching = match(flatten([found for found, _ in pairs], [target for _, target in pairs], num_classes))
    aps = class_aps(matching.ranked_labels, matching.right, matching.truths)
    return aps, int((matching.taker >= 0).sum())


def _without_difficult(target: Target) -> Target:
    return target.to("cpu")[~target.difficult.cpu()]


def _choose_pairs(detections: Sequence[Detections], targets: Sequence[Target]) -> list[Pair]:
    """Pair the targets with the detections that score enough, at least as many as there are objects."""
    pairs = []
    for found, target in zip(detections, targets, strict=True):
        found = found.to("cpu")
        chosen = (found.scores > LOW_SCORE) | (torch.arange(len(found)) < len(target))
        pairs.append((found[chosen], target))
    return pairs


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


def _possible_mistakes(pairs: Sequence[Pair]) -> list[tuple[str, Undo]]:
    """Return possible mistakes in the annotated boxes, in words, and what undoes each."""
    swapped = ("swapped in x and y", _of_boxes(lambda boxes: boxes[:, [1, 0, 3, 2]]))
    if len(_nearest(pairs, torch.clone)[0]) < _MIN_PAIRS:
        return [swapped]
    scale, shift, share, size = (_fit(pairs, measure, apply) for measure, apply in _FITS)
    (wide, high), (wider, higher) = (1 / scale).tolist(), (1 / size).tolist()
    right, down = (0.0 - shift.round()).tolist()  # so that it is not -0
    right_share, down_share = (0.0 - share.round(decimals=2)).tolist()
    sentences = (
        f"scaled by {wide:.2f} in x and {high:.2f} in y",
        f"shifted by {right:+.0f} pixels in x and {down:+.0f} in y",
        f"shifted by {right_share:+.2f} of their width and {down_share:+.2f} of their height",
        f"scaled by {wider:.2f} in width and {higher:.2f} in height around their centers",
    )
    fits = zip(_FITS, (scale, shift, share, size), strict=True)
    undos = [_of_centers(partial(apply, values)) for (_, apply), values in fits]
    return [swapped, *zip(sentences, undos, strict=True)]


def _size_ratio(truth: Tensor, found: Tensor) -> Tensor:
    return found[:, 2:] / truth[:, 2:].clamp(min=1e-3)


def _scale(values: Tensor, boxes: Tensor) -> Tensor:
    return boxes * values.repeat(2)


def _shift(values: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat((boxes[:, :2] + values, boxes[:, 2:]), dim=1)


def _shift_by_size(values: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat((boxes[:, :2] + values * boxes[:, 2:], boxes[:, 2:]), dim=1)


def _resize(values: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat((boxes[:, :2], boxes[:, 2:] * values), dim=1)


# How each correction is measured on pairs of boxes, annotated and detected, Tensor[P, 4] (center x, center y,
# width, height), and how its values (x, y) change annotated ones.
_FITS: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]], ...] = (
    (_size_ratio, _scale),
    (lambda truth, found: found[:, :2] - truth[:, :2], _shift),
    (lambda truth, found: (found[:, :2] - truth[:, :2]) / truth[:, 2:].clamp(min=1e-3), _shift_by_size),
    (_size_ratio, _resize),
)


def _fit(
    pairs: Sequence[Pair],
    measure: Callable[[Tensor, Tensor], Tensor],
    apply: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the values Tensor[2] (x, y) of a correction: medians over the objects and their detections."""
    change: Callable[[Tensor], Tensor] = torch.clone
    for _ in range(_ROUNDS):
        values = measure(*_nearest(pairs, change)).median(dim=0).values
        change = partial(apply, values)
    return values


def _of_boxes(change: Callable[[Tensor], Tensor]) -> Undo:
    return lambda target: replace(target, boxes=change(target.boxes))


def _of_centers(change: Callable[[Tensor], Tensor]) -> Undo:
    return _of_boxes(lambda boxes: cxcywh_to_xyxy(change(xyxy_to_cxcywh(boxes))))


def _exchange(one: int, other: int) -> Undo:
    def exchange(target: Target) -> Target:
        labels = target.labels
        swapped = torch.where(labels == one, other, torch.where(labels == other, one, labels))
        return replace(target, labels=swapped)

    return exchange


def _nearest(pairs: Sequence[Pair], change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the annotated boxes, and for each the nearest detection of its class once it is changed.

    Both are Tensor[P, 4] (center x, center y, width, height), as `change` takes them.
    """
    truths, nearest = [torch.zeros(0, 4)], [torch.zeros(0, 4)]
    for found, target in pairs:
        if not len(found):
            continue
        boxes, others = xyxy_to_cxcywh(target.boxes), xyxy_to_cxcywh(found.boxes)
        same = found.labels[:, None] == target.labels[None]
        distances = torch.cdist(others[:, :2], change(boxes)[:, :2]).masked_fill(~same, torch.inf)
        distance, index = distances.min(dim=0)
        known = distance.isfinite()
        truths.append(boxes[known])
        nearest.append(others[index[known]])
    return torch.cat(truths), torch.cat(nearest)
