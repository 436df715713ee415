from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.conftest import save_picture
from utils.data.stratify import group_near_duplicates
from utils.vision.image_reader import hash_image


@pytest.mark.parametrize(
    ("hashes", "groups"),
    [
        ([], []),
        ([0], [[0]]),
        ([0, 0b1111, 0b11111 << 40], [[0, 1], [2]]),
        ([0, 0b11111, 0b111], [[0, 1, 2]]),  # the third joins the first two
        ([2**64 - 1, 0, 2**64 - 1], [[0, 2], [1]]),
    ],
)
def test_groups(hashes: list[int], groups: list[list[int]]) -> None:
    assert group_near_duplicates(hashes) == groups


def test_many_equal_hashes_are_one_group_quickly() -> None:
    assert group_near_duplicates([0] * 20_000) == [list(range(20_000))]


def test_hash_of_slopes(tmp_path: Path) -> None:
    """Every cell of a rising slope is brighter than its left neighbor, none of a falling one."""
    slope = np.tile(np.arange(0, 180, dtype=np.uint8), (80, 1))
    for name, pixels in (("up", slope), ("down", slope[:, ::-1])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert hash_image(tmp_path / "up.png") == 2**64 - 1
    assert hash_image(tmp_path / "down.png") == 0


def test_a_smaller_copy_is_near_and_another_picture_is_not(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.jpg", 400, 300, seed=1)
    save_picture(tmp_path / "b.jpg", 400, 300, seed=2)
    Image.open(tmp_path / "a.jpg").resize((200, 150)).save(tmp_path / "c.jpg", quality=50)
    hashes = [hash_image(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert group_near_duplicates(hashes) == [[0, 2], [1]]
