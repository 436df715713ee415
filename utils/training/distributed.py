"""Process group of distributed training, as torchrun starts it, and its collective operations.

Every process trains on its share of each batch. Gradients are reduced in one transfer of 24 MB after the
backward pass: DistributedDataParallel allows neither freezing during a run nor blocks with unused parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

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


def is_distributed() -> bool:
    """Return whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restart_count() -> int:
    """Return how often torchrun --max-restarts has restarted the run."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's process group, if there is one; only rank 0 logs."""
    if not is_distributed():
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


def rank_device(name: str) -> torch.device:
    """Return the device of this process for a value of --device.

    Raises:
        UserError: there is no such device, or this machine has fewer GPUs than processes.
    """
    if not is_distributed():
        return choose_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: under torchrun give cpu or cuda; each process takes its own GPU")
    device = choose_device(name)
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(device)
    return device


def broadcast_from_rank_zero(function: Callable[[], Result]) -> Result:
    """Call a function on rank 0 and return its result on all ranks; its UserError ends all of them.

    Only rank 0 needs access to the files that the function reads.
    """
    if world_size() == 1:
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except UserError as error:
            dist.broadcast_object_list([None, error.exit_code])
            raise
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise SystemExit(answer[1])  # rank 0 prints the error
    return answer[0]


def run_on_all_ranks(function: Callable[[], Result]) -> Result:
    """Call a function on every rank and return each rank's own result; a UserError on any ends all of them.

    Only the lowest rank with an error prints it.
    """
    result, error = None, None
    try:
        result = function()
    except UserError as caught:
        error = caught
    errors = all_gather(error)
    failed = next((number for number, found in enumerate(errors) if found is not None), None)
    if failed is None:
        return cast(Result, result)
    if error is not None and failed == rank():
        raise error
    raise SystemExit(cast(UserError, errors[failed]).exit_code)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run a block on rank 0 before the other ranks, which find there what it fetched."""
    if world_size() > 1 and rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        dist.barrier()


@torch.no_grad()
def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Sum tensors of one type over all ranks, in place and in one transfer."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


@torch.no_grad()
def broadcast_model(model: nn.Module) -> None:
    """Copy the weights and buffers of rank 0 to all ranks."""
    if world_size() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, src=0)


def all_gather(item: Result) -> list[Result]:
    """Return the items of all ranks, in the order of the ranks."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
