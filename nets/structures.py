"""Target and Detections, the types of ground truth and of predictions.

Boxes are always (x1, y1, x2, y2) edges in pixels of the image they travel with, x to the right, y down;
labels start at 0. An image without objects has length 0, never None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")


@dataclass(frozen=True)
class Target:
    """Ground truth of one image.

    Attributes:
        boxes: Tensor[M, 4] float32, (x1, y1, x2, y2) edges in pixels of the image.
        labels: Tensor[M] int64 class indices, starting at 0.
        difficult: Tensor[M] bool, VOC's `difficult` flag: neither a training target nor counted by the
            metrics.
        image_id: the id that names the image in messages and result files.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    image_id: str = ""

    def __post_init__(self) -> None:
        count = len(self.labels)
        _check_shape("boxes", self.boxes, (count, 4))
        _check_shape("labels", self.labels, (count,))
        _check_shape("difficult", self.difficult, (count,))

    @classmethod
    def empty(cls, image_id: str = "") -> Target:
        """Build the target of an image without objects."""
        return cls(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), image_id
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Target:
        """Select objects by a mask Tensor[M] bool or by indices."""
        return Target(self.boxes[index], self.labels[index], self.difficult[index], self.image_id)

    def to(self, device: torch.device | str) -> Target:
        """Copy the tensors to a device."""
        return Target(self.boxes.to(device), self.labels.to(device), self.difficult.to(device), self.image_id)


@dataclass(frozen=True)
class Detections:
    """Predicted boxes of one image.

    Attributes:
        boxes: Tensor[N, 4] float32, (x1, y1, x2, y2) edges in pixels of the image.
        scores: Tensor[N] float32 in [0, 1], objectness x class probability, highest first.
        labels: Tensor[N] int64 class indices, starting at 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count = len(self.labels)
        _check_shape("boxes", self.boxes, (count, 4))
        _check_shape("scores", self.scores, (count,))
        _check_shape("labels", self.labels, (count,))

    @classmethod
    def empty(cls) -> Detections:
        """Build the result of an image in which nothing was found."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Detections:
        """Select detections by a mask Tensor[N] bool or by indices."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])

    def to(self, device: torch.device | str) -> Detections:
        """Copy the tensors to a device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))

    def to_supervision(self, class_names: Sequence[str] | None = None) -> Any:
        """Return these detections as `supervision.Detections`, for its trackers, counters and annotators.

        Args:
            class_names: the names behind the labels, which then travel as `class_name`; None leaves them out.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision  # an optional package
        except ImportError as error:
            raise ImportError("Detections.to_supervision needs it: pip install supervision") from error
        found = self.to("cpu")
        data = {} if class_names is None else {"class_name": [class_names[i] for i in found.labels.tolist()]}
        return supervision.Detections(
            xyxy=found.boxes.numpy(),
            confidence=found.scores.numpy(),
            class_id=found.labels.numpy(),
            data=data,
        )
