"""train.py --anchors: the file decides over the weights, and travels with the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train
from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.train_config import TrainConfig
from utils.training.builders import build_criterion, build_model, load_pretrained
from utils.training.resolve import resolve_lr_and_ema
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

QUICK = [
    "--data", "data", "--imgsz", "64", "--workers", "0", "--device", "cpu", "--batch-size", "6",
]  # fmt: skip
OWN = ((5.0, 6.0), (8.0, 9.5), (11.0, 12.0), (20.0, 21.0), (30.0, 31.0), (50.0, 40.0))
OWN_TEXT = "5,6, 8,9.5, 11,12, 20,21, 30,31, 50,40,\n"
NAMES = ("cat", "dog")
HALVED = ((3, 4, 5), (0, 1, 2))
USUAL = ((3, 4, 5), (1, 2, 3))


@pytest.fixture
def anchors(tmp_path: Path) -> Path:
    path = tmp_path / "anchors.txt"
    path.write_text(OWN_TEXT)
    return path


def build(
    anchors: Path | None, weights: Path | str = "none", classes: tuple[str, ...] = NAMES, **settings: Any
) -> YoloBody:
    torch.manual_seed(0)
    config = TrainConfig(
        weights=str(weights), imgsz=(64, 64), anchors=None if anchors is None else str(anchors), **settings
    )
    return build_model(config, classes, load_pretrained(config, None))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such anchor file"), ("10,14, 23,27, 37,58", "3 anchors, 6 are needed")]
)
def test_a_bad_file_ends_the_command_before_a_run_folder_is_made(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, reason: str
) -> None:
    path = tmp_path / "anchors.txt"
    if content is not None:
        path.write_text(content)
    argv = [*QUICK, "--weights", "none", "--name", "bad", "--anchors", str(path)]
    assert train.main(argv) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: {path}: ")
    assert reason in last
    assert not (room / "runs/train/bad").exists()


def test_the_file_goes_into_the_network_and_its_loss(anchors: Path) -> None:
    model = build(anchors)
    assert (model.config.anchors, model.config.anchor_masks) == (OWN, HALVED)
    criterion = build_criterion(TrainConfig(), model)
    assert (criterion.anchors, criterion.anchor_masks) == (OWN, HALVED)
    assert build(None).config == ModelConfig(2, input_size=(64, 64))


def test_the_file_wins_over_the_weights_whose_box_rows_are_copied(
    anchors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    source = YoloBody(ModelConfig(2, input_size=(64, 64)))
    save_checkpoint(tmp_path / "w.pth", Checkpoint(source.config, ("cat", "dog"), source.state_dict()))
    model = build(anchors, tmp_path / "w.pth")
    said = capsys.readouterr().err
    assert (model.config.anchors, model.config.anchor_masks) == (OWN, HALVED)
    assert all(torch.equal(ours, source.state_dict()[name]) for name, ours in model.state_dict().items())
    assert f"anchors: 20x21 30x31 50x40; 5x6 8x9.5 11x12 ({anchors})" in said
    assert "w.pth was trained with other anchors, which are skipped; its box and objectness rows are" in said
    usual = build(None, tmp_path / "w.pth")
    assert usual.config.anchors == OFFICIAL_ANCHORS
    assert "anchors" not in capsys.readouterr().err


def test_with_another_number_a_head_only_the_last_layers_start_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "four.txt").write_text("5,6, 8,9, 20,21, 30,31\nmasks = 2,3  0,1\n")
    torch.manual_seed(1)
    source = YoloBody(ModelConfig(2, input_size=(64, 64)))
    save_checkpoint(tmp_path / "w.pth", Checkpoint(source.config, ("cat", "dog"), source.state_dict()))
    ours = build(tmp_path / "four.txt", tmp_path / "w.pth").state_dict()
    assert "has 3 a head, the network has 2: the last layers start new" in capsys.readouterr().err
    last = {f"head_{level}.predict.{part}" for level in ("p4", "p5") for part in ("weight", "bias")}
    assert all(torch.equal(ours[name], source.state_dict()[name]) for name in ours if name not in last)
    assert ours["head_p5.predict.bias"].shape == (2 * 7,)


def saved(path: Path, **anchors: Any) -> YoloBody:
    torch.manual_seed(1)
    source = YoloBody(ModelConfig(2, input_size=(64, 64), **anchors))
    save_checkpoint(path, Checkpoint(source.config, NAMES, source.state_dict()))
    return source


def test_heads_choose_the_official_anchors_and_start_from_weights_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh, source = build(None, heads=3), saved(tmp_path / "two.pth")
    assert (fresh.config.anchors, fresh.config.anchor_masks) == USUAL_ANCHORS[3]
    capsys.readouterr()
    model = build(None, tmp_path / "two.pth", heads=3)
    said = capsys.readouterr().err
    assert model.config == fresh.config
    assert "anchors: 142x110 192x243 459x401; 36x75 76x55 72x146; 12x16 19x36 40x28 (official)" in said
    assert "third head (neck_up2, head_p3): new" in said
    new = {name for name in model.state_dict() if name not in source.state_dict()}
    assert {name.split(".")[0] for name in new} == {"neck_up2", "head_p3"}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())


def test_weights_of_three_heads_bring_them_unless_two_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anchors, masks = USUAL_ANCHORS[3]
    own = tuple((width + 1.0, height) for width, height in anchors)
    source = saved(tmp_path / "three.pth", anchors=own, anchor_masks=masks)
    for settings in ({}, {"heads": 3}):
        model = build(None, tmp_path / "three.pth", **settings)
        assert (model.config.anchors, model.config.anchor_masks) == (own, masks)
        assert all(
            torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items()
        )
        assert f"{tmp_path / 'three.pth'})" in capsys.readouterr().err
    assert build(None, tmp_path / "three.pth", heads=2).config == ModelConfig(2, input_size=(64, 64))
    assert "third head (neck_up2, head_p3): skipped" in capsys.readouterr().err


def test_a_file_for_another_number_of_heads_is_refused(anchors: Path) -> None:
    assert build(anchors, heads=2).config.num_heads == 2
    with pytest.raises(UserError, match=r"--heads 3: .*anchors\.txt has anchors for 2 heads"):
        build(anchors, heads=3)


def test_another_number_of_heads_takes_the_full_learning_rate(tmp_path: Path) -> None:
    saved(tmp_path / "two.pth")
    for heads, lr in ((None, 0.001), (2, 0.001), (3, 0.01)):
        config = TrainConfig(weights=str(tmp_path / "two.pth"), heads=heads)
        assert resolve_lr_and_ema(config, load_pretrained(config, None), NAMES).lr == lr


@pytest.mark.slow
def test_a_run_trains_the_third_head_and_its_attention_and_resumes(room: Path) -> None:
    argv = [*QUICK, "--weights", "none", "--heads", "3", "--phi", "se", "--phi-at", "c3", "up2", "c5"]
    assert train.main([*argv, "--epochs", "1", "--name", "three"]) == 0
    last = room / "runs/train/three/weights/last.pth"
    first = load_checkpoint(last)
    assert train.main(["--resume", str(last), "--epochs", "2"]) == 0
    second = load_checkpoint(last)
    assert first.config == second.config
    assert (second.config.anchors, second.config.anchor_masks) == USUAL_ANCHORS[3]
    assert second.config.phi_at == ("c3", "up2", "c5")
    for name in ("neck_up2.conv.weight", "head_p3.predict.weight", "attention.c3.fc.0.weight"):
        assert not torch.equal(first.weights[name], second.weights[name])


@pytest.mark.slow
def test_a_run_keeps_its_anchors_when_the_file_is_gone(
    room: Path, anchors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for name, extra in (("own", ["--anchors", str(anchors)]), ("usual", [])):
        assert train.main([*QUICK, "--weights", "none", "--epochs", "1", "--name", name, *extra]) == 0
        rows = (room / f"runs/train/{name}/results.csv").read_text().splitlines()
        losses.append(dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["box"])
    assert losses[0] != losses[1]
    anchors.unlink()
    last = room / "runs/train/own/weights/last.pth"
    assert train.main(["--resume", str(last), "--epochs", "2"]) == 0
    config = load_checkpoint(last.with_name("best.pth")).config
    assert (config.anchors, config.anchor_masks) == (OWN, HALVED)
    assert load_checkpoint(room / "runs/train/usual/weights/best.pth").config.anchor_masks == USUAL


def test_a_resumed_run_takes_no_other_anchors(anchors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--resume", "last.pth", "--anchors", str(anchors)]) == 2
    assert "--anchors" in capsys.readouterr().err
