"""Process group of distributed training, as torchrun starts it, and its collective operations.

Every process trains on its share of each batch; DistributedDataParallel reduces the gradients. Rank 0 alone
evaluates and writes, and the others wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.cli.console import mute
from utils.cli.errors import Interrupted, UserError
from utils.inference.device import choose_device

Result = TypeVar("Result")
_JOINING = timedelta(minutes=10)  # for all processes to start
_WAITING = timedelta(days=1)  # for rank 0, which may evaluate for long; torchrun ends all if one process dies


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Return this process's number among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


def is_distributed() -> bool:
    """Return whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launcher() -> list[str]:
    """Return the words before train.py that start the processes of this run again, on this machine."""
    if not is_distributed():
        return ["python"]
    known = os.environ
    words = ["torchrun", "--nproc-per-node", known.get("LOCAL_WORLD_SIZE", known["WORLD_SIZE"])]
    if known.get("GROUP_WORLD_SIZE", "1") != "1":
        words += ["--nnodes", known["GROUP_WORLD_SIZE"], "--node-rank", known["GROUP_RANK"]]
        words += ["--master-addr", known["MASTER_ADDR"], "--master-port", known["MASTER_PORT"]]
    return words


def restart_count() -> int:
    """Return how often torchrun --max-restarts has restarted the run."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's process group, if there is one; only rank 0 logs."""
    if not is_distributed():
        yield
        return
    store, number, count = next(dist.rendezvous("env://", timeout=_JOINING))
    # torchrun keeps one store over its restarts: without a prefix one may find the address of a dead process.
    store = dist.PrefixStore(f"attempt{restart_count()}", store)
    # gloo for what is on the CPU, NCCL for GPUs
    dist.init_process_group(store=store, rank=number, world_size=count, timeout=_WAITING)
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
        device = choose_device(f"cuda:{local_rank()}")
        torch.cuda.set_device(device)
    return device


def broadcast_from_rank_zero(function: Callable[[], Result]) -> Result:
    """Call a function on rank 0 and return its result on all ranks; its error for the user ends all of them.

    Only rank 0 needs access to the files that the function reads.
    """
    if world_size() == 1:
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except (UserError, Interrupted) as error:
            status = error.exit_code if isinstance(error, UserError) else 128 + error.number
            dist.broadcast_object_list([None, status])
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


def raise_on_rank_zero(error: UserError) -> NoReturn:
    """Raise an error that all ranks have found: rank 0 prints it, the others end with the same status."""
    raise error if rank() == 0 else SystemExit(error.exit_code)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run a block on rank 0 before the other ranks, which find there what it fetched."""
    if rank() > 0:
        _wait_for_all()
    yield
    if rank() == 0:
        _wait_for_all()


@torch.no_grad()
def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place: through gloo on the CPU, through NCCL on a GPU."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    value = torch.tensor(number)
    if world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def wrap_distributed(model: nn.Module, *, find_unused: bool) -> nn.Module:
    """Return a network whose backward pass averages the gradients over the ranks; alone the network itself.

    Weights and batch statistics are those of rank 0, at the start and at each forward pass. `find_unused` is
    needed where parameters may take no part in a step.
    """
    if world_size() == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=find_unused,
        gradient_as_bucket_view=True,
    )


def _wait_for_all() -> None:
    sum_over_ranks(torch.zeros(1))


def all_gather(item: Result) -> list[Result]:
    """Return the items of all ranks, in the order of the ranks; they are pickled."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
