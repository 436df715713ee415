"""The labels of a data set as the network sees them, without reading an image."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.data.dataset import VocDataset
from utils.vision.image_reader import fit


def letterboxed_boxes(dataset: VocDataset, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return class and place of all objects of a data set.

    Args:
        dataset: may be without objects.
        input_size: (height, width) of the network input in pixels.

    Returns:
        Labels Tensor[N] int64, and boxes Tensor[N, 4], (x1, y1, x2, y2) edges in network pixels.
    """
    labels, boxes = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4)]
    for index, record in enumerate(dataset.records):
        target = dataset.target(index)
        labels.append(target.labels)
        boxes.append(fit((record.height, record.width), input_size).apply(target.boxes))
    return torch.cat(labels), torch.cat(boxes)
