from __future__ import annotations

import dataclasses

import pytest
import yaml

from nets.attention import ATTENTION
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.parser import config_as_dict, config_from_dict, given_settings, parse_config, save_args_yaml
from utils.cli.predict_config import PredictConfig
from utils.cli.train_config import TrainConfig

ALL = {"train.py": TrainConfig, "evaluate.py": EvaluateConfig, "predict.py": PredictConfig}
SAY = {"description": "What it does.", "example": "python x.py --flag"}


def parse(argv, prog="train.py"):
    return parse_config(ALL[prog], argv, prog=prog, **SAY)


def refusal(argv, prog="train.py"):
    with pytest.raises(UserError) as caught:
        parse(argv, prog)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 390
    return str(caught.value)


def test_no_arguments_give_the_defaults():
    assert parse([]) == TrainConfig()
    assert parse([], "evaluate.py") == EvaluateConfig()
    assert parse(["a.jpg"], "predict.py") == PredictConfig(sources=("a.jpg",))


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--epochs", "3"], "epochs", 3),
        (["--epochs=3"], "epochs", 3),
        (["--batch-size", "4"], "batch_size", 4),
        (["--lr", "1e-3"], "lr", 0.001),
        (["--phi", "2"], "phi", "cbam"),
        (["--attention", "se"], "phi", "se"),
        (["--phi", "my/block.py:Block"], "phi", "my/block.py:Block"),
        (["--imgsz", "320"], "imgsz", (320, 320)),
        (["--imgsz", "32"], "imgsz", (32, 32)),
        (["--imgsz", "320", "416"], "imgsz", (320, 416)),
        (["--imgsz", "320x416"], "imgsz", (320, 416)),
        (
            ["--train", "VOC2007/trainval", "VOC2012/trainval"],
            "train",
            ("VOC2007/trainval", "VOC2012/trainval"),
        ),
        (["--val", "none"], "val", ("none",)),
        (["--no-ema"], "ema", False),
        (["--ema"], "ema", True),
        (["--demo"], "demo", True),
        (["--resume"], "resume", "auto"),
        (["--resume", "a b/last.pth"], "resume", "a b/last.pth"),
        (["--data", "été 猫"], "data", "été 猫"),
        (["--debug"], "epochs", 100),
    ],
)
def test_flags_of_train(argv, field, value):
    assert getattr(parse(argv), field) == value


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["a.jpg", "b.jpg"], "sources", ("a.jpg", "b.jpg")),
        (["--no-save", "a.jpg"], "save", False),
        (["a.jpg", "--only", "cat", "dog"], "only", ("cat", "dog")),
        (["--conf", "0", "--", "-odd.jpg"], "sources", ("-odd.jpg",)),
        (["a.jpg", "--conf", "0.4", "b.jpg", "--no-save", "c.jpg"], "sources", ("a.jpg", "b.jpg", "c.jpg")),
    ],
)
def test_flags_of_predict(argv, field, value):
    assert getattr(parse(argv, "predict.py"), field) == value


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--epochs", "x"], ["--epochs x", "whole number"]),
        (["--epochs", "1.5"], ["--epochs 1.5", "whole number"]),
        (["--epochs", "0"], ["--epochs 0", "at least 1"]),
        (["--batch-size", "-1"], ["--batch-size -1"]),
        (["--lr", "nan"], ["--lr nan"]),
        (["--lr", "-0.1"], ["--lr -0.1"]),
        (["--lr", "1e999"], ["--lr 1e999"]),
        (["--momentum", "1"], ["--momentum 1", "below 1"]),
        (["--weight-decay", "-1"], ["--weight-decay -1"]),
        (["--mosaic", "1.1"], ["--mosaic 1.1", "at most 1"]),
        (["--workers", "-1"], ["--workers -1"]),
        (["--workers", "999"], ["--workers 999"]),
        (["--phi", "9"], ["--phi 9", *ATTENTION]),
        (["--phi", "-1"], ["--phi -1", "cbam"]),
        (["--phi", "two"], ["--phi two", "cbam"]),
        (["--phi-at", "c2"], ["--phi-at c2", "c4, c5, up, c3, up2"]),
        (["--phi-at", "c4", "up2", "--heads", "2"], ["--phi-at c4 up2: needs --heads 3"]),
        (["--heads", "4"], ["--heads 4", "2", "3"]),
        (["--phi-at", "c4", "c4"], ["--phi-at", "twice"]),
        (["--imgsz", "417"], ["--imgsz 417", "416 or 448"]),
        (["--imgsz", "400x300"], ["--imgsz 400 300", "384 or 416", "288 or 320"]),
        (["--imgsz", "0"], ["--imgsz 0", "nearest: 32"]),
        (["--imgsz", "-32"], ["--imgsz -32", "nearest: 32"]),
        (["--imgsz", "100000"], ["--imgsz 100000", "nearest: 4096"]),
        (["--imgsz", "416.5"], ["--imgsz 416.5"]),
        (["--imgsz", "32", "32", "32"], ["--imgsz 32 32 32"]),
        (["--imgsz", "32", "--batch-size", "1"], ["--batch-size 1"]),
        (["--freeze-epochs", "5", "--epochs", "3"], ["--freeze-epochs 5", "--epochs 3"]),
        (["--val", "none", "val"], ["--val none val"]),
        (["--unlabelled", "maybe"], ["--unlabelled maybe", "skip, background"]),
        (["--data", ""], ["--data", "empty"]),
        (["--resume", "--weights", "x"], ["--resume", "--weights", "--epochs, --device, --workers"]),
        (["--epohcs", "3"], ["--epohcs", "did you mean --epochs?"]),
        (["--batch", "3"], ["--batch", "here it is --batch-size"]),
        (["--img", "3"], ["--img", "here it is --imgsz"]),
        (["--data-dir", "x"], ["--data-dir", "here it is --data"]),
        (["--noval"], ["--noval", "here it is --val none"]),
        (["--xyzzy"], ["--xyzzy", "--help"]),
        (["-x"], ["-x"]),
        (["stray"], ["stray"]),
    ],
)
def test_bad_usage_names_flag_and_value(argv, words):
    message = refusal(argv)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["SOURCE", "python predict.py"]),
        ([""], ["SOURCE"]),
        (["--source", "a.jpg"], ["--source", "positional argument", "python predict.py SOURCE"]),
        (["a.jpg", "--conf-thres", "1"], ["here it is --conf"]),
        (["a.jpg", "--iou-thres", "1"], ["here it is --nms-iou"]),
        (["a.jpg", "--nosave"], ["here it is --no-save"]),
        (["a.jpg", "--conf", "1.5"], ["--conf 1.5", "at most 1"]),
        (["a.jpg", "--conf", "nan"], ["--conf nan"]),
        (["a.jpg", "--nms-iou", "-1"], ["--nms-iou -1"]),
        (["a.jpg", "--max-det", "0"], ["--max-det 0"]),
    ],
)
def test_bad_usage_of_predict(argv, words):
    message = refusal(argv, "predict.py")
    for word in words:
        assert word in message


def test_nan_is_refused_without_a_command_line():
    with pytest.raises(UserError, match="--lr nan"):
        TrainConfig(lr=float("nan"))


def test_file_beats_default_and_command_line_beats_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 7\nbatch-size: 4\nlr: 1e-3\ntrain: trainval\nimgsz: 320\nphi: 1\nclasses:\n")
    config = parse(["--config", str(path), "--batch-size", "5"])
    assert config == TrainConfig(
        epochs=7, batch_size=5, lr=0.001, train=("trainval",), imgsz=(320, 320), phi="se"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", ["name: value"]),
        ("epohcs: 3", ["'epohcs'", "'epochs'"]),
        ("conf-thres: 3", ["'conf-thres'"]),
        ("lr0: 3", ["'lr0'", "'lr'"]),
        ("epochs: x", ["--epochs x"]),
        ("epochs: true", ["--epochs True"]),
        ("epochs:", ["--epochs", "value"]),
        ("ema: 1", ["--ema 1"]),
        ("phi: no", ["--phi", "quotes"]),
        ("phi: [se]", ["--phi", "single"]),
        (f"lr: {'9' * 310}", ["--lr 999", "finite"]),
        ("epochs: [", ["not a plain YAML"]),
        ("weights: !!python/object/apply:os.system ['touch PWNED']", ["not a plain YAML"]),
        ("[" * 5000, ["not a plain YAML"]),
        (
            "epochs: [&a [&b [x], *b], *a]",
            ["not a plain YAML", "an alias (*name)"],
        ),
    ],
)
def test_bad_file_is_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    message = refusal(["--config", "run.yaml"])
    for word in ["run.yaml", *words]:
        assert word in message
    assert not (tmp_path / "PWNED").exists()


def test_empty_file_says_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    assert parse(["--config", str(tmp_path / "run.yaml")]) == TrainConfig()


def test_missing_file_is_refused(tmp_path):
    assert "run.yaml: no such file" in refusal(["--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize(
    ("prog", "argv"),
    [
        ("train.py", []),
        (
            "train.py",
            ["--imgsz", "320", "416", "--train", "a", "b", "--phi", "ca", "--no-ema", "--data", "猫"],
        ),
        ("evaluate.py", ["--split", "test", "--json", "a: b"]),
        ("predict.py", ["a.jpg", "--only", "cat"]),
    ],
)
def test_saved_settings_can_be_fed_back(tmp_path, prog, argv):
    config = parse(argv, prog)
    save_args_yaml(config, tmp_path / "args.yaml")
    assert parse(["--config", str(tmp_path / "args.yaml")], prog) == config
    plain = yaml.safe_load((tmp_path / "args.yaml").read_text(encoding="utf-8"))
    assert plain == config_as_dict(config)
    assert config_from_dict(ALL[prog], plain, "checkpoint") == config


def test_unknown_key_of_a_checkpoint_is_refused():
    with pytest.raises(UserError, match="checkpoint: unknown key 'color'"):
        config_from_dict(TrainConfig, {"color": 1}, "checkpoint")


def test_given_settings_are_only_those_given():
    assert given_settings(TrainConfig, [], prog="train.py", **SAY) == {}
    argv = ["--resume", "--epochs", "9"]
    assert given_settings(TrainConfig, argv, prog="train.py", **SAY) == {"resume": "auto", "epochs": 9}


@pytest.mark.parametrize("prog", ALL)
def test_help_shows_every_flag(capsys, prog):
    fields = dataclasses.fields(ALL[prog])
    for argv, shown in (
        (["--help"], [f for f in fields if f.metadata["group"] is None]),
        (["--help-all"], fields),
    ):
        with pytest.raises(SystemExit) as stop:
            parse(argv, prog)
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert f"python {prog}" in text
        assert SAY["example"] in text
        for field in shown:
            name = field.metadata["metavar"] if field.metadata["positional"] else field.name.replace("_", "-")
            assert name in text


def test_help_hides_the_rest(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert "--weight-decay" not in text
    assert "default: 100" in text
