"""The pictures that exports are compared, calibrated and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from nets.config import ModelConfig
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.export_config import DEMO_IMAGES, ExportConfig
from utils.data.dataset import VocDataset
from utils.data.dataset_report import require_objects
from utils.data.demo.dataset import draw_sample
from utils.data.prepare import prepare_evaluation, prepare_splits
from utils.export.job import Quantization
from utils.inference.evaluation import evaluate, match_classes
from utils.inference.predictor import Predictor, to_tensor
from utils.vision.image_reader import Pixels, read_image
from utils.vision.letterbox import letterbox

_COMPARED = 8  # pictures on which an export has to find what the network finds
_CALIBRATION = 128  # pictures on which the ranges of the values are measured


def choose_pictures(
    config: ExportConfig, network: ModelConfig, class_names: Sequence[str]
) -> tuple[tuple[Pixels, ...], Quantization | None]:
    """Return the pictures to compare on, those of --data or the demo's, and what --int8 needs.

    Args:
        config: of the export.
        network: of the weights, at the input size of the export.
        class_names: of the weights.

    Raises:
        UserError: the data cannot be used.
    """
    if config.data == DEMO_IMAGES:
        return tuple(draw_sample(0, "test", index)[0] for index in range(_COMPARED)), None
    dataset, report, _ = prepare_evaluation(config.data, splits=config.split, **config.reading())
    pictures = tuple(read_image(record.image_path) for record in dataset.records[:_COMPARED])
    if not config.int8:
        return pictures, None

    require_objects(report)
    match_classes(class_names, dataset)  # before the calibration, which takes long

    def judge(model: nn.Module) -> float:
        predictor = Predictor(model, network, class_names, conf=EvaluateConfig.conf)
        return evaluate(predictor, dataset, skipped=report.skipped.total()).coco.map50 or 0.0

    learned, _ = prepare_splits(config.data, None, **config.reading())
    return pictures, Quantization(Calibration(learned, network.input_size), judge)


class Calibration:
    """Pictures of a data set as the network takes them, read anew at each pass."""

    def __init__(self, dataset: VocDataset, input_size: tuple[int, int]) -> None:
        places = np.random.default_rng(0).permutation(len(dataset))[:_CALIBRATION]
        self._paths: list[Path] = [dataset.records[place].image_path for place in places]
        self._input_size = input_size

    def __iter__(self) -> Iterator[Tensor]:
        for path in self._paths:
            canvas, _ = letterbox(read_image(path), self._input_size)
            yield to_tensor(canvas)[None]
