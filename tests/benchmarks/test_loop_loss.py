from __future__ import annotations

import pytest
import torch

from benchmarks.loop_loss import LoopLoss
from nets.config import ModelConfig
from nets.loss import YoloLoss
from nets.structures import Target

CONFIG = ModelConfig(num_classes=3, input_size=(128, 128))


def scattered(generator: torch.Generator, count: int) -> Target:
    """Put truths of any size into cells of the coarse head of their own, so that none is contested."""
    cells = torch.randperm(16, generator=generator)[:count]
    corner = torch.stack((cells % 4, cells // 4), dim=1) * 32
    centers = corner + torch.rand(count, 2, generator=generator) * 32
    sizes = torch.rand(count, 2, generator=generator) * 200 + 8
    labels = torch.randint(0, 3, (count,), generator=generator)
    boxes = torch.cat((centers - sizes / 2, centers + sizes / 2), dim=1)
    return Target(boxes, labels, torch.zeros(count, dtype=torch.bool))


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 5), (9, 2)])
def test_the_loops_do_the_work_of_the_loss(counts: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    targets = [scattered(generator, count) for count in counts]
    maps = [torch.randn(2, 24, side, side, generator=generator, requires_grad=True) for side in (4, 8)]
    ours = YoloLoss(
        num_classes=3,
        anchors=CONFIG.anchors,
        anchor_masks=CONFIG.anchor_masks,
        scale_x_y=CONFIG.scale_x_y,
    )
    expected = torch.stack(list(ours(maps, targets).values())).sum()
    found = LoopLoss(CONFIG)(maps, targets)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(torch.autograd.grad(found, maps), torch.autograd.grad(expected, maps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
