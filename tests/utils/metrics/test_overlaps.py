from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.boxes import box_iou
from nets.structures import Detections, Target
from tests.metrics_reference import CLASSES, make_detections, make_target, random_boxes
from utils.metrics.matching import MIN_IOU, find_overlaps, flatten, match


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    boxes = flatten([Detections.empty()] * images, [Target.empty()] * images, 3)
    assert (boxes.num_images, boxes.box.shape, boxes.truth_box.shape) == (images, (0, 4), (0, 4))
    assert len(find_overlaps(boxes).iou) == 0


def test_an_image_more_on_one_side_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 detections for 2 targets"):
        flatten([Detections.empty()], [Target.empty()] * 2, 1)


def test_rows_keep_their_image_and_order() -> None:
    found = [make_detections(([1, 2, 4, 8], 1, 0.5), ([0, 0, 1, 1], 0, 0.25)), Detections.empty()]
    boxes = flatten(found, [Target.empty(), make_target(([0, 0, 3, 1 / 3], 1, True), ([0, 0, 2, 2], 0))], 2)
    assert boxes.image.tolist() == [0, 0]
    assert boxes.label.tolist() == [1, 0]
    assert boxes.score.tolist() == [0.5, 0.25]
    assert boxes.box.tolist() == [[1, 2, 3, 6], [0, 0, 1, 1]]
    assert boxes.truth_image.tolist() == [1, 1]
    assert boxes.truth_box.tolist() == [[0, 0, 3, 0.3333], [0, 0, 2, 2]]
    assert boxes.difficult.tolist() == [True, False]
    assert match(boxes).truths.tolist() == [1, 0]


def test_overlaps_are_those_of_all_pairs_in_an_image() -> None:
    for seed in range(6):
        detections, targets = random_boxes(seed)
        expected, found_before, truths_before = [], 0, 0
        for found, target in zip(detections, targets, strict=True):
            iou = box_iou(found.boxes.double(), target.boxes.double())
            for one, other in (iou >= MIN_IOU).nonzero().tolist():
                expected.append([found_before + one, truths_before + other, iou[one, other].item()])
            found_before, truths_before = found_before + len(found), truths_before + len(target)
        pairs = find_overlaps(flatten(detections, targets, CLASSES))
        ours = np.stack((pairs.detection, pairs.truth, pairs.iou), axis=1)
        assert ours == pytest.approx(np.array(expected), abs=1e-4)


def test_the_best_overlap_is_the_first_of_equals() -> None:
    found = make_detections(([0, 0, 10, 10], 0, 0.9), ([50, 50, 60, 60], 0, 0.8), ([0, 0, 10, 8], 0, 0.7))
    target = make_target(([0, 0, 10, 5], 0), ([0, 5, 10, 10], 0), ([0, 0, 10, 8], 0), ([0, 2, 10, 10], 0))
    best = find_overlaps(flatten([found], [target], 1)).best()
    assert (best.detection.tolist(), best.truth.tolist()) == ([0, 2], [2, 2])
    assert best.iou == pytest.approx([0.8, 1.0])


def test_labels_of_any_integer_type_are_taken() -> None:
    found = Detections(torch.zeros(1, 4), torch.ones(1), torch.zeros(1, dtype=torch.int32))
    assert flatten([found], [Target.empty()], 1).label.dtype == np.int64
