import pytest
import torch

from nets.structures import Detections
from utils.export.pairs import Offsets, measure_offsets


def made(*rows):
    """Detections of rows x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def measure(ours, theirs, slack=0.01):
    return measure_offsets([ours], [theirs], conf=0.05, nms_iou=0.5, slack=slack)


BOX = (10, 10, 50, 50, 0.9, 0)


def test_nothing_and_nothing_are_the_same():
    assert measure_offsets([], [], conf=0.05, nms_iou=0.5, slack=0.01) == Offsets()
    assert measure(made(), made()) == Offsets()


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs", "pixels", "score", "alone"),
    [
        ([BOX], [BOX], 1, 0, 0, 0),
        ([BOX], [(10, 10, 50.5, 49.8, 0.88, 0)], 1, 0.5, 0.02, 0),
        ([BOX], [], 0, 0, 0, 1),
        ([], [BOX], 0, 0, 0, 1),
        ([BOX], [(10, 10, 50, 50, 0.9, 1)], 0, 0, 0, 2),  # another class
        ([BOX], [(60, 60, 90, 90, 0.9, 0)], 0, 0, 0, 2),  # another place
        ([(*BOX[:4], 0.055, 0)], [], 0, 0, 0, 0),  # may have fallen below the threshold
        ([(*BOX[:4], 0.07, 0)], [], 0, 0, 0, 1),
        ([(*BOX[:4], 0.045, 0)], [(*BOX[:4], 0.049, 0)], 0, 0, 0, 0),  # below in both
        ([(*BOX[:4], 0.049, 0)], [(*BOX[:4], 0.055, 0)], 1, 0, 0.006, 0),
        # Ours keeps two boxes that overlap by 0.495; the other may see 0.505 and let one go.
        ([BOX, (10, 10, 50, 29.8, 0.8, 0)], [BOX], 1, 0, 0, 0),
        ([BOX, (10, 10, 50, 25, 0.8, 0)], [BOX], 1, 0, 0, 1),
        # The nearer of two is the partner.
        ([BOX, (12, 10, 52, 50, 0.8, 0)], [(12, 10, 52, 50, 0.8, 0), BOX], 2, 0, 0, 0),
        # The same box twice, as the picture's edge makes it: the score tells which is which.
        ([BOX, (*BOX[:4], 0.6, 0)], [(*BOX[:4], 0.6, 0), BOX], 2, 0, 0, 0),
        ([(float("nan"),) * 4 + (0.9, 0)], [BOX], 0, 0, 0, 2),
        ([(10, 10, float("inf"), 50, 0.9, 0)], [BOX], 0, 0, 0, 2),
    ],
)
def test_offsets(ours, theirs, pairs, pixels, score, alone):
    found = measure(made(*ours), made(*theirs))
    assert (found.pairs, found.alone) == (pairs, alone)
    assert found.pixels == pytest.approx(pixels, abs=1e-5)
    assert found.score == pytest.approx(score, abs=1e-6)


def test_every_picture_counts_by_itself():
    ours, theirs = [made(BOX), made()], [made(), made(BOX)]
    assert measure_offsets(ours, theirs, conf=0.05, nms_iou=0.5, slack=0.01) == Offsets(alone=2)
