"""What goes wrong while a run is under way: one line that says so, an exit status, and whole files."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from nets.yolo import YoloBody
from tests.training_room import (
    QUICK,
    content_of,
    errors_in,
    folder_of,
    last_of,
    started,
    table_of,
    wait_until,
)
from utils.training.engine import Trainer
from utils.weights.checkpoint import load_checkpoint, save_checkpoint

SHORT = (*QUICK, "--epochs", "1", "--workers", "0")  # 6 steps
Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("training_room")


@pytest.fixture(scope="module")
def whole() -> str:
    """The name of a run in which nothing went wrong."""
    assert train.main([*SHORT, "--name", "whole"]) == 0
    return "whole"


def only_error(text: str) -> str:
    (line,) = errors_in(text)
    assert len(line) <= 400
    return line


def before_step(patch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Have something happen before a step, counted from 1."""
    usual = Trainer.step

    def acting(self: Trainer, *args: Any, **options: Any) -> bool:
        if self.schedule.step + 1 == step:
            action()
        return usual(self, *args, **options)

    patch.setattr(Trainer, "step", acting)


# The disk.


@pytest.mark.slow
@pytest.mark.parametrize("limit_mb", [5, 30])  # 24 MB for best.pth, 70 for last.pth
def test_a_full_disk_is_named_and_leaves_the_old_files(whole: str, limit_mb: int) -> None:
    name = f"full{limit_mb}"
    shutil.copytree(folder_of(whole), folder_of(name))
    kept = {path: path.read_bytes() for path in (last_of(name), folder_of(name) / "args.yaml")}
    argv = ["--resume", str(last_of(name)), "--epochs", "2", "--workers", "0"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_mb * 2**20,) * 2)

    with started(*argv, before=limit) as command:
        assert command.wait() == 1, command.text
        line = only_error(command.text)
    assert f"{folder_of(name)}/weights/" in line
    assert "File too large" in line
    assert last_of(name).read_bytes() == kept[last_of(name)]
    assert len(load_checkpoint(folder_of(name) / "weights/best.pth").weights) > 0
    assert not list(folder_of(name).rglob("*.tmp"))


@pytest.mark.slow
def test_a_table_that_cannot_be_written_is_warned_of_once(capsys: Captured) -> None:
    (folder_of("table") / "results.csv").mkdir(parents=True)
    argv = [*SHORT, "--epochs", "2", "--val", "none", "--name", "table", "--exist-ok"]
    assert train.main(argv) == 0
    text = capsys.readouterr().err
    assert errors_in(text) == []
    (line,) = [
        line for line in text.splitlines() if line.endswith("continues without it") and "results.csv" in line
    ]
    assert line.startswith("warning: ")
    assert content_of(last_of("table"))["epoch"] == 2


@pytest.mark.slow
def test_a_folder_that_is_removed_ends_the_run_at_the_next_save(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    before_step(monkeypatch, 3, lambda: shutil.rmtree(folder_of("removed")))
    assert train.main([*SHORT, "--save-steps", "2", "--name", "removed"]) == 1
    line = only_error(capsys.readouterr().err)
    assert f"{last_of('removed')}: cannot write: No such file" in line


# Data and weights.


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_image_that_vanishes_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, workers: str
) -> None:
    shutil.copytree("data", f"data{workers}")
    name = f"vanished{workers}"
    before_step(monkeypatch, 2, lambda: Path(f"data{workers}/JPEGImages/3.jpg").unlink(missing_ok=True))
    argv = ["--data", f"data{workers}", "--epochs", "3", "--mosaic", "0", "--workers", workers]
    assert train.main([*SHORT, *argv, "--name", name]) == 1
    assert "3.jpg" in only_error(capsys.readouterr().err)


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_stops_the_run(capsys: Captured) -> None:
    argv = ["--lr", "1e20", "--warmup-epochs", "0", "--clip-grad", "0", "--epochs", "3", "--name", "wild"]
    assert train.main([*SHORT, *argv, "--save-steps", "1"]) == 1
    line = only_error(capsys.readouterr().err)
    assert "is not finite at epoch" in line
    assert "images " in line
    assert "try a lower --lr" in line
    saved = load_checkpoint(last_of("wild"))
    for state in (saved.weights, saved.training["model"]):
        assert all(value.isfinite().all() for value in state.values())


def test_weights_that_are_no_numbers_are_refused(whole: str, capsys: Captured) -> None:
    checkpoint = load_checkpoint(folder_of(whole) / "weights/best.pth")
    checkpoint.weights["head_p5.predict.weight"][0, 0] = torch.nan
    save_checkpoint("nan.pth", checkpoint)
    assert train.main([*SHORT, "--weights", "nan.pth", "--name", "nan"]) == 2
    line = only_error(capsys.readouterr().err)
    assert "nan.pth" in line
    assert "head_p5.predict.weight" in line
    assert not folder_of("nan").exists()


def test_damaged_checkpoints_are_refused_by_both_flags(whole: str, capsys: Captured) -> None:
    content = last_of(whole).read_bytes()
    Path("half.pth").write_bytes(content[: len(content) // 2])
    Path("empty.pth").write_bytes(b"")
    Path("page.pth").write_text("<!DOCTYPE html><title>Sign in</title>")
    Path("folder.pth").mkdir()
    best = str(folder_of(whole) / "weights/best.pth")
    for name in ("half.pth", "empty.pth", "page.pth", "folder.pth"):
        for argv in (["--resume", name], [*SHORT, "--weights", name, "--name", "never"]):
            assert train.main(argv) == 2
            assert name in only_error(capsys.readouterr().err)
    assert train.main(["--resume", best]) == 2
    assert "has no training state" in only_error(capsys.readouterr().err)
    checkpoint = load_checkpoint(last_of(whole))
    checkpoint.training["schedule"]["step"] = -1
    save_checkpoint("bad.pth", checkpoint)
    assert train.main(["--resume", "bad.pth"]) == 2
    assert "bad.pth: damaged training state: its 'schedule.step' is -1" in only_error(capsys.readouterr().err)
    assert not folder_of("never").exists()


def test_what_does_not_fit_the_run_is_refused_at_once(whole: str, capsys: Captured) -> None:
    last = str(last_of(whole))
    for argv, named in (
        (["--resume", last], "1 epoch done"),
        (["--resume", last, "--epochs", "2", "--phi", "se"], "attention=none, you asked for se"),
        (["--resume", last, "--lr", "0.1"], "--lr"),
        (["--resume", last, "--weights", "none"], "--weights"),
        ([*SHORT, "--device", "cuda:9"], "--device cuda:9"),
        ([*SHORT, "--project", "data/ImageSets/Main/train.txt"], "--project"),
        ([*SHORT, "--workers", "-1"], "--workers -1"),
        ([*SHORT, "--batch-size", "0"], "--batch-size 0"),
        ([*SHORT, "--freeze-epochs", "2"], "--freeze-epochs 2"),
        ([*SHORT, "--lr", "nan"], "--lr nan"),
        ([*SHORT, "--config", "missing.yaml"], "missing.yaml"),
    ):
        assert train.main(argv) == 2, argv
        assert named in only_error(capsys.readouterr().err)
    assert table_of(whole)[-1]["epoch"] == "1"


# Memory and processes.


@pytest.mark.slow
def test_too_little_memory_on_the_device_is_answered_with_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    usual = YoloBody.forward

    def fail(self: YoloBody, images: Tensor) -> Any:
        if images.shape[0] == 2 and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return usual(self, images)

    monkeypatch.setattr(YoloBody, "forward", fail)
    assert train.main([*SHORT, "--name", "memory"]) == 1
    text = capsys.readouterr().err
    assert "out of memory with batch 2 at 64x64" in only_error(text)
    commands = [line.removeprefix("try: python ") for line in text.splitlines() if line.startswith("try: ")]
    assert len(commands) == 3
    monkeypatch.setattr(YoloBody, "forward", usual)
    assert train.main(shlex.split(commands[0])[1:]) == 0
    assert not list(folder_of("memory").rglob("*.pth"))


@pytest.mark.slow
def test_too_little_memory_of_the_machine_is_one_line() -> None:
    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20,) * 2)

    with started(*SHORT, "--imgsz", "1024", "--batch-size", "12", "--name", "as", before=limit) as command:
        assert command.wait() == 1, command.text
        assert "out of memory" in only_error(command.text)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run() -> None:
    argv = [*SHORT, "--epochs", "500", "--save-steps", "1", "--workers", "2", "--name", "orphan"]
    with started(*argv) as command:
        command.wait_for_saves(last_of("orphan"), 1)
        victim = min(command.children())
        os.kill(victim, signal.SIGKILL)
        assert command.wait(60) == 1, command.text
        line = only_error(command.text)
        assert "a data worker died" in line
        assert str(victim) in line or "connection lost" in line  # as torch noticed it or not yet
        assert "--workers" in line
        wait_until(lambda: not command.children(), 10)
    assert len(content_of(last_of("orphan"))["weights"]) > 0


@pytest.mark.slow
def test_a_folder_holds_one_run_and_a_dead_one_lets_go(capsys: Captured) -> None:
    argv = [*SHORT, "--epochs", "500", "--save-steps", "1", "--name", "held"]
    with started(*argv) as command:
        command.wait_for_saves(last_of("held"), 1)
        for second in ([*argv, "--exist-ok"], ["--resume", str(last_of("held"))]):
            with started(*second, log="second.txt") as other:
                assert other.wait() == 2, other.text
                assert f"process {command.pid} on " in only_error(other.text)
        command.signal_all(signal.SIGKILL)
        command.wait()
    assert (folder_of("held") / "run.lock").exists()
    argv[argv.index("500")] = "1"
    assert train.main([*argv, "--exist-ok", "--val", "none"]) == 0
    assert errors_in(capsys.readouterr().err) == []
    assert not (folder_of("held") / "run.lock").exists()


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    command = shlex.join([sys.executable, train.__file__, *SHORT, "--val", "none", "--name", "piped"])
    done = subprocess.run(
        ["bash", "-c", f"({command}; echo $? > status.txt) 2>&1 | head -1"],
        capture_output=True,
        text=True,
        timeout=300,  # torch is imported, perhaps on a busy machine
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert Path("status.txt").read_text() == "0\n"
    assert content_of(last_of("piped"))["epoch"] == 1
