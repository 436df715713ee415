"""A loss or a gradient that is not finite: the step is skipped, and too many end the run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from tests.utils.training.conftest import (
    Criterion,
    changed,
    copy_of,
    make_batches,
    make_trainer,
    steps_of,
    train,
)
from utils.cli.errors import UserError
from utils.training.engine import MAX_OVERFLOWS, MAX_SKIPPED, EpochMeter, Trainer

KINDS = ("nan", "inf", "gradient", "flat")


@pytest.fixture(params=KINDS)
def spoilt(request: pytest.FixtureRequest) -> Callable[..., Trainer]:
    """Give a function that builds a trainer which finds the named images to be spoilt."""

    def make(*names: str, **options: object) -> Trainer:
        criterion = Criterion()
        criterion.spoilt = dict.fromkeys(names, request.param)
        settings = {"momentum": 0.9, "weight_decay": 0.1, "with_ema": True, "clip_grad": 10.0}
        return make_trainer(criterion=criterion, **{**settings, **options})

    return make


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_changes_nothing(
    spoilt: Callable[..., Trainer], capsys: pytest.CaptureFixture[str], name: str, accumulate: int
) -> None:
    batches = make_batches([1, 2], [1, 1], [1, 3], [0, 1])
    trainer = spoilt(f"{accumulate}_1", name=name)  # in the second step
    meter = EpochMeter()
    steps = steps_of(trainer, batches, meter, accumulate, "epoch 1/9")
    next(steps)
    model, average = copy_of(trainer.model), copy_of(trainer.average)
    optimizer = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    losses, images = dict(meter.losses), meter.images
    capsys.readouterr()
    next(steps)
    assert changed(model, trainer.model) == set()
    assert changed(average, trainer.average) == set()
    assert trainer.ema.updates == 1
    after = trainer.optimizer.state_dict()["state"]
    assert optimizer.keys() == after.keys()
    for key, values in optimizer.items():
        for entry, value in values.items():
            assert value is after[key][entry] is None or torch.equal(value, after[key][entry])
    assert (meter.steps, meter.skipped, meter.batches) == (2, 1, 2 * accumulate)
    assert (meter.losses, meter.images) == (losses, images)
    assert trainer.schedule.step == 1
    assert trainer.is_finite
    said = capsys.readouterr().err
    what = "gradient" if trainer.criterion.spoilt[f"{accumulate}_1"] == "gradient" else "loss"
    names = {1: "1_0, 1_1", 2: "2_0, 2_1, 3_0, 3_1"}[accumulate]
    assert said == (
        f"warning: {what} is not finite at epoch 1/9 step 2, images {names}; the step is skipped\n"
    )


def test_what_follows_is_as_if_the_step_had_not_been(spoilt: Callable[..., Trainer]) -> None:
    batches = make_batches([1, 2], [1, 1], [1, 3])
    with_it, without = spoilt("1_0"), spoilt()
    meter, other = train(with_it, batches), train(without, [batches[0], batches[2]])
    assert changed(copy_of(without.model), with_it.model) == set()
    assert changed(copy_of(without.average), with_it.average) == set()
    assert meter.means() == other.means()
    assert (meter.steps, other.steps, meter.images) == (3, 2, other.images)


def test_too_many_in_a_row_end_the_run(
    spoilt: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    batches = make_batches(*[[1, 1]] * 8)
    trainer = spoilt(*[f"{place}_1" for place in range(1, 8)])
    meter = EpochMeter()
    with pytest.raises(UserError) as caught:
        train(trainer, batches, meter)
    assert caught.value.exit_code == 1
    assert str(caught.value).endswith(
        "at epoch 1/1 step 6, images 5_0, 5_1: 5 steps in a row; try a lower --lr"
    )
    assert capsys.readouterr().err.count("the step is skipped") == MAX_SKIPPED - 1
    assert (meter.steps, meter.skipped) == (1 + MAX_SKIPPED, MAX_SKIPPED)


def test_a_good_step_in_between_starts_the_count_anew(spoilt: Callable[..., Trainer]) -> None:
    few = MAX_SKIPPED - 1
    bad = [f"{place}_0" for place in range(2 * few + 1) if place != few]
    trainer = spoilt(*bad, total_steps=99)
    meter = train(trainer, make_batches(*[[1]] * (2 * few + 1)))
    assert (meter.steps, meter.skipped) == (2 * few + 1, 2 * few)


def test_weights_that_are_not_finite_are_noticed() -> None:
    trainer = make_trainer(with_ema=True)
    assert trainer.is_finite
    trainer.average.backbone[1].running_var[0] = torch.nan
    assert not trainer.is_finite


def test_the_count_goes_on_after_resuming(spoilt: Callable[..., Trainer]) -> None:
    batches = make_batches(*[[1]] * MAX_SKIPPED)
    names = [f"{place}_0" for place in range(MAX_SKIPPED)]
    first, second = spoilt(*names), spoilt(*names)
    train(first, batches[:-1])
    second.load_state_dict(first.state_dict())
    with pytest.raises(UserError, match="5 steps in a row"):
        train(second, batches[-1:])


def test_an_epoch_of_nothing_but_left_out_steps_has_means(spoilt: Callable[..., Trainer]) -> None:
    meter = train(spoilt("0_0"), make_batches([1, 1]))
    assert meter.means() == {"box": 0.0, "objectness": 0.0, "class": 0.0}
    assert (meter.images, meter.skipped) == (0, 1)


def test_the_scale_of_float32_stays_1(spoilt: Callable[..., Trainer]) -> None:
    trainer = spoilt("0_0", "2_0", "4_0")
    assert train(trainer, make_batches(*[[1]] * 6)).skipped == 3
    assert trainer.scaler.get_scale() == 1.0


def test_float16_scales_the_loss_and_takes_the_same_step() -> None:
    plain = make_trainer(criterion=Criterion(0.1))
    scaled = make_trainer(criterion=Criterion(0.1), autocast=torch.float16)
    assert scaled.scaler.is_enabled()
    for trainer in (plain, scaled):
        train(trainer, make_batches([1, 1], [1, 2]))
    assert scaled.criterion.types == {torch.float16}
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], value, rtol=0.01, atol=0.001)
    assert scaled.scaler.get_scale() == 2.0**16  # nothing overflowed


@pytest.mark.parametrize("kind", KINDS)
def test_float16_goes_on_with_a_smaller_scale(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    criterion = Criterion(0.1)
    criterion.spoilt = {"1_0": kind}
    trainer = make_trainer(criterion=criterion, autocast=torch.float16, with_ema=True)
    meter, batches = EpochMeter(), make_batches([1, 1], [1, 1], [1, 1])
    steps = steps_of(trainer, batches, meter)
    next(steps)
    before, average, scale = copy_of(trainer.model), copy_of(trainer.average), trainer.scaler.get_scale()
    capsys.readouterr()
    next(steps)
    assert changed(before, trainer.model) == changed(average, trainer.average) == set()
    assert (trainer.schedule.step, trainer.ema.updates, meter.skipped) == (1, 1, 1)
    assert trainer.scaler.get_scale() == scale / 2
    assert ("skipped" in capsys.readouterr().err) == (kind != "gradient")  # an overflow is no fault
    next(steps)
    assert changed(before, trainer.model) >= {"head.weight", "head.bias"}


@pytest.mark.parametrize("count", [MAX_OVERFLOWS - 1, MAX_OVERFLOWS])
def test_float16_may_overflow_until_its_scale_is_used_up(count: int) -> None:
    criterion = Criterion(0.1)
    criterion.spoilt = {f"{place}_0": "gradient" for place in range(count)}
    trainer, meter = make_trainer(criterion=criterion, autocast=torch.float16), EpochMeter()
    batches = make_batches(*[[1]] * (MAX_OVERFLOWS + 1))
    if count == MAX_OVERFLOWS:
        with pytest.raises(UserError, match=f"gradient is not finite at .*: {count} steps in a row"):
            train(trainer, batches, meter)
    else:
        assert train(trainer, batches, meter).skipped == count


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_counted_later_is_counted_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the numbers of a step are read during the next one."""
    ends = []
    for is_late in (False, True):
        criterion = Criterion()
        criterion.spoilt = {"1_0": kind, "4_0": kind}
        trainer = make_trainer(
            criterion=criterion, momentum=0.9, with_ema=True, clip_grad=1.0, warmup_steps=4
        )
        monkeypatch.setattr(trainer, "_is_late", is_late)
        meter = train(trainer, make_batches(*[[1, 2]] * 5))
        ends.append((trainer, meter))
    (trainer, meter), (late, other) = ends
    assert changed(copy_of(trainer.model), late.model) == set()
    assert changed(copy_of(trainer.average), late.average) == set()
    assert trainer.schedule.step == late.schedule.step == 3
    assert (meter.losses, meter.lr, meter.skipped) == (other.losses, other.lr, other.skipped)
    assert (
        (meter.steps, meter.batches, meter.images) == (other.steps, other.batches, other.images) == (5, 5, 6)
    )


def test_the_scale_is_part_of_the_state() -> None:
    criterion = Criterion(0.1)
    criterion.spoilt = {"0_0": "gradient"}
    first = make_trainer(criterion=criterion, autocast=torch.float16)
    second = make_trainer(autocast=torch.float16)
    train(first, make_batches([1, 1], [1, 1]))
    assert first.state_dict()["scaler"]["scale"] == 2.0**15
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 2.0**15
