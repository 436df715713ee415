"""Decoding and non-maximum suppression as the end of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.decode import decode
from utils.cli.predict_config import PredictConfig
from utils.inference.runtimes import DETECTIONS, HEADS, THRESHOLDS

_PREFIX = "nms_"


class Decoder(nn.Module):
    """Decoder from raw maps to boxes (B, N, 4) and scores (B, K, N), as NonMaxSuppression takes them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the two raw maps (B, A*(5+K), h, w)."""
        config = self.config
        boxes, scores = decode(
            [coarse, fine],
            anchors=config.anchors,
            anchor_masks=config.anchor_masks,
            scale_x_y=config.scale_x_y,
        )
        return boxes, scores.transpose(1, 2)


def append_nms(heads: Any, decoder: Any, num_boxes: int, num_classes: int) -> Any:
    """Merge the network, its decoder and the suppression into one ONNX model.

    The model has one output, "detections" (B, D, 6): x1, y1, x2, y2 in network pixels, score, label, highest
    score first, padded with rows of score 0. Its thresholds are optional inputs.

    Args:
        heads: ONNX model from images to the raw maps.
        decoder: ONNX model from the raw maps to "boxes" and "scores".
        num_boxes: N.
        num_classes: K.
    """
    import onnx

    joined = onnx.compose.merge_models(
        heads, onnx.compose.add_prefix(decoder, _PREFIX), io_map=[(head, _PREFIX + head) for head in HEADS]
    )
    graph, helper = joined.graph, onnx.helper
    _add_constants(graph, num_boxes, num_classes)
    boxes, scores = _PREFIX + "boxes", _PREFIX + "scores"
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
    for operation, given, results, attributes in steps:
        graph.node.append(helper.make_node(operation, given, results, **attributes))
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    del graph.output[:]
    shape = [batch.dim_param or batch.dim_value, None, 6]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(joined)
    return joined


def _add_constants(graph: Any, num_boxes: int, num_classes: int) -> None:
    """Add the thresholds, which a caller may set, and the constants."""
    from onnx import helper, numpy_helper

    thresholds = [
        np.float32(PredictConfig.conf),
        np.float32(PredictConfig.nms_iou),
        np.int64(PredictConfig.max_det),
    ]
    for name, value in zip(THRESHOLDS, thresholds, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.atleast_1d(value), name))
        graph.input.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [1])
        )
    fixed = {
        "flat": [0, num_classes * num_boxes],  # 0 keeps the batch
        "most": [num_classes * num_boxes],
        "boxes_a_class": [num_boxes],
        "last": [-1],
    }
    for name, numbers in fixed.items():
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
