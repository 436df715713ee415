"""8-bit ONNX models by ONNX Runtime's static quantization.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Weights are quantized per
channel, activations per tensor. The first and the two last convolutions stay in float32, since 8 bits lose
too much there. Weights use 7 of their 8 bits: x86 processors without VNNI add products in 16 bits, which
would overflow. The measurements are in benchmarks/results/predict_speed.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from utils.cli.errors import UserError
from utils.export.job import ExportJob
from utils.inference.runtimes import HEADS, IMAGES

LIMIT = 0.01  # of mAP50 that may be lost


def quantize(model: Any, pictures: Iterable[Tensor], folder: Path) -> Any:
    """Return an ONNX model from images to raw maps with 8-bit weights and activations.

    Args:
        model: the same in float32.
        pictures: for the calibration, Tensor[1, 3, H, W] each; repeated for a fixed batch.
        folder: for temporary files.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, small = folder / "prepared.onnx", folder / "int8.onnx"
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    batches = ({IMAGES: one.expand(batch, -1, -1, -1).contiguous().numpy()} for one in pictures)
    reader = SimpleNamespace(get_next=lambda: next(batches, None))  # a CalibrationDataReader
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the advice to prepare the model, which was done
    try:
        onnx.save(model, small)
        quant_pre_process(small, prepared, skip_symbolic_shape=True)  # torch has stored the shapes
        nodes = onnx.load(prepared).graph.node
        ends = [node.name for node in nodes if {IMAGES, *HEADS} & {*node.input, *node.output}]
        quantization.quantize_static(
            prepared,
            small,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=ends,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},  # one unusual picture does not stretch the range
        )
        return onnx.load(small)
    finally:
        logging.disable(disabled)
        for path in (prepared, small):
            path.unlink(missing_ok=True)


def check_accuracy(job: ExportJob, model: nn.Module) -> str:
    """Return the mAP50 of the network and of its 8-bit model in words, and refuse too large a loss.

    Raises:
        UserError: more than `LIMIT` is lost (exit code 1).
    """
    assert job.quantization is not None
    before, after = (job.quantization.judge(network) for network in (job.model, model))
    measured = f"mAP50 {before:.4f} in PyTorch, {after:.4f} with 8 bits"
    if after >= before - LIMIT - 1e-9:  # a rounding error is no loss
        return measured
    raise UserError(
        f"--int8: {measured}; at most {LIMIT:g} may be lost; leave out --int8, or use --half", exit_code=1
    )
