"""Weights with anchors of their own: every exported file detects what the .pth does."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import export
import predict
from nets.config import USUAL_ANCHORS, ModelConfig
from nets.structures import Detections
from nets.yolo import HEADS, YoloBody
from tests.voc_folder import make_voc_folder
from utils.cli.anchor_file import describe_anchors, read_anchors, write_anchors
from utils.cli.errors import UserError
from utils.cli.train_config import TrainConfig
from utils.inference.predictor import Predictor
from utils.training.builders import build_model, load_pretrained
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.darknet_cfg import read_cfg

NAMES = ("cat", "dog")
CUSTOM = ((3, 4, 5), (0, 1, 2))  # yolov4-tiny-custom.cfg
OWN = ((5, 7.5), (9, 6), (12, 14), (21, 17), (30, 44), (60, 51))
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def save(path: Path, **changes) -> ModelConfig:
    """Write weights at 64 x 96 pixels that see something everywhere."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 96), **changes)).eval()
    for head in map(model.get_submodule, HEADS[: model.config.num_heads]):
        torch.nn.init.normal_(head.predict.weight, std=0.1)
        torch.nn.init.zeros_(head.predict.bias)
    save_checkpoint(path, Checkpoint(model.config, NAMES, model.state_dict()))
    return model.config


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(path: Path | str, **options) -> Detections:
    return Predictor.from_checkpoint(path, device="cpu", conf=0.01, classes=NAMES, **options)(IMAGE)


def check_same(ours: Detections, theirs: Detections, tolerance: float = 1e-4) -> None:
    assert 0 < len(ours) == len(theirs)
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "changes",
    [
        {"anchor_masks": CUSTOM},
        {"anchors": OWN, "anchor_masks": CUSTOM, "scale_x_y": 1.2},
        dict(zip(("anchors", "anchor_masks"), USUAL_ANCHORS[3], strict=True)),
    ],
)
def test_darknet_files_detect_what_the_weights_do(room: Path, changes: dict) -> None:
    config = save(room / "best.pth", **changes)
    assert export.main(["--weights", "best.pth", "--format", "darknet"]) == 0
    written = room / "runs/export/exp/best.weights"
    assert read_cfg(written.with_suffix(".cfg")) == config
    check_same(detect(written), detect("best.pth"))
    argv = ["--weights", str(written), "--classes", "runs/export/exp/labels.txt", "--format", "darknet"]
    assert export.main(argv) == 0
    for suffix in (".weights", ".cfg"):
        again = room / "runs/export/exp2/best"
        assert again.with_suffix(suffix).read_bytes() == written.with_suffix(suffix).read_bytes()


def test_the_published_layout_takes_its_anchors_from_the_file_beside(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(room / "best.pth", anchors=OWN, anchor_masks=CUSTOM, scale_x_y=1.0)
    assert export.main(["--weights", "best.pth", "--format", "published"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    written, anchors = Path("runs/export/exp/best_published.pth"), command[-1]
    assert command[-2] == "--anchors"
    assert read_anchors(anchors) == (OWN, CUSTOM)
    first = Path(anchors).read_text().splitlines()[0]  # all that the reference implementation reads
    assert [float(word) for word in first.split(",")] == [side for pair in OWN for side in pair]
    options = {"input_size": (64, 96)}
    check_same(detect(written, anchors=anchors, **options), detect("best.pth"))
    shown = describe_anchors(OWN, CUSTOM)
    assert f"anchors: {shown} ({anchors})" in capsys.readouterr().err
    assert not torch.equal(detect(written, **options).boxes, detect("best.pth").boxes)
    said = capsys.readouterr().err
    assert "anchors: 81x82 135x169 344x319; 23x27 37x58 81x82 (official; best_published.pth does not" in said


def make_darknet(room: Path) -> None:
    """Write custom_best.weights, and in cfg/ its custom.cfg with the masks of yolov4-tiny-custom.cfg."""
    save(room / "best.pth", anchor_masks=CUSTOM)
    assert export.main(["--weights", "best.pth", "--format", "darknet"]) == 0
    (room / "runs/export/exp/best.weights").rename("custom_best.weights")
    (room / "cfg").mkdir()
    (room / "runs/export/exp/best.cfg").rename("cfg/custom.cfg")
    (room / "names.txt").write_text("\n".join(NAMES))


def test_the_commands_take_a_cfg_and_an_anchor_file(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_darknet(room)
    make_voc_folder(room / "data", train_images=0, val_images=2)
    write_anchors("own.txt", ModelConfig.anchors, CUSTOM, "of custom.cfg")
    shown = describe_anchors(ModelConfig.anchors, CUSTOM)
    usual = ["--weights", "custom_best.weights", "--classes", "names.txt"]
    capsys.readouterr()

    argv = ["data/JPEGImages", *usual, "--device", "cpu", "--no-save", "--conf", "0.01", "--json"]
    for name, extra in (("cfg", ["--cfg", "cfg/custom.cfg"]), ("own", ["--anchors", "own.txt"])):
        size = ["--imgsz", "64", "96"] if name == "own" else []
        assert predict.main([*argv, f"{name}.jsonl", *extra, *size]) == 0
        assert f"anchors: {shown} ({extra[1]})" in capsys.readouterr().err
    assert predict.main([*argv, "none.jsonl", "--imgsz", "64", "96"]) == 0
    assert "put its .cfg beside it or give --anchors FILE" in capsys.readouterr().err
    found = {name: (room / f"{name}.jsonl").read_text() for name in ("cfg", "own", "none")}
    assert found["cfg"] == found["own"] != found["none"]

    argv = [*usual, "--data", "data", "--split", "val", "--device", "cpu", "--cfg", "cfg/custom.cfg"]
    assert evaluate.main(argv) == 0
    out, err = capsys.readouterr()
    assert f"anchors: {shown} (cfg/custom.cfg)" in err
    assert "--cfg cfg/custom.cfg" in out.splitlines()[-1]
    assert export.main([*usual, "--cfg", "cfg/custom.cfg", "--format", "pth"]) == 0
    assert f"anchors: {shown} (cfg/custom.cfg)" in capsys.readouterr().err
    check_same(detect("runs/export/exp2/custom_best.pth"), detect("best.pth"))

    (room / "cfg/custom.cfg").rename("custom.cfg")  # Darknet's name for what it trained custom_best with
    capsys.readouterr()
    check_same(detect("custom_best.weights"), detect("best.pth"))
    assert capsys.readouterr().err.splitlines() == [f"anchors: {shown} (custom.cfg)"]


def test_training_starts_with_the_anchors_of_the_cfg(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def build(**settings) -> ModelConfig:
        config = TrainConfig(weights="custom_best.weights", imgsz=(64, 64), **settings)
        return build_model(config, NAMES, load_pretrained(config, None)).config

    make_darknet(room)
    write_anchors("own.txt", OWN, CUSTOM, "fitted")
    capsys.readouterr()
    assert build().anchor_masks == ModelConfig.anchor_masks
    assert "23x27 37x58 81x82 (official; custom_best.weights does not say its own" in capsys.readouterr().err
    assert build(anchors="own.txt").anchors == OWN
    said = capsys.readouterr().err
    assert "(own.txt)" in said
    assert "was trained with other anchors" not in said  # they are not known
    (room / "cfg/custom.cfg").rename("custom.cfg")
    assert build().anchor_masks == CUSTOM
    assert f"anchors: {describe_anchors(ModelConfig.anchors, CUSTOM)} (custom.cfg)" in capsys.readouterr().err
    assert build(anchors="own.txt").anchors == OWN
    assert "custom_best.weights was trained with other anchors" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], pytest.param(["--nms"], marks=pytest.mark.exhaustive)])
def test_an_onnx_model_of_darknets_file_carries_its_anchors(room: Path, flags: list[str]) -> None:
    make_darknet(room)
    argv = ["--weights", "custom_best.weights", "--cfg", "cfg/custom.cfg", "--classes", "names.txt"]
    assert export.main([*argv, *flags]) == 0
    model = Path("runs/export/exp2/custom_best.onnx")
    check_same(detect(model), detect("best.pth"), 0.01)
    write_anchors("same.txt", ModelConfig.anchors, CUSTOM, "")
    check_same(detect(model, anchors="same.txt"), detect("best.pth"), 0.01)
    write_anchors("other.txt", OWN, CUSTOM, "")
    with pytest.raises(UserError, match=r"--anchors other\.txt: .*\.onnx has other anchors, 81x82 .*remove"):
        detect(model, anchors="other.txt")
    with pytest.raises(UserError, match=r"--cfg cfg/custom\.cfg: describes a Darknet \.weights file"):
        detect(model, cfg="cfg/custom.cfg")


def test_weights_that_say_their_anchors_take_no_others(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(room / "best.pth", anchors=OWN, anchor_masks=CUSTOM)
    write_anchors("same.txt", (*OWN, (99, 99)), CUSTOM, "the last one is not used")
    write_anchors("other.txt", ModelConfig.anchors, CUSTOM, "")
    check_same(detect("best.pth", anchors="same.txt"), detect("best.pth"))
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"--anchors other\.txt: best\.pth has other anchors, 21x17 30x44"):
        detect("best.pth", anchors="other.txt")
    with pytest.raises(UserError, match=r"--cfg x\.cfg: .* which best\.pth is not; remove --cfg"):
        detect("best.pth", cfg="x.cfg")
