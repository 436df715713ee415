import math

import pytest
import torch
from torchvision import ops

from nets.boxes import box_iou, complete_iou_loss


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (50, 70)])
def test_iou_is_that_of_torchvision(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> torch.Tensor:
        low = torch.rand(count, 2, generator=generator) * 20
        return torch.cat((low, low + torch.rand(count, 2, generator=generator) * 20), dim=1)

    boxes, others = made(n), made(m)
    others[:1, 2:] = others[:1, :2]  # without area
    torch.testing.assert_close(box_iou(boxes, others), ops.box_iou(boxes, others))


@pytest.mark.parametrize("count", [0, 1, 200])
def test_complete_iou_loss_is_that_of_torchvision(count: int) -> None:
    low, other_low = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(count)) * 20
    boxes = torch.cat((low, low + 0.5 + other_low), dim=1).requires_grad_()
    others = torch.cat((other_low, other_low + 1 + low.flip(0)), dim=1)
    losses, gradients = [], []
    for loss in (complete_iou_loss, ops.complete_box_iou_loss):
        losses.append(loss(boxes, others))
        gradients += torch.autograd.grad(losses[-1].sum(), boxes)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_complete_iou_loss_by_hand() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    # The same box, one that touches it at an edge, and one that is twice as wide.
    others = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 20, 10]])
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    expected = [0, 1 + 100 / 500, 1 - 0.5 + 25 / 500 + aspect**2 / (0.5 + aspect)]
    assert complete_iou_loss(box.expand(3, 4), others).tolist() == pytest.approx(expected, abs=1e-6)


def test_iou_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    others = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3], [2, 2, 4, 12]])
    expected = [1.0, 50 / 150, 0.0, 0.0, 16 / 104]
    assert box_iou(boxes, others).tolist() == [pytest.approx(expected)]
    batched = box_iou(boxes.expand(2, 1, 4), others.expand(2, 5, 4))
    assert batched.shape == (2, 1, 5)
