from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from nets.structures import Detections, Target
from utils.vision import draw
from utils.vision.colors import class_colors
from utils.vision.contact_sheet import draw_grid
from utils.vision.draw import draw_boxes, draw_detections


def make_found(*boxes: list[float], label: int = 0) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Detections(torch.tensor(boxes).reshape(-1, 4), scores, torch.full((len(boxes),), label))


@pytest.mark.parametrize("objects", [Detections.empty(), Target.empty()])
def test_nothing_to_draw_leaves_the_picture_as_it_is(objects: Detections | Target) -> None:
    image = np.full((40, 60, 3), 77, dtype=np.uint8)
    assert np.array_equal(draw_detections(image, objects, ()), image)


def test_a_box_is_drawn_on_its_own_edge_and_the_input_is_not_touched() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    drawn = draw_detections(image, make_found([50, 60, 150, 160]), ("cat",))
    assert not image.any()
    assert tuple(drawn[159, 100]) == class_colors(("cat",))[0]  # the last row inside the edge 160
    assert not drawn[160:, :].any()
    assert tuple(drawn[100, 50]) == class_colors(("cat",))[0]
    assert not drawn[100, :50].any()
    assert drawn[30:60, 50:80].any()  # the caption above


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (32, 32), (1080, 1920)])
@pytest.mark.parametrize("name", ["cat", "猫", "собака 😀", "", "two\nlines", "a very long name " * 20])
def test_any_size_and_name_at_the_border(size: tuple[int, int], name: str) -> None:
    height, width = size
    image = np.zeros((*size, 3), dtype=np.uint8)
    boxes = (
        [0, 0, width, height],
        [width - 1, height - 1, width, height],
        [-50, -50, 5000, 5000],
        [0.2, 0.2, 0.3, 0.3],
    )
    assert draw_detections(image, make_found(*boxes), (name,)).shape == image.shape


def test_a_target_is_drawn_and_says_what_is_difficult() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    boxes, labels = torch.tensor([[10.0, 30.0, 90.0, 90.0]]), torch.tensor([0])
    plain, hard = (
        draw_detections(image, Target(boxes, labels, torch.tensor([flag])), ("cat",))
        for flag in (False, True)
    )
    assert plain.any()
    assert not np.array_equal(plain, hard)


def test_captions_of_near_boxes_do_not_hide_one_another() -> None:
    """Four objects whose captions would lie in one place: each color has a whole field, text and all."""
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    names = ("car", "cow", "bus", "dog")
    boxes = [[100.0, 100.0, 300.0, 200.0], [102, 101, 300, 202], [104, 102, 302, 201], [100, 103, 299, 203]]
    scores, labels = torch.linspace(0.9, 0.6, 4), torch.arange(4)
    found = Detections(torch.tensor(boxes), scores, labels)
    together = draw_detections(image, found, names)
    for label, color in enumerate(class_colors(names)):
        one = slice(label, label + 1)
        alone = draw_detections(image, Detections(found.boxes[one], scores[one], labels[one]), names)
        own = [(picture == np.array(color)).all(axis=2).sum() for picture in (together, alone)]
        edges = 2 * 2 * (200 + 100)  # the boxes themselves may cover one another
        assert own[0] >= own[1] - edges


def test_captions_of_one_box_do_not_hide_one_another_and_an_empty_one_takes_no_place() -> None:
    image, boxes = np.zeros((300, 400, 3), dtype=np.uint8), np.array([[100.0, 100.0, 300.0, 200.0]])
    texts, colors = ("missed: bird", "", "missed: balloon"), ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    together = draw_boxes(image, boxes.repeat(3, axis=0), texts, colors)
    alone = draw_boxes(image, boxes, texts[:1], colors[:1])
    assert np.array_equal((together == colors[0]).all(axis=2), (alone == colors[0]).all(axis=2))
    assert not (together == colors[1]).all(axis=2).any()  # below the box of the first
    assert (together == colors[2]).all(axis=2).sum() > 400


def test_a_crowd_of_captions_stays_inside_the_image() -> None:
    found = make_found(*([[5.0, 5.0, 30.0, 30.0]] * 30))
    drawn = draw_detections(np.zeros((60, 60, 3), dtype=np.uint8), found, ("a rather long name",))
    assert drawn.shape == (60, 60, 3)


def test_grid_arranges_cells_in_rows() -> None:
    cells = [np.full((16, 32, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    assert draw_grid(cells[:1], columns=2, gap=4).tolist() == cells[0].tolist()
    grid = draw_grid(cells, columns=2, gap=4)
    assert grid.shape == (16 + 4 + 16, 32 + 4 + 32, 3)
    assert (grid[:16, :32] == 10).all()
    assert (grid[:16, 36:] == 20).all()
    assert (grid[20:, :32] == 30).all()
    assert (grid[16:20] == 255).all()
    assert (grid[20:, 32:] == 255).all()


@pytest.fixture
def poor_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no font but those that our dependencies bring."""
    monkeypatch.setattr(draw, "_WIDER_FONTS", ("no-such-font.ttf",))
    draw._find_font.cache_clear()
    draw._warn_about_letters.cache_clear()


@pytest.mark.parametrize("text", ["cat 0.90", "café", "собака", "Ω"])
def test_letters_that_our_dependencies_have(poor_machine: None, text: str) -> None:
    assert draw.has_letters("")
    assert draw.has_letters(text)
    assert draw.load_font(20, text).getbbox(text)[2] > 10


def test_a_missing_letter_is_seen(poor_machine: None) -> None:
    assert not draw.has_letters("猫")
    assert not draw.has_letters("a猫b")
    assert draw.load_font(20, "猫").getname() == draw.load_font(20).getname()  # something to draw with


def test_a_font_of_the_machine_is_taken(monkeypatch: pytest.MonkeyPatch, poor_machine: None) -> None:
    path = Path(matplotlib.get_data_path(), "fonts/ttf/STIXGeneral.ttf")
    monkeypatch.setattr(draw, "_WIDER_FONTS", (str(path),))
    monkeypatch.setattr(draw, "_fonts_of_matplotlib", list)
    assert draw.load_font(20, "∮").getname()[0] == "STIXGeneral"


def test_a_name_that_cannot_be_drawn_becomes_its_number(
    poor_machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    image, found = np.zeros((100, 200, 3), dtype=np.uint8), make_found([10.0, 60.0, 90.0, 90.0])
    drawn = [draw_detections(image, found, (name,)) for name in ("猫", "class 0", "猫")]
    assert np.array_equal(drawn[0].any(axis=2), drawn[1].any(axis=2))  # the same text in another color
    assert capsys.readouterr().err.count("warning: no font has the letters of 猫") == 1
