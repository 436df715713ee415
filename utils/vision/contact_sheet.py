"""Sheets of labeled pictures: each in a cell of one size, with a caption above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from utils.cli.files import atomic_write
from utils.vision.draw import HasBoxes, draw_detections, load_font, sheet
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import letterbox

_LONGEST = 416  # pixels of a picture on a sheet
_STRIP = 24  # pixels of the caption above a picture
_GAP = 4
_CROWD = 8  # objects; names of more hide the picture unless they are small
_FONT, _SMALL_FONT = 14, 10


def cell_size(ratio: float) -> tuple[int, int]:
    """Return (height, width) of a picture on a sheet, in pixels, for a ratio of height to width."""
    ratio = min(max(ratio, 0.5), 2.0)
    return round(_LONGEST * min(ratio, 1.0)), round(_LONGEST / max(ratio, 1.0))


def draw_cell(
    image: Pixels,
    objects: HasBoxes,
    class_names: Sequence[str],
    caption: str,
    cell: tuple[int, int],
) -> Pixels:
    """Draw a picture with its boxes into a cell, after the resizing so that the letters stay sharp.

    Args:
        image: uint8 (H, W, 3) in RGB.
        objects: boxes in pixels of the image.
        class_names: the names behind the labels.
        caption: a line above the picture, shortened in the middle where it is too long.
        cell: (height, width) of the picture on the sheet, without the caption.

    Returns:
        uint8 (height + 24, width, 3).
    """
    canvas, placement = letterbox(image, cell)
    font_size = _SMALL_FONT if len(objects.labels) > _CROWD else _FONT
    drawn = draw_detections(canvas, objects, class_names, font_size, placement)
    return np.concatenate((_draw_strip(caption, cell[1]), drawn))


def draw_pair(truth: Pixels, found: Pixels) -> Pixels:
    """Lay two cells side by side: the truth on the left, what was found on the right."""
    return sheet([truth, found], columns=2, cell=(truth.shape[0], truth.shape[1]), gap=_GAP)


def save_sheet(path: Path, cells: Sequence[Pixels], columns: int) -> None:
    """Write cells of one size as a JPEG.

    Raises:
        UserError: the file cannot be written.
    """
    height, width = cells[0].shape[:2]
    page = sheet(cells, columns, cell=(height, width), gap=3 * _GAP)
    with atomic_write(path) as file:
        Image.fromarray(page).save(file, format="JPEG", quality=90)


def _draw_strip(caption: str, width: int) -> Pixels:
    """Write a line, cut off in the middle where it is too long: ids differ at the end."""
    canvas = Image.new("RGB", (width, _STRIP), "white")
    draw = ImageDraw.Draw(canvas)
    font = load_font(15, caption)
    room, shown = len(caption), caption
    while room > 2 and draw.textlength(shown, font=font) > width - 4:
        room -= 1
        shown = f"{caption[: room // 2]}…{caption[len(caption) - room // 2 :]}"
    draw.text((2, _STRIP / 2), shown, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)
