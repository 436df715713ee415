"""Whether an exported model computes what the network computes: raw heads on fixed images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.errors import UserError
from utils.export.job import ExportJob
from utils.images import FILL

LIMIT = 1e-3  # of the largest difference
HALF_LIMIT = 1e-2  # the same with 16-bit weights, as a part of the head's largest value
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


def make_images(input_size: tuple[int, int]) -> Tensor:
    """Return the images to compare on, Tensor[4, 3, H, W] in [0, 1]: noise of three grains, and all grey."""
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


def hold_parity(name: str, job: ExportJob, reader: Reader) -> float:
    """Measure the difference and refuse one that is too large.

    Args:
        name: the format.
        job: what was exported.
        reader: runs the exported model.

    Raises:
        UserError: it is too large (exit code 1); says by how much.
    """
    difference = measure_difference(job, reader)
    limit = HALF_LIMIT if job.half else LIMIT
    if difference <= limit:
        return difference
    unit = " of their largest value" if job.half else ""
    advice = "leave out --half" if job.half else "nothing was written; please report it"
    raise UserError(
        f"--format {name}: in {reader.name} the raw heads differ from PyTorch by {difference:.2g}{unit}, "
        f"at most {limit:g} is allowed; {advice}",
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
