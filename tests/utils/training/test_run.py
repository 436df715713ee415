from __future__ import annotations

import copy
import csv
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from nets.yolo import ModelConfig, YoloBody
from utils.errors import UserError
from utils.training.config import TrainConfig
from utils.training.ema import ModelEma
from utils.training.optim import build_optimizer, build_schedule
from utils.training.run import (
    Run,
    estimate_seconds_per_image,
    load_resumable,
    restore_training_state,
    training_state,
)
from utils.training.start import build_criterion
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

Parts = tuple[nn.Module, ModelEma | None, Optimizer, LRScheduler]


def checkpoint(epoch: int, map50: float | None) -> Checkpoint:
    weights = {"epoch": torch.tensor(epoch)}
    metrics = {} if map50 is None else {"map50": map50}
    return Checkpoint(ModelConfig(1), ("cell",), weights, metrics, {"lr": 0.1}, {"epoch": epoch})


def finish(run: Run, map50s: list[float | None], first: int = 1) -> None:
    for epoch, map50 in enumerate(map50s, start=first):
        extra = {} if map50 is None else {"map50": map50}
        run.finish_epoch(checkpoint(epoch, map50), {"epoch": epoch, "lr": 0.1, **extra})


def table(run: Run) -> list[list[str]]:
    with open(run.folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_run_without_an_epoch_has_its_folder_only(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    assert (run.last, run.best) == (tmp_path / "weights/last.pth", tmp_path / "weights/best.pth")


@pytest.mark.parametrize(
    ("map50s", "best"),
    [
        ([None, None, None], 3),  # without evaluation the last
        ([0.0, 0.0], 2),  # the later of equals
        ([0.1, 0.3, 0.2], 2),
        ([0.3, None, 0.2], 1),
        ([None, 0.0, None], 2),
    ],
)
def test_best_is_the_highest_map50_and_last_the_last(
    tmp_path: Path, map50s: list[float | None], best: int
) -> None:
    run = Run(tmp_path)
    finish(run, map50s)
    last, shared = load_checkpoint(run.last), load_checkpoint(run.best)
    assert (last.weights["epoch"].item(), shared.weights["epoch"].item()) == (len(map50s), best)
    assert last.training == {"epoch": len(map50s), "best_map50": run.best_map50}
    assert shared.training == {}
    assert shared.run_config == {"lr": 0.1}


@pytest.mark.parametrize(("map50", "replaced"), [(0.4, False), (0.6, True)])
def test_a_resumed_run_knows_what_its_best_reached(tmp_path: Path, map50: float, replaced: bool) -> None:
    finish(Run(tmp_path), [0.5])
    run = Run(tmp_path, 0.5)
    finish(run, [map50], first=2)
    assert load_checkpoint(run.best).weights["epoch"].item() == (2 if replaced else 1)


def test_the_table_has_a_row_an_epoch_and_a_late_column(tmp_path: Path) -> None:
    run = Run(tmp_path)
    finish(run, [None, 0.25])
    assert table(run) == [["epoch", "lr", "map50"], ["1", "0.1", ""], ["2", "0.1", "0.25"]]


def test_an_epoch_done_again_replaces_what_was_there_from_it_on(tmp_path: Path) -> None:
    finish(Run(tmp_path), [0.1, 0.2, 0.3])
    run = Run(tmp_path, 0.1)
    finish(run, [0.7], first=2)
    assert [row[0] for row in table(run)] == ["epoch", "1", "2"]
    assert table(run)[-1][-1] == "0.7"


def build_parts(seed: int, with_ema: bool) -> Parts:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = build_optimizer(model, lr=0.1, momentum=0.9, weight_decay=0.1, batch_size=16)
    schedule = build_schedule(optimizer, total_steps=9, warmup_steps=2)
    return model, ModelEma(model, 3) if with_ema else None, optimizer, schedule


def step(model: nn.Module, ema: ModelEma | None, optimizer: Optimizer, schedule: LRScheduler) -> None:
    optimizer.zero_grad()
    model(torch.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])).pow(3).sum().backward()
    optimizer.step()
    schedule.step()
    if ema is not None:
        ema.update(model)


@pytest.mark.parametrize("with_ema", [False, True])
def test_restoring_goes_on_as_if_never_stopped(tmp_path: Path, with_ema: bool) -> None:
    whole = build_parts(0, with_ema)
    for _ in range(3):
        step(*whole)
    stored = tmp_path / "state.pth"
    torch.save(training_state(5, *whole), stored)
    resumed = build_parts(1, with_ema)
    assert restore_training_state(torch.load(stored, weights_only=True), *resumed) == 5
    for _ in range(3):
        step(*whole)
        step(*resumed)
    assert whole[3].get_last_lr() == resumed[3].get_last_lr()
    for ours, theirs in zip(whole[:2], resumed[:2], strict=True):
        if ours is not None:
            modules = [getattr(part, "model", part) for part in (ours, theirs)]
            states = [module.state_dict() for module in modules]
            assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no run with weights/last\.pth in runs/train"):
        load_resumable("auto")
    with pytest.raises(UserError, match=r"missing\.pth: no such file"):
        load_resumable("missing.pth")


def test_auto_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(["b", "c", "a"]):
        path = Path("runs/train", name, "weights/last.pth")
        path.parent.mkdir(parents=True)
        stored = checkpoint(age, None)
        stored.training["optimizer"] = {}
        save_checkpoint(path, stored)
        os.utime(path, (1000 - age, 1000 - age))
    path, found = load_resumable("auto")
    assert path == Path("runs/train/b/weights/last.pth")
    assert found.training["epoch"] == 0


def test_a_shared_file_cannot_be_resumed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    finish(run, [0.5])
    with pytest.raises(UserError, match=r"best\.pth: holds no training state; resume from the last\.pth"):
        load_resumable(str(run.best))


@pytest.mark.parametrize("freeze", [False, True])
def test_the_estimate_leaves_the_network_alone(freeze: bool) -> None:
    model = YoloBody(ModelConfig(1, input_size=(32, 32))).eval()
    before = copy.deepcopy(model.state_dict())
    assert estimate_seconds_per_image(model, build_criterion(TrainConfig(), model), freeze) > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model.training
