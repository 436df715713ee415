from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nets.config import ModelConfig
from nets.structures import Detections
from nets.yolo import YoloBody
from tests.utils.training.conftest import CAT, MakeData, make_trainer
from utils.cli.shared_config import DataConfig
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.augmentation import Augmenter
from utils.data.dataset import VocDataset
from utils.data.prepare import TrainingData, prepare_training
from utils.data.targets import build_target
from utils.inference.evaluation import DatasetDetections, detect_dataset, score_detections
from utils.inference.predictor import Predictor, Timings
from utils.training import train_loop
from utils.training.builders import build_criterion
from utils.training.engine import EpochMeter, Trainer
from utils.training.train_loop import Job, Position, build_predictor, evaluate_epoch, position_of
from utils.weights.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Give a trainer whose average sees objects everywhere, and whose network sees none."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(1, input_size=(64, 64)))
    trainer = make_trainer(model, build_criterion(TrainConfig(), model), with_ema=True)
    for head in (trainer.average.head_p5, trainer.average.head_p4):
        torch.nn.init.ones_(head.predict.bias)
    return trainer


def job_of(trainer: Trainer, val: VocDataset | None = None, **settings: Any) -> Job:
    data = TrainingData(VocDataset([], ("cat",)), val, ("train",), ("val",))
    plain = SimpleNamespace(dataset=SimpleNamespace(augmenter=Augmenter((64, 64))))  # in place of a loader
    return Job(TrainConfig(**settings), data, plain, trainer, None, StopSignals())  # type: ignore[arg-type]


def test_the_predictor_is_of_the_average_and_at_the_settings_of_evaluate(trainer: Trainer) -> None:
    built = build_predictor(trainer, ("cat",))
    usual = Predictor(trainer.average, trainer.average.config, ("cat",), conf=0.001)
    same = {"_unwanted": 0, "evaluation_mode": 0}
    assert vars(built) | same == vars(usual) | same


def test_it_is_what_evaluate_finds(make_data: MakeData, trainer: Trainer) -> None:
    folder: Path = make_data({"train": {"a": [CAT]}, "val": {"b": [CAT], "c": [], "d": [CAT]}})
    val = prepare_training(DataConfig(str(folder)), val=("val",)).val
    assert val is not None
    evaluation = evaluate_epoch(job_of(trainer, val, epochs=1), Position())
    assert evaluation is not None
    result, findings = evaluation
    predictor = Predictor(trainer.average, trainer.average.config, ("cat",), conf=0.001)
    found = detect_dataset(predictor, val)
    expected = score_detections(found, val, weights="best.pth", splits=("val",))
    ours, theirs = ({**r.as_dict(), "speed_ms": 0, "speed_conditions": 0} for r in (result, expected))
    assert ours == theirs
    assert findings.indices == [0, 1, 2]
    assert all(len(found) > 0 for found in findings.detections)


@pytest.mark.parametrize(("epoch", "is_due"), [(0, False), (1, True), (2, False), (4, True)])
def test_evaluation_is_due_every_so_many_epochs_and_at_the_end(
    make_data: MakeData, trainer: Trainer, epoch: int, is_due: bool
) -> None:
    val = prepare_training(
        DataConfig(str(make_data({"val": {"b": [CAT]}}))), train=("val",), val=("val",)
    ).val
    job = job_of(trainer, val, epochs=5, eval_interval=2)
    assert (evaluate_epoch(job, Position(epoch)) is not None) == is_due
    assert evaluate_epoch(job_of(trainer, None), Position(epoch)) is None


# The position, and the checkpoint.


@pytest.mark.parametrize("meter", [EpochMeter(), EpochMeter(seconds=3), EpochMeter(batches=5, steps=5)])
def test_a_checkpoint_survives_its_file(tmp_path: Path, trainer: Trainer, meter: EpochMeter) -> None:
    trainer.schedule.step, position = 7, Position(2, meter)
    assert position.is_within_epoch == (meter.batches > 0)
    checkpoint = job_of(trainer, imgsz=(64, 96)).checkpoint(position, {"map50": 0.5}, meter.batches == 0)
    save_checkpoint(tmp_path / "last.pth", checkpoint)
    loaded = load_checkpoint(tmp_path / "last.pth")  # by weights_only=True
    assert position_of(loaded) == (position if meter.batches else Position(2))
    assert (loaded.config, loaded.class_names) == (trainer.model.config, ("cat",))
    assert (loaded.metrics, loaded.run_config["imgsz"]) == ({"map50": 0.5}, [64, 96])
    assert loaded.weights["head_p5.predict.bias"].unique().tolist() == [1.0]  # what is shared is the average
    assert loaded.training["model"]["head_p5.predict.bias"].unique().tolist() != [1.0]
    assert loaded.training["schedule"] == {"step": 7}
    assert loaded.training["stopped_early"] == (meter.batches == 0)
    assert (loaded.training["threads"], loaded.training["processes"]) == (torch.get_num_threads(), 1)


def test_without_an_average_the_weights_are_the_networks_own() -> None:
    model = YoloBody(ModelConfig(1, input_size=(64, 64)))
    checkpoint = job_of(make_trainer(model, build_criterion(TrainConfig(), model))).checkpoint(Position())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in checkpoint.weights.items())
    assert (checkpoint.metrics, checkpoint.training["meter"]) == ({}, None)
    assert position_of(None) == position_of(checkpoint) == Position(0, EpochMeter())


@pytest.mark.parametrize(
    ("position", "where"),
    [(Position(3), "epoch 4 step 0"), (Position(0, EpochMeter(batches=4, steps=2)), "epoch 1 step 2")],
)
def test_what_a_signal_left_behind(position: Position, where: str) -> None:
    config, last = TrainConfig(phi="my block.py:SE8", augment="rain.yaml"), Path("my runs/last.pth")
    assert train_loop._describe_stop(config, Path("nowhere/last.pth"), position, False) == "nothing was saved"
    said = train_loop._describe_stop(TrainConfig(), last, position, True)
    assert said == f"saved my runs/last.pth at {where}; resume: python train.py --resume 'my runs/last.pth'"
    said = train_loop._describe_stop(config, last, position, True)
    assert said.endswith("--resume 'my runs/last.pth' --phi 'my block.py:SE8' --augment rain.yaml")


@pytest.mark.parametrize(("share", "is_last", "said"), [(0, True, 0), (0.3, True, 1), (0.3, False, 0)])
def test_moved_boxes_of_the_validation_are_said_to_be(
    make_data: MakeData,
    trainer: Trainer,
    capsys: pytest.CaptureFixture[str],
    share: float,
    is_last: bool,
    said: int,
) -> None:
    """The detections are the annotated boxes, shifted by a share of their width; two in twelve are not."""
    folder = make_data({"train": {"a": [CAT]}, "val": {f"b{number}": [CAT] for number in range(12)}})
    val = prepare_training(DataConfig(str(folder)), val=("val",)).val
    assert val is not None
    found = DatasetDetections([*range(12)], [], [build_target(val, index) for index in range(12)], Timings())
    for index, target in enumerate(found.targets):
        width = target.boxes[:, 2:3] - target.boxes[:, :1]
        move = (1.5 * share if index >= 2 else 0) * width * torch.tensor([1.0, 0, 1, 0])
        found.detections.append(Detections(target.boxes + move, torch.tensor([0.9]), target.labels))
    run: Any = SimpleNamespace(folder=folder, attempt=lambda *_: None)
    job = replace(job_of(trainer, val, epochs=1), run=run)
    capsys.readouterr()
    train_loop.draw_results(job, (score_detections(found, val), found), is_last)
    err = capsys.readouterr().err
    assert err.count("with that undone mAP50 would be about") == said
    assert err.count(f"look at val_batch0.jpg in {folder}") == said


@pytest.mark.parametrize(("map50", "learnt"), [(0.0, False), (0.899, False), (0.9, True)])
def test_what_overfitting_shows(map50: float, learnt: bool) -> None:
    said = train_loop._describe_overfit(map50, 8)
    assert said.startswith(f"overfit: mAP50 {map50:.3f} on the 8 training images")
    assert said.endswith(": the setup can learn") == learnt
    assert ("train_batch0.jpg" in said) != learnt
