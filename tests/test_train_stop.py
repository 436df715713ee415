"""Stopping in the middle, by signal or by force, and going on to the same bits."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from tests.training_room import (
    QUICK,
    are_same_runs,
    content_of,
    errors_in,
    folder_of,
    last_of,
    same,
    started,
    table_of,
    wait_until,
)
from tests.voc_folder import make_voc_folder
from utils.data.voc_xml import VocObject, write_annotation
from utils.training import train_loop as measure
from utils.training.engine import Trainer
from utils.training.run_folder import Run

EXACT = (*QUICK, "--deterministic", "--epochs", "2", "--workers", "0")  # 6 steps an epoch
Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("training_room")


@pytest.fixture(scope="module")
def whole() -> str:
    """The name of a run that was never stopped."""
    assert train.main([*EXACT, "--name", "whole"]) == 0
    return "whole"


@pytest.fixture(scope="module")
def rare(training_room: None) -> None:
    """Make a data set with a bird in one of 30 images, which an epoch of --balance takes sqrt(3) times."""
    make_voc_folder(Path("rare"), train_images=30, val_images=2)
    birds = [VocObject("bird", (10.0, 10.0, 50.0, 40.0))]
    write_annotation(Path("rare/Annotations/0.xml"), "0.jpg", 80, 60, birds)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that has a signal raised in a step, counted from 1, once."""

    def plan(number: int, step: int) -> None:
        usual = Trainer.step

        def stopping(self: Trainer, *args: Any, **options: Any) -> bool:
            is_taken = usual(self, *args, **options)
            if self.schedule.step == step:
                monkeypatch.setattr(Trainer, "step", usual)
                signal.raise_signal(number)
            return is_taken

        monkeypatch.setattr(Trainer, "step", stopping)

    return plan


def resume(name: str, *argv: str) -> int:
    return train.main(["--resume", str(last_of(name)), *argv])


def interruptions_in(text: str) -> list[str]:
    assert errors_in(text) == []
    return [line for line in text.splitlines() if line.startswith("interrupted:")]


# In one process: what is saved, and that nothing is lost.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "step", "place"),
    [
        (signal.SIGTERM, 143, 2, "epoch 1 step 2"),
        (signal.SIGINT, 130, 6, "epoch 1 step 6"),
        (signal.SIGHUP, 129, 7, "epoch 2 step 1"),
    ],
)
def test_a_signal_finishes_the_step_and_saves(
    whole: str, at_step: Any, capsys: Captured, number: int, status: int, step: int, place: str
) -> None:
    name = f"signal{number}"
    at_step(number, step)
    assert train.main([*EXACT, "--name", name]) == status
    assert not (folder_of(name) / "run.lock").exists()
    (line,) = interruptions_in(capsys.readouterr().err)
    last = last_of(name)
    assert line == f"interrupted: saved {last} at {place}; resume: python train.py --resume {last}"
    assert content_of(last)["schedule"]["step"] == step
    assert resume(name) == 0
    assert are_same_runs(name, whole)


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_has_moved_to(whole: str, at_step: Any, capsys: Captured) -> None:
    at_step(signal.SIGTERM, 8)  # in the second epoch
    assert train.main([*EXACT, "--name", "moved"]) == 143
    shutil.copytree("data", "other/place")
    shutil.move("data", "away")
    try:
        assert resume("moved") == 2
        (error,) = errors_in(capsys.readouterr().err)
        assert f"its data data is missing, relative to the current folder {Path.cwd()};" in error
        assert error.endswith("name where the data is now: --data DIR")
        assert resume("moved", "--data", "nowhere") == 2
        assert "error: nowhere: no such folder" in capsys.readouterr().err
        listed = Path("away/ImageSets/Main/train.txt")
        text = listed.read_text()
        listed.write_text("".join(text.splitlines(keepends=True)[1:]))
        assert resume("moved", "--data", "away") == 2
        (error,) = errors_in(capsys.readouterr().err)
        count = len(text.split())
        assert (
            f"--data away: not the data of the run: train has {count - 1} images, the run {count};" in error
        )
        listed.write_text(text)
        assert resume("moved", "--data", "other/place") == 0
        assert are_same_runs("moved", whole)
        assert "data: other/place" in (folder_of("moved") / "args.yaml").read_text()
    finally:
        shutil.move("away", "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("block", "--phi cbam --save-steps 2 --freeze-epochs 1 --eval-interval 2"),
        # 2 steps an epoch, the second of one batch
        (
            "pieces",
            "--accumulate 3 --optimizer adamw --lr-schedule step --no-ema --mixup 0.5 --close-mosaic 1",
        ),
        (
            "sizes",
            "--multi-scale --grow --imgsz 96 --cache --accumulate 2 --save-steps 1 "
            "--balance --data rare --batch-size 8",
        ),
    ],
)
@pytest.mark.usefixtures("rare")
def test_every_way_to_train_goes_on_in_mid_epoch(
    at_step: Any, capsys: Captured, name: str, flags: str
) -> None:
    argv = [*EXACT, "--batch-size", "3", *flags.split()]  # 4 batches an epoch
    assert train.main([*argv, "--name", f"{name}-whole"]) == 0
    assert ("--balance" in flags) is ("an epoch draws 31 times from 30 images" in capsys.readouterr().err)
    at_step(signal.SIGTERM, 3)
    assert train.main([*argv, "--name", name]) == 143
    assert content_of(last_of(name))["meter"]["batches"] > 0
    assert resume(name) == 0
    assert are_same_runs(name, f"{name}-whole")


@pytest.mark.slow
def test_a_signal_in_the_evaluation_saves_and_only_the_evaluation_is_repeated(
    whole: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(measure, "detect_dataset", stop)
        assert train.main([*EXACT, "--name", "measured"]) == 143
    (line,) = interruptions_in(capsys.readouterr().err)
    assert "at epoch 1 step 6" in line
    assert content_of(last_of("measured"))["epoch"] == 0
    steps: list[int] = []
    usual = Trainer.step

    def counting(self: Trainer, *args: Any, **options: Any) -> bool:
        steps.append(self.schedule.step)
        return usual(self, *args, **options)

    monkeypatch.setattr(Trainer, "step", counting)
    assert resume("measured") == 0
    assert steps == [6, 7, 8, 9, 10, 11]
    assert are_same_runs("measured", whole)


@pytest.mark.slow
def test_a_signal_while_an_epoch_is_stored_lets_it_be_stored(
    whole: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    usual = Run.judge

    def stopping(self: Run, *args: Any) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return usual(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "judge", stopping)
        assert train.main([*EXACT, "--name", "stored"]) == 143
    (line,) = interruptions_in(capsys.readouterr().err)
    assert "at epoch 2 step 0;" in line
    assert len(table_of("stored")) == 1
    assert resume("stored") == 0
    assert are_same_runs("stored", whole)


# In processes: signals from outside, and force.


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "epochs"), [(3, 2), pytest.param(20, 8, marks=pytest.mark.exhaustive)])
def test_killed_again_and_again_a_run_ends_as_if_never_killed(kills: int, epochs: int) -> None:
    whole, killed = f"whole{kills}", f"killed{kills}"
    settings = [*EXACT, "--epochs", str(epochs)]
    assert train.main([*settings, "--name", whole]) == 0
    chance, last = random.Random(0), last_of(killed)
    argv = [*settings, "--save-steps", "1", "--workers", "2", "--name", killed]
    for attempt in range(kills):
        with started(*argv) as command:
            command.wait_for_saves(last, chance.choice((1, 2, 3)))
            if attempt % 3 == 1:  # in the middle of a save
                wait_until(last.with_name("last.pth.tmp").exists)
            else:
                time.sleep(chance.uniform(0, 0.3))
            (command.signal if attempt % 3 == 2 else command.signal_all)(signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL, command.text
            wait_until(lambda: not command.children(), 20)  # workers look for their parent
        for path in last.parent.glob("*.pth"):
            assert len(content_of(path)["weights"]) > 0
        assert len(list(last.parent.glob("*.tmp"))) <= 1
        argv = ["--resume", str(last), "--workers", "2"]
    with started(*argv) as command:
        assert command.wait(300) == 0, command.text
        assert command.text.count("resuming") == 1
    assert not [*folder_of(killed).glob("*.tmp"), *last.parent.glob("*.tmp")]
    assert are_same_runs(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_all", "status"),
    [(signal.SIGTERM, False, 143), (signal.SIGTERM, True, 143), (signal.SIGINT, True, 130)],
    ids=["kill", "scheduler", "ctrl-c"],
)
def test_a_signal_from_outside_leaves_no_process_behind(
    whole: str, number: int, to_all: bool, status: int
) -> None:
    name = f"outside{number}{to_all}"
    with started(*EXACT, "--save-steps", "1", "--workers", "2", "--name", name) as command:
        command.wait_for_saves(last_of(name), 2)
        assert len(command.children()) >= 2
        (command.signal_all if to_all else command.signal)(number)
        assert command.wait(30) == status, command.text
        wait_until(lambda: not command.children(), 2)
        (line,) = interruptions_in(command.text)
        assert line.startswith(f"interrupted: saved {last_of(name)} at epoch 1 step ")
    if number == signal.SIGTERM and to_all:
        assert resume(name, "--workers", "0") == 0
        assert are_same_runs(name, whole)


@pytest.mark.slow
def test_a_second_signal_ends_the_run_with_whole_files() -> None:
    with started(*EXACT, "--save-steps", "1", "--name", "twice") as command:
        command.wait_for_saves(last_of("twice"), 2)
        command.signal(signal.SIGTERM)
        time.sleep(0.2)
        command.signal(signal.SIGTERM)
        assert command.wait(30) in (143, -signal.SIGTERM), command.text
        assert errors_in(command.text) == []
    assert content_of(last_of("twice"))["schedule"]["step"] >= 2
    assert not list(folder_of("twice").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["train (train)", "run folder"])
def test_a_signal_before_the_first_step_ends_in_one_line(number: int, status: int, moment: str) -> None:
    with started(*EXACT, "--name", "early") as command:
        command.wait_for(moment)
        command.signal_all(number)
        assert command.wait(30) == status, command.text
        assert len(interruptions_in(command.text)) == 1
    assert not list(Path("runs/train").glob("early*/weights/*.tmp"))
    assert not list(Path("runs/train").glob("early*/run.lock"))


def test_same_tells_different_states_apart() -> None:
    state = {"a": [torch.zeros(2), 1]}
    assert same(state, {"a": [torch.zeros(2), 1]})
    assert not same(state, {"a": [torch.ones(2), 1]})
    assert not same(state, {"a": [torch.zeros(2), 2]})
    assert not same(state, {"b": []})
