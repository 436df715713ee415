from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from nets.yolo import ModelConfig, YoloBody
from utils.config import PredictConfig, parse_config
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for cat and dog at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, ("cat", "dog"), model.state_dict()))
    return path


@pytest.fixture
def room(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the weights and a folder `photos` of two pictures."""
    (tmp_path / "best.pth").symlink_to(weights)
    (tmp_path / "photos").mkdir()
    for name, size in (("a.jpg", (60, 80)), ("b c.png", (90, 30))):
        pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    return predict.main([*argv, "--weights", "best.pth", "--device", "cpu"])


def test_pictures_json_and_lines(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "--conf", "1e-6", "--max-det", "3", "--json", "found.jsonl") == 0
    out, err = capsys.readouterr()
    assert "weights best.pth" in err
    assert "2 classes: cat, dog" in err
    lines = out.splitlines()
    assert lines[0].startswith("photos/a.jpg  ")
    assert lines[0].endswith(" ms")
    assert lines[-1] == "pictures: runs/predict/exp"
    folder = room / "runs/predict/exp"
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "b c.png", "args.yaml"}
    with Image.open(folder / "a.jpg") as picture:
        assert picture.size == (80, 60)
    first, second = (json.loads(line) for line in (room / "found.jsonl").read_text().splitlines())
    assert (first["path"], first["width"], first["height"]) == ("photos/a.jpg", 80, 60)
    assert (second["width"], second["height"]) == (30, 90)
    assert 1 <= len(first["detections"]) <= 3
    for found in first["detections"]:
        assert found["label"] == ("cat", "dog")[found["class_id"]]
        x1, y1, x2, y2 = found["box"]
        assert 0 <= x1 < x2 <= 80
        assert 0 <= y1 < y2 <= 60
    again = ["--config", str(folder / "args.yaml")]
    config = parse_config(PredictConfig, again, prog="", description="", example="")
    assert (config.sources, config.max_det) == (("photos",), 3)


def test_nothing_found_is_no_failure(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos/a.jpg", "--conf", "1") == 0
    assert "photos/a.jpg  0 objects  " in capsys.readouterr().out
    assert (room / "runs/predict/exp/a.jpg").is_file()


def test_no_save_leaves_nothing_behind(room: Path) -> None:
    before = set(room.rglob("*"))
    assert run("photos", "--no-save") == 0
    assert set(room.rglob("*")) == before


def test_only_keeps_the_named_classes(room: Path) -> None:
    flags = ("--no-save", "--conf", "1e-6", "--json", "found.jsonl")
    assert run("photos/a.jpg", *flags, "--only", "dog") == 0
    found = json.loads((room / "found.jsonl").read_text())["detections"]
    assert {(one["label"], one["class_id"]) for one in found} == {("dog", 1)}


@pytest.mark.parametrize("batch_size", ["2", "5"])
def test_batches_change_nothing(room: Path, batch_size: str) -> None:
    flags = ("--no-save", "--conf", "1e-6", "--json")
    assert run("photos", *flags, "one.jsonl") == 0
    assert run("photos", *flags, "many.jsonl", "--batch-size", batch_size) == 0
    one, many = (
        [json.loads(line) for line in (room / name).read_text().splitlines()]
        for name in ("one.jsonl", "many.jsonl")
    )
    for single, batched in zip(one, many, strict=True):
        assert single["path"] == batched["path"]
        assert len(single["detections"]) == len(batched["detections"])
        for left, right in zip(single["detections"], batched["detections"], strict=True):
            assert left["box"] == pytest.approx(right["box"], abs=0.1)


def test_bad_files_are_named_counted_and_passed_over(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "photos/bad.jpg").write_bytes((room / "photos/a.jpg").read_bytes()[:500])
    (room / "photos/notes.txt").write_text("not asked for")
    assert run("photos") == 1
    out, err = capsys.readouterr()
    assert err.count("warning: photos/bad.jpg") == 1
    assert "skipped 1 of 3 images" in err
    assert "photos/a.jpg" in out
    assert "photos/b c.png" in out
    assert "notes.txt" not in out + err


def test_only_ten_bad_files_are_named(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (room / f"photos/bad{number}.jpg").write_bytes(b"")
    assert run("photos", "--no-save") == 1
    err = capsys.readouterr().err
    assert err.count("warning: photos/bad") == 10
    assert "and 2 more" in err
    assert "skipped 12 of 14 images" in err


@pytest.mark.parametrize(
    ("argv", "status", "named"),
    [
        ([], 2, "SOURCE"),
        (["nowhere.jpg"], 2, "nowhere.jpg"),
        (["notes.txt"], 1, "notes.txt"),
        (["notes.txt", "empty.jpg"], 1, "none of 2 images"),
        (["nothing"], 2, "nothing"),
        (["photos", "--only", "zebra"], 2, "--only zebra"),
        (["photos", "--json", "photos/a.jpg"], 2, "also a source"),
        (["photos", "--json", "missing/found.jsonl"], 1, "missing/found.jsonl"),
        (["photos", "--project", ".", "--name", "photos", "--exist-ok"], 2, "also a source"),
        (["photos", "--weights", "missing.pth"], 2, "missing.pth"),
        (["photos", "--conf-thres", "0.3"], 2, "--conf"),
    ],
)
def test_mistakes_end_in_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, named: str
) -> None:
    (room / "notes.txt").write_text("no picture")
    (room / "empty.jpg").write_bytes(b"")
    (room / "nothing").mkdir()
    pictures = {path: path.read_bytes() for path in (room / "photos").iterdir()}
    assert predict.main([*argv] if "--weights" in argv else [*argv, "--weights", "best.pth"]) == status
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
    assert {path: path.read_bytes() for path in pictures} == pictures


def test_help_names_every_daily_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("SOURCE", "--conf", "--json", "--only", "--no-save", "example:"):
        assert flag in out
