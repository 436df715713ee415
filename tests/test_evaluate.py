from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import evaluate
from nets.structures import Detections
from utils.cli.files import check_output_files
from utils.data.voc_xml import VocObject, write_annotation
from utils.inference.predictor import Predictor


@pytest.fixture
def room(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the weights and two splits of data in VOC layout."""
    (tmp_path / "best.pth").symlink_to(weights)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/JPEGImages/{index}.jpg")
        objects = [VocObject("cat", (10.0, 10.0, 50.0, 40.0), index == 2)]
        write_annotation(tmp_path / f"data/Annotations/{index}.xml", f"{index}.jpg", 80, 60, objects)
    (tmp_path / "data/ImageSets/Main/val.txt").write_text("0\n")
    (tmp_path / "data/ImageSets/Main/test.txt").write_text("0\n1\n2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    return evaluate.main(["--weights", "best.pth", "--data", "data", "--device", "cpu", *argv])


def test_nothing_found_is_zero_not_an_error(room: Path) -> None:
    assert run("--conf", "1") == 0
    metrics = json.loads((room / "runs/evaluate/exp/metrics.json").read_text())
    assert (metrics["map50"], metrics["voc_ap50_area"]) == (0.0, 0.0)


def test_table_files_and_copy(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--conf", "1e-9", "--json", "copy.json") == 0
    out, err = capsys.readouterr()
    assert "weights best.pth" in err
    assert "mAP over 3 images" in out
    *following, picture, _, weights = shlex.split(out.splitlines()[-1])
    assert (following, weights) == (["next:", "python", "predict.py"], "best.pth")
    assert Path(picture).is_file()
    folder = room / "runs/evaluate/exp"
    names = {"args.yaml", "metrics.json", "detections.json", "ground_truth.json", "worst.jpg"}
    charts = {f"{name}_curve.png" for name in ("PR", "P", "R", "F1")} | {"confusion_matrix.png", "errors.png"}
    assert {path.name for path in folder.iterdir()} == names | charts
    metrics = json.loads((folder / "metrics.json").read_text())
    assert json.loads((room / "copy.json").read_text()) == metrics
    check_output_files({"--json": "copy.json"}, {})  # the next one may replace it
    assert (metrics["images"], metrics["weights"], metrics["splits"]) == (3, "best.pth", ["test"])
    assert metrics["per_class"]["cat"]["ground_truths"] == 2  # the third is difficult
    truth = COCO(str(folder / "ground_truth.json"))
    found = json.loads((folder / "detections.json").read_text())
    assert len(truth.loadRes(str(folder / "detections.json")).anns) == len(found) > 0
    assert max(sum(row["image_id"] == image for row in found) for image in (1, 2, 3)) <= 100


def test_split_and_knobs(room: Path) -> None:
    assert run("--split", "val", "--max-det", "2", "--conf", "0", "--imgsz", "96", "--batch-size", "1") == 0
    folder = room / "runs/evaluate/exp"
    assert json.loads((folder / "metrics.json").read_text())["splits"] == ["val"]
    assert len(json.loads((folder / "detections.json").read_text())) <= 2


@pytest.mark.parametrize("flags", [[], ["--amp"]])
def test_amp_is_in_the_log_and_the_next_command_or_advised(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.setattr("utils.inference.predictor.has_fast_bfloat16", lambda device: True)
    assert run("--split", "val", *flags) == 0
    out, err = capsys.readouterr()
    (times,) = (line for line in out.splitlines() if line.startswith("time per image: "))
    assert ("device cpu bfloat16" in err) == bool(flags)
    assert ("(--amp may be faster: this device has fast bfloat16)" in times) == (not flags)
    assert ("--amp" in out.splitlines()[-1]) == bool(flags)


@pytest.mark.parametrize("broken", ["header", "pixels", "annotation"])
def test_a_broken_file_is_an_error_or_counted(
    room: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    path = room / {"annotation": "data/Annotations/1.xml"}.get(broken, "data/JPEGImages/1.jpg")
    path.write_bytes(path.read_bytes()[: {"header": 0, "pixels": 1200, "annotation": 60}[broken]])
    assert run() in (1, 2)
    assert path.name in capsys.readouterr().err
    assert run("--skip-bad") == 0
    assert "mAP over 2 of 3 images" in capsys.readouterr().out
    metrics = json.loads(sorted((room / "runs/evaluate").glob("*/metrics.json"))[-1].read_text())
    assert (metrics["images"], metrics["skipped"]) == (2, 1)


def test_a_class_that_the_weights_lack_is_an_error_or_left_out_by_classes(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [VocObject("zebra", (10.0, 10.0, 50.0, 40.0))]
    write_annotation(room / "data/Annotations/1.xml", "1.jpg", 80, 60, objects)
    assert run() == 2
    err = capsys.readouterr().err
    assert "zebra" in err
    assert "the weights have cat, dog" in err
    assert "--classes FILE" in err
    (room / "known.txt").write_text("cat\ndog\n")
    assert run("--classes", "known.txt") == 0
    assert "objects of unknown classes are skipped: 'zebra' (1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--split", "train"], "train"),
        (["--data", "nowhere"], "nowhere"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--json", "missing/copy.json"], "missing/copy.json"),
        (
            ["--json", "data/Annotations/1.xml"],
            "1.xml: exists and is no report of --json",
        ),
        (["--json", "best.pth"], "--json best.pth: is also the file of --weights"),
        (["--iou-thres", "0.5"], "--nms-iou"),
        (["--conf", "nan"], "--conf"),
        (["--amp", "--weights", "missing.onnx"], "--amp: missing.onnx computes in the number type"),
    ],
)
def test_mistakes_end_in_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], argv: list[str], named: str
) -> None:
    assert run(*argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]


def test_classes_of_the_weights_that_the_data_lack_are_named(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    metrics = json.loads((room / "runs/evaluate/exp/metrics.json").read_text())
    assert metrics["per_class"]["dog"]["ap50"] is None
    assert metrics["confusion"]["labels"] == ["cat", "dog", "background"]
    assert "1 of 2 classes have no ground truth (-)" in capsys.readouterr().out


@pytest.mark.parametrize(("stray", "expected"), [(False, 1.0), (True, 0.5)])
def test_hand_worked_figures_with_a_difficult_object(
    room: Path, monkeypatch: pytest.MonkeyPatch, stray: bool, expected: float
) -> None:
    """Of two cats one is found, behind the difficult one, which does not count, and perhaps a stray."""
    box = torch.tensor([[10.0, 10.0, 50.0, 40.0]])
    far, cat = torch.tensor([[60.0, 45.0, 79.0, 59.0]]), torch.tensor([0])
    second = Detections(far, torch.tensor([0.99]), cat) if stray else Detections.empty()
    answers = [Detections(box, torch.tensor([0.9]), cat), second, Detections(box, torch.tensor([0.95]), cat)]
    monkeypatch.setattr(Predictor, "detect", lambda self, batch, timings=None: answers)
    assert run() == 0
    figures = json.loads((room / "runs/evaluate/exp/metrics.json").read_text())["per_class"]["cat"]
    assert figures["ap50"] == pytest.approx(expected * 51 / 101)  # the recalls 0, 0.01 ... 0.5
    assert figures["voc_ap50_area"] == pytest.approx(expected / 2)
    assert figures["voc_ap50_11point"] == pytest.approx(expected * 6 / 11)


@pytest.mark.parametrize("moved", [0, 30])
def test_boxes_that_are_all_moved_are_said_to_be(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moved: int
) -> None:
    """Six images with a cat in another place each, which the network finds; the annotations are moved."""
    boxes = [(4.0 * number, 5.0, 8.0 * number + 10, 35.0) for number in range(6)]
    for number, (left, top, right, bottom) in enumerate(boxes):
        Image.new("RGB", (90, 60)).save(room / f"data/JPEGImages/{number}.jpg")
        objects = [VocObject("cat", (left + moved, top, right + moved, bottom))]
        write_annotation(room / f"data/Annotations/{number}.xml", f"{number}.jpg", 90, 60, objects)
    (room / "data/ImageSets/Main/test.txt").write_text("\n".join("012345"))
    answers = iter(boxes)

    def detect(self: Predictor, batch: list, timings: object = None) -> list[Detections]:
        found = [torch.tensor([next(answers)]) for _ in batch]
        return [Detections(box, torch.tensor([0.9]), torch.tensor([0])) for box in found]

    monkeypatch.setattr(Predictor, "detect", detect)
    assert run() == 0
    err = capsys.readouterr().err
    said = (
        "boxes shifted by +30 pixels in x and +0 in y: with that undone mAP50 would be about 1.00 instead of"
    )
    assert (said in err) == ("; look at runs/evaluate/exp/worst.jpg" in err) == bool(moved)
    assert ("annotations may have" in err) == bool(moved)


def test_speed_says_its_conditions(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--batch-size", "2") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time per image: ")]
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    assert f"batch 2  64x64  float32  {threads}  cpu  PyTorch {torch.__version__}" in line


def test_evaluate_measures_what_predict_shows_with_tiles_and_flip(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--tile", "32", "--tile-overlap", "0.3", "--flip-test")
    assert run("--split", "val", "--conf", "1e-6", "--max-det", "20", *flags) == 0
    out, err = capsys.readouterr()
    assert "tiles: 12.0 per image, beside the whole image" in err
    command = shlex.split(out.splitlines()[-1])
    assert all(flag in command for flag in flags)
    measured = json.loads((room / "runs/evaluate/exp/detections.json").read_text())
    predictor = Predictor.from_checkpoint(
        "best.pth", device="cpu", conf=1e-6, max_det=20, tile=32, tile_overlap=0.3, flip_test=True
    )
    shown = predictor("data/JPEGImages/0.jpg")
    assert [row["score"] for row in measured] == pytest.approx(shown.scores.tolist(), rel=1e-4)
    conditions = json.loads((room / "runs/evaluate/exp/metrics.json").read_text())["speed_conditions"]
    assert (conditions["tile"], conditions["flip_test"]) == ([32, 32], True)
