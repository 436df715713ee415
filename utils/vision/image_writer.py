"""Writing of images as PNG or JPEG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from utils.cli.files import atomic_write
from utils.vision.image_reader import Pixels


def write_image(image: Pixels, target: Path, quality: int = 92) -> None:
    """Write an image, uint8 (H, W, 3) in RGB, as PNG or, under any other suffix, as JPEG of a quality.

    Raises:
        UserError: the file cannot be written.
    """
    options = {"format": "PNG"} if target.suffix == ".png" else {"format": "JPEG", "quality": quality}
    data = BytesIO()  # Pillow does not notice that a disk is full
    Image.fromarray(image).save(data, **options)
    with atomic_write(target) as file:
        file.write(data.getbuffer())
