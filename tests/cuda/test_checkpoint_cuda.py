from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.weights.checkpoint import Checkpoint, save_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_checkpoint_of_a_gpu_holds_tensors_of_the_cpu(tmp_path: Path) -> None:
    model = YoloBody(ModelConfig(2, input_size=(64, 64))).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    training = {"optimizer": optimizer.state_dict()}
    checkpoint = Checkpoint(model.config, ("cat", "dog"), model.state_dict(), training=training)
    save_checkpoint(tmp_path / "last.pth", checkpoint)
    content = torch.load(tmp_path / "last.pth", weights_only=True)  # no map_location
    momenta = [state["momentum_buffer"] for state in content["optimizer"]["state"].values()]
    assert len(momenta) > 0
    assert {tensor.device.type for tensor in (*content["weights"].values(), *momenta)} == {"cpu"}
    assert all(
        torch.equal(content["weights"][name], value.cpu()) for name, value in model.state_dict().items()
    )
    assert next(model.parameters()).device.type == "cuda"
