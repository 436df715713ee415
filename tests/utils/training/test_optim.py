from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nets.yolo import ModelConfig, YoloBody
from utils.training.optim import build_optimizer, build_schedule


def shares(total_steps: int, warmup_steps: int) -> list[float]:
    """Return the learning rate of every step, and the one after the last, as a share of the peak."""
    optimizer = build_optimizer(nn.Linear(1, 1), lr=1.0, momentum=0.0, weight_decay=0.0, batch_size=16)
    schedule = build_schedule(optimizer, total_steps=total_steps, warmup_steps=warmup_steps)
    rates = [schedule.get_last_lr()[0]]
    for _ in range(total_steps):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return rates


def cosine(progress: float) -> float:
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize(
    ("total_steps", "warmup_steps", "expected"),
    [
        (0, 0, [1.0]),
        (4, 0, [1.0, cosine(1 / 4), 0.505, cosine(3 / 4), 0.01]),
        (5, 3, [1 / 4, 2 / 4, 3 / 4, 1.0, 0.505, 0.01]),
        (2, 10, [1 / 3, 2 / 3, 1.0]),  # a warm-up longer than the run is the run
    ],
)
def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine(
    total_steps: int, warmup_steps: int, expected: list[float]
) -> None:
    assert shares(total_steps, warmup_steps) == pytest.approx(expected)


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 0.01 / 16), (4, 0.0025), (16, 0.01), (32, 0.02)])
def test_the_rate_scales_with_the_batch(batch_size: int, expected: float) -> None:
    optimizer = build_optimizer(
        nn.Linear(1, 1), lr=0.01, momentum=0.9, weight_decay=0.0, batch_size=batch_size
    )
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)


@pytest.mark.parametrize(
    ("knobs", "weight", "bias"),
    [
        ({"momentum": 0.0, "weight_decay": 0.0}, 0.9, 0.9),  # w - lr g
        ({"momentum": 0.0, "weight_decay": 0.5}, 0.85, 0.9),  # g + 0.5 w
        ({"momentum": 0.9, "weight_decay": 0.0}, 0.81, 0.81),  # Nesterov: g + 0.9 g
        ({"momentum": 0.9, "weight_decay": 0.0, "lr": 0.2}, 0.62, 0.62),
    ],
)
def test_a_step_worked_by_hand(knobs: dict[str, float], weight: float, bias: float) -> None:
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = build_optimizer(layer, **{"lr": 0.1, **knobs}, batch_size=16)
    layer(torch.ones(1, 1)).sum().backward()  # both gradients are 1
    optimizer.step()
    assert layer.weight.item() == pytest.approx(weight)
    assert layer.bias.item() == pytest.approx(bias)


def test_every_parameter_is_in_one_group_and_norms_and_biases_do_not_decay() -> None:
    model = YoloBody(ModelConfig(2, phi="cbam"))
    optimizer = build_optimizer(model, lr=0.1, momentum=0.9, weight_decay=0.5, batch_size=16)
    decays = [(id(p), group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
    expected = [(id(p), 0.0 if p.ndim == 1 else 0.5) for p in model.parameters()]
    assert sorted(decays) == sorted(expected)
    assert {decay for _, decay in decays} == {0.0, 0.5}


def test_a_frozen_weight_neither_moves_nor_decays() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).requires_grad_(True)
    model[0].requires_grad_(False)
    before = [layer.weight.item() for layer in model]
    optimizer = build_optimizer(model, lr=0.1, momentum=0.9, weight_decay=0.5, batch_size=16)
    (model(torch.ones(1, 1)) * 3 + model[1].weight).sum().backward()
    optimizer.step()
    assert model[0].weight.item() == before[0]
    assert model[1].weight.item() != before[1]
