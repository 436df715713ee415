from __future__ import annotations

import numpy as np
import pytest

from utils.data.sample_report import clip_box, rotate_box
from utils.data.voc import Box
from utils.vision.image_reader import ImageHeader

TURNS = {  # what each EXIF orientation does to the stored rows and columns
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ((0, 0, 40, 30), (0, 0, 40, 30), ""),
        ((2, 3, 4, 5), (2, 3, 4, 5), ""),
        ((2.5, 3, 4.5, 5), (2.5, 3, 4.5, 5), ""),
        ((-1, -1, 10, 10), (0, 0, 10, 10), ""),  # counted from 0: no word
        ((2, 3, 41, 31), (2, 3, 40, 30), ""),
        ((2, 3, 900, 10), None, "mostly outside"),
        (
            (2, 3, 60, 10),
            (2, 3, 40, 10),
            "partly outside the image of 40x30 (xmin 3, ymin 4, xmax 60, ymax 10)",
        ),
        ((-20, 3, 10, 10), (0, 3, 10, 10), "partly outside"),
        ((-46, 3, 10, 10), None, "mostly outside"),
        ((39.5, 3, 42, 10), None, "mostly outside"),  # less than a pixel of it is left
        ((50, 3, 60, 10), None, "wholly outside"),
        ((-9, -9, 0, 0), None, "wholly outside"),
        ((10, 3, 4, 10), None, "inverted"),
        ((3, 9, 10, 9), None, "inverted (xmin 4, ymin 10, xmax 10, ymax 9)"),
        ((503, 336, 504, 337), None, "no area (xmin 504, ymin 337, xmax 504, ymax 337)"),
    ],
)
def test_clip(box: Box, expected: Box | None, reason: str) -> None:
    clipped, said = clip_box(box, 40, 30)
    assert clipped == expected
    assert said.startswith(reason)
    assert bool(said) == bool(reason)


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_boxes_turn_with_the_pixels(orientation: int) -> None:
    stored = np.zeros((30, 40))
    stored[4:11, 2:9] = 1
    displayed = TURNS[orientation](stored)
    rows, columns = np.nonzero(displayed)
    header = ImageHeader(*displayed.shape, orientation)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert rotate_box((2, 4, 9, 11), header) == expected
