"""ONNX: the network up to its raw heads or to detections, with all that decoding needs in the metadata."""

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
from utils.export.int8 import quantize
from utils.export.job import ExportJob, hold_packages
from utils.export.nms import Decoder, append_nms
from utils.export.parity import Reader, make_images
from utils.inference.exported_model import HEADS, IMAGES, as_texts
from utils.inference.runtimes import OnnxModel

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class _Heads(nn.Module):
    """The network as the file holds it: float32 outside, 16 bits inside where that was asked for."""

    def __init__(self, model: YoloBody, half: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.dtype = torch.float16 if half else torch.float32
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(raw.float() for raw in self.model(images.to(self.dtype)))


def check(job: ExportJob) -> None:
    """Hold that the packages are there; a UserError says how to get them."""
    hold_packages("onnx", _PACKAGES)


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format: nothing."""
    return []


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write the model.

    Raises:
        UserError: torch cannot export the network, such as for an operation of a block (exit code 1).
    """
    import onnx

    model = trace("onnx", job, half=job.half)
    if job.quantization is not None:
        model = quantize(model, job.quantization.pictures, folder)
    if job.ends_in_nms:
        model = _with_nms(model, job)
    onnx.helper.set_model_props(model, as_texts(job.describe()))
    path = folder / job.named(".onnx")
    with atomic_write(path) as file:
        file.write(model.SerializeToString())
    return [path]


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return ONNX Runtime with the model, as predict.py loads it."""
    backend = OnnxModel(path, "cpu")
    return [Reader(backend.name, backend)]


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export."""
    return job.predict_command(folder, ".onnx", has_config=True)


def trace(name: str, job: ExportJob, *, half: bool) -> Any:
    """Turn the network into an ONNX model in memory, without metadata.

    Args:
        name: of the format that is on its way, for the messages.
        job: what to export.
        half: compute in 16 bits inside.

    Raises:
        UserError: torch cannot export the network, such as for an operation of a block (exit code 1).
    """
    images = make_images(job.config.input_size)[:1]
    try:
        return _to_onnx(_Heads(job.model, half), [images], [IMAGES], HEADS, job.batch)
    except Exception as error:  # from the exporter or from a block of the user's own: anything
        raise UserError(
            f"--format {name}: torch cannot export this network: {reason_of(error)}; "
            "change the attention block, or take --format pth",
            exit_code=1,
        ) from error


def _with_nms(heads: Any, job: ExportJob) -> Any:
    """Append decoding and suppression to a model of raw maps."""
    decoder = Decoder(job.config)
    with torch.no_grad():
        maps = job.model(make_images(job.config.input_size)[:1])
        num_classes, num_boxes = decoder(*maps)[1].shape[1:]
    exported = _to_onnx(decoder, maps, HEADS, ("boxes", "scores"), job.batch)
    return append_nms(heads, exported, num_boxes, num_classes)


def _to_onnx(
    module: nn.Module, example: list[Tensor], inputs: Sequence[str], outputs: Sequence[str], batch: int | None
) -> Any:
    """Return the ONNX model of a module without metadata; the example is one of a batch."""
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
    _forget_this_machine(model.graph)
    model.ClearField("metadata_props")
    return model


def reason_of(error: BaseException) -> str:
    """Return the first line of what is at the bottom of an exception."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].strip()}"


def _forget_this_machine(graph: Any) -> None:
    """Take out where each node came from: stack traces with the paths of this machine."""
    parts = (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _forget_this_machine(inner)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's advice to developers of torch off the console."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
