"""ONNX models by ONNX Runtime (https://onnxruntime.ai), on the CPU or with CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from utils.cli.errors import UserError
from utils.inference.runtimes.runtime import (
    DETECTIONS,
    IMAGES,
    THRESHOLDS,
    Backend,
    choose_runtime_device,
    from_texts,
    import_runtime,
    parse_description,
    reason_of,
)

_DTYPES = dict(zip(THRESHOLDS, (np.float32, np.float32, np.int64), strict=True))
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntimeBackend(Backend):
    """A model that `export.py --format onnx` wrote; may be called from several threads."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package is missing, the file is none of ours, or there is no such device.
        """
        super().__init__()
        runtime = import_runtime("onnxruntime", path)
        self.name = f"ONNX Runtime {runtime.__version__}"
        has_cuda = _CUDA in runtime.get_available_providers()
        self.device = choose_runtime_device(device, self.name, ("cpu", "cuda") if has_cuda else ("cpu",))
        providers: list[str | tuple[str, dict[str, int]]] = [_CPU]
        if self.device.type == "cuda":
            providers.insert(0, (_CUDA, {"device_id": self.device.index or 0}))
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what matters comes as an exception
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the runtime's exceptions have no common class of their own
            raise UserError(f"{path}: ONNX Runtime refuses the model: {reason_of(error)}") from error
        if self.device.type == "cuda" and _CUDA not in self._session.get_providers():
            raise UserError(f"--device {device}: {self.name} cannot start CUDA here; take --device cpu")
        texts = self._session.get_modelmeta().custom_metadata_map
        self.description = parse_description(path, from_texts(path, texts))
        batch = self._session.get_inputs()[0].shape[0]
        self.batch = batch if isinstance(batch, int) else None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.ends_in_nms = self._outputs == [DETECTIONS]

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `Backend.run`."""
        given = {name: np.array([value], _DTYPES[name]) for name, value in thresholds.items()}
        return self._session.run(self._outputs, {IMAGES: images} | given)
