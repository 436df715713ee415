"""Pictures of a run folder: a training batch, and predictions beside the ground truth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.structures import Detections, Target
from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.data.targets import build_target
from utils.inference.predictor import Predictor
from utils.vision.contact_sheet import cell_size, draw_cell, draw_pair, save_sheet

CONF = 0.25  # the default of predict.py
LOWEST_CONF = 0.01
_FALLBACK_DETECTIONS = 3
_BATCH_IMAGES, _VAL_IMAGES = 16, 8  # at most


def save_train_batch(
    path: Path, images: Tensor, targets: Sequence[Target], class_names: Sequence[str]
) -> None:
    """Draw a training batch, uint8 Tensor[B, 3, H, W]: at most 16 images with their boxes and ids.

    Raises:
        UserError: the file cannot be written.
    """
    pixels = images[:_BATCH_IMAGES].permute(0, 2, 3, 1).cpu().numpy()
    cell = cell_size(images.shape[2] / images.shape[3])
    cells = [
        draw_cell(image, target, class_names, target.image_id, cell)
        for image, target in zip(pixels, targets[:_BATCH_IMAGES], strict=True)
    ]
    save_sheet(path, cells, columns=4)


def save_val_batch(path: Path, predictor: Predictor, dataset: VocDataset) -> None:
    """Draw evenly spread images in pairs: ground truth on the left, predictions on the right.

    Predictions are those with a score of at least 0.25, else the best three above 0.01, which the predictor
    must return. Unreadable images are skipped with a warning; without any image no file is written.

    Raises:
        UserError: the file cannot be written.
    """
    count = min(_VAL_IMAGES, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    if not chosen:
        return
    shapes = [dataset.records[index] for index in chosen]
    cell = cell_size(statistics.median(record.height / record.width for record in shapes))
    pairs = []
    for index in chosen:
        try:
            image, target = dataset.read(index), build_target(dataset, index)
        except UserError as error:
            warn(f"val_batch0.jpg: skipped an image: {error}")
            continue
        shown, summary = _choose_shown(predictor(image))
        truth = draw_cell(image, target, dataset.class_names, f"truth  {target.image_id}", cell)
        found = draw_cell(image, shown, predictor.class_names, f"found  {summary}", cell)
        pairs.append(draw_pair(truth, found))
    if pairs:
        save_sheet(path, pairs, columns=2)


def _choose_shown(found: Detections) -> tuple[Detections, str]:
    """Return the detections to draw and their caption."""
    sure = found[found.scores >= CONF]
    if len(sure):
        return sure, f"{len(sure)} with a score of {CONF} or more"
    best = found[torch.arange(min(_FALLBACK_DETECTIONS, int((found.scores >= LOWEST_CONF).sum())))]
    if not len(best):
        return best, f"nothing, not even with a score of {LOWEST_CONF}"
    return best, f"nothing with {CONF} or more; the best {len(best)}"
