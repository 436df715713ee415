"""Training on a GPU: the step of the CPU, skipped and resumed steps, what waits, torch.compile, two GPUs."""

from __future__ import annotations

import copy
import math
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import evaluate
import train
from nets.config import LOSS_NORMALIZATIONS, ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from tests.training_room import folder_of, last_of, same
from utils.cli.train_config import TrainConfig
from utils.training import builders
from utils.training.distributed import process_group, rank_device
from utils.training.engine import EpochMeter, Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Batch = tuple[Tensor, list[Target]]
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
FLOAT16_SCALE = 2.0**8  # at which nothing here overflows


@pytest.fixture(autouse=True)
def _same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolve float32 in float32, not in TF32, by the same kernels each time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def make_batch(numbers: Iterable[int] = range(4)) -> Batch:
    """Return pictures of noise, the same for the same numbers, the first without an object."""
    images, targets = [], []
    for n in numbers:
        images.append(torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(n)))
        corners = torch.tensor([[4.0 + 3 * k + n, 6.0, 30.0 + 9 * k, 40.0 + n] for k in range(n % 4)])
        labels = torch.arange(n % 4) % 2
        targets.append(Target(corners.reshape(-1, 4), labels, torch.zeros(n % 4, dtype=torch.bool), str(n)))
    return torch.stack(images).to(torch.uint8), targets


def build(
    device: torch.device, dtype: torch.dtype | None = None, *, phi: str = "none", **settings: Any
) -> Trainer:
    """Build the trainer of a new network, the same each time; `dtype` is that of mixed precision."""
    torch.manual_seed(0)
    config = TrainConfig(**{"batch_size": 4, "weights": "none", "imgsz": (64, 64), "phi": phi, **settings})
    model = YoloBody(ModelConfig(2, phi, input_size=(64, 64)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "autocast_dtype", lambda *_: dtype)
        trainer = builders.build_trainer(config, model, 10, 1000, device)
    if dtype == torch.float16:
        set_scale(trainer, FLOAT16_SCALE)
    return trainer


def set_scale(trainer: Trainer, scale: float) -> None:
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": scale})


def take_steps(trainer: Trainer, *batches: Batch, freeze_backbone: bool = False) -> EpochMeter:
    """Take a step of each batch; returns the meter."""
    trainer.start_epoch(freeze_backbone=freeze_backbone)
    meter = EpochMeter()
    for batch in batches:
        assert trainer.step([batch], meter)
    trainer.finish_step(meter)
    return meter


def state_of(trainer: Trainer) -> Any:
    """Return a copy of what a step changes."""
    parts = trainer.model.state_dict(), trainer.ema.state_dict(), trainer.optimizer.state_dict()["state"]
    return copy.deepcopy((*parts, trainer.schedule.step))


def on_cpu(value: Any) -> Any:
    """Return a nested value with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: on_cpu(one) for name, one in value.items()}
    return tuple(map(on_cpu, value)) if isinstance(value, list | tuple) else value


def flat_moments(trainer: Trainer, name: str) -> Tensor:
    """Return one kind of the optimizer's moments in a row: after a first step they are its gradient."""
    states = trainer.optimizer.state_dict()["state"].values()
    return torch.cat([state[name].cpu().flatten() for state in states])


def assert_close(ours: nn.Module, theirs: nn.Module, tolerance: float) -> None:
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value.cpu(), expected[name].cpu(), rtol=tolerance, atol=tolerance)


# One step.


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("loss", LOSS_NORMALIZATIONS)
@pytest.mark.parametrize(("optimizer", "moment"), [("sgd", "momentum_buffer"), ("adamw", "exp_avg")])
def test_a_step_is_that_of_the_cpu(number: int, loss: str, optimizer: str, moment: str) -> None:
    if number >= torch.cuda.device_count():
        pytest.skip("needs two GPUs")
    device = torch.device(GPU.type, number)
    ours, theirs = (build(one, optimizer=optimizer, loss=loss) for one in (device, CPU))
    before = copy.deepcopy(theirs.model)
    meter, expected = take_steps(ours, make_batch()), take_steps(theirs, make_batch())
    assert meter.losses == pytest.approx(expected.losses, rel=1e-4)
    assert (meter.images, meter.unassigned, meter.skipped) == (4, expected.unassigned, 0)
    assert_close(ours.model, theirs.model, 1e-4)
    assert_close(ours.average, theirs.average, 1e-4)
    gradient, reference = flat_moments(ours, moment), flat_moments(theirs, moment)
    # A value near 0 may have another sign on the GPU, where LeakyReLU has another slope.
    assert (gradient - reference).norm() < 0.01 * reference.norm()
    moved = [(a - b).abs().max() for a, b in zip(before.parameters(), theirs.model.parameters(), strict=True)]
    assert all(distance > 0 for distance in moved)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_overflows_halves_the_scale_and_changes_nothing_else(optimizer: str) -> None:
    trainer = build(GPU, torch.float16, optimizer=optimizer)
    assert take_steps(trainer, make_batch()).skipped == 0
    before = state_of(trainer)
    set_scale(trainer, 2.0**40)
    meter = take_steps(trainer, make_batch())
    assert (meter.steps, meter.skipped, meter.images) == (1, 1, 0)
    assert same(state_of(trainer), before)
    assert trainer.scaler.get_scale() == 2.0**39
    set_scale(trainer, FLOAT16_SCALE)
    assert take_steps(trainer, make_batch()).skipped == 0
    assert (trainer.schedule.step, trainer.ema.updates) == (2, 2)
    assert not same(state_of(trainer)[:3], before[:3])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_loss_that_is_not_a_number_changes_nothing(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(GPU, torch.bfloat16, optimizer=optimizer)
    assert take_steps(trainer, make_batch()).skipped == 0
    before, forward = state_of(trainer), trainer.criterion.forward

    def spoilt(*given: Any) -> dict[str, Tensor]:
        return {name: term * math.nan for name, term in forward(*given).items()}

    with monkeypatch.context() as patch:
        patch.setattr(trainer.criterion, "forward", spoilt)
        meter = take_steps(trainer, make_batch(), make_batch(range(3)))
    assert (meter.steps, meter.skipped) == (2, 2)
    assert same(state_of(trainer), before)
    assert trainer.is_finite
    assert take_steps(trainer, make_batch()).skipped == 0
    assert (trainer.schedule.step, trainer.ema.updates) == (2, 2)


# Resuming.


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("before", "after", "scale"),
    [
        ((CPU, None), (GPU, torch.bfloat16), 1.0),
        ((CPU, None), (GPU, torch.float16), FLOAT16_SCALE),
        ((GPU, torch.bfloat16), (CPU, None), 1.0),
        ((GPU, torch.float16), (CPU, None), 1.0),
        ((GPU, torch.float16), (GPU, torch.float16), 64.0),
    ],
    ids=["to bfloat16", "to float16", "from bfloat16", "from float16", "on in float16"],
)
def test_a_run_goes_on_on_another_device(
    tmp_path: Path,
    optimizer: str,
    before: tuple[torch.device, torch.dtype | None],
    after: tuple[torch.device, torch.dtype | None],
    scale: float,
) -> None:
    first, second = (build(*one, optimizer=optimizer) for one in (before, after))
    take_steps(first, make_batch(), make_batch(range(1, 5)))
    if before[1] == torch.float16:
        set_scale(first, 64.0)
    torch.save(first.state_dict(), tmp_path / "last.pth")
    second.load_state_dict(torch.load(tmp_path / "last.pth", map_location="cpu", weights_only=True))
    assert same(on_cpu(state_of(second)), on_cpu(state_of(first)))
    assert second.scaler.get_scale() == scale
    for parameter, state in second.optimizer.state.items():
        assert {value.device for value in state.values()} == {second.device}
        moments = [value for name, value in state.items() if name != "step"]
        assert {value.stride() for value in moments} == {parameter.stride()}  # the fused kernels need it
    meters = [take_steps(trainer, make_batch()) for trainer in (first, second)]
    assert [meter.skipped for meter in meters] == [0, 0]
    assert meters[1].losses == pytest.approx(meters[0].losses, rel=0.05)
    assert first.schedule.step == second.schedule.step == 3


# What a step waits for.


def pinned(batch: Batch) -> Batch:
    return batch[0].pin_memory(), batch[1]


@contextmanager
def errors_on_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "settings",
    [{}, {"phi": "cbam"}, {"optimizer": "adamw"}, {"loss": "means"}, {"clip_grad": 0.0, "ema": False}],
    ids=str,
)
def test_a_step_does_not_wait_for_the_gpu(settings: dict[str, Any]) -> None:
    trainer, meter = build(GPU, torch.bfloat16, **settings), EpochMeter()
    first, *others = [pinned(make_batch(range(start, start + 4))) for start in range(5)]
    trainer.start_epoch(freeze_backbone=False)
    trainer.step([first], meter)  # builds the priors
    with errors_on_waiting():
        trainer.step(others[:1], meter)
        trainer.step(others[1:3], meter)  # accumulates
        with pytest.raises(RuntimeError, match="synchronizing"):
            trainer.model.head_p5.predict.bias.sum().item()
    trainer.finish_step(meter)
    assert (meter.steps, meter.batches, meter.skipped) == (3, 4, 0)


def test_all_that_a_step_uploads_is_pinned() -> None:
    """A copy from ordinary memory may wait for the GPU, and set_sync_debug_mode does not tell."""
    trainer, meter = build(GPU, torch.bfloat16, loss="means"), EpochMeter()
    first, second = pinned(make_batch()), pinned(make_batch(range(1, 5)))
    trainer.start_epoch(freeze_backbone=False)
    trainer.step([first], meter)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        trainer.step([second], meter)
        trainer.finish_step(meter)
    copies = {event.name for event in profiler.events() if event.name.startswith("Memcpy HtoD")}
    if not copies:
        pytest.skip("the profiler cannot watch this GPU")
    assert not [name for name in copies if "Pageable" in name], copies


# torch.compile, several GPUs, whole runs.


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_steps() -> None:
    pytest.importorskip("triton")
    plain, compiled = build(GPU), build(GPU, compile=True)
    for freeze in (True, False):
        backbone = copy.deepcopy(compiled.model.backbone.state_dict())
        meters = [take_steps(one, make_batch(), freeze_backbone=freeze) for one in (plain, compiled)]
        assert meters[1].losses == pytest.approx(meters[0].losses, rel=1e-3)
        assert_close(compiled.model, plain.model, 1e-3)
        assert_close(compiled.average, plain.average, 1e-3)
        assert same(backbone, compiled.model.backbone.state_dict()) == freeze
    gradients = [flat_moments(one, "momentum_buffer") for one in (compiled, plain)]
    assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[1].norm()


def step_of(device: torch.device, batch: Batch, bn: str) -> dict[str, Any]:
    """Take a step with "frozen" or with "shared" batch statistics; returns what it made of it."""
    trainer = build(device, batch_size=8, sync_bn=bn == "shared" and torch.distributed.is_initialized())
    if bn == "frozen":
        named = trainer.model.named_modules()
        trainer.frozen_bn = [name for name, module in named if isinstance(module, nn.BatchNorm2d)]
    meter = take_steps(trainer, batch)
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    return on_cpu({"gradients": gradients, "losses": meter.losses, "weights": trainer.model.state_dict()})


def take_share(rank: int, device: str, bn: str, port: int, folder: Path) -> None:
    """Take the step of one of two processes, each with half of the images."""
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in place.items()})
    with process_group():
        share = make_batch(range(8)[rank::2])
        torch.save(step_of(rank_device(device), share, bn), folder / f"{rank}.pth")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("bn", ["frozen", "shared"])
def test_two_gpus_take_the_step_of_one(tmp_path: Path, bn: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not forked: CUDA has begun here.
    torch.multiprocessing.spawn(take_share, args=(GPU.type, bn, port, tmp_path), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    expected = step_of(GPU, make_batch(range(8)), bn)
    assert ours["losses"] == theirs["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert same(ours["weights"], theirs["weights"])
    flat = [torch.cat([one.flatten() for one in step["gradients"].values()]) for step in (ours, expected)]
    assert (flat[0] - flat[1]).norm() < 0.01 * flat[1].norm()


@pytest.mark.slow
@pytest.mark.usefixtures("room")
def test_a_run_from_start_to_end_and_on_the_cpu_afterwards() -> None:
    argv = ["--data", "data", "--weights", "none", "--imgsz", "64", "--batch-size", "2", "--name", "gpu"]
    argv += ["--device", GPU.type, "--cache", "--workers", "2", "--epochs", "1"]
    assert train.main(argv) == 0
    header, row = (folder_of("gpu") / "results.csv").read_text().splitlines()
    figures = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(figures["images_per_second"]) > 0
    assert float(figures["memory_gb"]) > 0
    best = str(folder_of("gpu") / "weights/best.pth")
    assert evaluate.main(["--weights", best, "--data", "data", "--split", "val", "--device", "cpu"]) == 0
    assert train.main(["--resume", str(last_of("gpu")), "--device", "cpu", "--epochs", "2"]) == 0
    assert len((folder_of("gpu") / "results.csv").read_text().splitlines()) == 3
