from __future__ import annotations

import copy

import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.train_config import TrainConfig
from utils.training import run_log as estimate
from utils.training.builders import build_criterion


@pytest.fixture(scope="module")
def model() -> YoloBody:
    return YoloBody(ModelConfig(1, input_size=(32, 32)))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_format_duration(seconds: float, words: str) -> None:
    assert estimate.format_duration(seconds) == words


@pytest.mark.parametrize(
    ("settings", "done", "first"),
    [
        ({}, 10, "100 images, 0 epochs on cpu: about 0 s without evaluation"),
        ({}, 0, "100 images, 10 epochs on cpu: about 50 min 00 s without evaluation"),
        ({}, 4, "100 images, 6 epochs on cpu: about 30 min 00 s without evaluation"),
        ({"freeze_epochs": 4}, 0, "about 36 min 40 s"),  # 4 of 100 s, 6 of 300 s
        ({"freeze_epochs": 4}, 3, "about 31 min 40 s"),
        ({"freeze_epochs": 4}, 7, "about 15 min 00 s"),
        ({"freeze_epochs": 10}, 0, "about 16 min 40 s"),
    ],
)
def test_the_estimate_counts_frozen_and_free_epochs_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: YoloBody,
    settings: dict[str, int],
    done: int,
    first: str,
) -> None:
    monkeypatch.setattr(estimate, "estimate_seconds_per_image", lambda *args: 1.0 if args[-1] else 3.0)
    config = TrainConfig(epochs=10, **settings)
    estimate.log_estimate(config, model, build_criterion(config, model), 100, done)
    lines = capsys.readouterr().err.splitlines()
    assert first in lines[0]
    shorter = [line for line in lines if line.startswith("shorter: ")]
    advice = "shorter: --imgsz 288 takes about half the time"
    advice += ", --freeze-epochs 5 about three quarters" if settings.get("freeze_epochs", 0) < 5 else ""
    assert shorter == ([advice] if done == 0 else [])


def test_advice_that_would_not_help_is_not_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: YoloBody
) -> None:
    monkeypatch.setattr(estimate, "estimate_seconds_per_image", lambda *_: 1000.0)
    config = TrainConfig(epochs=1, imgsz=(32, 32))
    estimate.log_estimate(config, model, build_criterion(config, model), 1, 0)
    assert capsys.readouterr().err == "1 image, 1 epoch on cpu: about 16 min 40 s without evaluation\n"


def test_a_short_run_is_not_told_how_to_be_shorter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: YoloBody
) -> None:
    monkeypatch.setattr(estimate, "estimate_seconds_per_image", lambda *_: 0.1)
    config = TrainConfig(epochs=1)
    estimate.log_estimate(config, model, build_criterion(config, model), 100, 0)
    assert "shorter" not in capsys.readouterr().err


@pytest.mark.parametrize("present", [True, False])
def test_a_gpu_that_is_not_used_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: YoloBody, present: bool
) -> None:
    monkeypatch.setattr(estimate, "estimate_seconds_per_image", lambda *_: 0.1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    config = TrainConfig(epochs=1)
    estimate.log_estimate(config, model, build_criterion(config, model), 100, 0)
    assert ("--device cuda" in capsys.readouterr().err) == present


@pytest.mark.parametrize("freeze", [False, True])
def test_the_estimate_leaves_the_network_and_the_random_numbers_alone(model: YoloBody, freeze: bool) -> None:
    model.eval()
    before, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert estimate.estimate_seconds_per_image(model, build_criterion(TrainConfig(), model), freeze) > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(torch.get_rng_state(), numbers)
