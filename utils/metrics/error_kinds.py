"""Kinds of errors and the cost of each in mAP50.

Source: TIDE, Bolya et al. 2020 (https://arxiv.org/abs/2008.08115), with the order of tests of its
implementation. A wrong detection is, by the objects with the highest IoU, the first of

- location: IoU of 0.1 to 0.5 with an object of its class;
- class: at least 0.5 with an object of another class;
- duplicate: at least 0.5 with an object of its class that a better detection took;
- background: less than 0.1 with any object;
- both: the rest, 0.1 to 0.5 with an object of another class.

An object that no detection took is missed, unless a class or location error points at it. The cost of a kind
is the gain in mAP50 when its errors are corrected: of the class or location errors that point at a free
object the best becomes right; all other wrong detections of the kind are removed; missed objects do not count
as ground truth. A class that is then without objects has AP 1 if it has no detection, else 0.

Difficult objects are ignored: a detection that took one does not count; otherwise they do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.matching import IOU, MIN_IOU, Bools, Integers, Matching, Overlaps, class_aps, mean_known

KINDS = ("class", "location", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class ErrorKind:
    """The errors of one kind among all detections that count."""

    count: int  # their number
    cost: float | None  # the gain in mAP50 without them; None without ground truth


def find_error_kinds(matching: Matching) -> dict[str, ErrorKind]:
    """Count the errors of each of KINDS and compute their cost."""
    wrong = matching.ranked[~matching.right]
    pairs = matching.overlaps[~matching.boxes.difficult[matching.overlaps.truth]]
    is_same = matching.boxes.label[pairs.detection] == matching.boxes.truth_label[pairs.truth]
    same, other = (_best_of_each(pairs[chosen], matching)[wrong] for chosen in (is_same, ~is_same))
    rest = np.ones(len(wrong), dtype=bool)
    kinds: dict[str, Bools] = {}
    for kind, test in (
        ("location", (same.iou >= MIN_IOU) & (same.iou < IOU)),
        ("class", other.iou >= IOU),
        ("duplicate", same.iou >= IOU),
        ("background", other.iou < MIN_IOU),
        ("both", rest),
    ):
        kinds[kind] = test & rest
        rest = rest & ~test

    is_free = (matching.taker < 0) & ~matching.boxes.difficult
    is_missed = is_free.copy()
    aims = {"class": other.truth[kinds["class"]], "location": same.truth[kinds["location"]]}
    for truths in aims.values():
        is_missed[truths] = False
    before = matching.map50()
    found = {}
    for kind in KINDS:
        if kind == "missed":
            count, after = int(is_missed.sum()), _without_missed(matching, is_missed)
        else:
            count = int(kinds[kind].sum())
            after = _corrected(matching, wrong[kinds[kind]], aims.get(kind), is_free)
        found[kind] = ErrorKind(count, None if before is None else after - before)
    return found


def _best_of_each(pairs: Overlaps, matching: Matching) -> Overlaps:
    """Return the best pair of each detection, with IoU 0 and ground truth -1 for one without."""
    best, count = pairs.best(), len(matching.taken)
    iou, truth = np.zeros(count), np.full(count, -1)
    iou[best.detection], truth[best.detection] = best.iou, best.truth
    return Overlaps(np.arange(count), truth, iou)


def _corrected(matching: Matching, wrong: Integers, aims: Integers | None, is_free: Bools) -> float:
    """Return mAP50 once the wrong detections (E,), best first, are corrected or removed.

    `aims` (E,) are the objects they point at, None if all are removed; `is_free` (M,) those that none took.
    """
    labels, is_right = matching.boxes.label.copy(), np.zeros(len(matching.taken), dtype=bool)
    is_right[matching.ranked] = matching.right
    is_removed = np.zeros(len(is_right), dtype=bool)
    is_removed[wrong] = True
    if aims is not None:
        wrong, aims = wrong[is_free[aims]], aims[is_free[aims]]
        truths, firsts = np.unique(aims, return_index=True)
        labels[wrong[firsts]] = matching.boxes.truth_label[truths]
        is_right[wrong[firsts]] = True
        is_removed[wrong[firsts]] = False
    ranked = matching.ranked[~is_removed[matching.ranked]]
    return mean_known(class_aps(labels[ranked], is_right[ranked], matching.truths)) or 0.0


def _without_missed(matching: Matching, is_missed: Bools) -> float:
    """Return mAP50, over the same classes, without the missed objects."""
    labels = matching.ranked_labels
    missed = np.bincount(matching.boxes.truth_label[is_missed], minlength=len(matching.truths))
    aps = class_aps(labels, matching.right, matching.truths - missed)
    detected = np.bincount(labels, minlength=len(matching.truths))
    known = [
        (0.0 if detected[label] else 1.0) if ap is None else ap
        for label, ap in enumerate(aps)
        if matching.truths[label]
    ]
    return mean_known(known) or 0.0
