"""Two predictors' detections of the same pictures, paired: how far boxes and scores are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nets.boxes import box_iou
from nets.structures import Detections


@dataclass(frozen=True)
class Offsets:
    """How far the detections of two predictors are apart at most.

    Attributes:
        pairs: how many detections both found.
        pixels: largest difference of a coordinate, in pixels of the picture.
        score: largest difference of a score.
        alone: detections that only one of the two found.
    """

    pairs: int = 0
    pixels: float = 0.0
    score: float = 0.0
    alone: int = 0

    def __str__(self) -> str:
        return f"{self.pairs} detections by {self.pixels:.2g} px and {self.score:.2g} in score"


def measure_offsets(
    ours: Sequence[Detections],
    theirs: Sequence[Detections],
    *,
    conf: float,
    nms_iou: float,
    slack: float,
) -> Offsets:
    """Pair what two predictors found in the same pictures: by class, the most alike first.

    Args:
        ours: detections of each picture, those of a score a little below `conf` among them.
        theirs: the same of the other predictor.
        conf: lowest score that has to be found by both.
        nms_iou: the overlap from which both let the weaker box of a class go.
        slack: how far scores and overlaps may be apart without meaning anything. What only one of them found
            does not count when its score is as near to `conf`, or when the other has a box of its class
            that overlaps it by `nms_iou` less that.
    """
    pairs, alone, pixels, score = 0, 0, 0.0, 0.0
    for mine, other in zip(ours, theirs, strict=True):
        partner = _pair(mine, other)
        for index, match in enumerate(partner):
            if match < 0 or max(mine.scores[index], other.scores[match]) < conf:
                continue
            pairs += 1
            pixels = max(pixels, float((mine.boxes[index] - other.boxes[match]).abs().max()))
            score = max(score, abs(float(mine.scores[index] - other.scores[match])))
        rest = torch.tensor([index for index in range(len(other)) if index not in partner], dtype=torch.long)
        left = torch.tensor([index for index, match in enumerate(partner) if match < 0], dtype=torch.long)
        for lonely, others in ((mine[left], other), (other[rest], mine)):
            overlaps = _overlaps(lonely, others).amax(1) if len(others) else torch.zeros(len(lonely))
            alone += int(((lonely.scores >= conf + slack) & (overlaps < nms_iou - slack)).sum())
    return Offsets(pairs, pixels, score, alone)


def _overlaps(ours: Detections, theirs: Detections) -> torch.Tensor:
    """Return the IoU of every two, Tensor[N, M]; that of two classes is -1."""
    overlaps = box_iou(ours.boxes, theirs.boxes).nan_to_num(0.0)  # boxes that are not finite overlap nothing
    return overlaps.masked_fill(ours.labels[:, None] != theirs.labels[None], -1.0)


def _pair(ours: Detections, theirs: Detections) -> list[int]:
    """Return the partner of each of ours, -1 for none; nobody has two.

    Boxes over the picture's edge may be the same once they are clipped: the score tells them apart.
    """
    overlaps = _overlaps(ours, theirs)
    likeness = overlaps - (ours.scores[:, None] - theirs.scores[None]).abs()
    possible = (overlaps >= 0.5).nonzero()  # (P, 2)
    order = likeness[possible[:, 0], possible[:, 1]].argsort(descending=True)
    partner, taken = [-1] * len(ours), set[int]()
    for index, match in possible[order].tolist():
        if partner[index] < 0 and match not in taken:
            partner[index] = match
            taken.add(match)
    return partner
