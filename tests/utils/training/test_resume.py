"""A trainer stopped in the middle of an epoch and built anew goes on to the same bits."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.utils.training.conftest import Net, changed, copy_of, make_batches, make_trainer, steps_of, train
from utils.cli.errors import UserError
from utils.training.engine import EpochMeter, Trainer

BATCHES = [[1, 1, 2], [2, 0], [1, 3, 1], [1, 1], [2, 2], [0, 1, 1], [1, 1]]


def build(seed: int, name: str, with_ema: bool, **options: object) -> Trainer:
    torch.manual_seed(seed)
    settings = {"momentum": 0.9, "weight_decay": 0.1, "clip_grad": 5.0, "total_steps": 9, "warmup_steps": 3}
    return make_trainer(
        Net(dropout=0.5), name=name, lr=0.05, with_ema=with_ema, seed=seed, **{**settings, **options}
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("with_ema", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_going_on_gives_the_same_bits(tmp_path: Path, name: str, with_ema: bool, accumulate: int) -> None:
    batches = make_batches(*BATCHES)
    whole, meter = build(0, name, with_ema), EpochMeter()
    for _ in steps_of(whole, batches, meter, accumulate):
        if meter.batches == 4:
            stored = {"trainer": whole.state_dict(), "meter": asdict(meter)}
            torch.save(stored, tmp_path / "state.pth")
            dropped = torch.get_rng_state()
    torch.manual_seed(99)
    torch.rand(7)
    resumed = build(1, name, with_ema)
    stored = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed.load_state_dict(stored["trainer"])
    assert torch.equal(torch.get_rng_state(), dropped)
    again = train(resumed, batches[4:], EpochMeter(**stored["meter"]), accumulate)
    assert changed(copy_of(whole.model), resumed.model) == set()
    assert changed(copy_of(whole.average), resumed.average) == set()
    assert resumed.schedule.step == whole.schedule.step == again.steps
    for field in ("batches", "steps", "skipped", "images", "unassigned", "losses", "lr"):
        assert getattr(again, field) == getattr(meter, field), field
    if with_ema:
        assert resumed.ema.updates == whole.ema.updates


@pytest.mark.parametrize("left_out", ["optimizer", "schedule", "ema", "random"])
def test_each_part_of_the_state_matters(left_out: str) -> None:
    """Without any of them the end is another, so that the test above can fail."""
    batches = make_batches(*BATCHES)
    whole, resumed = build(0, "sgd", True), build(1, "sgd", True)
    own = resumed.state_dict()
    train(whole, batches[:4])
    state = {**whole.state_dict(), left_out: own[left_out]}
    resumed.load_state_dict(state)
    kept = torch.get_rng_state()
    if left_out != "random":
        train(resumed, batches[4:])
        torch.set_rng_state(kept)
        train(whole, batches[4:])
    else:
        train(resumed, batches[4:])
        torch.set_rng_state(state["random"]["cpu"])
        torch.rand(1)
        train(whole, batches[4:])
    assert changed(copy_of(whole.average), resumed.average) != set()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_optimizer_of_another_network_is_refused(name: str) -> None:
    """A fused optimizer reads as far as the parameter goes: a smaller tensor would end the process."""
    trainer = build(0, name, True)
    train(trainer, make_batches(*BATCHES[:2]))
    state = trainer.state_dict()
    for parts in state["optimizer"]["state"].values():
        parts.update({key: torch.zeros(1) for key, value in parts.items() if value.dim()})
    with pytest.raises(UserError, match=r"its 'optimizer' does not fit the network; start"):
        build(1, name, True).load_state_dict(state)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("model", {}), ("ema", {}), ("optimizer", {}), ("held_norms", ["gone"]), ("random", {"cpu": None})),
        *(("gains", {"c5": 2.0}), ("gains", {"c4": "two"})),
    ],
)
def test_a_part_that_does_not_fit_is_named(part: str, value: object) -> None:
    trainer = build(0, "sgd", True)
    with pytest.raises(UserError, match=rf"^--resume: damaged training state: its '{part}' does not fit"):
        trainer.load_state_dict({**trainer.state_dict(), part: value})


def test_gains_behind_blocks_are_resumed_and_missing_in_older_checkpoints() -> None:
    trainer = build(0, "sgd", True)
    state = {**trainer.state_dict(), "gains": {"c4": 4.0}}
    trainer.load_state_dict(state)
    assert trainer.model.gains == trainer.average.gains == trainer.state_dict()["gains"] == {"c4": 4.0}
    trainer.load_state_dict({name: part for name, part in state.items() if name != "gains"})
    assert trainer.model.gains == trainer.average.gains == {}


def test_the_optimizer_keeps_the_settings_of_the_config() -> None:
    trainer = build(0, "sgd", True)
    state = trainer.state_dict()
    for group in state["optimizer"]["param_groups"]:
        group.update(lr="x", momentum=-1.0)
    trainer.load_state_dict(state)
    assert train(trainer, make_batches([1, 1])).skipped == 0
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.9}


def test_the_state_is_plain(tmp_path: Path) -> None:
    trainer = build(0, "adamw", True)
    train(trainer, make_batches([1, 1]))
    state = trainer.state_dict()
    assert state.keys() == {
        "model", "ema", "optimizer", "schedule", "precision", "scaler", "held_norms", "skipped_in_a_row",
        "gains", "random",
    }  # fmt: skip
    torch.save(state, tmp_path / "state.pth")
    assert torch.load(tmp_path / "state.pth", weights_only=True)["schedule"] == {"step": 1}


@pytest.mark.parametrize("before", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("after", [None, torch.bfloat16, torch.float16])
def test_a_run_goes_on_in_another_precision(before: torch.dtype | None, after: torch.dtype | None) -> None:
    """The scale of float16 is kept for float16 and made anew for it; elsewhere there is none."""
    first, second = build(0, "sgd", True, autocast=before), build(1, "sgd", True, autocast=after)
    if before == torch.float16:
        first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 2.0**9})
    train(first, make_batches([1, 1]))
    second.load_state_dict(first.state_dict())
    assert train(second, make_batches([1, 1])).skipped == 0
    expected = {(True, True): 2.0**9, (False, True): 2.0**16}.get(
        (before == torch.float16, after == torch.float16), 1.0
    )
    assert second.scaler.get_scale() == expected


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_checkpoint_of_before_resumes(name: str) -> None:
    """It has no precision, no state of a scaler that was off, and an optimizer that was not fused."""
    first, second, third = (build(seed, name, True) for seed in range(3))
    train(first, make_batches([1, 1]))
    state = first.state_dict()
    del state["precision"]
    groups = [{**group, "fused": None} for group in state["optimizer"]["param_groups"]]
    old = {**state, "scaler": {}, "optimizer": {**state["optimizer"], "param_groups": groups}}
    for trainer, stored in ((second, old), (third, first.state_dict())):
        trainer.load_state_dict(copy.deepcopy(stored))
        train(trainer, make_batches([1, 1], [2, 1]))
    assert second.optimizer.param_groups[0]["fused"]
    assert changed(copy_of(second.model), third.model) == set()


def test_the_peak_is_not_lost_on_the_way() -> None:
    """The optimizer's state holds the rate of the last step, from which nothing may be computed."""
    whole, resumed = build(0, "sgd", False), build(1, "sgd", False)
    train(whole, make_batches([1, 1]))  # in the warm-up
    resumed.load_state_dict(whole.state_dict())
    assert resumed.schedule.set_lr() == whole.schedule.set_lr() == pytest.approx(0.05 * 2 / 4)
