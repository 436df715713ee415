from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from tests.utils.data.conftest import MakeVoc, write_voc
from utils.cli.error_messages import explain_failure
from utils.cli.errors import UserError
from utils.data import loader as loaders_module
from utils.data.dataset import VocDataset
from utils.data.dataset_report import scan_samples
from utils.data.input_sizes import InputSizes
from utils.data.loader import Batch, EpochSampler, TrainLoader
from utils.data.samples import load_samples
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.data.voc_xml import VocObject

CAT = VocObject("cat", (5, 5, 35, 25))
FORKSERVER = pytest.param("forkserver", marks=pytest.mark.exhaustive)


@pytest.fixture
def dataset(make_voc: MakeVoc) -> VocDataset:
    """Give seven images, the last without objects."""
    voc = make_voc({"train": {f"{n}": [CAT] if n < 6 else [] for n in range(7)}})
    return VocDataset(scan_samples(load_samples(voc, "train")).records, ("cat",))


def make(dataset: VocDataset, mosaic: float = 0.5, mixup: float = 0.5, **options: Any) -> TrainDataset:
    settings = AugmentSettings(mosaic, mixup)
    return TrainDataset(dataset, (64, 96), settings, options.pop("seed", 0), **options)


def test_no_image_to_train_on() -> None:
    with pytest.raises(UserError, match="no image to train on"):
        TrainLoader(make(VocDataset([], ("cat",))), batch_size=4, workers=0)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_picture(dataset: VocDataset, mosaic: float, mixup: float) -> None:
    for index in range(len(dataset)):
        image, target = make(dataset, mosaic, mixup)[0, index]
        assert image.shape == (3, 64, 96)
        assert image.dtype == torch.uint8
        assert target.image_id == str(index)
        assert (target.boxes >= 0).all()
        assert (target.boxes <= torch.tensor([96, 64, 96, 64])).all()


def test_pictures_depend_on_seed_epoch_and_index_alone(dataset: VocDataset) -> None:
    keys = [(epoch, index) for epoch in range(2) for index in range(7)]
    there, back = make(dataset), make(dataset)
    first = [there[key] for key in keys]
    second = [back[key] for key in reversed(keys)][::-1]
    for (image, target), (again, target_again) in zip(first, second, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(target.boxes, target_again.boxes)
    assert not torch.equal(there[0, 0][0], there[1, 0][0])
    assert not torch.equal(there[0, 0][0], make(dataset, seed=1)[0, 0][0])


def test_close_epoch_ends_mosaic_and_mixup(dataset: VocDataset) -> None:
    mixed, plain = make(dataset, 1.0, 1.0, close_epoch=1), make(dataset, 0.0, 0.0, close_epoch=0)
    assert not torch.equal(mixed[0, 0][0], plain[0, 0][0])
    for index in range(7):
        assert torch.equal(mixed[1, index][0], plain[1, index][0])


@pytest.mark.parametrize(
    ("length", "batch_size", "sizes"),
    [
        (0, 4, []),
        (1, 1, [1]),
        (1, 4, [1]),
        (3, 4, [3]),
        (3, 1, [1, 1, 1]),
        (8, 4, [4, 4]),
        (9, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
    ],
)
def test_batches(length: int, batch_size: int, sizes: list[int]) -> None:
    sampler = EpochSampler(length, batch_size, seed=0)
    assert [len(batch) for batch in sampler] == sizes
    assert len(sampler) == len(sizes)


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(10, 5, seed)
        sampler.set_epoch(epoch)
        keys = [key for batch in sampler for key in batch]
        assert {key[0] for key in keys} == {epoch}
        return [key[1] for key in keys]

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


@pytest.mark.parametrize(
    ("length", "batch_size", "world_size", "sizes"),
    [
        (2, 2, 2, [[1], [1]]),
        (3, 4, 2, [[2], [1]]),  # the only batch is kept
        (8, 4, 2, [[2, 2], [2, 2]]),
        (11, 4, 2, [[2, 2], [2, 2]]),  # three images would leave one for the second
        (12, 8, 2, [[4, 2], [4, 2]]),
        (13, 8, 2, [[4, 3], [4, 2]]),
        (17, 6, 3, [[2, 2], [2, 2], [2, 2]]),
        (12, 6, 3, [[2, 2], [2, 2], [2, 2]]),
    ],
)
def test_processes_share_each_batch(
    length: int, batch_size: int, world_size: int, sizes: list[list[int]]
) -> None:
    shares = []
    for rank in range(world_size):
        sampler = EpochSampler(length, batch_size, 5, rank=rank, world_size=world_size)
        sampler.set_epoch(3)
        shares.append(list(sampler))
    assert [[len(batch) for batch in share] for share in shares] == sizes
    alone = EpochSampler(length, batch_size, 5)
    alone.set_epoch(3)
    for place, parts in enumerate(zip(*shares, strict=True)):
        keys = [key for part in parts for key in part]
        assert len(set(keys)) == len(keys)
        assert sorted(keys) == sorted(list(alone)[place])


@pytest.mark.parametrize("done", [0, 1, 3, 4, 9])
def test_a_sampler_goes_on_behind_what_is_done(done: int) -> None:
    whole, rest = EpochSampler(10, 3, 0), EpochSampler(10, 3, 0)
    whole.set_epoch(2)
    rest.set_epoch(2, done)
    assert list(rest) == list(whole)[done:]
    assert len(rest) == len(whole)  # of the whole epoch
    rest.set_epoch(2)
    assert list(rest) == list(whole)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "words"),
    [(3, 2, "cannot be shared by 2 processes; use a multiple of 2"), (16, 8, "by 8 processes")],
)
def test_what_cannot_be_shared_is_refused(
    dataset: VocDataset, batch_size: int, world_size: int, words: str
) -> None:
    with pytest.raises(UserError, match=f"--batch-size {batch_size}, 7 images: .*{words}"):
        TrainLoader(make(dataset), batch_size=batch_size, workers=0, world_size=world_size)


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    for (images, targets), (other_images, other_targets) in zip(ours, theirs, strict=True):
        assert torch.equal(images, other_images)
        assert [target.image_id for target in targets] == [target.image_id for target in other_targets]
        for target, other in zip(targets, other_targets, strict=True):
            assert torch.equal(target.boxes, other.boxes)


@pytest.fixture(scope="module")
def loaders() -> Iterator[list[TrainLoader]]:
    """Give a loader without workers and one with two, of the same seven images."""
    with TemporaryDirectory() as folder:
        voc = write_voc(Path(folder), {"train": {f"{n}": [CAT] if n < 6 else [] for n in range(7)}})
        pictures = make(VocDataset(scan_samples(load_samples(voc, "train")).records, ("cat",)))
        yield [TrainLoader(pictures, batch_size=2, workers=workers) for workers in (0, 2)]


def test_workers_change_nothing(loaders: list[TrainLoader]) -> None:
    alone, helped = ([list(loader.epoch(epoch)) for epoch in range(2)] for loader in loaders)
    for epoch in range(2):  # the workers of the first epoch serve the second too
        assert len(alone[epoch]) == len(loaders[0]) == 3
        assert_same(alone[epoch], helped[epoch])
    assert not torch.equal(alone[0][0][0], alone[1][0][0])


def test_an_epoch_goes_on_with_exactly_the_later_batches(loaders: list[TrainLoader]) -> None:
    alone, helped = loaders
    whole = list(alone.epoch(1))
    for loader in loaders:
        for done in range(4):
            assert_same(list(loader.epoch(1, done)), whole[done:])
        assert_same(list(loader.epoch(1)), whole)
    left = helped.epoch(0)
    next(left)  # an epoch that is left in the middle does not come up in the next one
    assert_same(list(helped.epoch(1, 1)), whole[1:])


def test_the_preview_is_the_first_batch(loaders: list[TrainLoader], dataset: VocDataset) -> None:
    for loader in loaders:
        first = next(iter(loader.epoch(0)))
        list(loader.epoch(1))
        assert_same([loader.preview()], [first])
    loader = TrainLoader(make(dataset), batch_size=7, workers=0)
    assert len(loader.preview()[0]) == 7


def test_the_preview_of_a_large_batch_is_its_first_pictures(
    dataset: VocDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders_module, "_PREVIEW", 2)
    loader = TrainLoader(make(dataset), batch_size=4, workers=0)
    images, targets = next(iter(loader.epoch(0)))
    assert_same([loader.preview()], [(images[:2], targets[:2])])
    for record in dataset.records:
        record.image_path.unlink()
    with pytest.raises(UserError, match=str(dataset.records[0].image_path.parent)):
        loader.preview()


def test_the_random_numbers_of_torch_are_left_alone(loaders: list[TrainLoader]) -> None:
    before = torch.get_rng_state()
    for loader in loaders:
        list(loader.epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_shares_of_a_batch_are_the_pictures_of_the_whole(dataset: VocDataset) -> None:
    (images, targets), *_ = TrainLoader(make(dataset), batch_size=4, workers=0).epoch(0)
    parts = [
        next(TrainLoader(make(dataset), batch_size=4, workers=0, rank=rank, world_size=2).epoch(0))
        for rank in range(2)
    ]
    assert_same([(images[0::2], targets[0::2]), (images[1::2], targets[1::2])], parts)


def test_a_batch_has_one_size_in_all_workers_and_processes(dataset: VocDataset) -> None:
    sizes = InputSizes((64, 160), multi_scale=True, grow=True, epochs=4)
    samples = make(dataset, sizes=sizes)
    samples.repeats = np.array([1.0, 3, 1, 1, 1, 1, 1])  # 4 batches of 2, the last image is dropped
    alone = [list(TrainLoader(samples, batch_size=2, workers=0).epoch(epoch)) for epoch in (0, 3)]
    expected = [sizes.of_batch(epoch, batch) for epoch in (0, 3) for batch in range(4)]
    assert len(set(expected)) > 3
    assert [tuple(images.shape[2:]) for batches in alone for images, _ in batches] == expected
    for (height, width), (_, targets) in zip(expected, alone[0] + alone[1], strict=True):
        assert all((target.boxes <= torch.tensor([width, height, width, height])).all() for target in targets)
    helped = TrainLoader(samples, batch_size=2, workers=2)
    assert_same(list(helped.epoch(3, 1)), alone[1][1:])
    for rank in range(2):
        share = list(TrainLoader(samples, batch_size=2, workers=0, rank=rank, world_size=2).epoch(3))
        assert_same(share, [(images[rank::2], targets[rank::2]) for images, targets in alone[1]])


def test_an_image_lost_while_training_is_one_line(dataset: VocDataset) -> None:
    path = dataset.records[3].image_path
    path.unlink()
    said = []
    for workers in (0, 2):
        loader = TrainLoader(make(dataset, mosaic=0.0, mixup=0.0), batch_size=2, workers=workers)
        with pytest.raises(UserError) as caught:
            list(loader.epoch(0))
        assert caught.value.exit_code == 1
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert str(path) in said[0]
    assert "\n" not in said[0]


@pytest.mark.slow
def test_full_shared_memory_is_said(dataset: VocDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(RuntimeError) as caught:
        list(TrainLoader(make(dataset), batch_size=2, workers=1).epoch(0))
    assert "shared memory (/dev/shm)" in str(explain_failure(caught.value))
    list(TrainLoader(make(dataset), batch_size=2, workers=0).epoch(0))  # needs none


# Run in processes of their own: the start method is that of a whole process.
START_METHOD = """
import multiprocessing, sys
from pathlib import Path
from tests.utils.data.test_loader import assert_same, make
from utils.data.dataset import VocDataset
from utils.data.dataset_report import scan_samples
from utils.data.loader import TrainLoader
from utils.data.samples import load_samples

method, folder = sys.argv[1:]
multiprocessing.set_start_method(method)
records = scan_samples(load_samples(Path(folder), "train")).records
alone = TrainLoader(make(VocDataset(records, ("cat",))), batch_size=2, workers=0)
expected = [list(alone.epoch(epoch)) for epoch in range(2)]
helped = TrainLoader(make(VocDataset(records, ("cat",))), batch_size=2, workers=1)
helped.dataset.fill_cache()
for record in records:
    record.image_path.unlink()
for epoch in range(2):
    assert_same(list(helped.epoch(epoch)), expected[epoch])
print("same")
"""


# Signals to all processes come while the workers import torch.
SIGNALLED = (
    START_METHOD.split("alone =")[0]
    + """
import os, signal, threading
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
loader = TrainLoader(make(VocDataset(records, ("cat",))), batch_size=2, workers=1)
for number in (signal.SIGINT, signal.SIGTERM):
    threading.Timer(0.5, os.killpg, (0, number)).start()
print(len(list(loader.epoch(0))))
"""
)


# The loader is alive at the exit.
EXIT = (
    START_METHOD.split("alone =")[0]
    + """
kept = TrainLoader(make(VocDataset(records, ("cat",))), batch_size=2, workers=2)
batches = multiprocessing.batches = kept.epoch(0)
next(batches)
"""
)


def run_program(program: str, method: str, make_voc: MakeVoc) -> str:
    """Run a program on seven images; returns its output."""
    voc = make_voc({"train": {f"{n}": [CAT] if n < 6 else [] for n in range(7)}})
    command = [sys.executable, "-c", program, method, str(voc)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    options = {"capture_output": True, "text": True, "check": False, "start_new_session": True}
    done = subprocess.run(command, env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", FORKSERVER])
def test_workers_of_every_start_method_change_nothing(make_voc: MakeVoc, method: str) -> None:
    assert run_program(START_METHOD, method, make_voc) == "same\n"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", FORKSERVER])
def test_workers_that_start_outlive_a_signal_to_all_processes(make_voc: MakeVoc, method: str) -> None:
    assert run_program(SIGNALLED, method, make_voc) == "3\n"


@pytest.mark.slow
def test_workers_end_at_exit(make_voc: MakeVoc) -> None:
    assert run_program(EXIT, "fork", make_voc) == ""  # a killed worker would be reported


def test_workers_end_with_a_loader_that_only_the_collector_finds(dataset: VocDataset) -> None:
    loader = TrainLoader(make(dataset), batch_size=2, workers=2)
    batches = loader.epoch(0)
    next(batches)
    cycle: list[object] = [loader, batches]
    cycle.append(cycle)
    start = time.monotonic()
    del loader, batches, cycle
    gc.collect()
    assert time.monotonic() - start < 5  # 20 if the queues are collected first


def test_of_a_batch_the_images_are_pinned(dataset: VocDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    images, targets = next(TrainLoader(make(dataset), batch_size=2, workers=0).epoch(0))
    ours, theirs = pin_memory((images, targets))
    assert pinned == [images]
    assert ours is images
    assert theirs == targets
    error = UserError("lost")
    assert pin_memory(error) is error
