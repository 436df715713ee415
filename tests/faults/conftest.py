from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.faults.room import Captured, Room, furnish
from utils.data import annotation_cache
from utils.inference import evaluation_pictures
from utils.training import run_folder, run_log, train_loop
from utils.weights.checkpoint import Checkpoint, save_checkpoint

MakeRoom = Callable[..., Room]


@pytest.fixture
def make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Iterator[MakeRoom]:
    """Give a function that makes a data set without a fault and goes there.

    What takes longer than a run of two steps and says nothing of the data is left out: the pictures of
    train.py and evaluate.py, the estimate of the time, and the weights.
    """
    monkeypatch.setattr(train_loop, "draw_data", lambda _: None)
    monkeypatch.setattr(run_log, "log_estimate", lambda *_: None)
    monkeypatch.setattr(train_loop, "draw_results", lambda *_: None)
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *_: None)
    for picture in ("draw_charts", "draw_worst"):
        monkeypatch.setattr(evaluation_pictures, picture, lambda *_: None)
    monkeypatch.setattr(annotation_cache, "CACHE", Path("runs") / "cache")  # what it holds is looked at too
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(image_id: str = "000001") -> Room:
        folder = tmp_path / f"room{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        return furnish(folder, image_id, capsys)

    yield make
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for the two classes at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, ("square", "circle"), model.state_dict()))
    return path
