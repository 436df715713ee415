from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import train
from nets.yolo import OFFICIAL_ANCHORS, ModelConfig, YoloBody
from utils.config import config_as_dict
from utils.data.voc import VocObject, write_annotation
from utils.errors import UserError
from utils.training import start
from utils.training.config import TrainConfig
from utils.training.run import Run
from utils.weights.checkpoint import load_checkpoint
from utils.weights.load import load_model

ON_DATA = ["--data", "data", "--imgsz", "64", "--weights", "none"]
QUICK = [*ON_DATA, "--workers", "0", "--device", "cpu", "--batch-size", "4"]
COLUMNS = "epoch lr box objectness class images_per_second seconds unassigned map50 map50_95 voc_ap50_area"


@pytest.fixture(scope="module", autouse=True)
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


def run(name: str, *argv: str) -> Path:
    """Train; returns the run's folder."""
    assert train.main([*QUICK, "--name", name, *argv]) == 0
    return Path("runs/train", name)


def weights_of(folder: Path, file: str = "last.pth") -> dict[str, Tensor]:
    return load_checkpoint(folder / "weights" / file).weights


def are_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole() -> Path:
    """A run of two epochs, never interrupted."""
    return run("whole", "--epochs", "2", "--phi", "cbam", "--batch-size", "2")


@pytest.fixture(scope="module")
def short() -> Path:
    """A run of one epoch without evaluation."""
    return run("short", "--epochs", "1", "--val", "none")


class StoppedError(UserError):
    """Raised by what a test put in the place of a function."""


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Give a function that runs the command up to a call in start.py and returns the call's arguments."""

    def catch(function: str, *argv: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            calls.append((args, kwargs))
            raise StoppedError("stopped by the test", exit_code=99)

        with monkeypatch.context() as patch:
            patch.setattr(start, function, stop)
            assert train.main([*QUICK, "--name", "never", *argv]) == 99
        return calls[0]

    return catch


# The shared run: its folder and what is in it.


@pytest.mark.slow
def test_the_run_folder_tells_the_whole_story(whole: Path) -> None:
    files = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert files == {"args.yaml", "results.csv", "weights/best.pth", "weights/last.pth"}
    rows = rows_of(whole)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == COLUMNS.split()
    assert all(float(row[name]) > 0 for row in rows for name in ("box", "objectness", "class", "seconds"))
    assert all(0 <= float(row["map50"]) <= 1 for row in rows)


def test_best_weights_carry_what_defines_the_network(whole: Path) -> None:
    loaded = load_model(str(whole / "weights/best.pth"))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.config == ModelConfig(2, phi="cbam", input_size=(64, 64))
    assert loaded.config.anchors == OFFICIAL_ANCHORS
    best = load_checkpoint(whole / "weights/best.pth")
    assert best.training == {}
    assert best.metrics.keys() == {"map50", "map50_95", "voc_ap50_area"}
    assert best.run_config["imgsz"] == [64, 64]


def test_last_weights_load_without_running_code(whole: Path) -> None:
    content = torch.load(whole / "weights/last.pth", weights_only=True)
    assert content["epoch"] == 2
    assert {"model", "ema", "optimizer", "schedule", "best_map50"} <= content.keys()
    raw, average = content["model"], content["weights"]
    assert any(not torch.equal(raw[name], average[name]) for name in raw)


def test_args_yaml_repeats_the_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = yaml.safe_load((whole / "args.yaml").read_text())
    assert (settings["phi"], settings["epochs"], settings["imgsz"]) == ("cbam", 2, [64, 64])
    seen: list[TrainConfig] = []

    def look(config: TrainConfig, *_: object) -> None:
        seen.append(config)
        raise StoppedError("stopped by the test", exit_code=99)

    monkeypatch.setattr(train, "build_model", look)
    assert train.main(["--config", str(whole / "args.yaml")]) == 99
    assert config_as_dict(seen[0]) == settings


def test_every_parameter_of_the_attention_is_trained(whole: Path) -> None:
    torch.manual_seed(0)
    before = YoloBody(ModelConfig(2, phi="cbam", input_size=(64, 64))).state_dict()
    trained = torch.load(whole / "weights/last.pth", weights_only=True)["model"]
    blocks = [name for name, _ in YoloBody(ModelConfig(2, phi="cbam")).attention.named_parameters()]
    assert {name.split(".")[0] for name in blocks} == {"c4", "c5", "up"}
    still = [
        name for name in blocks if torch.equal(before[f"attention.{name}"], trained[f"attention.{name}"])
    ]
    assert still == []


# Going on, and repeating.


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bits(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_epoch = Run.finish_epoch

    def interrupt(self: Run, *args: Any) -> None:
        finish_epoch(self, *args)
        raise KeyboardInterrupt

    argv = ["--name", "halted", "--epochs", "2", "--phi", "cbam", "--batch-size", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish_epoch", interrupt)
        assert train.main([*QUICK, *argv]) == 130
    halted = Path("runs/train/halted")
    assert [row["epoch"] for row in rows_of(halted)] == ["1"]
    assert train.main(["--resume", str(halted / "weights/last.pth"), "--workers", "0"]) == 0
    assert "after 1 of 2 epochs" in capsys.readouterr().err
    assert not Path("runs/train/halted2").exists()
    ours, theirs = (torch.load(run / "weights/last.pth", weights_only=True) for run in (whole, halted))
    assert are_equal(ours["weights"], theirs["weights"])
    assert are_equal(ours["model"], theirs["model"])
    same = [name for name in COLUMNS.split() if name not in ("images_per_second", "seconds")]
    for row, other in zip(rows_of(whole), rows_of(halted), strict=True):
        assert [row[name] for name in same] == [other[name] for name in same]


@pytest.mark.slow
def test_resuming_with_more_epochs_goes_on(short: Path) -> None:
    longer = Path(shutil.copytree(short, "runs/train/longer"))
    assert train.main(["--resume", str(longer / "weights/last.pth"), "--epochs", "2"]) == 0
    assert [row["epoch"] for row in rows_of(longer)] == ["1", "2"]
    assert rows_of(longer)[0] == rows_of(short)[0]
    assert not are_equal(weights_of(short), weights_of(longer))


@pytest.mark.slow
def test_a_seed_repeats_a_run_and_another_gives_another(short: Path) -> None:
    again = run("again", "--epochs", "1", "--val", "none")
    other = run("other", "--epochs", "1", "--val", "none", "--seed", "1")
    assert are_equal(weights_of(short), weights_of(again))
    assert rows_of(short)[0]["box"] == rows_of(again)[0]["box"] != rows_of(other)[0]["box"]
    assert not are_equal(weights_of(short), weights_of(other))


def test_without_validation_nothing_is_measured_and_best_is_the_last(short: Path) -> None:
    assert "map50" not in rows_of(short)[0]
    best = load_checkpoint(short / "weights/best.pth")
    assert best.metrics == {}
    assert are_equal(best.weights, weights_of(short))


# Flags that change the way of a whole run.


@pytest.mark.slow
def test_frozen_epochs_without_average_and_an_evaluation_every_second_epoch() -> None:
    folder = run(
        "frozen", "--epochs", "3", "--freeze-epochs", "3", "--no-ema", "--eval-interval", "2", "--mosaic", "0"
    )
    content = torch.load(folder / "weights/last.pth", weights_only=True)
    assert content["ema"] is None
    assert are_equal(content["weights"], content["model"])
    torch.manual_seed(0)
    before = YoloBody(ModelConfig(2, input_size=(64, 64))).state_dict()
    changed = {name for name in before if not torch.equal(before[name], content["model"][name])}
    assert not [name for name in changed if name.startswith("backbone")]
    assert {"head_p5.predict.weight", "head_p4.conv.norm.running_mean", "neck_p5.conv.weight"} <= changed
    assert [row["map50"] != "" for row in rows_of(folder)] == [False, True, True]  # the last one always


# Flags that arrive where tests of their own show what they do.


@pytest.mark.parametrize(
    ("flag", "value"), [("lr", 0.5), ("momentum", 0.25), ("weight_decay", 0.125), ("batch_size", 3)]
)
def test_flags_of_the_optimizer(caught: Callable, flag: str, value: float) -> None:
    _, usual = caught("build_optimizer")
    _, changed = caught("build_optimizer", f"--{flag.replace('_', '-')}", str(value))
    assert changed == {**usual, flag: value} != usual


@pytest.mark.parametrize(("epochs", "steps"), [("0", 0), ("1", 2), ("2.5", 5)])
def test_warmup_epochs_become_steps(caught: Callable, epochs: str, steps: int) -> None:
    _, given = caught("build_schedule", "--warmup-epochs", epochs, "--epochs", "7")  # 6 images, 4 a step
    assert given == {"total_steps": 14, "warmup_steps": steps}


@pytest.mark.parametrize(("flag", "index"), [("--mosaic", 0), ("--mixup", 1)])
def test_mosaic_and_mixup_change_the_pictures_until_they_are_closed(
    caught: Callable, flag: str, index: int
) -> None:
    def pictures(probability: str) -> list[list[Tensor]]:
        argv = ["--mosaic", "0", "--mixup", "0", flag, probability, "--epochs", "4", "--close-mosaic", "1"]
        (samples,), _ = caught("build_train_loader", *argv)
        settings = (samples.settings.mosaic, samples.settings.mixup)
        assert settings[index] == float(probability)
        return [[samples[epoch, image][0] for image in range(6)] for epoch in (2, 3)]

    without, always = pictures("0"), pictures("1")
    assert not any(torch.equal(*pair) for pair in zip(without[0], always[0], strict=True))
    assert all(torch.equal(*pair) for pair in zip(without[1], always[1], strict=True))


def test_mosaic_can_stay_open(caught: Callable) -> None:
    (samples,), _ = caught("build_train_loader", "--epochs", "4", "--close-mosaic", "0")
    assert samples.close_epoch == 4


@pytest.mark.parametrize(("value", "count"), [("skip", 3), ("background", 4)])
def test_unlabelled_images(caught: Callable, room: Path, value: str, count: int) -> None:
    flat = room / "flat"  # images and XML side by side
    flat.mkdir(exist_ok=True)
    for index in range(3):
        shutil.copy(room / f"data/JPEGImages/{index}.jpg", flat)
        shutil.copy(room / f"data/Annotations/{index}.xml", flat)
    shutil.copy(room / "data/JPEGImages/3.jpg", flat)
    argv = ["--data", "flat", "--val", "none", "--unlabelled", value]
    (samples,), _ = caught("build_train_loader", *argv)
    assert len(samples) == count


def test_a_broken_image_stops_the_run_unless_it_may_be_skipped(
    caught: Callable, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "data/ImageSets/Main/bad.txt").write_text("0\n1\nbad\n")
    (room / "data/JPEGImages/bad.jpg").write_bytes(b"")
    write_annotation(room / "data/Annotations/bad.xml", "bad.jpg", 80, 60, [VocObject("cat", (1, 1, 9, 9))])
    assert train.main([*QUICK, "--train", "bad", "--val", "none"]) == 2
    assert "bad.jpg" in capsys.readouterr().err
    (samples,), _ = caught("build_train_loader", "--train", "bad", "--val", "none", "--skip-bad")
    assert len(samples) == 2


# Mistakes.


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--data", "nothing"], "--demo"),
        (["--data", "nowhere"], "nowhere"),
        (["--phi", "cbma"], "--phi cbma"),
        (["--freeze-epoch", "1"], "--freeze-epochs"),
        (["--epoch", "1"], "--epochs"),
        (["--lrr", "1"], "did you mean --lr?"),
        (["--epochs", "0"], "--epochs 0"),
        (["--imgsz", "65"], "64 or 96"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--train", "tset"], "tset"),
        (["--resume", "missing.pth"], "--resume"),
        (["--name", "a/b"], "--name"),
    ],
)
def test_bad_usage_ends_in_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], argv: list[str], named: str
) -> None:
    (room / "nothing").mkdir(exist_ok=True)
    assert train.main([*QUICK, *argv]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
    assert not Path("runs/train/exp").exists()


def test_a_loss_that_is_no_number_leaves_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--epochs", "1", "--lr", "1e30", "--warmup-epochs", "0", "--val", "none", "--name", "wild"]
    assert train.main([*QUICK, *argv]) == 1
    assert "try a lower --lr" in capsys.readouterr().err
    assert list(Path("runs/train/wild/weights").iterdir()) == []
