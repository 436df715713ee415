from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nets.structures import Detections
from utils.cli.errors import UserError
from utils.inference.image_input import to_tensor
from utils.inference.predictor import Prepared
from utils.inference.streams import Frame
from utils.inference.writers import choose_images, describe, describe_counts, json_line
from utils.vision.image_writer import write_image
from utils.vision.letterbox import letterbox

NAMES = ("cat", "狗")
FOUND = Detections(
    torch.tensor([[1.5, 2.0, 30.0, 40.25], [0.0, 0.0, 5.0, 5.0], [3.0, 0.0, 5.0, 5.0]]),
    torch.tensor([0.75, 0.5, 0.25]),
    torch.tensor([1, 0, 1]),
)


def make_frame(name: str, **knobs: float) -> Frame:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    canvas, placement = letterbox(image, (32, 32))
    return Frame(name, Path(name), image, Prepared(to_tensor(canvas), placement, 0.0), **knobs)


def test_nothing_found() -> None:
    line = json.loads(json_line(describe(make_frame("a.jpg"), Detections.empty(), NAMES)))
    assert line == {"path": "a.jpg", "width": 64, "height": 48, "detections": []}


def test_what_was_found() -> None:
    text = json_line(describe(make_frame("d/a.jpg"), FOUND, NAMES))
    assert "\n" not in text
    line = json.loads(text)
    assert line["detections"][0] == {
        "box": [1.5, 2.0, 30.0, 40.25],
        "score": 0.75,
        "label": "狗",
        "class_id": 1,
    }
    assert len(line["detections"]) == 3


def test_counts_are_the_most_frequent_first() -> None:
    assert describe_counts(Counter()) == "0 objects"
    assert describe_counts(Counter(["cat", "狗", "狗"])) == "2 狗 1 cat"


def test_a_frame_of_a_video_says_where_it_stands() -> None:
    line = json.loads(json_line(describe(make_frame("v.mp4", number=3, time_s=0.12), FOUND, NAMES)))
    assert (line["path"], line["frame"], line["time_s"], line["width"]) == ("v.mp4", 3, 0.12, 64)


def test_pictures_get_names_of_their_own(tmp_path: Path) -> None:
    sources = [Path("x/a.jpg"), Path("y/a.bmp"), Path("x/A.JPG"), Path("x/a.PNG"), Path("x/a_2.jpg")]
    targets = choose_images(tmp_path, sources)
    assert [path.name for path in targets.values()] == ["a.jpg", "a_2.jpg", "A_3.jpg", "a.png", "a_2_2.jpg"]
    for target in targets.values():
        write_image(np.full((8, 6, 3), 200, dtype=np.uint8), target)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (6, 8))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_source_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: is also a source"):
        choose_images(tmp_path, [tmp_path / "a.jpg"])
