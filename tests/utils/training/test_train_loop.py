from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from tests.utils.training.conftest import CAT, MakeData, make_trainer
from utils.cli.shared_config import DataConfig
from utils.cli.train_config import TrainConfig
from utils.data.prepare import prepare_training
from utils.inference.evaluation import detect_dataset, score_detections
from utils.inference.predictor import Predictor
from utils.training import train_loop
from utils.training.builders import build_criterion
from utils.training.engine import Trainer
from utils.training.train_loop import build_predictor, evaluate_on_all_ranks, metric_columns


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Give a trainer whose average sees objects everywhere, and whose network sees none."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(1, input_size=(64, 64)))
    trainer = make_trainer(model, build_criterion(TrainConfig(), model), with_ema=True)
    for head in (trainer.average.head_p5, trainer.average.head_p4):
        torch.nn.init.ones_(head.predict.bias)
    return trainer


def test_without_an_evaluation_there_are_no_columns() -> None:
    assert metric_columns(None) == {}


def test_the_predictor_is_of_the_average_and_at_the_settings_of_evaluate(trainer: Trainer) -> None:
    built = build_predictor(trainer, ("cat",))
    usual = Predictor(trainer.average, trainer.average.config, ("cat",), conf=0.001)
    assert {**vars(built), "_unwanted": 0} == {**vars(usual), "_unwanted": 0}


def test_it_is_what_evaluate_finds(make_data: MakeData, trainer: Trainer) -> None:
    folder: Path = make_data({"train": {"a": [CAT]}, "val": {"b": [CAT], "c": [], "d": [CAT]}})
    val = prepare_training(DataConfig(str(folder)), val=("val",)).val
    assert val is not None
    result, findings = evaluate_on_all_ranks(TrainConfig(), trainer, val, ("val",))
    predictor = Predictor(trainer.average, trainer.average.config, ("cat",), conf=0.001)
    found = detect_dataset(predictor, val)
    expected = score_detections(found, val, weights="best.pth", splits=("val",))
    ours, theirs = ({**r.as_dict(), "speed_ms": 0} for r in (result, expected))
    assert ours == theirs
    assert findings.indices == [0, 1, 2]
    assert all(len(found) > 0 for found in findings.detections)
    columns = metric_columns(result)
    assert columns.keys() == {"map50", "map50_95", "voc_ap50_area"}
    assert all(columns[name] == ours[name] for name in columns)


def test_shares_of_two_processes_are_put_together(
    make_data: MakeData, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_data({"train": {c: [CAT] for c in "abc"}})
    val = prepare_training(DataConfig(str(folder)), val=("train",)).val
    assert val is not None
    alone, _ = evaluate_on_all_ranks(TrainConfig(), trainer, val)
    shares = []
    monkeypatch.setattr(train_loop, "world_size", lambda: 2)
    monkeypatch.setattr(train_loop, "broadcast_model", lambda _: None)
    for rank in (0, 1):
        monkeypatch.setattr(train_loop, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(train_loop, "all_gather", lambda item: shares.append(item) or [item])
        evaluate_on_all_ranks(TrainConfig(), trainer, val)
    assert [share.indices for share in shares] == [[0, 2], [1]]
    monkeypatch.setattr(train_loop, "all_gather", lambda _: shares)
    together, findings = evaluate_on_all_ranks(TrainConfig(), trainer, val)
    assert findings.indices == [0, 1, 2]
    assert {**together.as_dict(), "speed_ms": 0} == {**alone.as_dict(), "speed_ms": 0}
