"""The pictures of a run's folder: what the labels are like, what the network is shown, what it answers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from nets.structures import Detections, Target
from utils.console import warn
from utils.data.dataset import VocDataset
from utils.draw import draw_detections, load_font, sheet
from utils.errors import UserError
from utils.files import atomic_write
from utils.images import Pixels, fit, letterbox
from utils.inference.predictor import Predictor
from utils.plots import plot_labels

CONF = 0.25  # what predict.py shows when nobody says otherwise
LOWEST_CONF = 0.01
_BEST = 3
_MOST = 16  # pictures of a training batch
_LONGEST = 416  # pixels of a picture on a sheet
_STRIP = 24  # pixels of the caption above a picture
_GAP = 4
_CROWD = 8  # objects; names of more hide the picture unless they are small
_FONT, _SMALL_FONT = 14, 10


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
    labels, boxes = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4)]
    for index, record in enumerate(dataset.records):
        target = dataset.target(index)
        labels.append(target.labels)
        boxes.append(fit((record.height, record.width), input_size).apply(target.boxes))
    plot_labels(path, dataset.class_names, torch.cat(labels), torch.cat(boxes), input_size, anchors)


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
    cell = _cell_size(images.shape[2] / images.shape[3])
    cells = [
        _draw_cell(image, target, class_names, target.image_id, cell)
        for image, target in zip(pixels, targets[:_MOST], strict=True)
    ]
    _save_sheet(path, cells, columns=4)


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
    cell = _cell_size(statistics.median(record.height / record.width for record in records))
    pairs = []
    for image, target in _load_readable(dataset, chosen.tolist()):
        shown, summary = _choose_shown(predictor(image))
        truth = _draw_cell(image, target, dataset.class_names, f"truth  {target.image_id}", cell)
        found = _draw_cell(image, shown, predictor.class_names, f"found  {summary}", cell)
        pairs.append(sheet([truth, found], columns=2, cell=truth.shape[:2], gap=_GAP))
    if pairs:
        _save_sheet(path, pairs, columns=2)


def _load_readable(dataset: VocDataset, indices: Sequence[int]) -> Iterator[tuple[Pixels, Target]]:
    for index in indices:
        try:
            yield dataset.load(index)
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


def _cell_size(ratio: float) -> tuple[int, int]:
    """Return (height, width) of a picture on a sheet for a ratio of height to width."""
    ratio = min(max(ratio, 0.5), 2.0)
    return round(_LONGEST * min(ratio, 1.0)), round(_LONGEST / max(ratio, 1.0))


def _draw_cell(
    image: Pixels,
    objects: Detections | Target,
    class_names: Sequence[str],
    caption: str,
    cell: tuple[int, int],
) -> Pixels:
    """Draw a picture with its boxes into a cell, after the resizing so that the letters stay sharp."""
    canvas, placement = letterbox(image, cell)
    if isinstance(objects, Target):
        placed: Detections | Target = Target(
            placement.apply(objects.boxes.cpu()), objects.labels, objects.difficult, objects.image_id
        )
    else:
        placed = Detections(placement.apply(objects.boxes), objects.scores, objects.labels)
    drawn = draw_detections(canvas, placed, class_names, _SMALL_FONT if len(placed) > _CROWD else _FONT)
    return np.concatenate((_draw_strip(caption, cell[1]), drawn))


def _draw_strip(caption: str, width: int) -> Pixels:
    """Write a line, cut off in the middle where it is too long: ids differ at the end."""
    canvas = Image.new("RGB", (width, _STRIP), "white")
    draw = ImageDraw.Draw(canvas)
    font = load_font(15, caption.isascii())
    room, shown = len(caption), caption
    while room > 2 and draw.textlength(shown, font=font) > width - 4:
        room -= 1
        shown = f"{caption[: room // 2]}…{caption[len(caption) - room // 2 :]}"
    draw.text((2, _STRIP / 2), shown, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def _save_sheet(path: Path, cells: Sequence[Pixels], columns: int) -> None:
    height, width = cells[0].shape[:2]
    page = sheet(cells, columns, cell=(height, width), gap=3 * _GAP)
    with atomic_write(path) as file:
        Image.fromarray(page).save(file, format="JPEG", quality=90)
