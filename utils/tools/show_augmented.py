"""data.py show --augment: contact sheets of images as training sees them."""

from __future__ import annotations

from functools import partial

from nets.config import ModelConfig
from utils.cli.tool_configs import ShowConfig
from utils.data.augmentation_check import check_augmentation
from utils.data.dataset import VocDataset
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.tools import show


def run(config: ShowConfig) -> int:
    """Draw the sheets and print their paths; raises a UserError for transforms that cannot be used."""
    return show.run(config, partial(_augment, config))


def _augment(config: ShowConfig, dataset: VocDataset) -> tuple[show.Draw, tuple[int, int]]:
    mosaic = AugmentSettings.mosaic if config.mosaic is None else config.mosaic
    settings = AugmentSettings(mosaic, 0.0, str(config.augment))
    augmented = TrainDataset(dataset, config.imgsz or ModelConfig(1).input_size, settings, config.seed)
    check_augmentation(augmented.augmenter)
    return lambda index: augmented.render((0, index)), augmented.input_size
