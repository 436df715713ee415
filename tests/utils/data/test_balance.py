from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from utils.data.balance import describe_balance, draw_repeats, images_per_epoch, repeat_factors
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.data.input_sizes import InputSizes
from utils.data.loader import EpochSampler


def dataset_of(*images: str) -> VocDataset:
    """Give images by the first letters of their classes; a capital one is a difficult object."""
    records = [
        Record(
            str(number),
            Path(f"{number}.jpg"),
            40,
            30,
            tuple(letter.lower() for letter in letters),
            np.tile(np.float32([1, 2, 20, 30]), (len(letters), 1)),
            np.array([letter.isupper() for letter in letters], dtype=np.bool_),
        )
        for number, letters in enumerate(images)
    ]
    return VocDataset(records, sorted({name for record in records for name in record.names}))


def test_nothing_is_drawn_from_nothing() -> None:
    factors = repeat_factors(dataset_of())
    assert factors.shape == (0,)
    assert draw_repeats(factors, np.random.default_rng(0)) == []


def test_the_rarest_class_of_an_image_counts() -> None:
    """Of 40 images a is in 36, b in 4 and c in 1: factors 1, 1 and sqrt(0.1 / 0.025) = 2."""
    dataset = dataset_of(*["aaa"] * 35, "ab", "bb", "b", "bcb", "C")
    assert repeat_factors(dataset).tolist() == [1.0] * 38 + [2.0, 1.0]


def test_factors_of_several_rare_classes() -> None:
    """Of 90 images b is in 4 and c in 1: sqrt(9 / 4) = 1.5 and sqrt(9) = 3."""
    dataset = dataset_of(*["a"] * 85, "", "b", "b", "ab", "abc")
    assert repeat_factors(dataset).tolist() == pytest.approx([1.0] * 86 + [1.5] * 3 + [3.0])
    words = describe_balance(dataset, repeat_factors(dataset))
    assert words == "an epoch draws 94 times from 90 images; with a 87 -> 90, b 4 -> 8, c 1 -> 3"


def test_nothing_is_repeated_where_no_class_is_rare() -> None:
    dataset = dataset_of("a", "ab", "")
    factors = repeat_factors(dataset)
    assert factors.tolist() == [1.0, 1.0, 1.0]
    assert (
        describe_balance(dataset, factors)
        == "every class is in at least 10% of the images; no image is repeated"
    )
    plain = np.random.default_rng([5, 2]).permutation(3).tolist()
    assert draw_repeats(factors, np.random.default_rng([5, 2])) == [(index, 0) for index in plain]


def test_fractions_are_rounded_at_random_to_the_same_sum() -> None:
    factors = np.array([1.0, 1.3, 2.6, 1.05, 3.0, 1.5, 1.0])  # 11.45
    total, epochs = np.zeros(7), 4000
    orders = []
    for epoch in range(epochs):
        drawn = draw_repeats(factors, np.random.default_rng(epoch))
        assert len(drawn) == images_per_epoch(factors) == 11
        counts = Counter(index for index, _ in drawn)
        assert set(drawn) == {(index, copy) for index, count in counts.items() for copy in range(count)}
        times = np.array([counts[index] for index in range(7)])
        assert (times >= np.floor(factors)).all()
        total += times
        orders.append([index for index, _ in drawn])
    fractions = factors % 1  # 1.45 in all, of which each epoch takes 1
    assert total / epochs == pytest.approx(factors - fractions + fractions / 1.45, abs=0.03)
    assert orders[0] != orders[1]


def test_two_processes_share_the_repeats_of_one() -> None:
    factors = np.array([1.0, 2.5, 1.25, 5.0, 1.0, 1.25])
    sizes = InputSizes((64, 96), multi_scale=True)
    alone, *shares = (
        EpochSampler(6, 4, 7, sizes=sizes, repeats=factors, rank=rank, world_size=size)
        for rank, size in ((0, 1), (0, 2), (1, 2))
    )
    assert alone.length == 12
    for epoch in range(3):
        for sampler in (alone, *shares):
            sampler.set_epoch(epoch)
        whole = list(alone)
        assert len(whole) == len(alone) == 3
        keys = [key for batch in whole for key in batch]
        assert len(set(keys)) == len(keys) == 12
        assert [{key.size for key in batch} for batch in whole] == [
            {sizes.of_batch(epoch, batch)} for batch in range(3)
        ]
        assert [[batch[rank::2] for batch in whole] for rank in range(2)] == [list(share) for share in shares]
        alone.set_epoch(epoch, 2)
        assert list(alone) == whole[2:]
