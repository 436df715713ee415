from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.yolo import ModelConfig, YoloBody
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for cat and dog at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, ("cat", "dog"), model.state_dict()))
    return path
