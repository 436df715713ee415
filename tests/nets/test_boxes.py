import pytest
import torch
from torchvision import ops

from nets.boxes import box_iou


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (50, 70)])
def test_iou_is_that_of_torchvision(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> torch.Tensor:
        low = torch.rand(count, 2, generator=generator) * 20
        return torch.cat((low, low + torch.rand(count, 2, generator=generator) * 20), dim=1)

    boxes, others = made(n), made(m)
    others[:1, 2:] = others[:1, :2]  # without area
    torch.testing.assert_close(box_iou(boxes, others), ops.box_iou(boxes, others))


def test_iou_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    others = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3], [2, 2, 4, 12]])
    expected = [1.0, 50 / 150, 0.0, 0.0, 16 / 104]
    assert box_iou(boxes, others).tolist() == [pytest.approx(expected)]
    batched = box_iou(boxes.expand(2, 1, 4), others.expand(2, 5, 4))
    assert batched.shape == (2, 1, 5)
