"""detect.py, which stands alone, against Predictor on the same pictures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

import predict
from nets.config import USUAL_ANCHORS
from nets.decode import decode
from tests.file_size_limit import file_size_limit
from tests.utils.export.device_models import (
    BLOCK,
    CONFIG,
    NAMES,
    SCRIPT,
    Pools,
    frame,
    load_script,
    write_models,
    write_nms_model,
)
from utils.inference.predictor import Predictor
from utils.vision.image_reader import read_image

detect = load_script()
MODELS = ("best.onnx", "best.xml", "best.ncnn.param")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def room(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with detect.py, the models and four pictures, one of them broken."""
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "detect.py").write_bytes(SCRIPT.read_bytes())
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(frame(60, 90)).save(tmp_path / "in/turned.jpg", quality=95, exif=exif)
    Image.fromarray(frame(70, 50)).save(tmp_path / "in/a.png")
    Image.fromarray(frame(40, 40)).save(tmp_path / "in/a.bmp")
    whole = (tmp_path / "in/turned.jpg").read_bytes()
    (tmp_path / "in/broken.jpg").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    return detect.main(["--model", "best.onnx", *argv])


def assert_same(found: tuple, image: np.ndarray, **limits: float) -> int:
    """Hold that Predictor finds the same, in the same order; returns how much."""
    expected = Predictor(Pools(), CONFIG, NAMES, **limits)(image)
    boxes, scores, labels = found
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    assert labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(boxes, expected.boxes.numpy(), rtol=0, atol=0.05)
    np.testing.assert_allclose(scores, expected.scores.numpy(), rtol=0, atol=1e-4)
    return len(scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("height", "width", "limits", "least"),
    [
        (80, 120, {"conf": 1.0}, 0),
        (80, 120, {"conf": 0.25}, 30),
        (80, 120, {"conf": 0.001, "max_det": 1000}, 150),
        (80, 120, {"conf": 0.001, "nms_iou": 0.2, "max_det": 20}, 20),
        (40, 700, {"conf": 0.1}, 10),
        (700, 40, {"conf": 0.1}, 10),
        (3, 5, {"conf": 0.1}, 10),
    ],
)
def test_it_finds_what_predictor_finds(
    models: Path, name: str, height: int, width: int, limits: dict[str, float], least: int
) -> None:
    image = frame(height, width)
    assert assert_same(detect.Detector(models / name)(image, **limits), image, **limits) >= least


@pytest.mark.parametrize("heads", [2, 3])
def test_each_head_is_decoded_as_the_network_does(heads: int) -> None:
    anchors, masks = USUAL_ANCHORS[heads]
    metadata = {"anchors": anchors, "anchor_masks": masks, "scale_x_y": 1.05}
    raw_maps = [torch.randn(1, 21, 2 << head, 3 << head).clamp(-3, 3) for head in range(heads)]
    expected, wanted = decode(raw_maps, **metadata)
    boxes, scores, labels = detect.decode([raw.numpy() for raw in raw_maps], metadata, 0.0)
    order = np.argsort(labels, kind="stable")  # here all first labels, box by box
    assert np.bincount(labels).tolist() == [expected.shape[1]] * 2
    np.testing.assert_allclose(boxes[order], expected[0].repeat(2, 1).numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores[order], wanted[0].T.flatten().numpy(), rtol=1e-4, atol=1e-6)


def test_the_models_own_limits_are_the_defaults(models: Path) -> None:
    image = frame(80, 120)
    detector = detect.Detector(models / "best.onnx")
    assert detector.class_names == list(NAMES)
    assert detector.defaults == {"conf": 0.25, "nms_iou": 0.5, "max_det": 100}
    assert assert_same(detector(image), image) > 30


def test_bgr_and_reversed_frames_are_taken(models: Path) -> None:
    image = frame(80, 120)
    assert assert_same(detect.Detector(models / "best.onnx")(image[..., ::-1][..., ::-1]), image) > 30


@pytest.mark.parametrize("batch", [3, "batch"])
@pytest.mark.parametrize("name", MODELS[:2])
def test_other_batches_are_filled_up(tmp_path: Path, batch: int | str, name: str) -> None:
    write_models(tmp_path, batch)
    image = frame(64, 96)
    assert assert_same(detect.Detector(tmp_path / name)(image), image) > 30


def test_a_frame_of_another_kind_is_refused(models: Path) -> None:
    detector = detect.Detector(models / "best.onnx")
    for image in (frame(8, 8)[..., 0], frame(8, 8).astype(np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a frame is a uint8 array"):
            detector(image)


def test_a_limit_of_another_name_is_refused(models: Path) -> None:
    with pytest.raises(TypeError, match="confidence"):
        detect.Detector(models / "best.onnx")(frame(9, 9), confidence=0.5)


def test_a_model_that_suppresses_is_told_the_limits(tmp_path: Path) -> None:
    write_nms_model(tmp_path / "nms.onnx")
    detector = detect.Detector(tmp_path / "nms.onnx")
    boxes, scores, labels = detector(frame(32, 96))  # of network pixels, 16 lie above and below
    np.testing.assert_allclose(scores, [0.25, 0.5, 0.1], atol=1e-6)  # its row of score 0 is padding
    np.testing.assert_allclose(boxes, [[0, 0, 48, 32], [48, 0, 96, 16], [0, 0, 96, 32]])
    assert labels.tolist() == [1, 0, 1]
    assert detector(frame(32, 96), conf=0.4, nms_iou=0.3, max_det=20)[1] == pytest.approx([0.4, 0.3, 0.02])


def test_nothing_at_all_is_empty_arrays(models: Path) -> None:
    boxes, scores, labels = detect.Detector(models / "best.onnx")(frame(9, 9), conf=1.0)
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("name", MODELS)
def test_the_command_reads_pictures_as_predict_does(
    room: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        detect.main(["in", "--model", name, "--json", "found.jsonl", "--conf", "0.3", "--threads", "1"]) == 1
    )
    out, err = capsys.readouterr()
    assert "warning: in/broken.jpg: truncated JPEG; skipped" in err
    assert [line.split("  ")[0] for line in out.splitlines()] == ["in/a.bmp", "in/a.png", "in/turned.jpg"]
    lines = [json.loads(line) for line in Path("found.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (lines[2]["width"], lines[2]["height"]) == (60, 90)
    assert (
        predict.main(["in", "--weights", name, "--no-save", "--json", "wanted.jsonl", "--conf", "0.3"]) == 1
    )
    for ours, line in zip(Path("wanted.jsonl").read_text(encoding="utf-8").splitlines(), lines, strict=True):
        wanted = json.loads(ours)
        assert line.keys() == wanted.keys()
        assert len(line["detections"]) > 10
        for one, other in zip(line.pop("detections"), wanted.pop("detections"), strict=True):
            assert (one["label"], one["class_id"]) == (other["label"], other["class_id"])
            assert one["box"] == pytest.approx(other["box"], abs=0.05)
            assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert line == wanted
    assert sorted(path.name for path in Path("results").iterdir()) == ["a.jpg", "a.png", "turned.jpg"]
    assert read_image("results/turned.jpg").shape == (90, 60, 3)
    assert (read_image("results/a.png") != read_image("in/a.png")).any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "1"])
def test_other_kinds_of_pictures(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(frame(30, 40))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(frame(30, 40, seed=1)[..., 0]))
    image.save(tmp_path / "a.png")
    ours, theirs = detect.read_picture(tmp_path / "a.png"), read_image(tmp_path / "a.png")
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=2)


def test_bytes_behind_the_end_are_no_damage(room: Path) -> None:
    path = room / "in/turned.jpg"
    path.write_bytes(path.read_bytes() + bytes(1000))
    np.testing.assert_allclose(detect.read_picture(path).astype(int), read_image(path).astype(int), atol=2)


def test_only_the_own_end_of_a_jpeg_counts(room: Path) -> None:
    thumbnail = io.BytesIO()
    Image.fromarray(frame(8, 8)).save(thumbnail, "JPEG")
    whole = Path("in/turned.jpg").read_bytes()
    with_thumbnail = whole[:2] + b"\xff\xe2" + (2 + len(thumbnail.getvalue())).to_bytes(2, "big")
    with_thumbnail += thumbnail.getvalue() + whole[2:]
    for tail in (b"", b"\xff\xd8\xff\xda video", bytes(range(256)) * 8):
        assert detect.is_complete_jpeg(with_thumbnail + tail)
    assert not detect.is_complete_jpeg(with_thumbnail[:-200])
    for cut in (0, 2, 3, 10):
        assert not detect.is_complete_jpeg(whole[:cut])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_transparent_picture_is_turned_whole(tmp_path: Path, orientation: int) -> None:
    pixels = np.dstack((frame(30, 40), frame(30, 40)[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    ours = detect.read_picture(tmp_path / "a.png").astype(int)
    assert np.abs(ours - read_image(tmp_path / "a.png")).max() <= 1


def test_an_input_is_never_written_over(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in room.rglob("*") if path.is_file()}
    assert run("in", "--out", "in") == 2
    assert run("in/a.png", "--json", "in/a.png") == 2
    assert run("in/a.png", "--json", "best.onnx") == 2
    assert run("in/a.png", "--model", "best.xml", "--json", "best.bin") == 2
    assert run("in/a.png", "--json", "in/a.bmp") == 2
    assert run("in/a.png", "--json", "-") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 6
    assert all(line.startswith("error: ") and "is also an input" in line for line in errors[:4])
    assert errors[4] == "error: --json in/a.bmp: exists and is no report of --json; name another"
    assert errors[5] == "error: --json -: is no file; name a file"
    assert {path: path.read_bytes() for path in room.rglob("*") if path.is_file()} == before


def test_only_an_image_that_detect_wrote_is_replaced(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = ("in/a.png", "in/turned.jpg")
    for _ in range(2):
        assert run(*pictures, "--out", "out") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "turned.jpg"]
    for name in ("a.png", "turned.jpg"):
        with Image.open(f"out/{name}") as image:
            image.load()
            assert "detect.py" in str(image.info)
        Path("mine").mkdir(exist_ok=True)
        Path("mine", name).write_bytes(Path("in", name).read_bytes())
        capsys.readouterr()
        assert run(*pictures, "--out", "mine", "--json", "never.json") == 2
        error = f"error: mine/{name}: exists and has no mark of detect.py, so it is not overwritten"
        assert capsys.readouterr() == ("", f"{error}; choose another --out\n")
        assert [path.read_bytes() for path in Path("mine").iterdir()] == [Path("in", name).read_bytes()]
        assert run(*pictures, "--out", "mine", "--benchmark", "1") == 0  # which writes nothing
        Path("mine", name).unlink()
    assert not Path("never.json").exists()


def test_an_older_report_stays_if_no_image_can_be_read(room: Path) -> None:
    old = '{"path": "in/old.png"}'
    Path("found.jsonl").write_text(old)
    assert run("in/broken.jpg", "--json", "found.jsonl") == 1
    assert run("in/a.png", "--json", "found.jsonl", "--benchmark", "1") == 0
    assert Path("found.jsonl").read_text() == old
    assert run("in/broken.jpg", "in/a.png", "--json", "found.jsonl") == 1
    assert json.loads(Path("found.jsonl").read_text())["path"] == "in/a.png"


def test_a_report_in_no_folder_is_named(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("in/a.png", "--json", "nowhere/found.jsonl") == 2
    assert capsys.readouterr().err == "error: --json nowhere/found.jsonl: its folder does not exist\n"


@pytest.mark.parametrize(("size", "full"), [(0, "found.jsonl"), (5000, "out/a.png")])
def test_a_full_disk_names_the_file_and_leaves_no_other(
    room: Path, capsys: pytest.CaptureFixture[str], size: int, full: str
) -> None:
    Image.fromarray(frame(300, 300)).save("in/a.png")
    with file_size_limit(size):
        assert run("in/a.png", "--out", "out", "--json", "found.jsonl", "--max-det", "2") == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {full}: File too large"
    assert not any(Path("out").iterdir())


def test_no_file_of_the_user_is_taken_for_a_temporary_one(room: Path) -> None:
    Path("out").mkdir()
    Path("out/a.png.tmp").write_text("mine")
    assert run("in/a.png", "--out", "out") == 0
    assert Path("out/a.png.tmp").read_text() == "mine"
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "a.png.tmp"]


def test_benchmark_prints_a_table_and_writes_nothing(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(room.rglob("*"))
    assert run("in/a.png", "--benchmark", "3") == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ms", "a", "frame", "median", "p95"]
    assert [row.split()[0] for row in rows] == ["preprocess", "network", "postprocess", "total"]
    assert all(0 < float(row.split()[1]) <= float(row.split()[2]) for row in rows)
    assert set(room.rglob("*")) == before


class Camera:
    """Two frames in BGR, then none."""

    def __init__(self, number: int) -> None:
        self.frames = [frame(80, 120)[..., ::-1]] * 2 if number == 0 else []

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.frames.pop()) if self.frames else (False, None)


def test_a_camera_is_watched(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detect.cv2, "VideoCapture", Camera)
    assert run("--camera", "1") == 1
    assert "error: --camera 1: no frame" in capsys.readouterr().err
    assert run("--camera", "0", "--json", "found.jsonl", "--out", "seen") == 1
    lines = [json.loads(line) for line in Path("found.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["path"] for line in lines] == ["camera0", "camera0"]
    boxes = np.array([found["box"] for found in lines[0]["detections"]])
    expected = Predictor(Pools(), CONFIG, NAMES)(frame(80, 120)).boxes.numpy()
    np.testing.assert_allclose(boxes, expected, atol=0.05)
    assert [path.name for path in (room / "seen").iterdir()] == ["camera0.jpg"]
    assert not (room / "results").exists()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["in/a.png", "--model", "nowhere.onnx"], "nowhere.onnx: no such model"),
        (["in/a.png", "--model", "best.ncnn.bin"], "best.ncnn.bin: no such model"),
        (["in/a.png", "--model", "empty.onnx"], "empty.onnx: "),
        (["in/a.png", "--model", "empty.xml"], "empty.xml: "),
        (["in/a.png", "--model", "empty.param"], "empty.param: "),
        (["in/a.png", "--model", "alone.param"], "alone.param: "),
        (["in/a.png", "--fp16"], "--fp16: best.onnx is no ncnn model"),
        (["in/a.png", "--amp"], "--amp: best.onnx is no OpenVINO model; leave --amp out"),
        (["nowhere.jpg"], "nowhere.jpg: no image here"),
        (["none"], "none: no image here"),
    ],
)
def test_mistakes_are_one_line(
    room: Path, capfd: pytest.CaptureFixture[str], argv: list[str], named: str
) -> None:
    (room / "none").mkdir()
    for name in ("empty.onnx", "empty.xml", "empty.param"):
        (room / name).touch()
    (room / "alone.param").write_bytes((room / "best.ncnn.param").read_bytes())
    assert run(*argv) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {named}")
    assert not (room / "results").exists()


@pytest.mark.parametrize(
    "argv",
    [[], ["in", "--conf", "1.5"], ["in", "--max-det", "0"], ["in", "--benchmark", "0"], ["in", "--nope"]],
)
def test_wrong_flags_end_with_status_2(room: Path, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("name", "package"), [*zip(MODELS, ("onnxruntime", "openvino", "ncnn"), strict=True)]
)
def test_a_missing_runtime_is_one_line(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert detect.main(["in/a.png", "--model", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: ")
    assert package in line
    assert "pip install --upgrade -r requirements.txt" in line


def test_a_model_of_a_newer_version_names_both(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(room / "best.onnx")
    model.ir_version = 99
    onnx.save(model, room / "new.onnx")
    assert detect.main(["in/a.png", "--model", "new.onnx"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: new.onnx: onnxruntime {onnxruntime.__version__}: Fail: ")
    assert "Unsupported model IR version: 99, max supported IR version: " in line
    assert line.endswith("; pip install --upgrade -r requirements.txt")


def test_a_long_error_keeps_its_end(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"Opset 99 is {'very ' * 100}new, opset 19 the newest")

    monkeypatch.setitem(detect.LOADERS, ".onnx", fail)
    assert run("in/a.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) <= 400
    assert "Opset 99 is" in line
    assert line.endswith("opset 19 the newest; pip install --upgrade -r requirements.txt")


def test_16_bit_arithmetic_is_ncnns(models: Path) -> None:
    image = frame(80, 120)
    exact, fast = (detect.Detector(models / "best.ncnn.param", fp16=fp16) for fp16 in (False, True))
    boxes, found, _ = exact(image)
    assert fast(image)[1][:10] == pytest.approx(found[:10], abs=0.02)
    assert len(boxes) > 30


def test_bfloat16_is_openvinos(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, compile_model, hints = frame(80, 120), openvino.Core.compile_model, []

    def spy(core: openvino.Core, model: object, device: str, options: dict[str, object]) -> object:
        hints.append(options["INFERENCE_PRECISION_HINT"])
        return compile_model(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    exact, fast = (detect.Detector(models / "best.xml", amp=amp) for amp in (False, True))
    assert hints == ["f32", "bf16"]
    boxes, scores, _ = exact(image)
    assert fast(image)[1][:10] == pytest.approx(scores[:10], abs=0.02)
    assert len(boxes) > 30


def test_it_stands_alone(room: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", BLOCK, "in/a.png", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("in/a.png  ")
    assert "best.onnx  2 classes" in done.stderr  # the first beside it
    assert (room / "out/a.png").is_file()
