"""Exported models, called like the network they came from: ONNX Runtime, OpenVINO and ncnn.

https://onnxruntime.ai, https://docs.openvino.ai, https://github.com/Tencent/ncnn
"""

from __future__ import annotations

import importlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nets.attention import attention_name, same_attention
from nets.config import ModelConfig
from nets.structures import Detections
from utils.cli.class_names import choose_class_names
from utils.cli.errors import UserError
from utils.cli.shared_config import check_amp
from utils.inference.device import choose_device
from utils.weights.load import check_anchors, find_weights, refuse_cfg

DESCRIPTION_VERSION = 1
IMAGES, HEADS = "images", ("p5", "p4", "p3")  # names of the input and of the raw maps in the model
DETECTIONS = "detections"  # the output of a model that ends in NMS, in place of the raw maps
THRESHOLDS = ("conf", "nms_iou", "max_det")  # its other inputs, which have default values
_TEXTS = ("phi", "channels")  # stored as plain text in metadata; the rest is JSON
_DTYPES = dict(zip(THRESHOLDS, (np.float32, np.float32, np.int64), strict=True))
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
OPENVINO_DESCRIPTION = ["yolov4_tiny"]  # the path of the description in the model's rt_info
_XML_HEAD = 1000  # bytes
_NCNN_MAGIC = b"7767517"  # first line of every .param
_NCNN_IMAGES, _NCNN_HEADS = "in0", ("out0", "out1", "out2")  # pnnx's names


class ExportedModel(nn.Module, ABC):
    """An exported model, run by its runtime; called like the network that it came from."""

    name: str  # the runtime and its version
    path: Path  # the model's file
    config: ModelConfig  # defines its network
    class_names: tuple[str, ...]
    batch: int | None  # how many images it takes at a time, None for any number
    ends_in_nms = False  # whether it returns detections, by `detect`, in place of raw maps
    device: torch.device  # where the raw maps are decoded
    amp_dtype: torch.dtype | None = None  # of mixed precision, None where the runtime computes as exported

    @abstractmethod
    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """Map float32 images (batch, 3, H, W), contiguous, to the raw maps in float32, coarse first.

        A model that ends in NMS returns one array (batch, D, 6) instead and takes `THRESHOLDS`.
        """

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to the raw maps; a fixed batch is padded with zeros."""
        return [torch.from_numpy(raw).to(images.device) for raw in self._run_batches(images)]

    def detect(self, images: Tensor, *, conf: float, nms_iou: float, max_det: int) -> list[Detections]:
        """Map images (B, 3, H, W) in [0, 1] to the detections of each, as `postprocess` returns them.

        Only for a model that ends in NMS; unlike elsewhere, a score must exceed `conf`.
        """
        (output,) = self._run_batches(images, conf=conf, nms_iou=nms_iou, max_det=max_det)
        rows = [torch.from_numpy(one[one[:, 4] > 0]) for one in output]  # (N, 6) each
        return [Detections(one[:, :4], one[:, 4], one[:, 5].long()) for one in rows]

    def _run_batches(self, images: Tensor, **thresholds: float) -> list[np.ndarray]:
        pixels = images.cpu().numpy()
        size = self.batch or len(pixels)
        padded = np.pad(pixels, ((0, -len(pixels) % size), (0, 0), (0, 0), (0, 0)))
        batches = np.ascontiguousarray(padded).reshape(-1, size, *pixels.shape[1:])
        parts = [self.run(batch, **thresholds) for batch in batches]
        return [np.concatenate(output)[: len(pixels)] for output in zip(*parts, strict=True)]

    def read_description(self, described: object) -> None:
        """Set `config` and `class_names` from what `ExportJob.metadata` returned, plain values by name.

        Raises:
            UserError: there is no description, or it is incomplete or of a newer version.
        """
        version = described.get("format_version") if isinstance(described, Mapping) else None
        if not isinstance(described, Mapping) or version is None:
            raise UserError(
                f"{self.path}: does not say its classes and anchors (no format_version), so it was not made "
                "by export.py; export the weights with export.py"
            )
        if not isinstance(version, int) or version > DESCRIPTION_VERSION:
            raise UserError(
                f"{self.path}: format version {version}, this program reads up to {DESCRIPTION_VERSION}; "
                "update it"
            )
        try:
            self.class_names = tuple(str(name) for name in described["class_names"])
            self.config = ModelConfig(
                len(self.class_names),
                phi=described["phi"],
                input_size=tuple(described["input_size"]),
                anchors=tuple(tuple(anchor) for anchor in described["anchors"]),
                anchor_masks=tuple(tuple(mask) for mask in described["anchor_masks"]),
                scale_x_y=described["scale_x_y"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{self.path}: its description is incomplete ({error!r}); export it again"
            ) from None


def as_texts(described: Mapping[str, Any]) -> dict[str, str]:
    """Encode a description as metadata strings."""
    return {
        key: value if key in _TEXTS else json.dumps(value, ensure_ascii=False)
        for key, value in described.items()
    }


def from_texts(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Decode what `as_texts` encoded; foreign metadata become an empty description.

    Raises:
        UserError: the metadata are damaged.
    """
    if "format_version" not in texts:
        return {}
    try:
        return {key: value if key in _TEXTS else json.loads(value) for key, value in texts.items()}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error}); export it again") from None


def import_runtime(package: str, needed_by: Path | str) -> Any:
    """Import the package that runs a model.

    Raises:
        UserError: it is missing; says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{needed_by}: needs {package}, which cannot be imported ({error}); "
            "pip install -r requirements-export.txt"
        ) from None


def choose_runtime_device(device: str, runtime: str, supported: tuple[str, ...] = ("cpu",)) -> torch.device:
    """Turn the value of `--device` into a device that the runtime supports; "auto" falls back to the CPU.

    Raises:
        UserError: there is no such device here, or the runtime does not support it.
    """
    chosen = choose_device(device)
    if chosen.type in supported:
        return chosen
    if device == "auto":
        return torch.device("cpu")
    raise UserError(
        f"--device {device}: {runtime} here supports only {', '.join(supported)}; use --device cpu"
    )


class OnnxModel(ExportedModel):
    """A model of `export.py --format onnx`, run by ONNX Runtime on the CPU or with CUDA; thread-safe."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package is missing, the file is not one of ours, or there is no such device.
        """
        super().__init__()
        runtime = import_runtime("onnxruntime", path)
        self.path, self.name = path, f"ONNX Runtime {runtime.__version__}"
        has_cuda = _CUDA in runtime.get_available_providers()
        self.device = choose_runtime_device(device, self.name, ("cpu", "cuda") if has_cuda else ("cpu",))
        providers: list[str | tuple[str, dict[str, int]]] = [_CPU]
        if self.device.type == "cuda":
            providers.insert(0, (_CUDA, {"device_id": self.device.index or 0}))
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the runtime's exceptions have no common class of their own
            raise UserError(f"{path}: {self.name} cannot load the model: {_onnx_reason(error)}") from error
        if self.device.type == "cuda" and _CUDA not in self._session.get_providers():
            raise UserError(f"--device {device}: {self.name} cannot start CUDA here; use --device cpu")
        self.read_description(from_texts(path, self._session.get_modelmeta().custom_metadata_map))
        batch = self._session.get_inputs()[0].shape[0]
        self.batch = batch if isinstance(batch, int) else None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.ends_in_nms = self._outputs == [DETECTIONS]

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `ExportedModel.run`."""
        inputs = {name: np.array([value], _DTYPES[name]) for name, value in thresholds.items()}
        return self._session.run(self._outputs, {IMAGES: images} | inputs)


class OpenVinoModel(ExportedModel):
    """A model of `export.py --format openvino`, .xml and .bin, run by OpenVINO on the CPU; thread-safe."""

    def __init__(self, path: Path, device: str = "auto", amp: bool = False) -> None:
        """Load the model; see `OnnxModel`. With `amp` it computes in bfloat16, if the CPU can."""
        super().__init__()
        runtime = import_runtime("openvino", path)
        self.path, self.name = path, f"OpenVINO {runtime.__version__.partition('-')[0]}"
        self.device = choose_runtime_device(device, self.name)
        _check_openvino_xml(path)
        core = runtime.Core()
        # By default the CPU plugin computes in 16 bits where the processor can, and differs from PyTorch.
        hint = "bf16" if amp else "f32"
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        try:
            model = core.read_model(path)
            has_texts = model.has_rt_info(OPENVINO_DESCRIPTION)
            texts = model.get_rt_info(OPENVINO_DESCRIPTION).value if has_texts else {}
            self.read_description(from_texts(path, texts))
            batch = model.input(IMAGES).partial_shape[0]
            self.batch = None if batch.is_dynamic else batch.get_length()
            self._compiled = core.compile_model(model, "CPU", options)
            # Without bfloat16 instructions OpenVINO computes in float32 all the same, and says so here.
            if self._compiled.get_property("INFERENCE_PRECISION_HINT") == runtime.Type.bf16:
                self.amp_dtype = torch.bfloat16
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot load the model: {openvino_reason(error)}") from error

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `ExportedModel.run`."""
        outputs = self._compiled.create_infer_request().infer({IMAGES: images})  # a request per thread
        return [outputs[head] for head in HEADS[: self.config.num_heads]]


class NcnnModel(ExportedModel):
    """A model of `export.py --format ncnn`, .param, .bin and .json, run by ncnn on the CPU; thread-safe."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the model; see `OnnxModel`."""
        super().__init__()
        runtime = import_runtime("ncnn", path)
        self.path, self.name = path, f"ncnn {runtime.__version__}"
        self.device = choose_runtime_device(device, self.name)
        self.batch = 1  # ncnn has no batches
        with path.open("rb") as file:  # ncnn crashes on some other files
            if file.readline().strip() != _NCNN_MAGIC:
                raise UserError(
                    f"{path}: not an ncnn model; give the .param that export.py --format ncnn wrote"
                )
        weights, described = path.with_suffix(".bin"), path.with_suffix(".json")
        if not weights.is_file():
            raise UserError(f"{path}: its weights {weights.name} are not beside it; copy both")
        try:
            self.read_description(json.loads(described.read_bytes()) if described.exists() else None)
        except ValueError as error:
            raise UserError(f"{described}: damaged ({error}); export the model again") from None
        self._mat, self._net = runtime.Mat, runtime.Net()
        options = self._net.opt
        options.num_threads = torch.get_num_threads()
        # By default ncnn computes in 16 bits where the processor can, and differs from PyTorch.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise UserError(f"{path}: ncnn cannot load the model; export it again")

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `ExportedModel.run`."""
        extractor = self._net.create_extractor()
        image = self._mat(images[0])  # shares the array's memory, which `images` keeps alive
        extractor.input(_NCNN_IMAGES, image)
        heads = [extractor.extract(head) for head in _NCNN_HEADS[: self.config.num_heads]]
        if any(status for status, _ in heads):
            raise UserError(f"{self.name}: cannot compute the heads; out of memory?", exit_code=1)
        return [np.array(mat)[None] for _, mat in heads]


_MODELS: dict[str, Callable[[Path, str], ExportedModel]] = {
    ".onnx": OnnxModel,
    ".xml": OpenVinoModel,
    ".param": NcnnModel,
}


def is_exported(path: str | Path) -> bool:
    """Tell by its suffix whether a file is an exported model."""
    return Path(path).suffix.lower() in _MODELS


def load_exported(
    path: str | Path,
    *,
    classes: tuple[str, ...] | None = None,
    phi: str | None = None,
    cfg: str | Path | None = None,
    anchors: str | Path | None = None,
    input_size: tuple[int, int] | None = None,
    device: str = "auto",
    amp: bool = False,
) -> ExportedModel:
    """Load a model that export.py wrote, as it describes itself.

    `phi`, `anchors` and `input_size` only confirm its own, `cfg` is refused, `amp` is for OpenVINO.

    Raises:
        UserError: it cannot be used so; the message says what to do.
    """
    check_amp(amp, path)
    path = find_weights(str(path))
    refuse_cfg(cfg, path)
    model = OpenVinoModel(path, device, amp) if amp else _MODELS[path.suffix.lower()](path, device)
    model.class_names = choose_class_names(path, model.class_names, classes) or model.class_names
    num_classes, own_phi, own_size = model.config.num_classes, model.config.phi, model.config.input_size
    if len(model.class_names) != num_classes:
        raise UserError(f"{path}: has {num_classes} classes, but {len(model.class_names)} names were given")
    if anchors is not None:
        check_anchors(model.config, path, anchors)
    if phi is not None and not same_attention(phi, own_phi):
        raise UserError(f"{path}: was made with attention={own_phi}, you asked for {attention_name(phi)}")
    if input_size not in (None, own_size):
        wanted, own = (" ".join(map(str, size)) for size in (input_size, own_size))
        raise UserError(
            f"--imgsz {wanted}: {path} takes {own} only; leave --imgsz out, or export the weights with it"
        )
    return model


def _onnx_reason(error: Exception) -> str:
    """Return why ONNX Runtime refused a model: the first line, without the place in its source code."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    reason = re.sub(r"^.*\.\w+:\d+ .*?\) (?=[A-Z])", "", line)
    if re.search("IR version|opset", reason):
        reason += "; update onnxruntime, or export with a lower --opset"
    return reason


def openvino_reason(error: Exception) -> str:
    """Return why OpenVINO refused a network: the operation, and the last line of a page."""
    text = str(error)
    if missing := re.search(r"No conversion rule found for operations: (.+)", text):
        return f"it has no operation {missing[1].strip()}"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("To facilitate")]
    last = lines[-1].strip() if lines else type(error).__name__
    node = re.search(r"node '(?:<Node\()?(?:opset\d+::)?(\w+)", text)
    return f"{node[1]}: {last}" if node else last


def _check_openvino_xml(path: Path) -> None:
    """Refuse other XML, on which OpenVINO would try all its readers and print their messages."""
    with path.open("rb") as file:
        root = re.search(rb"<([a-zA-Z]\w*)", file.read(_XML_HEAD))
    if root is None or root[1] != b"net":
        kind = "a VOC annotation" if root and root[1] == b"annotation" else "not an OpenVINO model"
        raise UserError(f"{path}: is {kind}; give the .xml that export.py --format openvino wrote")
