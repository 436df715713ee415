"""Exported models through predict.py and evaluate.py: what PyTorch says, and one line where they cannot."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from torch import nn

import evaluate
import export
import predict
from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.data.voc_xml import VocObject, write_annotation
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import Checkpoint, save_checkpoint

NAMES = ("cat", "dög")
SIZES = ((60, 80), (90, 70), (64, 96), (120, 200), (33, 47))  # height, width of the pictures
CONF = 0.3
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "ncnn": ".ncnn.param"}
CONFIG = ModelConfig(
    2,
    phi="cbam",
    input_size=(64, 96),
    anchors=((8, 9), (12, 20), (25, 18), (30, 40), (44, 30), (60, 50)),
    anchor_masks=((3, 4, 5), (0, 1, 2)),
    scale_x_y=1.1,
)

pytestmark = pytest.mark.slow  # exporting takes seconds


def make_weights(path: Path) -> None:
    """Write a network whose heads give scores of all sizes."""
    torch.manual_seed(0)
    model = YoloBody(CONFIG).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for head in (model.head_p5, model.head_p4):
        nn.init.normal_(head.predict.weight, std=0.3)
        nn.init.zeros_(head.predict.bias)
    save_checkpoint(path, Checkpoint(CONFIG, NAMES, model.state_dict()))


def make_pictures(folder: Path, weights: Path) -> None:
    """Write pictures of colored squares; the truth is what the network finds, a little moved."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    predictor = Predictor.from_checkpoint(weights, device="cpu", conf=0.3)
    for index, (height, width) in enumerate(SIZES):
        coarse = np.random.default_rng(index).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
        image.save(folder / f"JPEGImages/{index}.png")
        found = predictor(image)[: 1 + index]
        moved = 0.98 * found.boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
        objects = [
            VocObject(NAMES[label], tuple(box))
            for box, label in zip(moved.tolist(), found.labels.tolist(), strict=True)
        ]
        write_annotation(folder / f"Annotations/{index}.xml", f"{index}.png", width, height, objects)
    (folder / "ImageSets/Main/test.txt").write_text("".join(f"{index}\n" for index in range(len(SIZES))))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.pth, data/, and the exports with three images at a time."""
    folder = tmp_path_factory.mktemp("models")
    make_weights(folder / "best.pth")
    make_pictures(folder / "data", folder / "best.pth")
    flags = ["--weights", str(folder / "best.pth"), "--project", str(folder), "--name", "three"]
    assert export.main([*flags, "--format", *FORMATS, "--batch", "3"]) == 0
    return folder


@pytest.fixture
def room(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with links to all of it."""
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(weights: str, *more: str) -> list[dict]:
    """Return what predict.py writes of each picture."""
    flags = [
        "--conf",
        str(CONF),
        "--batch-size",
        "2",
        "--device",
        "cpu",
        "--no-save",
        "--json",
        "found.jsonl",
    ]
    assert predict.main(["data/JPEGImages", "--weights", weights, *flags, *more]) == 0
    return [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]


def assert_same(ours: list[dict], theirs: list[dict], pixels: float, scores: float) -> None:
    """Hold that each detection of one, but those at the edge of --conf, is among the other's, and back."""
    assert [one["path"] for one in ours] == [one["path"] for one in theirs]
    for pair in zip(ours, theirs, strict=True):
        for one, other in (pair, pair[::-1]):
            sure = [found for found in one["detections"] if found["score"] > CONF + scores]
            assert len(sure) > 5
            for found in sure:
                differences = [
                    (
                        np.abs(np.subtract(found["box"], same["box"])).max(),
                        abs(found["score"] - same["score"]),
                    )
                    for same in other["detections"]
                    if same["label"] == found["label"]
                ]
                assert any(moved <= pixels and changed <= scores for moved, changed in differences)


@pytest.mark.parametrize("ending", FORMATS.values())
def test_predict_finds_the_same(room: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = detect("best.pth")
    capsys.readouterr()
    assert_same(expected, detect(f"three/best{ending}"), 0.1, 1e-3)
    err = capsys.readouterr().err
    assert f"weights three/best{ending}  phi cbam  heads 2  input 64x96  device cpu (" in err
    assert ")  2 classes: cat, dög" in err


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name != "onnx" else ()) for name in FORMATS]
)
def test_predict_finds_nearly_the_same_with_half_the_bits(room: Path, name: str) -> None:
    argv = ["--weights", "best.pth", "--project", ".", "--name", "half", "--format", name, "--half"]
    assert export.main(argv) == 0
    assert_same(detect("best.pth"), detect(f"half/best{FORMATS[name]}"), 1.0, 1e-2)


def measure(models: Path, weights: str, project: Path) -> dict:
    """Return what evaluate.py measures."""
    flags = ["--data", str(models / "data"), "--split", "test", "--batch-size", "4", "--device", "cpu"]
    argv = ["--weights", str(models / weights), *flags, "--project", str(project)]
    assert evaluate.main(argv) == 0
    metrics = json.loads((project / "exp/metrics.json").read_text())
    return {key: value for key, value in metrics.items() if key not in ("weights", "speed_ms")}


@pytest.fixture(scope="module")
def ours(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What PyTorch's evaluation measures."""
    return measure(models, "best.pth", tmp_path_factory.mktemp("ours"))


@pytest.mark.parametrize("ending", FORMATS.values())
def test_evaluate_measures_the_same(models: Path, ours: dict, tmp_path: Path, ending: str) -> None:
    theirs = measure(models, f"three/best{ending}", tmp_path)
    assert ours["map50"] > 0.3
    flat = [
        {
            f"{name} {key}": value
            for name, row in {"all": metrics, **metrics["per_class"]}.items()
            for key, value in row.items()
            if isinstance(value, float | int)
        }
        for metrics in (ours, theirs)
    ]
    assert len(flat[0]) > 20
    assert flat[1] == pytest.approx(flat[0], abs=1e-4)


@pytest.mark.parametrize("ending", FORMATS.values())
def test_python_finds_the_same(room: Path, ending: str) -> None:
    image = np.asarray(Image.open("data/JPEGImages/0.png"))
    ours, theirs = (
        Predictor.from_checkpoint(path, device="cpu", classes=("a", "b"), phi="cbam")
        for path in ("best.pth", f"three/best{ending}")
    )
    assert theirs.config == ours.config
    assert theirs.class_names == ("a", "b")
    expected, got = ours(image), theirs(image)
    assert len(got) == len(expected) > 0
    torch.testing.assert_close(got.boxes, expected.boxes, rtol=0, atol=0.1)


def test_amp_asks_openvino_for_bfloat16(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_model, hints = openvino.Core.compile_model, []

    def spy(core: openvino.Core, model: object, device: str, options: dict[str, object]) -> object:
        hints.append(options["INFERENCE_PRECISION_HINT"])
        return compile_model(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    expected = detect("three/best.xml")
    assert_same(expected, detect("three/best.xml", "--amp"), 1.0, 0.02)
    assert hints == ["f32", "bf16"]
    err = capsys.readouterr().err
    can = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert ("device cpu bfloat16 (OpenVINO" in err) == can
    assert ("--amp: this CPU has no bfloat16 instructions, so it has no effect" in err) == (not can)


@pytest.mark.parametrize("ending", FORMATS.values())
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--imgsz", "64"], "--imgsz 64 64: three/best{} takes 64 96 only"),
        (["--phi", "se"], "three/best{}: was made with attention=cbam, you asked for se"),
        (["--classes", "one.txt"], "three/best{}: has 2 classes, but 1 names were given"),
        (["--heatmap"], "does not show the inside of the network"),
        (["--attention-maps"], "does not show the inside of the network"),
        (["--device", "cuda"], "--device cuda: "),
    ],
)
def test_what_an_export_cannot_do_is_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], ending: str, flags: list[str], named: str
) -> None:
    (room / "one.txt").write_text("cat\n")
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("a runtime may have CUDA here")
    argv = ["data/JPEGImages/0.png", "--weights", f"three/best{ending}", "--device", "cpu", *flags]
    assert predict.main(argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named.format(ending) in errors[0]


@pytest.mark.parametrize(
    ("weights", "package"),
    [("three/best.onnx", "onnxruntime"), ("three/best.xml", "openvino"), ("three/best.ncnn.param", "ncnn")],
)
def test_a_missing_runtime_is_one_line(
    room: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    weights: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert predict.main(["data/JPEGImages", "--weights", weights]) == 2
    assert evaluate.main(["--data", "data", "--weights", weights]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith(f"error: {weights}: needs {package}, which cannot be imported")
        assert "pip install -r requirements-export.txt" in line


def make_foreign(path: Path) -> None:
    shape = [1, 3, 64, 96]
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("images", "p5")]
    node = onnx.helper.make_node("Identity", ["images"], ["p5"])
    graph = onnx.helper.make_graph([node], "foreign", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_a_model_of_somebody_else_is_one_line(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_foreign(room / "foreign.onnx")
    model = openvino.Core().read_model(room / "foreign.onnx")
    openvino.save_model(model, room / "foreign.xml")
    (room / "empty.param").write_bytes(b"")
    for name in ("foreign", "alone", "damaged", "layer"):
        shutil.copy(room / "three/best.ncnn.param", room / f"{name}.param")
        if name != "alone":
            shutil.copy(room / "three/best.ncnn.bin", room / f"{name}.bin")
    (room / "damaged.json").write_text("{")
    shutil.copy(room / "three/best.ncnn.json", room / "layer.json")
    text = (room / "layer.param").read_text()
    (room / "layer.param").write_text(text.replace("Convolution ", "Confusion ", 1))
    (room / "empty.xml").write_bytes(b"")
    (room / "alone.xml").write_bytes((room / "three/best.xml").read_bytes())
    (room / "empty.onnx").write_bytes(b"")
    newer = onnx.load(room / "foreign.onnx")
    newer.ir_version = 99
    onnx.save(newer, room / "new.onnx")
    (room / "cut.onnx").write_bytes((room / "three/best.onnx").read_bytes()[:5000])
    for name, reason in (
        ("foreign.onnx", "no format_version"),
        ("empty.onnx", f"ONNX Runtime {onnxruntime.__version__} cannot load the model: "),
        ("cut.onnx", f"ONNX Runtime {onnxruntime.__version__} cannot load the model: "),
        ("new.onnx", "cannot load the model: Unsupported model IR version: 99, max supported IR version: "),
        ("new.onnx", "; update onnxruntime, or export with a lower --opset"),
        ("nowhere.onnx", "no such weights file"),
        ("foreign.param", "no format_version"),
        ("empty.param", "not an ncnn model"),
        ("alone.param", "its weights alone.bin are not beside it"),
        ("damaged.param", "damaged.json: damaged"),
        ("layer.param", "ncnn cannot load the model"),
        ("foreign.xml", "no format_version"),
        ("empty.xml", "is not an OpenVINO model"),
        (
            "alone.xml",
            "OpenVINO cannot load the model: Empty weights data in bin file or bin file cannot be found",
        ),
        ("data/Annotations/0.xml", "is a VOC annotation; give the .xml that export.py"),
    ):
        assert predict.main(["data/JPEGImages", "--weights", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {name.removesuffix('param') if 'json' in reason else name}")
        assert reason in line
