from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from nets.structures import Target
from utils.errors import UserError
from utils.training.ema import ModelEma
from utils.training.engine import EpochResult, set_frozen, train_one_epoch

CPU = torch.device("cpu")


class Net(nn.Module):
    """A backbone with a norm, and a head, as small as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Criterion(nn.Module):
    """The loss is `factor` times the output's mean, beside a part that is the number of images."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.unassigned = torch.tensor(0)

    def forward(self, raw: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        self.unassigned = torch.tensor(len(targets) + 1)
        return {"box": raw.mean() * self.factor, "class": torch.tensor(float(len(targets)))}


def batches(*sizes: int) -> list[tuple[Tensor, list[Target]]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(size, 3, 4, 4, generator=generator), [Target.empty(f"{step}_{i}") for i in range(size)])
        for step, size in enumerate(sizes)
    ]


def train(model: Net, criterion: Criterion, data: list, lr: float = 0.1, ema: ModelEma | None = None):
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    result = train_one_epoch(model, criterion, data, optimizer, schedule, ema, CPU, "epoch 1/1")
    return result, schedule


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict[str, Tensor], module: nn.Module) -> dict[str, bool]:
    return {name: torch.equal(before[name], value) for name, value in module.state_dict().items()}


def test_an_epoch_without_batches_changes_nothing() -> None:
    model = Net()
    before = copy_of(model)
    result, _ = train(model, Criterion(), [])
    assert (result.losses, result.images, result.unassigned) == ({}, 0, 0)
    assert all(same(before, model).values())


def test_row_of_the_table() -> None:
    row = EpochResult({"box": 1.5}, seconds=4.0, images=10, unassigned=3).as_row()
    assert row == {"box": 1.5, "images_per_second": 2.5, "seconds": 4.0, "unassigned": 3}


def test_losses_are_means_over_steps_and_counts_are_sums() -> None:
    result, _ = train(Net(), Criterion(), batches(2, 4))
    assert result.losses["class"] == 3.0
    assert (result.images, result.unassigned) == (6, 3 + 5)
    assert result.seconds > 0


def test_every_step_moves_the_weights_the_rate_and_the_average() -> None:
    model = Net()
    ema = ModelEma(model, steps_per_epoch=3)
    before = copy_of(model)
    _, schedule = train(model, Criterion(), batches(2, 2, 2), ema=ema)
    assert not same(before, model)["head.weight"]
    assert schedule.get_last_lr() == pytest.approx([0.1 / 4])
    assert ema.updates == 3
    assert not same(before, ema.model)["head.bias"]


def test_a_huge_gradient_is_clipped_to_norm_10() -> None:
    model = Net()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    train(model, Criterion(1e6), batches(2), lr=0.1)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.1 * 10, rel=1e-3)


def test_a_small_gradient_is_left_alone() -> None:
    model = Net()
    before = model.head.bias.item()
    train(model, Criterion(1.0), batches(2), lr=0.1)
    assert model.head.bias.item() == pytest.approx(before - 0.1, abs=1e-6)  # d mean / d bias = 1


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_images_and_changes_no_weight(factor: float) -> None:
    model = Net()
    before = copy_of(model)
    with pytest.raises(UserError, match=r"epoch 1/1 step 1, images 0_0, 0_1; try a lower --lr") as caught:
        train(model, Criterion(factor), batches(2, 2))
    assert caught.value.exit_code == 1
    kept = same(before, model)
    assert all(kept[name] for name, _ in model.named_parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_freezing_holds_weights_and_statistics_of_the_backbone(frozen: bool) -> None:
    model = Net()
    set_frozen(model, frozen)
    before = copy_of(model)
    train(model, Criterion(), batches(3, 3))
    kept = same(before, model)
    backbone = {name: kept[name] for name in kept if name.startswith("backbone")}
    moving = {"backbone.1.running_mean", "backbone.1.num_batches_tracked", "backbone.1.bias"}
    assert moving <= set(backbone)
    assert all(backbone.values()) if frozen else not any(backbone[name] for name in moving)
    assert not kept["head.weight"]


def test_thawing_gives_everything_back() -> None:
    model = Net().eval()
    set_frozen(model, True)
    assert model.training
    assert not model.backbone[1].training
    set_frozen(model, False)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
