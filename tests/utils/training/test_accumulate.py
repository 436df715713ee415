"""Batches in pieces: the step of the engine is that of one large batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nets.config import ModelConfig
from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from tests.utils.training.conftest import Batch, Criterion, Net, make_batches, make_trainer, merge, train
from utils.cli.train_config import TrainConfig
from utils.training.builders import build_criterion


def steps_of(
    model: nn.Module, criterion: nn.Module | None, batches: list[Batch], accumulate: int, **options: object
):
    """Train a network with batch normalization that sees no batch; returns its parameters."""
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    trainer = make_trainer(model, criterion, momentum=0.9, weight_decay=0.1, frozen_bn=norms, **options)
    meter = train(trainer, batches, accumulate=accumulate)
    return nn.utils.parameters_to_vector(model.parameters()).detach(), meter


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("clip_grad", [0.0, 0.5])
def test_pieces_of_any_size_make_the_step_of_the_whole(name: str, clip_grad: float) -> None:
    pieces = make_batches([2, 1, 0], [0], [0, 0], [3, 1, 1, 0, 2])
    options = {"name": name, "clip_grad": clip_grad, "total_steps": 4}
    ends = []
    for batches, accumulate in ((pieces, 4), (pieces, 9), ([merge(pieces)], 1)):
        torch.manual_seed(1)
        parameters, meter = steps_of(Net(), None, batches, accumulate=accumulate, **options)
        assert (meter.steps, meter.images) == (1, 11)
        ends.append((parameters, meter.losses))
    torch.manual_seed(1)
    start = nn.utils.parameters_to_vector(Net().parameters())
    assert (ends[2][0] - start).abs().max() > 0.01
    for parameters, losses in ends[:2]:
        torch.testing.assert_close(parameters, ends[2][0], rtol=0, atol=1e-6)
        assert losses == pytest.approx(ends[2][1], rel=1e-5)


def test_a_step_is_that_of_the_summed_loss_over_all_positives() -> None:
    """Not of the mean of the pieces' losses: they have 4 truths and 1, and 2 images and 1."""
    pieces = make_batches([2, 2], [1])
    torch.manual_seed(1)
    parameters, _ = steps_of(Net(), None, pieces, accumulate=2)
    torch.manual_seed(1)
    model, criterion, gradients = Net().eval(), Criterion(), []
    for images, targets in pieces:
        model.zero_grad()
        losses = criterion(model(images.float() / 255), targets, criterion.assign(targets, (4, 4)), 1)
        sum(losses.values()).backward()
        gradients.append(model.head.bias.grad.item())
    moved = (parameters[-1] - model.head.bias).item() / -0.19  # 0.1 x 1.9, Nesterov's first step
    assert moved == pytest.approx(sum(gradients) / 5, rel=1e-4)
    assert abs(moved - (gradients[0] / 4 + gradients[1]) / 2) > 0.01


def picture(boxes: list[list[float]], labels: list[int], difficult: list[bool], name: str) -> Target:
    return Target(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult),
        name,
    )


@pytest.fixture(scope="module")
def pieces() -> list[Batch]:
    """Give four batches of different sizes and truths; the second has none, the last a difficult one only."""
    generator = torch.Generator().manual_seed(0)
    nothing = Target.empty("e")
    targets = [
        [picture([[4, 6, 50, 60], [10, 10, 30, 24]], [0, 1], [False, False], "a"), nothing],
        [nothing],
        [picture([[0, 0, 63, 63]], [1], [False], "b"), picture([[8, 8, 20, 40]], [0], [False], "c"), nothing],
        [picture([[5, 5, 60, 60]], [0], [True], "d")],
    ]
    return [
        (torch.randint(0, 256, (len(part), 3, 64, 64), dtype=torch.uint8, generator=generator), part)
        for part in targets
    ]


@pytest.fixture(scope="module")
def yolo() -> tuple[YoloBody, YoloLoss]:
    torch.manual_seed(3)
    model = YoloBody(ModelConfig(2, phi="se", input_size=(64, 64))).eval()
    return model, build_criterion(TrainConfig(), model)


@pytest.mark.slow
def test_the_real_network_takes_the_same_steps_in_pieces(
    pieces: list[Batch], yolo: tuple[YoloBody, YoloLoss]
) -> None:
    options = {"lr": 0.01, "clip_grad": 10.0, "total_steps": 4}
    whole = [merge(pieces[:3]), pieces[3]]  # the last step is of one batch
    start = nn.utils.parameters_to_vector(yolo[0].parameters()).detach()
    small, meter = steps_of(copy.deepcopy(yolo[0]), yolo[1], pieces, accumulate=3, **options)
    large, other = steps_of(copy.deepcopy(yolo[0]), yolo[1], whole, accumulate=1, **options)
    assert meter.steps == other.steps == 2
    assert (large - start).abs().max() > 0.001
    assert (small - large).abs().max().item() < 1e-6
    assert meter.losses == pytest.approx(other.losses, rel=1e-5)
    assert meter.unassigned == other.unassigned
