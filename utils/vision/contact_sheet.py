"""Contact sheets: grids of images with boxes and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from utils.cli.console import one_line
from utils.vision.draw import HasBoxes, draw_detections, load_font
from utils.vision.image_reader import Pixels
from utils.vision.image_writer import write_image
from utils.vision.letterbox import letterbox

_LONGEST = 416  # pixels of an image's longer side
_CAPTION = 24  # pixels, height
_GAP = 4
_CROWDED = 8  # objects; the names of more hide the image unless they are small
_FONT, _SMALL_FONT = 14, 10


def cell_size(ratio: float) -> tuple[int, int]:
    """Return the (height, width) of the images on a sheet, in pixels, for a ratio of height to width."""
    ratio = min(max(ratio, 0.5), 2.0)
    return round(_LONGEST * min(ratio, 1.0)), round(_LONGEST / max(ratio, 1.0))


def draw_cell(
    image: Pixels, objects: HasBoxes, class_names: Sequence[str], caption: str, size: tuple[int, int]
) -> Pixels:
    """Letterbox an image, then draw its boxes, so that the letters stay sharp.

    Args:
        image: uint8 (H, W, 3) in RGB.
        objects: boxes in pixels of the image.
        class_names: the name of each label.
        caption: a line above the image; control characters are escaped, a long one is shortened in the
            middle.
        size: (height, width) in pixels, without the caption, which adds 24 rows.
    """
    canvas, placement = letterbox(image, size)
    font_size = _SMALL_FONT if len(objects.labels) > _CROWDED else _FONT
    drawn = draw_detections(canvas, objects, class_names, font_size, placement)
    return np.concatenate((_draw_caption(caption, size[1]), drawn))


def draw_pair(ground_truth: Pixels, detections: Pixels) -> Pixels:
    """Join two cells of one size, the ground truth on the left."""
    return draw_grid([ground_truth, detections], columns=2, gap=_GAP)


def save_sheet(path: Path, cells: Sequence[Pixels], columns: int) -> None:
    """Write cells of one size as a JPEG; a UserError tells that the file cannot be written."""
    write_image(draw_grid(cells, columns, gap=3 * _GAP), path, quality=90)


def draw_grid(cells: Sequence[Pixels], columns: int, gap: int) -> Pixels:
    """Arrange cells of one size in rows, with a white gap in pixels between them."""
    height, width = cells[0].shape[:2]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    grid: Pixels = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8
    )
    for index, cell in enumerate(cells):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[top : top + height, left : left + width] = cell
    return grid


def _draw_caption(caption: str, width: int) -> Pixels:
    """Write a line, shortened in the middle, since ids differ at the end."""
    caption = one_line(caption)  # Pillow measures no line breaks, which a file name may hold
    canvas = Image.new("RGB", (width, _CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    font = load_font(15, caption)
    length, shown = len(caption), caption
    while length > 2 and draw.textlength(shown, font=font) > width - 4:
        length -= 1
        shown = f"{caption[: length // 2]}…{caption[len(caption) - length // 2 :]}"
    draw.text((2, _CAPTION / 2), shown, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)
