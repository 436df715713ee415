from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.cli.errors import UserError
from utils.vision.image_reader import (
    from_pil,
    read_header,
    read_image,
    read_thumbnail,
)

# Four colors, so that every turn of the picture is told from every other: red green / blue white.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
STORED = CORNERS.repeat(20, axis=0).repeat(30, axis=1)  # 40 rows, 60 columns


def corners(image: np.ndarray) -> list[list[int]]:
    """Return the colors near the four corners, each channel 0 or 1, row by row."""
    rows, columns = (5, -5), (5, -5)
    return [(image[y, x] > 127).astype(int).tolist() for y in rows for x in columns]


def png_of(width: int, height: int) -> bytes:
    """Build a PNG whose header claims the size, with no pixels to speak of."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def encoded(format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(STORED).save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (encoded("JPEG")[:-60], "truncated"),
        (encoded("PNG")[:-60], "truncated"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (png_of(20000, 20000), "89 million"),
        (png_of(10000, 9000), "89 million"),
        (png_of(2**31 - 1, 2**31 - 1), "a.jpg"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(UserError, match=reason):  # the scan sees it too, without decoding whole files
        read_header(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for name in ("fifo", "folder", "loop", "dangling", "missing"):
        with pytest.raises(UserError, match=f"{name}.jpg"):
            read_image(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_every_mode_gives_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"  # read by content, not by name
    Image.fromarray(STORED).convert("RGB").convert(mode).save(path, "TIFF" if mode == "CMYK" else "PNG")
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    if mode in ("RGB", "RGBA", "CMYK"):
        assert corners(image) == corners(STORED)


def test_16_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 10, 257 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 10, 128, 255]


def test_transparency_lies_over_white() -> None:
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], dtype=np.uint8)
    assert from_pil(Image.fromarray(pixels)).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_a_viewer_does(tmp_path: Path, orientation: int) -> None:
    red, green, blue, white = corners(STORED)
    displayed = {
        1: [red, green, blue, white],
        2: [green, red, white, blue],
        3: [white, blue, green, red],
        4: [blue, white, red, green],
        5: [red, blue, green, white],
        6: [blue, red, white, green],
        7: [white, green, blue, red],
        8: [green, white, red, blue],
    }
    for name, format_name in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.tif", "TIFF")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(STORED).save(tmp_path / name, format_name, exif=exif)
        image = read_image(tmp_path / name)
        assert corners(image) == displayed[orientation]
        header = read_header(tmp_path / name)
        assert (header.height, header.width) == image.shape[:2]
    assert read_header(tmp_path / "a.jpg").orientation == orientation


def test_broken_exif_and_trailing_bytes_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff") + bytes(1000))
    assert corners(read_image(tmp_path / "a.jpg")) == corners(STORED)


def test_thumbnail_is_the_turned_gray_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(STORED.repeat(10, 0).repeat(10, 1)).save(tmp_path / "a.jpg", exif=exif)
    small = read_thumbnail(tmp_path / "a.jpg", (2, 2))
    # 0.299 R + 0.587 G + 0.114 B of blue, red / white, green
    np.testing.assert_allclose(small, [[29, 76], [255, 150]], atol=3)
