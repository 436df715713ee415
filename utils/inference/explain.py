"""Why the network answers as it does: the gates of its attention blocks, and heat maps of its detections.

Both run the network once more on a prepared image, so the detections themselves stay as they are, and both
return plain arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nets.config import PLACES
from nets.decode import decode
from nets.structures import Detections
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor, Prepared
from utils.vision.heatmap import PlaceGates
from utils.vision.letterbox import Placement

# The last maps on which positions still stand for places in the image, of either scale.
_CAM_LAYERS = ("attention.c4", "attention.c5", "head_p4.conv", "head_p5.conv")
_SCORE_UNIT = 0.001  # a difference of score that tells two boxes apart as well as one pixel does


def find_gated_blocks(model: nn.Module) -> tuple[dict[str, nn.Module], list[str]]:
    """Find the attention blocks of a YoloBody whose gates can be drawn.

    Returns:
        The blocks with `gates` by place, and a line about each block without.

    Raises:
        UserError: the network has no attention.
    """
    blocks = {place: model.get_submodule(f"attention.{place}") for place in PLACES}
    blocks = {place: block for place, block in blocks.items() if type(block) is not nn.Identity}
    if not blocks:
        raise UserError(
            "--attention-maps: these weights have no attention block; train some with train.py --phi cbam, "
            "or leave the flag out (--heatmap works without attention)"
        )
    gated = {place: block for place, block in blocks.items() if callable(getattr(block, "gates", None))}
    lines = [
        f"attention at {place} ({type(block).__name__}) has no gates to draw"
        for place, block in blocks.items()
        if place not in gated
    ]
    return gated, lines


@torch.no_grad()
def attention_gates(predictor: Predictor, prepared: Prepared) -> list[PlaceGates]:
    """Compute the gates of every attention block that shows them, for one image.

    Gates that differ between positions are multiplied and averaged over the channels; those that differ only
    between channels are multiplied. A map covers the image: what lies in the gray border is cut away.

    Raises:
        UserError: the network has no attention, or a block's gates do not fit its features.
    """
    blocks, _ = find_gated_blocks(predictor.model)
    found: dict[str, PlaceGates] = {}

    def watch(place: str, block: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[place] = _place_gates(place, block, inputs[0], prepared.placement)

        return block.register_forward_pre_hook(look)

    with _hooks(watch(place, block) for place, block in blocks.items()):
        predictor.model(prepared.pixels[None].to(predictor.device))
    return [found[place] for place in blocks]


def heat_map(predictor: Predictor, prepared: Prepared, found: Detections) -> np.ndarray:
    """Show which parts of an image raise the scores of some of its detections.

    The sum of the scores' log-odds is differentiated by the backbone's features behind the attention and by
    the hidden convolutions of the heads; each layer's map is normalized by its maximum, and the image's map
    is their mean, normalized again. (A score near 1 has hardly a gradient itself: beside doubtful detections
    a certain one would look cold.)

    Paper: Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization,
    https://doi.org/10.1109/TIP.2021.3089943 (which fuses layers by their maximum).

    Args:
        predictor: what found the detections.
        prepared: the image as the network takes it.
        found: the detections to explain, in pixels of the image, at least one.

    Returns:
        float32 (H, W) in [0, 1], in network pixels with the gray border cut away.
        It is 0 all over where nothing in the image raises a score.

    Raises:
        UserError: a block of the user's own cuts the gradient off.
    """
    images = prepared.pixels[None].to(predictor.device).requires_grad_()  # frozen weights give a graph too
    layers: dict[str, Tensor] = {}

    def watch(name: str) -> RemovableHandle:
        layer = predictor.model.get_submodule(name)
        return layer.register_forward_hook(lambda _, __, output: layers.__setitem__(name, output))

    with torch.enable_grad(), _hooks(watch(name) for name in _CAM_LAYERS):
        config = predictor.config
        boxes, scores = decode(
            predictor.model(images),
            anchors=config.anchors,
            anchor_masks=config.anchor_masks,
            scale_x_y=config.scale_x_y,
        )
        slots = find_slots(boxes[0].detach(), scores[0].detach(), found, prepared.placement)
        chosen = scores[0, slots, found.labels.to(slots.device)]
        score = torch.logit(chosen, eps=1e-6).sum()
        activations = [layers[name] for name in _CAM_LAYERS]
        try:  # unlike backward(), leaves no .grad behind
            gradients = torch.autograd.grad(score, activations)
        except (
            RuntimeError
        ) as error:  # of a block of the user's own: a detached output, reentrant checkpoints
            raise UserError(f"--heatmap: the network cannot be differentiated: {error}") from None
    maps = [
        cut_to_image(_normalized(layer_cam(activation[0], gradient[0]).cpu().numpy()), prepared.placement)
        for activation, gradient in zip(activations, gradients, strict=True)
    ]
    return _normalized(np.stack(maps).mean(axis=0))


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weight each position of each channel by its own positive gradient: LayerCAM, equations 6 to 8.

    Args:
        activation: Tensor[C, H, W].
        gradient: Tensor[C, H, W], of a score by the activation.

    Returns:
        Tensor[H, W], at least 0.
    """
    return (gradient.detach().relu() * activation.detach()).sum(dim=0).relu()


def find_slots(boxes: Tensor, scores: Tensor, found: Detections, placement: Placement) -> Tensor:
    """Find for each detection the place in the network's output that it came from.

    The nearest answer is taken, not an equal one: a batch and a single image differ by rounding.

    Args:
        boxes: Tensor[N, 4], xyxy in network pixels.
        scores: Tensor[N, K].
        found: M detections in pixels of the image.
        placement: where the image lies in the network's input.

    Returns:
        Tensor[M] int64, indices into N, on the device of the scores.
    """
    candidates, values = torch.from_numpy(placement.undo(boxes.cpu().numpy())), scores.cpu()
    slots = [
        ((candidates - box).abs().sum(dim=1) + (values[:, label] - score).abs() / _SCORE_UNIT).argmin()
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]
    return torch.stack(slots).to(scores.device)


def cut_to_image(values: np.ndarray, placement: Placement) -> np.ndarray:
    """Enlarge a map of the network's cells to its input and cut the letterbox's border away.

    Args:
        values: float32 (h, w), a value a cell.
        placement: where the image lies in the network's input.

    Returns:
        float32 (H, W), the part of the input that the image covers.
    """
    height, width = placement.input_size
    (left, top), (scale_x, scale_y) = placement.offset, placement.scale
    image_height, image_width = placement.image_size
    full = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return full[top : top + round(scale_y * image_height), left : left + round(scale_x * image_width)]


def _place_gates(place: str, block: nn.Module, features: Tensor, placement: Placement) -> PlaceGates:
    """Sort a block's gates (B, C or 1, H or 1, W or 1) into those of positions and those of channels."""
    who = f"--attention-maps: attention at {place} ({type(block).__name__})"
    try:
        gates = dict(block.gates(features))  # type: ignore[operator]
    except Exception as error:  # the user's code may fail in any way
        raise UserError(f"{who}: gates: {type(error).__name__}: {' '.join(str(error).split())}") from None
    positions: list[Tensor] = []
    channels: list[Tensor] = []
    for name, gate in gates.items():
        if not isinstance(gate, Tensor) or not gate.isfinite().all():
            raise UserError(f"{who}: gate {name!r} is no tensor of finite numbers")
        try:
            gate.expand_as(features)
        except RuntimeError:
            shapes = f"{tuple(gate.shape)} does not fit features of {tuple(features.shape)}"
            raise UserError(f"{who}: gate {name!r} of shape {shapes}") from None
        shown = gate[(None,) * (features.dim() - gate.dim())]  # as many axes as x
        of_channels = shown.shape[1] > 1 and shown.shape[2:] == (1, 1)
        (channels if of_channels else positions).append(shown[0].float().cpu())
    height, width = features.shape[2:]
    return PlaceGates(
        place=place,
        block=type(block).__name__,
        features=(features.shape[1], height, width),
        positions=_position_map(positions, (height, width), placement) if positions else None,
        channels=_product(channels).flatten().numpy() if channels else None,
    )


def _position_map(gates: Sequence[Tensor], grid: tuple[int, int], placement: Placement) -> np.ndarray:
    values = _product(gates).mean(dim=0).expand(grid)  # (h, w)
    return cut_to_image(values.contiguous().numpy(), placement)


def _product(gates: Sequence[Tensor]) -> Tensor:
    product = gates[0]
    for gate in gates[1:]:
        product = product * gate
    return product


def _normalized(values: np.ndarray) -> np.ndarray:
    peak = values.max()
    return values / peak if peak > 0 else np.zeros_like(values)


@contextmanager
def _hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks on the network within the block, and none behind it."""
    placed: list[RemovableHandle] = []
    try:
        placed.extend(handles)
        yield
    finally:
        for handle in placed:
            handle.remove()
