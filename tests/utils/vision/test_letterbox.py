from __future__ import annotations

import numpy as np
import pytest

from utils.vision.letterbox import letterbox


@pytest.mark.parametrize(
    ("size", "offset", "filled"),
    [
        ((30, 40), (0, 8), (48, 64)),
        ((40, 30), (8, 0), (64, 48)),
        ((300, 400), (0, 8), (48, 64)),
        ((1, 1), (0, 0), (64, 64)),
        ((2, 3000), (0, 31), (1, 64)),
    ],
)
def test_letterbox_keeps_the_aspect_and_centers(
    size: tuple[int, int], offset: tuple[int, int], filled: tuple[int, int]
) -> None:
    canvas, placement = letterbox(np.zeros((*size, 3), dtype=np.uint8), (64, 64))
    expected = np.full((64, 64, 3), 128, dtype=np.uint8)
    expected[offset[1] : offset[1] + filled[0], offset[0] : offset[0] + filled[1]] = 0
    np.testing.assert_array_equal(canvas, expected)
    assert placement.offset == offset
    assert placement.scale == (filled[1] / size[1], filled[0] / size[0])


def test_placement_goes_there_and_back_and_clips() -> None:
    _, placement = letterbox(np.zeros((30, 41, 3), dtype=np.uint8), (64, 96))
    assert placement.undo(placement.apply(np.zeros((0, 4), np.float32))).shape == (0, 4)
    whole = np.array([[0, 0, 41, 30], [3, 4, 5.5, 6.5]], dtype=np.float32)
    assert placement.apply(whole).dtype == np.float32
    np.testing.assert_allclose(placement.apply(whole)[0], [4, 0, 4 + 87, 64])  # 87.47 -> 87
    np.testing.assert_allclose(placement.undo(placement.apply(whole)), whole, rtol=1e-5)
    assert placement.undo(np.array([[-5.0, -5.0, 500.0, 500.0]], dtype=np.float32)).tolist() == [
        [0, 0, 41, 30]
    ]
