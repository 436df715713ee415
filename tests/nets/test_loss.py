import math

import pytest
import torch
from torch.profiler import profile
from torchvision.ops import complete_box_iou_loss

from nets.boxes import box_iou
from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS
from nets.decode import decode
from nets.loss import WEIGHTS, YoloLoss
from nets.structures import Target

MASKS = ((3, 4, 5), (1, 2, 3))
K = 2
SETTINGS = {"num_classes": K, "anchors": OFFICIAL_ANCHORS, "anchor_masks": MASKS, "scale_x_y": 1.05}
THREE = dict(zip(("anchors", "anchor_masks"), USUAL_ANCHORS[3], strict=True))


def maps(batch=1, fill=0.0):
    return [torch.full((batch, 3 * (5 + K), side, side), fill, requires_grad=True) for side in (2, 4)]


def target(boxes, labels=None, difficult=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    difficult = torch.tensor([False] * len(boxes) if difficult is None else difficult, dtype=torch.bool)
    return Target(boxes, labels, difficult)


def loss_of(raw_maps, targets, divisor=None, **settings):
    """Assign and compare a batch; its own divisor unless one is given."""
    criterion = YoloLoss(**SETTINGS | settings)
    assignment = criterion.assign(targets, tuple(32 * side for side in raw_maps[0].shape[2:]))
    divisor = divisor or max(criterion.divisor(assignment, len(targets)), 1)
    losses = criterion(raw_maps, targets, assignment, divisor)
    assert losses.keys() == WEIGHTS.keys()
    return losses


def bce(logit, goal):
    probability = 1 / (1 + math.exp(-logit))
    return -(goal * math.log(probability) + (1 - goal) * math.log(1 - probability))


def test_a_batch_without_any_object_is_finite_and_has_gradients():
    raw_maps = maps(batch=2)
    losses = loss_of(raw_maps, [Target.empty(), Target.empty()])
    assert losses["box"] == 0
    assert losses["class"] == 0
    assert losses["objectness"].item() == pytest.approx(2 * 60 * bce(0, 0), rel=1e-5)
    sum(losses.values()).backward()
    for raw in raw_maps:
        assert raw.grad.isfinite().all()
        assert raw.grad.abs().sum() > 0


@pytest.mark.parametrize("normalization", ["sums", "means"])
def test_the_gradient_reads_no_value(normalization):
    """A GPU would have to be waited for, as in the gradient of `prod`, which looks for zeros."""
    losses = loss_of(maps(), [target([[2, 2, 30, 30], [20, 8, 60, 50]])], normalization=normalization)
    with profile() as profiler:
        sum(losses.values()).backward()
    names = {event.name for event in profiler.events()}
    assert "aten::mul" in names  # it has seen the gradient's operations
    assert not names & {"aten::_local_scalar_dense", "aten::nonzero"}


def test_one_object_hand_worked():
    # Center (40, 40), the size of anchor 4: coarse head, cell (1, 1), and zero logits put the box at (48,
    # 48).
    raw_maps = maps()
    losses = loss_of(raw_maps, [target([[40 - 67.5, 40 - 84.5, 40 + 67.5, 40 + 84.5]])])
    overlap = (135 - 8) * (169 - 8)
    iou = overlap / (2 * 135 * 169 - overlap)
    distance = 2 * 8**2 / ((135 + 8) ** 2 + (169 + 8) ** 2)
    assert losses["box"].item() == pytest.approx(4 * (1 - iou + distance), rel=1e-4)
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
    losses = loss_of(raw_maps, [target([[0, 0, 64, 64]], labels=[0])], label_smoothing=smoothing)
    expected = bce(3.0, 1 - smoothing / 2) + bce(-2.0, smoothing / 2)
    # 64 x 64 is nearest to anchor 3, which stands in both heads; the fine one has zero logits
    assert losses["class"].item() == pytest.approx((expected + 2 * bce(0, 0.5)) / 2, rel=1e-4)


def test_difficult_objects_are_no_targets_but_no_negatives_either():
    box = [40 - 67.5, 40 - 84.5, 40 + 67.5, 40 + 84.5]
    empty = loss_of(maps(), [Target.empty()])
    losses = loss_of(maps(), [target([box], difficult=[True])])
    assert losses["box"] == 0
    boxes, _ = decode(maps(), anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS, scale_x_y=1.05)
    left_out = int((box_iou(boxes[0], torch.tensor([box]))[:, 0] > 0.5).sum())
    assert left_out > 0
    assert losses["objectness"].item() == pytest.approx(
        empty["objectness"].item() * (60 - left_out) / 60, rel=1e-5
    )


def test_the_sum_is_divided_by_the_positives_of_the_batch():
    one = target([[0, 0, 20, 25]])
    single = loss_of(maps(), [one])
    double = loss_of(maps(batch=2), [one, one])
    for name, value in single.items():
        torch.testing.assert_close(double[name], value)


def test_objects_that_no_prior_is_left_for_are_counted():
    criterion = YoloLoss(**SETTINGS)
    assert criterion.assign([Target.empty()], (64, 64)).unassigned == 0
    assert criterion.assign([target([[0, 0, 20, 25]] * 7)], (64, 64)).unassigned == 2


@pytest.mark.parametrize(("normalization", "divisor"), [("sums", 3), ("means", 2)])
def test_the_divisor_is_the_number_of_positives_or_for_means_of_images(normalization, divisor):
    criterion = YoloLoss(**SETTINGS, normalization=normalization)
    truths = [target([[0, 0, 20, 25], [0, 0, 64, 64]]), Target.empty()]
    assignment = criterion.assign(truths, (64, 64))
    assert len(assignment) == 3  # the anchor of the first stands in one head, that of the second in both
    assert criterion.divisor(assignment, 2) == divisor
    whole, half = (
        loss_of(maps(batch=2), truths, d, normalization=normalization) for d in (divisor, 2 * divisor)
    )
    for name, value in whole.items():
        torch.testing.assert_close(value, 2 * half[name])


@pytest.mark.parametrize("normalization", ["sums", "means"])
def test_a_batch_in_pieces_has_the_same_gradient(normalization):
    """For means only where no piece lacks positives of a head: they are means over each piece."""
    torch.manual_seed(0)
    one, other = target([[0, 0, 20, 25], [0, 0, 64, 64]]), target([[30, 0, 64, 64]], labels=[1])
    truths = [one, one, other] if normalization == "sums" else [one, one]
    raw_maps = [torch.randn(len(truths), 3 * (5 + K), side, side) for side in (2, 4)]
    if normalization == "means":
        raw_maps = [raw[:1].repeat(2, 1, 1, 1) for raw in raw_maps]
    criterion = YoloLoss(**SETTINGS, normalization=normalization)
    whole = [raw.clone().requires_grad_() for raw in raw_maps]
    sum(loss_of(whole, truths, normalization=normalization).values()).backward()
    divisor = criterion.divisor(criterion.assign(truths, (64, 64)), len(truths))
    pieces = [raw.clone().requires_grad_() for raw in raw_maps]
    for where in (slice(0, 1), slice(1, None)):
        parts = [raw[where] for raw in pieces]
        sum(loss_of(parts, truths[where], divisor, normalization=normalization).values()).backward()
    for expected, found in zip(whole, pieces, strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_a_perfect_prediction_costs_nothing():
    raw_maps = maps()
    with torch.no_grad():
        for raw in raw_maps:
            raw[:, 4::7] = -20.0
        raw_maps[0][0, 7 + 4, 1, 1] = 20.0  # anchor 4 in cell (1, 1)
        raw_maps[0][0, 7 + 5, 1, 1] = 20.0
        raw_maps[0][0, 7 + 6, 1, 1] = -20.0
    losses = loss_of(raw_maps, [target([[48 - 67.5, 48 - 84.5, 48 + 67.5, 48 + 84.5]])])
    assert sum(losses.values()).item() == pytest.approx(0, abs=1e-4)


def test_means_equal_the_reference_implementations_formula_head_by_head():
    torch.manual_seed(0)
    grids = [(4, 3), (8, 6)]  # 128 x 96 pixels
    raw_maps = [torch.randn(2, 3 * (5 + K), *grid) for grid in grids]
    boxes = [[[3, 5, 80, 90], [40, 10, 60, 40], [10, 60, 24, 76]], [[5, 5, 90, 120]]]
    targets = [target(boxes[0], labels=[0, 1, 1]), target(boxes[1], labels=[1])]
    truth = [torch.tensor(rows, dtype=torch.float32) for rows in boxes]
    losses = loss_of(raw_maps, targets, normalization="means")
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


def test_a_small_object_trains_the_third_head_alone():
    raw_maps = [torch.zeros(1, 3 * (5 + K), side, side, requires_grad=True) for side in (2, 4, 8)]
    losses = loss_of(raw_maps, [target([[9, 8, 21, 24]], labels=[1])], **THREE)
    assert losses["objectness"].item() == pytest.approx(3 * (4 + 16 + 64) * bce(0, 0), rel=1e-5)
    # 12 x 16 around (15, 16): anchor 0 in row 2, column 1 of stride 8, which predicts it around (12, 20)
    expected = complete_box_iou_loss(torch.tensor([[6.0, 12, 18, 28]]), torch.tensor([[9.0, 8, 21, 24]]))
    assert losses["box"].item() == pytest.approx(4 * expected.item(), rel=1e-5)
    (losses["box"] + losses["class"]).backward()
    used = [raw.grad.nonzero()[:, 1:].tolist() for raw in raw_maps]
    assert used[:2] == [[], []]
    assert {(row, column) for _, row, column in used[2]} == {(2, 1)}
    assert {channel for channel, *_ in used[2]} <= {*range(5 + K)} - {4}


def test_means_balance_three_heads_as_the_reference_implementation_does():
    raw_maps = [torch.zeros(2, 3 * (5 + K), side, side) for side in (2, 4, 8)]
    losses = loss_of(raw_maps, [Target.empty(), Target.empty()], normalization="means", **THREE)
    assert losses["objectness"].item() == pytest.approx(5.4 * 5 * bce(0, 0) * 64 * 64 / 416**2, rel=1e-5)


def test_means_of_a_batch_without_objects_are_those_of_its_background():
    losses = loss_of(maps(batch=2), [Target.empty(), Target.empty()], normalization="means")
    assert (losses["box"], losses["class"]) == (0, 0)
    assert losses["objectness"].item() == pytest.approx(1.4 * 5 * bce(0, 0) * 64 * 64 / 416**2, rel=1e-5)


def test_means_of_pieces_count_by_their_images_with_and_without_objects():
    torch.manual_seed(0)
    raw_maps = [torch.randn(3, 3 * (5 + K), side, side) for side in (2, 4)]
    truths = [target([[3, 5, 40, 50], [5, 5, 20, 20]]), Target.empty(), Target.empty()]
    parts = [([raw[where] for raw in raw_maps], truths[where]) for where in (slice(0, 1), slice(1, 3))]
    first, second = (loss_of(*part, normalization="means") for part in parts)
    pieces = [loss_of(*part, divisor=3, normalization="means") for part in parts]
    for name in WEIGHTS:
        torch.testing.assert_close(pieces[0][name] + pieces[1][name], (first[name] + 2 * second[name]) / 3)
