from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from utils.cli.errors import UserError
from utils.cli.parser import given_settings
from utils.cli.presets import with_preset
from utils.cli.shared_config import DataConfig
from utils.cli.train_config import TrainConfig
from utils.data.demo import make_demo
from utils.data.input_sizes import InputSizes, build_input_sizes
from utils.data.prepare import prepare_training
from utils.training import run_log
from utils.training.engine import EpochMeter
from utils.training.run_log import EpochTable, RunEstimate

LOSSES = {"box": 1.5, "objectness": 2.25, "class": 0.125}
METER = EpochMeter(steps=1, images=8, seconds=4.0, waited=1.0, lr=0.0025, losses=LOSSES)
ROW = {"epoch": 3, **METER.as_row(), "memory_gb": 1.25}


def test_the_columns_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    EpochTable(9).log({**ROW, "map50": 0.51239, "map50_95": 0.25})
    heading, line = capsys.readouterr().err.splitlines()
    names = "epoch box objectness class mAP50 mAP50-95 lr images/s waiting memory left"
    assert heading.split() == names.split()
    words = "3/9 1.500 2.250 0.125 0.5124 0.2500 0.0025 2.0 25.0% 1.2 GB 0 s"
    assert line.split() == words.split()
    assert len(heading) == len(line)
    for name, word in (("epoch", "3/9"), ("mAP50-95", "0.2500"), ("left", "0 s")):
        assert heading.index(name) + len(name) == line.index(word) + len(word)


@pytest.mark.parametrize("more", [{}, {"map50": None, "map50_95": None}])
def test_what_was_not_measured_is_a_dash(capsys: pytest.CaptureFixture[str], more: dict[str, None]) -> None:
    EpochTable(9).log({**ROW, **more})
    assert capsys.readouterr().err.splitlines()[1].split()[4:6] == ["-", "-"]


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({"unassigned": 2}, "  2 objects without a free anchor"),
        ({"skipped": 3}, "  3 steps skipped"),
        ({"unassigned": 2, "skipped": 1}, "  2 objects without a free anchor  1 step skipped"),
    ],
)
def test_what_went_wrong_stands_at_the_end(
    capsys: pytest.CaptureFixture[str], more: dict[str, int], end: str
) -> None:
    EpochTable(9).log({**ROW, **more})
    assert capsys.readouterr().err.endswith(f" s{end}\n")


def test_the_heading_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    table = EpochTable(99)
    for _ in range(41):
        table.log(ROW)
    lines = capsys.readouterr().err.splitlines()
    assert [place for place, line in enumerate(lines) if "objectness" in line] == [0, 21, 42]


@pytest.mark.parametrize(("first", "epoch", "left"), [(0, 2, "2 min 40 s"), (6, 8, "40 s"), (0, 10, "0 s")])
def test_the_time_left_is_that_of_the_epochs_of_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: int, epoch: int, left: str
) -> None:
    now = [1000.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    table = EpochTable(10, first)
    now[0] += 20.0 * (epoch - first)
    table.log({**ROW, "epoch": epoch})
    assert capsys.readouterr().err.endswith(f"  {left}\n")


def test_the_memory_of_this_process_is_at_least_torchs() -> None:
    assert 0.05 < run_log.peak_memory(torch.device("cpu")) < 500


@pytest.mark.parametrize(
    ("lists", "phi", "measure", "predict"),
    [
        (("trainval",), "none", " --split trainval", ""),
        (("train", "val"), "cbam", "", ""),
        (("train", "test"), "own block.py:SE8", "", " --phi 'own block.py:SE8'"),
    ],
)
def test_next_commands_can_be_run_as_printed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lists: tuple[str, ...],
    phi: str,
    measure: str,
    predict: str,
) -> None:
    folder = tmp_path / "my data"
    make_demo(folder, train=1, val=1, test=1)
    main = folder / "ImageSets" / "Main"
    listed = (main / "train.txt").read_text()
    for path in main.iterdir():
        path.unlink()
    for name in lists:
        (main / f"{name}.txt").write_text(listed)
    data = prepare_training(DataConfig(str(folder)), train=lists[:1], val=("none",))
    run_log.log_next_commands(TrainConfig(data=str(folder), phi=phi), Path("best.pth"), data)
    err = capsys.readouterr().err
    assert f"evaluate.py --weights best.pth{predict} --data '{folder}'{measure}\n" in err
    assert f"predict.py '{folder}/JPEGImages/train_0000.jpg' --weights best.pth{predict}\n" in err
    assert f"export.py --weights best.pth{predict}\n" in err
    assert ("optimistic" in err) == bool(measure)


@pytest.mark.parametrize(
    ("lists", "val", "picture"),
    [
        (("train", "val", "test"), None, "val_0000"),
        (("train", "test"), ("none",), "test_0000"),
        (("train", "val"), ("none",), "val_0000"),
        (("train",), ("none",), "train_0000"),
    ],
)
def test_the_picture_to_predict_is_none_of_training(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lists: tuple[str, ...],
    val: tuple[str, ...] | None,
    picture: str,
) -> None:
    make_demo(tmp_path, train=1, val=1, test=1)
    for path in (tmp_path / "ImageSets" / "Main").iterdir():
        if path.stem not in lists:
            path.unlink()
    data = prepare_training(DataConfig(str(tmp_path)), val=val)
    run_log.log_next_commands(TrainConfig(data=str(tmp_path)), Path("best.pth"), data)
    assert f"predict.py {tmp_path}/JPEGImages/{picture}.jpg " in capsys.readouterr().err


def test_the_data_are_evaluated_as_they_were_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_demo(tmp_path, train=1, val=1, test=1)
    data = prepare_training(DataConfig(str(tmp_path)), train=("train",), val=("none",))
    config = TrainConfig(data=str(tmp_path), unlabelled="background", skip_bad=True, rename=("a=b",))
    run_log.log_next_commands(config, Path("best.pth"), data, amp=True)
    expected = f"--data {tmp_path} --rename a=b --unlabelled background --skip-bad --amp\n"
    assert f"evaluate.py --weights best.pth {expected}" in capsys.readouterr().err


GIVEN = [
    {},
    {"data": "my data", "train": ("a", "b"), "imgsz": (64, 96), "batch_size": 5, "ema": False, "lr": 0.5},
    {"batch_size": 8, "accumulate": 3, "epochs": 7, "freeze_epochs": 2, "demo": True, "amp": False},
    {"batch_size": 1, "imgsz": (96, 96)},
]


@pytest.mark.parametrize("given", GIVEN)
def test_three_commands_that_need_less_memory_can_be_run_as_printed(
    capsys: pytest.CaptureFixture[str], given: dict[str, object]
) -> None:
    config = TrainConfig(**given)
    error = run_out_of_memory(config, given)
    parsed = parse_commands(capsys.readouterr().err)
    smaller = {"imgsz": tuple(max(32, side * 3 // 4 // 32 * 32) for side in config.imgsz)}
    half = {"batch_size": config.batch_size // 2, "accumulate": 2 * config.accumulate}
    frozen = {"freeze_epochs": config.epochs}
    changes = [half, smaller, half | frozen] if config.batch_size > 1 else [smaller, frozen, smaller | frozen]
    assert parsed == [{**given, **change} for change in changes]
    for settings in parsed:
        TrainConfig(**settings)
    assert error.exit_code == 1
    assert f"batch {config.batch_size} at {config.imgsz[0]}x{config.imgsz[1]}" in str(error)
    assert ("--accumulate" in str(error)) == (config.batch_size > 1)


def run_out_of_memory(config: TrainConfig, given: dict[str, object]) -> UserError:
    with pytest.raises(UserError) as caught, run_log.memory_advice(config, given):
        raise MemoryError
    return caught.value


def parse_commands(said: str) -> list[dict[str, object]]:
    """Read the three commands as a shell and then train.py would."""
    parsed = []
    for line in said.splitlines():
        words = shlex.split(line)
        assert words[:3] == ["try:", "python", "train.py"]
        parsed.append(given_settings(TrainConfig, words[3:], prog="train.py", description="", example=""))
    assert len(parsed) == 3
    return parsed


def test_a_resumed_run_that_needs_less_memory_is_a_new_one_from_its_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint says how large a batch is; beside --resume nothing of it may be given."""
    config = TrainConfig(data="mine", epochs=30, batch_size=8, imgsz=(64, 96), phi="eca", ema=False)
    run_out_of_memory(config, {"resume": "exp/weights/last.pth", "epochs": 30})
    for settings in parse_commands(capsys.readouterr().err):
        asked = TrainConfig(**settings)
        assert (asked.resume, asked.weights) == (None, "exp/weights/last.pth")
        assert (asked.data, asked.epochs, asked.phi, asked.ema) == ("mine", 30, "eca", False)
        assert (asked.batch_size, asked.imgsz) != (8, (64, 96))


def test_the_new_run_keeps_heads_that_have_learnt_and_what_a_flag_said_beside_its_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = TrainConfig(**with_preset({"preset": "reference", "mosaic": 0.5}))
    assert config.new_heads
    run_out_of_memory(config, {"resume": "exp/weights/last.pth"})
    for settings in parse_commands(capsys.readouterr().err):
        asked = TrainConfig(**with_preset(settings))
        assert (asked.new_heads, asked.mosaic, asked.loss) == (False, 0.5, "means")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_format_duration(seconds: float, words: str) -> None:
    assert run_log.format_duration(seconds) == words


SIZES = InputSizes((416, 416))


def estimate(device: str = "cpu", done: int = 0, within: int = 0, **settings: object) -> None:
    """Log the estimate of a run over 100 images: steps of 8 images, of 1 s an image behind the first."""
    config = TrainConfig(**{"epochs": 10, **settings})
    sizes = build_input_sizes(config)
    meter = EpochMeter(steps=within, images=8 * within, seconds=999.0)
    estimate = RunEstimate(config, sizes, 100, done, meter, torch.device(device))
    for number in range(4):
        seconds = meter.seconds + (8 if number else 100)
        meter = EpochMeter(steps=meter.steps + 1, images=meter.images + 8, seconds=seconds)
        estimate.update(meter)


@pytest.mark.parametrize(
    ("settings", "done", "first"),
    [
        ({}, 0, "100 images, 10 epochs on cpu: about 16 min 40 s without evaluation"),
        ({}, 4, "100 images, 6 epochs on cpu: about 10 min 00 s without evaluation"),
        ({"freeze_epochs": 4}, 0, "about 26 min 40 s"),  # 4 of 100 s, 6 of 200 s
        ({"freeze_epochs": 4}, 3, "about 21 min 40 s"),
        ({"freeze_epochs": 4}, 7, "about 5 min 00 s"),  # measured without freezing
        ({"freeze_epochs": 10}, 0, "about 16 min 40 s"),
        # Of 32 pixels the sides are 8, 9, 10, 10, 11, 12 and four times 13: 1286 squares, 64 in an epoch.
        ({"grow": True}, 0, "about 33 min 29 s"),
        ({"grow": True}, 4, "about 12 min 58 s"),  # 941 of 121
        ({"grow": True}, 9, "about 1 min 40 s"),
    ],
)
def test_the_estimate_counts_frozen_and_free_epochs_that_are_left(
    capsys: pytest.CaptureFixture[str], settings: dict[str, int], done: int, first: str
) -> None:
    estimate(done=done, **settings)
    lines = capsys.readouterr().err.splitlines()
    assert first in lines[0]
    advice = "shorter: --imgsz 288 takes about half the time"
    advice += ", --freeze-epochs 5 about three quarters" if settings.get("freeze_epochs", 0) < 5 else ""
    assert lines[1:] == ([advice] if done == 0 else [])


def test_nothing_is_estimated_from_one_step_or_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = RunEstimate(TrainConfig(), SIZES, 100, 0, EpochMeter(), torch.device("cpu"))
    for steps, seconds in ((1, 100.0), (2, 104.0)):
        estimate.update(EpochMeter(steps=steps, images=8 * steps, seconds=seconds))
    assert capsys.readouterr().err == ""


def test_short_epochs_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = RunEstimate(TrainConfig(), SIZES, 8, 0, EpochMeter(), torch.device("cpu"))
    for _ in range(4):
        estimate.update(EpochMeter(steps=1, images=8, seconds=2.0))
    assert "8 images, 100 epochs on cpu: about 3 min 20 s" in capsys.readouterr().err


def test_the_part_of_an_epoch_that_is_done_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    estimate(done=9, within=6)  # 48 of 100 images
    assert "100 images, 1 epoch on cpu: about 52 s" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [{"epochs": 1, "imgsz": (32, 32)}, {"device": "cuda"}])
def test_advice_that_would_not_help_is_not_given(
    capsys: pytest.CaptureFixture[str], settings: dict[str, object]
) -> None:
    estimate(**settings)
    assert "shorter" not in capsys.readouterr().err
