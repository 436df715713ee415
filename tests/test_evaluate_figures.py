"""What evaluate.py writes, held against the references on the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from nets.structures import Detections
from tests.metrics_reference import devkit_ap, plain_coco
from utils.data.voc_xml import VocObject, write_annotation
from utils.inference import evaluation_pictures
from utils.inference.predictor import Predictor
from utils.metrics.coco_ap import ENGINE

NAMES = ("cat", "dog")
WIDTH, HEIGHT = 240, 180
MakeRun = Callable[..., tuple[dict, dict, list[dict]]]


def make_objects(rng: np.random.Generator, difficult: float) -> list[VocObject]:
    """Make up to five objects at whole pixels, as VOC has them."""
    objects = []
    for _ in range(int(rng.integers(0, 6))):
        left, top, width, height = rng.integers((0, 0, 10, 10), (110, 50, 130, 130)).tolist()
        box = (float(left), float(top), float(left + width), float(top + height))
        objects.append(VocObject(NAMES[rng.integers(2)], box, bool(rng.random() < difficult)))
    return objects


def make_found(rng: np.random.Generator, objects: Sequence[VocObject]) -> Detections:
    """Make three detections near each object, a few of them of another class, and three anywhere."""
    truth = np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4)
    labels = np.array([NAMES.index(one.name) for one in objects], dtype=np.int64)
    near = truth.repeat(3, axis=0) + rng.choice([0, 2, 9], (3 * len(truth), 1)) * rng.normal(
        0, 1, (3 * len(truth), 4)
    )
    corner = rng.uniform(0, 100, (3, 2))
    boxes = np.concatenate((near, np.concatenate((corner, corner + rng.uniform(10, 80, (3, 2))), axis=1)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    guesses = np.concatenate((labels.repeat(3), rng.integers(0, 2, 3)))
    guesses = np.where(rng.random(len(guesses)) < 0.15, 1 - guesses, guesses)
    scores = np.sort(rng.integers(1, 20, len(boxes)) / 20)[::-1].copy()  # a few are equal
    return Detections(
        *(
            torch.tensor(a, dtype=d)
            for a, d in ((boxes, torch.float), (scores, torch.float), (guesses, torch.int64))
        )
    )


@pytest.fixture
def make_run(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Give a function that runs evaluate.py on made detections and reads the three files."""

    def run(seed: int, difficult: float, *argv: str) -> tuple[dict, dict, list[dict]]:
        data, rng = tmp_path / "data", np.random.default_rng(seed)
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (data / part).mkdir(parents=True)
        found, names = [], [f"{index:03}" for index in range(12)]
        for name in names:
            objects = make_objects(rng, difficult)
            found.append(make_found(rng, objects))
            Image.new("RGB", (WIDTH, HEIGHT)).save(data / f"JPEGImages/{name}.jpg")
            write_annotation(data / f"Annotations/{name}.xml", f"{name}.jpg", WIDTH, HEIGHT, objects)
        (data / "ImageSets/Main/test.txt").write_text("\n".join(names))
        answers = iter(found)

        def detect(self: Predictor, batch: Sequence[object], timings: object = None) -> list[Detections]:
            return [next(answers) for _ in batch]

        monkeypatch.setattr(Predictor, "detect", detect)
        for picture in ("draw_charts", "draw_worst"):  # which take longer than all the rest
            monkeypatch.setattr(evaluation_pictures, picture, lambda *_: None)
        monkeypatch.chdir(tmp_path)
        assert evaluate.main(["--weights", str(weights), "--data", "data", "--device", "cpu", *argv]) == 0
        folder = tmp_path / "runs/evaluate/exp"
        files = ("metrics.json", "ground_truth.json", "detections.json")
        metrics, truth, rows = (json.loads((folder / name).read_text()) for name in files)
        return metrics, truth, rows

    return run


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("difficult", [0.0, 0.3])
def test_voc_ap_is_the_devkits_on_the_files(make_run: MakeRun, seed: int, difficult: float) -> None:
    metrics, truth, rows = make_run(seed, difficult)
    expected = [devkit_ap(truth, rows, category) for category in (1, 2)]
    for name, aps in zip(NAMES, expected, strict=True):
        ours = metrics["per_class"][name]
        assert (ours["voc_ap50_area"], ours["voc_ap50_11point"]) == pytest.approx(aps, abs=1e-9)
    means = metrics["voc_ap50_area"], metrics["voc_ap50_11point"]
    assert means == pytest.approx(np.mean(expected, axis=0), abs=1e-9)
    assert 0.1 < means[0] < 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("difficult", [0.0, 0.3])
def test_coco_ap_is_plain_pycocotools_on_the_files(
    make_run: MakeRun, tmp_path: Path, seed: int, difficult: float
) -> None:
    metrics, _, _ = make_run(seed, difficult)
    folder = tmp_path / "runs/evaluate/exp"
    expected = plain_coco(folder / "ground_truth.json", folder / "detections.json")
    for name in ("map50", "map75", "map50_95", "map_small", "map_medium", "map_large", "ar100"):
        assert metrics[name] == pytest.approx(getattr(expected, name), abs=1e-12), name
    for label, name in enumerate(NAMES):
        ours = metrics["per_class"][name]
        assert ours["ap50"] == pytest.approx(expected.ap50[label], abs=1e-12)
        assert ours["ap50_95"] == pytest.approx(expected.ap50_95[label], abs=1e-12)


def test_the_figures_of_a_run_agree_with_each_other(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, truth, rows = make_run(7, 0.3, "--report-conf", "0.5")
    out, err = capsys.readouterr()
    assert f"COCO AP by {ENGINE}" in err.splitlines()
    low, high = metrics["map50_interval"]
    assert 0 <= low < metrics["map50"] < high <= 1
    assert f"95 % interval over the images {low:.4f} to {high:.4f}" in out
    assert (metrics["report_conf"], metrics["confusion"]["conf"]) == (0.5, 0.5)
    assert metrics["confusion"]["labels"] == [*NAMES, "background"]
    matrix = np.array(metrics["confusion"]["matrix"])
    for label, name in enumerate(NAMES):
        ours = metrics["per_class"][name]
        easy = [row for row in truth["annotations"] if row["category_id"] == label + 1 and not row["ignore"]]
        assert ours["ground_truths"] == len(easy) == matrix[label].sum()
        reported = ours["at_report_conf"]
        assert reported["recall"] == pytest.approx(matrix[label, label] / len(easy))
        assert reported["precision"] == pytest.approx(matrix[label, label] / matrix[:, label].sum())
        assert ours["f1"] >= reported["f1"] > 0
        assert any(row["score"] == ours["threshold"] for row in rows)
    errors = metrics["errors"]
    assert all(error["cost"] > -1e-9 for error in errors.values())
    assert all(f"{error['count']:>7}  {error['cost']:>13.4f}" in out for error in errors.values())
    wrong = sum(error["count"] for kind, error in errors.items() if kind != "missed")
    assert 0 < wrong < len(rows)


def test_a_report_below_the_lowest_score_is_said_to_be_at_that(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, _, _ = make_run(0, 0.0, "--conf", "0.5")
    assert "--report-conf 0.25 is below --conf; reported at 0.5" in capsys.readouterr().err
    assert metrics["report_conf"] == 0.5
