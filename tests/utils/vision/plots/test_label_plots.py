from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from tests.utils.vision.plots.panel import panel
from utils.vision.plots.label_plots import plot_anchors, plot_labels

ANCHORS = ((10.0, 14.0), (81.0, 82.0))
SIZE = (96, 128)
NOTHING = (np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32))


def bar_names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_labels_of_nothing(tmp_path: Path) -> None:
    figure = plot_labels(tmp_path / "labels.png", ("cat",), *NOTHING, SIZE, ANCHORS)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("no objects") == 3
    assert panel(figure, "0 objects of 1 class").patches[0].get_width() == 0
    assert Image.open(tmp_path / "labels.png").format == "PNG"


@pytest.mark.slow
def test_labels_show_what_was_handed_in(tmp_path: Path) -> None:
    # twice 32 x 16 with center (32, 48), once 20 x 40 with center (110, 30)
    boxes = np.array([[16.0, 40, 48, 56], [16, 40, 48, 56], [100, 10, 120, 50]])
    figure = plot_labels(
        tmp_path / "labels.png", ("cat", "dog", "cow"), np.array([1, 1, 0]), boxes, SIZE, ANCHORS
    )
    bars = panel(figure, "3 objects of 3 classes")
    assert bar_names(bars) == ["dog", "cat", "cow"]
    assert [bar.get_width() for bar in bars.patches] == [2, 1, 0]

    sizes = panel(figure, "Sizes")
    assert sizes.collections[0].get_array().sum() == 3
    assert sizes.lines[0].get_xydata().tolist() == [list(anchor) for anchor in ANCHORS]

    shapes = {round(bar.get_x(), 3): bar.get_height() for bar in panel(figure, "Aspect ratios").patches}
    assert shapes[1.0] == 2  # log2(32 / 16)
    assert shapes[-1.0] == 1
    assert sum(shapes.values()) == 3

    centers = np.asarray(panel(figure, "Centers").images[0].get_array())
    assert centers[16, 8] == 2  # half way down, a quarter across
    assert centers.sum() == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["猫", "$x_{", "", "a\nb", "a very long name of a class of things 😀"])
def test_any_class_name_is_drawn(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    boxes = np.array([[0.0, 0, 10, 10]])
    plot_labels(tmp_path / "labels.png", (name, "b"), np.array([0]), boxes, SIZE, ANCHORS)
    assert (tmp_path / "labels.png").exists()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "shown"), [(20, 20), (80, 80), (300, 100)])
def test_many_classes_have_names_that_do_not_touch(count: int, shown: int, tmp_path: Path) -> None:
    labels, boxes = np.arange(count), np.random.default_rng(0).random((count, 4))
    names = [f"class {label}" for label in labels]
    figure = plot_labels(tmp_path / "labels.png", names, labels, boxes, SIZE, ANCHORS)
    bars = panel(figure, f"{count} objects")
    assert len(bars.patches) == shown
    points_a_bar = 72 * (figure.get_figheight() - 1) / shown
    assert bars.get_yticklabels()[0].get_fontsize() <= points_a_bar


def test_a_box_without_area_or_out_of_range_is_drawn(tmp_path: Path) -> None:
    boxes = np.array([[5.0, 5, 5, 5], [0, 0, 5000, 0.1]])
    plot_labels(tmp_path / "labels.png", ("cat",), np.array([0, 0]), boxes, SIZE, ANCHORS)
    assert (tmp_path / "labels.png").exists()


@pytest.mark.parametrize("count", [0, 9])
def test_two_sets_of_anchors_stand_in_one_chart(count: int, tmp_path: Path) -> None:
    sets = {"official": ((23, 27), (37, 58)), "fitted": ((20.5, 30.0),)}
    (axes,) = plot_anchors(tmp_path / "anchors.png", np.full((count, 2), 30.0), (64, 64), sets).axes
    drawn = {line.get_label(): tuple(map(tuple, line.get_xydata())) for line in axes.lines}
    assert drawn == sets
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["official", "fitted"]
