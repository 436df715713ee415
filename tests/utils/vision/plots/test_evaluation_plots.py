from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.utils.vision.plots.panel import panel
from utils.vision.plots.evaluation_plots import plot_confusion, plot_curves, plot_errors

GRID = np.array([0.0, 0.5, 1.0])
CURVES = np.array([[1.0, 0.8, 0.0], [np.nan] * 3, [0.4, 0.6, np.nan]])
NAMES = ("cat", "no truth", "猫 $x_{")


def plot(path: Path, mark_peak: bool = False) -> Figure:
    values = (0.75, None, 0.25)
    return plot_curves(path, GRID, CURVES, NAMES, labels=("score", "F1"), values=values, mark_peak=mark_peak)


@pytest.mark.parametrize("classes", [0, 2])
def test_curves_of_nothing(classes: int, tmp_path: Path) -> None:
    nothing, names = np.full((classes, 3), np.nan), [str(index) for index in range(classes)]
    plot_curves(
        tmp_path / "a.png",
        GRID,
        nothing,
        names,
        labels=("score", "F1"),
        values=[None] * classes,
        mark_peak=True,
    )
    assert Image.open(tmp_path / "a.png").format == "PNG"


def test_curves_leave_out_what_has_no_truth_and_average_the_rest(tmp_path: Path) -> None:
    axes = panel(plot(tmp_path / "a.png"), "F1 over score, at IoU 0.5")
    cat, other, mean = axes.lines
    assert [line.get_label() for line in (cat, other, mean)] == [
        "cat  0.750",
        "猫 $x_{  0.250",
        "mean  0.500",
    ]
    assert cat.get_ydata().tolist() == [1.0, 0.8, 0.0]
    assert mean.get_ydata().tolist() == pytest.approx([0.7, 0.7, 0.0])


def test_the_peak_of_the_mean_is_marked(tmp_path: Path) -> None:
    star, mean = panel(plot(tmp_path / "a.png", mark_peak=True), "F1").lines[2:]
    assert star.get_xydata().tolist() == [[0.0, pytest.approx(0.7)]]
    assert mean.get_label() == "mean, at most 0.700 at 0.00"


def test_many_classes_leave_only_the_mean_in_the_legend(tmp_path: Path) -> None:
    curves = np.full((30, 3), 0.5)
    names = [f"class {index}" for index in range(30)]
    labels, values = ("score", "F1"), [0.5] * 30
    axes = plot_curves(tmp_path / "a.png", GRID, curves, names, labels=labels, values=values).axes[0]
    assert len(axes.lines) == 31
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean  0.500"]


def test_confusion_shows_counts_and_shares_and_says_at_what(tmp_path: Path) -> None:
    matrix = np.array([[6, 2, 0], [0, 0, 0], [0, 3, 0]])
    axes = plot_confusion(tmp_path / "a.png", matrix, ("cat", "dog"), 0.25, 0.5).axes[0]
    assert axes.get_title() == "Confusion matrix: scores from 0.25, IoU from 0.5"
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "6",
        (1, 0): "2",
        (1, 2): "3",
    }
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 0, 0], [0, 1, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "background"]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 1, 80])
def test_confusion_of_any_size(classes: int, tmp_path: Path) -> None:
    matrix = np.ones((classes + 1, classes + 1), dtype=np.int64)
    plot_confusion(tmp_path / "a.png", matrix, [f"c{index}" for index in range(classes)], 0.25, 0.5)
    assert max(Image.open(tmp_path / "a.png").size) < 4000


def test_errors_say_what_they_cost(tmp_path: Path) -> None:
    axes = plot_errors(tmp_path / "a.png", {"class": (1200, 0.25), "missed": (3, -0.01)}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, -0.01]
    assert [text.get_text() for text in axes.texts] == ["0.250  (1,200)", "-0.010  (3)"]
    plot_errors(tmp_path / "a.png", {"class": (0, None)})
    assert Image.open(tmp_path / "a.png").format == "PNG"
