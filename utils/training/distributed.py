"""More than one process, as torchrun starts them: who one is, and what all of them know together.

Every process trains on its share of each batch. Gradients are summed in one transfer after the backward pass
(24 MB; a wrapper that overlaps the two would forbid freezing, and blocks with parameters of no effect).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.cli.console import mute
from utils.cli.errors import UserError
from utils.inference.device import choose_device

Result = TypeVar("Result")
_TIMEOUT = timedelta(minutes=10)  # for a process that waits for another; a whole evaluation fits


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_launched() -> bool:
    """Tell whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restart_count() -> int:
    """Return how often torchrun --max-restarts has started the run again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, if torchrun started any; all but the first fall silent."""
    if not is_launched():
        yield
        return
    store, number, count = next(dist.rendezvous("env://", timeout=_TIMEOUT))
    # torchrun keeps one store over its restarts: without a prefix one may find the address of a dead process.
    store = dist.PrefixStore(f"attempt{restart_count()}", store)
    # gloo for what is on the CPU, NCCL for GPUs
    dist.init_process_group(store=store, rank=number, world_size=count, timeout=_TIMEOUT)
    if rank() > 0:
        mute()
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> torch.device:
    """Return the device of this process.

    Args:
        name: the value of --device.

    Raises:
        UserError: there is no such device, or there are fewer GPUs than processes on this machine.
    """
    if not is_launched():
        return choose_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: under torchrun give cpu or cuda; each process takes its own GPU")
    device = choose_device(name)
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(device)
    return device


def from_first(function: Callable[[], Result]) -> Result:
    """Call a function in the first process and return its result in all; its UserError ends all of them.

    Only the first needs to see the files that the function reads.
    """
    if world_size() == 1:
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = error
            dist.broadcast_object_list([None, error.exit_code])
            raise
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise SystemExit(answer[1])  # the first process says why
    return answer[0]


def together(function: Callable[[], Result]) -> Result:
    """Call a function in every process and return each its own result; a UserError in any ends all of them.

    What all processes find wrong, the first of them says alone.
    """
    if world_size() == 1:
        return function()
    answer: list[Result] = []
    error = None
    try:
        answer.append(function())
    except UserError as caught:
        error = caught
    errors = gathered(error)
    failed = [number for number, found in enumerate(errors) if found is not None]
    if not failed:
        return answer[0]
    if error is not None and failed[0] == rank():
        raise error
    raise SystemExit(next(found.exit_code for found in errors if found is not None))


@contextmanager
def one_by_one() -> Iterator[None]:
    """Let the first process go through a block before the others: what it fetches is there for them."""
    if world_size() > 1 and rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        dist.barrier()


@torch.no_grad()
def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one type by their sums over all processes, in place and in one transfer."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


@torch.no_grad()
def copy_from_first(model: nn.Module) -> None:
    """Give a network in every process the weights and buffers that it has in the first."""
    if world_size() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, src=0)


def highest(number: int) -> int:
    """Return the highest of a number over all processes."""
    return max(gathered(number))


def gathered(item: Result) -> list[Result]:
    """Return every process's item, in the order of the processes."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
