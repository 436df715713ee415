"""A loss or a gradient that is not finite: the step is skipped, and too many end the run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from tests.utils.training.conftest import Criterion, changed, copy_of, make_batches, make_trainer, train
from utils.cli.errors import UserError
from utils.training.engine import MAX_SKIPPED, EpochMeter, Trainer

KINDS = ("nan", "inf", "gradient")


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
def test_the_step_changes_nothing_but_the_schedule(
    spoilt: Callable[..., Trainer], capsys: pytest.CaptureFixture[str], name: str, accumulate: int
) -> None:
    batches = make_batches([1, 2], [1, 1], [1, 3], [0, 1])
    trainer = spoilt(f"{accumulate}_1", accumulate=accumulate, name=name)  # in the second step
    meter = EpochMeter()
    steps = trainer.epoch(batches, meter, "epoch 1/9")
    next(steps)
    model, average = copy_of(trainer.model), copy_of(trainer.average)
    optimizer = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    losses, images = dict(meter.losses), meter.images
    capsys.readouterr()
    next(steps)
    assert changed(model, trainer.model) <= {"backbone.1.num_batches_tracked"}  # a counter, of no effect
    assert changed(average, trainer.average) == set()
    assert trainer.ema.updates == 1
    after = trainer.optimizer.state_dict()["state"]
    assert optimizer.keys() == after.keys()
    for key, values in optimizer.items():
        for entry, value in values.items():
            assert value is after[key][entry] is None or torch.equal(value, after[key][entry])
    assert (meter.steps, meter.skipped, meter.batches) == (2, 1, 2 * accumulate)
    assert (meter.losses, meter.images) == (losses, images)
    assert trainer.schedule.step == 2
    assert not trainer.is_finite
    said = capsys.readouterr().err
    what = "gradient" if trainer.criterion.spoilt[f"{accumulate}_1"] == "gradient" else "loss"
    names = {1: "1_0, 1_1", 2: "2_0, 2_1, 3_0, 3_1"}[accumulate]
    assert said == (
        f"warning: {what} is not finite at epoch 1/9 step 2, images {names}; the step is skipped\n"
    )


def test_what_follows_is_as_if_the_step_had_not_been(spoilt: Callable[..., Trainer]) -> None:
    """At a constant rate: the schedule is the one thing that knows of the step."""
    batches = make_batches([1, 2], [1, 1], [1, 3])
    with_it, without = spoilt("1_0", total_steps=10**9), spoilt(total_steps=10**9)
    meter, other = train(with_it, batches), train(without, [batches[0], batches[2]])
    assert changed(copy_of(without.model), with_it.model) <= {"backbone.1.num_batches_tracked"}
    assert changed(copy_of(without.average), with_it.average) <= {"backbone.1.num_batches_tracked"}
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
    assert not trainer.is_finite


def test_a_trainer_is_sound_again_after_a_good_step(spoilt: Callable[..., Trainer]) -> None:
    trainer = spoilt("1_0")
    assert trainer.is_finite
    seen = [trainer.is_finite for _ in trainer.epoch(make_batches([1], [1], [1]), EpochMeter(), "epoch 1/1")]
    assert seen == [True, False, True]


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
def test_float16_goes_on_with_a_smaller_scale(kind: str) -> None:
    criterion = Criterion(0.1)
    criterion.spoilt = {"1_0": kind}
    trainer = make_trainer(criterion=criterion, autocast=torch.float16, with_ema=True)
    meter, batches = EpochMeter(), make_batches([1, 1], [1, 1], [1, 1])
    steps = trainer.epoch(batches, meter, "epoch 1/1")
    next(steps)
    before, scale = copy_of(trainer.model), trainer.scaler.get_scale()
    next(steps)
    moved = changed(before, trainer.model)
    assert not any(name.endswith(("weight", "bias")) for name in moved)
    assert trainer.scaler.get_scale() == scale / 2
    next(steps)
    assert changed(before, trainer.model) >= {"head.weight", "head.bias"}
    assert all(value.isfinite().all() for value in trainer.average.state_dict().values())


def test_the_scale_is_part_of_the_state() -> None:
    criterion = Criterion(0.1)
    criterion.spoilt = {"0_0": "gradient"}
    first = make_trainer(criterion=criterion, autocast=torch.float16)
    second = make_trainer(autocast=torch.float16)
    train(first, make_batches([1, 1], [1, 1]))
    assert first.state_dict()["scaler"]["scale"] == 2.0**15
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 2.0**15
    assert make_trainer().state_dict()["scaler"] == {}
