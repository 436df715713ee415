"""Darknet and PyTorch weight files: Darknet's .weights and .cfg, the published layout, and our own .pth."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from utils.cli.anchor_file import write_anchors
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.export.formats import Format
from utils.export.job import ExportJob
from utils.export.parity import Runner
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.darknet import DarknetWeights, check_darknet, is_darknet, read_darknet, write_darknet
from utils.weights.darknet_cfg import build_cfg
from utils.weights.load import load_model
from utils.weights.published import check_published, write_published

_ANCHORS = "_published_anchors.txt"
_OPENCV_HEADS = ["conv_29", "conv_36", "conv_43"]  # OpenCV's names of the last convolutions
_OPENCV_EPSILON = 1e-6  # of batch normalization; Darknet's and ours is 1e-5


class DarknetFormat(Format):
    """Darknet: .weights, the .cfg that describes them, the class names, and the metadata as .json."""

    name = "darknet"
    suffix = ".weights"
    config_checks = (check_darknet,)

    def check(self, job: ExportJob) -> None:
        """See `Format.check`."""
        super().check(job)
        if job.half:
            raise UserError("--half: the Darknet format stores 32-bit values; remove --half or darknet")

    def notes(self, job: ExportJob) -> list[str]:
        """See `Format.notes`."""
        lines = []
        if not hasattr(cv2.dnn, "readNetFromDarknet"):
            lines.append("darknet: this OpenCV cannot read Darknet files; only our own reader is compared")
        return lines

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write .weights, .cfg, .names and .json; weights from a Darknet file keep its header."""
        paths = [folder / job.file_name(suffix) for suffix in (self.suffix, ".cfg", ".names", ".json")]
        origin = read_darknet(job.source) if is_darknet(job.source) else DarknetWeights({}, 0)
        write_darknet(paths[0], dataclasses.replace(origin, state_dict=job.state_dict()))
        metadata = json.dumps(job.metadata(), ensure_ascii=False, indent=1)
        texts = (build_cfg(job.config), "\n".join(job.class_names), metadata)
        for path, text in zip(paths[1:], texts, strict=True):
            with atomic_write(path, "w") as file:
                file.write(text + "\n")
        return paths

    def runners(self, job: ExportJob, path: Path) -> list[Runner]:
        """Return our own reader, and OpenCV's where it has one."""
        model = YoloBody(job.config).eval()
        model.load_state_dict(read_darknet(path).state_dict)
        found = [Runner("our reader", model)]
        if hasattr(cv2.dnn, "readNetFromDarknet"):
            found.append(_load_with_opencv(job, path))
        return found


class PublishedFormat(Format):
    """The published layout: the .pth that bubbliiiing/yolov4-tiny-pytorch loads."""

    name = "published"
    suffix = "_published.pth"
    holds_names = False
    config_checks = (check_published,)

    def notes(self, job: ExportJob) -> list[str]:
        """See `Format.notes`."""
        lines = []
        if job.config.scale_x_y != 1:
            shift = (job.config.scale_x_y - 1) / 2
            moved = f"box centers by up to {shift:.3g} of a cell (scale_x_y is {job.config.scale_x_y:g} here)"
            lines.append(f"published: the layout has no scale_x_y; readers of it move {moved}")
        if not _has_official_anchors(job):
            masks = [list(mask) for mask in job.config.anchor_masks]
            lines.append(
                f"published: the layout has no anchors; in the reference implementation set anchors_path to "
                f"{job.file_name(_ANCHORS)} and anchors_mask to {masks}"
            )
        return lines

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the state_dict, and beside it anchors that are not the official ones."""
        path, anchors = folder / job.file_name(self.suffix), folder / job.file_name(_ANCHORS)
        write_published(path, job.config, job.state_dict())
        if _has_official_anchors(job):
            return [path]
        write_anchors(anchors, job.config.anchors, job.config.anchor_masks, f"anchors of {path.name}")
        return [path, anchors]

    def runners(self, job: ExportJob, path: Path) -> list[Runner]:
        """Return our own reader."""
        return [Runner("our reader", load_model(str(path), classes=job.class_names).model)]

    def next_command(self, job: ExportJob, folder: Path) -> list[str]:
        """See `Format.next_command`."""
        command = super().next_command(job, folder)
        if job.config.input_size != ModelConfig(1).input_size:
            command += ["--imgsz", *map(str, job.config.input_size)]
        if not _has_official_anchors(job):
            command += ["--anchors", str(folder / job.file_name(_ANCHORS))]
        return command


class PthFormat(Format):
    """Our own .pth to share: weights, config and class names, without the training state."""

    name = "pth"
    suffix = ".pth"

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the checkpoint."""
        path = folder / job.file_name(self.suffix)
        save_checkpoint(path, Checkpoint(job.portable_config(), job.class_names, job.state_dict()))
        return [path]

    def runners(self, job: ExportJob, path: Path) -> list[Runner]:
        """Return our own reader."""
        return [Runner("our reader", load_model(str(path), phi=job.config.phi).model)]


def _has_official_anchors(job: ExportJob) -> bool:
    """Tell whether anchors and masks are the official ones, which readers assume when a file has none."""
    return (job.config.anchors, job.config.anchor_masks) == USUAL_ANCHORS[job.config.num_heads]


def _load_with_opencv(job: ExportJob, path: Path) -> Runner:
    cfg, weights = (np.fromfile(file, dtype=np.uint8) for file in (path.with_suffix(".cfg"), path))
    try:
        network = cv2.dnn.readNetFromDarknet(cfg, weights)
    except cv2.error as error:
        reason = error.err or error
        raise UserError(f"--format darknet: OpenCV cannot read the files: {reason}", exit_code=1) from error

    def run(images: Tensor) -> list[Tensor]:
        network.setInput(images.numpy())
        return [torch.from_numpy(raw) for raw in network.forward(_OPENCV_HEADS[: job.config.num_heads])]

    # OpenCV adds another epsilon to the variance than Darknet and we do. For the official weights that alone
    # is 3e-3 in the heads and would hide a fault of the files, so the reference gets OpenCV's here.
    reference = copy.deepcopy(job.model)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _OPENCV_EPSILON
    return Runner(f"OpenCV {cv2.__version__}, both at its epsilon of {_OPENCV_EPSILON:g}", run, reference)
