from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.cli.parser import config_as_dict, save_args_yaml
from utils.cli.train_config import TrainConfig
from utils.training.builders import build_model, prepare_process
from utils.training.engine import EpochMeter
from utils.training.resolve import resolve_config
from utils.weights.checkpoint import Checkpoint, save_checkpoint

CPU = torch.device("cpu")
METER = asdict(EpochMeter())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand beside the folder that --data names by default."""
    monkeypatch.chdir(tmp_path)
    Path("VOCdevkit").mkdir()


def store(folder: Path, config: TrainConfig, *, phi: str = "none", **training: object) -> Path:
    """Write the folder of a run with three epochs done; returns its last.pth."""
    path = folder / "weights/last.pth"
    path.parent.mkdir(parents=True)
    save_args_yaml(config, folder / "args.yaml")
    parts = {"schedule": {"step": 9}, **{name: {} for name in ("model", "optimizer", "scaler", "random")}}
    counts = {"epoch": 3, "threads": 1, "processes": 1, "risen_epoch": 1, "skipped_in_a_row": 0}
    state = {**parts, **counts, "ema": None, "meter": None, "best_map50": 0.5, "stopped_early": False}
    state = {name: value for name, value in (state | training).items() if value is not ...}
    stored = config_as_dict(config)
    save_checkpoint(path, Checkpoint(ModelConfig(1, phi=phi), ("cell",), {}, {}, stored, state))
    return path


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """A last.pth of a run of ten epochs, three of them done."""
    return store(tmp_path / "exp", TrainConfig(epochs=10, imgsz=(64, 96), workers=3))


def test_nothing_given_is_the_defaults() -> None:
    assert resolve_config({}) == (TrainConfig(), None, None)
    assert resolve_config({"lr": 0.5})[0] == TrainConfig(lr=0.5)


def test_the_demo_has_its_own_defaults_and_the_user_comes_first() -> None:
    usual, demo = TrainConfig(), resolve_config({"demo": True})[0]
    assert (demo.demo, demo.data) == (True, "runs/demo")
    assert demo.epochs < usual.epochs
    assert demo.imgsz < usual.imgsz
    assert resolve_config({"demo": False})[0] == usual
    config = resolve_config({"demo": True, "epochs": 5, "data": "mine"})[0]
    assert (config.data, config.epochs, config.imgsz) == ("mine", 5, demo.imgsz)


def test_resuming_takes_the_settings_of_the_run(last: Path) -> None:
    config, folder, checkpoint = resolve_config({"resume": str(last), "epochs": 20})
    assert (config.epochs, config.imgsz, config.workers, config.resume) == (20, (64, 96), 3, None)
    assert folder == last.parent.parent
    assert checkpoint is not None
    assert checkpoint.training["epoch"] == 3


def test_resuming_goes_on_in_the_run_s_folder_from_wherever_it_is_typed(
    last: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, typed in ((last.parent, "last.pth"), (last.parent.parent, "weights/last.pth")):
        monkeypatch.chdir(place)
        folder = resolve_config({"resume": typed, "data": "../VOCdevkit"})[1]
        assert folder is not None
        assert folder.resolve() == last.parent.parent.resolve()


def test_resuming_without_the_data_tells_where_it_was_looked_for(last: Path, tmp_path: Path) -> None:
    Path("VOCdevkit").rmdir()
    place = rf"VOCdevkit is missing, relative to the current folder {tmp_path}; .* --data DIR"
    with pytest.raises(UserError, match=place):
        resolve_config({"resume": str(last)})
    assert resolve_config({"resume": str(last), "data": "moved"})[0].data == "moved"
    path = store(tmp_path / "far", TrainConfig(epochs=10, data=str(tmp_path / "gone")))
    with pytest.raises(UserError, match=f"its data {tmp_path}/gone is missing; resume"):
        resolve_config({"resume": str(path)})


def test_the_demo_is_not_drawn_into_a_folder_that_is_named(tmp_path: Path) -> None:
    path = store(tmp_path / "demo", TrainConfig(epochs=10, demo=True, data="runs/demo"))
    assert resolve_config({"resume": str(path)})[0].demo
    assert not resolve_config({"resume": str(path), "data": "mine"})[0].demo


def test_resuming_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        resolve_config({"resume": str(tmp_path / "gone.pth")})


# What --resume refuses, and what torchrun starts again.


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 3}, "3 epochs done; to train longer give a larger --epochs"),
        ({"phi": "se"}, "made with attention=none, you asked for se"),
    ],
)
def test_resuming_what_cannot_go_on_is_refused(last: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve_config({"resume": str(last), **given})


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({}, r"has no training state; resume from the last\.pth beside it"),
        ({"optimizer": {}, "epoch": 3}, r"saved by an older version.*--weights .*x\.pth"),
    ],
)
def test_what_cannot_be_resumed_is_refused(tmp_path: Path, training: dict[str, object], words: str) -> None:
    path = tmp_path / "x.pth"
    save_checkpoint(path, Checkpoint(ModelConfig(1), ("cell",), {}, training=training))
    with pytest.raises(UserError, match=rf"--resume .*x\.pth: {words}"):
        resolve_config({"resume": str(path)})


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"model": ...}, "its 'model' is missing"),
        ({"optimizer": "x"}, "its 'optimizer' is of type str"),
        ({"epoch": 0.5}, "its 'epoch' is 0.5"),
        ({"epoch": True}, "its 'epoch' is True"),
        ({"epoch": -1}, "its 'epoch' is -1"),
        ({"epoch": 11}, "its 'epoch' is 11, of 10 epochs"),
        ({"schedule": {}}, "its 'schedule.step' is missing"),
        *(({"schedule": {"step": step}}, "its 'schedule.step' is ") for step in (-1, 10**12, math.nan, "3")),
        ({"ema": {"updates": -1}}, "its 'ema.updates' is -1"),
        ({"threads": 0}, "its 'threads' is 0"),
        ({"best_map50": math.nan}, "its 'best_map50' is nan"),
        ({"meter": {**METER, "batches": -3}}, "its 'meter.batches' is -3"),
        ({"meter": {**METER, "losses": {}}}, "its 'meter.losses.box' is missing"),
        ({"meter": {**METER, "pace": 1}}, "its 'meter' has 'pace'"),
        ({"data": {"train": {}}}, "its 'data.train.images' is missing"),
        ({"optimizer": {"param_groups": [{"lr": math.nan}]}}, "its 'optimizer.param_groups.0.lr' is not fin"),
        ({"model": {"w": torch.tensor([1, math.inf])}}, "its 'model.w' is not finite"),
    ],
)
def test_a_damaged_training_state_is_refused(tmp_path: Path, training: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=rf"last\.pth: damaged training state: {words}.*; start a new run"):
        resolve_config({"resume": str(store(tmp_path / "exp", TrainConfig(epochs=10), **training))})


def test_auto_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no run with weights/last\.pth in runs/train"):
        resolve_config({"resume": "auto"})
    for age, name in enumerate(["b", "c", "a"]):
        path = store(Path("runs/train", name), TrainConfig(epochs=10))
        os.utime(path, (1000 - age, 1000 - age))
    assert resolve_config({"resume": "auto"})[1] == Path("runs/train/b")


def test_a_run_that_stopped_early_goes_on_only_when_epochs_are_given(tmp_path: Path) -> None:
    path = store(tmp_path / "exp", TrainConfig(epochs=10, patience=2), stopped_early=True)
    with pytest.raises(UserError, match=r"stopped early after 3 epochs .*; to train longer give --epochs"):
        resolve_config({"resume": str(path)})
    assert resolve_config({"resume": str(path), "epochs": 10})[0].epochs == 10


def test_a_block_of_ones_own_must_be_named(tmp_path: Path) -> None:
    path = store(tmp_path / "exp", TrainConfig(epochs=10, phi="own.py:SE8"), phi="own.py:SE8")
    with pytest.raises(UserError, match=r"to import its code add --phi own\.py:SE8"):
        resolve_config({"resume": str(path)})
    assert resolve_config({"resume": str(path), "phi": "own.py:SE8"})[0].phi == "own.py:SE8"


def test_code_that_only_the_settings_name_is_not_imported(tmp_path: Path) -> None:
    path = store(tmp_path / "exp", TrainConfig(epochs=10, phi="mine.py:Block"))  # the network has no block
    with pytest.raises(UserError, match=r"its settings say attention=mine\.py:Block, its network none"):
        resolve_config({"resume": str(path)})


def test_resuming_says_where_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meter = EpochMeter(batches=7, steps=7)
    path = store(tmp_path / "exp", TrainConfig(epochs=10), meter=asdict(meter))
    resolve_config({"resume": str(path)})
    assert capsys.readouterr().err == f"resuming {path} after 3 of 10 epochs and 7 batches\n"


def test_resuming_with_other_classes_is_refused(last: Path) -> None:
    config, _, checkpoint = resolve_config({"resume": str(last), "epochs": 20})
    assert checkpoint is not None
    with pytest.raises(UserError, match=r"the run has the classes .*, the data now zebra"):
        build_model(config, ("zebra",), None, checkpoint)


def test_torchrun_finds_the_run_that_it_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"project": str(tmp_path), "epochs": 10, "imgsz": (64, 96)}
    settled = TrainConfig(**given, lr=0.01 / 10, ema_memory="run")  # for weights that know every class
    for age, name in enumerate(("exp", "exp3", "exp2", "other")):
        store(tmp_path / name, settled)
        os.utime(tmp_path / name / "args.yaml", (1000 + age, 1000 + age))
    assert resolve_config(given)[1:] == (None, None)  # the first time it is a new run
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert resolve_config(given)[1:] == (None, None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    config, folder, checkpoint = resolve_config(given)
    assert (config, folder) == (settled, tmp_path / "exp2")
    assert checkpoint is not None
    assert resolve_config({**given, "seed": 1})[1:] == (None, None)  # a run of other settings
    assert resolve_config({**given, "lr": 0.3})[1:] == (None, None)
    assert resolve_config({**given, "name": "new"})[1:] == (None, None)


def test_torchrun_starts_anew_what_saved_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    given = {"project": str(tmp_path), "epochs": 10}
    (tmp_path / "exp/weights").mkdir(parents=True)
    assert resolve_config(given) == (TrainConfig(**given), None, None)


def test_torchrun_goes_on_with_a_block_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    given = {"project": str(tmp_path), "epochs": 10, "phi": "own.py:SE8"}
    store(tmp_path / "exp", TrainConfig(**given, lr=0.01, ema_memory="recent"), phi="own.py:SE8")
    assert resolve_config(given)[1] == tmp_path / "exp"


# The machine.


@pytest.fixture
def machine() -> Iterator[None]:
    """Give the machine back as it was."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def resumed_with(threads: int, processes: int = 1) -> Checkpoint:
    return Checkpoint(ModelConfig(1), ("cell",), {}, training={"threads": threads, "processes": processes})


@pytest.mark.usefixtures("machine")
def test_deterministic_is_set_and_taken_back() -> None:
    for wanted in (False, True, False):
        prepare_process(TrainConfig(deterministic=wanted), CPU, None)
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert torch.backends.cudnn.benchmark != wanted
    prepare_process(TrainConfig(deterministic=True), CPU, None)
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    prepare_process(TrainConfig(deterministic=True), torch.device("cuda"), None)
    assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("machine")
def test_other_threads_are_warned_of_or_set(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    prepare_process(TrainConfig(), CPU, resumed_with(threads=1))
    assert capsys.readouterr().err == ""
    prepare_process(TrainConfig(), CPU, resumed_with(threads=2))
    said = capsys.readouterr().err
    assert said.startswith("warning: the run began with 2 threads, now 1: ")
    assert "--deterministic restores" in said
    assert torch.get_num_threads() == 1
    prepare_process(TrainConfig(deterministic=True), CPU, resumed_with(threads=2))
    assert capsys.readouterr().err == ""
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("machine")
def test_other_processes_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    prepare_process(TrainConfig(), CPU, resumed_with(threads=torch.get_num_threads(), processes=4))
    assert "began with 4 processes, now 1" in capsys.readouterr().err


def test_sync_bn_needs_gpus() -> None:
    for device in ("cpu", "cuda"):  # a single process in both cases
        with pytest.raises(UserError, match=r"--sync-bn: needs several GPUs.*torchrun"):
            prepare_process(TrainConfig(sync_bn=True), torch.device(device), None)


@pytest.mark.parametrize(
    ("before", "amp", "warned"),
    [("float32", None, False), ("bfloat16", None, True), ("bfloat16", True, False), ("float32", True, True)],
)
@pytest.mark.usefixtures("machine")
def test_another_number_type_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: str,
    amp: bool | None,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # a CPU without bfloat16 instructions
    resumed = resumed_with(threads=torch.get_num_threads())
    resumed.training["precision"] = before
    prepare_process(TrainConfig(amp=amp), CPU, resumed)
    said = capsys.readouterr().err
    now = "bfloat16" if amp else "float32"
    assert said == (
        f"warning: the run began in {before}, now {now}: results and speed will differ\n" if warned else ""
    )
