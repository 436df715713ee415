"""Loader of training batches.

The sampler yields the epoch and the size as part of each key. Workers have no state, so their number changes
nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from nets.structures import Target
from utils.cli.errors import UserError
from utils.cli.signals import STOP_SIGNALS
from utils.data.balance import draw_repeats, images_per_epoch
from utils.data.input_sizes import InputSizes
from utils.data.train_dataset import Key, TrainDataset

Batch = tuple[Tensor, list[Target]]
_PREVIEW = 16  # images
_GRACE = 20  # seconds that a worker keeps running after SIGTERM, while the run finishes its step


class EpochSampler(Sampler[list[Key]]):
    """Yields the batches of one epoch as lists of keys; (seed, epoch) determines the order.

    Each of several processes gets its share of every batch, in the same size. A last batch of one image per
    process is dropped, as batch norm needs more, unless it is the only one. `repeats` (N,) says how often
    each image is drawn, by default once.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        sizes: InputSizes | None = None,
        repeats: NDArray[np.float64] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.repeats = np.ones(length) if repeats is None else repeats
        self.length = images_per_epoch(self.repeats)
        self.batch_size = batch_size
        self.seed = seed
        self.sizes = sizes
        self.rank, self.world_size = rank, world_size
        self.epoch, self.done = 0, 0

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Set the epoch of the next iteration, from 0, and the number of batches to skip."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest >= 2 * self.world_size or (rest > 0 and full == 0))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch  # a preview during the epoch changes it
        order = draw_repeats(self.repeats, np.random.default_rng([self.seed, epoch]))
        for batch in range(self.done, len(self)):
            mine = slice(batch * self.batch_size + self.rank, (batch + 1) * self.batch_size, self.world_size)
            size = self.sizes.of_batch(epoch, batch) if self.sizes else None
            yield [Key(epoch, index, size, copy) for index, copy in order[mine]]


class TrainLoader:
    """Batches of training images, one epoch at a time.

    The workers end with the loader, at the latest at exit.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        *,
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Build the loader of one process; `batch_size` counts the images of all processes.

        With 0 `workers` this process loads. `pin_memory` is for asynchronous copies to a CUDA device.

        Raises:
            UserError: there is no image to train on, or too few for the processes.
        """
        if len(dataset) == 0:
            raise UserError("no image to train on; check --data and --train")
        if batch_size % world_size or len(dataset) < world_size:
            raise UserError(
                f"--batch-size {batch_size}, {len(dataset)} images: cannot be shared by {world_size} "
                f"processes; use a multiple of {world_size}"
            )
        self.dataset = dataset
        self._sampler = EpochSampler(
            len(dataset),
            batch_size,
            dataset.seed,
            sizes=dataset.sizes,
            repeats=dataset.repeats,
            rank=rank,
            world_size=world_size,
        )
        self._loader: DataLoader[Any] = DataLoader(
            _Batches(dataset),
            batch_size=None,  # the sampler makes them
            sampler=self._sampler,
            num_workers=workers,
            collate_fn=_keep,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(dataset.seed),  # not the global one
        )
        # At exit this comes before torch's and Python's own handlers, which were registered earlier.
        atexit.register(weakref.finalize(self, _end_workers, self._loader))

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self._sampler)

    @property
    def num_images(self) -> int:
        """Number of images that an epoch draws, over all processes."""
        return self._sampler.length

    def preview(self) -> Batch:
        """Return the first 16 images of the first epoch, made in this process; errors as in `epoch`."""
        self._sampler.set_epoch(0)
        batch: Batch | UserError = self._loader.dataset[next(iter(self._sampler))[:_PREVIEW]]
        if isinstance(batch, UserError):
            raise batch
        return batch

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, after the first `done`.

        A batch is uint8 Tensor[B, 3, H, W] and the targets in network pixels. A UserError names an image that
        cannot be read.
        """
        self._sampler.set_epoch(epoch, done)
        with _blocked_signals():
            batches = iter(self._loader)
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Batches(Dataset[Batch | UserError]):
    """Batches by their keys; a UserError is returned, since raising it in a worker adds a traceback."""

    def __init__(self, dataset: TrainDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: Sequence[Key]) -> Batch | UserError:
        try:
            images, targets = zip(*(self.dataset[key] for key in keys), strict=True)
        except UserError as error:
            return UserError(str(error), exit_code=1)
        batch = torch.stack(images), list(targets)
        if get_worker_info() is not None:
            _share(batch)
        return batch


def _share(batch: Batch) -> None:
    """Move a batch to shared memory, where an error reaches the main process.

    Torch would do so in a thread of the worker's queue: if /dev/shm is full, it prints a traceback there, and
    the main process waits forever.
    """
    images, targets = batch
    for tensor in (images, *(part for one in targets for part in (one.boxes, one.labels, one.difficult))):
        tensor.share_memory_()


def _end_workers(loader: DataLoader[Any]) -> None:
    """End the workers of a loader while their queues work.

    Torch does so when the iterator is deleted. At exit, or as part of a reference cycle, that comes after the
    queues are closed: the workers get no message, and the end waits 20 seconds for them.
    """
    iterator: Any = loader._iterator
    if iterator is not None:
        iterator._shutdown_workers()


def _keep(batch: Any) -> Any:
    return batch


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block stop signals; workers started inside wait with them until `_start_worker`.

    A worker that is spawned imports torch for seconds, and a terminal or a scheduler signals all processes.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        from multiprocessing import resource_tracker  # not on Windows

        resource_tracker.ensure_running()  # its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    """Limit a worker to one core, and keep it running while a stopped run finishes its step."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
