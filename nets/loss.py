"""The training loss: CIoU for boxes, binary cross entropy for objectness and classes.

A new term takes two edits in this file: its weight in `WEIGHTS` and its values in `YoloLoss.forward` (for
`--loss means` also in `_as_means`). The log, results.csv and the curves show it by its name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils.rnn import pad_sequence

from nets.assign import Assignment, assign
from nets.boxes import box_iou, complete_iou_loss
from nets.config import STRIDES
from nets.decode import cached_priors, decode_boxes, flatten_maps, grids_of
from nets.structures import Target

WEIGHTS = {"box": 4.0, "objectness": 1.0, "class": 1.0}  # of the terms, by name
# Weights of the means in bubbliiiing/yolov4-tiny-pytorch; the class term, a mean over K classes, is there
# multiplied by K / 80.
_MEANS = {"box": 0.05, "objectness": 5.0, "class": 1 / 80}
_BALANCE = (0.4, 1.0, 4.0)  # of the heads' objectness, coarse first
_USUAL_AREA = 416**2  # network pixels, for which the objectness weight is meant
_IGNORE_IOU = 0.5  # a prediction that overlaps a truth more than this is no negative


class YoloLoss(nn.Module):
    """Compare raw maps with ground truth.

    Each term is a sum over the batch divided by the number of positives. With `normalization` "means" it is
    the sum of the heads' means, with the weights of bubbliiiing/yolov4-tiny-pytorch. A prior without a truth
    is a negative unless its predicted box overlaps some truth by more than half. Difficult objects are no
    targets.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        anchors: tuple[tuple[float, float], ...],
        anchor_masks: tuple[tuple[int, ...], ...],
        scale_x_y: float,
        label_smoothing: float = 0.0,
        normalization: str = "sums",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchors, self.anchor_masks, self.scale_x_y = anchors, anchor_masks, scale_x_y
        self.label_smoothing = label_smoothing
        self.normalization = normalization

    def assign(self, targets: Sequence[Target], input_size: tuple[int, int]) -> Assignment:
        """Assign the truths of a batch to priors, where the targets are; needs no prediction.

        `input_size` is the network input's (height, width) in pixels, in which the targets are too.
        """
        boxes, labels, difficult = _padded(targets)
        grids = [
            (input_size[0] // stride, input_size[1] // stride) for stride in STRIDES[: len(self.anchor_masks)]
        ]
        wanted = (labels >= 0) & ~difficult
        return assign(boxes, wanted, grids=grids, anchors=self.anchors, anchor_masks=self.anchor_masks)

    def divisor(self, assignment: Assignment, num_images: int) -> int:
        """Return what a batch adds to the divisor of its step: its positives, for means its images."""
        return num_images if self.normalization == "means" else len(assignment)

    def forward(
        self, raw_maps: Sequence[Tensor], targets: Sequence[Target], assignment: Assignment, divisor: float
    ) -> dict[str, Tensor]:
        """Return the weighted terms of a batch, Tensor[] each, by name; their sum is the loss.

        Args:
            raw_maps: (B, A*(5+K), h, w) each, coarse first.
            targets: one per image, on the CPU, in network pixels.
            assignment: what `assign` returned for these targets.
            divisor: the sum of `divisor` over all batches whose gradients make one step, at least 1.
        """
        device = raw_maps[0].device
        grids = grids_of(raw_maps)
        priors = cached_priors(grids, self.anchors, self.anchor_masks, device)
        predictions = flatten_maps(raw_maps, self.anchor_masks).float()  # (B, N, 5+K)
        boxes = decode_boxes(predictions[..., :4], priors, self.scale_x_y)  # (B, N, 4)

        truth_boxes, labels, _ = _padded(targets)  # (B, M, 4), (B, M)
        positive = _upload(assignment.images, device), _upload(assignment.priors, device)
        truth = assignment.images, assignment.truths
        class_goal = _upload(self._class_goal(labels[truth]), device)  # (P, K)
        is_positive = torch.zeros_like(predictions[..., 4], dtype=torch.bool)  # (B, N)
        is_positive.index_put_(positive, is_positive.new_ones(()))  # "[positive] = True" waits for a GPU
        overlap = box_iou(boxes.detach(), _upload(truth_boxes, device))  # (B, N, M); padding overlaps nothing
        counted = is_positive | ~(overlap > _IGNORE_IOU).any(dim=-1)

        terms = {
            "box": complete_iou_loss(boxes[positive], _upload(truth_boxes[truth], device)),  # (P,)
            "objectness": bce(predictions[..., 4], is_positive.float(), reduction="none") * counted,  # (B, N)
            "class": bce(predictions[positive][:, 5:], class_goal, reduction="none").sum(dim=-1),  # (P,)
        }
        if self.normalization == "means":
            terms = self._as_means(terms, assignment, counted, grids)
        else:
            terms = {name: WEIGHTS[name] * values for name, values in terms.items()}
        return {name: values.sum() / divisor for name, values in terms.items()}

    def _as_means(
        self,
        terms: dict[str, Tensor],
        assignment: Assignment,
        counted: Tensor,
        grids: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Weigh the terms so that their sum divided by the images is the sum of the heads' means."""
        sizes = [
            len(mask) * height * width for mask, (height, width) in zip(self.anchor_masks, grids, strict=True)
        ]
        head = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))  # (N,)
        head_of_positive = head[assignment.priors]  # (P,)
        per_head = head_of_positive.bincount(minlength=len(sizes)).clamp(min=1)
        positives_share = _upload((1 / per_head)[head_of_positive], counted.device)
        area = grids[0][0] * grids[0][1] * STRIDES[0] ** 2 / _USUAL_AREA
        background_share = torch.cat(
            [
                (balance * area / part.sum().clamp(min=1)).expand(part.shape[1])
                for balance, part in zip(_BALANCE[: len(sizes)], counted.split(sizes, dim=1), strict=True)
            ]
        )  # (N,)
        shares = {"box": positives_share, "objectness": background_share, "class": positives_share}
        return {name: values * shares[name] * _MEANS[name] * len(counted) for name, values in terms.items()}

    def _class_goal(self, labels: Tensor) -> Tensor:
        """Return smoothed one-hot rows (P, K): 1 - s/2 for the class, s/2 for the others."""
        one_hot = nn.functional.one_hot(labels, self.num_classes).float()
        return one_hot * (1 - self.label_smoothing) + self.label_smoothing / 2


def _upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, as only such a copy does not wait for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _padded(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (B, M, 4), labels (B, M) and difficult (B, M), padded to the most truths of an image."""
    boxes = pad_sequence([target.boxes for target in targets], batch_first=True)
    labels = pad_sequence([target.labels for target in targets], batch_first=True, padding_value=-1)
    difficult = pad_sequence([target.difficult for target in targets], batch_first=True)
    return boxes, labels, difficult
