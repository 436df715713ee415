"""The loss of YOLO written with loops over images and boxes, as most PyTorch repositories have it.

It is the baseline of `benchmarks/train_step.py` and equals `nets.loss.YoloLoss` as long as no two truths want
the same slot (here the last one takes it) and none is difficult.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torchvision.ops import box_iou, complete_box_iou_loss

from nets.config import STRIDES, ModelConfig
from nets.structures import Target


class LoopLoss(nn.Module):
    """Sum CIoU, objectness and class loss of a batch, divided by the positives."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, raw_maps: Sequence[Tensor], targets: Sequence[Target]) -> Tensor:
        """Compare raw maps (B, A*(5+K), h, w) with B targets in network pixels."""
        total, positives = raw_maps[0].new_zeros(()), 0
        for raw, mask, stride in zip(raw_maps, self.config.anchor_masks, STRIDES, strict=True):
            batch, _, height, width = raw.shape
            prediction = raw.view(batch, len(mask), -1, height, width).permute(0, 1, 3, 4, 2).contiguous()
            boxes = self._decode(prediction, mask, stride)
            goal, goal_boxes = self._fill_goal(prediction, targets, mask, stride)
            counted = self._find_negatives(boxes.detach(), targets)
            taken = goal[..., 4] == 1
            counted[taken] = 1.0
            box = complete_box_iou_loss(boxes[taken], goal_boxes[taken], reduction="sum")
            classes = bce(prediction[..., 5:][taken], goal[..., 5:][taken], reduction="sum")
            objectness = (bce(prediction[..., 4], goal[..., 4], reduction="none") * counted).sum()
            total = total + 2.0 * box + objectness + classes
            positives += int(taken.sum())
        return total / max(positives, 1)

    def _decode(self, prediction: Tensor, mask: Sequence[int], stride: int) -> Tensor:
        """Return boxes (B, A, h, w, 4), xyxy in network pixels."""
        _, _, height, width, _ = prediction.shape
        columns = torch.arange(width).view(1, 1, 1, width)
        rows = torch.arange(height).view(1, 1, height, 1)
        anchors = torch.tensor([self.config.anchors[index] for index in mask])
        stretch = self.config.scale_x_y
        shift = (stretch - 1) / 2
        x = (prediction[..., 0].sigmoid() * stretch - shift + columns) * stride
        y = (prediction[..., 1].sigmoid() * stretch - shift + rows) * stride
        half_width = prediction[..., 2].clamp(-4, 4).exp() * anchors[:, 0].view(1, -1, 1, 1) / 2
        half_height = prediction[..., 3].clamp(-4, 4).exp() * anchors[:, 1].view(1, -1, 1, 1) / 2
        return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)

    def _fill_goal(
        self, prediction: Tensor, targets: Sequence[Target], mask: Sequence[int], stride: int
    ) -> tuple[Tensor, Tensor]:
        """Write every truth into tensors in the shape of the output: goals (B, A, h, w, 5+K) and boxes."""
        _, _, height, width, _ = prediction.shape
        goal, goal_boxes = torch.zeros_like(prediction), torch.zeros_like(prediction[..., :4])
        choices = sorted({index for mask in self.config.anchor_masks for index in mask})
        for image, target in enumerate(targets):
            for box, label in zip(target.boxes, target.labels, strict=True):
                best = max(choices, key=lambda index: self._shape_iou(box, index))
                if best not in mask:
                    continue
                column = min(int((box[0] + box[2]) / 2 / stride), width - 1)
                row = min(int((box[1] + box[3]) / 2 / stride), height - 1)
                place = (image, mask.index(best), row, column)
                goal[place] = 0.0
                goal[(*place, 4)] = 1.0
                goal[(*place, 5 + int(label))] = 1.0
                goal_boxes[place] = box
        return goal, goal_boxes

    def _shape_iou(self, box: Tensor, anchor: int) -> float:
        width, height = float(box[2] - box[0]), float(box[3] - box[1])
        anchor_width, anchor_height = self.config.anchors[anchor]
        shared = min(width, anchor_width) * min(height, anchor_height)
        return shared / (width * height + anchor_width * anchor_height - shared)

    def _find_negatives(self, boxes: Tensor, targets: Sequence[Target]) -> Tensor:
        """Return 1 where a prediction (B, A, h, w) overlaps no truth by more than a half, otherwise 0."""
        counted = torch.ones(boxes.shape[:-1])
        for image, target in enumerate(targets):
            if len(target):
                overlap = box_iou(target.boxes, boxes[image].reshape(-1, 4)).max(dim=0).values
                counted[image][overlap.view(boxes.shape[1:-1]) > 0.5] = 0.0
        return counted
