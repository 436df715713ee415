from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nets.structures import Detections
from tests.voc_folder import make_voc_folder
from utils.cli.shared_config import DataConfig
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_evaluation
from utils.data.targets import build_target
from utils.inference import evaluation_pictures as pictures
from utils.inference.evaluation import DatasetDetections, EvalResult, score_detections
from utils.inference.evaluation_pictures import draw_charts, draw_worst
from utils.inference.predictor import Timings

CHARTS = {
    f"{name}.png" for name in ("PR_curve", "F1_curve", "P_curve", "R_curve", "confusion_matrix", "errors")
}


@pytest.fixture
def dataset(tmp_path: Path) -> VocDataset:
    make_voc_folder(tmp_path / "data", train_images=1, val_images=4)
    return prepare_evaluation(DataConfig(str(tmp_path / "data")), ["val"])[0]


def evaluate(dataset: VocDataset, detections: list[Detections]) -> tuple[EvalResult, DatasetDetections]:
    targets = [build_target(dataset, index) for index in range(len(dataset))]
    found = DatasetDetections(list(range(len(dataset))), detections, targets, Timings())
    return score_detections(found, dataset), found


def right(dataset: VocDataset, index: int, times: int = 1) -> Detections:
    """What is there, `times` times."""
    target = build_target(dataset, index)
    rows = len(target) * times
    return Detections(
        target.boxes.repeat(times, 1), torch.linspace(0.9, 0.5, rows), target.labels.repeat(times)
    )


@pytest.mark.slow
def test_nothing_found(dataset: VocDataset, tmp_path: Path) -> None:
    result, found = evaluate(dataset, [Detections.empty()] * 4)
    draw_charts(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= CHARTS
    draw_worst(result, found, dataset, tmp_path / "worst.jpg")
    assert Image.open(tmp_path / "worst.jpg").width > 1600


def test_nothing_wrong_is_no_picture(dataset: VocDataset, tmp_path: Path) -> None:
    result, found = evaluate(dataset, [right(dataset, index) for index in range(4)])
    assert result.coco.map50 == pytest.approx(1)
    draw_worst(result, found, dataset, tmp_path / "worst.jpg")
    assert not (tmp_path / "worst.jpg").exists()


def test_the_worst_come_first_with_what_was_found(
    dataset: VocDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, np.ndarray]] = []
    real = pictures.draw_cell
    monkeypatch.setattr(
        pictures, "draw_cell", lambda *a: drawn.append((a[3], a[1].boxes.numpy())) or real(*a)
    )
    detections = [right(dataset, 0), right(dataset, 1, times=4), Detections.empty(), right(dataset, 3)]
    result, found = evaluate(dataset, detections)
    draw_worst(result, found, dataset, tmp_path / "worst.jpg")
    captions = [caption for caption, _ in drawn]
    assert captions == [
        "truth  2",
        "0 missed, 3 wrong, scores from 0.25",
        "truth  3",
        "1 missed, 0 wrong, scores from 0.25",
    ]
    np.testing.assert_allclose(drawn[1][1], detections[1].boxes.numpy(), atol=1e-4)
    assert len(drawn[3][1]) == 0


def test_a_picture_that_vanished_is_left_out(
    dataset: VocDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, found = evaluate(dataset, [Detections.empty()] * 4)
    dataset.records[0].image_path.unlink()
    draw_worst(result, found, dataset, tmp_path / "worst.jpg")
    assert "worst.jpg: " in capsys.readouterr().err
    assert (tmp_path / "worst.jpg").exists()
