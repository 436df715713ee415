"""The pictures of a run's folder: what the labels are like, what the network is shown, what it answers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
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
from utils.vision.image_reader import Pixels
from utils.vision.plots.label_plots import plot_labels

CONF = 0.25  # what predict.py shows when nobody says otherwise
LOWEST_CONF = 0.01
_BEST = 3
_MOST = 16  # pictures of a training batch


def save_labels(
    path: Path,
    dataset: VocDataset,
    input_size: tuple[int, int],
    anchors: Sequence[tuple[float, float]],
) -> None:
    """Write a chart of the objects of a data set, as the network sees them; no picture is read.

    Args:
        path: the PNG to write.
        dataset: may be without objects.
        input_size: (height, width) of the network input in pixels.
        anchors: (width, height) pairs in network pixels.

    Raises:
        UserError: the file cannot be written.
    """
    labels, boxes = dataset.letterboxed_objects(input_size)
    plot_labels(path, dataset.class_names, labels, boxes, input_size, anchors)


def save_train_batch(
    path: Path, images: Tensor, targets: Sequence[Target], class_names: Sequence[str]
) -> None:
    """Write what the network is shown in a training step: at most 16 pictures with their boxes and ids.

    Args:
        path: the JPEG to write.
        images: uint8 Tensor[B, 3, H, W].
        targets: one an image, boxes in network pixels.
        class_names: the names behind the labels.

    Raises:
        UserError: the file cannot be written.
    """
    pixels = images[:_MOST].permute(0, 2, 3, 1).cpu().numpy()
    cell = cell_size(images.shape[2] / images.shape[3])
    cells = [
        draw_cell(image, target, class_names, target.image_id, cell)
        for image, target in zip(pixels, targets[:_MOST], strict=True)
    ]
    save_sheet(path, cells, columns=4)


def save_val_batch(path: Path, predictor: Predictor, dataset: VocDataset, count: int = 8) -> None:
    """Write pictures of a data set in pairs: the truth on the left, what the network finds on the right.

    Shown is what scores at least 0.25, whatever the predictor's `conf`; where there is nothing, the three
    best above 0.01. Pictures that cannot be read are passed over with a warning; without any no file is
    written.

    Args:
        path: the JPEG to write.
        predictor: its `conf` should be at most 0.01.
        dataset: where the pictures come from, evenly spread.
        count: most pairs.

    Raises:
        UserError: the file cannot be written.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    records = [dataset.records[index] for index in chosen]
    if not records:
        return
    cell = cell_size(statistics.median(record.height / record.width for record in records))
    pairs = []
    for image, target in _load_readable(dataset, chosen.tolist()):
        shown, summary = _choose_shown(predictor(image))
        truth = draw_cell(image, target, dataset.class_names, f"truth  {target.image_id}", cell)
        found = draw_cell(image, shown, predictor.class_names, f"found  {summary}", cell)
        pairs.append(draw_pair(truth, found))
    if pairs:
        save_sheet(path, pairs, columns=2)


def _load_readable(dataset: VocDataset, indices: Sequence[int]) -> Iterator[tuple[Pixels, Target]]:
    for index in indices:
        try:
            yield dataset.read(index), build_target(dataset, index)
        except UserError as error:
            warn(f"left out of the picture: {error}")


def _choose_shown(found: Detections) -> tuple[Detections, str]:
    """Return the detections to draw, and a caption that says which they are."""
    sure = found[found.scores >= CONF]
    if len(sure):
        return sure, f"{len(sure)} with a score of {CONF} or more"
    best = found[torch.arange(min(_BEST, int((found.scores >= LOWEST_CONF).sum())))]
    if not len(best):
        return best, f"nothing, not even with a score of {LOWEST_CONF}"
    return best, f"nothing with {CONF} or more; the best {len(best)}"
