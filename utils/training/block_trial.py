"""Trial of the attention blocks before a run reads its data: all that the run does with one is done once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from textwrap import shorten

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nets.attention import build_attention
from nets.config import PLACE_STRIDES, PLACES, THIRD_HEAD_PLACES
from utils.cli.console import log, plural, warn
from utils.cli.errors import UserError
from utils.cli.own_code import where_it_failed
from utils.cli.train_config import TrainConfig
from utils.data.input_sizes import STEP, InputSizes, Size, build_input_sizes, format_size
from utils.inference.device import autocast_dtype, precision_name
from utils.training.distributed import rank_device
from utils.weights.own_block import import_block, needs_contiguous, to_channels_last, use_contiguous

_TOLERANCE = 1e-3  # between the outputs of equal blocks, relative to the largest value
_LONGEST_REASON = 200  # characters of an exception's message


class BlockError(Exception):
    """What a block does wrong, in words."""


@dataclass(frozen=True)
class Trial:
    """A block at a place, and how the run uses it."""

    spec: str  # value of --phi
    place: str  # of the network
    places: tuple[str, ...]  # all that the network is known to have
    sizes: InputSizes  # input sizes of the run
    batch: int  # images a step, at most 2
    device: torch.device  # where the run trains
    autocast: torch.dtype | None  # number type of mixed precision, None for float32
    is_contiguous: bool  # the block gets contiguous features, see `needs_contiguous`

    def build(self) -> nn.Module:
        """Build a block, laid out as in the network."""
        block = build_attention(self.spec, PLACES[self.place])
        _check_tensors(block)
        if self.is_contiguous:
            use_contiguous(block)
        return to_channels_last(block.to(self.device))

    def features(self, size: Size, count: int) -> Tensor:
        """Return random features (count, C, H, W) of images of a size, laid out as in the network."""
        height, width = (side // PLACE_STRIDES[self.place] for side in size)
        features = torch.rand(count, PLACES[self.place], height, width, device=self.device)
        return features.contiguous(memory_format=torch.channels_last)

    @contextmanager
    def step(self, name: str, advice: str = "") -> Iterator[None]:
        """Turn whatever the block raises into one line: block, place, step of the trial, reason, advice."""
        try:
            yield
        except Exception as error:  # the user's code may fail in any way
            begin = f"--phi {self.spec} at {self.place}, {name}"
            raise UserError("; ".join(filter(None, (f"{begin}: {_reason_of(error)}", advice)))) from error


def check_attention(config: TrainConfig, batch_size: int | None = None) -> None:
    """Try the block of each place; those of the user's own through all that a run does with them.

    With `batch_size`, images a step, only the training is tried.

    Raises:
        UserError: it cannot be used; names the block, the place and the reason.
    """
    is_own = ":" in config.phi
    try:
        import_block(config.phi)
    except ValueError as error:
        raise UserError(f"--phi: {error}") from None
    name = f"--phi {config.phi} at"
    device = rank_device(config.device) if is_own else torch.device("cpu")
    absent = () if config.heads == 3 else set(THIRD_HEAD_PLACES).difference(config.phi_at)
    known_places = tuple(place for place in PLACES if place not in absent)
    contiguous: list[str] = []
    warnings: dict[str, list[str]] = {}  # places by warning
    for place in config.phi_at:
        trial = Trial(
            config.phi,
            place,
            known_places,
            build_input_sizes(config),
            min(batch_size or config.batch_size, 2),
            device,
            autocast_dtype(config.amp, device),
            is_own and needs_contiguous(config.phi, place, config.imgsz),
        )
        # All blocks of a run start from the same random state.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with trial.step("building it"):
                block = trial.build()
            if is_own and batch_size is None:
                contiguous += [place] * trial.is_contiguous
                for warning in try_own_block(trial, block):
                    warnings.setdefault(warning, []).append(place)
            else:
                try_training(trial, block)
    if contiguous:
        log(f"{name} {', '.join(contiguous)}: gets contiguous features, as it fails on channels_last")
    for warning, places in warnings.items():
        warn(f"{name} {', '.join(places)}: {warning}")


def try_training(trial: Trial, block: nn.Module) -> None:
    """Train a block for a step at each size: the full one and the extreme ones of the run."""
    full, images = trial.sizes.full, f"training on {plural(trial.batch, 'image')} of"
    advice = "use more images a step" if trial.batch == 1 else ""
    try:
        with trial.step(f"{images} {format_size(full)} pixels", advice):
            train(block, trial.features(full, trial.batch))
    except UserError as error:
        raise UserError("; ".join(filter(None, (str(error), _advise_on_size(trial, block))))) from error
    for size in dict.fromkeys((trial.sizes.smallest, trial.sizes.largest)):
        if size != full:
            advice = f"it fits {format_size(full)} pixels but not {format_size(size)}"
            advice += ": remove --multi-scale and --grow"
            with trial.step(f"{images} {format_size(size)} pixels", advice):
                train(block, trial.features(size, trial.batch))


def try_own_block(trial: Trial, block: nn.Module) -> list[str]:
    """Do with a new block what a run does: train it, evaluate it, save it, load it and copy it.

    Returns:
        What the user should know about a block that works.
    """
    full, other = trial.sizes.full, (trial.sizes.full[0] + STEP, trial.sizes.full[1] + STEP)
    features, single = trial.features(full, trial.batch), trial.features(full, 1)
    images = f"{plural(trial.batch, 'image')} of {format_size(full)} pixels"
    names = set(block.state_dict())
    try_training(trial, block)
    with trial.step("after its first forward"):
        if late := names ^ set(block.state_dict()):
            raise BlockError(f"it has made {', '.join(sorted(late))}, too late to be loaded; use __init__")
    with trial.step(f"training on {images} again", "detach() what it keeps for the next step"):
        train(block, features.clone())
    with trial.step(f"evaluating {images}"):
        forward(block.eval(), features)
    if trial.autocast is not None:
        precision = precision_name(trial.autocast)
        with trial.step(f"in {precision}", "cast to one type, as in x.to(y.dtype), or use --no-amp"):
            train(block, features.clone(), trial.autocast)
            forward(block.eval(), features, trial.autocast)

    with trial.step("building it again"):
        restored, fresh = trial.build(), trial.build()
    with trial.step("copying it for the moving average"):
        average = copy.deepcopy(fresh)  # its weights differ, so a copy that still reads them is found
    _leave_zero(block)
    with trial.step(f"evaluating 1 image of {format_size(full)} pixels"):
        expected = forward(block.eval(), single)
        is_repeatable = _is_close(forward(block, single), expected)
    with trial.step("evaluating contiguous features, as export does", "use reshape for view"):
        forward(block, single.contiguous())
    for name, twin, advice in (
        ("a new one with its weights", restored, "use register_buffer for tensors, nn.ModuleList for lists"),
        ("a copy of it", average, "a hook or lambda must not refer to self"),
    ):
        with trial.step(f"evaluating {name}", advice):
            twin.load_state_dict(block.state_dict())
            if not _is_close(forward(twin.eval(), single), expected) and is_repeatable:
                raise BlockError("it computes something else")

    warnings = []
    if not is_repeatable:
        warnings.append("computes another output for the same features in evaluation mode: results vary")
    try:
        forward(block, trial.features(other, 1))
    except Exception as error:  # the user's code may fail in any way
        warnings.append(
            f"fits {format_size(full)} pixels but not {format_size(other)} ({_reason_of(error)}); evaluate, "
            "predict and export at this --imgsz too, or resize its table to x.shape[2:] in forward"
        )
    return warnings


def train(block: nn.Module, features: Tensor, autocast: torch.dtype | None = None) -> None:
    """Run a block forward and backward in training mode and check its output and gradients."""
    own = set(block.parameters())
    # The gradient of the sigmoid needs its output, which a block must not change in place.
    output = forward(block.train(), features.requires_grad_().sigmoid(), autocast)
    if not output.requires_grad:
        raise BlockError("its output has no gradient; leave out detach() and torch.no_grad()")
    output.float().mean().backward()  # a sum may overflow in float16
    for leaf in _leaves(output):
        if leaf is not features and leaf not in own:
            raise BlockError(
                f"it uses parameters that are not its own, one of shape {tuple(leaf.shape)} (made in "
                "forward, kept in a list or dict, or a plain tensor): they are neither trained nor saved; "
                "make them in __init__ as nn.Parameter, nn.ModuleList or nn.ParameterDict"
            )
    for name, parameter in block.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise BlockError(f"the gradient of {name} is not finite")
    block.zero_grad()


def _leaves(output: Tensor) -> Iterator[Tensor]:
    """Yield the tensors whose gradients the backward pass of an output accumulates."""
    seen, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
            if node.name() == "torch::autograd::AccumulateGrad":
                yield node.variable  # type: ignore[attr-defined]


def forward(block: nn.Module, features: Tensor, autocast: torch.dtype | None = None) -> Tensor:
    """Run a block forward, without gradient in evaluation mode, and check its output."""
    version = features._version
    precision = torch.autocast(features.device.type, autocast, enabled=autocast is not None)
    with precision, torch.set_grad_enabled(block.training):
        output = block(features)
    if not isinstance(output, Tensor):
        raise BlockError(f"a block must return one tensor, this one returns {type(output).__name__}")
    is_cast = autocast is not None and output.dtype == autocast
    if output.shape != features.shape or not (is_cast or output.dtype == features.dtype):
        expected, actual = ((tuple(tensor.shape), tensor.dtype) for tensor in (features, output))
        raise BlockError(f"a block must keep shape and type, {expected}; this one returns {actual}")
    if features._version != version:
        raise BlockError("it changes its input in place; use x * y for x.mul_(y), and leave out inplace=True")
    if not output.isfinite().all():
        raise BlockError("its output is not finite (inf or nan)")
    return output


def _advise_on_size(trial: Trial, block: nn.Module) -> str:
    """Say at which places a block that failed at its own would find features of the size that it takes."""
    height, width = trial.sizes.full
    sizes = {place: (height // PLACE_STRIDES[place], width // PLACE_STRIDES[place]) for place in trial.places}
    fitting = []
    for place, size in sizes.items():
        with suppress(Exception):  # the user's code may fail in any way
            # "meta" tensors have no values: those of another place may need too much memory.
            block.to("meta")(torch.rand(trial.batch, PLACES[trial.place], *size, device="meta"))
            fitting.append(place)
    if not fitting or trial.place in fitting:
        return ""
    found, *others = (f"{place} ({format_size(sizes[place])})" for place in (trial.place, *fitting))
    return (
        f"it fits the features of {', '.join(others)}, not of {found}: use F.interpolate(table, x.shape[2:]) "
        f"in forward, or --phi-at {' '.join(fitting)}"
    )


def _check_tensors(block: nn.Module) -> None:
    """Refuse parameters that a run cannot train, average or copy."""
    for name, value in (*block.named_parameters(), *block.named_buffers()):
        if is_lazy(value):
            layer = type(block.get_submodule(name.rpartition(".")[0])).__name__
            known = f"nn.{layer.removeprefix('Lazy')} with its number of inputs"
            raise BlockError(f"{name} of a {layer} has no shape before the first forward; use {known}")
        if value.requires_grad and value.is_complex():
            raise BlockError(
                f"{name} is complex, which the optimizer step and the moving average do not support; store "
                "torch.view_as_real of it, and use torch.view_as_complex in forward"
            )
        if value.requires_grad and value.dtype == torch.float16:
            raise BlockError(f"{name} is float16, which cannot be trained; use float32, which --amp casts")
    for path, module in block.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise BlockError(
                    f"{f'{path}.{name}'.strip('.')} is computed before forward, so it cannot be copied; "
                    "compute it in forward (for weight_norm: torch.nn.utils.parametrizations.weight_norm)"
                )


def _leave_zero(block: nn.Module) -> None:
    """Make parameters that are zero random: a gate that starts closed would hide what lies before it."""
    for parameter in block.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.1)


def _is_close(output: Tensor, expected: Tensor) -> bool:
    return bool((output - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _reason_of(error: Exception) -> str:
    """Return the message of an exception; where it is not written for the user, with its type and line."""
    if isinstance(error, BlockError):
        return str(error)
    reason = shorten(str(error), _LONGEST_REASON, placeholder=" …") or "no reason given"
    if where := where_it_failed(error):
        return f"{type(error).__name__} in {where}: {reason}"
    return reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"
