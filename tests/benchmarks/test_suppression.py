from __future__ import annotations

import pytest
import torch

from benchmarks.suppression import diou, greedy, soft
from nets.boxes import box_iou


def make_boxes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat((low, low + 5 + torch.rand(count, 2, generator=generator) * 40), dim=1)
    return boxes, torch.rand(count, generator=generator)


def slow_diou(one: list[float], other: list[float]) -> float:
    (a1, b1, a2, b2), (x1, y1, x2, y2) = one, other
    distance = ((a1 + a2 - x1 - x2) / 2) ** 2 + ((b1 + b2 - y1 - y2) / 2) ** 2
    diagonal = (max(a2, x2) - min(a1, x1)) ** 2 + (max(b2, y2) - min(b1, y1)) ** 2
    return box_iou(torch.tensor([one]), torch.tensor([other])).item() - (distance / diagonal) ** 0.6


def test_diou_agrees_with_a_loop_and_so_does_its_suppression() -> None:
    boxes, scores = make_boxes(40, 0)
    table = [[slow_diou(one, other) for other in boxes.tolist()] for one in boxes.tolist()]
    torch.testing.assert_close(diou(boxes, boxes), torch.tensor(table), atol=1e-5, rtol=0)
    kept: list[int] = []
    for row in sorted(range(40), key=lambda row: -scores[row]):
        if all(table[row][winner] <= 0.4 for winner in kept):
            kept.append(row)
    rows, values = greedy(diou, 0.4)(boxes, scores)
    assert rows.tolist() == kept
    assert values.tolist() == scores[kept].tolist()
    assert len(greedy(box_iou, 0.4)(boxes, scores)[0]) < len(kept) < 40


@pytest.mark.parametrize("threshold", [0.3, None])
def test_soft_suppression_lowers_scores_of_neighbors_only(threshold: float | None) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]])
    rows, values = soft(threshold)(boxes, torch.tensor([0.9, 0.8, 0.7]))
    decay = torch.tensor(-(0.8**2) / 0.5).exp().item() if threshold is None else 1 - 0.8
    assert rows.tolist() == [0, 2, 1]
    assert values.tolist() == pytest.approx([0.9, 0.7, 0.8 * decay])
