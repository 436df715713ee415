import pytest
import torch

from nets.assign import assign
from nets.boxes import cxcywh_to_xyxy
from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS

MASKS = ((3, 4, 5), (1, 2, 3))
GRIDS = [(2, 2), (4, 4)]  # a network input of 64 x 64
N = 3 * 4 + 3 * 16


def prior_of(head, position, row, column):
    side = 2 << head
    return 3 * sum((2 << coarser) ** 2 for coarser in range(head)) + position * side**2 + row * side + column


def run(truths, valid=None, heads=2):
    """Assign one image's truths, given as (center x, center y, width, height)."""
    boxes = cxcywh_to_xyxy(torch.tensor(truths, dtype=torch.float32).reshape(1, -1, 4))
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool) if valid is None else torch.tensor([valid])
    grids = [(2 << head, 2 << head) for head in range(heads)]
    anchors, masks = USUAL_ANCHORS[heads]
    result = assign(boxes, valid, grids=grids, anchors=anchors, anchor_masks=masks)
    pairs = sorted(zip(result.priors.tolist(), result.truths.tolist(), strict=True))
    return pairs, int(result.unassigned)


@pytest.mark.parametrize(
    ("truths", "pairs"),
    [
        ([], []),
        # best anchor 4 stands in the coarse head alone, 1 in the fine head alone
        ([(40, 10, 135, 169)], [(prior_of(0, 1, 0, 1), 0)]),
        ([(40, 10, 23, 27)], [(prior_of(1, 0, 0, 2), 0)]),
        # anchor 3 stands in both
        ([(40, 10, 81, 82)], [(prior_of(0, 0, 0, 1), 0), (prior_of(1, 2, 0, 2), 0)]),
        # anchor 0 (10 x 14) stands in none: the next best is 1
        ([(40, 10, 10, 14)], [(prior_of(1, 0, 0, 2), 0)]),
        # a center on the far edge belongs to the last cell
        ([(64, 64, 23, 27)], [(prior_of(1, 0, 3, 3), 0)]),
        # two cells: no contest
        ([(8, 8, 23, 27), (24, 8, 23, 27)], [(prior_of(1, 0, 0, 0), 0), (prior_of(1, 0, 0, 1), 1)]),
        # one cell and anchor: the better shape keeps it, the other takes its next best free anchor, 2
        ([(8, 8, 26, 30), (9, 9, 23, 27)], [(prior_of(1, 0, 0, 0), 1), (prior_of(1, 1, 0, 0), 0)]),
    ],
)
def test_hand_worked(truths, pairs):
    assert run(truths) == (sorted(pairs), 0)


def test_truths_that_are_no_targets_take_nothing():
    assert run([(8, 8, 23, 27), (9, 9, 23, 27)], valid=[False, True]) == ([(prior_of(1, 0, 0, 0), 1)], 0)


def test_equal_truths_are_all_placed_until_the_anchors_run_out():
    pairs, unassigned = run([(8, 8, 23, 27)] * 7)
    # five anchors: 1, 2 in the fine head, 3 in both, 4, 5 in the coarse one
    assert len(pairs) == 6
    assert len({prior for prior, _ in pairs}) == 6
    assert unassigned == 2


@pytest.mark.parametrize(
    ("truth", "prior"),
    [
        ((40, 10, 459, 401), prior_of(0, 2, 0, 1)),
        ((40, 10, 36, 75), prior_of(1, 0, 0, 2)),
        ((40, 10, 19, 36), prior_of(2, 1, 1, 5)),
        ((64, 64, 12, 16), prior_of(2, 0, 7, 7)),  # a center on the far edge belongs to the last cell
    ],
)
def test_three_heads_hand_worked(truth, prior):
    assert run([truth], heads=3) == ([(prior, 0)], 0)


def assign_slowly(truths, heads):
    """Place one image's truths with loops: in rounds, every truth without a place asks for its best free
    anchor."""
    taken, placed, waiting = {}, {}, dict(enumerate(truths))
    while waiting:
        wishes = {}
        for truth, (x, y, width, height) in waiting.items():
            options = {}
            anchors, masks = USUAL_ANCHORS[heads]
            for head, mask in enumerate(masks):
                stride = 32 >> head
                for position, anchor in enumerate(mask):
                    prior = prior_of(head, position, min(int(y // stride), 64), min(int(x // stride), 64))
                    aw, ah = anchors[anchor]
                    overlap = min(width, aw) * min(height, ah)
                    if prior not in taken:
                        options.setdefault(anchor, [overlap / (width * height + aw * ah - overlap), []])[
                            1
                        ].append(prior)
            if options:
                fit, priors = max(options.values(), key=lambda option: option[0])
                for prior in priors:
                    wishes.setdefault(prior, []).append((fit, -truth))
        if not wishes:
            break
        for prior, claims in wishes.items():
            truth = -max(claims)[1]
            taken[prior] = truth
            placed.setdefault(truth, []).append(prior)
        waiting = {truth: box for truth, box in waiting.items() if truth not in placed}
    return sorted((prior, truth) for truth, priors in placed.items() for prior in priors), len(waiting)


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_crowd_equals_the_loops(seed, heads):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(60, 2, generator=generator) * 63
    sizes = torch.rand(60, 2, generator=generator) * 150 + 4
    truths = torch.cat((centers, sizes), dim=1).tolist()
    assert run(truths, heads=heads) == assign_slowly(truths, heads)


def test_images_of_a_batch_do_not_meet():
    boxes = cxcywh_to_xyxy(torch.tensor([[[8.0, 8, 23, 27]], [[8.0, 8, 23, 27]]]))
    result = assign(
        boxes, torch.ones(2, 1, dtype=torch.bool), grids=GRIDS, anchors=OFFICIAL_ANCHORS, anchor_masks=MASKS
    )
    assert result.images.tolist() == [0, 1]
    assert result.priors.tolist() == [prior_of(1, 0, 0, 0)] * 2
