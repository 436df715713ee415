"""Networks of one convolution a head, written by hand in every format that detect.py runs, in no time."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torch import nn
from torch.nn import functional as F

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.export.job import ExportJob
from utils.inference.runtimes import OPENVINO_DESCRIPTION, as_texts

SCRIPT = Path(__file__).resolve().parents[3] / "utils/export/device/detect.py"
NAMES = ("cat", "dög")
CONFIG = ModelConfig(
    2,
    input_size=(64, 96),
    anchors=((8, 9), (12, 20), (25, 18), (30, 40), (44, 30), (60, 50)),
    anchor_masks=((3, 4, 5), (0, 1, 2)),
    scale_x_y=1.1,
)
CHANNELS = 3 * (5 + len(NAMES))

# Runs the detect.py of the current folder where neither torch nor this project can be imported.
BLOCK = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "PIL", "utils", "nets"):
            raise ImportError(f"{name} is not for the device")
sys.meta_path.insert(0, Refuse())
sys.argv = ["detect.py", *sys.argv[1:]]
runpy.run_path("detect.py", run_name="__main__")
"""


class Pools(nn.Module):
    """Means of the cells through a 1x1 convolution a head, lively enough for scores of all sizes."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(3)
        self.weights = [random.normal(0, 6, (CHANNELS, 3, 1, 1)).astype(np.float32) for _ in range(2)]
        noise = random.normal(0, 1, (2, CHANNELS))
        self.biases = [
            (n - w.sum((1, 2, 3)) / 2).astype(np.float32) for w, n in zip(self.weights, noise, strict=True)
        ]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [
            F.conv2d(F.avg_pool2d(images, stride), torch.from_numpy(weight), torch.from_numpy(bias))
            for stride, weight, bias in zip((32, 16), self.weights, self.biases, strict=True)
        ]


def frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colored squares, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


def load_script(path: Path = SCRIPT):
    """Import detect.py from where it lies."""
    spec = importlib.util.spec_from_file_location("detect", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe() -> dict:
    return ExportJob(YoloBody(CONFIG), CONFIG, NAMES, Path("best.pth")).metadata()


def write_models(folder: Path, batch: int | str = 1) -> None:
    """Write best.onnx, best.xml and best.ncnn.param with what belongs to them."""
    network, described = Pools(), describe()
    nodes, values = [], []
    for head, stride, weight, bias in zip(
        ("p5", "p4"), (32, 16), network.weights, network.biases, strict=True
    ):
        sides = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["images"], [f"{head}_means"], **sides))
        nodes.append(helper.make_node("Conv", [f"{head}_means", f"{head}_w", f"{head}_b"], [head]))
        values += [numpy_helper.from_array(weight, f"{head}_w"), numpy_helper.from_array(bias, f"{head}_b")]
    shapes = {"images": (3, 64, 96), "p5": (CHANNELS, 2, 3), "p4": (CHANNELS, 4, 6)}
    ends = [helper.make_tensor_value_info(name, 1, [batch, *shape]) for name, shape in shapes.items()]
    save_onnx(folder / "best.onnx", nodes, ends[:1], ends[1:], values)
    model = openvino.Core().read_model(folder / "best.onnx")
    model.set_rt_info(as_texts(described), OPENVINO_DESCRIPTION)
    openvino.save_model(model, folder / "best.xml", compress_to_fp16=False)
    _write_ncnn(folder / "best.ncnn.param", network)
    (folder / "best.ncnn.json").write_text(json.dumps(described), encoding="utf-8")


def write_nms_model(path: Path) -> None:
    """Write a model that gives what it is told: rows of score conf, nms_iou, max_det / 1000, then padding."""
    images = helper.make_tensor_value_info("images", 1, [2, 3, 64, 96])
    optional = {"conf": np.float32(0.9), "nms_iou": np.float32(0.8), "max_det": np.int64(700)}
    values = [numpy_helper.from_array(np.atleast_1d(value), name) for name, value in optional.items()]
    inputs = [helper.make_tensor_value_info(v.name, v.data_type, [1]) for v in values]
    boxes = np.array([[0, 16, 48, 48], [48, 16, 96, 32], [0, 0, 96, 64], [0, 0, 10, 8]], np.float32)
    labels = np.array([[1], [0], [1], [0]], np.float32)
    fixed = {
        "boxes": boxes,
        "labels": labels,
        "zero": np.zeros(1, np.float32),
        "thousand": np.float32([1000]),
    }
    fixed |= {"column": np.array([4, 1]), "one": np.array([0]), "twice": np.array([2, 1, 1])}
    values += [numpy_helper.from_array(value, name) for name, value in fixed.items()]
    steps = [
        ("Cast", ["max_det"], ["most"], {"to": 1}),
        ("Div", ["most", "thousand"], ["share"], {}),
        ("Concat", ["conf", "nms_iou", "share", "zero"], ["scores"], {"axis": 0}),
        ("Reshape", ["scores", "column"], ["score_column"], {}),
        ("Concat", ["boxes", "score_column", "labels"], ["rows"], {"axis": 1}),
        ("Unsqueeze", ["rows", "one"], ["single"], {}),
        ("Tile", ["single", "twice"], ["detections"], {}),
    ]
    nodes = [helper.make_node(kind, given, made, **more) for kind, given, made, more in steps]
    end = helper.make_tensor_value_info("detections", 1, [2, 4, 6])
    save_onnx(path, nodes, [images, *inputs], [end], values)


def save_onnx(path: Path, nodes: list, inputs: list, outputs: list, values: list) -> None:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, as_texts(describe()))
    onnx.save(model, path)


def _write_ncnn(path: Path, network: Pools) -> None:
    lines = ["Input in0 0 1 in0", "Split split 1 2 in0 a b"]
    for given, head, stride in (("a", "out0", 32), ("b", "out1", 16)):
        lines.append(f"Pooling pool{stride} 1 1 {given} {given}m 0=1 1={stride} 2={stride} 5=1")
        lines.append(f"Convolution conv{stride} 1 1 {given}m {head} 0={CHANNELS} 1=1 5=1 6={3 * CHANNELS}")
    path.write_text("\n".join(["7767517", f"{len(lines)} 8", *lines]) + "\n")
    with path.with_suffix(".bin").open("wb") as file:
        for weight, bias in zip(network.weights, network.biases, strict=True):
            file.write(bytes(4) + weight.tobytes() + bias.tobytes())  # four zeros: 32-bit values follow
