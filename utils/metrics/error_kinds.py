"""What kinds of errors there are and what each costs in mAP50.

Source: TIDE, Bolya et al. 2020 (https://arxiv.org/abs/2008.08115), and the order of its implementation's
tests. A detection that is not right is, by the objects that it overlaps most, the first of

- location: IoU of 0.1 to 0.5 with one of its class;
- class: 0.5 or more with one of another class;
- duplicate: 0.5 or more with one of its class, which a better detection took;
- background: less than 0.1 with any;
- both: the rest, 0.1 to 0.5 with one of another class.

An object that nothing took is missed, unless a class or location error points at it. The cost of a kind is
what mAP50 gains when an oracle mends its errors: of the class or location errors that point at an object
which nobody took the best becomes right; all other wrong detections of the kind go; missed objects are no
longer asked for. Where that leaves a class without objects, its AP is 1 if nothing was detected of it, else
0.

Difficult objects are ignored: what took one does not count, and for the rest they are not there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.matching import IOU, MIN_IOU, Bools, Floats, Integers, Matching, Overlaps, class_aps

KINDS = ("class", "location", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class ErrorKind:
    """The errors of one kind among all detections that count.

    Attributes:
        count: how many there are.
        cost: what mAP50 would gain without them; None without ground truth.
    """

    count: int
    cost: float | None


@dataclass(frozen=True)
class _Overlap:
    """What each wrong detection (W,) overlaps most: the IoU, 0 below 0.1; the ground truth, -1 for none."""

    iou: Floats
    truth: Integers


def find_error_kinds(matching: Matching) -> dict[str, ErrorKind]:
    """Count the errors of each of KINDS and say what they cost."""
    wrong = matching.ranked[~matching.right]
    same, other = _most_overlapped(matching, wrong)
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
            after = _mended(matching, wrong[kinds[kind]], aims.get(kind), is_free)
        found[kind] = ErrorKind(count, None if before is None else after - before)
    return found


def _most_overlapped(matching: Matching, wrong: Integers) -> tuple[_Overlap, _Overlap]:
    """Return what the wrong detections overlap most among objects of their class, and of other classes."""
    boxes, pairs = matching.boxes, matching.overlaps
    pairs = pairs[~boxes.difficult[pairs.truth]]
    is_same = boxes.label[pairs.detection] == boxes.truth_label[pairs.truth]
    return _spread(pairs[is_same].best(), matching, wrong), _spread(pairs[~is_same].best(), matching, wrong)


def _spread(best: Overlaps, matching: Matching, wrong: Integers) -> _Overlap:
    iou, truth = np.zeros(len(matching.taken)), np.full(len(matching.taken), -1)
    iou[best.detection], truth[best.detection] = best.iou, best.truth
    return _Overlap(iou[wrong], truth[wrong])


def _mended(matching: Matching, wrong: Integers, aims: Integers | None, is_free: Bools) -> float:
    """Return mAP50 once these wrong detections, best first, are mended or gone.

    Args:
        matching: all of the detections.
        wrong: int64 (E,), the detections with an error of the kind.
        aims: int64 (E,), the object that each would find; None if the kind only lets them go.
        is_free: bool (M,), objects that nobody took.
    """
    labels, is_right = matching.boxes.label.copy(), np.zeros(len(matching.taken), dtype=bool)
    is_right[matching.ranked] = matching.right
    is_gone = np.zeros(len(is_right), dtype=bool)
    is_gone[wrong] = True
    if aims is not None:
        wrong, aims = wrong[is_free[aims]], aims[is_free[aims]]
        truths, firsts = np.unique(aims, return_index=True)
        labels[wrong[firsts]] = matching.boxes.truth_label[truths]
        is_right[wrong[firsts]] = True
        is_gone[wrong[firsts]] = False
    ranked = matching.ranked[~is_gone[matching.ranked]]
    known = [ap for ap in class_aps(labels[ranked], is_right[ranked], matching.truths) if ap is not None]
    return sum(known) / max(len(known), 1)


def _without_missed(matching: Matching, is_missed: Bools) -> float:
    """Return mAP50, over the same classes, once the missed objects are not asked for."""
    labels = matching.ranked_labels
    missed = np.bincount(matching.boxes.truth_label[is_missed], minlength=len(matching.truths))
    aps = class_aps(labels, matching.right, matching.truths - missed)
    detected = np.bincount(labels, minlength=len(matching.truths))
    known = [
        (0.0 if detected[label] else 1.0) if ap is None else ap
        for label, ap in enumerate(aps)
        if matching.truths[label]
    ]
    return sum(known) / max(len(known), 1)
