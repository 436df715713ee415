from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from nets.config import ModelConfig
from nets.structures import Detections
from tests.predict_room import EVERYTHING, run
from utils.cli import console
from utils.cli.parser import parse_config
from utils.cli.predict_config import PredictConfig
from utils.inference import outputs
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.own_block import build_network


def test_pictures_json_and_lines(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "--conf", "1e-6", "--max-det", "3", "--json", "found.jsonl") == 0
    out, err = capsys.readouterr()
    assert "weights best.pth" in err
    assert "2 classes: cat, dog" in err
    lines = out.splitlines()
    assert lines[0].startswith("photos/a.jpg  ")
    assert lines[0].endswith(" ms")
    assert lines[-1] == "images: runs/predict/exp"
    folder = work / "runs/predict/exp"
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "b c.png", "args.yaml"}
    with Image.open(folder / "a.jpg") as picture:
        assert picture.size == (80, 60)
    first, second = (json.loads(line) for line in (work / "found.jsonl").read_text().splitlines())
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


def test_when_nothing_can_be_read_yesterdays_json_is_kept(work: Path) -> None:
    yesterdays = '{"path": "a.jpg"}'
    Path("bad.jpg").write_bytes(b"")
    Path("found.jsonl").write_text(yesterdays)
    assert run("bad.jpg", "--no-save", "--json", "found.jsonl") == 1
    assert Path("found.jsonl").read_text() == yesterdays


def test_a_reader_of_stdout_who_left_costs_no_detections(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_reads(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(outputs, "print", nobody_reads, raising=False)
    monkeypatch.setattr(console, "_silence", lambda *_: None)
    assert run("photos", "--no-save", "--conf", "1", "--json", "found.jsonl") == 1
    assert len(Path("found.jsonl").read_text().splitlines()) == 1


def test_nothing_found_is_no_failure(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos/a.jpg", "--conf", "1") == 0
    assert "photos/a.jpg  0 objects  " in capsys.readouterr().out
    assert (work / "runs/predict/exp/a.jpg").is_file()


def test_no_save_leaves_nothing_behind(work: Path) -> None:
    before = set(work.rglob("*"))
    assert run("photos", "--no-save") == 0
    assert set(work.rglob("*")) == before


def test_only_keeps_the_named_classes(work: Path) -> None:
    flags = ("--no-save", "--conf", "1e-6", "--json", "found.jsonl")
    assert run("photos/a.jpg", *flags, "--only", "dog") == 0
    found = json.loads((work / "found.jsonl").read_text())["detections"]
    assert {(one["label"], one["class_id"]) for one in found} == {("dog", 1)}


@pytest.mark.parametrize("batch_size", ["2", "5"])
def test_batches_change_nothing(work: Path, batch_size: str) -> None:
    flags = ("--no-save", "--conf", "1e-6", "--json")
    assert run("photos", *flags, "one.jsonl") == 0
    assert run("photos", *flags, "many.jsonl", "--batch-size", batch_size) == 0
    one, many = (
        [json.loads(line) for line in (work / name).read_text().splitlines()]
        for name in ("one.jsonl", "many.jsonl")
    )
    for single, batched in zip(one, many, strict=True):
        assert single["path"] == batched["path"]
        assert len(single["detections"]) == len(batched["detections"])
        for left, right in zip(single["detections"], batched["detections"], strict=True):
            assert left["box"] == pytest.approx(right["box"], abs=0.1)


def test_bad_files_are_named_counted_and_passed_over(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "photos/bad.jpg").write_bytes((work / "photos/a.jpg").read_bytes()[:500])
    (work / "photos/notes.txt").write_text("not asked for")
    assert run("photos") == 1
    out, err = capsys.readouterr()
    assert err.count("warning: photos/bad.jpg") == 1
    assert "skipped 1 of 3 images" in err
    assert "photos/a.jpg" in out
    assert "photos/b c.png" in out
    assert "notes.txt" not in out + err


def test_only_ten_bad_files_are_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (work / f"photos/bad{number}.jpg").write_bytes(b"")
    assert run("photos", "--no-save") == 1
    err = capsys.readouterr().err
    assert err.count("warning: photos/bad") == 10
    assert "and 2 more" in err
    assert "skipped 12 of 14 images" in err


@pytest.mark.parametrize("is_fast", [False, True])
def test_amp_computes_in_bfloat16_and_warns_where_that_is_slow(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_fast: bool
) -> None:
    monkeypatch.setattr("utils.inference.predictor.has_fast_bfloat16", lambda device: is_fast)
    scores = []
    for flags in ([], ["--amp"]):
        assert run("photos", "--no-save", "--json", "found.jsonl", "--conf", "1e-6", *flags) == 0
        lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
        scores.append([found["score"] for line in lines for found in line["detections"]])
        err = capsys.readouterr().err
        assert ("device cpu bfloat16  " in err) == ("--amp" in flags)
        slow = "warning: --amp: this CPU is slower in bfloat16 than in float32; leave"
        assert (slow in err) == ("--amp" in flags and not is_fast)
    assert scores[0] != scores[1]
    assert scores[0][:10] == pytest.approx(scores[1][:10], rel=0.05)


@pytest.mark.parametrize(
    ("argv", "status", "named"),
    [
        ([], 2, "SOURCE"),
        (["nowhere.jpg"], 2, "nowhere.jpg"),
        (["notes.txt"], 1, "notes.txt"),
        (["notes.txt", "empty.jpg"], 1, "none of 2 images"),
        (["nothing"], 2, "nothing"),
        (["photos", "--only", "zebra"], 2, "--only zebra"),
        (["photos", "--json", "photos/a.jpg"], 2, "photos/a.jpg: exists and is no report of --json"),
        (["photos", "--json", "missing/found.jsonl"], 2, "missing/found.jsonl"),
        (["photos", "--json", "nothing"], 2, "--json nothing: is a folder"),
        (["photos", "--project", ".", "--name", "photos", "--exist-ok"], 2, "also a source"),
        (["photos", "--weights", "missing.pth"], 2, "missing.pth"),
        (["photos", "--conf-thres", "0.3"], 2, "--conf"),
        (["photos", "--amp", "--weights", "missing.onnx"], 2, "--amp: missing.onnx computes"),
        (["photos", "--amp", "--weights", "missing.ncnn.param"], 2, "leave --amp out"),
        (["photos", "--attention-maps"], 2, "--attention-maps: these weights have no attention block"),
        (["photos", "--heatmap", "zebra"], 2, "--heatmap zebra: not among the classes cat, dog"),
        (["photos", "--heatmap", "photos/a.jpg"], 2, "put the sources before --heatmap"),
        (["--heatmap", "photos"], 2, "python predict.py photos --heatmap"),
        (["photos", "--no-save", "--heatmap"], 2, "--no-save"),
        (["photos", "--no-save", "--attention-maps"], 2, "--no-save"),
        (
            ["photos", "--tile", "--heatmap"],
            2,
            "--heatmap: explains the whole image, seen once; remove --tile",
        ),
        (["photos", "--flip-test", "--attention-maps"], 2, "remove --flip-test"),
        (["photos", "--tile", "20"], 2, "--tile 20: must be from 32 to 4096"),
        (["photos", "--tile-overlap", "0.3"], 2, "--tile-overlap: needs --tile"),
        (["photos", "--tile", "--tile-overlap", "1"], 2, "--tile-overlap 1.0: must be"),
        (["--tile", "photos"], 2, "put other arguments before --tile"),
        (["photos", "--augment"], 2, "here it is --flip-test"),
    ],
)
def test_mistakes_end_in_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, named: str
) -> None:
    (work / "notes.txt").write_text("no picture")
    (work / "empty.jpg").write_bytes(b"")
    (work / "nothing").mkdir()
    pictures = {path: path.read_bytes() for path in (work / "photos").iterdir()}
    assert predict.main([*argv] if "--weights" in argv else [*argv, "--weights", "best.pth"]) == status
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
    assert {path: path.read_bytes() for path in pictures} == pictures


def make_weights(path: Path, phi: str) -> None:
    """Write untrained weights with attention for cat and dog at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = build_network(ModelConfig(2, phi=phi, input_size=(64, 64)))
    save_checkpoint(path, Checkpoint(model.config, ("cat", "dog"), model.state_dict()))


@pytest.fixture
def cbam_room(work: Path) -> Path:
    (work / "best.pth").unlink()
    make_weights(work / "best.pth", "cbam")
    return work


def test_explanations_are_pictures_more_and_change_nothing(cbam_room: Path) -> None:
    taken = ("photos/a_attention.jpg", "photos/a_heatmap.jpg")  # their own pictures keep these names
    for name in taken:
        (cbam_room / name).write_bytes((cbam_room / "photos/a.jpg").read_bytes())
    sources = {path: path.read_bytes() for path in (cbam_room / "photos").iterdir()}
    flags = ("--conf", "1e-6", "--max-det", "5", "--batch-size", "3", "--imgsz", "64x96", "--json")
    assert run("photos", *flags, "plain.jsonl", "--name", "plain") == 0
    assert run("photos", *flags, "more.jsonl", "--name", "more", "--attention-maps", "--heatmap") == 0
    assert (cbam_room / "plain.jsonl").read_text() == (cbam_room / "more.jsonl").read_text()
    plain, more = cbam_room / "runs/predict/plain", cbam_room / "runs/predict/more"
    ordinary = {"a.jpg", "a_attention.jpg", "a_heatmap.jpg", "b c.png", "args.yaml"}
    assert {path.name for path in plain.iterdir()} == ordinary
    for name in ordinary - {"args.yaml"}:
        assert (plain / name).read_bytes() == (more / name).read_bytes()
    extra = {path.name for path in more.iterdir()} - ordinary
    ends = [f"_{kind}" for kind in ("attention", "heatmap")]
    assert extra == {
        *(f"a{end}_2.jpg" for end in ends),
        *(f"a{own}{end}.jpg" for own in ends for end in ends),
        *(f"b c{end}.jpg" for end in ends),
    }
    sizes = {"a_heatmap_2.jpg": (80, 60), "b c_heatmap.jpg": (30, 90)}
    for name in extra:
        with Image.open(more / name) as picture:
            picture.load()
            assert picture.size == sizes.get(name, picture.size)
    assert {path: path.read_bytes() for path in (cbam_room / "photos").iterdir()} == sources


def test_no_detection_gives_a_line_and_no_heat_map(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos/a.jpg", "--conf", "1", "--heatmap") == 0
    assert "photos/a.jpg: no object found, so there is no heat map" in capsys.readouterr().err
    assert run("photos/a.jpg", "--conf", "1e-6", "--only", "cat", "--heatmap", "dog") == 0
    assert "photos/a.jpg: no dog found, so there is no heat map" in capsys.readouterr().err
    assert not list((work / "runs").rglob("*heatmap*"))


def test_the_heat_map_is_of_the_named_class(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = []

    def note(predictor: object, prepared: object, found: Detections) -> np.ndarray:
        explained.append(found.labels.tolist())
        return np.zeros((4, 4), dtype=np.float32)

    monkeypatch.setattr("utils.inference.explain.heat_map", note)
    flags = ("photos/a.jpg", "--conf", "1e-6", "--json", "found.jsonl")
    assert run(*flags, "--heatmap", "dog") == 0
    assert run(*flags, "--heatmap") == 0
    labels = [one["class_id"] for one in json.loads((work / "found.jsonl").read_text())["detections"]]
    assert set(labels) == {0, 1}
    assert explained == [[1] * labels.count(1), labels]


def test_own_block_without_gates_is_said_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from torch import nn\nclass Plain(nn.Dropout):\n    def __init__(self, channels):\n"
    (work / "own.py").write_text(text + "        super().__init__()\n")
    make_weights(work / "own.pth", "own.py:Plain")
    argv = ["photos", "--weights", "own.pth", "--phi", "own.py:Plain", "--attention-maps", "--heatmap"]
    assert predict.main([*argv, "--conf", "1e-6", "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert err.count("attention at c4 (Plain) has no gates to draw") == 1
    names = {path.name for path in (work / "runs/predict/exp").iterdir()}
    assert names == {"a.jpg", "a_heatmap.jpg", "b c.png", "b c_heatmap.jpg", "args.yaml"}


def test_own_block_with_gates_is_drawn(work: Path) -> None:
    text = "import torch\nfrom torch import nn\nclass Own(nn.Identity):\n    def gates(self, x):\n"
    (work / "own.py").write_text(text + "        return {'mine': torch.sigmoid(x)}\n")
    make_weights(work / "own.pth", "own.py:Own")
    argv = ["photos/a.jpg", "--weights", "own.pth", "--phi", "own.py:Own", "--attention-maps"]
    assert predict.main([*argv, "--device", "cpu"]) == 0
    assert (work / "runs/predict/exp/a_attention.jpg").is_file()


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tiff", ".jpg"])
def test_an_animation_is_said_to_be_one(work: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    pictures = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    more = {"save_all": True, "append_images": pictures[1:]} if suffix != ".jpg" else {}
    pictures[0].save(f"a{suffix}", **more)
    assert run(f"a{suffix}", "--no-save") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"a{suffix}  ")
    said = f"a{suffix}: an animation or pages, 3 images; only the first is used"
    assert (said in err) == bool(more)


def test_tiles_and_the_mirrored_image_are_logged_and_change_the_detections(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flags in {"once": (), "tile": ("--tile", "32"), "flip": ("--flip-test",)}.items():
        assert run("photos", *EVERYTHING, "--json", f"{name}.jsonl", *flags) == 0
    err = capsys.readouterr().err
    assert "tiles: 32x32 pixels, overlap 0.2, beside the whole image" in err
    assert "an image 80 pixels wide and 60 high takes 9 tiles, and once the whole image" in err
    assert "--flip-test: the mirrored image too, which takes twice the time" in err
    assert len({(work / f"{name}.jsonl").read_text() for name in ("once", "tile", "flip")}) == 3
