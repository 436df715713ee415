from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.predict_room import furnish
from tests.voc_folder import make_voc_folder
from utils.data import annotation_cache
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _own_annotation_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the annotation cache out of the repository's own folder, and out of other tests."""
    monkeypatch.setattr(annotation_cache, "CACHE", tmp_path_factory.mktemp("runs") / "cache")


@pytest.fixture(autouse=True, scope="session")
def _no_bfloat16() -> Iterator[None]:
    """Train in float32 unless --amp is given, on every machine: the figures of tests are exact."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict)
        yield


@pytest.fixture(autouse=True)
def _no_signal_stack() -> Iterator[None]:
    """Take away the signal stack that OpenVINO sets and frees with its model: the next signal would crash."""
    yield
    if sys.platform == "linux":
        disabled = (ctypes.c_size_t * 3)(0, 2, 0)  # stack_t with SS_DISABLE
        ctypes.CDLL(None).sigaltstack(disabled, None)


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
    make_voc_folder(folder / "data", train_images=6, val_images=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture
def work(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to predict in, see `furnish`; one thread, for pictures as small as these."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield furnish(tmp_path, weights)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def training_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder with data to train on, and as many threads here as in the processes that are forked.

    The pictures of a run take longer than the run; only what torchrun starts draws them.
    """
    folder = tmp_path_factory.mktemp("room")
    make_voc_folder(folder / "data", train_images=12, val_images=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("utils.training.train_loop.draw_data", lambda _: None)
        patch.setattr("utils.training.train_loop.draw_results", lambda *_: None)
        yield
    torch.set_num_threads(threads)
