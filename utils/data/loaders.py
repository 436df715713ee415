"""Loaders: a data set in, batches for training out.

Every random choice is a function of (seed, epoch, sample index): the epoch travels in the key that the
sampler yields, so workers hold no state, may live as long as they like, and their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nets.structures import Target
from utils.data.train_set import Key, TrainDataset
from utils.errors import UserError

Batch = tuple[Tensor, list[Target]]


class EpochSampler(Sampler[list[Key]]):
    """Yield the batches of one epoch as lists of (epoch, index), in an order that (seed, epoch) determines.

    A last batch of a single image is dropped, because batch norm learns nothing good from it; unless it is
    the only one.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


def collate(batch: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Stack the images to Tensor[B, 3, H, W]; the targets stay a list."""
    images, targets = zip(*batch, strict=True)
    return torch.stack(images), list(targets)


def build_train_loader(
    dataset: TrainDataset, *, batch_size: int, workers: int, pin_memory: bool = False
) -> tuple[DataLoader[tuple[Tensor, Target]], EpochSampler]:
    """Build the loader of training batches, and its sampler; call `set_epoch` before each epoch.

    Args:
        dataset: the pictures.
        batch_size: images a batch.
        workers: processes that make pictures; 0 makes them in this one.
        pin_memory: for copies to a CUDA device that do not wait.

    Raises:
        UserError: there is no image to train on.
    """
    if len(dataset) == 0:
        raise UserError("no image to train on; check --data and --train")
    sampler = EpochSampler(len(dataset), batch_size, dataset.seed)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(dataset.seed),  # leaves torch's own random stream alone
    )
    return loader, sampler


def _start_worker(_: int) -> None:
    """Keep each worker on one core: they share the machine with each other and with the network."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
