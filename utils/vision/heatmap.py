"""Heat maps of detections and attention maps of gates, drawn over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.vision.contact_sheet import draw_grid
from utils.vision.draw import HasBoxes, draw_detections, load_font
from utils.vision.image_reader import Pixels

_INK, _GRAY, _BACKGROUND = (25, 25, 25), (190, 190, 190), (255, 255, 255)
_BAR = (59, 82, 139)  # a blue of the viridis color map
_FONT, _LINE, _GAP = 14, 19, 16  # pixels: letters, a line, between panels
_AREA = 400 * 400  # pixels of a map in a panel
_LONGEST = 960  # side of a map in a panel
_MIN_WIDTH = 380  # of a panel, so that its title fits
_CHART = 90  # pixels, height
_MIN_SPAN = 0.1  # of the colors, so that nearly constant gates have nearly one color


@dataclass(frozen=True)
class GateMaps:
    """Gates of one attention block for one image."""

    place: str  # where the block is, as in `ModelConfig.phi_at`
    block: str  # the name of its class
    features: tuple[int, int, int]  # (C, H, W) of the gated feature map
    # float32 (H, W), the gate at each position of the image in network pixels; None if it is the same
    # everywhere.
    positions: np.ndarray | None
    channels: np.ndarray | None  # float32 (C,), the gate of each channel; None if the block has none


def draw_heatmap(image: Pixels, heat: np.ndarray, detections: HasBoxes, class_names: Sequence[str]) -> Pixels:
    """Draw a heat map and the detections that it explains over an image uint8 (H, W, 3) RGB.

    The map, float32 (h, w) in [0, 1], covers the image at any resolution. Boxes are in pixels of the image.
    """
    return draw_detections(_overlay(image, heat, cv2.COLORMAP_TURBO), detections, class_names)


def draw_attention_maps(image: Pixels, blocks: Sequence[GateMaps]) -> Pixels:
    """Draw a panel per attention block on an image: spatial gates over it, channel gates as a chart.

    The image is uint8 (H, W, 3) RGB. The size of the result depends on its aspect ratio, not on its size.
    """
    panels = [_draw_panel(image, gates) for gates in blocks]
    stacked = image.shape[1] > 2 * image.shape[0]  # panels of wide images are below each other
    height, width = np.max([panel.shape[:2] for panel in panels], axis=0)
    cells = [_pad(panel, (0, height - len(panel)), (0, width - panel.shape[1])) for panel in panels]
    grid = draw_grid(cells, columns=1 if stacked else len(cells), gap=_GAP)
    return _pad(grid, (_GAP, _GAP), (_GAP, _GAP))


def _pad(image: Pixels, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
    return np.pad(image, (rows, columns, (0, 0)), constant_values=255)


def color_range(values: np.ndarray) -> tuple[float, float]:
    """Return the values of the first and the last color: the extremes, at least 0.1 apart."""
    low, high = float(values.min()), float(values.max())
    widen = max(0.0, _MIN_SPAN - (high - low)) / 2
    return low - widen, high + widen


def _overlay(image: Pixels, values: np.ndarray, color_map: int) -> Pixels:
    """Blend a map in [0, 1] over the gray image, in 8 bits to save memory."""
    height, width = image.shape[:2]
    levels = np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
    levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, color_map), cv2.COLOR_BGR2RGB)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(gray, 0.55, colors, 0.45, 0)


def _draw_panel(image: Pixels, gates: GateMaps) -> Pixels:
    height, width = image.shape[:2]
    scale = min((_AREA / (width * height)) ** 0.5, _LONGEST / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    panel_width = max(width, _MIN_WIDTH)
    channels, rows, columns = gates.features
    title = [f"{gates.place}  {gates.block}", f"feature map {rows} x {columns}, {channels} channels"]
    title += ["the same at every position"] if gates.positions is None else []
    parts = [_text(title, panel_width)]
    if gates.positions is not None:
        low, high = color_range(gates.positions)
        shares = (gates.positions - low) / (high - low)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        left = (panel_width - width) // 2
        colored = _overlay(small, shares, cv2.COLORMAP_VIRIDIS)
        padded = _pad(colored, (0, 0), (left, panel_width - width - left))
        summary = f"spatial gates: {_extremes(gates.positions)}"
        parts += [_text([summary], panel_width), padded, _color_bar(low, high, panel_width)]
    if gates.channels is not None:
        summary = f"gates of {len(gates.channels)} channels, highest first:"
        lines = [summary, _extremes(gates.channels)]
        parts += [_text(lines, panel_width), _chart(gates.channels, panel_width)]
    return np.concatenate(parts)


def _extremes(values: np.ndarray) -> str:
    return f"min {values.min():.3f}  mean {values.mean():.3f}  max {values.max():.3f}"


def _text(lines: Sequence[str], width: int) -> Pixels:
    """Write lines, in a smaller font if a line would not fit."""
    canvas = Image.new("RGB", (width, _LINE * len(lines) + 4), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        size = _FONT
        while size > 6 and draw.textlength(line, font=load_font(size, line)) > width:
            size -= 1
        middle = _LINE * index + _LINE / 2
        draw.text((0, middle), line, fill=_INK, font=load_font(size, line), anchor="lm")
    return np.asarray(canvas)


def _color_bar(low: float, high: float, width: int) -> Pixels:
    """Draw the colors from left to right, with the values of the first and the last below."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(10, axis=0)
    colors = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    canvas = Image.new("RGB", (width, _LINE + 8), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = load_font(_FONT - 2)
    ends = (f"{low:.3f}", 0, "lm"), (f"{high:.3f}", width, "rm")
    for text, x, anchor in (*ends, ("colors", width / 2, "mm")):
        draw.text((x, _LINE / 2), text, fill=_INK, font=font, anchor=anchor)
    gap = np.full((6, width, 3), 255, dtype=np.uint8)
    return np.concatenate((gap, colors, np.asarray(canvas)))


def _chart(values: np.ndarray, width: int) -> Pixels:
    """Draw the sorted values as columns of a pixel; the axis is 0 to 1, longer for values outside."""
    canvas = Image.new("RGB", (width, _CHART + _LINE), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = load_font(_FONT - 2)
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    margin = 40  # for the axis' numbers
    columns = width - margin
    ordered = np.sort(values)[::-1][np.arange(columns) * len(values) // columns]
    top, bottom = _LINE / 2, _CHART + _LINE / 2

    def row(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    for value in (low, (low + high) / 2, high):
        draw.text((margin - 6, row(value)), f"{value:.1f}", fill=_INK, font=font, anchor="rm")
        draw.line((margin, row(value), width, row(value)), fill=_GRAY)
    for column, value in enumerate(ordered):
        draw.line((margin + column, row(0.0), margin + column, row(float(value))), fill=_BAR)
    return np.asarray(canvas)
