"""Boxes and labels on pictures, readable at any size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from nets.structures import Detections, Target
from utils.cli.console import warn
from utils.vision.fonts import has_letters, load_font
from utils.vision.image_reader import letterbox

Color = tuple[int, int, int]
_GOLDEN = 0.618034  # hues this far apart stay apart, however many classes there are
_SMALLEST_FONT = 10  # pixels


def draw_detections(
    image: np.ndarray,
    objects: Detections | Target,
    class_names: Sequence[str],
    font_size: int | None = None,
) -> np.ndarray:
    """Draw boxes with their class names, and scores where there are some.

    Args:
        image: uint8 (H, W, 3) in RGB; it is not changed.
        objects: boxes in pixels of the image.
        class_names: the names behind the labels.
        font_size: of the names, in pixels; None chooses it by the size of the picture.

    Returns:
        A uint8 array (H, W, 3).
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    draw = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    font_size = font_size or max(_SMALLEST_FONT, round(side / 28))
    thickness = max(1, min(2, side // 64), round(side / 180))
    captions = _captions(objects, class_names)
    boxes = objects.boxes.round().int().tolist()
    rows = list(zip(boxes, objects.labels.tolist(), captions, strict=True))[::-1]  # the best on top
    for box, label, _ in rows:
        draw.rectangle(_inside(box, canvas.size), outline=class_color(label), width=thickness)
    for box, label, caption in rows:
        _draw_caption(draw, box, caption, class_color(label), font_size)
    return np.asarray(canvas)


def class_color(label: int) -> Color:
    """Return the color of a class, the same in every picture, as RGB in 0 to 255."""
    hue = (0.98 + label * _GOLDEN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if label % 2 else 0.7, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def sheet(
    images: Sequence[np.ndarray], columns: int, cell: tuple[int, int] = (320, 320), gap: int = 6
) -> np.ndarray:
    """Lay pictures out in rows, each letterboxed into a cell.

    Args:
        images: uint8 arrays (H, W, 3) in RGB, at least one.
        columns: pictures a row.
        cell: (height, width) of a cell in pixels.
        gap: white pixels between cells.

    Returns:
        A uint8 array (H, W, 3).
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs pictures and columns, got {len(images)} and {columns}")
    height, width = cell
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = letterbox(image, cell)[0]
    return canvas


def _captions(objects: Detections | Target, class_names: Sequence[str]) -> list[str]:
    names = [_written(class_names[label], label) for label in objects.labels.tolist()]
    if isinstance(objects, Detections):
        return [f"{name} {score:.2f}" for name, score in zip(names, objects.scores.tolist(), strict=True)]
    return [
        f"{name} (difficult)" if hard else name
        for name, hard in zip(names, objects.difficult.tolist(), strict=True)
    ]


def _written(name: str, label: int) -> str:
    """Return the name of a class as it can be drawn: on one line, and by its number where letters lack."""
    name = " ".join(name.split())
    if has_letters(name):
        return name
    _warn_of_letters(name)
    return f"class {label}"


@cache
def _warn_of_letters(name: str) -> None:
    warn(f"no font here has the letters of {name}: its number is drawn; install one such as Noto Sans CJK")


def _inside(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return first and last pixel of a box on each axis, kept inside an image of (width, height)."""
    left, top = (min(max(edge, 0), side - 1) for edge, side in zip(box[:2], size, strict=True))
    right, bottom = (min(max(edge - 1, 0), side - 1) for edge, side in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _draw_caption(
    draw: ImageDraw.ImageDraw, box: Sequence[int], caption: str, color: Color, size: int
) -> None:
    """Write on a filled field above the box, or inside its top where there is no room above."""
    width, height = draw.im.size
    font = load_font(size, caption)
    length = draw.textlength(caption, font=font)
    if length > width and size > _SMALLEST_FONT:  # a small picture: shrink to fit
        size = max(_SMALLEST_FONT, int(size * width / length))
        font = load_font(size, caption)
        length = draw.textlength(caption, font=font)
    pad = max(1, size // 6)
    field_width, field_height = round(length) + 2 * pad, round(1.2 * size) + pad
    left = max(0, min(box[0], width - field_width))
    top = box[1] - field_height if box[1] >= field_height else box[1]
    top = max(0, min(top, height - field_height))
    draw.rectangle((left, top, left + field_width - 1, top + field_height - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    draw.text((left + pad, top + field_height / 2), caption, fill=ink, font=font, anchor="lm")
