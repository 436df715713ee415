from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.structures import Detections
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.inference.image_input import to_batch, to_tensor
from utils.inference.predictor import Predictor, Timings
from utils.vision.draw import draw_detections
from utils.vision.image_reader import read_image
from utils.vision.letterbox import letterbox
from utils.weights.checkpoint import Checkpoint, save_checkpoint

NAMES = ("cat", "dog")
SIZE = (64, 96)  # height, width of the network's input
CONFIG = ModelConfig(2, input_size=SIZE, anchors=((8, 8), (16, 16), (32, 32), (40, 40), (48, 48), (64, 64)))


class OneBox(nn.Module):
    """Finds in every image a dog of 40 x 40 around (48, 32.8), and with less certainty a cat there."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self.batches.append(len(images))
        maps = []
        for stride in (32, 16):
            raw = torch.full((len(images), 3, 7, SIZE[0] // stride, SIZE[1] // stride), -20.0)
            maps.append(raw)
        maps[0][:, 0, :4, 0, 1] = torch.tensor(
            [0.0, 20.0, 0.0, 0.0]
        )  # cell (0, 1): x at 1.5, y at 1.0, anchor 3
        maps[0][:, 0, 4:, 0, 1] = torch.tensor([20.0, -1.0, 2.0])  # sure of an object; class logits
        return tuple(raw.flatten(1, 2) for raw in maps)


def make_predictor(**knobs) -> Predictor:
    return Predictor(OneBox(), CONFIG, NAMES, **knobs)


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_no_images() -> None:
    assert make_predictor()([]) == []
    assert make_predictor().detect([]) == []


def test_nothing_found() -> None:
    found = make_predictor(conf=0.99)(make_image(64, 96))
    assert isinstance(found, Detections)
    assert found.boxes.shape == (0, 4)


def test_boxes_are_in_pixels_of_the_image() -> None:
    # 128 x 96 (height x width) fits into 64 x 96 at half its size, 24 pixels from the left: x = (x' - 24) * 2
    found = make_predictor()(make_image(128, 96))
    left, top = (48 - 20 - 24) * 2, (32.8 - 20) * 2  # scale_x_y carries the center 0.8 pixel beyond the cell
    assert found.boxes[0].tolist() == pytest.approx([left, top, left + 80, top + 80], abs=0.01)
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, -1.0]).sigmoid().tolist())


def test_boxes_are_clipped_to_the_image() -> None:
    found = make_predictor()(make_image(10, 300))  # 3.2 rows of 96 pixels; the box is far higher
    assert (found.boxes[:, 1].min(), found.boxes[:, 3].max()) == (0, 10)


def test_what_lies_in_the_gray_border_alone_is_left_out() -> None:
    found = make_predictor()(make_image(64, 10))  # columns 43 to 53: the box reaches them
    assert len(found) == 2
    assert len(make_predictor()(make_image(64 * 200, 1))) in (0, 2)


KINDS: dict[str, Callable[[Path], object]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "BytesIO": lambda path: BytesIO(path.read_bytes()),
    "PIL": Image.open,
    "array": read_image,
    "tensor": lambda path: to_tensor(read_image(path)),
    "gray PIL": lambda path: Image.open(path).convert("L"),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(make_image(128, 96)).save(path)
    predictor, array = Predictor(Watched(), CONFIG, NAMES), read_image(path)
    expected = predictor(array).boxes
    seen = predictor.model.images
    assert torch.equal(predictor(KINDS[kind](path)).boxes, expected)
    assert torch.equal(predictor.model.images, seen) == (kind != "gray PIL")
    (found,) = predictor([KINDS[kind](path)])
    assert torch.equal(found.boxes, expected)


def test_generators_and_arrays_of_several_images() -> None:
    predictor, images = make_predictor(), [make_image(64, 96)] * 3
    assert len(predictor(iter(images), batch_size=2)) == 3
    assert predictor.model.batches == [2, 1]
    assert len(predictor(np.stack(images))) == 3
    assert len(predictor(torch.zeros(3, 3, 64, 96, dtype=torch.uint8))) == 3


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, r"^images must be a path.*got NoneType; cv2.imread returns None for a file"),
        ([make_image(64, 96), None], r"^images\[1\] must be a path.*got NoneType"),
        (7, r"^images must be a path.*got int$"),
        ([7], r"^images\[0\] must be .*got int$"),
        (StringIO("a.jpg"), "^images must be .*got StringIO$"),
        (torch.zeros(3, 5, 5), r"^images must be a uint8 tensor \(3, H, W\) in RGB, got float32 \(3, 5, 5\)"),
        (torch.zeros(5, 5, 3, dtype=torch.uint8), r"uint8 tensor \(3, H, W\) in RGB, got uint8 \(5, 5, 3\)"),
    ],
)
def test_what_is_no_image_is_named(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_predictor()(image)


def test_bytes_that_are_no_image_are_named() -> None:
    with pytest.raises(UserError, match=r"^images \(bytes\): not an image that can be read: an HTML page"):
        make_predictor()(b"<html>")
    with pytest.raises(UserError, match=r"^images\[0\] \(bytes\): .*: the file is empty"):
        make_predictor()([b""])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"conf": 2}, "conf must be a number from 0 to 1, got 2"),
        ({"conf": float("nan")}, "conf must be"),
        ({"conf": "0.5"}, "conf must be a number from 0 to 1, got '0.5'"),
        ({"nms_iou": -1}, "nms_iou must be"),
        ({"max_det": 0}, "max_det must be"),
        ({"max_det": 2.5}, "max_det must be"),
        ({"input_size": (100, 64)}, "input_size must be two positive multiples of 32"),
        ({"input_size": 416}, r"input_size must be \(height, width\), got 416"),
        ({"input_size": (64.0, 64)}, r"input_size must be \(height, width\)"),
    ],
)
def test_arguments_that_make_no_sense_are_named(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make_predictor(**knobs)


def test_more_arguments_that_make_no_sense() -> None:
    predictor = make_predictor(conf=np.float32(0.25), max_det=np.int64(5))  # these do
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0"):
        predictor([make_image(64, 96)], batch_size=0)
    with pytest.raises(ValueError, match=r"^labels must be from 0 to 1, got dog"):
        predictor.limited_to("dog")
    with pytest.raises(ValueError, match=r"^labels must be from 0 to 1"):
        predictor.limited_to([2])
    with pytest.raises(ValueError, match=r"^class_names must be a list of names, got the text 'ab'"):
        Predictor(OneBox(), CONFIG, "ab")


def test_classes_may_be_a_file(tmp_path: Path) -> None:
    model = YoloBody(ModelConfig(2, input_size=(64, 96)))
    save_checkpoint(tmp_path / "best.pth", Checkpoint(model.config, NAMES, model.state_dict()))
    (tmp_path / "names.txt").write_text("lynx\nwolf\n")
    for classes in (tmp_path / "names.txt", str(tmp_path / "names.txt"), ["lynx", "wolf"]):
        predictor = Predictor.from_checkpoint(tmp_path / "best.pth", classes=classes, device="cpu")
        assert predictor.class_names == ("lynx", "wolf")


@pytest.mark.parametrize(("arguments", "word"), [({"path": None}, "path"), ({"classes": 20}, "classes")])
def test_nonsense_for_from_checkpoint_is_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word} must be "):
        Predictor.from_checkpoint(**{"path": "voc", **arguments})


def test_the_callers_network_stays_in_its_mode() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), OneBox())
    network[0].eval()  # frozen
    modes = [module.training for module in network.modules()]
    predictor = Predictor(network, CONFIG, NAMES)
    statistics = network[0].running_mean.clone()
    seen: list[bool] = []
    network[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    with predictor.evaluation_mode:  # as of another thread
        predictor(make_image(64, 96))
        other = Predictor(network, CONFIG, NAMES).evaluation_mode
        with other:  # leaves before the first predictor does
            pass
        predictor(make_image(64, 96))
    predictor.limited_to([0])(make_image(64, 96))
    assert seen == [False] * 3
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(network[0].running_mean, statistics)
    pickle.dumps(make_predictor())


def test_detections_know_their_names_and_are_drawn(tmp_path: Path) -> None:
    predictor, image = make_predictor(), make_image(64, 96)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = predictor(tmp_path / "a.png")
    assert found.names == ["dog", "cat"]
    assert found[found.scores > 0.5].names == ["dog"]
    assert make_predictor(conf=0.99)(image).names == []
    predictor.draw(tmp_path / "a.png").save(tmp_path / "drawn.png")
    expected = draw_detections(image, found, NAMES)
    assert not np.array_equal(expected, image)
    assert np.array_equal(read_image(tmp_path / "drawn.png"), expected)
    first = found[:1]
    assert np.array_equal(predictor.draw(image, first), draw_detections(image, first, NAMES))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 5), "uint8"), ((5, 5, 4), "uint8"), ((0, 5, 3), "uint8"), ((5, 5, 3), "float64")],
)
def test_an_array_that_is_no_rgb_image_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"must be a uint8 array \(H, W, 3\) in RGB, got {dtype}"):
        make_predictor()(np.zeros(shape, dtype=dtype))


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"notes\.txt"):
        make_predictor()(tmp_path / "notes.txt")


def test_a_list_goes_through_in_batches() -> None:
    predictor = make_predictor()
    images = [make_image(64 + 8 * index, 96) for index in range(5)]
    found = predictor(images, batch_size=2)
    assert predictor.model.batches == [2, 2, 1]
    for one, image in zip(found, images, strict=True):
        assert torch.equal(one.boxes, predictor(image).boxes)


def test_the_knobs() -> None:
    image = make_image(64, 96)
    assert make_predictor(conf=0.5)(image).labels.tolist() == [1]
    assert make_predictor(conf=0.1, max_det=1)(image).labels.tolist() == [1]
    assert make_predictor(input_size=(32, 32)).prepare(image).pixels.shape == (3, 32, 32)


def test_nms_iou_decides_which_neighbors_go() -> None:
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 64)))
    counts = [
        len(Predictor(model, model.config, NAMES, conf=1e-6, nms_iou=nms_iou)(make_image(64, 64)))
        for nms_iou in (0.1, 0.9)
    ]
    assert counts[0] < counts[1]


def test_limited_to_some_classes_labels_stay() -> None:
    predictor = make_predictor(conf=0.1)
    assert predictor.limited_to([0])(make_image(64, 96)).labels.tolist() == [0]
    assert len(predictor.limited_to([])(make_image(64, 96))) == 0
    assert predictor(make_image(64, 96)).labels.tolist() == [1, 0]  # the predictor itself is as it was


def test_the_same_letterbox_for_everybody() -> None:
    image = make_image(50, 20)
    canvas, placement = letterbox(image, SIZE)
    prepared = make_predictor().prepare(image)
    assert torch.equal(prepared.pixels, to_tensor(canvas))
    assert prepared.placement == placement


def test_timings_count_images() -> None:
    predictor, timings = make_predictor(), Timings()
    assert timings.milliseconds() == {"preprocess": 0.0, "network": 0.0, "postprocess": 0.0}
    predictor.detect([predictor.prepare(make_image(50, 20))] * 3, timings)
    assert timings.images == 3
    assert all(value > 0 for value in timings.milliseconds().values())


def test_the_number_of_names_is_checked() -> None:
    with pytest.raises(ValueError, match="must hold 2 names, got 1"):
        Predictor(OneBox(), CONFIG, ("cat",))


def test_from_checkpoint_takes_everything_from_the_file(tmp_path: Path) -> None:
    model, path = YoloBody(ModelConfig(2, phi="se", input_size=(64, 96))), tmp_path / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, NAMES, model.state_dict()))
    predictor = Predictor.from_checkpoint(path, phi="se", device="cpu", conf=0.4)
    assert (predictor.input_size, predictor.conf) == ((64, 96), 0.4)
    assert not predictor.model.training
    assert (
        predictor.describe()
        == f"weights {path}  phi se  heads 2  input 64x96  device cpu  2 classes: cat, dog"
    )


@pytest.mark.slow
def test_four_threads_get_what_one_gets() -> None:
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, phi="cbam", input_size=(64, 64)))
    predictor = Predictor(model, model.config, NAMES, conf=1e-6, max_det=20)
    only_dogs = predictor.limited_to([1])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40 + 7 * number, 90, 3), dtype=np.uint8) for number in range(24)]

    def look(number: int) -> Detections:
        return (predictor, only_dogs)[number % 2](images[number])

    expected = [look(number) for number in range(len(images))]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(look, range(len(images))))
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.allclose(one.boxes, other.boxes, atol=1e-3)
    assert any(len(one) for one in expected)


def test_to_tensor() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[0, 0], image[-1, -1] = (255, 0, 0), 255
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((3, 40, 60), torch.uint8)
    assert tensor[:, -1, -1].tolist() == [255, 255, 255]
    assert tensor[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_to_batch_is_the_division_by_255(layout: torch.memory_format) -> None:
    images = [np.arange(8 * 32 * 3, dtype=np.uint8).reshape(8, 32, 3), make_image(8, 32)]
    batch = to_batch([to_tensor(image) for image in images], layout=layout)
    expected = np.stack(images).transpose(0, 3, 1, 2) / np.float32(255)
    assert expected.dtype == np.float32
    assert np.array_equal(batch.numpy(), expected)  # to the last bit
    assert batch.is_contiguous(memory_format=layout)


class Watched(OneBox):
    """Remembers the images it is given and their type after a convolution, and returns maps of that type."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.images = torch.empty(0)
        self.dtype: torch.dtype | None = None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self.images, self.dtype = images, self.conv(images).dtype
        return tuple(raw.to(self.dtype) for raw in super().forward(images))


def test_the_network_is_fed_channels_last_floats() -> None:
    predictor = Predictor(Watched(), CONFIG, NAMES)
    prepared = [predictor.prepare(make_image(50, 20)), predictor.prepare(make_image(20, 50))]
    predictor.detect(prepared)
    assert torch.equal(predictor.model.images, torch.stack([one.pixels for one in prepared]) / 255)
    assert predictor.model.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("knobs", "dtype"), [({}, torch.float32), ({"amp": True}, torch.bfloat16)])
def test_amp_computes_the_network_in_bfloat16(knobs: dict[str, bool], dtype: torch.dtype) -> None:
    predictor = Predictor(Watched(), CONFIG, NAMES, **knobs)
    assert len(predictor.detect([])) == 0
    found, expected = predictor(make_image(128, 96)), make_predictor()(make_image(128, 96))
    assert predictor.model.dtype == dtype
    assert predictor.model.images.dtype == torch.float32
    assert (found.boxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert torch.equal(found.boxes, expected.boxes)  # its logits are bfloat16 numbers
    assert predictor.limited_to([0])(make_image(64, 96)).labels.tolist() == [0]
    assert predictor.model.dtype == dtype
    assert ("device cpu bfloat16" in predictor.describe()) == (dtype == torch.bfloat16)


def test_amp_does_not_outlive_the_call() -> None:
    Predictor(Watched(), CONFIG, NAMES, amp=True)(make_image(64, 96))
    assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", torch.bfloat16):  # nor does a caller's decide
        predictor = Predictor(Watched(), CONFIG, NAMES)
        predictor(make_image(64, 96))
    assert predictor.model.dtype == torch.float32


@pytest.mark.parametrize(
    ("amp", "is_fast", "advised"), [(False, False, False), (False, True, True), (True, True, False)]
)
def test_amp_is_advised_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, amp: bool, is_fast: bool, advised: bool
) -> None:
    monkeypatch.setattr("utils.inference.predictor.has_fast_bfloat16", lambda device: is_fast)
    assert ("--amp" in make_predictor(amp=amp).advise_amp()) == advised


def test_amp_with_onnx_or_ncnn_is_refused_before_loading() -> None:
    for name in ("gone.onnx", "gone.ncnn.param"):
        with pytest.raises(UserError, match=f"^--amp: {name} computes .*; leave --amp out$"):
            Predictor.from_checkpoint(name, amp=True)


def test_from_checkpoint_takes_amp(tmp_path: Path) -> None:
    model, path = YoloBody(ModelConfig(2, input_size=(64, 96))), tmp_path / "best.pth"
    save_checkpoint(path, Checkpoint(model.config, NAMES, model.state_dict()))
    assert Predictor.from_checkpoint(path, device="cpu").amp_dtype is None
    assert Predictor.from_checkpoint(path, device="cpu", amp=True).amp_dtype == torch.bfloat16
