"""Explanations of detections: attention maps and heat maps, as arrays and as images.

Both run the network once more on a prepared image, in float32, so the detections stay the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial, reduce
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from nets.structures import Detections
from utils.cli.class_names import match_class_names
from utils.cli.console import log
from utils.cli.errors import UserError
from utils.cli.predict_config import ALL_CLASSES
from utils.inference.predictor import Predictor, Prepared
from utils.inference.runtimes import ExportedModel
from utils.inference.streams import Frame
from utils.vision.heatmap import GateMaps, draw_attention_maps, draw_heatmap
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import Placement

# At each scale the last feature maps whose positions correspond to places in the image.
_CAM_LAYERS = {
    2: ("attention.c4", "attention.c5", "head_p4.conv", "head_p5.conv"),
    3: ("attention.c3", "attention.c4", "attention.c5", "head_p3.conv", "head_p4.conv", "head_p5.conv"),
}
_SCORE_UNIT = 0.001  # the difference in score that counts as much as one pixel


class Explainer:
    """Draws the attention maps and the heat map of each image that --attention-maps and --heatmap ask for."""

    def __init__(self, predictor: Predictor, *, attention_maps: bool, heatmap: str | None) -> None:
        """Check what is asked for, and log which attention blocks cannot be drawn.

        `heatmap` is the class whose detections a heat map explains, "all" for every one; None for no map.

        Raises:
            UserError: the network has no attention or no such class, or it is an exported model.
        """
        if isinstance(predictor.model, ExportedModel) and (attention_maps or heatmap is not None):
            flag = "--attention-maps" if attention_maps else "--heatmap"
            raise UserError(
                f"{flag}: {predictor.model.name} does not show the inside of the network; "
                f"use the weights that {predictor.source} was exported from"
            )
        self._predictor = predictor
        self._has_gates = False
        self._heatmap = heatmap
        self._label: int | None = None  # of --heatmap CLASS
        if heatmap not in (None, ALL_CLASSES):
            self._label = match_class_names(predictor.class_names, [heatmap])[0]
            if self._label is None:
                hint = "; put the sources before --heatmap" if Path(heatmap).exists() else ""
                names = ", ".join(predictor.class_names)
                raise UserError(f"--heatmap {heatmap}: not among the classes {names}{hint}")
        if attention_maps:
            gated, others = find_attention(predictor.model)
            self._has_gates = bool(gated)
            for place, block in others.items():
                log(f"attention at {place} ({type(block).__name__}) has no gates to draw")

    def targets(self, sources: Sequence[Path]) -> list[Path]:
        """List what `draw` may yield for the sources, for `choose_images`."""
        kinds = ["attention"] * self._has_gates + ["heatmap"] * (self._heatmap is not None)
        return [_target(source, kind) for source in sources for kind in kinds]

    def draw(self, frame: Frame, detections: Detections) -> Iterator[tuple[Path, Pixels]]:
        """Yield the images for an image file, each with its target; log when there is no heat map."""
        path, image = frame.path, frame.image
        if self._has_gates:
            gates = attention_gates(self._predictor, frame.prepared)
            yield _target(path, "attention"), draw_attention_maps(image, gates)
        if self._heatmap is None:
            return
        chosen = detections if self._label is None else detections[detections.labels == self._label]
        if not len(chosen):
            wanted = "object" if self._label is None else self._heatmap
            log(f"{path}: no {wanted} found, so there is no heat map")
            return
        heat = heat_map(self._predictor, frame.prepared, chosen)
        if not heat.any():
            log(f"{path}: the heat map is empty, as no part of the image raises the scores further")
        yield _target(path, "heatmap"), draw_heatmap(image, heat, chosen, self._predictor.class_names)


def _target(source: Path, kind: str) -> Path:
    """Name an explanation for `choose_images`: below the source's file, where no source can be."""
    return source / f"{source.stem}_{kind}.jpg"


def find_attention(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return the attention blocks of a YoloBody by place: those with gates to draw, and the others.

    Raises:
        UserError: the network has no attention.
    """
    places = model.get_submodule("attention").named_children()
    blocks = {place: block for place, block in places if type(block) is not nn.Identity}
    if not blocks:
        raise UserError(
            "--attention-maps: these weights have no attention block; train with train.py --phi cbam, or "
            "leave the flag out (--heatmap works without attention)"
        )
    gated = {place: block for place, block in blocks.items() if callable(getattr(block, "gates", None))}
    return gated, {place: block for place, block in blocks.items() if place not in gated}


@torch.no_grad()
def attention_gates(predictor: Predictor, prepared: Prepared) -> list[GateMaps]:
    """Compute the gates of every attention block that has them, for one image.

    Spatial gates are multiplied and averaged over the channels; channel gates are multiplied. A map covers
    the image, without the letterbox's gray border.

    Raises:
        UserError: the network has no attention, or a block's gates do not fit its features.
    """
    blocks, _ = find_attention(predictor.model)
    maps: dict[str, GateMaps] = {}

    def record(place: str, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps[place] = _place_gates(place, block, inputs[0], prepared.placement)

    with ExitStack() as hooks:
        for place, block in blocks.items():
            hooks.enter_context(block.register_forward_pre_hook(_of_this_thread(partial(record, place))))
        hooks.enter_context(predictor.evaluation_mode)
        predictor.model(predictor.to_input([prepared]))
    return [maps[place] for place in blocks]


def heat_map(predictor: Predictor, prepared: Prepared, detections: Detections) -> np.ndarray:
    """Compute which parts of an image raise the scores of some of its detections.

    The sum of the scores' log-odds is differentiated by the backbone's features after attention and by the
    hidden convolutions of the heads; each layer's map is divided by its maximum, and so is their mean. (A
    score near 1 has almost no gradient itself: next to doubtful detections a certain one would look cold.)

    Paper: Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization,
    https://doi.org/10.1109/TIP.2021.3089943 (which fuses layers by their maximum).

    Returns:
        float32 (H, W) in [0, 1], in network pixels without the gray border; all 0 where nothing in the
        image raises a score.

    Raises:
        UserError: a block of the user's own detaches the gradient.
    """
    images = predictor.to_input([prepared]).requires_grad_()  # frozen weights give a graph too
    names = _CAM_LAYERS[predictor.config.num_heads]
    layers: dict[str, Tensor] = {}

    def record(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        layers[name] = output

    with torch.enable_grad(), ExitStack() as hooks:
        for name in names:
            layer = predictor.model.get_submodule(name)
            hooks.enter_context(layer.register_forward_hook(_of_this_thread(partial(record, name))))
        hooks.enter_context(predictor.evaluation_mode)
        boxes, scores = predictor.decode(predictor.model(images))
        rows = find_predictions(boxes[0].detach(), scores[0].detach(), detections, prepared.placement)
        chosen = scores[0, rows, detections.labels.to(rows.device)]
        score = torch.logit(chosen, eps=1e-6).sum()
        activations = [layers[name] for name in names]
        try:  # unlike backward(), leaves no .grad behind
            gradients = torch.autograd.grad(score, activations)
        except RuntimeError as error:  # the user's own block: a detached output, reentrant checkpoints
            raise UserError(f"--heatmap: the network cannot be differentiated: {error}") from None
    maps = []
    for activation, gradient in zip(activations, gradients, strict=True):  # (1, C, H, W) each
        cells = (gradient.relu() * activation.detach()).sum(dim=1).relu()[0]  # equations 6 to 8
        maps.append(cut_to_image(_normalized(cells.cpu().numpy()), prepared.placement))
    return _normalized(np.stack(maps).mean(axis=0))


def _of_this_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """Return a hook that ignores other threads, which may run the same network on other images."""
    thread = threading.get_ident()
    return lambda *given: hook(*given) if threading.get_ident() == thread else None


def find_predictions(boxes: Tensor, scores: Tensor, detections: Detections, placement: Placement) -> Tensor:
    """Find which of N predictions in network pixels each of M detections in the image came from.

    The nearest one is taken, as a batch and a single image differ by rounding.

    Returns:
        Tensor[M] int64, on the device of the scores.
    """
    candidates, values = torch.from_numpy(placement.undo(boxes.cpu().numpy())), scores.cpu()
    rows = [
        ((candidates - box).abs().sum(dim=1) + (values[:, label] - score).abs() / _SCORE_UNIT).argmin()
        for box, score, label in zip(detections.boxes, detections.scores, detections.labels, strict=True)
    ]
    return torch.stack(rows).to(scores.device)


def cut_to_image(values: np.ndarray, placement: Placement) -> np.ndarray:
    """Resize a map of cells, float32 (h, w), to the network's input and crop the letterbox's border."""
    height, width = placement.input_size
    (left, top), (scale_x, scale_y) = placement.offset, placement.scale
    image_height, image_width = placement.image_size
    full = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return full[top : top + round(scale_y * image_height), left : left + round(scale_x * image_width)]


def _place_gates(place: str, block: nn.Module, features: Tensor, placement: Placement) -> GateMaps:
    """Split a block's gates (B, C or 1, H or 1, W or 1) into spatial and channel gates."""
    who = f"--attention-maps: attention at {place} ({type(block).__name__})"
    try:
        gates = dict(block.gates(features))  # type: ignore[operator]
    except Exception as error:  # the user's code may fail in any way
        raise UserError(f"{who}: gates: {type(error).__name__}: {' '.join(str(error).split())}") from None
    spatial: list[Tensor] = []
    channels: list[Tensor] = []
    for name, gate in gates.items():
        if not isinstance(gate, Tensor) or not gate.isfinite().all():
            raise UserError(f"{who}: gate {name!r} is not a tensor of finite numbers")
        try:
            gate.expand_as(features)
        except RuntimeError:
            shapes = f"{tuple(gate.shape)} does not fit features of {tuple(features.shape)}"
            raise UserError(f"{who}: gate {name!r} of shape {shapes}") from None
        shown = gate[(None,) * (features.dim() - gate.dim())]  # as many axes as x
        of_channels = shown.shape[1] > 1 and shown.shape[2:] == (1, 1)
        (channels if of_channels else spatial).append(shown[0].float().cpu())
    channel_count, height, width = features.shape[1:]
    positions = None
    if spatial:
        cells = reduce(torch.mul, spatial).mean(dim=0).expand(height, width)  # (h, w)
        positions = cut_to_image(cells.contiguous().numpy(), placement)
    return GateMaps(
        place=place,
        block=type(block).__name__,
        features=(channel_count, height, width),
        positions=positions,
        channels=reduce(torch.mul, channels).flatten().numpy() if channels else None,
    )


def _normalized(values: np.ndarray) -> np.ndarray:
    peak = values.max()
    return values / peak if peak > 0 else np.zeros_like(values)
