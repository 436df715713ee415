"""Parity check: whether an exported model computes what the network computes in PyTorch.

Raw heads are compared on noise images. Decoded predictions are compared on pictures, index by index before
suppression, where near-equal boxes cannot change places. A model that ends in NMS returns neither: its
detections must be a valid result of suppression within the limits of boxes and scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.boxes import box_iou
from nets.decode import decode
from nets.structures import Detections
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.predict_config import PredictConfig
from utils.export.job import ExportJob
from utils.inference.image_input import to_batch, to_tensor
from utils.inference.runtimes import ExportedModel
from utils.vision.letterbox import FILL, letterbox

_CONF = 0.05  # boxes are compared from this score
_MAX_DET = 1000
_GRAINS = (1, 8, 32)  # side in pixels of the squares of each noise image, since fine noise averages out


class Limits(NamedTuple):
    """The largest differences that pass: of a raw head, of a box in pixels of the input, of a score."""

    heads: float
    pixels: float
    score: float


FLOAT32_LIMITS = Limits(1e-3, 0.1, 1e-3)
HALF_LIMITS = Limits(5e-2, 1.0, 1e-2)  # heads: relative to the head's largest value


@dataclass(frozen=True)
class Runner:
    """A program that runs an exported model."""

    name: str  # for the messages
    # Maps images (B, 3, H, W) in [0, 1] to raw heads in float32, coarse first. Of a model that ends in NMS it
    # is an `ExportedModel`, whose `detect` returns the detections.
    run: Callable[[Tensor], list[Tensor]]
    reference: nn.Module | None = None  # the network to compare with, None for that of the job


@dataclass
class Parity:
    """The largest differences between an exported model and the network."""

    heads: float | None = None  # of a raw head, None for a model that ends in NMS
    score: float = 0.0
    pixels: float = 0.0  # of a box coordinate, in pixels of the network's input
    boxes: int = 0  # that were compared
    unit: str = ""  # of `heads`, for the messages

    def __str__(self) -> str:
        heads = "" if self.heads is None else f"raw heads{self.unit} by {self.heads:.2g}, "
        boxes = f"{plural(self.boxes, 'box', 'boxes')} by {self.pixels:.2g} px"
        if not self.boxes:
            boxes = f"no box scores {_CONF:g} in these images (choose others with --data)"
        return f"largest differences from PyTorch: {heads}scores by {self.score:.2g}, {boxes}"


def make_noise_images(input_size: tuple[int, int]) -> Tensor:
    """Return the images of the raw heads, Tensor[4, 3, H, W] in [0, 1]: gray, and noise of three grains."""
    generator = torch.Generator().manual_seed(0)
    height, width = input_size
    images = [torch.full((1, 3, height, width), FILL / 255)]
    for grain in _GRAINS:
        noise = torch.rand((1, 3, height // grain, width // grain), generator=generator)
        images.append(F.interpolate(noise, size=input_size, mode="nearest"))
    return torch.cat(images)


@torch.no_grad()
def check_parity(name: str, job: ExportJob, runner: Runner) -> Parity:
    """Compare an exported model with the network and refuse one that differs; `name` is that of the format.

    Raises:
        UserError: raw heads, boxes or scores differ too much (exit code 1).
    """
    limits = HALF_LIMITS if job.half else FLOAT32_LIMITS
    parity = Parity(unit=" (relative to the largest value)" if job.half else "")
    begin = f"--format {name}: in {runner.name}"
    advice = "leave out --half" if job.half else "nothing was written; please report it"

    def check(what: str, value: float, limit: float, unit: str = "") -> None:
        if value > limit:
            difference = (
                f"{what} differ from PyTorch by {value:.2g}{unit}, at most {limit:g}{unit} is allowed"
            )
            raise UserError(f"{begin} the {difference}; {advice}", exit_code=1)

    if not job.ends_in_nms:
        parity.heads = compare_heads(job, runner)
        check(f"raw heads{parity.unit}", parity.heads, limits.heads)
    for picture in job.pictures:
        image = to_batch([to_tensor(letterbox(picture, job.config.input_size)[0])])
        boxes, scores = _decode((runner.reference or job.model)(image), job)
        if job.ends_in_nms:
            assert isinstance(runner.run, ExportedModel)
            (found,) = runner.run.detect(image, conf=_CONF, nms_iou=PredictConfig.nms_iou, max_det=_MAX_DET)
            if wrong := count_wrong(boxes, scores, found, limits):
                counted = f"{wrong} detections are missing or should have been suppressed"
                raise UserError(f"{begin} {counted}; {advice}", exit_code=1)
            boxes, scores, their_boxes, their_scores = _pair(boxes, scores, found, limits)
        else:
            their_boxes, their_scores = _decode(runner.run(image), job)
        counts = torch.maximum(scores, their_scores).amax(1) >= _CONF  # (N,)
        size = torch.tensor(job.config.input_size[::-1] * 2)  # boxes are clipped before they are compared
        distances = torch.minimum(boxes.clamp(min=0), size) - torch.minimum(their_boxes.clamp(min=0), size)
        parity.boxes += int(counts.sum())
        parity.pixels = max(parity.pixels, _largest(distances[counts]))
        parity.score = max(parity.score, _largest(scores - their_scores))
        check("boxes", parity.pixels, limits.pixels, " px")
        check("scores", parity.score, limits.score)
    return parity


def compare_heads(job: ExportJob, runner: Runner) -> float:
    """Compare raw heads on noise images.

    Returns:
        The largest difference of a value, infinite for NaN; with --half relative to the head's largest value.

    Raises:
        UserError: the network itself returns such values, or the export returns heads of other shapes.
    """
    largest, reference = 0.0, runner.reference or job.model
    for images in _batches(job):
        expected, got = reference(images), runner.run(images)
        if not all(raw.isfinite().all() for raw in expected):
            raise UserError(f"{job.source}: the network itself returns infinite values or NaN", exit_code=1)
        shapes = [[tuple(raw.shape) for raw in heads] for heads in (expected, got)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{job.source}: has heads {shapes[0]}, exported {shapes[1]}", exit_code=1)
        for ours, theirs in zip(expected, got, strict=True):
            scale = max(_largest(ours), 1e-12) if job.half else 1.0
            largest = max(largest, _largest(ours - theirs) / scale)
    return largest


def count_wrong(boxes: Tensor, scores: Tensor, found: Detections, limits: Limits) -> int:
    """Count detections of one image that greedy suppression would not return, and those that are missing.

    It returns detections of which no two of a class overlap; every other prediction overlaps a better one of
    them. Both are tested within the limits, so it does not matter which of two near-equal boxes is returned.

    Args:
        boxes: predictions of the network before suppression, Tensor[N, 4] xyxy in network pixels.
        scores: their scores, Tensor[N, K].
        found: the detections of the exported model, at most `_MAX_DET`.
        limits: smaller differences do not count.
    """
    threshold, wrong = PredictConfig.nms_iou, 0
    lowest = found.scores.min().item() if len(found) == _MAX_DET else 0.0  # the weaker ones were cut off
    for label in range(scores.shape[1]):
        kept, column = found[found.labels == label], scores[:, label]
        overlaps = box_iou(kept.boxes, kept.boxes).triu(diagonal=1)
        wrong += int((overlaps > threshold + limits.score).any(0).sum())

        required = column >= max(_CONF, lowest) + limits.score
        low = torch.maximum(kept.boxes[:, None, :2], boxes[required][None, :, :2])
        high = torch.minimum(kept.boxes[:, None, 2:], boxes[required][None, :, 2:])
        shared = (high - low + 4 * limits.pixels).clamp(min=0).prod(dim=-1)  # all four edges may be off
        areas, other_areas = ((one[:, 2:] - one[:, :2]).prod(1) for one in (kept.boxes, boxes[required]))
        overlapped = shared >= (threshold - limits.score) * (areas[:, None] + other_areas[None] - shared)
        is_better = kept.scores[:, None] >= column[required] - limits.score
        wrong += int((~(overlapped & is_better).any(0)).sum())
    return wrong


def _pair(
    boxes: Tensor, scores: Tensor, found: Detections, limits: Limits
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pair each detection with the nearest prediction: boxes (D, 4) and scores (D, 1) of both."""
    places = torch.empty(len(found), dtype=torch.long)
    for label in found.labels.unique():
        mine = found.labels == label
        pixels = torch.cdist(found.boxes[mine], boxes, p=math.inf)  # (D, N)
        differences = (found.scores[mine][:, None] - scores[None, :, label]).abs()
        places[mine] = torch.maximum(pixels / limits.pixels, differences / limits.score).argmin(1)
    return boxes[places], scores[places, found.labels][:, None], found.boxes, found.scores[:, None]


def _decode(raw_maps: list[Tensor], job: ExportJob) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 4) and scores (N, K) of one image."""
    config = job.config
    boxes, scores = decode(
        raw_maps, anchors=config.anchors, anchor_masks=config.anchor_masks, scale_x_y=config.scale_x_y
    )
    return boxes[0], scores[0]


def _largest(values: Tensor) -> float:
    """Return the largest magnitude, infinite where a value is not finite, 0 for no values."""
    if not values.isfinite().all():
        return math.inf
    return values.abs().max().item() if values.numel() else 0.0


def _batches(job: ExportJob) -> Iterator[Tensor]:
    """Yield the noise images in batches that the model takes; for any size, one image and then the rest."""
    images = make_noise_images(job.config.input_size)
    if job.batch is None:
        yield from images.split([1, len(images) - 1])
        return
    count = math.ceil(len(images) / job.batch) * job.batch
    yield from images[torch.arange(count) % len(images)].split(job.batch)
