from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nets.config import ModelConfig
from nets.structures import Detections
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.inputs import find_newest
from utils.cli.train_config import TrainConfig
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.data.targets import build_target
from utils.inference.evaluation import DatasetDetections, EvalResult, score_detections
from utils.inference.predictor import Timings
from utils.training import run_folder as run_module
from utils.training.builders import build_trainer
from utils.training.run_folder import Run, choose_run_folder
from utils.weights.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(autouse=True)
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module.importlib.util, "find_spec", lambda _: None)


def checkpoint(epoch: int) -> Checkpoint:
    weights = {"epoch": torch.tensor(epoch)}
    return Checkpoint(ModelConfig(1), ("cell",), weights, {}, {"lr": 0.1}, {"epoch": epoch})


def reached(map50: float | None) -> EvalResult | None:
    """Return a result of which only map50 is asked."""
    if map50 is None:
        return None
    return SimpleNamespace(coco=SimpleNamespace(map50=map50), write_metrics=lambda path: None)  # type: ignore


def finish(run: Run, map50s: list[float | None], first: int = 1, period: int = 0) -> list[bool]:
    verdicts = []
    for epoch, map50 in enumerate(map50s, start=first):
        verdicts.append(run.judge(epoch, reached(map50)))
        row = {"epoch": epoch, "lr": 0.1, **({} if map50 is None else {"map50": map50})}
        is_kept = period > 0 and epoch % period == 0
        run.finish_epoch(checkpoint(epoch), row, None, verdicts[-1], is_kept)
    return verdicts


def table(run: Run) -> list[list[str]]:
    with open(run.folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_without_an_epoch_leaves_its_folder_only(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        assert files_in(tmp_path) == {"run.lock"}
        assert (run.last, run.best) == (tmp_path / "weights/last.pth", tmp_path / "weights/best.pth")
        assert run.rows() == []
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_failing_run_lets_go_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours"), Run(tmp_path):
        raise ValueError("ours")
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize(
    ("map50s", "verdicts", "best", "risen"),
    [
        ([], [], 0, 0),
        ([None, None, None], [True, True, True], 3, 0),  # without evaluation the last
        ([0.0, 0.0], [True, True], 2, 1),  # the later of equals, though it rose no more
        ([0.1, 0.3, 0.2], [True, True, False], 2, 2),
        ([0.3, None, 0.2], [True, False, False], 1, 1),
        ([None, 0.0, None], [True, True, False], 2, 2),
    ],
)
def test_best_is_the_highest_map50_and_last_the_last(
    tmp_path: Path, map50s: list[float | None], verdicts: list[bool], best: int, risen: int
) -> None:
    run = Run(tmp_path)
    assert finish(run, map50s) == verdicts
    assert run.risen_epoch == risen
    if map50s:
        last, shared = load_checkpoint(run.last), load_checkpoint(run.best)
        assert (last.weights["epoch"].item(), shared.weights["epoch"].item()) == (len(map50s), best)
        assert last.training == {
            "epoch": len(map50s), "best_map50": run.best_map50, "risen_epoch": risen, "patience_epoch": risen
        }  # fmt: skip
        assert shared.training == {}
        assert shared.run_config == {"lr": 0.1}


def test_a_run_that_stopped_early_counts_its_patience_anew(tmp_path: Path) -> None:
    state = {"epoch": 7, "best_map50": 0.5, "risen_epoch": 3, "stopped_early": True}
    run = Run(tmp_path, state, is_writer=False)
    assert (run.risen_epoch, run.patience_epoch) == (3, 7)
    again = Run(tmp_path, {**state, "stopped_early": False, "patience_epoch": 7}, is_writer=False)
    assert (again.risen_epoch, again.patience_epoch) == (3, 7)
    assert again.judge(9, reached(0.6))
    assert (again.risen_epoch, again.patience_epoch) == (9, 9)


def test_a_run_that_was_interrupted_counts_its_patience_on(tmp_path: Path) -> None:
    state = {"epoch": 7, "best_map50": 0.5, "risen_epoch": 3, "stopped_early": False}  # an older checkpoint
    run = Run(tmp_path, state, is_writer=False)
    assert (run.risen_epoch, run.patience_epoch) == (3, 3)


@pytest.mark.parametrize(("map50", "best"), [(0.4, 1), (0.5, 2), (0.6, 2), (None, 1)])
def test_a_resumed_run_knows_what_its_best_reached(tmp_path: Path, map50: float | None, best: int) -> None:
    with Run(tmp_path) as first:
        finish(first, [0.5])
    run = Run(tmp_path, load_checkpoint(first.last).training)
    assert (run.best_map50, run.risen_epoch) == (0.5, 1)
    finish(run, [map50], first=2)
    assert run.risen_epoch == (2 if map50 == 0.6 else 1)
    assert load_checkpoint(run.best).weights["epoch"].item() == best


def test_the_table_has_a_row_an_epoch_and_a_late_column(tmp_path: Path) -> None:
    run = Run(tmp_path)
    finish(run, [None, 0.25])
    assert table(run) == [["epoch", "lr", "map50"], ["1", "0.1", ""], ["2", "0.1", "0.25"]]
    assert run.rows()[1] == {"epoch": "2", "lr": "0.1", "map50": "0.25"}


def test_an_epoch_done_again_replaces_what_was_there_from_it_on(tmp_path: Path) -> None:
    with Run(tmp_path) as first:
        finish(first, [0.1, 0.2, 0.3])
    run = Run(tmp_path, {"epoch": 1, "best_map50": 0.1, "risen_epoch": 1})
    finish(run, [0.7], first=2)
    assert [row[0] for row in table(run)] == ["epoch", "1", "2"]
    assert table(run)[-1][-1] == "0.7"


@pytest.mark.parametrize(("period", "kept"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3])])
def test_kept_checkpoints_stand_under_their_number_and_can_be_resumed(
    tmp_path: Path, period: int, kept: list[int]
) -> None:
    with Run(tmp_path) as run:
        finish(run, [0.3, 0.2, 0.1, 0.0], period=period)
    numbered = {f"weights/epoch{epoch}.pth" for epoch in kept}
    assert files_in(tmp_path) == {"results.csv", "weights/best.pth", "weights/last.pth", *numbered}
    for epoch in kept:
        loaded = load_checkpoint(tmp_path / f"weights/epoch{epoch}.pth")
        state = {"best_map50": 0.3, "risen_epoch": 1, "patience_epoch": 1}
        assert loaded.training == {"epoch": epoch, **state}


def test_save_writes_last_and_what_was_best_so_far(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.judge(3, reached(0.25))
    run.save(checkpoint(3))
    state = {"best_map50": 0.25, "risen_epoch": 3, "patience_epoch": 3}
    assert load_checkpoint(run.last).training == {"epoch": 3, **state}
    assert not run.best.exists()


def test_the_newest_run_is_found_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("before", "after"):
        Path("runs/train", name).mkdir(parents=True)
        with Run(Path("runs/train", name)) as run:
            with monkeypatch.context() as patch:
                patch.setattr(
                    run_module, "find_newest", None
                )  # looked for once a run, not at each checkpoint
                finish(run, [0.5])
            for path in (run.best, run.last):
                if name == "before":
                    os.utime(path, (2**31, 2**31))  # the clock was years ahead
                else:
                    assert find_newest(path.name) == path


def test_metrics_json_is_that_of_the_risen_epoch(tmp_path: Path) -> None:
    record = Record("a", tmp_path / "a.jpg", 60, 50, (), np.zeros((0, 4), np.float32), np.zeros(0, bool))
    data = VocDataset([record], ("cell",))
    result = score_detections(
        DatasetDetections([0], [Detections.empty()], [build_target(data, 0)], Timings()), data
    )
    with Run(tmp_path) as run:
        run.finish_epoch(checkpoint(1), {"epoch": 1}, result, True, False)
        assert json.loads((tmp_path / "metrics.json").read_text()) == result.as_dict()
        written = (tmp_path / "metrics.json").stat().st_mtime_ns
        run.finish_epoch(checkpoint(2), {"epoch": 2}, result, False, False)
        assert (tmp_path / "metrics.json").stat().st_mtime_ns == written


def test_what_a_killed_run_left_half_written_is_removed_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").mkdir()
    for name in ("weights/last.pth.tmp", "results.csv.tmp", "weights/last.pth", "notes.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "my.folder.tmp").mkdir()
    with Run(tmp_path):
        assert files_in(tmp_path) == {"run.lock", "weights/last.pth", "notes.tmp"}
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in said] == [
        str(tmp_path / name) for name in ("results.csv.tmp", "weights/last.pth.tmp")
    ]


def test_all_processes_but_the_first_write_nothing(tmp_path: Path) -> None:
    writer = Run(tmp_path)
    writer.save(checkpoint(1))
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    with Run(tmp_path, is_writer=False) as silent:
        silent.save_args(TrainConfig())
        assert finish(silent, [0.1, 0.2], period=1) == [True, True]
        silent.attempt("nothing", lambda: pytest.fail("was called"))
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before
    writer.__exit__()


def test_the_settings_are_kept(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.save_args(TrainConfig(epochs=7))
    assert "epochs: 7\n" in (tmp_path / "args.yaml").read_text()


def test_a_table_that_cannot_be_written_is_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").mkdir()
    run = Run(tmp_path)
    finish(run, [0.1, 0.2, 0.3])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(tmp_path / "results.csv") in said[0]
    assert said[0].endswith("; training continues without it")
    assert load_checkpoint(run.last).training["epoch"] == 3


@pytest.mark.parametrize("settings", [{}, {"ema": False}, {"optimizer": "adamw"}])
def test_a_disk_without_room_for_the_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    config = TrainConfig(project=str(tmp_path / "new"), lr=0.01, ema_memory="recent", **settings)
    model = YoloBody(ModelConfig(1))
    trainer = build_trainer(config, model, 1, 1, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    weights = trainer.average.state_dict()
    saved = Checkpoint(model.config, ("cell",), weights, training=trainer.state_dict())
    with Run(tmp_path) as run:
        run.finish_epoch(saved, {"epoch": 1}, None, True, False)
    best, last = run.best.stat().st_size, run.last.stat().st_size

    def choose(free: float, resumed: Path | None = None) -> Path:
        usage = SimpleNamespace(total=10**12, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        return choose_run_folder(config, model, resumed)

    with pytest.raises(UserError, match=r"new/exp: \d+ MB are free, \d+ MB are needed; .*--project"):
        choose((best + 2 * last) * 0.98)
    assert not (tmp_path / "new").exists()
    assert choose(best + 2 * last) == tmp_path / "new/exp"
    assert choose(last, tmp_path) == tmp_path
    with pytest.raises(UserError, match=r"MB are needed; free some$"):
        choose(last * 0.95, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", raise_os_error)
    assert choose_run_folder(config, model, None) == tmp_path / "new/exp2"


def raise_os_error(*_: object) -> None:
    raise OSError


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.last.mkdir()
    with pytest.raises(UserError, match=r"last\.pth: cannot write: Is a directory") as caught:
        finish(run, [0.1])
    assert caught.value.exit_code == 1


# TensorBoard, in whose place stands a class that keeps what it is told.


class Board:
    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.written: list[tuple[str, float, int]] = []
        self.is_closed = False

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.written.append((name, value, epoch))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(run_module.importlib.util, "find_spec", lambda name: name == "tensorboard" or None)
    return module


def test_events_are_the_rows_but_for_what_is_missing(tmp_path: Path, tensorboard: ModuleType) -> None:
    with Run(tmp_path, {"epoch": 4, "best_map50": None, "risen_epoch": 4}) as run:
        run.finish_epoch(checkpoint(5), {"epoch": 5, "box": 1.5, "map50": None}, None, False, False)
        board = run._board
    assert (board.folder, board.purge_step) == (str(tmp_path), 5)
    assert board.written == [("box", 1.5, 5)]
    assert board.is_closed


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "flush", "close"])
def test_training_goes_on_without_events(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tensorboard: ModuleType,
    method: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "events")

    monkeypatch.setattr(Board, method, fail)
    with Run(tmp_path) as run:
        finish(run, [0.1, 0.2])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("training continues without it")
    assert files_in(tmp_path) == {"results.csv", "weights/best.pth", "weights/last.pth"}


def test_a_tensorboard_that_cannot_be_imported_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tensorboard: ModuleType
) -> None:
    del tensorboard.SummaryWriter
    with Run(tmp_path) as run:
        finish(run, [0.1])
    assert "training continues without it" in capsys.readouterr().err
