from __future__ import annotations

import pytest
import torch

from nets.structures import Target
from tests.utils.data.conftest import MakeVoc
from utils.data.dataset import VocDataset
from utils.data.layout import load_samples
from utils.data.loaders import EpochSampler, build_train_loader, collate
from utils.data.scan import scan
from utils.data.train_set import AugmentSettings, TrainDataset
from utils.data.voc import VocObject
from utils.errors import UserError

CAT = VocObject("cat", (5, 5, 35, 25))


@pytest.fixture
def dataset(make_voc: MakeVoc) -> VocDataset:
    """Give seven images, the last without objects."""
    voc = make_voc({"train": {f"{n}": [CAT] if n < 6 else [] for n in range(7)}})
    return VocDataset(scan(load_samples(voc, "train")).records, ("cat",))


def make(dataset: VocDataset, mosaic: float = 0.5, mixup: float = 0.5, **options: int) -> TrainDataset:
    settings = AugmentSettings(mosaic, mixup)
    return TrainDataset(dataset, (64, 96), settings, options.pop("seed", 0), **options)


def test_no_image_to_train_on() -> None:
    with pytest.raises(UserError, match="no image to train on"):
        build_train_loader(make(VocDataset([], ("cat",))), batch_size=4, workers=0)


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


def test_collate() -> None:
    images, targets = collate(
        [(torch.zeros(3, 4, 6), Target.empty("a")), (torch.ones(3, 4, 6), Target.empty("b"))]
    )
    assert images.shape == (2, 3, 4, 6)
    assert [target.image_id for target in targets] == ["a", "b"]


def test_workers_change_nothing(dataset: VocDataset) -> None:
    batches = []
    for workers in (0, 2):
        loader, sampler = build_train_loader(make(dataset), batch_size=3, workers=workers)
        for epoch in range(2):  # the workers of the first epoch serve the second too
            sampler.set_epoch(epoch)
            batches.append(list(loader))
    for alone, helped in ((batches[0], batches[2]), (batches[1], batches[3])):
        assert len(alone) == 2
        for (images, targets), (other_images, other_targets) in zip(alone, helped, strict=True):
            assert torch.equal(images, other_images)
            assert [t.image_id for t in targets] == [t.image_id for t in other_targets]
            assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(targets, other_targets, strict=True))
    assert not torch.equal(batches[0][0][0], batches[1][0][0])
