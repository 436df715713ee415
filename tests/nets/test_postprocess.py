import pytest
import torch
from torchvision.ops import batched_nms

from nets.boxes import box_iou
from nets.postprocess import postprocess


def choose(boxes, scores, conf=0.1, iou=0.5, most=100):
    (result,) = postprocess(
        torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4),
        torch.tensor(scores, dtype=torch.float32).reshape(1, len(boxes), -1),
        conf_threshold=conf,
        iou_threshold=iou,
        max_detections=most,
    )
    return [
        (label, round(score, 4))
        for label, score in zip(result.labels.tolist(), result.scores.tolist(), strict=True)
    ]


BOX, NEAR, FAR = [0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]


@pytest.mark.parametrize(
    ("boxes", "scores", "expected"),
    [
        ([BOX], [[0.05, 0.0]], []),
        ([BOX], [[0.3, 0.0]], [(0, 0.3)]),
        ([BOX], [[0.3, 0.6]], [(1, 0.6), (0, 0.3)]),  # every class above the threshold, not only the best
        ([BOX, NEAR], [[0.3, 0.0], [0.6, 0.0]], [(0, 0.6)]),  # one class: the weaker goes
        ([BOX, NEAR], [[0.3, 0.0], [0.0, 0.6]], [(1, 0.6), (0, 0.3)]),  # two classes: both stay
        ([BOX, FAR], [[0.3, 0.0], [0.6, 0.0]], [(0, 0.6), (0, 0.3)]),
    ],
)
def test_hand_worked(boxes, scores, expected):
    assert choose(boxes, scores) == expected


def test_thresholds_have_an_effect():
    assert choose([BOX, NEAR], [[0.3], [0.6]], iou=0.9) == [(0, 0.6), (0, 0.3)]
    assert choose([BOX, FAR], [[0.3], [0.6]], conf=0.5) == [(0, 0.6)]
    assert choose([BOX, FAR], [[0.3], [0.6]], most=1) == [(0, 0.6)]


def test_equals_the_greedy_loop():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, 200, 2, generator=generator) * 80
    boxes = torch.cat((low, low + 5 + torch.rand(1, 200, 2, generator=generator) * 30), dim=-1)
    scores = torch.rand(1, 200, 3, generator=generator)
    (result,) = postprocess(boxes, scores, conf_threshold=0.2, iou_threshold=0.4, max_detections=1000)
    kept = []
    overlap = box_iou(boxes[0], boxes[0]).tolist()
    order = sorted(((scores[0, i, k].item(), i, k) for i in range(200) for k in range(3)), reverse=True)
    for score, index, label in order:
        rivals = [other for _, other, of in kept if of == label]
        if score >= 0.2 and all(overlap[index][other] <= 0.4 for other in rivals):
            kept.append((score, index, label))
    assert result.labels.tolist() == [label for _, _, label in kept]
    torch.testing.assert_close(result.boxes, boxes[0, [index for _, index, _ in kept]])


def test_an_untrained_network_that_sees_everything_is_bounded():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3000, 1)[None] + torch.arange(3000)[None, :, None]
    (result,) = postprocess(
        boxes, torch.full((1, 3000, 20), 0.25), conf_threshold=0.001, iou_threshold=0.5, max_detections=100
    )
    assert len(result) == 100


@pytest.mark.parametrize("number", [0, 1, 400])
@pytest.mark.parametrize("iou", [0.0, 0.5, 0.9, 1.0])
def test_equals_torchvision(number, iou):
    generator = torch.Generator().manual_seed(number)
    low = torch.rand(1, number, 2, generator=generator) * 80
    boxes = torch.cat((low, low + 5 + torch.rand(1, number, 2, generator=generator) * 30), dim=-1)
    scores = torch.rand(1, number, 3, generator=generator)
    (found,) = postprocess(boxes, scores, conf_threshold=0.1, iou_threshold=iou, max_detections=10_000)
    indices, labels = (scores[0] >= 0.1).nonzero(as_tuple=True)
    values = scores[0, indices, labels]
    kept = batched_nms(boxes[0, indices], values, labels, iou)
    assert torch.equal(found.boxes, boxes[0, indices][kept])
    assert torch.equal(found.scores, values[kept])
    assert torch.equal(found.labels, labels[kept])
