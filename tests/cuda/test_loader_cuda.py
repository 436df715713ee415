from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.structures import Target
from tests.voc_folder import make_voc_folder
from utils.data.dataset import VocDataset
from utils.data.dataset_report import scan_samples
from utils.data.loader import TrainLoader
from utils.data.samples import load_samples
from utils.data.train_dataset import AugmentSettings, TrainDataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_are_those_of_the_cpu(tmp_path: Path, workers: int) -> None:
    make_voc_folder(tmp_path / "data", train_images=6, val_images=1)
    records = scan_samples(load_samples(tmp_path / "data", "train")).records
    samples = TrainDataset(VocDataset(records, ("cat", "dog")), (64, 96), AugmentSettings(), 0)
    pinned, plain = (
        TrainLoader(samples, batch_size=2, workers=count, pin_memory=pin)
        for count, pin in ((workers, True), (0, False))
    )
    for ours, theirs in zip(pinned.epoch(0), plain.epoch(0), strict=True):
        assert ours[0].is_pinned()
        assert ours[0].dtype == torch.uint8
        assert torch.equal(ours[0], theirs[0])
        assert all(isinstance(target, Target) for target in ours[1])
        assert [target.image_id for target in ours[1]] == [target.image_id for target in theirs[1]]
