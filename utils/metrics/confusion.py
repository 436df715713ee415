"""What is taken for what: the confusion matrix at IoU 0.5, and how many faults each image has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.flat import Integers
from utils.metrics.matching import IOU, Matching


@dataclass(frozen=True)
class Confusion:
    """Objects and detections of at least one score, counted by class; difficult objects are left out.

    Attributes:
        conf: the lowest score.
        iou: the least overlap of an object and what is taken for it.
        matrix: int64 (K + 1, K + 1): row = class of the object, column = class it was detected as; the last
            row counts detections where there is no (other) object, the last column objects that were missed.
            The diagonal are the right detections: over the sum of its row each is the recall of the class,
            over the sum of its column the precision.
    """

    conf: float
    iou: float
    matrix: Integers


@dataclass(frozen=True)
class ImageFaults:
    """The faults at one score in each image, whatever the class; the sum is what images are ranked by.

    Attributes:
        missed: int64 (I,), objects not found by a detection of their class.
        wrong: int64 (I,), detections that are not right.
        worst_first: int64 (I,), the images by falling sum of both, equals in their order.
    """

    missed: Integers
    wrong: Integers
    worst_first: Integers


def count_confusion(matching: Matching, conf: float) -> Confusion:
    """Compare the classes of objects and of the detections of at least this score.

    The matches of the same class come first, so that the diagonal agrees with precision and recall. Of what
    is left, each detection, best first, takes the object of another class that it overlaps most.
    """
    boxes, background = matching.boxes, matching.boxes.num_classes
    reaching = matching.reaching(conf)
    counted, right = matching.ranked[:reaching], matching.right[:reaching]
    takers = np.full(len(boxes.truth_label), -1)
    takers[matching.taken[counted[right]]] = counted[right]
    _pair_other_classes(matching, counted[~right], takers)

    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    easy = np.flatnonzero(~boxes.difficult)
    seen_as = np.append(boxes.label, background)[takers[easy]]  # -1, missed, is the background
    np.add.at(matrix, (boxes.truth_label[easy], seen_as), 1)
    alone = np.setdiff1d(counted, takers[easy])
    np.add.at(matrix, (background, boxes.label[alone]), 1)
    return Confusion(conf, IOU, matrix)


def count_faults(matching: Matching, conf: float) -> ImageFaults:
    """Count the faults of each image among the detections of at least this score."""
    boxes, images = matching.boxes, matching.boxes.num_images
    reaching = matching.reaching(conf)
    counted, right = matching.ranked[:reaching], matching.right[:reaching]
    found = np.bincount(boxes.image[counted[right]], minlength=images)
    missed = np.bincount(boxes.truth_image[~boxes.difficult], minlength=images) - found
    wrong = np.bincount(boxes.image[counted[~right]], minlength=images)
    return ImageFaults(missed, wrong, np.argsort(-(missed + wrong), kind="stable"))


def _pair_other_classes(matching: Matching, wrong: Integers, takers: Integers) -> None:
    """Let detections that are not right, best first, take objects that nobody took; `takers` is changed."""
    place = np.full(len(matching.boxes.label), -1)
    place[wrong] = np.arange(len(wrong))
    is_free = (takers < 0) & ~matching.boxes.difficult
    pairs = matching.overlaps
    pairs = pairs[(place[pairs.detection] >= 0) & is_free[pairs.truth] & (pairs.iou >= IOU)]
    pairs = pairs[np.lexsort((-pairs.iou, place[pairs.detection]))]
    done: set[int] = set()
    for detection, truth in zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True):
        if detection not in done and takers[truth] < 0:
            takers[truth] = detection
            done.add(detection)
