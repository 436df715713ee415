from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.structures import Target
from nets.yolo import OFFICIAL_ANCHORS, ModelConfig, YoloBody
from utils.config import config_as_dict
from utils.errors import UserError
from utils.training.attention import check_attention
from utils.training.config import TrainConfig
from utils.training.start import build_criterion, build_model, resolve_settings
from utils.weights.checkpoint import Checkpoint, save_checkpoint

OWN_ANCHORS = tuple((width + 1.0, height + 2.0) for width, height in OFFICIAL_ANCHORS)


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """A last.pth of a run of ten epochs, three of them done."""
    path = tmp_path / "exp/weights/last.pth"
    path.parent.mkdir(parents=True)
    stored = config_as_dict(TrainConfig(epochs=10, imgsz=(64, 96), workers=3))
    state = {"epoch": 3, "optimizer": {}}
    save_checkpoint(path, Checkpoint(ModelConfig(1), ("cell",), {}, {}, stored, state))
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert resolve_settings({}) == (TrainConfig(), None, None)
    assert resolve_settings({"lr": 0.5})[0] == TrainConfig(lr=0.5)


def test_the_demo_has_its_own_defaults_and_the_user_comes_first() -> None:
    usual, demo = TrainConfig(), resolve_settings({"demo": True})[0]
    assert (demo.demo, demo.data) == (True, "runs/demo")
    assert demo.epochs < usual.epochs
    assert demo.imgsz < usual.imgsz
    assert resolve_settings({"demo": False})[0] == usual
    config = resolve_settings({"demo": True, "epochs": 5, "data": "mine"})[0]
    assert (config.data, config.epochs, config.imgsz) == ("mine", 5, demo.imgsz)


def test_resuming_takes_the_settings_of_the_run(last: Path) -> None:
    config, folder, checkpoint = resolve_settings({"resume": str(last), "epochs": 20})
    assert (config.epochs, config.imgsz, config.workers, config.resume) == (20, (64, 96), 3, None)
    assert folder == last.parent.parent
    assert checkpoint is not None
    assert checkpoint.training["epoch"] == 3


def test_resuming_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        resolve_settings({"resume": str(tmp_path / "gone.pth")})


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
    model = build_model(config, ("dog",), None)
    meaning = (model.config.anchors, model.config.scale_x_y, model.config.input_size)
    assert meaning == (OWN_ANCHORS, 1.2, (64, 64))
    assert torch.equal(first_weight(model), first_weight(source))
    theirs = source.head_p5.predict.weight.unflatten(0, (-1, 7))
    ours = model.head_p5.predict.weight.unflatten(0, (-1, 6))
    assert torch.equal(ours, theirs[:, [0, 1, 2, 3, 4, 6]])
    assert "classes loaded by name: dog" in capsys.readouterr().err


def first_weight(model: YoloBody) -> torch.Tensor:
    return next(iter(model.backbone.parameters()))


def test_a_resumed_network_is_that_of_the_checkpoint_whatever_the_settings_say() -> None:
    stored = ModelConfig(1, "cbam", ("up",), (96, 64), OWN_ANCHORS)
    resumed = Checkpoint(stored, ("cell",), {})
    settings = TrainConfig(weights="missing.pth", phi="cbam")
    assert build_model(settings, ("cell",), resumed).config == stored


def test_the_loss_has_the_networks_anchors_and_the_smoothing() -> None:
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64), anchors=OWN_ANCHORS, scale_x_y=1.2)).eval()
    target = Target(torch.tensor([[5.0, 5, 40, 50]]), torch.tensor([1]), torch.tensor([False]))
    raw_maps = model(torch.rand(1, 3, 64, 64))
    plain, smooth = (build_criterion(TrainConfig(label_smoothing=share), model) for share in (0.0, 0.2))
    assert (plain.anchors, plain.anchor_masks, plain.scale_x_y) == (OWN_ANCHORS, ((3, 4, 5), (1, 2, 3)), 1.2)
    plain_losses, smooth_losses = plain(raw_maps, [target]), smooth(raw_maps, [target])
    assert torch.equal(plain_losses["box"], smooth_losses["box"])
    assert not torch.equal(plain_losses["class"], smooth_losses["class"])


@pytest.mark.parametrize(
    ("given", "words"),
    [({"epochs": 3}, "3 epochs are done"), ({"phi": "se"}, "made with attention=none, you asked for se")],
)
def test_resuming_what_cannot_go_on_is_refused(last: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve_settings({"resume": str(last), **given})


def test_resuming_with_other_classes_is_refused(last: Path) -> None:
    config, _, checkpoint = resolve_settings({"resume": str(last), "epochs": 20})
    assert checkpoint is not None
    with pytest.raises(UserError, match=r"the run has the classes .*, the data now zebra"):
        build_model(config, ("zebra",), checkpoint)


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
            state = build_model(config, ("cat", "dog"), None).state_dict()
            folded = {"neck_p5.conv.weight", "head_p4.conv.conv.weight"} if insert == "preserve" else set()
            starts.append({name: value for name, value in state.items() if name not in folded})
        for start in starts[1:]:
            shared = [name for name in start if not name.startswith("attention.")]
            assert len(shared) == len(starts[0])
            assert all(torch.equal(start[name], starts[0][name]) for name in shared)
