"""The one image reader and the one letterbox.

A picture enters the program here and nowhere else, always as uint8 (H, W, 3) RGB, the way a viewer displays
it: EXIF orientation applied, 16-bit gray scaled to 8, CMYK and palettes converted, transparency laid over
white, the first frame of an animation. What is broken, or larger than 89 million pixels, is refused by name.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from utils.cli.errors import UserError
from utils.vision.jpeg import END_MARKER, TAIL, read_jpeg

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
MAX_PIXELS = 89_000_000
FILL = 128

# Decoders that only read pixels (JPEG includes MPO); PIL has one that runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_END_MARKERS = {"JPEG": END_MARKER, "MPO": END_MARKER, "PNG": b"IEND"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)

# PIL warns above its limit and raises above twice the limit; MAX_PIXELS below both is an error of ours.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # counts as no EXIF


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image file say.

    Attributes:
        height: rows in pixels, as displayed.
        width: columns in pixels, as displayed.
        orientation: EXIF orientation 1..8 by which the stored pixels are turned; 5 to 8 swap the sides.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def swapped(self) -> bool:
        """Tell whether displaying swaps the stored sides."""
        return self.orientation >= 5


@dataclass(frozen=True)
class Placement:
    """Where the letterbox put an image.

    Attributes:
        scale: (sx, sy), network pixels an image pixel, exact for the rounded size.
        offset: (x, y) of the image's upper left corner, in network pixels.
        image_size: (height, width) of the image.
        input_size: (height, width) of the network input.
    """

    scale: tuple[float, float]
    offset: tuple[int, int]
    image_size: tuple[int, int]
    input_size: tuple[int, int]

    def apply(self, boxes: Tensor) -> Tensor:
        """Map boxes Tensor[N, 4] xyxy from image pixels to network pixels."""
        return boxes * boxes.new_tensor(self.scale * 2) + boxes.new_tensor(self.offset * 2)

    def undo(self, boxes: Tensor) -> Tensor:
        """Map boxes Tensor[N, 4] xyxy from network pixels to image pixels, clipped to the image."""
        height, width = self.image_size
        edges = (boxes - boxes.new_tensor(self.offset * 2)) / boxes.new_tensor(self.scale * 2)
        return torch.minimum(edges.clamp(min=0), edges.new_tensor((width, height, width, height)))


def read_image(path: Path | str, reduction: int = 1) -> Pixels:
    """Read an image file as it is displayed.

    Args:
        path: the image file.
        reduction: 1, 2, 4 or 8: by how much both sides shrink, without aliasing. JPEG files are then decoded
            at that size, which is faster. Pixel i covers the pixels from reduction x i on.

    Returns:
        uint8 (ceil(H / reduction), ceil(W / reduction), 3) RGB, contiguous.

    Raises:
        UserError: no regular file, no image, truncated, or more than 89 million pixels; names the path.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        pixels = read_jpeg(path, image, reduction=reduction, turned=orientation != 1)
        if pixels is None:
            image.load()
            pixels = _to_rgb(image, orientation)
            return pixels if reduction == 1 else np.array(Image.fromarray(pixels).reduce(reduction))
        return pixels if orientation == 1 else _to_rgb(Image.fromarray(pixels), orientation)


def from_pil(image: Image.Image) -> Pixels:
    """Convert a PIL image as `read_image` converts a file: EXIF applied, transparency over white.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ValueError: floating-point pixels, whose range nobody knows.
    """
    return _to_rgb(image, _orientation(image))


def read_header(path: Path | str) -> ImageHeader:
    """Read the displayed size and the orientation from a file's header.

    The pixels are decoded only where the end of the file does not show that it is whole.

    Raises:
        UserError: as `read_image`, but for damage in the middle of the file.
    """
    with _opened(path) as image:
        if not _ends_whole(path, image.format):
            image.load()
        width, height = image.size
        orientation = _orientation(image)
    if orientation >= 5:
        height, width = width, height
    return ImageHeader(height, width, orientation)


def verify_image(path: Path | str) -> None:
    """Read every pixel, and the checksums of a PNG, which decoding passes over.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        image.verify()
    read_image(path)


def image_size(path: Path | str) -> tuple[int, int]:
    """Read (height, width) in pixels, as displayed, from a file's header."""
    header = read_header(path)
    return header.height, header.width


def read_thumbnail(path: Path | str, size: tuple[int, int]) -> Pixels:
    """Read a small gray version of an image quickly, sides stretched, for comparing pictures.

    Args:
        path: the image file.
        size: (height, width) in pixels.

    Returns:
        uint8 (height, width).

    Raises:
        UserError: as `read_image`.
    """
    height, width = size
    with _opened(path) as image:
        orientation = _orientation(image)
        image.draft("L", (8 * width, 8 * height))  # a JPEG is decoded at an eighth where that is enough
        image.load()
        small = image if image.mode == "L" else Image.fromarray(_to_rgb(image, 1)).convert("L")
        if orientation in _TURNS:
            small = small.transpose(_TURNS[orientation])
        return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def fit(image_size: tuple[int, int], input_size: tuple[int, int]) -> Placement:
    """Return where the letterbox puts an image: aspect kept, centerd; small images grow.

    Args:
        image_size: (height, width) in pixels.
        input_size: (height, width) of the network input in pixels.
    """
    height, width = image_size
    ratio = min(input_size[0] / height, input_size[1] / width)
    new_height = max(1, round(height * ratio))
    new_width = max(1, round(width * ratio))
    offset = (input_size[1] - new_width) // 2, (input_size[0] - new_height) // 2
    return Placement((new_width / width, new_height / height), offset, image_size, input_size)


def letterbox(image: Pixels, input_size: tuple[int, int]) -> tuple[Pixels, Placement]:
    """Fit an image into the network input: aspect kept, bilinear, centerd on gray 128; small images grow.

    Args:
        image: uint8 (H, W, 3).
        input_size: (height, width) of the network input in pixels.

    Returns:
        The network input uint8 (height, width, 3), and where the image lies in it.
    """
    height, width = image.shape[:2]
    placement = fit((height, width), input_size)
    left, top = placement.offset
    new_width, new_height = round(placement.scale[0] * width), round(placement.scale[1] * height)
    canvas: Pixels = np.full((*input_size, 3), FILL, dtype=np.uint8)
    canvas[top : top + new_height, left : left + new_width] = resize(image, (new_height, new_width))
    return canvas, placement


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image uint8 (H, W, 3) to (height, width) bilinearly, as training and inference both do."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def to_tensor(image: Pixels) -> Tensor:
    """Convert an image uint8 (H, W, 3) to a float32 Tensor[3, H, W] in [0, 1]."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(planes).float().div_(255)


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong with it inside the block becomes a UserError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
            raise UserError(f"{path}: not a regular file")
        with Image.open(path, formats=_FORMATS) as image:
            _check_pixels(path, image.size)
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image that can be read{_hint(path)}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except _DECODE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{path}: cannot read the image: {reason}") from None


def _ends_whole(path: Path | str, format_name: str | None) -> bool:
    """Tell whether a file has its end marker, which no truncated one has: compressed data cannot hold it."""
    marker = _END_MARKERS.get(format_name or "")
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return marker in file.read()


def _check_pixels(path: Path | str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{path}: {width}x{height} is more than {limit} million pixels; make it smaller")
    if width < 1 or height < 1:
        raise UserError(f"{path}: an image of {width}x{height} pixels")


def _hint(path: Path | str) -> str:
    with suppress(OSError), open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
        if not start:
            return ": the file is empty"
        if start.startswith(b"version https://git-lfs"):
            return ": a git-LFS pointer; run `git lfs pull`"
        if start.startswith((b"<!doctype html", b"<html")):
            return ": an HTML page"
    return ""


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; a broken EXIF block counts as none."""
    if image.format == "TIFF":  # PIL turns these itself while loading
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODE_ERRORS:
        return 1
    return orientation if orientation in _TURNS else 1


def _to_rgb(image: Image.Image, orientation: int) -> Pixels:
    if image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    elif image.mode == "F":
        raise ValueError("floating-point pixels are not read; save it with 8 or 16 bits")
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return np.array(image)


def _to_8_bits(values: NDArray[np.integer]) -> Pixels:
    """Scale 16-bit gray to 8 bits; 32-bit files hold either range, told apart by their largest value."""
    if values.dtype.itemsize == 2 or values.max() > 255:
        values = np.clip(values, 0, 65535) // 257
    return np.clip(values, 0, 255).astype(np.uint8)
