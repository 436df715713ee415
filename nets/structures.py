"""Target and Detections, the types of ground truth and of predictions.

Boxes are always (x1, y1, x2, y2) edges in pixels of the image they travel with, x to the right, y down;
labels start at 0. An image without objects has length 0, never None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

_Self = TypeVar("_Self", bound="_Objects")


class _Objects:
    """Base of the dataclasses here: each tensor has one row an object."""

    boxes: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for name, tensor in self._tensors().items():
            expected = (len(self), 4) if name == "boxes" else (len(self),)
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _map(self: _Self, change: Callable[[Tensor], Tensor]) -> _Self:
        changed = {name: change(tensor) for name, tensor in self._tensors().items()}
        return type(self)(**{**vars(self), **changed})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self: _Self, index: Tensor) -> _Self:
        """Select objects by a mask Tensor[N] bool or by indices."""
        return self._map(lambda tensor: tensor[index])

    def to(self: _Self, device: torch.device | str) -> _Self:
        """Copy the tensors to a device."""
        return self._map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Target(_Objects):
    """Ground truth of one image."""

    boxes: Tensor  # (M, 4) float32, (x1, y1, x2, y2) edges in pixels of the image
    labels: Tensor  # (M,) int64 class indices, starting at 0
    difficult: Tensor  # (M,) bool, VOC's flag: neither a training target nor counted by the metrics
    image_id: str = ""  # the id that names the image in messages and result files

    @classmethod
    def empty(cls, image_id: str = "") -> Target:
        """Build the target of an image without objects."""
        return cls(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), image_id)


@dataclass(frozen=True)
class Detections(_Objects):
    """Predicted boxes of one image."""

    boxes: Tensor  # (N, 4) float32, (x1, y1, x2, y2) edges in pixels of the image
    scores: Tensor  # (N,) float32 in [0, 1], objectness x class probability, highest first
    labels: Tensor  # (N,) int64 class indices, starting at 0
    class_names: tuple[str, ...] = ()  # the name of each label; empty if unknown

    @classmethod
    def empty(cls) -> Detections:
        """Build the result of an image in which nothing was found."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())

    @property
    def names(self) -> list[str]:
        """The class name of each of the N boxes; needs `class_names`."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def to_supervision(self, class_names: Sequence[str] | None = None) -> Any:
        """Return these detections as `supervision.Detections`, for its trackers, counters and annotators.

        Args:
            class_names: the name of each label, in place of this object's own; the names of the boxes are
                then `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision  # an optional package
        except ImportError as error:
            raise ImportError("Detections.to_supervision needs it: pip install supervision") from error
        found = self.to("cpu")
        boxes, scores, labels = found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()
        names = class_names or self.class_names
        data = {}
        if names:  # in an array, which is compared with a name element by element
            named = labels.astype(object)
            named[:] = [names[label] for label in labels]
            data["class_name"] = named.astype(str)
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels, data=data)
