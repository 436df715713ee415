from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.faults.rows import FAULTS
from tests.faults.workspace import Captured, Workspace, write_dataset
from utils.data import annotation_cache
from utils.inference import evaluation_pictures
from utils.training import run_folder, train_loop
from utils.weights.checkpoint import Checkpoint, save_checkpoint

MakeWorkspace = Callable[..., Workspace]


@pytest.fixture
def make_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> Iterator[MakeWorkspace]:
    """A function that writes a data set with one fault, and makes its folder the current one.

    Slow parts that do not depend on the data are patched away: the plots of train.py and evaluate.py, and
    saving the weights.
    """
    monkeypatch.setattr(train_loop, "draw_data", lambda _: None)
    monkeypatch.setattr(train_loop, "draw_results", lambda *_: None)
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *_: None)
    for picture in ("draw_charts", "draw_worst"):
        monkeypatch.setattr(evaluation_pictures, picture, lambda *_: None)
    monkeypatch.setattr(annotation_cache, "CACHE", Path("runs") / "cache")  # its content is checked too
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(fault: str = "good_control", image_id: str = "000001") -> Workspace:
        folder = tmp_path / f"workspace{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        workspace = write_dataset(folder, image_id, capsys)
        FAULTS[fault](workspace)
        return workspace

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
