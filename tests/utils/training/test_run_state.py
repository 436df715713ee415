from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.utils.training.conftest import make_trainer
from utils.cli.train_config import TrainConfig
from utils.training.builders import build_criterion
from utils.training.engine import EpochMeter
from utils.training.run_state import Position, build_checkpoint, position_of
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_the_start_is_within_epoch_nothing() -> None:
    assert position_of(None) == Position(0, EpochMeter())
    assert not Position().is_within_epoch


@pytest.mark.parametrize(
    ("meter", "inside"),
    [(EpochMeter(), False), (EpochMeter(batches=1), True), (EpochMeter(seconds=3), False)],
)
def test_a_place_is_within_epoch_an_epoch_after_its_first_batch(meter: EpochMeter, inside: bool) -> None:
    assert Position(4, meter).is_within_epoch == inside


def test_two_places_share_no_meter() -> None:
    assert Position().meter is not Position().meter


@pytest.mark.parametrize(
    ("epoch", "meter"),
    [(3, None), (3, EpochMeter(batches=2, steps=1, losses={"box": 1.5, "objectness": 2.0, "class": 0.5}))],
)
def test_a_place_is_found_again(epoch: int, meter: EpochMeter | None) -> None:
    training = {"epoch": epoch, "meter": meter.state_dict() if meter else None}
    found = position_of(Checkpoint(ModelConfig(1), ("cell",), {}, training=training))
    assert found == Position(epoch, meter or EpochMeter())


@pytest.fixture
def trainer():
    """Give a trainer of the real network, whose average is another network."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, phi="eca", input_size=(64, 96)))
    trainer = make_trainer(model, build_criterion(TrainConfig(), model), with_ema=True)
    torch.nn.init.ones_(trainer.average.head_p5.predict.bias)
    trainer.schedule.step = 7
    return trainer


@pytest.mark.parametrize("batches", [0, 5])
def test_a_snapshot_survives_its_file(tmp_path: Path, trainer, batches: int) -> None:
    config = TrainConfig(epochs=9, imgsz=(64, 96), phi="eca")
    place = Position(2, EpochMeter(batches=batches, steps=batches))
    snapshot = build_checkpoint(
        config, trainer, ("cat", "dog"), place, metrics={"map50": 0.5}, stopped_early=batches == 0
    )
    save_checkpoint(tmp_path / "last.pth", snapshot)
    loaded = load_checkpoint(tmp_path / "last.pth")  # by weights_only=True
    assert position_of(loaded) == place
    assert (loaded.config, loaded.class_names) == (trainer.model.config, ("cat", "dog"))
    assert (loaded.metrics, loaded.run_config["imgsz"]) == ({"map50": 0.5}, [64, 96])
    assert loaded.weights["head_p5.predict.bias"].unique().tolist() == [1.0]  # what is shared is the average
    assert loaded.training["model"]["head_p5.predict.bias"].unique().tolist() != [1.0]
    assert loaded.training["schedule"] == {"step": 7}
    assert loaded.training["stopped_early"] == (batches == 0)
    assert (loaded.training["threads"], loaded.training["processes"]) == (torch.get_num_threads(), 1)


def test_without_an_average_the_weights_are_the_networks_own() -> None:
    model = YoloBody(ModelConfig(1, input_size=(64, 64)))
    trainer = make_trainer(model, build_criterion(TrainConfig(), model))
    snapshot = build_checkpoint(TrainConfig(), trainer, ("cell",), Position())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in snapshot.weights.items())
    assert (snapshot.metrics, snapshot.training["meter"], snapshot.training["stopped_early"]) == (
        {},
        None,
        False,
    )
