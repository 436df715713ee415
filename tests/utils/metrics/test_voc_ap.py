from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.structures import Detections, Target
from utils.metrics.voc_ap import area_ap, eleven_point_ap, voc_ap


def make_target(*objects: tuple[list[float], int, bool]) -> Target:
    boxes = torch.tensor([box for box, _, _ in objects]).reshape(-1, 4)
    labels = torch.tensor([label for _, label, _ in objects], dtype=torch.int64)
    return Target(boxes, labels, torch.tensor([hard for _, _, hard in objects], dtype=torch.bool))


def make_found(*objects: tuple[list[float], int, float]) -> Detections:
    boxes = torch.tensor([box for box, _, _ in objects]).reshape(-1, 4)
    labels = torch.tensor([label for _, label, _ in objects], dtype=torch.int64)
    return Detections(boxes, torch.tensor([score for _, _, score in objects]), labels)


def devkit_ap(found: list[Detections], targets: list[Target], label: int) -> tuple[float, float]:
    """VOCevaldet.m, line by line, one class: (area AP, 11-point AP)."""
    rows = [
        (score, image, box)
        for image, one in enumerate(found)
        for box, score, detected in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
        if detected == label
    ]
    rows.sort(key=lambda row: -row[0])
    taken: set[tuple[int, int]] = set()
    count = sum(int(((t.labels == label) & ~t.difficult).sum()) for t in targets)
    true, false = [], []
    for _, image, box in rows:
        best, best_index = -1.0, -1
        for index, (truth, truth_label) in enumerate(
            zip(targets[image].boxes.tolist(), targets[image].labels.tolist(), strict=True)
        ):
            width = min(box[2], truth[2]) - max(box[0], truth[0])
            height = min(box[3], truth[3]) - max(box[1], truth[1])
            if truth_label != label or width <= 0 or height <= 0:
                continue
            areas = (box[2] - box[0]) * (box[3] - box[1]) + (truth[2] - truth[0]) * (truth[3] - truth[1])
            overlap = width * height / (areas - width * height)
            if overlap > best:
                best, best_index = overlap, index
        if best >= 0.5 and bool(targets[image].difficult[best_index]):
            true.append(0), false.append(0)
            continue
        right = best >= 0.5 and (image, best_index) not in taken
        if right:
            taken.add((image, best_index))
        true.append(int(right)), false.append(int(not right))
    hits, misses = np.cumsum(true), np.cumsum(false)
    recall = [0.0, *(hits / count), 1.0]
    precision = [0.0, *(h / max(h + m, 1) for h, m in zip(hits, misses, strict=True)), 0.0]
    eleven = 0.0
    for tenth in range(11):
        reached = [p for h, p in zip(hits, precision[1:-1], strict=True) if 10 * h >= tenth * count]
        eleven += max(reached, default=0.0) / 11
    for index in range(len(precision) - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    area = sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))
    return area, eleven


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    result = voc_ap([Detections.empty()] * images, [Target.empty()] * images, num_classes=2)
    assert result.area == result.eleven_point == (None, None)
    assert result.ground_truths == (0, 0)
    assert result.mean_area is None
    assert result.mean_eleven_point is None


BOX, OTHER, FAR = [0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0], [50.0, 50.0, 60.0, 60.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU with BOX is exactly 0.5
LESS = [0.0, 0.0, 10.0, 4.9]
TRUTH = (BOX, 0, False)


@pytest.mark.parametrize(
    ("objects", "found", "area", "eleven_point"),
    [
        ([TRUTH], [], 0.0, 0.0),
        ([TRUTH], [(BOX, 0, 0.9)], 1.0, 1.0),
        ([TRUTH], [(HALF, 0, 0.9)], 1.0, 1.0),
        ([TRUTH], [(LESS, 0, 0.9)], 0.0, 0.0),
        ([TRUTH], [(BOX, 1, 0.9)], 0.0, 0.0),  # right place, wrong class
        ([TRUTH], [(BOX, 0, 0.9), (BOX, 0, 0.8)], 1.0, 1.0),  # a duplicate behind the last hit costs nothing
        (
            [TRUTH, (OTHER, 0, False)],
            [(BOX, 0, 0.9), (BOX, 0, 0.8), (OTHER, 0, 0.7)],
            0.5 + 1 / 3,
            (6 + 5 * 2 / 3) / 11,
        ),
        ([TRUTH], [(FAR, 0, 0.9), (BOX, 0, 0.8)], 0.5, 0.5),
        (
            [TRUTH, (OTHER, 0, True)],
            [(OTHER, 0, 0.9), (OTHER, 0, 0.8), (BOX, 0, 0.7)],
            1.0,
            1.0,
        ),  # difficult: ignored
        (
            [TRUTH, (HALF, 0, True)],
            [(HALF, 0, 0.9), (BOX, 0, 0.8)],
            1.0,
            1.0,
        ),  # the most overlapped one decides
    ],
)
def test_hand_worked(objects: list, found: list, area: float, eleven_point: float) -> None:
    result = voc_ap([make_found(*found)], [make_target(*objects)], num_classes=2)
    assert result.area[0] == pytest.approx(area)
    assert result.eleven_point[0] == pytest.approx(eleven_point)
    assert result.area[1] is None
    assert result.mean_area == result.area[0]


def test_a_detection_counts_in_its_own_image_only() -> None:
    targets = [make_target(TRUTH), Target.empty()]
    result = voc_ap([Detections.empty(), make_found((BOX, 0, 0.9))], targets, num_classes=1)
    assert result.area == (0.0,)


def test_class_with_only_difficult_objects_is_left_out_of_the_mean() -> None:
    target = make_target(TRUTH, (OTHER, 1, True))
    result = voc_ap([make_found((BOX, 0, 0.9), (OTHER, 1, 0.9))], [target], num_classes=2)
    assert result.ground_truths == (1, 0)
    assert result.area == (1.0, None)
    assert result.mean_eleven_point == 1.0


def test_eleven_points_are_compared_as_whole_numbers() -> None:
    """Recall 3/10 reaches the point 0.3, although 3 / 10 < 0.1 * 3 in floating point."""
    right = np.array([True] * 3)
    assert eleven_point_ap(right, count=10) == pytest.approx(4 / 11)
    assert area_ap(right, count=10) == pytest.approx(0.3)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_devkit_line_by_line(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> torch.Tensor:
        corner = torch.rand(count, 2, generator=generator) * 30
        return torch.cat((corner, corner + 5 + torch.rand(count, 2, generator=generator) * 15), dim=1)

    targets, found = [], []
    for _ in range(15):
        count = int(torch.randint(0, 6, (), generator=generator))
        truth = boxes(count)
        labels = torch.randint(0, 3, (count,), generator=generator)
        targets.append(Target(truth, labels, torch.rand(count, generator=generator) < 0.2))
        near = truth.repeat(2, 1) + torch.randn(2 * count, 4, generator=generator)
        everything = torch.cat((near, boxes(5)))
        guesses = torch.cat((labels.repeat(2), torch.randint(0, 3, (5,), generator=generator)))
        found.append(Detections(everything, torch.rand(len(guesses), generator=generator), guesses))
    result = voc_ap(found, targets, num_classes=3)
    for label in range(3):
        expected = devkit_ap(found, targets, label)
        assert (result.area[label], result.eleven_point[label]) == pytest.approx(expected)
