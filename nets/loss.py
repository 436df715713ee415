"""The training loss: CIoU for boxes, binary cross entropy for objectness and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils.rnn import pad_sequence

from nets.assign import assign
from nets.boxes import box_iou, complete_iou_loss
from nets.config import STRIDES
from nets.decode import build_priors, decode_boxes, flatten_maps
from nets.structures import Target

# Weights of the means in bubbliiiing/yolov4-tiny-pytorch; the class term, a mean over K classes, is there
# multiplied by K / 80.
_MEANS = {"box": 0.05, "objectness": 5.0, "class": 1 / 80}
_BALANCE = (0.4, 1.0)  # of the heads' objectness, coarse first
_USUAL_AREA = 416**2  # network pixels, for which the objectness weight is meant
_DIFFICULT_IOU = 0.5  # a prediction that overlaps a difficult object more than this is no negative


@dataclass(frozen=True)
class LossSums:
    """The loss of a batch before it is divided by its positives, or of means by its images.

    Attributes:
        parts: "box", "objectness" and "class", Tensor[] each, weighted, summed over the batch.
        divisor: Tensor[] int64, number of positives, for means the number of images.
        unassigned: Tensor[] int64, number of truths that no prior was left for.
    """

    parts: dict[str, Tensor]
    divisor: Tensor
    unassigned: Tensor


class YoloLoss(nn.Module):
    """Compare raw maps with ground truth.

    Each part is a sum over the batch divided by the number of positives; with `normalization` "means" it is
    the sum of the heads' means, with the weights of bubbliiiing/yolov4-tiny-pytorch instead of those given.
    A prior without a truth is a negative unless its predicted box overlaps some truth by more than
    `ignore_threshold`. Difficult objects are no targets.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        anchors: Sequence[tuple[float, float]],
        anchor_masks: Sequence[Sequence[int]],
        scale_x_y: float,
        ignore_threshold: float = 0.5,
        label_smoothing: float = 0.0,
        box_weight: float = 2.0,
        objectness_weight: float = 1.0,
        class_weight: float = 1.0,
        normalization: str = "sums",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchors, self.anchor_masks, self.scale_x_y = anchors, anchor_masks, scale_x_y
        self.ignore_threshold = ignore_threshold
        self.label_smoothing = label_smoothing
        self.normalization = normalization
        self.weights = {"box": box_weight, "objectness": objectness_weight, "class": class_weight}

    def forward(self, raw_maps: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compare raw maps (B, A*(5+K), h, w), coarse first, with B targets in network pixels."""
        sums = self.sums(raw_maps, targets)
        return {name: part / sums.divisor.clamp(min=1) for name, part in sums.parts.items()}

    def sums(self, raw_maps: Sequence[Tensor], targets: Sequence[Target]) -> LossSums:
        """Compare as `forward` does, but leave the parts as sums, for batches that are trained in pieces.

        Means are those of each piece, weighted by its images.
        """
        device = raw_maps[0].device
        grids = [(raw.shape[2], raw.shape[3]) for raw in raw_maps]
        predictions = flatten_maps(raw_maps, self.anchor_masks).float()  # (B, N, 5+K)
        priors = build_priors(grids, self.anchors, self.anchor_masks, device)
        boxes = decode_boxes(predictions[..., :4], priors, self.scale_x_y)  # (B, N, 4)

        # Assigned where the targets are, which the loader leaves on the CPU: no prediction is needed, and
        # asking a GPU how many pairs there are would wait for it.
        truth_boxes = pad_sequence([target.boxes for target in targets], True)  # (B, M, 4)
        labels = pad_sequence([target.labels for target in targets], True, -1)  # (B, M)
        difficult = pad_sequence([target.difficult for target in targets], True)  # (B, M)
        assignment = assign(
            truth_boxes,
            (labels >= 0) & ~difficult,
            grids=grids,
            anchors=self.anchors,
            anchor_masks=self.anchor_masks,
        )
        positive = assignment.images.to(device), assignment.priors.to(device)
        truth = assignment.images, assignment.truths

        box = complete_iou_loss(boxes[positive], truth_boxes[truth].to(device))  # (P,)
        class_goal = self._class_goal(labels[truth]).to(device)
        classes = bce(predictions[positive][:, 5:], class_goal, reduction="none").sum(dim=-1)  # (P,)
        goal = torch.zeros_like(predictions[..., 4])
        goal[positive] = 1.0
        counted = self._negatives(boxes.detach(), truth_boxes.to(device), difficult.to(device))
        counted[positive] = True
        objectness = bce(predictions[..., 4], goal, reduction="none") * counted  # (B, N)

        parts = {"box": box, "objectness": objectness, "class": classes}
        if self.normalization == "means":
            divisor = len(targets)
            weighed = self._as_means(parts, positive, counted, grids)
        else:
            divisor = len(assignment.images)
            weighed = {name: self.weights[name] * part for name, part in parts.items()}
        sums = {name: part.sum() for name, part in weighed.items()}
        return LossSums(sums, torch.tensor(divisor, device=device), assignment.unassigned.to(device))

    def _as_means(
        self,
        parts: dict[str, Tensor],
        positive: tuple[Tensor, Tensor],
        counted: Tensor,
        grids: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Weigh the terms so that their sum divided by the images is the sum of the heads' means."""
        sizes = [
            height * width * len(mask) for (height, width), mask in zip(grids, self.anchor_masks, strict=True)
        ]
        head = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(counted.device)  # (N,)
        head_of_positive = head[positive[1]]  # (P,)
        a_head = head_of_positive.bincount(minlength=len(sizes)).clamp(min=1)
        counted_a_head = torch.stack([part.sum() for part in counted.split(sizes, dim=1)]).clamp(min=1)
        area = grids[0][0] * grids[0][1] * STRIDES[0] ** 2
        balance = torch.tensor(_BALANCE, device=counted.device) * area / _USUAL_AREA
        shares = {
            "box": (1 / a_head)[head_of_positive],
            "objectness": (balance / counted_a_head)[head],
            "class": (1 / a_head)[head_of_positive],
        }
        images = len(counted)
        return {name: part * shares[name] * _MEANS[name] * images for name, part in parts.items()}

    def _class_goal(self, labels: Tensor) -> Tensor:
        """Return smoothed one-hot rows (P, K): 1 - s/2 for the class, s/2 for the others."""
        one_hot = nn.functional.one_hot(labels, self.num_classes).float()
        return one_hot * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _negatives(self, boxes: Tensor, truth_boxes: Tensor, difficult: Tensor) -> Tensor:
        """Return which predictions (B, N) overlap no truth too much to be called background."""
        overlap = box_iou(boxes, truth_boxes)  # (B, N, M); padding has no area and overlaps nothing
        limit = torch.where(difficult, _DIFFICULT_IOU, self.ignore_threshold)  # (B, M)
        return ~(overlap > limit[:, None]).any(dim=-1)
