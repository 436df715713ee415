"""Targets: annotated objects of an image as tensors."""

from __future__ import annotations

import torch

from nets.structures import Target
from utils.data.dataset import VocDataset


def build_target(dataset: VocDataset, index: int) -> Target:
    """Return the objects of one image of a data set, in pixels of the image; the image is not read."""
    boxes, labels, difficult = (torch.from_numpy(array.copy()) for array in dataset.objects(index))
    return Target(boxes, labels, difficult, dataset.records[index].image_id)
