from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from utils.training.ema import ModelEma


def update(ema: ModelEma, model: nn.Module) -> None:
    """Update after a step that was taken, as the engine does."""
    ema.update(model, torch.tensor(True))
    ema.updates += 1


def one_weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_before_any_update_it_is_a_copy_of_its_own() -> None:
    model = nn.BatchNorm1d(2).train()
    ema = ModelEma(model, steps_per_epoch=3)
    nn.init.constant_(model.weight, 7.0)
    assert ema.model.weight.tolist() == [1.0, 1.0]
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("steps_per_epoch", "decay"), [(1, 0.5), (5, 0.9), (2_500, 1 - 1 / 5000), (100_000, 1 - 1 / 5000)]
)
def test_the_memory_is_two_epochs_and_at_most_5000_steps(steps_per_epoch: int, decay: float) -> None:
    assert ModelEma(one_weight(0.0), steps_per_epoch).decay == pytest.approx(decay)


def test_it_follows_the_formula_from_a_short_memory_to_the_long_one() -> None:
    model = one_weight(1.0)
    ema = ModelEma(model, steps_per_epoch=2)  # the long memory is a decay of 3/4
    expected = 1.0
    for step in range(1, 41):
        nn.init.constant_(model.weight, float(step))
        update(ema, model)
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert ema.updates == 40
    assert ema.model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_step_that_was_skipped_moves_nothing() -> None:
    ema = ModelEma(one_weight(1.0), steps_per_epoch=2)
    ema.update(one_weight(3.0), torch.tensor(False))
    assert ema.model.weight.item() == 1.0


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(1)
    ema = ModelEma(model, steps_per_epoch=100)
    model(torch.tensor([[10.0], [10.0]]))  # running mean 0 -> 1
    update(ema, model)
    assert ema.model.running_mean.item() == pytest.approx(9 / 11)
    assert ema.model.num_batches_tracked.item() == 1


def test_a_restored_average_goes_on_as_the_first_would() -> None:
    model = one_weight(1.0)
    first = ModelEma(model, steps_per_epoch=10)
    nn.init.constant_(model.weight, 2.0)
    update(first, model)
    second = ModelEma(one_weight(9.0), steps_per_epoch=10)
    second.load_state_dict(copy.deepcopy(first.state_dict()))

    def go_on(ema: ModelEma) -> Tensor:
        update(ema, one_weight(5.0))
        return ema.model.weight

    assert torch.equal(go_on(first), go_on(second))
    assert first.updates == second.updates == 2


def test_a_memory_of_the_whole_run_does_not_forget_the_start_faster() -> None:
    model = one_weight(1.0)
    ema = ModelEma(model, steps_per_epoch=2, run_steps=8)
    nn.init.constant_(model.weight, 0.0)
    for step in range(1, 9):
        update(ema, model)
        assert ema.model.weight.item() == pytest.approx((7 / 8) ** step)
