from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.cli.errors import UserError
from utils.data.demo import CLASS_NAMES, draw_sample, make_demo
from utils.data.demo.canvas import Canvas, Light, Part, Pose, silhouette_area
from utils.data.demo.layout import Thing, annotate
from utils.data.demo.objects import OBJECTS
from utils.data.demo.shapes import box, spot
from utils.data.voc import VocObject, read_annotation

RED, BLUE = (200.0, 0.0, 0.0), (0.0, 0.0, 200.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def square(x1: float, y1: float, x2: float, y2: float, name: str | None = "car") -> Thing:
    """An upright rectangle given in pixels of the picture (y down)."""
    return Thing([box(x1, -y1, x2, -y2, RED)], Pose(0, 0, 1.0), Light(), name)


def show(*things: Thing) -> tuple[VocObject, ...]:
    canvas = Canvas(np.zeros((60, 80, 3), np.uint8))
    for owner, thing in enumerate(things, start=1):
        canvas.draw(thing.parts, thing.pose, thing.light, owner)
    return annotate(canvas, things)


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, tuple[VocObject, ...]]]:
    return [draw_sample(0, "train", index) for index in range(24)]


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        ([], ()),
        ([square(5, 6, 25, 16, name=None)], ()),
        ([square(5, 6, 25, 16)], (VocObject("car", (5, 6, 25, 16)),)),
        ([square(-5, -6, 25, 16)], (VocObject("car", (0, 0, 25, 16)),)),  # past the picture's edge
        (
            [square(5, 6, 25, 16), square(15, 0, 60, 59, None)],
            (VocObject("car", (5, 6, 15, 16)),),
        ),  # half hidden
        ([square(5, 6, 45, 36), square(10, 10, 30, 30, None)], (VocObject("car", (5, 6, 45, 36)),)),  # a hole
        ([square(5, 6, 25, 16), square(10, 0, 60, 59, None)], (VocObject("car", (5, 6, 10, 16), True),)),
        ([square(5, 6, 25, 16), square(0, 0, 60, 59, None)], ()),  # all hidden
        ([square(5, 6, 25, 10)], (VocObject("car", (5, 6, 25, 10), True),)),  # tiny
        ([square(5, 6, 8, 9)], ()),  # 9 pixels: too few to see what it is
        (
            [square(5.3, 6.7, 25.3, 16.7)],
            (VocObject("car", (5, 7, 25, 17)),),
        ),  # pixels more than half covered
    ],
)
def test_annotation_is_tight_around_the_visible_part(things, expected):
    assert show(*things) == expected


def test_annotation_tells_two_overlapping_objects_apart():
    behind, before = show(square(10, 10, 40, 40, "house"), square(30, 20, 60, 40, "truck"))
    assert (behind.name, behind.box) == ("house", (10, 10, 40, 40))  # still seen above the truck
    assert (before.name, before.box) == ("truck", (30, 20, 60, 40))


def test_soft_parts_do_not_count_to_the_extent():
    shadow = spot(15, -16, 30, 8, BLUE, 0.9)
    thing = Thing([shadow, box(5, -6, 25, -16, RED)], Pose(0, 0, 1.0), Light(), "car")
    assert show(thing) == (VocObject("car", (5, 6, 25, 16)),)


def test_pose_flips_turns_and_scales_by_hand():
    points = np.array([(1.0, 0.0), (0.0, 2.0)])
    np.testing.assert_allclose(Pose(10, 20, 3).apply(points), [(13, 20), (10, 14)])
    np.testing.assert_allclose(Pose(10, 20, 3, flip=True).apply(points), [(7, 20), (10, 14)])
    np.testing.assert_allclose(Pose(10, 20, 3, angle=90).apply(points), [(10, 23), (16, 20)], atol=1e-9)


def test_canvas_blends_edges_by_coverage():
    canvas = Canvas(np.zeros((10, 10, 3), np.uint8))
    canvas.draw([box(0, 0, 5.3, -10, (240.0, 240.0, 240.0))], Pose(0, 0, 1.0), Light())
    row = canvas.finish()[5, :, 0].astype(int)
    assert list(row[:5]) == [240] * 5
    assert abs(row[5] - 120) <= 1  # one of two subsamples
    assert list(row[6:]) == [0] * 4


def test_silhouette_area_counts_what_the_edge_cuts_off():
    parts = [box(0, 0, 30, -20, RED), box(10, -5, 40, -15, RED)]
    assert silhouette_area(parts, Pose(-25, 0, 1.0)) == pytest.approx(700, rel=0.06)


@pytest.mark.parametrize("name", CLASS_NAMES)
@pytest.mark.parametrize("night", [False, True])
def test_every_class_draws_solid_finite_varied_parts(name: str, night: bool):
    drawn: list[list[Part]] = [OBJECTS[name](np.random.default_rng(seed), night) for seed in range(6)]
    outlines = [np.concatenate([part.points for part in parts if not part.soft]) for parts in drawn]
    assert all(np.isfinite(outline).all() for outline in outlines)
    assert len({outline.tobytes() for outline in outlines}) == 6


def test_pictures_are_a_function_of_seed_split_and_index():
    def picture(*key: object) -> bytes:
        return draw_sample(*key)[0].tobytes()

    keys = [(0, "train", 3), (0, "train", 4), (0, "test", 3), (1, "train", 3)]
    assert picture(*keys[0]) == picture(*keys[0])
    assert all(picture(*one) != picture(*other) for one, other in itertools.combinations(keys, 2))


def test_samples_hold_boxes_inside_pictures_of_the_promised_size(samples):
    for image, objects in samples:
        height, width = image.shape[:2]
        assert image.dtype == np.uint8
        assert 240 <= height <= 360
        assert 320 <= width <= 480
        for item in objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_samples_are_varied(samples):
    names = [item.name for _, objects in samples for item in objects]
    sides = [min(b[2] - b[0], b[3] - b[1]) for _, objects in samples for b in [item.box for item in objects]]
    assert set(names) == set(CLASS_NAMES)
    assert any(not objects for _, objects in samples)
    assert any(item.difficult for _, objects in samples for item in objects)
    assert min(sides) < 16
    assert max(sides) > 80


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 1, 2)])
def test_folder_is_voc_and_the_same_every_time(tmp_path: Path, counts):
    train, val, test = counts
    folders = [make_demo(tmp_path / name, train=train, val=val, test=test, seed=5) for name in ("a", "b")]
    assert contents(folders[0]) == contents(folders[1])
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        stems = (folders[0] / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert len(stems) == count
        for index, stem in enumerate(stems):
            image, objects = draw_sample(5, split, index)
            annotation = read_annotation(folders[0] / "Annotations" / f"{stem}.xml")
            assert annotation.size == (image.shape[1], image.shape[0])
            assert annotation.objects == objects
            assert cv2.imread(str(folders[0] / "JPEGImages" / f"{stem}.jpg")).shape == image.shape


def test_complete_folder_is_left_alone_and_a_damaged_one_is_redone(tmp_path: Path):
    make = lambda **more: make_demo(tmp_path / "demo", **{"train": 2, "val": 0, "test": 1, **more})  # noqa: E731
    folder = make()
    before = contents(folder)
    stamp = (folder / "demo.json").stat().st_mtime_ns
    make()
    assert (folder / "demo.json").stat().st_mtime_ns == stamp

    (folder / "JPEGImages" / "train_0001.jpg").unlink()
    make()
    assert contents(folder) == before

    (folder / "Annotations" / "test_0000.xml").write_text("half")
    (folder / "demo.json").write_text(json.dumps({"complete": False}))  # what an interrupted run leaves
    make()
    assert contents(folder) == before

    make(seed=1)
    assert contents(folder) != before


def test_interrupted_folder_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("utils.data.demo.dataset.write_annotation", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_demo(tmp_path / "demo", train=1, val=0, test=0)
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["complete"] is False
    make_demo(tmp_path / "demo", train=1, val=0, test=0)
    assert contents(tmp_path / "demo") == contents(make_demo(tmp_path / "other", train=1, val=0, test=0))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_folder_of_someone_else_is_refused(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds files that are not the demo's"):
        make_demo(tmp_path, train=1, val=0, test=0)
    assert contents(tmp_path) == {"holiday.jpg": b"mine"}
