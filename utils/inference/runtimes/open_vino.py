"""OpenVINO IR, a pair of .xml and .bin, by OpenVINO (https://docs.openvino.ai) on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from utils.cli.errors import UserError
from utils.inference.runtimes.runtime import (
    HEADS,
    IMAGES,
    Backend,
    choose_runtime_device,
    from_texts,
    import_runtime,
    parse_description,
)

DESCRIPTION = ["yolov4_tiny"]  # where in the model's rt_info its description stands
_HEAD_BYTES = 1000


class OpenVinoBackend(Backend):
    """A model that `export.py --format openvino` wrote; may be called from several threads."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package is missing, the file is none of ours, or there is no such device.
        """
        super().__init__()
        runtime = import_runtime("openvino", path)
        self.name = f"OpenVINO {runtime.__version__.partition('-')[0]}"
        self.device = choose_runtime_device(device, self.name)
        _hold_is_network(path)
        core = runtime.Core()
        # The CPU plugin would compute in 16 bits where the processor can, and differ from PyTorch.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        try:
            model = core.read_model(path)
            texts = model.get_rt_info(DESCRIPTION).value if model.has_rt_info(DESCRIPTION) else {}
            self.description = parse_description(path, from_texts(path, texts))
            batch = model.input(IMAGES).partial_shape[0]
            self.batch = None if batch.is_dynamic else batch.get_length()
            self._compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]  # above it stand places in OpenVINO's sources
            raise UserError(f"{path}: OpenVINO refuses the model: {reason}") from error

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `Backend.run`."""
        found = self._compiled.create_infer_request().infer({IMAGES: images})  # a request is one thread's
        return [found[head] for head in HEADS]


def _hold_is_network(path: Path) -> None:
    """Refuse XML of another kind, on which OpenVINO would try all its readers, with their messages."""
    with path.open("rb") as file:
        root = re.search(rb"<([a-zA-Z]\w*)", file.read(_HEAD_BYTES))
    if root is None or root[1] != b"net":
        kind = "a VOC annotation" if root and root[1] == b"annotation" else "no OpenVINO model"
        raise UserError(f"{path}: is {kind}; give the .xml that export.py --format openvino wrote")
