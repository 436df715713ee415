import pytest

from utils.cli.errors import UserError
from utils.cli.export_config import ExportConfig
from utils.cli.parser import parse_config


def parse(*argv):
    return parse_config(ExportConfig, argv, prog="export.py", description="", example="")


def test_no_arguments_give_the_defaults():
    assert parse() == ExportConfig()
    assert (parse().weights, parse().formats, parse().batch_size) == ("coco", ("onnx",), 1)


def test_compare_takes_every_format_unless_some_are_named():
    assert parse("--compare").formats == ("onnx", "openvino", "ncnn", "darknet", "published", "pth")
    assert parse("--compare").skips_formats
    assert parse("--compare", "--format", "pth").formats == ("pth",)
    assert not parse("--compare", "--format", "pth").skips_formats
    assert not parse().skips_formats


def test_values_are_read():
    config = parse("--format", "onnx", "pth", "--batch", "dynamic", "--imgsz", "320", "416", "--half")
    assert config.format == ("onnx", "pth")
    assert (config.batch_size, config.imgsz, config.half) == (None, (320, 416), True)
    assert parse("--batch", "7").batch_size == 7


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--format", "tflite"],
            "--format tflite: choose from onnx, openvino, ncnn, darknet, published, pth",
        ),
        (["--format", "pth", "pth"], "--format pth pth: names a format twice"),
        (["--batch", "0"], "--batch 0"),
        (["--batch", "many"], "--batch many"),
        (["--batch", "1025"], "--batch 1025"),
        (["--batch", "9" * 5000], "--batch 9"),
        (["--batch", "2", "--format", "pth"], "only for ONNX and OpenVINO"),
        (["--compare", "--batch", "2"], "--batch 2: --compare measures one image at a time"),
        (["--imgsz", "100"], "--imgsz 100"),
        (["--phi", "nonsense"], "--phi nonsense"),
        (["--include", "onnx"], "here it is --format"),
        (["--fp16"], "here it is --half"),
        (["--batch-size", "2"], "--batch"),
        (["--int8"], "--int8: needs images for calibration"),
        (["--int8", "--half", "--data", "data"], "--int8 and --half"),
        (["--int8", "--data", "data", "--format", "ncnn"], "--int8: only for ONNX"),
        (["--nms", "--format", "openvino"], "--nms: only for ONNX"),
        (["--opset", "17", "--format", "openvino", "pth"], "--opset: only for ONNX; add onnx to --format"),
        (["--opset", "x"], "--opset x: needs a whole number"),
        (["--opset-version", "17"], "here it is --opset"),
        (["--split", "val"], "--split: needs --data"),
        (["--skip-bad"], "--skip-bad: needs --data"),
    ],
)
def test_nonsense_is_refused(argv, words):
    with pytest.raises(UserError) as caught:
        parse(*argv)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
