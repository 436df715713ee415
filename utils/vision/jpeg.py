"""Ordinary JPEG files by OpenCV: the pixels that PIL gives, in less time, and smaller at will."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

END_MARKER = b"\xff\xd9"
TAIL = 64  # bytes at the end of a file among which a whole one has its end marker
_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_jpeg(
    path: Path | str, header: Image.Image, *, reduction: int, turned: bool
) -> NDArray[np.uint8] | None:
    """Decode a gray or three-channel JPEG as it is stored.

    Args:
        path: the image file.
        header: the same file, opened by PIL but not loaded.
        reduction: 1, 2, 4 or 8: by how much both sides shrink, which the decoder does before its inverse
            DCT, without aliasing and for less work. Pixel i covers the stored pixels from reduction x i on.
        turned: the picture will be turned, and with it a last pixel that covers less than the others.

    Returns:
        uint8 (ceil(H / reduction), ceil(W / reduction), 3) RGB; None for what needs the slower way: other
        formats and modes, a turned picture with such a last pixel, a file that OpenCV cannot read, and one
        without its end, of which OpenCV would show the first part without a word.
    """
    if header.format != "JPEG" or header.mode not in ("RGB", "L"):
        return None
    if turned and any(side % reduction for side in header.size):
        return None
    data = Path(path).read_bytes()
    if END_MARKER not in data[-TAIL:]:
        return None
    flags = _FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
