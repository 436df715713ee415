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

import torch
from torch import Tensor, nn

from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.export.formats import Format
from utils.export.int8 import quantize
from utils.export.job import ExportJob
from utils.export.nms import Decoder, append_nms
from utils.export.parity import make_noise_images
from utils.inference.runtimes import HEADS, IMAGES, OnnxModel, as_texts


class OnnxFormat(Format):
    """ONNX."""

    name = "onnx"
    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    runtime = OnnxModel

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the model."""
        import onnx

        model = trace(self.name, job, half=job.half)
        if job.quantization is not None:
            model = quantize(model, job.quantization.pictures, folder)
        if job.ends_in_nms:
            model = _append_nms(model, job)
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
    """Convert the network to an ONNX model in memory, without metadata.

    Args:
        name: of the format, for the messages.
        job: what to export.
        half: compute in 16 bits inside.

    Raises:
        UserError: torch cannot export the network, for example an operation of a block (exit code 1).
    """
    images = make_noise_images(job.config.input_size)[:1]
    try:
        return _to_onnx(_Network(job.model, half), [images], [IMAGES], HEADS, job.batch)
    except Exception as error:  # the exporter or the user's own block may raise anything
        raise UserError(
            f"--format {name}: torch cannot export this network: {reason_of(error)}; "
            "change the attention block, or use --format pth",
            exit_code=1,
        ) from error


def _append_nms(heads: Any, job: ExportJob) -> Any:
    """Append decoding and suppression to a model that returns raw maps."""
    decoder = Decoder(job.config)
    with torch.no_grad():
        maps = job.model(make_noise_images(job.config.input_size)[:1])
        num_classes, num_boxes = decoder(*maps)[1].shape[1:]
    exported = _to_onnx(decoder, maps, HEADS, ("boxes", "scores"), job.batch)
    return append_nms(heads, exported, num_boxes, num_classes)


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
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=None if batch else tuple({0: dimension} for _ in given),
        )
    if program is None:
        raise RuntimeError("it returned no model; update torch")
    model = program.model_proto
    _strip_stack_traces(model.graph)
    model.ClearField("metadata_props")
    return model


def reason_of(error: BaseException) -> str:
    """Return type and first line of the exception that caused all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].strip()}"


def _strip_stack_traces(graph: Any) -> None:
    """Remove stack traces, which hold paths of this machine."""
    parts = (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip_stack_traces(inner)


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
