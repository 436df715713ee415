import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss

from nets.boxes import box_iou
from nets.config import OFFICIAL_ANCHORS
from nets.decode import decode
from nets.loss import YoloLoss
from nets.structures import Target

MASKS = ((3, 4, 5), (1, 2, 3))
K = 2
SETTINGS = {"num_classes": K, "anchors": OFFICIAL_ANCHORS, "anchor_masks": MASKS, "scale_x_y": 1.05}
WEIGHTS = {"box_weight": 1.0, "objectness_weight": 1.0, "class_weight": 1.0}


def maps(batch=1, fill=0.0):
    return [torch.full((batch, 3 * (5 + K), side, side), fill, requires_grad=True) for side in (2, 4)]


def target(boxes, labels=None, difficult=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    difficult = torch.tensor([False] * len(boxes) if difficult is None else difficult, dtype=torch.bool)
    return Target(boxes, labels, difficult)


def bce(logit, goal):
    probability = 1 / (1 + math.exp(-logit))
    return -(goal * math.log(probability) + (1 - goal) * math.log(1 - probability))


def test_a_batch_without_any_object_is_finite_and_has_gradients():
    raw_maps = maps(batch=2)
    losses = YoloLoss(**SETTINGS)(raw_maps, [Target.empty(), Target.empty()])
    assert losses["box"] == 0
    assert losses["class"] == 0
    assert losses["objectness"].item() == pytest.approx(2 * 60 * bce(0, 0), rel=1e-5)
    sum(losses.values()).backward()
    for raw in raw_maps:
        assert raw.grad.isfinite().all()
        assert raw.grad.abs().sum() > 0


def test_one_object_hand_worked():
    # Center (40, 40), the size of anchor 4: coarse head, cell (1, 1), and zero logits put the box at (48,
    # 48).
    raw_maps = maps()
    losses = YoloLoss(**SETTINGS, **WEIGHTS)(
        raw_maps, [target([[40 - 67.5, 40 - 84.5, 40 + 67.5, 40 + 84.5]])]
    )
    overlap = (135 - 8) * (169 - 8)
    iou = overlap / (2 * 135 * 169 - overlap)
    distance = 2 * 8**2 / ((135 + 8) ** 2 + (169 + 8) ** 2)
    assert losses["box"].item() == pytest.approx(1 - iou + distance, rel=1e-4)
    assert losses["class"].item() == pytest.approx(2 * bce(0, 0), rel=1e-5)
    # The other priors count but for those whose box overlaps the truth by more than half: anchor 4's in the
    # other cells and anchor 5's and 3's that are close enough.
    truth = torch.tensor([[40 - 67.5, 40 - 84.5, 40 + 67.5, 40 + 84.5]])
    boxes, _ = decode(maps(), anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS, scale_x_y=1.05)
    ignored = int((box_iou(boxes[0], truth)[:, 0] > 0.5).sum()) - 1
    assert ignored > 0
    assert losses["objectness"].item() == pytest.approx((60 - ignored) * bce(0, 0), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_moves_the_class_goal(smoothing):
    raw_maps = maps()
    with torch.no_grad():
        raw_maps[0][:, 5::7] = 3.0  # first class of every anchor
        raw_maps[0][:, 6::7] = -2.0
    losses = YoloLoss(**SETTINGS, **WEIGHTS, label_smoothing=smoothing)(
        raw_maps, [target([[0, 0, 64, 64]], labels=[0])]
    )
    expected = bce(3.0, 1 - smoothing / 2) + bce(-2.0, smoothing / 2)
    # 64 x 64 is nearest to anchor 3, which stands in both heads; the fine one has zero logits
    assert losses["class"].item() == pytest.approx((expected + 2 * bce(0, 0.5)) / 2, rel=1e-4)


def test_difficult_objects_are_no_targets_but_no_negatives_either():
    box = [40 - 67.5, 40 - 84.5, 40 + 67.5, 40 + 84.5]
    empty = YoloLoss(**SETTINGS)(maps(), [Target.empty()])
    losses = YoloLoss(**SETTINGS, ignore_threshold=1.0)(maps(), [target([box], difficult=[True])])
    assert losses["box"] == 0
    boxes, _ = decode(maps(), anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS, scale_x_y=1.05)
    left_out = int((box_iou(boxes[0], torch.tensor([box]))[:, 0] > 0.5).sum())
    assert left_out > 0
    assert losses["objectness"].item() == pytest.approx(
        empty["objectness"].item() * (60 - left_out) / 60, rel=1e-5
    )


def test_the_sum_is_divided_by_the_positives_of_the_batch():
    one = target([[0, 0, 20, 25]])
    single = YoloLoss(**SETTINGS)(maps(), [one])
    double = YoloLoss(**SETTINGS)(maps(batch=2), [one, one])
    for name, value in single.items():
        torch.testing.assert_close(double[name], value)


def test_objects_that_no_prior_is_left_for_are_counted():
    sums = YoloLoss(**SETTINGS).sums(maps(), [target([[0, 0, 20, 25]] * 7)])
    assert int(sums.unassigned) == 2


def test_the_loss_is_its_sums_over_the_positives():
    criterion, truths = YoloLoss(**SETTINGS), [target([[0, 0, 20, 25], [0, 0, 64, 64]])]
    sums = criterion.sums(maps(), truths)
    assert int(sums.divisor) == 3  # the anchor of the first stands in one head, that of the second in both
    for name, value in criterion(maps(), truths).items():
        torch.testing.assert_close(value, sums.parts[name] / 3)


def test_a_perfect_prediction_costs_nothing():
    raw_maps = maps()
    with torch.no_grad():
        for raw in raw_maps:
            raw[:, 4::7] = -20.0
        raw_maps[0][0, 7 + 4, 1, 1] = 20.0  # anchor 4 in cell (1, 1)
        raw_maps[0][0, 7 + 5, 1, 1] = 20.0
        raw_maps[0][0, 7 + 6, 1, 1] = -20.0
    losses = YoloLoss(**SETTINGS)(raw_maps, [target([[48 - 67.5, 48 - 84.5, 48 + 67.5, 48 + 84.5]])])
    assert sum(losses.values()).item() == pytest.approx(0, abs=1e-4)


def test_means_equal_the_reference_implementations_formula_head_by_head():
    torch.manual_seed(0)
    grids = [(4, 3), (8, 6)]  # 128 x 96 pixels
    raw_maps = [torch.randn(2, 3 * (5 + K), *grid) for grid in grids]
    boxes = [[[3, 5, 80, 90], [40, 10, 60, 40], [10, 60, 24, 76]], [[5, 5, 90, 120]]]
    targets = [target(boxes[0], labels=[0, 1, 1]), target(boxes[1], labels=[1])]
    truth = [torch.tensor(rows, dtype=torch.float32) for rows in boxes]
    losses = YoloLoss(**SETTINGS, normalization="means")(raw_maps, targets)
    expected = {"box": 0.0, "objectness": 0.0, "class": 0.0}
    for number, (raw, grid, mask) in enumerate(zip(raw_maps, grids, MASKS, strict=True)):
        ciou, class_bce, object_bce = [], [], []
        logits = raw.view(2, 3, 5 + K, *grid)
        everything = decode(raw_maps, anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS, scale_x_y=1.05)[0]
        start = 0 if number == 0 else 3 * 12
        found = everything[:, start : start + 3 * grid[0] * grid[1]].view(2, 3, *grid, 4)
        for image, (rows, one) in enumerate(zip(truth, targets, strict=True)):
            shapes = rows[:, 2:] - rows[:, :2]
            answers = {}
            for row, (width, height) in enumerate(shapes.tolist()):
                likeness = [min(width, w) * min(height, h) for w, h in OFFICIAL_ANCHORS]
                likeness = [
                    inner / (width * height + w * h - inner)
                    for inner, (w, h) in zip(likeness, OFFICIAL_ANCHORS, strict=True)
                ]
                best = max(range(1, 6), key=likeness.__getitem__)
                stride = (32, 16)[number]
                center = (rows[row, :2] + rows[row, 2:]) / 2 / stride
                if best in mask:
                    answers[mask.index(best), int(center[1]), int(center[0])] = row
            for anchor in range(3):
                for y in range(grid[0]):
                    for x in range(grid[1]):
                        logit, place = logits[image, anchor, :, y, x], (anchor, y, x)
                        if place in answers:
                            row = answers[place]
                            pair = found[image, anchor, y, x], rows[row]
                            ciou.append(complete_box_iou_loss(*pair).item())
                            class_bce += [
                                bce(logit[5 + k].item(), float(k == one.labels[row])) for k in range(K)
                            ]
                            object_bce.append(bce(logit[4].item(), 1.0))
                        elif box_iou(found[image, anchor, y, x][None], rows).max() <= 0.5:
                            object_bce.append(bce(logit[4].item(), 0.0))
        if ciou:
            expected["box"] += 0.05 * sum(ciou) / len(ciou)
            expected["class"] += K / 80 * sum(class_bce) / len(class_bce)
        area = 128 * 96 / 416**2
        expected["objectness"] += (0.4, 1.0)[number] * 5 * area * sum(object_bce) / len(object_bce)
    assert expected["box"] > 0
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4)


def test_means_of_a_batch_without_objects_are_those_of_its_background():
    losses = YoloLoss(**SETTINGS, normalization="means")(maps(batch=2), [Target.empty(), Target.empty()])
    assert (losses["box"], losses["class"]) == (0, 0)
    assert losses["objectness"].item() == pytest.approx(1.4 * 5 * bce(0, 0) * 64 * 64 / 416**2, rel=1e-5)


def test_means_of_pieces_count_by_their_images_with_and_without_objects():
    torch.manual_seed(0)
    raw_maps = [torch.randn(3, 3 * (5 + K), side, side) for side in (2, 4)]
    truths = [target([[3, 5, 40, 50], [5, 5, 20, 20]]), Target.empty(), Target.empty()]
    criterion = YoloLoss(**SETTINGS, normalization="means")
    parts = [(slice(0, 1), truths[:1]), (slice(1, 3), truths[1:])]
    pieces = [criterion.sums([raw[where] for raw in raw_maps], some) for where, some in parts]
    alone = [criterion([raw[where] for raw in raw_maps], some) for where, some in parts]
    assert [int(piece.divisor) for piece in pieces] == [1, 2]
    for name in pieces[0].parts:
        together = sum(piece.parts[name] for piece in pieces) / 3
        torch.testing.assert_close(together, (alone[0][name] + 2 * alone[1][name]) / 3)
