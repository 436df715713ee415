from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.utils.training.conftest import (
    Criterion,
    Net,
    changed,
    copy_of,
    make_batches,
    make_trainer,
    steps_of,
    train,
)
from utils.training.engine import EpochMeter, pretrained_bn, set_train_mode


def test_an_epoch_without_batches_changes_nothing() -> None:
    trainer = make_trainer(with_ema=True)
    before = copy_of(trainer.model)
    meter = train(trainer, [])
    assert meter == EpochMeter(seconds=meter.seconds, waited=meter.waited)
    assert meter.means() == {"box": 0.0, "objectness": 0.0, "class": 0.0}
    assert changed(before, trainer.model) == set()
    assert trainer.schedule.step == 0


def test_a_process_that_is_asked_to_stop_takes_no_step() -> None:
    trainer, meter = make_trainer(with_ema=True), EpochMeter()
    trainer.start_epoch(freeze_backbone=False)
    before = copy_of(trainer.model)
    assert not trainer.step(make_batches([1, 1]), meter, stop=True)
    assert meter == EpochMeter()
    assert changed(before, trainer.model) == set()


def test_a_meter_of_before_a_new_term_goes_on() -> None:
    meter = EpochMeter(losses={"box": 1.0})
    train(make_trainer(), make_batches([1, 1]), meter)
    assert meter.losses.keys() == {"box", "objectness", "class"}
    assert meter.losses["class"] == 1.0


def test_an_empty_meter_has_a_row_and_a_line() -> None:
    assert set(EpochMeter().as_row().values()) == {0}
    assert EpochMeter().line() == "box 0.000  objectness 0.000  class 0.000"


def test_the_row_of_a_meter() -> None:
    meter = EpochMeter(
        batches=9,
        steps=5,
        skipped=1,
        images=10,
        unassigned=3,
        losses={"box": 6.0, "objectness": 1.0, "class": 0.5},
        seconds=4.0,
        waited=1.0,
        lr=0.25,
    )
    assert meter.as_row() == {
        "lr": 0.25,
        "box": 1.5,  # a mean over the four steps that were taken
        "objectness": 0.25,
        "class": 0.125,
        "images_per_second": 2.5,
        "seconds": 4.0,
        "waiting": 0.25,
        "unassigned": 3,
        "skipped": 1,
    }
    assert meter.line() == "box 1.500  objectness 0.250  class 0.125"


def test_losses_are_means_over_steps_and_counts_are_sums() -> None:
    meter = train(make_trainer(), make_batches([1, 1], [2, 0, 2, 0]))
    # The class loss is the number of images over the number of truths: 2 / 2 and 4 / 4.
    assert meter.losses["class"] == 2.0
    assert meter.means()["class"] == 1.0
    assert (meter.batches, meter.steps, meter.skipped) == (2, 2, 0)
    assert (meter.images, meter.unassigned) == (6, 2)
    assert meter.seconds > meter.waited > 0


def test_the_loss_of_a_step_is_its_sum_over_its_positives() -> None:
    trainer = make_trainer(lr=0.0, frozen_bn=["backbone.1"])
    batches = make_batches([1, 0], [3])
    trainer.model.eval()
    with torch.no_grad():
        outputs = [trainer.model(images.float() / 255) for images, _ in batches]
    box = sum((image + image**2).mean().item() for output in outputs for image in output)
    meter = train(trainer, batches, accumulate=2)
    assert meter.losses == pytest.approx({"box": box / 4, "objectness": 0.0, "class": 3 / 4}, rel=1e-5)
    assert (meter.batches, meter.steps) == (2, 1)


def test_a_step_without_any_truth_is_divided_by_one() -> None:
    meter = train(make_trainer(), make_batches([0, 0], [0]), accumulate=2)
    assert meter.losses["class"] == 3.0


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 5), (2, 3), (5, 1), (9, 1)])
def test_a_step_takes_so_many_batches_and_the_last_what_is_left(accumulate: int, steps: int) -> None:
    trainer = make_trainer(with_ema=True)
    meter = train(trainer, make_batches(*[[1, 1]] * 5), accumulate=accumulate)
    assert (meter.batches, meter.steps, meter.images) == (5, steps, 10)
    assert trainer.schedule.step == steps
    assert trainer.ema.updates == steps


def test_all_of_a_step_is_done_when_it_returns() -> None:
    trainer = make_trainer(with_ema=True, total_steps=9, warmup_steps=3)
    meter, seen = EpochMeter(), []
    before = copy_of(trainer.model)
    for given in steps_of(trainer, make_batches(*[[1, 1]] * 5), meter, accumulate=2):
        assert changed(before, trainer.model) >= {"head.weight", "backbone.1.running_mean"}
        before = copy_of(trainer.model)
        seen.append((given.batches, given.steps, trainer.schedule.step, trainer.ema.updates, given.lr))
    rates = [pytest.approx(0.1 * share) for share in (1 / 4, 2 / 4, 3 / 4)]
    assert seen == [(2, 1, 1, 1, rates[0]), (4, 2, 2, 2, rates[1]), (5, 3, 3, 3, rates[2])]


def test_a_meter_goes_on_where_it_stood() -> None:
    first, second = make_trainer(), make_trainer()
    batches = make_batches([1, 1], [1, 1], [1, 1])
    whole = train(first, batches)
    part = train(second, batches[:1])
    assert train(second, batches[1:], part) is part
    assert part.losses == whole.losses
    assert (part.batches, part.steps, part.images) == (3, 3, 6)
    assert changed(copy_of(first.model), second.model) == set()


@pytest.mark.parametrize(
    ("clip_grad", "factor", "norm"),
    [
        (10.0, 1e6, 10.0),
        (2.5, 1e6, 2.5),
        (0.0, 1e3, 1e3),  # no limit
        (10.0, 1.0, 1.0),  # a small gradient is left alone
    ],
)
def test_the_gradient_is_clipped(clip_grad: float, factor: float, norm: float) -> None:
    """All parameters are 0, so that the gradient of the head's bias is all there is: `factor`."""
    model = Net()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    trainer = make_trainer(model, Criterion(factor), clip_grad=clip_grad)
    train(trainer, make_batches([1, 1]))
    assert model.head.bias.item() == pytest.approx(-0.1 * norm, rel=1e-4)


def test_clipping_keeps_the_direction() -> None:
    moves = []
    for clip_grad in (0.0, 0.25):
        trainer = make_trainer(clip_grad=clip_grad, criterion=Criterion(50.0))
        before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
        train(trainer, make_batches([1, 1, 1]))
        moves.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) - before)
    assert moves[0].norm() > 1
    assert moves[1].norm().item() == pytest.approx(0.1 * 0.25, rel=1e-3)
    assert torch.cosine_similarity(*moves, dim=0).item() == pytest.approx(1.0)


def test_the_average_follows_and_is_what_is_shared() -> None:
    trainer = make_trainer(with_ema=True)
    before = copy_of(trainer.model)
    train(trainer, make_batches([1, 1]))
    decay = 2 / 11  # the first step's
    after, average = trainer.model.state_dict(), trainer.average.state_dict()
    for name in ("head.weight", "backbone.1.running_mean"):
        torch.testing.assert_close(average[name], decay * before[name] + (1 - decay) * after[name])
    assert trainer.average is trainer.ema.model


def test_without_an_average_the_network_itself_is_shared() -> None:
    trainer = make_trainer()
    assert trainer.average is trainer.model
    assert trainer.state_dict()["ema"] is None


def test_pictures_arrive_as_shares_of_255() -> None:
    trainer = make_trainer(lr=0.0)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    (images, targets) = make_batches([1, 1])[0]
    train(trainer, [(images, targets)])
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], images.float() / 255)
    assert images.dtype == torch.uint8


def test_bfloat16_changes_numbers_a_little_and_the_loss_stays_float32() -> None:
    plain, mixed = make_trainer(), make_trainer(autocast=torch.bfloat16)
    batches = make_batches([1, 1], [1, 1], [1])
    losses = [train(trainer, batches).losses["box"] for trainer in (plain, mixed)]
    assert plain.criterion.types == {torch.float32}
    assert mixed.criterion.types == {torch.bfloat16}
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02, abs=0.02)
    assert {value.dtype for value in mixed.model.parameters()} == {torch.float32}
    difference = (plain.model.head.weight - mixed.model.head.weight).abs().max().item()
    assert 0 < difference < 0.02
    assert mixed.scaler.get_scale() == 1.0


def test_a_compiled_network_runs_and_the_state_is_that_of_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []

    def compile_it(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda images: ran.append(len(images)) or model(images)

    monkeypatch.setattr(torch, "compile", compile_it)
    plain, compiled = make_trainer(), make_trainer(compiled=True)
    for trainer in (plain, compiled):
        train(trainer, make_batches([1, 1, 1], [1, 1]))
    assert ran == [3, 2]
    assert changed(copy_of(plain.model), compiled.model) == set()
    assert plain.state_dict()["model"].keys() == compiled.state_dict()["model"].keys()


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("with_ema", [True, False])
def test_freezing_holds_weights_and_statistics_of_the_backbone(frozen: bool, with_ema: bool) -> None:
    trainer = make_trainer(momentum=0.9, weight_decay=0.1, with_ema=with_ema)
    before = copy_of(trainer.model)
    trainer.start_epoch(freeze_backbone=frozen)
    for batch in make_batches([1, 1, 1], [1, 1, 1]):
        trainer.step([batch], EpochMeter())
    moved = changed(before, trainer.model)
    backbone = {name for name in moved if name.startswith("backbone")}
    moving = {"backbone.1.running_mean", "backbone.1.num_batches_tracked", "backbone.1.bias"}
    assert backbone == set() if frozen else backbone >= moving
    assert "head.weight" in moved


def test_thawing_gives_everything_back() -> None:
    model = Net().eval()
    set_train_mode(model, True)
    assert model.training
    assert not model.backbone[1].training
    set_train_mode(model, False)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_held_norm_keeps_its_statistics_and_learns_its_gain() -> None:
    trainer = make_trainer(momentum=0.9, frozen_bn=["backbone.1"])
    before = copy_of(trainer.model)
    train(trainer, make_batches([1, 1, 1], [1, 1, 1]))
    moved = {name for name in changed(before, trainer.model) if name.startswith("backbone.1")}
    assert moved == {"backbone.1.weight", "backbone.1.bias"}


def test_new_norms_are_not_known_and_those_that_have_seen_pictures_are() -> None:
    model = Net()
    assert pretrained_bn(model) == []
    model.backbone[1].running_var.fill_(2.0)
    assert pretrained_bn(model) == ["backbone.1"]


def test_frozen_bn_is_resumed() -> None:
    first, second = make_trainer(), make_trainer()
    first.frozen_bn = ["backbone.1"]
    second.load_state_dict(first.state_dict())
    assert second.frozen_bn == ["backbone.1"]
    second.load_state_dict(
        {name: value for name, value in first.state_dict().items() if name != "held_norms"}
    )
    assert second.frozen_bn == []  # a checkpoint of before
