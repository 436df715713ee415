"""Input sizes of the training batches: fixed, drawn for each batch, or growing with the epochs.

Small images first: Howard, fast.ai's entry to DAWNBench, 2018; random sizes: Redmon and Farhadi, YOLO9000,
https://arxiv.org/abs/1612.08242, which draws one every ten batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.cli.train_config import TrainConfig

Size = tuple[int, int]  # height, width in pixels
STEP = 32  # the network's stride
_SCALES = (0.7, 1.3)  # of --multi-scale
_FIRST_SCALE = 0.6  # of --grow
_DRAW = 1  # keeps the draws of the sizes apart from those of the images, which have shorter keys


@dataclass(frozen=True)
class InputSizes:
    """Input size of each training batch, a function of (seed, epoch, batch)."""

    full: Size  # the network's input size, at which it is evaluated
    multi_scale: bool = False  # draw the sides of each batch between 0.7 and 1.3 times those of its epoch
    # Start with 0.6 times the full sides, and grow to the full size for the last third of the epochs.
    grow: bool = False
    epochs: int = 1  # length of the run
    seed: int = 0

    def of_epoch(self, epoch: int) -> Size:
        """Return the size of an epoch, counted from 0; with `multi_scale` the one that it varies around."""
        return scale_size(self.full, self._scale(epoch))

    def of_batch(self, epoch: int, batch: int) -> Size:
        """Return the size of a batch; epoch and batch are counted from 0."""
        if not self.multi_scale:
            return self.of_epoch(epoch)
        drawn = np.random.default_rng([self.seed, epoch, batch, 0, _DRAW]).uniform(*_SCALES)
        return scale_size(self.full, self._scale(epoch) * drawn)

    @property
    def smallest(self) -> Size:
        """The smallest size that a batch can have."""
        return scale_size(self.full, self._scale(0) * (_SCALES[0] if self.multi_scale else 1))

    @property
    def largest(self) -> Size:
        """The largest size that a batch can have."""
        return scale_size(self.full, _SCALES[1] if self.multi_scale else 1)

    def _scale(self, epoch: int) -> float:
        growing = self.epochs - -(-self.epochs // 3)  # epochs before the last third
        if not self.grow or epoch >= growing:
            return 1.0
        return _FIRST_SCALE + (1 - _FIRST_SCALE) * epoch / growing

    def describe(self) -> str:
        """Name the sizes in words."""
        full = format_size(self.full)
        if self.smallest == self.largest:
            return f"always {full}: --imgsz or --epochs is too small for another one"
        growth = f"from {format_size(self.of_epoch(0))} in epoch 1 to {full} in the last third of the epochs"
        if not self.multi_scale:
            return f"{growth}; evaluation at {full}"
        drawn = f"{format_size(self.smallest)} to {format_size(self.largest)}, another one for each batch"
        return f"{drawn}{f', growing {growth}' if self.grow else ''}; evaluation at {full}"


def build_input_sizes(config: TrainConfig) -> InputSizes:
    """Return the input sizes of the training batches."""
    return InputSizes(config.imgsz, config.multi_scale, config.grow, config.epochs, config.seed)


def scale_size(size: Size, scale: float) -> Size:
    """Scale a size in steps of 32 pixels: the longer side is rounded first, and the other one follows it."""
    longer = max(size)
    rounded = _round(longer * scale)
    height, width = (_round(side * rounded / longer) for side in size)
    return height, width


def format_size(size: Size) -> str:
    """Return "416x352" for a height of 416 and a width of 352 pixels."""
    return f"{size[0]}x{size[1]}"


def _round(side: float) -> int:
    return max(STEP, round(side / STEP) * STEP)
