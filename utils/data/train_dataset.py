"""Training data set: augmented images of network size.

Every random choice is a function of (seed, epoch, sample index, copy). The epoch and the size of the batch
are part of the key, so the number of workers changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nets.structures import Target
from utils.data.augmentation import Augmenter
from utils.data.balance import repeat_factors
from utils.data.dataset import VocDataset
from utils.data.image_cache import ImageCache, cache_images
from utils.data.input_sizes import InputSizes, Size
from utils.data.mosaic import MOSAIC_SCALE, ImageAndTarget, mixup, mosaic
from utils.data.targets import build_target
from utils.vision.image_reader import Pixels


class Key(NamedTuple):
    """What determines an augmented image of a run; a tuple (epoch, image) stands for one of full size."""

    epoch: int
    image: int
    size: Size | None = None
    copy: int = 0  # counts the draws of an image in one epoch


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation of the training images."""

    mosaic: float = 0.5  # probability of a mosaic of four images
    mixup: float = 0.0  # probability of mixup with a second image
    level: str = "default"  # what --augment names, or "none": letterboxed images without mosaic and mixup


class TrainDataset(Dataset[tuple[Tensor, Target]]):
    """Augmented training images of network size by their `Key`.

    Attributes:
        sizes: the input sizes of the run's batches.
        repeats: float64 (N,), how often each image is drawn per epoch; None for once each.
        augmenter: augments the images and their objects.
        image_cache: the decoded images; None reads the files.
    """

    def __init__(
        self,
        dataset: VocDataset,
        input_size: Size,
        settings: AugmentSettings,
        seed: int,
        *,
        close_epoch: int | None = None,
        sizes: InputSizes | None = None,
        balance: bool = False,
    ) -> None:
        """Take the annotated images, and the input size (height, width) in pixels.

        From `close_epoch` on there is no mosaic and mixup; None keeps them to the end. `sizes` are those of
        the batches, by default the input size alone. With `balance`, images of rare classes are repeated.
        """
        self.dataset = dataset
        self.input_size = input_size
        self.settings = settings
        self.seed = seed
        self.close_epoch = close_epoch
        self.sizes = sizes or InputSizes(input_size)
        self.repeats = repeat_factors(dataset) if balance else None
        self.augmenter = Augmenter(input_size, settings.level)
        self._augmenters = {input_size: self.augmenter}
        self.image_cache: ImageCache | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def fill_cache(self) -> ImageCache:
        """Decode all images into a file that other processes can map too, and use it from now on.

        Raises:
            UserError: as `cache_images`.
        """
        sizes = []
        for index, record in enumerate(self.dataset.records):
            reduction = self._reduction(index)
            sizes.append((-(-record.height // reduction), -(-record.width // reduction)))
        self.image_cache = cache_images(self._read, sizes)
        return self.image_cache

    def __getitem__(self, key: Key | tuple[int, int]) -> tuple[Tensor, Target]:
        """Return one image, uint8 Tensor[3, H, W], and its target in network pixels."""
        image, target = self.render(key)
        planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
        cv2.split(image, list(planes))  # several times as fast as a transposed copy
        return torch.from_numpy(planes), target

    def render(self, key: Key | tuple[int, int]) -> tuple[Pixels, Target]:
        """Return one image, uint8 (H, W, 3), and its target in network pixels."""
        epoch, index, size, copy = Key(*key)
        augmenter = self._augmenter_of(size or self.input_size)
        rng = np.random.default_rng([self.seed, epoch, index, copy])
        blending = augmenter.level is not None
        if self.close_epoch is not None:
            blending = blending and epoch < self.close_epoch
        item = self._augment(index, augmenter, blending, rng)
        if blending and rng.random() < self.settings.mixup:
            (other,) = self._draw_others(1, rng)
            item = mixup(item, self._augment(other, augmenter, blending, rng), rng)
        return item

    def _augment(
        self, index: int, augmenter: Augmenter, blending: bool, rng: np.random.Generator
    ) -> ImageAndTarget:
        if blending and rng.random() < self.settings.mosaic:
            others = self._draw_others(3, rng)
            item = mosaic([self._load(i) for i in (index, *others)], augmenter.size, rng)
            return augmenter.augment(*item, rng, is_placed=True)
        return augmenter.augment(*self._load(index), rng)

    def _draw_others(self, count: int, rng: np.random.Generator) -> list[int]:
        """Draw images for mosaic and mixup, as often as they are repeated."""
        if self.repeats is None:
            return rng.integers(len(self), size=count).tolist()
        sums = self._repeat_sums
        return np.searchsorted(sums, rng.random(count) * sums[-1], side="right").tolist()

    @cached_property
    def _repeat_sums(self) -> np.ndarray:
        assert self.repeats is not None
        return self.repeats.cumsum()

    def _augmenter_of(self, size: Size) -> Augmenter:
        if size not in self._augmenters:
            self._augmenters[size] = self.augmenter.resized(size)
        return self._augmenters[size]

    def _load(self, index: int) -> ImageAndTarget:
        """Return an image, reduced where possible, and its target in its pixels."""
        image = self._read(index) if self.image_cache is None else self.image_cache[index]
        target = build_target(self.dataset, index)
        boxes = target.boxes / self._reduction(index)
        return image, Target(boxes, target.labels, target.difficult, target.image_id)

    def _read(self, index: int) -> Pixels:
        return self.dataset.read(index, self._reduction(index))

    def _reduction(self, index: int) -> int:
        """Return the factor by which an image can be reduced while decoding without being enlarged later.

        It depends on the largest size alone, not on the random scale, so that a cached image serves every
        epoch.
        """
        if self.augmenter.level is None:
            return 1
        record, (height, width) = self.dataset.records[index], self.sizes.largest
        reach = max(self.augmenter.max_scale, MOSAIC_SCALE[1])
        largest = min(height / record.height, width / record.width) * reach
        return next(reduction for reduction in (8, 4, 2, 1) if reduction * largest <= 1 or reduction == 1)
