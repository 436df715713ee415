"""Image reader: every image file enters the program here, as uint8 (H, W, 3) RGB.

Pixels are those that a viewer displays: EXIF orientation applied, 16-bit gray scaled to 8, CMYK and palettes
converted, transparency composited over white, the first frame of an animation. A broken file, or one of more
than 89 million pixels, is a UserError that names it. Ordinary JPEG files are decoded by OpenCV, which gives
PIL's pixels in less time.
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
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from utils.cli.errors import UserError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 89_000_000

# Decoders that only read pixels (JPEG includes MPO). PIL also has one that runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_JPEG_END = b"\xff\xd9"
_END_MARKERS = {"JPEG": _JPEG_END, "MPO": _JPEG_END, "PNG": b"IEND"}
_TAIL = 64  # bytes at the end of a complete file that contain its end marker
_JPEG_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)

# PIL warns above its limit and raises above twice that; MAX_PIXELS is below both.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # counts as no EXIF


@dataclass(frozen=True)
class ImageHeader:
    """Header of an image file."""

    height: int  # rows in pixels, as displayed
    width: int  # columns in pixels, as displayed
    orientation: int = 1  # EXIF orientation 1 to 8 of the stored pixels; 5 to 8 swap the sides

    def is_stored_size(self, size: tuple[int, int] | None) -> bool:
        """Tell whether a (width, height) is that of the stored pixels, which EXIF swaps for display."""
        return self.orientation >= 5 and self.width != self.height and size == (self.height, self.width)


def read_image(path: Path | str, reduction: int = 1, *, data: bytes | None = None) -> Pixels:
    """Read an image file as it is displayed.

    Args:
        path: the image file; with `data` only its name in errors.
        reduction: 1, 2, 4 or 8: factor by which both sides are reduced, without aliasing. A JPEG is decoded
            at that size, which is faster. Pixel i covers the pixels from reduction x i on.
        data: the content of the file, if it is not on disk.

    Returns:
        uint8 (ceil(H / reduction), ceil(W / reduction), 3) RGB, contiguous.

    Raises:
        UserError: not a regular file, not an image, truncated, or more than 89 million pixels.
    """
    with _opened(path, data) as image:
        orientation = _orientation(image)
        pixels = _decode_jpeg(path, image, reduction, orientation, data)
        if pixels is None:
            image.load()
            pixels = _to_rgb(image, orientation)
            return pixels if reduction == 1 else np.array(Image.fromarray(pixels).reduce(reduction))
        return pixels if orientation == 1 else _to_rgb(Image.fromarray(pixels), orientation)


def from_pil(image: Image.Image) -> Pixels:
    """Convert a PIL image as `read_image` converts a file: EXIF applied, transparency over white.

    Raises:
        ValueError: floating-point pixels, whose range is unknown.
    """
    return _to_rgb(image, _orientation(image))


def count_frames(path: Path | str, *, data: bytes | None = None) -> int:
    """Return the number of images in an animation or a TIFF of several pages, else 1; raises as `read_image`.

    The thumbnails and depth maps that cameras add to a JPEG do not count.
    """
    with _opened(path, data) as image:
        return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)


def read_header(path: Path | str) -> ImageHeader:
    """Read the displayed size and the orientation from a file's header.

    The pixels are decoded only if the file does not end with its end marker.

    Raises:
        UserError: as `read_image`, except for damage in the middle of the file.
    """
    with _opened(path) as image:
        return _read_header(path, image)


def verify_image(path: Path | str) -> None:
    """Read every pixel, and the checksums of a PNG, which decoding ignores; raises as `read_image`."""
    with _opened(path) as image:
        image.verify()
    read_image(path)


def hash_image(path: Path | str) -> tuple[ImageHeader, int]:
    """Read the header, and compute the 64-bit difference hash of the pixels.

    A bit tells of each of 8 x 8 gray cells of the displayed image whether it is brighter than its left
    neighbor. Raises as `read_image`.
    """
    with _opened(path) as image:
        header = _read_header(path, image)
        orientation = header.orientation
        image.draft("L", (72, 64))  # a JPEG is decoded at an eighth if that is enough
        image.load()
        gray = image if image.mode == "L" else Image.fromarray(_to_rgb(image, 1)).convert("L")
        if orientation in _ROTATIONS:
            gray = gray.transpose(_ROTATIONS[orientation])
        cells = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    return header, int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def _read_header(path: Path | str, image: Image.Image) -> ImageHeader:
    if not _is_complete(path, image.format):
        image.load()
    width, height = image.size
    orientation = _orientation(image)
    if orientation >= 5:
        height, width = width, height
    return ImageHeader(height, width, orientation)


@contextmanager
def _opened(path: Path | str, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image file, or its content; every error inside the block becomes a UserError."""
    too_many = f"more than {MAX_PIXELS // 10**6} million pixels; make it smaller"
    try:
        if data is None and not stat.S_ISREG(os.stat(path).st_mode):  # a named pipe would block
            raise UserError(f"{path}: not a regular file")
        with Image.open(path if data is None else BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{path}: {width}x{height} is {too_many}")
            if width < 1 or height < 1:
                raise UserError(f"{path}: an image of {width}x{height} pixels")
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image that can be read{_describe_content(path, data)}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: {too_many}") from None
    except _DECODE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{path}: cannot read the image: {reason}") from None


def _decode_jpeg(
    path: Path | str, image: Image.Image, reduction: int, orientation: int, data: bytes | None = None
) -> Pixels | None:
    """Decode a gray or three-channel JPEG as stored, without EXIF; it is reduced before its inverse DCT.

    Returns:
        Pixels as `read_image`. None for what PIL has to decode: other formats and modes, a file that OpenCV
        cannot read, a truncated one (OpenCV returns its first part without an error), and a rotated image
        whose last row or column covers fewer pixels than the others.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    if orientation != 1 and any(side % reduction for side in image.size):
        return None
    data = Path(path).read_bytes() if data is None else data
    if _JPEG_END not in data[-_TAIL:]:
        return None
    flags = _JPEG_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _is_complete(path: Path | str, format_name: str | None) -> bool:
    """Tell whether a file has its end marker, which compressed data cannot contain."""
    marker = _END_MARKERS.get(format_name or "")
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return marker in file.read()


def _describe_content(path: Path | str, data: bytes | None) -> str:
    with suppress(OSError), open(path, "rb") if data is None else BytesIO(data) as file:
        start = file.read(64).lstrip().lower()
        if not start:
            return ": the file is empty"
        if start.startswith(b"version https://git-lfs"):
            return ": a git-LFS pointer; run `git lfs pull`"
        if start.startswith((b"<!doctype html", b"<html")):
            return ": an HTML page"
    return ""


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1 to 8; a broken EXIF block counts as none."""
    if image.format == "TIFF":  # PIL rotates these while loading
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODE_ERRORS:
        return 1
    return orientation if orientation in _ROTATIONS else 1


def _to_rgb(image: Image.Image, orientation: int) -> Pixels:
    if image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    elif image.mode == "F":
        raise ValueError("floating-point pixels are not supported; save it with 8 or 16 bits")
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if orientation in _ROTATIONS:
        image = image.transpose(_ROTATIONS[orientation])
    return np.array(image)


def _to_8_bits(values: NDArray[np.integer]) -> Pixels:
    """Scale 16-bit gray to 8 bits; 32-bit files have either range, which the largest value tells."""
    if values.dtype.itemsize == 2 or values.max() > 255:
        values = np.clip(values, 0, 65535) // 257
    return np.clip(values, 0, 255).astype(np.uint8)
