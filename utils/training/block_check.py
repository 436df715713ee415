"""Trainability check of an attention block, before the data are read."""

from __future__ import annotations

import torch
from torch import Tensor

from nets.attention import build_attention
from nets.config import PLACES
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.train_config import TrainConfig
from utils.training.distributed import world_size
from utils.weights.own_block import import_block

_STRIDES = {"c4": 16, "c5": 32, "up": 16}


def check_attention(config: TrainConfig, batch_size: int | None = None) -> None:
    """Run forward and backward through the block of each place, at the sizes of the run.

    Raises:
        UserError: it cannot be built or trained; names the block and the reason.
    """
    batch_size = batch_size or config.batch_size
    for place in config.phi_at:
        try:
            import_block(config.phi)
            with torch.random.fork_rng(devices=[]):  # all blocks start from the same random state
                _train_block(config, place, min(batch_size, 2))
        except Exception as error:  # custom code may fail in any way
            reason = " ".join(str(error).split())
            raise UserError(f"--phi {config.phi}, {plural(batch_size, 'image')} a step: {reason}") from None


def check_batch_of_one(config: TrainConfig, num_images: int) -> None:
    """Refuse a single image a step and process if the network or its blocks cannot be trained on one.

    Raises:
        UserError: names the image size or the block, and the reason.
    """
    if min(config.batch_size, num_images) // world_size() > 1:
        return
    if config.imgsz == (32, 32):
        raise UserError(
            "--imgsz 32: with a single image a step batch normalization would see a single value; use more "
            "images, or a larger --imgsz"
        )
    check_attention(config, batch_size=1)


def _train_block(config: TrainConfig, place: str, batch: int) -> None:
    height, width = (side // _STRIDES[place] for side in config.imgsz)
    features = torch.rand(batch, PLACES[place], height, width, requires_grad=True)
    # The gradient of the sigmoid needs its output, which a block must not change in place.
    output = build_attention(config.phi, PLACES[place]).train()(features.sigmoid())
    if not isinstance(output, Tensor):
        raise TypeError(f"a block must return one tensor, this one returns {type(output).__name__}")
    if output.shape != features.shape or output.dtype != features.dtype:
        expected, actual = ((tuple(tensor.shape), tensor.dtype) for tensor in (features, output))
        raise TypeError(f"a block must keep shape and type, {expected}; this one returns {actual}")
    output.sum().backward()
