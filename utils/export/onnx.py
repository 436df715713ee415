"""ONNX: the network up to its raw heads, or with --nms up to detections, with the metadata for decoding."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.decode import decode
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.predict_config import PredictConfig
from utils.export.formats import Format
from utils.export.int8 import quantize
from utils.export.job import ExportJob
from utils.export.opset import TRACED_OPSET, check_opset, graphs_of, set_opset
from utils.export.parity import make_noise_images
from utils.inference.runtimes import DETECTIONS, HEADS, IMAGES, THRESHOLDS, OnnxModel, as_texts

_PREFIX = "nms_"  # of the names in the decoder's graph


class OnnxFormat(Format):
    """ONNX."""

    name = "onnx"
    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    runtime = OnnxModel

    def check(self, job: ExportJob) -> None:
        """See `Format.check`."""
        super().check(job)
        if job.opset is not None:
            check_opset(job.opset)

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the model."""
        import onnx

        model = trace(self.name, job, half=job.half)
        if job.quantization is not None:
            model = quantize(model, job.quantization.pictures, folder)
        if job.ends_in_nms:
            model = _append_nms(model, job)
        model = set_opset(model, job.opset)
        onnx.helper.set_model_props(model, as_texts(job.metadata()))
        path = folder / job.file_name(self.suffix)
        with atomic_write(path) as file:
            file.write(model.SerializeToString())
        return [path]


class _Network(nn.Module):
    """The network in the file: float32 inputs and outputs; with --half 16 bits inside."""

    def __init__(self, model: YoloBody, half: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.dtype = torch.float16 if half else torch.float32
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(raw.float() for raw in self.model(images.to(self.dtype)))


def trace(name: str, job: ExportJob, *, half: bool) -> Any:
    """Convert the network to an ONNX model in memory, without metadata; with `half` in 16 bits inside.

    Raises:
        UserError: torch cannot export the network, for example an operation of a block (exit code 1).
    """
    images = make_noise_images(job.config.input_size)[:1]
    try:
        return _to_onnx(
            _Network(job.model, half), [images], [IMAGES], HEADS[: job.config.num_heads], job.batch
        )
    except Exception as error:  # the exporter or the user's own block may raise anything
        reason = f"torch cannot export this network: {reason_of(error)}"
        advice = f"{'leave out --half, ' if half else ''}change the attention block, or use --format pth"
        raise UserError(f"--format {name}: {reason}; {advice}", exit_code=1) from error


class Decoder(nn.Module):
    """Decoder from raw maps to boxes (B, N, 4) and scores (B, K, N), as NonMaxSuppression takes them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, p5: Tensor, p4: Tensor, p3: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode the raw maps (B, A*(5+K), h, w) of two or three heads."""
        config = self.config
        boxes, scores = decode(
            [raw for raw in (p5, p4, p3) if raw is not None],
            anchors=config.anchors,
            anchor_masks=config.anchor_masks,
            scale_x_y=config.scale_x_y,
        )
        return boxes, scores.transpose(1, 2)


def _append_nms(heads: Any, job: ExportJob) -> Any:
    """Append decoding and suppression to a model that returns raw maps.

    The output is then "detections" (B, D, 6): x1, y1, x2, y2 in network pixels, score, label, highest score
    first, padded with rows of score 0. The thresholds are optional inputs.
    """
    import onnx

    decoder, helper = Decoder(job.config), onnx.helper
    with torch.no_grad():
        maps = job.model(make_noise_images(job.config.input_size)[:1])
        num_classes, num_boxes = decoder(*maps)[1].shape[1:]
    names = HEADS[: len(maps)]
    decoding = _to_onnx(decoder, maps, names, ("boxes", "scores"), job.batch)
    joined = onnx.compose.merge_models(
        heads, onnx.compose.add_prefix(decoding, _PREFIX), io_map=[(head, _PREFIX + head) for head in names]
    )
    graph, boxes, scores = joined.graph, _PREFIX + "boxes", _PREFIX + "scores"
    defaults: tuple[np.generic, ...] = (
        np.float32(PredictConfig.conf),
        np.float32(PredictConfig.nms_iou),
        np.int64(PredictConfig.max_det),
    )
    for name, value in zip(THRESHOLDS, defaults, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, [1]))
        graph.initializer.append(onnx.numpy_helper.from_array(np.atleast_1d(value), name))
    constants = {
        "flat": [0, num_classes * num_boxes],  # 0 keeps the batch
        "most": [num_classes * num_boxes],
        "boxes_a_class": [num_boxes],
        "last": [-1],
    }
    for name, numbers in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(numbers, np.int64), name))
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        # Of one class no more than max_det can be among the best max_det.
        ("NonMaxSuppression", [boxes, scores, "max_det", "nms_iou", "conf"], ["kept"], {}),  # (S, 3)
        ("GatherND", [scores, "kept"], ["kept_scores"], {}),  # (S,)
        ("Shape", [scores], ["all"], {}),
        ("ConstantOfShape", ["all"], ["nothing"], {"value": helper.make_tensor("zero", 1, [1], [0.0])}),
        ("ScatterND", ["nothing", "kept", "kept_scores"], ["survivors"], {}),  # (B, K, N)
        ("Reshape", ["survivors", "flat"], ["candidates"], {}),  # (B, K * N)
        ("Min", ["max_det", "most"], ["count"], {}),
        ("TopK", ["candidates", "count"], ["best", "places"], {"axis": 1}),  # (B, D) each
        ("Div", ["places", "boxes_a_class"], ["label"], {}),
        ("Mod", ["places", "boxes_a_class"], ["slot"], {}),
        ("Unsqueeze", ["slot", "last"], ["slots"], {}),
        ("GatherND", [boxes, "slots"], ["best_boxes"], {"batch_dims": 1}),  # (B, D, 4)
        ("Unsqueeze", ["best", "last"], ["score_column"], {}),
        ("Cast", ["label"], ["float_label"], {"to": onnx.TensorProto.FLOAT}),
        ("Unsqueeze", ["float_label", "last"], ["label_column"], {}),
        ("Concat", ["best_boxes", "score_column", "label_column"], [DETECTIONS], {"axis": 2}),
    ]
    graph.node.extend(helper.make_node(kind, given, made, **more) for kind, given, made, more in steps)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    del graph.output[:]
    shape = [batch.dim_param or batch.dim_value, None, 6]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(joined)
    return joined


def _to_onnx(
    module: nn.Module, example: list[Tensor], inputs: Sequence[str], outputs: Sequence[str], batch: int | None
) -> Any:
    """Return the ONNX model of a module, without metadata; the example inputs are a batch of one."""
    given = tuple(one.expand(batch or 2, *[-1] * (one.ndim - 1)).contiguous() for one in example)
    dimension = torch.export.Dim("batch")
    with quiet():
        program = torch.onnx.export(
            module,
            given,
            dynamo=True,
            verbose=False,
            opset_version=TRACED_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=None if batch else tuple({0: dimension} for _ in given),
        )
    if program is None:
        raise RuntimeError("it returned no model; update torch")
    model = program.model_proto
    _strip_stack_traces(model)
    model.ClearField("metadata_props")
    return model


def reason_of(error: BaseException) -> str:
    """Return type and first line of the exception that caused all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].strip()}"


def _strip_stack_traces(model: Any) -> None:
    """Remove stack traces, which hold paths of this machine."""
    for graph in graphs_of(model.graph):
        for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter, which gives advice to developers of torch."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
