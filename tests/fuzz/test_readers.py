"""Readers of foreign files get damaged ones: only a UserError may come back, and soon.

`make fuzz` gives each reader five minutes, other runs less than a second. FUZZ_SEED and the number of the
round determine the inputs.
"""

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.anchor_file import read_anchors
from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.cli.parser import read_settings
from utils.cli.train_config import TrainConfig
from utils.data.custom_augmentation import load_transforms
from utils.data.samples import DataFolder, load_samples
from utils.data.voc_xml import read_annotation
from utils.formats.annotation_list import read_annotation_lists
from utils.formats.coco import read_coco
from utils.formats.intermediate import build_dataset
from utils.formats.labelme import read_labelme
from utils.formats.yolo import read_yolo
from utils.inference.runtimes import ExportedModel, from_texts
from utils.vision.image_reader import hash_image, read_image
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.darknet_cfg import build_cfg, read_cfg
from utils.weights.load import read_weights

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0.5"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
EXAMPLES = 25  # a round
SLOW = 5.0  # seconds of the processor that no input may take

XML = b"""<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.png</filename>
<size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>cat</name><difficult>1</difficult><score>0.5</score>
<bndbox><xmin>5</xmin><ymin>6.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>dog</name><robndbox><cx>30</cx><cy>20</cy><w>9</w><h>8</h><angle>1.5</angle></robndbox></object>
<object><name>cow</name><polygon><x1>1</x1><y1>2</y1><x2>9</x2><y2>8</y2><x3>3</x3><y3>9</y3></polygon></object></annotation>"""
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6.5, 25, 30], "iscrowd": 0, "area": 750},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 2, 9, 8, 3, 9]], "score": 0.5},
        ],
    }
).encode()
LABELME = json.dumps(
    {
        "imagePath": "a.png",
        "imageWidth": 64,
        "imageHeight": 48,
        "shapes": [
            {"label": "cat", "points": [[1, 2], [30, 40]], "shape_type": "rectangle", "flags": {}},
            {"label": "dog", "points": [[1, 2], [9, 8], [3, 9]], "shape_type": "polygon", "difficult": True},
        ],
    }
).encode()
PIPELINE = b"""transform:
  __class_fullname__: Compose
  transforms:
    - {__class_fullname__: HorizontalFlip, p: 0.5}
    - {__class_fullname__: OneOf, p: 1, transforms: [{__class_fullname__: Blur, blur_limit: [3, 7]}]}
"""
METADATA = b"""format_version 1
phi none
class_names ["cat", "dog"]
input_size [64, 64]
anchors [[10, 14], [23, 27]]
anchor_masks [[1], [0]]
scale_x_y 1.05
letterbox {"fill": 128}
"""
# Pieces that readers may take for something else than they are.
TOKENS = [
    *(b"<", b">", b"</object>", b"<object>", b"<bndbox>", b"&x;", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<?"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"[" * 3000,
        b'{"a":' * 3000,
        b'"',
        b"'",
        b",",
        b":",
        b": ",
        b"\n",
        b"\r",
        b"\r\n",
    ),
    *(
        b"null",
        b"true",
        b"yes",
        b"~",
        b"nan",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"&a ",
        b"*a",
        b"!!binary ",
    ),
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xf0\x9f\x90\xb1",
        b"e\xcc\x81",
    ),
    *(
        b"../",
        b"/etc/passwd",
        b"C:\\a\\",
        b"\\",
        b"%2e%2e%2f",
        b" ",
        b"\t",
        b"#",
        b"masks = ",
        b"%s",
        b"{0}",
        b"~/",
    ),
    *(b"__class_fullname__: ", b"Lambda", b"train: ", b"names: ", b"\x1b[2J", b"\x7f", b"a" * 300),
]
NUMBERS = [
    b"-1",
    b"0",
    b"1e308",
    b"1e309",
    b"nan",
    b"inf",
    b"9" * 20,
    b"9" * 5000,
    b"0x10",
    b"1_0",
    "٣".encode(),
    b"-0.0",
]
NUMBERS += [b"2147483648", b"0.5", b"true", b'"5"', b"null", b"[]", b"1.", b".5", b"1e-320", b"+7"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Change a good file in a few places."""
    data = whole
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["token", "number", "cut", "copy", "byte", "end"]))
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        if kind == "token":
            data = data[:start] + draw(st.sampled_from(TOKENS)) + data[start:]
        elif kind == "number" and (found := list(re.finditer(rb"\d+", data))):
            match = found[start % len(found)]
            data = data[: match.start()] + draw(st.sampled_from(NUMBERS)) + data[match.end() :]
        elif kind == "cut":
            data = data[:start] + data[start + length :]
        elif kind == "copy":
            data = (
                data[:start] + data[start : start + length] * draw(st.integers(2, 4)) + data[start + length :]
            )
        elif kind == "byte":
            data = data[:start] + draw(st.binary(min_size=1, max_size=4)) + data[start + 1 :]
        else:
            data = data[:start]
    return data


ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**65), 2**65),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(
            [torch.zeros(0), torch.full((3, 2), float("nan")), torch.zeros(2, dtype=torch.int64)]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, content: dict) -> dict:
    """Replace or remove a value of nested plain values."""
    content = dict(content)
    name = draw(st.sampled_from(sorted(content)))
    value = content[name]
    if isinstance(value, dict) and value and draw(st.booleans()):
        content[name] = draw(changed(value))
    elif draw(st.booleans()):
        content[name] = draw(ODD)
    else:
        del content[name]
    return content


@dataclass(frozen=True)
class Reader:
    """How a file of a format is read, and the good files that are damaged."""

    name: str
    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]


def picture(suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(buffer, suffix, **options)
    return buffer.getvalue()


def pth(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def converted(source: object) -> object:
    return build_dataset(source, skip_bad=True)


def read_list(path: Path) -> object:
    return [load_samples("data", split) for split in DataFolder("data").list_splits()]


def read_metadata(path: Path) -> object:
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    described = from_texts(path, dict(line.split(" ", 1) for line in lines if " " in line))
    return ExportedModel.read_description(SimpleNamespace(path=path), described)


HEADER = bytes([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]) + bytes(8)
READERS = [
    Reader("data/Annotations/a.xml", read_annotation, (XML,)),
    Reader("coco.json", lambda path: converted(read_coco([path], Path("data/JPEGImages"))), (COCO,)),
    Reader("labelme/a.json", lambda path: converted(read_labelme(path.parent)), (LABELME,)),
    Reader(
        "yolo/labels/a.txt",
        lambda path: converted(read_yolo(path.parents[1])),
        (b"0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.05 0.1 0.9\n",),
    ),
    Reader(
        "yolo/data.yaml",
        lambda path: converted(read_yolo(path.parent)),
        (
            b"names: [cat, dog]\nnc: 2\ntrain: images\nval: images\n",
            b"path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n",
        ),
    ),
    Reader(
        "2007_train.txt",
        lambda path: converted(read_annotation_lists([path], ("cat", "dog"), Path("data/JPEGImages"))),
        (b"data/JPEGImages/a.png 5,6,30,40,0 1,2,9,8,1\n",),
    ),
    Reader(
        "data/ImageSets/Main/train.txt",
        read_list,
        (b"a\n", b"a 1\n", b"JPEGImages/a.png Annotations/a.xml\n"),
    ),
    Reader("classes.txt", read_class_names, (b"cat\ndog\n",)),
    Reader(
        "anchors.txt",
        read_anchors,
        (b"10,14, 23,27, 37,58, 81,82, 135,169, 344,319\n", b"1,2, 3,4, 5,6, 7,8\nmasks = 2,3 0,1\n"),
    ),
    Reader("a.cfg", read_cfg, (build_cfg(ModelConfig(2)).encode(),)),
    Reader(
        "run.yaml",
        lambda path: read_settings(TrainConfig, path),
        (b"epochs: 7\nlr: 1e-3\nimgsz: [64, 96]\ntrain: [a, b]\nphi: se\n",),
    ),
    Reader("pipe.yaml", lambda path: load_transforms(str(path)), (PIPELINE,)),
    Reader(
        "pipe.json",
        lambda path: load_transforms(str(path)),
        (json.dumps(yaml.safe_load(PIPELINE)).encode(),),
    ),
    Reader("model.txt", read_metadata, (METADATA,)),
    Reader("w.weights", lambda path: read_weights(str(path)), (HEADER + bytes(4000), HEADER)),
    Reader("w.conv.29", lambda path: read_weights(str(path)), (HEADER + bytes(4000), HEADER)),
    Reader(
        "w.pth",
        lambda path: read_weights(str(path)),
        (pth({"format_version": 1, "weights": {"a": torch.ones(2)}}), pth({"a.weight": torch.ones(2)})),
    ),
    *(
        Reader(
            f"data/JPEGImages/x.{suffix}",
            lambda path: (read_image(path), hash_image(path)),
            (picture(suffix, **options),),
        )
        for suffix, options in (
            ("jpeg", {}),
            ("png", {}),
            ("webp", {}),
            ("gif", {}),
            ("tiff", {}),
            ("bmp", {}),
        )
    ),
]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in (
        "data/Annotations",
        "data/JPEGImages",
        "data/ImageSets/Main",
        "labelme",
        "yolo/labels",
        "yolo/images",
    ):
        Path(folder).mkdir(parents=True)
    for folder in ("data/JPEGImages", "labelme", "yolo/images"):
        Path(folder, "a.png").write_bytes(picture("png"))
    Path("data/Annotations/a.xml").write_bytes(XML)
    Path("data/ImageSets/Main/train.txt").write_text("a\n")
    Path("yolo/data.yaml").write_text("names: [cat, dog]\n")
    Path("yolo/labels/a.txt").write_text("0 0.5 0.5 0.2 0.3\n")
    return tmp_path


def fuzz(name: str, strategy: st.SearchStrategy, check: Callable[[object], None]) -> None:
    """Run rounds of inputs until the time is over; the last line of the output counts them."""
    end, rounds = time.monotonic() + SECONDS, 0

    def expire(*_: object) -> None:
        raise TimeoutError(f"more than {SLOW:g} s of the processor")

    def timed(value: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, SLOW)
        try:
            with suppress(UserError):  # which run_command prints in one line
                check(value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, expire)
    run = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )(given(strategy)(timed))
    while rounds == 0 or time.monotonic() < end:
        seed(SEED + rounds)(run)()
        rounds += 1
    print(f"\n{name}: {rounds * EXAMPLES} inputs, seeds {SEED} to {SEED + rounds - 1}")


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.usefixtures("room")
def test_a_damaged_file_is_a_user_error(reader: Reader) -> None:
    path = Path(reader.name)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        reader.read(path)

    for whole in reader.seeds:
        path.write_bytes(whole)
        if not path.name.startswith("w."):
            reader.read(path)
    fuzz(reader.name, st.one_of([damaged(whole) for whole in reader.seeds]), check)


@pytest.mark.slow
@pytest.mark.usefixtures("room")
def test_a_checkpoint_of_odd_values_is_a_user_error() -> None:
    config = ModelConfig(2)
    weights = {
        name: value for name, value in YoloBody(config).state_dict().items() if "head_p5.predict" in name
    }
    save_checkpoint("w.pth", Checkpoint(config, ("cat", "dog"), weights))
    whole = torch.load("w.pth", weights_only=True)

    def check(content: dict) -> None:
        torch.save(content, "w.pth")
        config = read_weights("w.pth").config
        with torch.device("meta"):
            YoloBody(config)

    fuzz("checkpoint", changed(whole), check)
