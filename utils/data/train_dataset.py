"""Training pictures: a data set and a key in, an augmented picture of network size out.

Every random choice is a function of (seed, epoch, sample index): the epoch travels in the key, so that who
makes a picture, and when, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nets.structures import Target
from utils.data.augmentation import Augmenter
from utils.data.dataset import VocDataset
from utils.data.image_cache import load_all
from utils.data.mosaic import MOSAIC_SCALE, mixup, mosaic
from utils.data.paste import Labeled
from utils.data.targets import build_target
from utils.vision.image_reader import Pixels

Key = tuple[int, int]  # epoch, index


@dataclass(frozen=True)
class AugmentSettings:
    """How training pictures are made.

    Attributes:
        mosaic: probability of a mosaic of four.
        mixup: probability of blending with a second picture.
        level: a name in `augment.LEVELS`; with "none" there is neither mosaic nor mixup, and a picture is
            what inference would see.
    """

    mosaic: float = 0.5
    mixup: float = 0.0
    level: str = "default"


class TrainDataset(Dataset[tuple[Tensor, Target]]):
    """Augmented training pictures of network size; the key is (epoch, index)."""

    def __init__(
        self,
        dataset: VocDataset,
        input_size: tuple[int, int],
        settings: AugmentSettings,
        seed: int,
        *,
        close_epoch: int | None = None,
    ) -> None:
        """Set up the pictures.

        Args:
            dataset: what to draw from.
            input_size: (height, width) of the network input in pixels.
            settings: how pictures are made.
            seed: with epoch and index it determines every choice.
            close_epoch: first epoch without mosaic and mixup; None keeps them to the end.
        """
        self.dataset = dataset
        self.input_size = input_size
        self.settings = settings
        self.seed = seed
        self.close_epoch = close_epoch
        self._augmenter = Augmenter(input_size, settings.level)
        self._cached: list[Pixels] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def cache(self) -> int:
        """Decode every image now and keep it, so that training only reads memory; the pictures stay the same.

        Call it before the loader starts its workers: where they are forked they share the memory.

        Returns:
            The bytes that the images take.

        Raises:
            UserError: they would take more than 80 % of the available memory, or one cannot be read.
        """
        sizes = []
        for index, record in enumerate(self.dataset.records):
            reduction = self._reduction(index)
            sizes.append(-(-record.height // reduction) * -(-record.width // reduction) * 3)
        self._cached = load_all(self._read, sizes)
        return sum(sizes)

    def __getitem__(self, key: Key) -> tuple[Tensor, Target]:
        """Make one picture.

        Returns:
            uint8 Tensor[3, H, W], and the target in network pixels.
        """
        image, target = self.render(key)
        planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
        cv2.split(image, list(planes))  # several times as fast as a transposed copy
        return torch.from_numpy(planes), target

    def render(self, key: Key) -> tuple[Pixels, Target]:
        """Make one picture as uint8 (H, W, 3), with its target in network pixels."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        blending = self._augmenter.level is not None
        if self.close_epoch is not None:
            blending = blending and epoch < self.close_epoch
        item = self._make_picture(index, blending, rng)
        if blending and rng.random() < self.settings.mixup:
            item = mixup(item, self._make_picture(int(rng.integers(len(self))), blending, rng), rng)
        return self._augmenter.finish(*item, rng)

    def _make_picture(self, index: int, blending: bool, rng: np.random.Generator) -> Labeled:
        if blending and rng.random() < self.settings.mosaic:
            others = rng.integers(len(self), size=3).tolist()
            return mosaic([self._load(i) for i in (index, *others)], self.input_size, rng)
        return self._augmenter.place(*self._load(index), rng)

    def _load(self, index: int) -> Labeled:
        """Give an image as small as it may be, and its target in pixels of what is given."""
        image = self._read(index) if self._cached is None else self._cached[index]
        target = build_target(self.dataset, index)
        boxes = target.boxes / self._reduction(index)
        return image, Target(boxes, target.labels, target.difficult, target.image_id)

    def _read(self, index: int) -> Pixels:
        return self.dataset.read(index, self._reduction(index))

    def _reduction(self, index: int) -> int:
        """Tell by how much an image may shrink while it is decoded and yet never be enlarged to its place.

        It depends on the sizes alone and not on the scale that is drawn, so that one decoded image serves
        every epoch, and a cache changes no pixel.
        """
        if self._augmenter.level is None:
            return 1
        record, (height, width) = self.dataset.records[index], self.input_size
        reach = max(self._augmenter.reach, MOSAIC_SCALE[1])
        largest = min(height / record.height, width / record.width) * reach
        return next(reduction for reduction in (8, 4, 2, 1) if reduction * largest <= 1 or reduction == 1)
