from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.cli.errors import UserError
from utils.vision.image_reader import _decode_jpeg, from_pil, hash_image, read_header, read_image

# Four colors, so that every turn of the picture is told from every other: red green / blue white.
REDUCTIONS = (1, 2, 4, 8)
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


@pytest.mark.parametrize("orientation", [1, 6])
def test_hash_of_slopes(tmp_path: Path, orientation: int) -> None:
    """Every displayed cell of a rising slope is brighter than its left neighbor, none of a falling one."""
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: the stored bottom is displayed at the left
    slope = np.tile(np.arange(0, 180, dtype=np.uint8), (80, 1))
    for rises in (True, False):
        shown = slope if rises else slope[:, ::-1]
        stored = shown if orientation == 1 else np.rot90(shown)
        Image.fromarray(stored.copy()).save(tmp_path / "a.png", exif=exif)
        assert hash_image(tmp_path / "a.png")[1] == (2**64 - 1 if rises else 0)


def photo(width: int, height: int) -> np.ndarray:
    """Make a smooth colorful picture with a little noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)


def as_jpeg(path: Path, header: Path, reduction: int = 1, orientation: int = 1) -> np.ndarray | None:
    with Image.open(header) as image:
        return _decode_jpeg(path, image, reduction, orientation)


def test_what_is_left_to_pil(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for name, mode in (("PNG", "RGB"), ("JPEG", "CMYK")):
        Image.fromarray(photo(40, 30)).convert(mode).save(path, name)
        assert as_jpeg(path, path) is None
    Image.fromarray(photo(41, 30)).save(path, "JPEG")
    assert as_jpeg(path, path, 2, orientation=6) is None
    assert as_jpeg(path, path, 2) is not None
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-40])
    assert as_jpeg(tmp_path / "cut", path) is None
    (tmp_path / "nonsense").write_bytes(b"nothing\xff\xd9")
    assert as_jpeg(tmp_path / "nonsense", path) is None


@pytest.mark.parametrize("size", [(1, 1), (60, 40), (61, 47)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}]
)
def test_the_pixels_are_those_of_pil(
    tmp_path: Path, size: tuple[int, int], mode: str, options: dict[str, int]
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(*size)).convert(mode).save(path, **options)
    for reduction in REDUCTIONS:
        with Image.open(path) as image:
            image.draft(mode, (max(1, size[0] // reduction), max(1, size[1] // reduction)))
            expected = np.asarray(image.convert("RGB"))
        pixels = as_jpeg(path, path, reduction)
        assert pixels is not None
        assert pixels.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
        if pixels.shape == expected.shape:  # draft does not go below a size that it is asked for
            np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("size", [(96, 64), (97, 71)])
@pytest.mark.parametrize("suffix", ["jpg", "png", "cmyk.jpg", "gray.png"])
def test_a_reduced_picture_is_the_mean_of_its_blocks(
    tmp_path: Path, reduction: int, size: tuple[int, int], suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    mode = {"cmyk.jpg": "CMYK", "gray.png": "L"}.get(suffix, "RGB")
    Image.fromarray(photo(*size)).convert(mode).save(path)
    whole = read_image(path).astype(float)
    rows, columns = (np.arange(0, side, reduction) for side in whole.shape[:2])
    expected = np.array(
        [[whole[y : y + reduction, x : x + reduction].mean((0, 1)) for x in columns] for y in rows]
    )
    seen = read_image(path, reduction)
    assert seen.flags.c_contiguous
    assert seen.shape == expected.shape
    assert np.abs(seen - expected)[:-1, :-1].mean() < 2.5
    assert np.abs(seen - expected).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(96, 64), (97, 71)])
def test_a_reduced_picture_is_turned(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    stored[8:32, 24:40] = 255
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    whole = edges(read_image(tmp_path / "a.jpg"))
    for reduction in REDUCTIONS:
        small = edges(read_image(tmp_path / "a.jpg", reduction)) * reduction
        np.testing.assert_allclose(small, whole, atol=reduction)  # a pixel of the reduced picture
        if orientation == 1:
            np.testing.assert_array_equal(small, whole)


def edges(image: np.ndarray) -> np.ndarray:
    """Find (x1, y1, x2, y2) of what is white."""
    rows, columns = np.nonzero(image[..., 1] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_cut_file_is_refused_at_every_size(tmp_path: Path, reduction: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(300, 200)).save(buffer, "JPEG")
    for share in (0.3, 0.9, 0.999):
        (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
        with pytest.raises(UserError, match=r"cut\.jpg: cannot read the image: .*truncated"):
            read_image(tmp_path / "cut.jpg", reduction)
