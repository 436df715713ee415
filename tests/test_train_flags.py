from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import evaluate
import train
from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.test_train import QUICK, are_equal, rows_of, run
from utils.cli.errors import UserError
from utils.cli.train_config import DEFAULT_LR
from utils.data.voc_xml import VocObject, write_annotation
from utils.inference.evaluation import EvalResult
from utils.inference.predictor import Predictor
from utils.training import builders as start
from utils.training.engine import Trainer
from utils.training.run_folder import Run
from utils.vision.letterbox import letterbox
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("room")


class StoppedError(UserError):
    """Raised by what a test put in the place of a function."""


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Give a function that runs the command up to a call in start.py and returns the call's arguments."""

    def catch(function: str, *argv: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            calls.append((args, kwargs))
            raise StoppedError("stopped by the test", exit_code=99)

        with monkeypatch.context() as patch:
            patch.setattr(start, function, stop)
            assert train.main([*QUICK, "--name", "never", *argv]) == 99
        return calls[0]

    return catch


# Flags that change the way of a whole run.


@pytest.mark.slow
def test_patience_stops_a_run_that_no_longer_gets_better(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.2])
    judge = Run.judge

    def judge_next(self: Run, epoch: int, result: EvalResult) -> bool:
        coco = dataclasses.replace(result.coco, map50=next(scores))
        return judge(self, epoch, dataclasses.replace(result, coco=coco))

    monkeypatch.setattr(Run, "judge", judge_next)
    folder = run("patient", "--epochs", "5", "--patience", "2", "--lr", "0")
    assert len(rows_of(folder)) == 4
    assert "mAP50 has not risen since epoch 2" in capsys.readouterr().err
    assert train.main(["--resume", str(folder / "weights/last.pth")]) == 2
    assert "to train longer give --epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_are_kept_every_second_epoch_and_saved_within_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved: list[tuple[int, int]] = []
    save = Run.save

    def note(self: Run, checkpoint: Checkpoint, path: Path | None = None) -> None:
        save(self, checkpoint, path)
        if path is None:
            meter = checkpoint.training["meter"]
            saved.append((checkpoint.training["epoch"], meter["steps"] if meter else 0))

    monkeypatch.setattr(Run, "save", note)
    argv = ["--epochs", "3", "--val", "none", "--save-period", "2", "--batch-size", "2", "--save-steps", "2"]
    folder = run("kept", *argv)  # 3 steps an epoch
    assert [path.name for path in folder.glob("weights/epoch*")] == ["epoch2.pth"]
    assert load_checkpoint(folder / "weights/epoch2.pth").training["epoch"] == 2
    assert saved == [(0, 2), (1, 0), (1, 1), (1, 3), (2, 0), (2, 2), (3, 0)]


@pytest.mark.slow
def test_a_cache_changes_no_number() -> None:
    plain, cached = (run(f"cache{len(argv)}", "--epochs", "1", *argv) for argv in ([], ["--cache"]))
    assert rows_of(plain)[0]["box"] == rows_of(cached)[0]["box"]


@pytest.mark.slow
def test_frozen_epochs_without_average_and_an_evaluation_every_second_epoch() -> None:
    folder = run(
        "frozen", "--epochs", "3", "--freeze-epochs", "3", "--no-ema", "--eval-interval", "2", "--mosaic", "0"
    )
    content = torch.load(folder / "weights/last.pth", weights_only=True)
    assert content["ema"] is None
    assert are_equal(content["weights"], content["model"])
    torch.manual_seed(0)
    before = YoloBody(ModelConfig(2, input_size=(64, 64))).state_dict()
    changed = {name for name in before if not torch.equal(before[name], content["model"][name])}
    assert not [name for name in changed if name.startswith("backbone")]
    assert {"head_p5.predict.weight", "head_p4.conv.norm.running_mean", "neck_p5.conv.weight"} <= changed
    assert [row["map50"] != "" for row in rows_of(folder)] == [False, True, True]  # the last one always


@pytest.mark.slow
def test_sizes_vary_in_training_but_not_in_the_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, evaluated = [], []
    step, to_input = Trainer.step, Predictor.to_input

    def note(self: Trainer, batches: list[Any], *args: Any, **options: Any) -> bool:
        trained.extend(tuple(images.shape[2:]) for images, _ in batches)
        return step(self, batches, *args, **options)

    def note_input(self: Predictor, *args: Any) -> Tensor:
        images = to_input(self, *args)
        evaluated.append(tuple(images.shape[2:]))
        return images

    monkeypatch.setattr(Trainer, "step", note)
    monkeypatch.setattr(Predictor, "to_input", note_input)
    folder = run("grown", "--epochs", "3", "--grow", "--imgsz", "96", "160", "--batch-size", "3")
    assert trained == [(64, 96)] * 2 + [(64, 128)] * 2 + [(96, 160)] * 2
    assert set(evaluated) == {(96, 160)}
    assert load_checkpoint(folder / "weights/best.pth").config.input_size == (96, 160)
    argv = ["--weights", str(folder / "weights/best.pth"), "--data", "data", "--split", "val"]
    assert evaluate.main([*argv, "--device", "cpu"]) == 0
    assert set(evaluated) == {(96, 160)}
    assert "input sizes: from 64x96 in epoch 1 to 96x160 in the last third" in capsys.readouterr().err


def test_rare_classes_are_repeated_and_another_shape_is_named(
    caught: Callable, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (samples,), _ = caught("TrainLoader")
    assert samples.repeats is None
    usual, copy = samples[0, 1, (64, 96), 0][0], samples[0, 1, (64, 96), 1][0]
    assert usual.shape == copy.shape == (3, 64, 96)
    assert not torch.equal(usual, copy)
    assert "--imgsz" not in capsys.readouterr().err  # 64 pixels leave no choice
    (samples,), _ = caught("TrainLoader", "--balance", "--imgsz", "416")
    assert samples.repeats.tolist() == [1.0] * 6
    said = capsys.readouterr().err
    assert "balance: every class is in at least 10% of the images; no image is repeated" in said
    assert said.count("--imgsz 416 416: 25% stays gray; --imgsz 352 480 costs about the same: 2%") == 1
    (samples,), _ = caught("TrainLoader", "--mosaic", "1")
    samples.repeats = torch.tensor([0.0, 0, 0, 0, 0, 9]).numpy()  # mosaics take the repeated images too
    assert samples._draw_others(4, np.random.default_rng(0)) == [5] * 4


# Flags that arrive where tests of their own show what they do.


@pytest.mark.parametrize(
    ("argv", "loss", "lr"),
    [
        ([], "sums", DEFAULT_LR["sgd"]),
        (["--loss", "means"], "means", DEFAULT_LR["sgd"]),
        (["--preset", "reference"], "means", 0.0025),
        (["--preset", "reference", "--loss", "sums", "--lr", "0.5"], "sums", 0.5),
        (["--preset", "default"], "sums", DEFAULT_LR["sgd"]),
    ],
)
def test_a_recipe_and_what_is_given_beside_it(
    caught: Callable, argv: list[str], loss: str, lr: float
) -> None:
    (_, criterion, optimizer, _), _ = caught("Trainer", *argv)
    assert criterion.normalization == loss
    assert optimizer.param_groups[0]["lr"] == lr * 4 / 16


@pytest.mark.parametrize(
    ("argv", "steps"), [([], 4), (["--ema-memory", "recent"], 4), (["--ema-memory", "run"], 14)]
)
def test_what_the_average_remembers(caught: Callable, argv: list[str], steps: int) -> None:
    _, given = caught("Trainer", "--epochs", "7", *argv)  # 6 images, 4 a batch
    assert given["ema"].decay == 1 - 1 / steps


@pytest.mark.parametrize(("argv", "is_new"), [([], False), (["--new-heads"], True)])
def test_last_layers_of_the_weights_or_new_ones(caught: Callable, argv: list[str], is_new: bool) -> None:
    source = YoloBody(ModelConfig(2))
    save_checkpoint(Path("source.pth"), Checkpoint(source.config, ("cat", "dog"), source.state_dict()))
    (model, *_), _ = caught("Trainer", "--weights", "source.pth", *argv)
    theirs, ours = source.head_p4, model.head_p4
    assert torch.equal(theirs.conv.conv.weight, ours.conv.conv.weight)
    assert torch.equal(theirs.predict.weight, ours.predict.weight) is not is_new


@pytest.mark.parametrize(("argv", "held"), [([], 1), (["--no-freeze-norms"], 0)])
def test_statistics_that_came_with_the_weights_are_held(caught: Callable, argv: list[str], held: int) -> None:
    source = YoloBody(ModelConfig(2))
    source.neck_p5.norm.running_mean.fill_(0.5)
    save_checkpoint(Path("source.pth"), Checkpoint(source.config, ("cat", "dog"), source.state_dict()))
    _, given = caught("Trainer", "--weights", "source.pth", *argv)
    assert given["frozen_bn"] == ["neck_p5.norm"] * held


@pytest.mark.parametrize("level", ["light", "reference"])
def test_the_level_of_augmentation_changes_the_pictures(caught: Callable, level: str) -> None:
    (usual,), _ = caught("TrainLoader", "--mosaic", "0")
    (samples,), _ = caught("TrainLoader", "--mosaic", "0", "--augment", level)
    assert not any(torch.equal(usual[0, index][0], samples[0, index][0]) for index in range(6))


def test_overfit_takes_a_few_pictures_as_inference_sees_them(caught: Callable) -> None:
    (samples,), _ = caught("TrainLoader", "--overfit", "2")
    assert len(samples) == 2
    for epoch in range(2):
        image = samples.dataset.read(1)
        seen = torch.from_numpy(letterbox(image, (64, 64))[0]).permute(2, 0, 1)
        assert torch.equal(samples[epoch, 1][0], seen)


@pytest.mark.parametrize(("flag", "index"), [("--mosaic", 0), ("--mixup", 1)])
def test_mosaic_and_mixup_change_the_pictures_until_they_are_closed(
    caught: Callable, flag: str, index: int
) -> None:
    def pictures(probability: str) -> list[list[Tensor]]:
        argv = ["--mosaic", "0", "--mixup", "0", flag, probability, "--epochs", "4", "--close-mosaic", "1"]
        (samples,), _ = caught("TrainLoader", *argv)
        settings = (samples.settings.mosaic, samples.settings.mixup)
        assert settings[index] == float(probability)
        return [[samples[epoch, image][0] for image in range(6)] for epoch in (2, 3)]

    without, always = pictures("0"), pictures("1")
    assert not any(torch.equal(*pair) for pair in zip(without[0], always[0], strict=True))
    assert all(torch.equal(*pair) for pair in zip(without[1], always[1], strict=True))


@pytest.mark.parametrize(("epochs", "closed", "last_open"), [(4, 0, 4), (9, 3, 6), (9, 5, 5), (1, 5, 1)])
def test_mosaic_is_closed_in_half_of_the_run_at_most(
    caught: Callable, epochs: int, closed: int, last_open: int
) -> None:
    (samples,), _ = caught("TrainLoader", "--epochs", str(epochs), "--close-mosaic", str(closed))
    assert samples.close_epoch == last_open


@pytest.mark.parametrize(("value", "count"), [("skip", 3), ("background", 4)])
def test_unlabelled_images(caught: Callable, room: Path, value: str, count: int) -> None:
    flat = room / "flat"  # images and XML side by side
    flat.mkdir(exist_ok=True)
    for index in range(3):
        shutil.copy(room / f"data/JPEGImages/{index}.jpg", flat)
        shutil.copy(room / f"data/Annotations/{index}.xml", flat)
    shutil.copy(room / "data/JPEGImages/3.jpg", flat)
    argv = ["--data", "flat", "--val", "none", "--unlabelled", value]
    (samples,), _ = caught("TrainLoader", *argv)
    assert len(samples) == count


def test_a_broken_image_stops_the_run_unless_it_may_be_skipped(
    caught: Callable, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "data/ImageSets/Main/bad.txt").write_text("0\n1\nbad\n")
    (room / "data/JPEGImages/bad.jpg").write_bytes(b"")
    write_annotation(room / "data/Annotations/bad.xml", "bad.jpg", 80, 60, [VocObject("cat", (1, 1, 9, 9))])
    assert train.main([*QUICK, "--train", "bad", "--val", "none"]) == 2
    assert "bad.jpg" in capsys.readouterr().err
    (samples,), _ = caught("TrainLoader", "--train", "bad", "--val", "none", "--skip-bad")
    assert len(samples) == 2
