from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nets.yolo import ModelConfig, YoloBody
from utils.data.voc import VocObject, write_annotation
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for cat and dog at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, ("cat", "dog"), model.state_dict()))
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, with six images to train on and two to select on, cats and dogs."""
    folder = tmp_path_factory.mktemp("room")
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / "data" / part).mkdir(parents=True)
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"data/JPEGImages/{index}.jpg")
        objects = [VocObject(("cat", "dog")[index % 2], (10.0, 10.0, 50.0, 40.0 + index))]
        write_annotation(folder / f"data/Annotations/{index}.xml", f"{index}.jpg", 80, 60, objects)
    (folder / "data/ImageSets/Main/train.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (folder / "data/ImageSets/Main/val.txt").write_text("6\n7\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
