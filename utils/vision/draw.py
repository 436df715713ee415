"""Drawing of boxes with class names and scores, and the fonts for any alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from utils.cli.console import warn
from utils.vision.colors import Color, class_colors
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import Placement

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Rectangle = tuple[int, int, int, int]  # left, top, right, bottom edges in pixels
_SMALLEST_FONT = 10  # pixels
_UNASSIGNED = "\U0010ffff"  # in no font; drawn like every missing letter
# Fonts of Linux, macOS and Windows with letters beyond Latin.
_WIDER_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "NotoSans-Regular.ttf",
)


@dataclass(frozen=True)
class _Caption:
    """A text in a field of the image, `pad` pixels from its left edge."""

    text: str
    font: Font
    field: _Rectangle
    pad: int


class HasBoxes(Protocol):
    """Boxes to draw: a Detections, a Target, or numpy arrays.

    Attributes:
        boxes: (N, 4), (x1, y1, x2, y2) edges in pixels.
        labels: (N,) class indices.

    `scores` (N,) or `difficult` (N,) are written behind the class names where there are some.
    """

    @property
    def boxes(self) -> Any: ...  # noqa: D102
    @property
    def labels(self) -> Any: ...  # noqa: D102


def draw_detections(
    image: Pixels,
    objects: HasBoxes,
    class_names: Sequence[str],
    font_size: int | None = None,
    placement: Placement | None = None,
) -> Pixels:
    """Draw boxes with class names, and scores if there are some, on a copy of an image uint8 (H, W, 3) RGB.

    `class_names` has the name of each label. The font is `font_size` pixels high, by default chosen by the
    size of the image. `placement` is for a letterboxed image whose boxes are in pixels of the original.
    """
    labels, boxes = np.asarray(objects.labels).tolist(), np.asarray(objects.boxes)
    if placement is not None:
        boxes = placement.apply(boxes)
    colors = class_colors(tuple(class_names))
    captions = _captions(objects, class_names)
    return draw_boxes(image, boxes, captions, [colors[label] for label in labels], font_size)


def draw_boxes(
    image: Pixels,
    boxes: NDArray[np.floating],
    captions: Sequence[str],
    colors: Sequence[Color],
    font_size: int | None = None,
) -> Pixels:
    """Draw boxes (N, 4), edges in pixels, the first on top, on a copy of an image uint8 (H, W, 3) RGB.

    Each has a caption, which may be empty, and a color. Captions hide one another as little as possible.
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    draw = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    font_size = font_size or max(_SMALLEST_FONT, round(side / 28))
    thickness = max(1, min(2, side // 64), round(side / 180))
    corners = boxes.round().astype(int).tolist()
    fields = np.zeros((len(corners), 4), dtype=np.int64)
    placed: list[tuple[_Caption, Color]] = []
    for index, text in enumerate(captions):
        if text:
            caption = _place_caption(draw, corners[index], text, font_size, fields[:index])
            fields[index] = caption.field
            placed.append((caption, colors[index]))
    for box, color in list(zip(corners, colors, strict=True))[::-1]:
        draw.rectangle(_inside(box, canvas.size), outline=color, width=thickness)
    for caption, color in placed[::-1]:
        _draw_caption(draw, caption, color)
    return np.asarray(canvas)


def _captions(objects: HasBoxes, class_names: Sequence[str]) -> list[str]:
    names = [_drawable_name(class_names[label], label) for label in np.asarray(objects.labels).tolist()]
    scores, difficult = getattr(objects, "scores", None), getattr(objects, "difficult", None)
    if scores is not None:
        return [f"{name} {score:.2f}" for name, score in zip(names, np.asarray(scores).tolist(), strict=True)]
    flags = [False] * len(names) if difficult is None else np.asarray(difficult).tolist()
    return [f"{name} (difficult)" if flag else name for name, flag in zip(names, flags, strict=True)]


def _drawable_name(name: str, label: int) -> str:
    """Return a class name on one line, or "class N" if no font has its letters."""
    name = " ".join(name.split())
    if has_letters(name):
        return name
    _warn_about_letters(name)
    return f"class {label}"


@cache
def _warn_about_letters(name: str) -> None:
    warn(f"no font has the letters of {name}, so its number is drawn; install one such as Noto Sans CJK")


def _inside(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last pixel of a box on each axis, clipped to an image of (width, height)."""
    left, top = (min(max(edge, 0), side - 1) for edge, side in zip(box[:2], size, strict=True))
    right, bottom = (min(max(edge - 1, 0), side - 1) for edge, side in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _place_caption(
    draw: ImageDraw.ImageDraw, box: Sequence[int], text: str, size: int, taken: NDArray[np.int64]
) -> _Caption:
    """Place a caption at its box where it hides the least of the fields (N, 4) that are taken.

    Above the box is tried first, then inside its top, below it, inside its bottom; each at the left and at
    the right end, and then shifted upwards or downwards as far as a few captions are high.
    """
    width, height = draw.im.size
    font = load_font(size, text)
    length = draw.textlength(text, font=font)
    if length > width and size > _SMALLEST_FONT:  # a small image
        size = max(_SMALLEST_FONT, int(size * width / length))
        font = load_font(size, text)
        length = draw.textlength(text, font=font)
    pad = max(1, size // 6)
    field_width, field_height = round(length) + 2 * pad, round(1.2 * size) + pad
    rows = [box[1] - field_height, box[1], box[3], box[3] - field_height]
    rows = [top for top in rows if 0 <= top <= height - field_height] or [0]
    rows += [top for n in (2, 3) if (top := box[1] - n * field_height) >= 0]
    rows += [top for n in (1, 2, 3) if 0 <= (top := box[1] + n * field_height) <= height - field_height]
    lefts = [max(0, min(left, width - field_width)) for left in (box[0], box[2] - field_width)]
    corners = np.array([(left, top) for top in rows for left in lefts])
    fields = np.hstack([corners, np.add(corners, (field_width, field_height))])  # (F, 4)
    shared = np.minimum(fields[:, None, 2:], taken[:, 2:]) - np.maximum(fields[:, None, :2], taken[:, :2])
    hidden = shared.clip(min=0).prod(axis=2).sum(axis=1)
    left, top, right, bottom = fields[hidden.argmin()].tolist()
    return _Caption(text, font, (left, top, right, bottom), pad)


def _draw_caption(draw: ImageDraw.ImageDraw, caption: _Caption, color: Color) -> None:
    left, top, right, bottom = caption.field
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    place = (left + caption.pad, (top + bottom) / 2)
    draw.text(place, caption.text, fill=ink, font=caption.font, anchor="lm")


def load_font(size: int, text: str = "") -> Font:
    """Return a font of a size in pixels with the letters of a text; the bundled font if none has them."""
    return _find_font(size, _non_ascii(text)) or ImageFont.load_default(size)


def has_letters(text: str) -> bool:
    """Tell whether an installed font has the letters of a text."""
    return _find_font(16, _non_ascii(text)) is not None


def _non_ascii(text: str) -> str:
    return "".join(sorted({letter for letter in text if not letter.isascii()}))


@lru_cache(maxsize=256)
def _find_font(size: int, letters: str) -> Font | None:
    bundled = ImageFont.load_default(size)
    if not letters or _has(bundled, letters):
        return bundled
    for name in (*_WIDER_FONTS, *_fonts_of_matplotlib()):
        font = _open(name, size)
        if font is not None and _has(font, letters):
            return font
    return None


def _has(font: Font, letters: str) -> bool:
    try:
        missing = bytes(font.getmask(_UNASSIGNED))
        return all(bytes(font.getmask(letter)) != missing for letter in letters)
    except UnicodeEncodeError:  # bitmap font of a Pillow without FreeType
        return False


@lru_cache(maxsize=64)
def _open(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _fonts_of_matplotlib() -> list[str]:
    """Return DejaVu Sans, which has Greek and Cyrillic letters, without importing matplotlib."""
    found = find_spec("matplotlib")
    origin = found.origin if found else None
    return [str(Path(origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")] if origin else []
