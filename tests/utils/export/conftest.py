from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import HEADS
from utils.export.job import ExportJob
from utils.weights.own_block import build_network


def make_job(phi: str = "none", **changes) -> ExportJob:
    """Return a network at 64 x 96 pixels whose raw heads are large enough to compare."""
    torch.manual_seed(0)
    anchors, masks = USUAL_ANCHORS[changes.pop("heads", 2)]
    settings = {"input_size": (64, 96), "anchors": anchors, "anchor_masks": masks} | {
        key: changes.pop(key) for key in ("scale_x_y", "anchors", "anchor_masks") if key in changes
    }
    names = ("cat", "dög", *map(str, range(changes.pop("num_classes", 2) - 2)))
    config = ModelConfig(len(names), phi=phi, **settings)
    model = build_network(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for head in map(model.get_submodule, HEADS[: config.num_heads]):
        nn.init.normal_(head.predict.weight, std=0.1)
        nn.init.zeros_(head.predict.bias)
    pictures = tuple(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8) for seed in range(2))
    return ExportJob(model, config, names, Path("best.pth"), **({"pictures": pictures} | changes))


@pytest.fixture
def job() -> ExportJob:
    return make_job()


@pytest.fixture(name="make_job")
def _make_job():
    return make_job
