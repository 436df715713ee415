"""Export job: the network, the options of the export, and the metadata of every exported model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.class_names import read_class_names
from utils.cli.console import log
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.export_config import DEMO_IMAGES, ExportConfig
from utils.cli.predict_config import PredictConfig
from utils.data.dataset import VocDataset
from utils.data.dataset_report import require_objects
from utils.data.demo import draw_sample
from utils.data.prepare import prepare_evaluation, prepare_splits
from utils.inference.evaluation import detect_dataset, match_classes, score_detections
from utils.inference.image_input import to_batch, to_tensor
from utils.inference.predictor import Predictor
from utils.inference.runtimes import DESCRIPTION_VERSION
from utils.metrics.coco_ap import CocoResult
from utils.vision.image_reader import Pixels, read_image
from utils.vision.letterbox import FILL, letterbox
from utils.weights.load import load_model

_COMPARED = 8  # pictures of the parity check
_CALIBRATION = 128  # pictures of the calibration


@dataclass(frozen=True)
class Quantization:
    """What an 8-bit model needs."""

    pictures: Iterable[Tensor]  # for the calibration of the activations, Tensor[1, 3, H, W] in [0, 1] each
    judge: Callable[[nn.Module], float]  # returns the mAP50 of a network on the split that decides


@dataclass(frozen=True)
class ExportJob:
    """A network and its export options."""

    model: YoloBody  # in eval mode on the CPU, float32; the reference of the parity check
    config: ModelConfig  # defines it, with the input size of the export
    class_names: tuple[str, ...]
    source: Path  # the file that the weights came from; exports take its stem
    batch: int | None = 1  # images at a time of a format that fixes it, None for any number
    half: bool = False  # store weights in 16 bits
    ends_in_nms: bool = False  # an ONNX model returns detections, not raw heads
    pictures: tuple[Pixels, ...] = ()  # of the parity check, uint8 (H, W, 3) RGB each
    quantization: Quantization | None = None  # for an 8-bit ONNX model
    opset: int | None = None  # of an ONNX model, None for the lowest that it needs
    evaluate: Callable[[nn.Module], CocoResult] | None = None  # on the images of --data, if they are wanted

    def for_format(self, name: str) -> ExportJob:
        """Return the job with the options that a format supports: only ONNX has --nms and --int8."""
        return self if name == "onnx" else dataclasses.replace(self, ends_in_nms=False, quantization=None)

    def unsupported_options(self, name: str) -> list[str]:
        """Return a line for each option that a format ignores."""
        if name == "onnx":
            return []
        flags = {
            "--nms": self.ends_in_nms,
            "--int8": self.quantization is not None,
            "--opset": self.opset is not None,
        }
        return [f"{name}: exported without {flag}, which only ONNX supports" for flag in flags if flags[flag]]

    def file_name(self, suffix: str) -> str:
        """Return the stem of the weights with a suffix."""
        return self.source.stem + suffix

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the network; with --half the floating ones in 16 bits."""
        tensors = self.model.state_dict()
        if not self.half:
            return tensors
        return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}

    def portable_config(self) -> ModelConfig:
        """Return the config without paths of this machine: of a block's own file only the name stays."""
        return dataclasses.replace(self.config, phi=Path(self.config.phi).name)

    def metadata(self) -> dict[str, Any]:
        """Return what a program needs to run the model, as plain values."""
        return {
            "format_version": DESCRIPTION_VERSION,
            "class_names": list(self.class_names),
            "input_size": list(self.config.input_size),  # height, width
            "anchors": [list(anchor) for anchor in self.config.anchors],
            "anchor_masks": [list(mask) for mask in self.config.anchor_masks],
            "scale_x_y": self.config.scale_x_y,
            "phi": self.portable_config().phi,
            "channels": "RGB",
            "range": [0, 1],
            "letterbox": {"fill": FILL, "keeps_aspect": True, "centred": True, "interpolation": "bilinear"},
            "conf": PredictConfig.conf,
            "nms_iou": PredictConfig.nms_iou,
            "max_det": PredictConfig.max_det,
        }


def build_job(config: ExportConfig) -> ExportJob:
    """Load the network that the settings of export.py name; pictures are added by `add_pictures`.

    Raises:
        UserError: the weights or their text files cannot be used.
    """
    classes = read_class_names(config.classes) if config.classes else None
    loaded = load_model(
        config.weights, classes=classes, phi=config.phi, cfg=config.cfg, anchors=config.anchors
    )
    if loaded.anchors_note:
        log(loaded.anchors_note)
    network = dataclasses.replace(loaded.config, input_size=config.imgsz or loaded.config.input_size)
    return ExportJob(
        loaded.model,
        network,
        loaded.class_names,
        loaded.path,
        config.batch_size,
        config.half,
        config.nms,
        opset=config.opset,
    )


def add_pictures(job: ExportJob, config: ExportConfig) -> ExportJob:
    """Return the job with the pictures of the parity check, and what --int8 and --compare need of --data.

    Raises:
        UserError: the data cannot be used.
    """
    if config.data == DEMO_IMAGES:
        drawn = tuple(draw_sample(0, "test", index)[0] for index in range(_COMPARED))
        return dataclasses.replace(job, pictures=drawn)
    dataset, report, _ = prepare_evaluation(config, config.split)
    pictures = tuple(read_image(record.image_path) for record in dataset.records[:_COMPARED])
    job = dataclasses.replace(job, pictures=pictures)
    if not (config.int8 or config.compare):
        return job

    require_objects(report)
    match_classes(job.class_names, dataset)  # before the calibration, which takes long

    def evaluate(model: nn.Module) -> CocoResult:
        predictor = Predictor(model, job.config, job.class_names, conf=EvaluateConfig.conf)
        return score_detections(detect_dataset(predictor, dataset), dataset).coco

    job = dataclasses.replace(job, evaluate=evaluate)
    if not config.int8:
        return job
    training, _ = prepare_splits(config)
    calibration = draw_calibration(training, job.config.input_size)
    quantization = Quantization(calibration, lambda model: evaluate(model).map50 or 0.0)
    return dataclasses.replace(job, quantization=quantization)


def draw_calibration(dataset: VocDataset, input_size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield random pictures of a data set as inputs of the network, each read when it is asked for."""
    for place in np.random.default_rng(0).permutation(len(dataset))[:_CALIBRATION]:
        canvas, _ = letterbox(read_image(dataset.records[place].image_path), input_size)
        yield to_batch([to_tensor(canvas)])
