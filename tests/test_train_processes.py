"""Several processes of torchrun: the numbers of one, one folder, and what happens when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import BatchNorm2d

import evaluate
import train
from nets.config import ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from tests.training_room import (
    QUICK,
    are_same_runs,
    content_of,
    errors_in,
    folder_of,
    forking_torchrun,
    joined_processes,
    last_of,
    started,
    table_of,
    torchrun,
    wait_until,
)
from utils.cli.console import run_command
from utils.cli.error_messages import explain_failure
from utils.cli.errors import Interrupted, UserError
from utils.cli.parser import given_settings
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.train_dataset import TrainDataset
from utils.training.builders import build_trainer
from utils.training.distributed import launcher, process_group, rank, run_on_all_ranks
from utils.training.engine import EpochMeter, Trainer
from utils.training.resolve import resolve_config
from utils.vision.image_reader import Pixels

EXACT = (*QUICK, "--deterministic", "--epochs", "2", "--workers", "0")
PATIENCE = 600  # seconds until torchrun and its processes have imported torch, on a busy machine
Batch = tuple[Tensor, list[Target]]

pytestmark = pytest.mark.usefixtures("training_room")


def errors_of(number: int = 2) -> list[str]:
    return [line for rank in range(number) for line in errors_in(Path(f"log{rank}.txt").read_text())]


# The gradient of several processes.


def batch_of(numbers: range, *, has_truths: bool = True) -> Batch:
    """Return pictures of noise, the same for the same numbers, with as many objects as the number says."""
    images = [torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(n)) for n in numbers]
    targets = []
    for n in numbers:
        count = 1 + n % 3 if has_truths else 0
        corners = torch.tensor([[4.0 + 3 * k + n, 6.0, 30.0 + 9 * k, 40.0 + n] for k in range(count)])
        boxes, labels = corners.reshape(-1, 4), torch.arange(count) % 2
        targets.append(Target(boxes, labels, torch.zeros(count, dtype=torch.bool), image_id=str(n)))
    return torch.stack(images).to(torch.uint8), targets


def step(batches: list[Batch]) -> dict[str, object]:
    """Train one step with the batch statistics frozen; returns what it made of it."""
    torch.manual_seed(0)
    config = TrainConfig(batch_size=2, accumulate=len(batches), weights="none", imgsz=(64, 64))
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    trainer: Trainer = build_trainer(config, model, len(batches), 1000, torch.device("cpu"))
    trainer.frozen_bn = [name for name, module in model.named_modules() if isinstance(module, BatchNorm2d)]
    trainer.start_epoch(freeze_backbone=False)
    meter = EpochMeter()
    trainer.step(batches, meter)
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    return {
        "gradients": gradients,
        "losses": meter.losses,
        "images": meter.images,
        "weights": model.state_dict(),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "whole"),
    [
        ([[batch_of(range(3))], [batch_of(range(3, 6))]], [batch_of(range(6))]),
        ([[batch_of(range(5))], [batch_of(range(5, 6))]], [batch_of(range(6))]),
        (
            [[batch_of(range(3))], [batch_of(range(3, 6), has_truths=False)]],
            [
                tuple(
                    a + b if isinstance(a, list) else torch.cat((a, b))
                    for a, b in zip(batch_of(range(3)), batch_of(range(3, 6), has_truths=False), strict=True)
                )
            ],
        ),
        (
            [[batch_of(range(2)), batch_of(range(2, 3))], [batch_of(range(3, 5)), batch_of(range(5, 6))]],
            [batch_of(range(6))],
        ),
    ],
    ids=["even", "uneven", "one without truths", "accumulated"],
)
def test_two_processes_take_the_step_of_one(shares: list[list[Batch]], whole: list[Batch]) -> None:
    def work(_: list[str]) -> int:
        with process_group():
            torch.save(step(shares[rank()]), f"step{rank()}.pth")
        return 0

    with joined_processes(work=work) as commands:
        assert [command.wait() for command in commands] == [0, 0], commands[0].text + commands[1].text
    ours, theirs = (torch.load(f"step{rank}.pth", weights_only=True) for rank in range(2))
    expected = step(whole)
    assert ours["images"] == theirs["images"] == expected["images"] == 6
    assert ours["losses"] == theirs["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert all(torch.equal(ours["weights"][name], theirs["weights"][name]) for name in ours["weights"])
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(ours["gradients"][name], gradient, rtol=1e-4, atol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in expected["gradients"].values())
    assert largest > 0.01  # so the tolerance means something


# Whole runs.


@pytest.fixture(scope="module")
def whole() -> str:
    """The name of a run of two processes that was never stopped."""
    with joined_processes(*EXACT, "--name", "whole") as commands:
        assert [command.wait() for command in commands] == [0, 0], commands[0].text + commands[1].text
    return "whole"


@pytest.mark.slow
def test_a_run_of_two_processes_is_one_run(whole: str, capsys: pytest.CaptureFixture[str]) -> None:
    log, other = Path("log0.txt").read_text(), Path("log1.txt").read_text()
    assert log.count("run folder: ") == log.count("best weights: ") == 1
    assert other == ""
    assert [path.name for path in Path("runs/train").glob("whole*")] == ["whole"]
    files = [path.name for path in folder_of(whole).rglob("*") if path.suffix not in (".jpg", ".png", "")]
    assert sorted(files) == ["args.yaml", "best.pth", "last.pth", "metrics.json", "results.csv"]
    assert [row["epoch"] for row in table_of(whole)] == ["1", "2"]
    assert content_of(last_of(whole))["processes"] == 2
    argv = ["--weights", str(last_of(whole)), "--data", "data", "--split", "val", "--device", "cpu"]
    assert evaluate.main([*argv, "--batch-size", "2"]) == 0
    row = table_of(whole)[-1]
    evaluated = content_of(last_of(whole))["metrics"]
    for name in ("map50", "map50_95", "voc_ap50_area"):
        assert float(row[name]) == evaluated[name]
    printed = capsys.readouterr().out
    assert f"{evaluated['map50']:.4f}" in printed or f"{100 * evaluated['map50']:.2f}" in printed, printed


ODD_BLOCK = """
import os
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.used, self.unused = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        drawn = torch.rand(1).item()
        with open(f"drawn{os.environ['RANK']}.txt", "a") as file:
            print(drawn, file=file)
        return x + self.used(x) if drawn < 0.7 else x
"""


@pytest.mark.slow
def test_a_block_with_unused_parameters_and_random_numbers_is_trained() -> None:
    """Also through the change from a frozen backbone to a free one."""
    Path("odd.py").write_text(ODD_BLOCK)
    flags = ("--phi", "odd.py:Odd", "--freeze-epochs", "1", "--save-period", "1", "--name", "odd")
    flags = (*flags, "--multi-scale", "--grow", "--imgsz", "160")
    with joined_processes(*EXACT, *flags) as commands:
        assert [command.wait() for command in commands] == [0, 0], commands[0].text + commands[1].text
    before, after = (content_of(folder_of("odd") / "weights" / name) for name in ("epoch1.pth", "last.pth"))
    assert [row["epoch"] for row in table_of("odd")] == ["1", "2"]
    frozen = [
        name for name in before["model"] if name.startswith("backbone") and name.endswith("conv.weight")
    ]
    assert not any(torch.equal(before["model"][name], after["model"][name]) for name in frozen)
    drawn = [set(Path(f"drawn{rank}.txt").read_text().split()) for rank in range(2)]
    assert len(drawn[0] & drawn[1]) < len(drawn[0]) / 2  # the trial of the block draws the same


@pytest.mark.slow
def test_going_on_with_another_number_of_processes_warns(
    whole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder_of(whole), folder_of("alone"))
    assert train.main(["--resume", str(last_of("alone")), "--epochs", "3"]) == 0
    assert "the run began with 2 processes, now 1" in capsys.readouterr().err


def saves(path: Path, seen: set[int]) -> int:
    """Add the file's state to those seen; returns how many there were."""
    with suppress(FileNotFoundError):
        seen.add(path.stat().st_mtime_ns)
    return len(seen)


@pytest.mark.slow
def test_torchrun_is_stopped_and_the_run_goes_on_to_the_same_bits(whole: str) -> None:
    last, seen = last_of("halted"), set[int]()
    # Its processes start anew, with the precision of the machine.
    with torchrun(*EXACT, "--no-amp", "--save-steps", "1", "--name", "halted") as command:
        wait_until(lambda: saves(last, seen) > 2 or not command.runs, PATIENCE)
        command.signal(signal.SIGTERM)
        assert command.wait(40) != 0
        text = command.text
    assert text.count("interrupted: saved ") == 1, text
    assert text.count(f"; resume: torchrun --nproc-per-node 2 train.py --resume {last}") == 1
    with joined_processes("--resume", str(last)) as commands:
        assert [command.wait() for command in commands] == [0, 0], commands[0].text + commands[1].text
    assert are_same_runs("halted", whole)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "python"),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "1"}, "python"),
        (
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"},
            "torchrun --nproc-per-node 4",
        ),
        (
            {
                **{"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "GROUP_RANK": "0"},
                **{"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
            },
            "torchrun --nproc-per-node 2 --nnodes 2 --node-rank 0 --master-addr 10.0.0.1 --master-port 29500",
        ),
    ],
)
def test_a_run_is_resumed_by_what_started_it(
    known: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    assert " ".join(launcher()) == words


@pytest.mark.slow
def test_torchrun_starts_again_from_the_last_checkpoint(whole: str) -> None:
    last, seen = last_of("risen"), set[int]()
    with forking_torchrun(*EXACT, "--save-steps", "1", "--name", "risen", restarts=3) as command:
        wait_until(lambda: saves(last, seen) > 7 or not command.runs, PATIENCE)
        os.kill(int(Path("pid1.txt").read_text()), signal.SIGKILL)
        assert command.wait(PATIENCE) == 0, command.text
        text = command.text
    assert f"resuming {last} after 1 of 2 epochs and " in text
    assert [path.name for path in Path("runs/train").glob("risen*")] == ["risen"]
    assert are_same_runs("risen", whole)


@pytest.mark.slow
def test_a_restart_meets_nobody_of_the_attempt_before(monkeypatch: pytest.MonkeyPatch) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kept = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.port}
    for name, value in {**kept, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))

    def join(_: list[str]) -> int:
        with process_group():
            dist.barrier()
        return 0

    def place(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        time.sleep(rank)  # so the first would read what the second wrote in the attempt before

    for attempt in range(2):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        with (
            started(log="log0.txt", before=partial(place, 0), work=join) as first,
            started(log="log1.txt", before=partial(place, 1), work=join) as second,
        ):
            assert [first.wait(20), second.wait(20)] == [0, 0], first.text + second.text


@pytest.mark.slow
def test_a_restart_before_the_first_save_leaves_an_older_run_alone(
    whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of("whole2").mkdir()
    shutil.copy(folder_of(whole) / "args.yaml", folder_of("whole2"))
    os.utime(folder_of("whole2") / "args.yaml", (2**31, 2**31))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    given = given_settings(TrainConfig, [*EXACT, "--name", whole], prog="", description="", example="")
    config, folder, resumed = resolve_config(given)
    assert (config.name, folder, resumed) == (whole, None, None)
    shutil.rmtree(folder_of("whole2"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other(victim: int) -> None:
    name = f"killed{victim}"
    with joined_processes(*EXACT, "--save-steps", "1", "--name", name) as commands:
        commands[0].wait_for_saves(last_of(name), 2)
        commands[victim].signal(signal.SIGKILL)
        assert commands[1 - victim].wait(60) == 1
        (line,) = errors_of()
        assert "another process of the run ended" in line
    assert content_of(last_of(name))["schedule"]["step"] >= 2


@pytest.mark.parametrize("kind", [dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError])
def test_a_process_that_never_came_is_said(kind: type[Exception]) -> None:
    error = kind("The client socket has timed out while trying to connect to (localhost, 39355).")
    assert "another process of the run" in str(explain_failure(error))


def test_the_signal_of_another_process_is_this_ones_first() -> None:
    with StopSignals(repeats_end=False) as stop:
        stop.check(0)
        with pytest.raises(Interrupted):
            stop.check(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # its own comes while it saves, and must not cut that


# The cache of decoded images.


@pytest.mark.slow
def test_a_cache_is_one_file_for_all_processes_and_changes_no_bit(
    whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = TrainDataset._read

    def note(self: TrainDataset, index: int) -> Pixels:
        with open(f"read{rank()}.txt", "a") as file:
            file.write(f"{index}\n")
        return read(self, index)

    monkeypatch.setattr(TrainDataset, "_read", note)
    with joined_processes(*EXACT, "--cache", "--workers", "1", "--name", "cached") as commands:
        assert [command.wait() for command in commands] == [0, 0], commands[0].text + commands[1].text
        (line,) = [line for line in commands[0].text.splitlines() if line.startswith("cache: ")]
    assert sorted(map(int, Path("read0.txt").read_text().split())) == list(range(12))
    assert not Path("read1.txt").exists()
    assert line.startswith("cache: 0.00 GB of decoded images in ")
    assert not Path(line.partition(" images in ")[2]).parent.exists()
    assert are_same_runs("cached", whole)


@pytest.mark.slow
def test_an_image_that_cannot_be_cached_ends_all_processes() -> None:
    shutil.copytree("data", "torn")
    path = Path("torn/JPEGImages/3.jpg")
    path.write_bytes(path.read_bytes()[:-200])
    with joined_processes(*EXACT, "--data", "torn", "--cache", "--name", "never") as commands:
        assert [command.wait() for command in commands] == [2, 2], commands[0].text + commands[1].text
    (line,) = errors_of()
    assert "3.jpg: cannot read the image" in line
    assert not folder_of("never").exists()


# Mistakes.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--batch-size", "3"], "--batch-size 3"),
        (["--device", "cuda:1"], "--device cuda:1"),
        (["--data", "nowhere"], "nowhere"),
        (["--epochs", "0"], "--epochs 0"),
        (["--resume", "missing.pth"], "missing.pth"),
        (["--phi", "nowhere.py:Block"], "nowhere.py"),
    ],
)
def test_bad_usage_ends_all_processes_and_one_says_why(argv: list[str], named: str) -> None:
    given = argv if "--resume" in argv else [*EXACT, "--name", "never", *argv]
    with joined_processes(*given) as commands:
        assert [command.wait() for command in commands] == [2, 2]
        (line,) = errors_of()
        assert named in line
    assert not folder_of("never").exists()


@pytest.mark.slow
def test_what_one_process_alone_finds_wrong_it_says() -> None:
    def work(argv: list[str]) -> int:
        def look() -> None:
            if rank() == 1:
                raise UserError("here: only here")

        with process_group():
            run_on_all_ranks(look)
        return 0

    with joined_processes(work=lambda argv: run_command(work, argv)) as commands:
        assert [command.wait() for command in commands] == [2, 2]
        assert errors_of() == ["error: here: only here"]
