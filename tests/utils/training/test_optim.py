from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.train_config import TrainConfig
from utils.training.optim import Schedule, build_optimizer


def build(
    model: nn.Module, name: str = "sgd", lr: float = 1.0, batch_size: int = 16, **knobs: float
) -> Optimizer:
    knobs = {"momentum": 0.0, "weight_decay": 0.0, **knobs}
    return build_optimizer(model, TrainConfig(optimizer=name, lr=lr, **knobs), batch_size)


def shares(kind: str, total_steps: int, warmup_steps: int, steps: range | None = None) -> list[float]:
    """Return the learning rate of every step as a share of the peak."""
    schedule = Schedule(build(nn.Linear(1, 1)), kind=kind, total_steps=total_steps, warmup_steps=warmup_steps)
    rates = []
    for schedule.step in steps or range(total_steps):
        rates.append(schedule.set_lr())
    return rates


def cosine(progress: float) -> float:
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize(
    ("kind", "total_steps", "warmup_steps", "expected"),
    [
        ("cos", 0, 0, []),
        ("step", 0, 5, []),
        ("cos", 1, 0, [1.0]),  # too short to fall
        ("cos", 1, 9, [1.0]),
        ("step", 1, 9, [0.01]),
        ("cos", 2, 9, [1 / 2, 1.0]),
        ("cos", 3, 9, [1 / 2, 1.0, 0.01]),
        ("cos", 4, 0, [1.0, cosine(1 / 3), cosine(2 / 3), 0.01]),
        ("cos", 5, 2, [1 / 3, 2 / 3, 1.0, 0.505, 0.01]),
        ("cos", 5, 4, [1 / 3, 2 / 3, 1.0, 0.505, 0.01]),  # at most half of the steps
        ("cos", 6, 3, [1 / 4, 2 / 4, 3 / 4, 1.0, 0.505, 0.01]),
        ("step", 10, 0, [1.0] * 8 + [0.1, 0.01]),
        ("step", 10, 5, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 1.0, 1.0, 0.1, 0.01]),
        ("step", 20, 0, [1.0] * 16 + [0.1] * 2 + [0.01] * 2),
        ("step", 7, 1, [0.5, 1.0, 1.0, 1.0, 1.0, 0.1, 0.01]),  # 6/7 is past 80 %, 7/7 past 90 %
    ],
)
def test_the_rate_of_every_step(
    kind: str, total_steps: int, warmup_steps: int, expected: list[float]
) -> None:
    assert shares(kind, total_steps, warmup_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [3, 10, 101, 5000])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 2.0])
def test_the_peak_stands_behind_the_warm_up_and_one_percent_at_the_end(
    total_steps: int, warmup: float
) -> None:
    rates = shares("cos", total_steps, int(warmup * total_steps))
    peak = min(int(warmup * total_steps), total_steps // 2)
    assert rates[peak] == max(rates) == 1.0
    assert rates[:peak] == pytest.approx([(step + 1) / (peak + 1) for step in range(peak)])
    assert rates[-1] == pytest.approx(0.01, abs=1e-12)
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("kind", ["cos", "step"])
def test_after_the_last_step_the_rate_stays(kind: str) -> None:
    assert shares(kind, 10, 0, range(9, 13)) == pytest.approx([0.01] * 4)


@pytest.mark.parametrize("kind", ["cos", "step"])
def test_a_run_made_longer_goes_on_at_the_step_it_is_at(kind: str) -> None:
    assert shares(kind, 20, 2, range(9, 20)) == shares(kind, 20, 2)[9:]
    assert shares(kind, 20, 2, range(9, 10)) != shares(kind, 10, 2, range(9, 10))


def test_every_group_gets_the_rate() -> None:
    optimizer = build(nn.Linear(1, 1), lr=0.5)
    schedule = Schedule(optimizer, kind="cos", total_steps=6, warmup_steps=3)
    assert schedule.set_lr() == 0.125
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]
    schedule.step = 3
    assert schedule.set_lr() == 0.5  # from the peak, not from what was set last
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_groups_keep_the_ratio_of_their_peaks() -> None:
    optimizer = build(nn.Linear(1, 1), lr=0.5)
    optimizer.param_groups[1]["lr"] = 0.25
    Schedule(optimizer, kind="cos", total_steps=6, warmup_steps=3).set_lr()
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.0625]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("batch_size", "expected"), [(1, 0.01 / 16), (4, 0.0025), (16, 0.01), (32, 0.02)])
def test_the_rate_scales_with_the_batch(name: str, batch_size: int, expected: float) -> None:
    optimizer = build(nn.Linear(1, 1), name=name, lr=0.01, batch_size=batch_size)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)


def ones() -> nn.Linear:
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    return layer


@pytest.mark.parametrize(
    ("knobs", "weight", "bias"),
    [
        ({}, 0.9, 0.9),  # w - lr g
        ({"weight_decay": 0.5}, 0.85, 0.9),  # g + 0.5 w
        ({"momentum": 0.9}, 0.81, 0.81),  # Nesterov: g + 0.9 g
        ({"momentum": 0.9, "lr": 0.2}, 0.62, 0.62),
        ({"name": "adamw", "momentum": 0.9}, 0.9, 0.9),  # w - lr g / |g|
        ({"name": "adamw", "momentum": 0.9, "weight_decay": 0.5}, 0.85, 0.9),  # w (1 - 0.5 lr) beside it
        ({"name": "adamw", "momentum": 0.9, "weight_decay": 0.5, "lr": 0.2}, 0.7, 0.8),
    ],
)
def test_a_step_worked_by_hand(knobs: dict[str, object], weight: float, bias: float) -> None:
    layer = ones()
    optimizer = build(layer, **{"lr": 0.1, **knobs})
    layer(torch.ones(1, 1)).sum().backward()  # both gradients are 1
    optimizer.step()
    assert layer.weight.item() == pytest.approx(weight)
    assert layer.bias.item() == pytest.approx(bias)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.937])
def test_adamw_is_the_paper_with_its_decay_apart(momentum: float) -> None:
    layer = ones()
    optimizer = build(layer, name="adamw", lr=0.1, momentum=momentum, weight_decay=0.3)
    weight, first, second = 1.0, 0.0, 0.0
    for step, gradient in enumerate((2.0, -1.0, 0.5), start=1):
        layer.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        first = momentum * first + (1 - momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - momentum**step), second / (1 - 0.999**step)
        weight = weight * (1 - 0.1 * 0.3) - 0.1 * mean / (math.sqrt(square) + 1e-8)
        assert layer.weight.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_parameter_is_in_one_group_and_norms_and_biases_do_not_decay(name: str) -> None:
    model = YoloBody(ModelConfig(2, phi="cbam"))
    optimizer = build(model, name=name, lr=0.1, momentum=0.9, weight_decay=0.5)
    decays = [(id(p), group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
    expected = [(id(p), 0.0 if p.ndim == 1 else 0.5) for p in model.parameters()]
    assert sorted(decays) == sorted(expected)
    assert {decay for _, decay in decays} == {0.0, 0.5}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_frozen_weight_neither_moves_nor_decays(name: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].requires_grad_(False)
    before = [layer.weight.item() for layer in model]
    optimizer = build(model, name=name, lr=0.1, momentum=0.9, weight_decay=0.5)
    (model(torch.ones(1, 1)) * 3 + model[1].weight).sum().backward()
    optimizer.step()
    assert model[0].weight.item() == before[0]
    assert model[1].weight.item() != before[1]
