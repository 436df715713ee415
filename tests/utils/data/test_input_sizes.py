from __future__ import annotations

import numpy as np
import pytest

from utils.data.input_sizes import InputSizes, Size, scale_size


@pytest.mark.parametrize(
    ("size", "scale", "scaled"),
    [
        ((416, 416), 1.0, (416, 416)),
        ((416, 416), 0.6, (256, 256)),  # 249.6 is nearer to 256 than to 224
        ((416, 416), 1.3, (544, 544)),
        ((352, 480), 0.7, (224, 320)),  # 336 is as near to 352: the even multiple; then 234.7
        ((480, 352), 0.7, (320, 224)),
        ((32, 4096), 0.7, (32, 2880)),
        ((32, 32), 0.1, (32, 32)),
    ],
)
def test_both_sides_are_scaled_alike(size: Size, scale: float, scaled: Size) -> None:
    assert scale_size(size, scale) == scaled


@pytest.mark.parametrize(
    ("epochs", "sides"),
    [
        (1, [416]),
        (2, [256, 416]),
        (3, [256, 320, 416]),  # 0.6, 0.8
        (6, [256, 288, 320, 384, 416, 416]),  # 0.6, 0.7, 0.8, 0.9
        (7, [256, 288, 320, 384, 416, 416, 416]),
    ],
)
def test_sides_grow_to_full_size_for_the_last_third(epochs: int, sides: list[int]) -> None:
    sizes = InputSizes((416, 416), grow=True, epochs=epochs)
    assert [sizes.of_epoch(epoch) for epoch in range(epochs)] == [(side, side) for side in sides]
    assert [sizes.of_batch(epoch, 5) for epoch in range(epochs)] == [(side, side) for side in sides]
    assert (sizes.smallest, sizes.largest) == ((sides[0], sides[0]), (416, 416))
    assert sizes.of_epoch(epochs + 3) == (416, 416)


@pytest.mark.parametrize("grow", [False, True])
def test_a_batch_has_its_own_size_by_seed_epoch_and_number(grow: bool) -> None:
    sizes, other = (InputSizes((320, 416), True, grow, 9, seed) for seed in (3, 4))
    drawn = {}
    for epoch in range(9):
        scale = min(1, 0.6 + 0.4 * epoch / 6) if grow else 1
        for batch in range(50):
            factor = 0.7 + 0.6 * np.random.default_rng([3, epoch, batch, 0, 1]).random()
            wide = 32 * round(416 * scale * factor / 32)
            drawn[epoch, batch] = 32 * round(320 * wide / 416 / 32), wide
    assert drawn == {key: sizes.of_batch(*key) for key in drawn}
    assert drawn != {key: other.of_batch(*key) for key in drawn}
    assert any(drawn[0, batch] != drawn[8, batch] for batch in range(50))
    assert min(drawn.values()) >= sizes.smallest
    assert max(drawn.values()) <= sizes.largest
    assert len(set(drawn.values())) <= (13 if grow else 9)  # few shapes for a compiler


def test_without_a_flag_there_is_one_size() -> None:
    sizes = InputSizes((64, 96), epochs=5)
    assert {sizes.of_batch(epoch, batch) for epoch in range(5) for batch in range(5)} == {(64, 96)}
    assert sizes.smallest == sizes.largest == (64, 96)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (InputSizes((416, 416), grow=True, epochs=1), "always 416x416: --imgsz or --epochs is too small"),
        (InputSizes((416, 416), grow=True, epochs=9), "from 256x256 in epoch 1 to 416x416 in the last third"),
        (InputSizes((352, 480), multi_scale=True), "224x320 to 480x640, another one for each batch; eval"),
        (InputSizes((416, 416), True, True, 9), "160x160 to 544x544, another one for each batch, growing"),
    ],
)  # fmt: skip
def test_the_sizes_in_words(sizes: InputSizes, words: str) -> None:
    assert sizes.describe().startswith(words)
