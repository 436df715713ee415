"""Loaders: training pictures in, batches out, the same ones whoever makes them.

The epoch travels in the keys that the sampler yields, so workers hold no state and may live as long as they
like: their number changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nets.structures import Target
from utils.cli.errors import UserError
from utils.data.train_dataset import Key, TrainDataset

Batch = tuple[Tensor, list[Target]]
_SHOWN = 16
_GRACE = 20  # seconds that a worker lives on after SIGTERM: the run finishes its step first


class EpochSampler(Sampler[list[Key]]):
    """Yield the batches of one epoch as lists of (epoch, index), in an order that (seed, epoch) determines.

    Each of several processes gets its share of every batch. A last batch of a single image a process is
    dropped, because batch norm learns nothing good from it; unless it is the only one.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.done = 0, 0

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, from 0, and how many batches are done."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest >= 2 * self.world_size or (rest > 0 and full == 0))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch  # a preview during the epoch changes it
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length).tolist()
        for batch in range(self.done, len(self)):
            mine = slice(batch * self.batch_size + self.rank, (batch + 1) * self.batch_size, self.world_size)
            yield [(epoch, index) for index in order[mine]]


class TrainLoader:
    """Batches of training pictures, an epoch at a time."""

    def __init__(self, loader: DataLoader[Any], sampler: EpochSampler) -> None:
        self._loader = loader
        self._sampler = sampler

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self._sampler)

    def preview(self) -> Batch:
        """Return the first pictures of the first epoch, at most 16 of a batch, made in this process.

        Raises:
            UserError: an image cannot be read.
        """
        self._sampler.set_epoch(0)
        batch = collate([self._loader.dataset[key] for key in next(iter(self._sampler))[:_SHOWN]])
        if isinstance(batch, UserError):
            raise batch
        return batch

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, after the first `done`.

        Yields:
            uint8 Tensor[B, 3, H, W] and the targets in network pixels.

        Raises:
            UserError: an image cannot be read.
        """
        self._sampler.set_epoch(epoch, done)
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Careful(Dataset[tuple[Tensor, Target] | UserError]):
    """Return a UserError as a value: raised in a worker it would arrive as a page of traceback."""

    def __init__(self, pictures: TrainDataset) -> None:
        self.pictures = pictures

    def __getitem__(self, key: Key) -> tuple[Tensor, Target] | UserError:
        try:
            return self.pictures[key]
        except UserError as error:
            return UserError(str(error), exit_code=1)


def collate(batch: Sequence[tuple[Tensor, Target] | UserError]) -> Batch | UserError:
    """Stack the images to Tensor[B, 3, H, W]; the targets stay a list. An error takes the batch's place."""
    pairs = []
    for item in batch:
        if isinstance(item, UserError):
            return item
        pairs.append(item)
    return torch.stack([image for image, _ in pairs]), [target for _, target in pairs]


def build_train_loader(
    dataset: TrainDataset,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> TrainLoader:
    """Build the loader of training batches.

    Args:
        dataset: the pictures.
        batch_size: images a batch, over all processes.
        workers: processes that make pictures; 0 makes them in this one.
        pin_memory: for copies to a CUDA device that do not wait.
        rank: number of this process, from 0.
        world_size: number of processes that share each batch.

    Raises:
        UserError: there is no image to train on, or too few for the processes.
    """
    if len(dataset) == 0:
        raise UserError("no image to train on; check --data and --train")
    if batch_size % world_size or len(dataset) < world_size:
        raise UserError(
            f"--batch-size {batch_size}, {len(dataset)} images: cannot be shared among {world_size} "
            f"processes; take a multiple of {world_size}"
        )
    sampler = EpochSampler(len(dataset), batch_size, dataset.seed, rank=rank, world_size=world_size)
    loader = DataLoader(
        _Careful(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(dataset.seed),  # leaves torch's own random stream alone
    )
    return TrainLoader(loader, sampler)


def _start_worker(_: int) -> None:
    """Keep each worker on one core, and alive while the run finishes the step in which it was stopped."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
