import math

import pytest
import torch

from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS
from nets.decode import build_priors, decode

MASKS = ((3, 4, 5), (1, 2, 3))


def decode_slowly(raw_maps, num_classes, scale_x_y):
    """Decode as Darknet's loops do: head, anchor, row, column."""
    boxes, scores = [], []
    anchors, masks = USUAL_ANCHORS[len(raw_maps)]
    for raw, mask, stride in zip(raw_maps, masks, (32, 16, 8)[: len(raw_maps)], strict=True):
        for position, anchor in enumerate(mask):
            for row in range(raw.shape[2]):
                for column in range(raw.shape[3]):
                    first = position * (5 + num_classes)
                    tx, ty, tw, th, objectness, *classes = raw[
                        0, first : first + 5 + num_classes, row, column
                    ].tolist()
                    x = (column + 1 / (1 + math.exp(-tx)) * scale_x_y - (scale_x_y - 1) / 2) * stride
                    y = (row + 1 / (1 + math.exp(-ty)) * scale_x_y - (scale_x_y - 1) / 2) * stride
                    w, h = (math.exp(t) * side for t, side in zip((tw, th), anchors[anchor], strict=True))
                    boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                    scores.append(
                        [1 / (1 + math.exp(-objectness)) / (1 + math.exp(-logit)) for logit in classes]
                    )
    return torch.tensor(boxes), torch.tensor(scores)


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("scale_x_y", [1.0, 1.05])
def test_decode_equals_the_loops(scale_x_y, heads):
    torch.manual_seed(0)
    raw_maps = [torch.randn(1, 3 * 7, 2 << head, 3 << head).clamp(-3, 3) for head in range(heads)]
    anchors, masks = USUAL_ANCHORS[heads]
    boxes, scores = decode(raw_maps, anchors=anchors, anchor_masks=masks, scale_x_y=scale_x_y)
    expected_boxes, expected_scores = decode_slowly(raw_maps, 2, scale_x_y)
    torch.testing.assert_close(boxes[0], expected_boxes, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scores[0], expected_scores)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_wild_logits_stay_finite_and_boxes_keep_an_area(value):
    raw_maps = [torch.full((1, 18, 1, 1), value), torch.full((1, 18, 2, 2), value)]
    boxes, scores = decode(raw_maps, anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS, scale_x_y=1.05)
    assert boxes.isfinite().all()
    assert scores.isfinite().all()
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_priors_lie_head_by_head_anchor_by_anchor_row_by_row():
    priors = build_priors([(1, 2), (2, 4)], OFFICIAL_ANCHORS, MASKS)
    assert len(priors) == 3 * 2 + 3 * 8
    assert priors.cells[:3].tolist() == [[0, 0], [1, 0], [0, 0]]
    assert priors.anchors[[0, 2, 6, 14]].tolist() == [[81, 82], [135, 169], [23, 27], [37, 58]]
    assert priors.strides[[0, 5, 6]].flatten().tolist() == [32, 32, 16]
