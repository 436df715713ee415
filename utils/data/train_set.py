"""Training pictures: a data set and a key in, an augmented picture of network size out.

Every random choice is a function of (seed, epoch, sample index): the epoch travels in the key, so that who
makes a picture, and when, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nets.structures import Target
from utils.data.augment import Augmenter
from utils.data.dataset import VocDataset
from utils.data.mosaic import Labelled, mixup, mosaic
from utils.images import Pixels

Key = tuple[int, int]  # epoch, index


@dataclass(frozen=True)
class AugmentSettings:
    """How training pictures are made.

    Attributes:
        mosaic: probability of a mosaic of four.
        mixup: probability of blending with a second picture.
        level: a name in `augment.LEVELS`.
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

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Tensor, Target]:
        """Make one picture.

        Returns:
            uint8 Tensor[3, H, W], and the target in network pixels.
        """
        image, target = self.render(key)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target

    def render(self, key: Key) -> tuple[Pixels, Target]:
        """Make one picture as uint8 (H, W, 3), with its target in network pixels."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        blending = self.close_epoch is None or epoch < self.close_epoch
        item = self._make_picture(index, blending, rng)
        if blending and rng.random() < self.settings.mixup:
            item = mixup(item, self._make_picture(int(rng.integers(len(self))), blending, rng), rng)
        return self._augmenter.finish(*item, rng)

    def _make_picture(self, index: int, blending: bool, rng: np.random.Generator) -> Labelled:
        if blending and rng.random() < self.settings.mosaic:
            others = rng.integers(len(self), size=3).tolist()
            return mosaic([self.dataset.load(i) for i in (index, *others)], self.input_size, rng)
        return self._augmenter.place(*self.dataset.load(index), rng)
