import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compare
import evaluate
import train
from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from utils.compare import cost, runner
from utils.data.voc_xml import VocObject, write_annotation
from utils.training import train_loop
from utils.weights.checkpoint import Checkpoint, save_checkpoint

QUICK = ["--data", "data", "--imgsz", "64", "--weights", "none", "--workers", "0", "--device", "cpu"]
QUICK += ["--batch-size", "4", "--epochs", "1"]


@pytest.fixture(autouse=True)
def room(tmp_path, monkeypatch):
    """A folder to work in, with six images to train on and two to select on, cats and dogs."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/JPEGImages/{index}.jpg")
        objects = [VocObject(("cat", "dog")[index % 2], (10.0, 10.0, 50.0, 40.0 + index))]
        write_annotation(tmp_path / f"data/Annotations/{index}.xml", f"{index}.jpg", 80, 60, objects)
    (tmp_path / "data/ImageSets/Main/train.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (tmp_path / "data/ImageSets/Main/val.txt").write_text("6\n7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "_ROUNDS", 3)  # no test asks how long a network takes


class Call:
    """In the place of a process: the same call in this one, which has torch, and without pictures."""

    def __init__(self, command, stdout):
        _, script, *argv = command
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train_loop, "draw_data", lambda _: None)
            patch.setattr(train_loop, "draw_results", lambda *_: None)
            self.status = {"train.py": train, "evaluate.py": evaluate}[Path(script).name].main(argv)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return self.status


def table(name="exp"):
    with open(f"runs/compare/{name}/table.csv", newline="") as file:
        return {row["block"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_only_the_cheap_columns(capsys):
    assert compare.main(["--no-train", "--phi", "none", "eca", "--imgsz", "64"]) == 0
    rows = table()
    assert [rows[block]["parameters"] for block in ("none", "eca")] == ["5918006", "5918021"]
    assert rows["eca"]["map50_mean"] == ""
    assert "| eca | 5,918,021 |" in capsys.readouterr().out


@pytest.mark.slow
def test_networks_have_the_heads_of_the_weights_that_they_start_from():
    three = YoloBody(ModelConfig(2, anchors=USUAL_ANCHORS[3][0], anchor_masks=USUAL_ANCHORS[3][1]))
    save_checkpoint(Path("three.pth"), Checkpoint(three.config, ("cat", "dog"), three.state_dict()))
    costs = ["--no-train", "--phi", "none", "--imgsz", "64", "--data", "data", "--weights", "three.pth"]
    for name, heads in ("own", []), ("two", ["--heads", "2"]):
        assert compare.main([*costs, "--name", name, *heads]) == 0
    counted = [int(table(name)["none"]["parameters"]) for name in ("own", "two")]
    two = YoloBody(ModelConfig(2))
    assert counted == [sum(p.numel() for p in model.parameters()) for model in (three, two)]


@pytest.mark.slow
def test_a_table_of_costs_never_replaces_another(capsys):
    for _ in range(2):
        assert compare.main(["--no-train", "--phi", "none", "--imgsz", "64"]) == 0
    assert table("exp2")["none"]["parameters"] == "5918006"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--val", "none"], "--val none: leaves nothing to compare on"),
        (["--split", "nosuch"], "nosuch"),
        (["--phi", "none", "nofile.py:X"], "--phi: attention 'nofile.py:X': FileNotFoundError"),
        (["--seeds", "3-1"], "--seeds 3-1: needs whole numbers from 0 to 4294967295, or a range"),
        (["--seeds", "0-2", "1"], "--seeds 0-2 1: a seed is given twice"),
        (["--from", "nowhere"], "--from nowhere: not the folder of a training run"),
    ],
)
def test_what_cannot_be_compared_is_said_before_the_first_run(argv, words, capsys):
    grid = [] if "--from" in argv else [*QUICK, "--phi", "none"]
    assert compare.main([*grid, *argv]) == 2
    assert words in capsys.readouterr().err
    assert not Path("runs/compare").exists()


def test_bad_data_stop_it_before_the_first_run(capsys):
    Path("data/Annotations/5.xml").write_text("<annotation>")
    assert compare.main([*QUICK, "--phi", "none"]) == 2
    assert "5.xml" in capsys.readouterr().err
    assert not Path("runs/compare").exists()


@pytest.mark.slow
def test_a_grid_goes_on_where_it_stopped_and_its_runs_can_be_tabulated(capfd, monkeypatch):
    assert compare.main([*QUICK, "--phi", "se", "--seeds", "0"]) == 0  # by a process, as everywhere
    first = Path("runs/compare/exp/se-seed0/weights/last.pth").stat().st_mtime_ns
    assert "se | " in capfd.readouterr().out
    monkeypatch.setattr(runner.subprocess, "Popen", Call)
    grid = [*QUICK, "--phi", "none", "se", "--seeds", "0-1"]
    assert compare.main(grid) == 0
    log = capfd.readouterr().err
    assert "3 of 4 runs left, 6 images each" in log
    assert "run 3 of 4: python train.py --phi none --seed 1" in log
    assert "run 2 of 4" not in log
    assert Path("runs/compare/exp/se-seed0/weights/last.pth").stat().st_mtime_ns == first
    assert table()["se"]["seeds"] == "0 1"
    assert table()["se"]["map50_95_difference_low"] != ""
    assert Path("runs/compare/exp/comparison.png").exists()

    assert compare.main([*grid, "--epochs", "2"]) == 2
    assert "other settings: epochs 1 (now 2)" in capfd.readouterr().err

    annotation = Path("data/Annotations/7.xml")
    before = annotation.read_text()
    annotation.write_text(before.replace("<xmax>50", "<xmax>60"))
    assert compare.main([*grid[:-3], "eca", *grid[-3:]]) == 2
    words = "the data have changed since it was trained: val has as many objects as the run"
    assert f"none-seed0: {words}" in capfd.readouterr().err.replace("\n", " ")
    assert not Path("runs/compare/exp/eca-seed0").exists()
    annotation.write_text(before)

    runs = [f"runs/compare/exp/{run}" for run in ("none-seed0", "se-seed0")]
    assert compare.main(["--from", *runs, "--name", "again", "--split", "train"]) == 0
    assert table("again")["se"]["seeds"] == "0"
    assert Path(runs[0], "report/metrics.json").exists()
    assert table("again")["se"]["map50_images_low"] != ""  # on one split the images are paired too


@pytest.mark.slow
def test_two_recipes_are_compared_by_one_command(capfd, monkeypatch):
    monkeypatch.setattr(runner.subprocess, "Popen", Call)
    grid = [*QUICK, "--phi", "none", "--seeds", "0", "1", "--preset", "default", "reference"]
    assert compare.main(grid) == 0
    assert "4 of 4 runs left, 6 images each" in capfd.readouterr().err
    default, reference = table().values()
    assert default["parameters"] == reference["parameters"] != ""
    assert (default["verdict"], reference["seeds"]) == ("", "0 1")
    assert reference["map50_95_difference_low"] != ""


@pytest.mark.slow
def test_a_run_that_fails_stops_the_grid_and_says_how_to_go_on(capfd, monkeypatch):
    monkeypatch.setattr(runner.subprocess, "Popen", Call)
    Path("runs/compare/exp").mkdir(parents=True)
    Path("runs/compare/exp/none-seed0").write_text("in the way")
    assert compare.main([*QUICK, "--phi", "none", "--seeds", "0"]) == 1
    assert "none-seed0: this run failed; fix it and rerun the same command" in capfd.readouterr().err
