import pytest
import torch
from torchvision.ops import batched_nms

from nets.boxes import box_iou
from nets.postprocess import postprocess, postprocess_at_once


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


def make_predictions(images, number, classes, seed=0):
    """Return boxes (B, N, 4), many left of 0 and above it, and scores (B, N, K) of one decimal: many ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, number, 2, generator=generator) * 200 - 100
    boxes = torch.cat((corner, corner + 5 + torch.rand(images, number, 2, generator=generator) * 90), dim=-1)
    return boxes, torch.rand(images, number, classes, generator=generator).mul(10).round() / 10


def assert_same_at_once(boxes, scores, conf=0.2, iou=0.45, most=100):
    """Hold that all images at once give what image by image does, in the same order; return the counts."""
    limits = {"conf_threshold": conf, "iou_threshold": iou, "max_detections": most}
    expected = postprocess(boxes, scores, **limits)
    found = postprocess_at_once(boxes, scores, **limits)
    assert len(found) == len(expected) == len(boxes)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
        assert (one.boxes.dtype, one.scores.dtype, one.labels.dtype) == (
            torch.float32,
            torch.float32,
            torch.int64,
        )
    return [len(one) for one in found]


@pytest.mark.parametrize(
    ("images", "number", "classes", "conf", "iou", "most"),
    [
        (0, 5, 2, 0.2, 0.45, 100),
        (2, 0, 2, 0.2, 0.45, 100),
        (3, 30, 2, 1.1, 0.45, 100),  # no candidates
        (1, 1, 1, 0.0, 0.45, 100),
        (4, 150, 1, 0.0, 0.45, 1000),
        (4, 150, 3, 0.2, 0.45, 1000),
        (4, 150, 3, 0.9, 0.1, 5),
        (4, 150, 3, 0.2, 1.0, 1000),  # nothing is suppressed
        (7, 40, 80, 0.5, 0.3, 300),
    ],
)
def test_all_images_at_once_equal_image_by_image(images, number, classes, conf, iou, most):
    boxes, scores = make_predictions(images, number, classes)
    assert_same_at_once(boxes, scores, conf, iou, most)


def test_at_once_some_images_have_nothing():
    boxes, scores = make_predictions(5, 60, 2)
    scores[[0, 2, 4]] = 0
    counts = assert_same_at_once(boxes, scores)
    assert counts[::2] == [0, 0, 0]
    assert min(counts[1::2]) > 10


def test_at_once_far_apart_classes_keep_fractions_of_a_pixel():
    # Moved in float32 by 60 images * 80 classes * 20,000 pixels, their sides would be multiples of 8 pixels.
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0.6], [0, 0, 1, 0.3], [-1e4, 0, 1e4, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])[:, None].repeat(60, 1, 80)
    assert assert_same_at_once(boxes.repeat(60, 1, 1), scores, most=1000) == [3 * 80] * 60


def test_at_once_an_untrained_network_is_bounded(monkeypatch):
    monkeypatch.setattr("nets.postprocess.MAX_CANDIDATES", 50)
    boxes, _ = make_predictions(6, 80, 2)
    scores = torch.stack([torch.randperm(160, generator=torch.Generator().manual_seed(i)) for i in range(6)])
    scores = scores.reshape(6, 80, 2) / 160  # no ties: image by image takes any of those at the limit
    scores[3] = 0
    scores[4, 5:] = 0
    counts = assert_same_at_once(boxes, scores, conf=0.001, iou=1.0)
    assert counts == [50, 50, 50, 0, 10, 50]


def test_at_once_a_box_that_is_not_finite_spares_the_others():
    boxes, scores = make_predictions(2, 30, 2)
    boxes[0, 0, 0] = float("nan")
    limits = {"conf_threshold": 0.2, "iou_threshold": 0.45, "max_detections": 100}
    found, expected = (choose(boxes, scores, **limits) for choose in (postprocess_at_once, postprocess))
    assert [len(one) for one in found] == [len(one) for one in expected]
    assert torch.equal(found[1].boxes, expected[1].boxes)
