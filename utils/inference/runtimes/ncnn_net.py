"""ncnn models, .param, .bin and .json, by ncnn (https://github.com/Tencent/ncnn) on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from utils.cli.errors import UserError
from utils.inference.runtimes.runtime import (
    Backend,
    choose_runtime_device,
    import_runtime,
    parse_description,
)

_MAGIC = b"7767517"  # first line of every .param
_IMAGES, _HEADS = "in0", ("out0", "out1")  # pnnx's names


class NcnnBackend(Backend):
    """A model that `export.py --format ncnn` wrote; may be called from several threads."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package is missing, the file is none of ours, or there is no such device.
        """
        super().__init__()
        runtime = import_runtime("ncnn", path)
        self.name = f"ncnn {runtime.__version__}"
        self.device = choose_runtime_device(device, self.name)
        self.batch = 1  # ncnn knows no batches
        weights = path.with_suffix(".bin")
        _hold_is_network(path, weights)
        self.description = parse_description(path, _read_json(path.with_suffix(".json")))
        self._mat, self._net = runtime.Mat, runtime.Net()
        options = self._net.opt
        options.num_threads = torch.get_num_threads()
        # By default it computes in 16 bits where the processor can, and differs from PyTorch.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise UserError(f"{path}: ncnn refuses the model; export it again")

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """See `Backend.run`."""
        extractor = self._net.create_extractor()
        image = self._mat(images[0])  # looks at the array's memory, which `images` keeps alive
        extractor.input(_IMAGES, image)
        heads = [extractor.extract(head) for head in _HEADS]
        if any(status for status, _ in heads):
            raise UserError(f"{self.name} could not compute the heads; is there memory left?", exit_code=1)
        return [np.array(mat)[None] for _, mat in heads]


def _hold_is_network(path: Path, weights: Path) -> None:
    """Refuse what is no model of ncnn's, which does not survive every file."""
    with path.open("rb") as file:
        if file.readline().strip() != _MAGIC:
            raise UserError(f"{path}: no ncnn model; give the .param that export.py --format ncnn wrote")
    if not weights.is_file():
        raise UserError(f"{path}: its weights {weights.name} are not beside it; copy both")


def _read_json(path: Path) -> object:
    """Read the description; None where the file is missing.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); export the model again") from None
