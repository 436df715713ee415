from __future__ import annotations

from pathlib import Path

import pytest

from nets.yolo import ModelConfig, YoloBody
from utils.data.demo import make_demo
from utils.data.prepare import prepare_training
from utils.training import report
from utils.training.config import TrainConfig
from utils.training.start import build_criterion

ROW = {
    "epoch": 3,
    "lr": 0.0025,
    "box": 1.5,
    "objectness": 2.25,
    "class": 0.125,
    "images_per_second": 8.04,
    "seconds": 75.2,
    "unassigned": 0,
}


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
def test_in_words(seconds: float, words: str) -> None:
    assert report.in_words(seconds) == words


@pytest.mark.parametrize(
    ("more", "middle", "end"),
    [
        ({}, "", ""),
        ({"map50": None, "map50_95": None}, "", ""),
        ({"map50": 0.0, "map50_95": 0.0}, "map50 0.0000  map50_95 0.0000  ", ""),
        ({"map50": 0.51239}, "map50 0.5124  ", ""),
        ({"unassigned": 2}, "", "  2 objects without a free anchor"),
    ],
)
def test_describe_epoch(more: dict[str, float | None], middle: str, end: str) -> None:
    line = report.describe_epoch("epoch 3/9", {**ROW, **more})
    losses = "epoch 3/9  box 1.500  objectness 2.250  class 0.125  "
    assert line == f"{losses}{middle}lr 0.0025  8.0 images/s  1 min 15 s{end}"


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
    data = prepare_training(folder, train=lists[:1], val=("none",))
    report.log_next_commands(TrainConfig(data=str(folder), phi=phi), Path("best.pth"), data)
    err = capsys.readouterr().err
    assert f"evaluate.py --weights best.pth{predict} --data '{folder}'{measure}\n" in err
    assert f"predict.py '{folder}/JPEGImages/train_0000.jpg' --weights best.pth{predict}\n" in err
    assert f"export.py --weights best.pth{predict}\n" in err
    assert ("flatters" in err) == bool(measure)


@pytest.mark.parametrize(
    ("settings", "done", "first"),
    [
        ({}, 10, "100 images, 0 epochs on cpu: about 0 s"),
        ({}, 0, "100 images, 10 epochs on cpu: about 50 min 00 s"),
        ({}, 4, "100 images, 6 epochs on cpu: about 30 min 00 s"),
        ({"freeze_epochs": 4}, 0, "about 36 min 40 s"),  # 4 of 100 s, 6 of 300 s
        ({"freeze_epochs": 4}, 3, "about 31 min 40 s"),
        ({"freeze_epochs": 4}, 7, "about 15 min 00 s"),
    ],
)
def test_the_estimate_counts_frozen_and_free_epochs_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, int],
    done: int,
    first: str,
) -> None:
    monkeypatch.setattr(report, "estimate_seconds_per_image", lambda *args: 1.0 if args[-1] else 3.0)
    model = YoloBody(ModelConfig(1))
    config = TrainConfig(epochs=10, **settings)
    report.log_estimate(config, model, build_criterion(config, model), 100, done)
    lines = capsys.readouterr().err.splitlines()
    assert first in lines[0]
    assert any("shorter: --imgsz 288 288" in line for line in lines) == (done < 10)


def test_a_short_run_is_not_told_how_to_be_shorter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "estimate_seconds_per_image", lambda *_: 0.1)
    model = YoloBody(ModelConfig(1))
    config = TrainConfig(epochs=1)
    report.log_estimate(config, model, build_criterion(config, model), 100, 0)
    assert "shorter" not in capsys.readouterr().err
