"""The drawing board of the demo: parts, poses, and a supersampled canvas that knows whose each pixel is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]

SUBSAMPLES = 2  # a side: each pixel of the picture is the mean of 2 x 2, which is what smooths the edges


@dataclass(frozen=True)
class Part:
    """One filled outline of a thing, in metres: x to the right, y up, the ground at y = 0.

    The colour runs from `top` to `bottom` over the part's height. A soft part is an ellipse that fades to its
    rim (a shadow, a shine) and does not count to the thing's extent. A glowing part stays bright at night.
    """

    points: np.ndarray  # (N, 2)
    top: Colour
    bottom: Colour
    alpha: float = 1.0
    soft: bool = False
    glow: bool = False


@dataclass(frozen=True)
class Pose:
    """Where a thing stands: its origin in pixels, pixels a metre, angle in degrees, clockwise."""

    x: float
    y: float
    scale: float
    angle: float = 0.0
    flip: bool = False

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Move points (N, 2) from metres to pixels of the picture."""
        cosine, sine = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        side = -1.0 if self.flip else 1.0
        matrix = np.array([[side * cosine, side * sine], [sine, -cosine]]) * self.scale  # y up becomes y down
        return points @ matrix + (self.x, self.y)


@dataclass(frozen=True)
class Light:
    """What the hour and the distance do to a colour: a factor a channel, then a share of haze."""

    tint: Colour = (1.0, 1.0, 1.0)
    haze: Colour = (200.0, 210.0, 220.0)
    distance: float = 0.0

    def on(self, colour: Colour, glow: bool = False) -> np.ndarray:
        """Return the lit colour, float32 (3,) in [0, 255]."""
        near = 1 - self.distance
        return np.array(
            [
                min(max(value * (1.0 if glow else factor) * near + haze * self.distance, 0.0), 255.0)
                for value, factor, haze in zip(colour, self.tint, self.haze, strict=True)
            ],
            np.float32,
        )


class Canvas:
    """A picture in the making: the colours, and for every subsample who is on top (0 is nobody)."""

    def __init__(self, background: np.ndarray) -> None:
        """Start from a background, uint8 (H, W, 3) RGB."""
        self.height, self.width = background.shape[:2]
        size = (self.width * SUBSAMPLES, self.height * SUBSAMPLES)
        self.pixels = cv2.resize(background, size, interpolation=cv2.INTER_LINEAR)
        self.owner = np.zeros(self.pixels.shape[:2], np.uint8)

    def draw(self, parts: Iterable[Part], pose: Pose, light: Light, owner: int = 0) -> None:
        """Draw the parts one over the other; solid ones make `owner` the owner of what they cover."""
        for part in parts:
            points = pose.apply(part.points)
            top, bottom = light.on(part.top, part.glow), light.on(part.bottom, part.glow)
            if part.soft:
                self.shade(points, top, part.alpha)
            else:
                self.fill(points, top, bottom, part.alpha, owner)

    def fill(
        self, points: np.ndarray, top: np.ndarray, bottom: np.ndarray, alpha: float = 1.0, owner: int = 0
    ) -> None:
        """Fill a polygon (N, 2), pixels of the picture, from the colour `top` to `bottom`."""
        fine = points * SUBSAMPLES - 0.5  # OpenCV puts whole numbers at the centres of the pixels
        x1, y1, x2, y2 = self._window(fine)
        if x1 >= x2 or y1 >= y2:
            return
        outline = [np.round((fine - (x1, y1)) * 16).astype(np.int32)]
        region = self.pixels[y1:y2, x1:x2]
        if alpha >= 0.5:
            cv2.fillPoly(self.owner[y1:y2, x1:x2], outline, owner, shift=4)
        if alpha == 1 and top.tolist() == bottom.tolist():
            cv2.fillPoly(region, outline, top.tolist(), shift=4)
            return
        mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
        cv2.fillPoly(mask, outline, 255, shift=4)
        low, high = fine[:, 1].min(), fine[:, 1].max()
        share = np.minimum(np.maximum((np.arange(y1, y2) - low) / max(high - low, 1e-6), 0), 1)[:, None]
        rows = (top + (bottom - top) * share).astype(np.uint8)[:, None]
        colours = cv2.resize(rows, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)
        if alpha < 1:
            colours = cv2.addWeighted(colours, alpha, region, 1 - alpha, 0)
        cv2.copyTo(colours, mask, region)

    def shade(self, points: np.ndarray, colour: np.ndarray, alpha: float) -> None:
        """Lay a colour over the ellipse in the points' box: `alpha` in its middle, nothing at its rim."""
        fine = points * SUBSAMPLES - 0.5
        x1, y1, x2, y2 = self._window(fine)
        if x1 >= x2 or y1 >= y2:
            return
        low, high = fine.min(axis=0), fine.max(axis=0)
        centre, radius = (low + high) / 2, np.maximum((high - low) / 2, 1)
        across = ((np.arange(x1, x2, dtype=np.float32) - centre[0]) / radius[0]) ** 2
        down = ((np.arange(y1, y2, dtype=np.float32) - centre[1]) / radius[1]) ** 2
        weight = np.maximum(1 - across - down[:, None], 0).astype(np.float32) * np.float32(alpha)
        region = self.pixels[y1:y2, x1:x2]
        flat = np.empty_like(region)
        flat[:] = colour.astype(np.uint8)
        region[:] = cv2.blendLinear(flat, region, weight, 1 - weight)

    def finish(self) -> np.ndarray:
        """Return the picture, uint8 (H, W, 3) RGB."""
        return cv2.resize(self.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def visible(self, owner: int) -> np.ndarray:
        """Return the pixels more than half covered by this object, bool (H, W)."""
        fine = cv2.inRange(self.owner, owner, owner)  # 255 where it is on top
        return (
            cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA) > 128
        )  # 2 of 4 are 127.5

    def _window(self, fine: np.ndarray) -> tuple[int, int, int, int]:
        """Return the part of the canvas that the points can touch: x1, y1, x2, y2 in subsamples."""
        (left, high), (right, low) = fine.min(axis=0).tolist(), fine.max(axis=0).tolist()
        rows, columns = self.owner.shape
        return (
            max(int(left) - 1, 0),
            max(int(high) - 1, 0),
            min(int(right) + 3, columns),
            min(int(low) + 3, rows),
        )


def silhouette_area(parts: Iterable[Part], pose: Pose) -> float:
    """Return how many pixels the solid parts would cover with nothing before them and no picture's edge."""
    outlines = [
        pose.apply(part.points) * SUBSAMPLES - 0.5 for part in parts if not part.soft and part.alpha >= 0.5
    ]
    everything = np.concatenate(outlines)
    corner, far = np.floor(everything.min(axis=0)), np.ceil(everything.max(axis=0))
    width, height = (far - corner).astype(int) + 2
    mask = np.zeros((height, width), np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [np.round((outline - corner) * 16).astype(np.int32)], 1, shift=4)
    return cv2.countNonZero(mask) / SUBSAMPLES**2
