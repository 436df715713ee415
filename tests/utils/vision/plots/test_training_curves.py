from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.utils.vision.plots.panel import panel
from utils.cli.errors import UserError
from utils.vision.plots.training_curves import plot_results


def make_row(epoch: int, **columns: str) -> dict[str, str]:
    row = {"epoch": str(epoch), "lr": "0.01", "box": "1.5", "objectness": "2.5", "class": "0.5"}
    return row | {"images_per_second": "12.5", "unassigned": "0"} | columns


def test_results_of_nothing(tmp_path: Path) -> None:
    figure = plot_results(tmp_path / "results.png", [])
    assert not any(axes.lines for axes in figure.axes)
    assert Image.open(tmp_path / "results.png").format == "PNG"


def test_one_epoch_is_a_point(tmp_path: Path) -> None:
    figure = plot_results(tmp_path / "results.png", [make_row(1)])
    losses = panel(figure, "Training losses")
    assert [line.get_label() for line in losses.lines] == ["box", "objectness", "class"]
    assert losses.lines[1].get_xydata().tolist() == [[1, 2.5]]
    assert losses.lines[1].get_marker() == "o"
    assert not panel(figure, "Accuracy").lines


def test_accuracy_has_points_only_where_it_was_measured(tmp_path: Path) -> None:
    measured = {2: "0.5", 4: "0.75", 6: "0.75", 8: "0.7"}
    rows = [make_row(epoch, map50=measured.get(epoch, "")) for epoch in range(1, 9)]
    rows.insert(0, make_row(0))  # a row without the column
    accuracy = panel(plot_results(tmp_path / "results.png", rows), "Accuracy")
    assert accuracy.lines[0].get_xydata().tolist() == [[2, 0.5], [4, 0.75], [6, 0.75], [8, 0.7]]
    best = accuracy.lines[-1]
    assert best.get_label() == "best: 0.7500 at epoch 6"  # the later of equals, as best.pth
    assert best.get_xydata().tolist() == [[6, 0.75]]


def test_unknown_columns_and_values_that_are_no_number_are_no_points(tmp_path: Path) -> None:
    rows = [make_row(1, gpu_memory="1 GB", box="nan"), make_row(2, box="")]
    losses = panel(plot_results(tmp_path / "results.png", rows), "Training losses")
    assert [line.get_label() for line in losses.lines] == ["objectness", "class"]


@pytest.mark.slow
def test_a_wild_start_does_not_press_the_rest_flat(tmp_path: Path) -> None:
    rows = [make_row(1, objectness="500"), *(make_row(epoch) for epoch in range(2, 12))]
    assert panel(plot_results(tmp_path / "results.png", rows), "Training losses").get_yscale() == "log"
    assert panel(plot_results(tmp_path / "results.png", rows[1:]), "Training losses").get_yscale() == "linear"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.png: cannot write"):
        plot_results(tmp_path / "missing" / "results.png", [])
