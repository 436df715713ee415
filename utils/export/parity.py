"""Whether an exported model finds what the network finds: raw heads on fixed images, objects in pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.structures import Detections
from utils.cli.errors import UserError
from utils.cli.predict_config import PredictConfig
from utils.export.job import ExportJob
from utils.export.pairs import Offsets, measure_offsets
from utils.inference.predictor import Predictor
from utils.vision.letterbox import FILL

LIMIT = 1e-3  # of the largest difference of a raw head
HALF_LIMIT = 5e-2  # the same with 16-bit weights, as a part of the head's largest value
_CONF = 0.05  # detections from this score have to be the same
_PIXELS, _SCORE = 0.1, 1e-3  # how far they may be apart
_MAX_DET = 1000  # so high that no detection is cut off by one of the two only
_HALF_PIXELS, _HALF_SCORE = 1.0, 1e-2
_HALF_UNIT = " of their largest value"
_GRAINS = (1, 8, 32)  # side in pixels of the squares of each noise image, since fine noise averages out


@dataclass(frozen=True)
class Reader:
    """Someone who runs an exported model.

    Attributes:
        name: for the messages.
        run: maps images (B, 3, H, W) in [0, 1] to raw heads in float32, coarse first.
        reference: what it is compared with, None for the network of the job.
    """

    name: str
    run: Callable[[Tensor], list[Tensor]]
    reference: nn.Module | None = None


@dataclass(frozen=True)
class Parity:
    """How near an exported model is to the network.

    Attributes:
        heads: largest difference of a raw head, None for a model that has none.
        detections: how far those are apart that both found.
        unit: what `heads` is measured in.
    """

    heads: float | None
    detections: Offsets
    unit: str = ""

    def __str__(self) -> str:
        heads = "" if self.heads is None else f"raw heads differ by at most {self.heads:.2g}{self.unit}, "
        nothing = "nothing is found in the pictures to compare (give --data)"
        return f"compared with PyTorch, {heads}{self.detections if self.detections.pairs else nothing}"


def make_images(input_size: tuple[int, int]) -> Tensor:
    """Return the images to compare on, Tensor[4, 3, H, W] in [0, 1]: noise of three grains, and all gray."""
    generator = torch.Generator().manual_seed(0)
    height, width = input_size
    images = [torch.full((1, 3, height, width), FILL / 255)]
    for grain in _GRAINS:
        noise = torch.rand((1, 3, height // grain, width // grain), generator=generator)
        images.append(F.interpolate(noise, size=input_size, mode="nearest"))
    return torch.cat(images)


@torch.no_grad()
def measure_difference(job: ExportJob, reader: Reader) -> float:
    """Compare an exported model with the network.

    Returns:
        The largest difference of any value of the raw heads; of a job in 16 bits as a part of the head's
        largest value. Infinite where the model gives values that are not finite.

    Raises:
        UserError: the network itself gives such values, or the model heads of other shapes.
    """
    largest, reference = 0.0, reader.reference or job.model
    for images in _batches(job):
        expected = reference(images)
        if not all(raw.isfinite().all() for raw in expected):
            raise UserError(f"{job.source}: the network itself gives values that are not finite", exit_code=1)
        got = reader.run(images)
        shapes = [[tuple(raw.shape) for raw in heads] for heads in (expected, got)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{job.source}: gives heads {shapes[0]}, exported {shapes[1]}", exit_code=1)
        for ours, theirs in zip(expected, got, strict=True):
            difference = (ours - theirs).abs().max().item()
            if job.half and difference > 0:
                difference /= max(ours.abs().max().item(), 1e-12)
            largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def hold_parity(name: str, job: ExportJob, reader: Reader) -> Parity:
    """Compare an exported model with the network and refuse one that differs.

    Args:
        name: the format.
        job: what was exported.
        reader: runs the exported model.

    Raises:
        UserError: the raw heads or the detections differ too much (exit code 1); says by how much.
    """
    heads = None if job.ends_in_nms else measure_difference(job, reader)
    limit = HALF_LIMIT if job.half else LIMIT
    if heads is not None and not heads <= limit:
        unit = _HALF_UNIT if job.half else ""
        raise _refusal(name, job, reader, f"raw heads differ from PyTorch by {heads:.2g}{unit}", f"{limit:g}")
    pixels, score = (_HALF_PIXELS, _HALF_SCORE) if job.half else (_PIXELS, _SCORE)
    ours = _detect(reader.reference or job.model, job, _CONF - score)
    theirs = _detect(reader.run, job, _CONF - score)
    found = measure_offsets(ours, theirs, conf=_CONF, nms_iou=PredictConfig.nms_iou, slack=score)
    if found.alone or not (found.pixels <= pixels and found.score <= score):
        alone = f", {found.alone} are found by one of the two only" if found.alone else ""
        difference = f"detections differ from PyTorch, {found}{alone}"
        raise _refusal(name, job, reader, difference, f"{pixels:g} px and {score:g}")
    return Parity(heads, found, _HALF_UNIT if job.half else "")


def _detect(run: Callable[[Tensor], list[Tensor]], job: ExportJob, conf: float) -> list[Detections]:
    """Detect objects in the job's pictures, one after the other as many a runtime wants it."""
    model = run if isinstance(run, nn.Module) else Called(run)
    predictor = Predictor(model, job.config, job.class_names, conf=conf, max_det=_MAX_DET)
    return predictor(list(job.pictures), batch_size=1)


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, run: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to raw maps."""
        return self.run(images)


def _refusal(name: str, job: ExportJob, reader: Reader, difference: str, limit: str) -> UserError:
    advice = "leave out --half" if job.half else "nothing was written; please report it"
    return UserError(
        f"--format {name}: in {reader.name} the {difference}, at most {limit} is allowed; {advice}",
        exit_code=1,
    )


def _batches(job: ExportJob) -> Iterator[Tensor]:
    """Cut the images into batches as the model takes them; one of any size gets one image, then the rest."""
    images = make_images(job.config.input_size)
    if job.batch is None:
        yield from images.split([1, len(images) - 1])
        return
    count = math.ceil(len(images) / job.batch) * job.batch
    yield from images[torch.arange(count) % len(images)].split(job.batch)
