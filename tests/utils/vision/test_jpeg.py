from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.cli.errors import UserError
from utils.vision.image_reader import _decode_jpeg, read_image

REDUCTIONS = (1, 2, 4, 8)


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
