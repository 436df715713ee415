"""What a predictor takes as an image, and how images become the network's input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.vision.image_reader import from_pil, read_image

ImageInput = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor
_KINDS = "a path, the bytes of a file, a PIL image, or RGB as a uint8 array (H, W, 3) or tensor (3, H, W)"


def is_one_image(images: object) -> bool:
    """Tell whether an argument is one image, or nothing that has several."""
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim != 4
    is_file = isinstance(images, (str, os.PathLike, bytes, bytearray, Image.Image)) or hasattr(images, "read")
    return is_file or not isinstance(images, Iterable)


def as_array(image: object, name: str) -> np.ndarray:
    """Return a uint8 array (H, W, 3) in RGB; `name` is what a ValueError calls the argument."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image))
    if isinstance(image, (bytes, bytearray)):
        return read_image(f"{name} (bytes)", data=bytes(image))
    if isinstance(image, Image.Image):
        return from_pil(image)
    if hasattr(image, "read") and isinstance(data := image.read(), bytes):
        return read_image(f"{name} (a file, read from where it stood)", data=data)
    array = image
    if isinstance(image, Tensor) and image.ndim == 3:
        array = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    if not isinstance(array, np.ndarray):
        reason = "; cv2.imread returns None for a file that it cannot read" if image is None else ""
        raise ValueError(f"{name} must be {_KINDS}, got {type(image).__name__}{reason}")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        kind = "tensor (3, H, W)" if isinstance(image, Tensor) else "array (H, W, 3)"
        got = f"{array.dtype} {tuple(getattr(image, 'shape', ()))}"
        raise ValueError(f"{name} must be a uint8 {kind} in RGB, got {got}")
    return array


def to_tensor(image: np.ndarray) -> Tensor:
    """Return an image uint8 (H, W, 3) as a Tensor[3, H, W] uint8, which shares its memory."""
    return torch.from_numpy(image).permute(2, 0, 1)


def to_batch(
    pixels: Sequence[Tensor],
    device: torch.device | str = "cpu",
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Stack images, Tensor[3, H, W] uint8 each, to a float32 Tensor[B, 3, H, W] in [0, 1] on a device.

    They are uploaded as uint8, a quarter of the memory. `layout` is that of the result.
    """
    images = torch.stack([image.permute(1, 2, 0) for image in pixels])  # (B, H, W, 3), as in memory
    if is_cuda := torch.device(device).type == "cuda":
        images = images.pin_memory()  # otherwise the host would wait for the upload
    images = images.to(device, non_blocking=is_cuda).permute(0, 3, 1, 2)
    # CUDA multiplies by the reciprocal of a plain number, which rounds otherwise than a division.
    return images.to(torch.float32, memory_format=layout).div_(torch.full((), 255.0, device=device))
