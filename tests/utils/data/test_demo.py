from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.cli.errors import UserError
from utils.data.demo import CLASS_NAMES, Picture, Thing, draw_sample, make_demo
from utils.data.demo_drawings import COLORS, Part, draw
from utils.data.voc_xml import VocObject, read_annotation

Sample = tuple[np.ndarray, tuple[VocObject, ...]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rectangle(x1: float, y1: float, x2: float, y2: float, name: str = "car", opacity: float = 0) -> Thing:
    """An upright rectangle, or a soft ellipse, given in pixels of the picture (y down)."""
    points = np.array([(x1, -y1), (x2, -y1), (x2, -y2), (x1, -y2)])
    return Thing(name, [Part(np.full(3, 200.0), points, opacity)], 0, 0, 1)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [draw_sample(0, "train", index) for index in range(40)]


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        ([], []),
        ([rectangle(5, 6, 25, 16, "tree")], []),
        ([rectangle(5, 6, 25, 16)], [VocObject("car", (5, 6, 25, 16))]),
        ([rectangle(-5, -6, 25, 16)], [VocObject("car", (0, 0, 25, 16))]),  # past the border
        ([rectangle(5.3, 6.7, 25.3, 16.7)], [VocObject("car", (5, 7, 25, 17))]),  # more than half of a pixel
        ([rectangle(5, 6, 25, 16), rectangle(0, 0, 60, 59, "tree")], []),  # all hidden
        ([rectangle(5, 6, 25, 16), rectangle(15, 0, 60, 59, "tree")], [VocObject("car", (5, 6, 15, 16))]),
        (
            [rectangle(5, 6, 25, 16), rectangle(10, 0, 60, 59, "tree")],
            [VocObject("car", (5, 6, 10, 16), True)],
        ),
        ([rectangle(5, 6, 45, 36), rectangle(10, 10, 30, 30, "tree")], [VocObject("car", (5, 6, 45, 36))]),
        ([rectangle(5, 6, 25, 16), rectangle(0, 0, 60, 59, opacity=0.9)], [VocObject("car", (5, 6, 25, 16))]),
        ([rectangle(5, 6, 25, 10)], [VocObject("car", (5, 6, 25, 10), True)]),  # tiny
        ([rectangle(5, 6, 8, 9)], []),  # 9 pixels: too few to recognize
        (
            [rectangle(10, 10, 40, 40, "house"), rectangle(30, 20, 60, 40, "truck")],
            [VocObject("house", (10, 10, 40, 40)), VocObject("truck", (30, 20, 60, 40))],
        ),
    ],
)
def test_boxes_are_tight_around_the_visible_part(things: list[Thing], expected: list[VocObject]) -> None:
    assert list(Picture(np.random.default_rng(0)).annotate(things)) == expected


@pytest.mark.parametrize("night", [False, True])
@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_object_is_drawn_differently(name: str, night: bool) -> None:
    drawn = [draw(np.random.default_rng(seed), name, COLORS, night=night) for seed in range(6)]
    outlines = [np.concatenate([part.points for part in parts if not part.opacity]) for parts in drawn]
    assert all(np.isfinite(outline).all() for outline in outlines)
    assert len({outline.tobytes() for outline in outlines}) == 6


def test_pictures_are_a_function_of_seed_split_and_index() -> None:
    keys = [(0, "train", 3), (0, "train", 4), (0, "test", 3), (1, "train", 3)]
    pictures = [draw_sample(*key)[0].tobytes() for key in keys]
    assert draw_sample(*keys[0])[0].tobytes() == pictures[0]
    assert all(one != other for one, other in itertools.combinations(pictures, 2))


@pytest.mark.slow
def test_samples_have_the_promised_size_and_boxes_inside(samples: list[Sample]) -> None:
    for image, objects in samples:
        height, width = image.shape[:2]
        assert image.dtype == np.uint8
        assert 240 <= height <= 360
        assert 320 <= width <= 480
        for x1, y1, x2, y2 in (item.box for item in objects):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_samples_are_varied(samples: list[Sample]) -> None:
    found = [item for _, objects in samples for item in objects]
    sides = [min(item.box[2] - item.box[0], item.box[3] - item.box[1]) for item in found]
    assert {item.name for item in found} == set(CLASS_NAMES)
    assert any(not objects for _, objects in samples)
    assert any(item.difficult for item in found)
    assert min(sides) < 16
    assert max(sides) > 80


def test_folder_is_voc_and_a_larger_set_begins_with_the_smaller(tmp_path: Path) -> None:
    small = contents(make_demo(tmp_path / "small", train=1, val=0, test=1, seed=5))
    folder = make_demo(tmp_path / "large", train=3, val=1, test=2, seed=5)
    large = contents(folder)
    assert {name for name in small if large[name] != small[name]} == {
        "demo.json", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt", "ImageSets/Main/test.txt",
    }  # fmt: skip
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        stems = (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert len(stems) == count
        for index, stem in enumerate(stems):
            image, objects = draw_sample(5, split, index)
            annotation = read_annotation(folder / "Annotations" / f"{stem}.xml")
            assert annotation.size == (image.shape[1], image.shape[0])
            assert annotation.objects == objects
            assert cv2.imread(str(folder / "JPEGImages" / f"{stem}.jpg")).shape == image.shape


def test_complete_folder_is_kept_and_any_other_drawn_anew(tmp_path: Path) -> None:
    def make(seed: int = 0) -> dict[str, bytes]:
        return contents(make_demo(tmp_path / "demo", train=2, val=0, test=1, seed=seed))

    marker, before = tmp_path / "demo" / "demo.json", make()
    stamp = marker.stat().st_mtime_ns
    make()
    assert marker.stat().st_mtime_ns == stamp

    (tmp_path / "demo" / "JPEGImages" / "train_0001.jpg").unlink()
    assert make() == before

    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"version": 1}))  # of an older program
    (tmp_path / "demo" / "Annotations" / "test_0000.xml").write_text("half")
    assert make() == before
    assert make(seed=1) != before


def test_interrupted_folder_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("utils.data.demo.write_annotation", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_demo(tmp_path / "demo", train=1, val=0, test=0)
    resumed = contents(make_demo(tmp_path / "demo", train=1, val=0, test=0))
    assert resumed == contents(make_demo(tmp_path / "other", train=1, val=0, test=0))


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="has files that are not the demo's"):
        make_demo(tmp_path, train=1, val=0, test=0)
    assert contents(tmp_path) == {"holiday.jpg": b"mine"}


def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the demo here"):
        make_demo(tmp_path / "file" / "demo", train=1, val=0, test=0)
