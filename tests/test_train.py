from __future__ import annotations

import csv
import json
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import evaluate
import export
import predict
import train
from nets import loss
from nets.config import OFFICIAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.parser import config_as_dict
from utils.cli.train_config import TrainConfig
from utils.export.exporter import FORMATS
from utils.training import builders
from utils.training.run_folder import Run
from utils.vision.plots.training_curves import plot_results
from utils.weights.checkpoint import load_checkpoint
from utils.weights.load import load_model

ON_DATA = ["--data", "data", "--imgsz", "64", "--weights", "none"]
QUICK = [*ON_DATA, "--workers", "0", "--device", "cpu", "--batch-size", "4"]
COLUMNS = (
    "epoch lr box objectness class images_per_second seconds waiting unassigned skipped memory_gb "
    "map50 map50_95 voc_ap50_area"
)
TIMES = ("images_per_second", "seconds", "waiting", "memory_gb")


pytestmark = pytest.mark.usefixtures("room")


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


# The shared run: its folder and what is in it.


@pytest.mark.slow
def test_the_run_folder_tells_the_whole_story(whole: Path) -> None:
    files = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    charts = {"labels.png", "results.png", "PR_curve.png", "confusion_matrix.png"}
    pictures = {*charts, "train_batch0.jpg", "val_batch0.jpg"}
    tables = {"args.yaml", "metrics.json", "results.csv"}
    assert files == {*pictures, *tables, "weights/best.pth", "weights/last.pth"}
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
        raise UserError("stopped by the test", exit_code=99)

    monkeypatch.setattr(builders, "build_model", look)
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
    same = [name for name in COLUMNS.split() if name not in TIMES]
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


# From training to exported models.


def detections_of(argv: list[str]) -> list[list[dict[str, Any]]]:
    """Return what predict.py finds in each image."""
    flags = ["--conf", "0.001", "--max-det", "5", "--device", "cpu", "--no-save", "--json", "found.jsonl"]
    assert predict.main(["data/JPEGImages", *argv, *flags]) == 0
    return [json.loads(line)["detections"] for line in Path("found.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_wide_input_from_training_to_every_export(capsys: pytest.CaptureFixture[str]) -> None:
    formats = [name for name, form in FORMATS.items() if all(map(find_spec, form.packages))]
    flags = ["--epochs", "3", "--lr", "0.05", "--val", "train", "--mosaic", "0"]
    folder = run("wide", "--imgsz", "64", "96", *flags)
    best = ["--weights", str(folder / "weights/best.pth")]
    measured = ["--data", "data", "--split", "train", "--device", "cpu", "--project", "evaluated"]
    assert evaluate.main([*best, *measured]) == 0
    map50 = json.loads(Path("evaluated/exp/metrics.json").read_text())["map50"]
    expected = detections_of(best)
    assert map50 > 0
    assert map50 == pytest.approx(max(float(row["map50"]) for row in rows_of(folder)), rel=1e-3)
    assert export.main([*best, "--project", "exported", "--format", *formats]) == 0
    said = capsys.readouterr()
    assert said.err.count("input 64x96") == 3  # of predict.py, evaluate.py and export.py
    command = "next: python predict.py photo.jpg "
    models = [line.removeprefix(command) for line in said.out.splitlines() if line.startswith(command)]
    assert len(models) == len(formats) >= 3
    for model in map(shlex.split, models):
        found = detections_of(model)
        assert capsys.readouterr().err.count("input 64x96") == 1
        assert len(found) == 8
        for ours, theirs in zip(expected, found, strict=True):
            best_box = pytest.approx(ours[0]["box"], abs=0.1)
            scores = [one["score"] for one in theirs if one["box"] == best_box]
            assert ours[0]["score"] in [pytest.approx(score, abs=1e-4) for score in scores]


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
        *(
            (["--overfit", "2", *flags], f"--overfit 2: trains without augmentation; remove {flags[0]}")
            for flags in (
                ["--multi-scale"],
                ["--balance"],
                ["--augment", "own.yaml"],
                ["--augment", "own.py:build"],
            )
        ),
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


def test_a_new_term_of_the_loss_is_shown_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = loss.YoloLoss.forward

    def with_size(self: loss.YoloLoss, raw_maps: Any, *args: Any) -> dict[str, torch.Tensor]:
        return {**usual(self, raw_maps, *args), "size": loss.WEIGHTS["size"] * raw_maps[0].square().mean()}

    monkeypatch.setitem(loss.WEIGHTS, "size", 0.5)
    monkeypatch.setattr(loss.YoloLoss, "forward", with_size)
    rows = rows_of(run("term", "--epochs", "1", "--val", "none"))
    heading = next(
        line for line in capsys.readouterr().err.splitlines() if "objectness" in line and "images/s" in line
    )
    assert heading.split()[:5] == ["epoch", "box", "objectness", "class", "size"]
    assert float(rows[0]["size"]) > 0
    lines = plot_results(Path("curves.png"), rows).axes[0].lines
    assert [line.get_label() for line in lines] == ["box", "objectness", "class", "size"]
