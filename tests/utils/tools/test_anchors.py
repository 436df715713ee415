from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import data
import train
from nets.config import OFFICIAL_ANCHORS
from tests.utils.data.conftest import write_voc
from utils.cli.anchor_file import read_anchors
from utils.cli.train_config import TrainConfig
from utils.data.voc_xml import VocObject
from utils.tools import anchors
from utils.tools.anchors import compare
from utils.training import builders

HALVED = ((3, 4, 5), (0, 1, 2))
USUAL = ((3, 4, 5), (1, 2, 3))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def boxes(seed: int, count: int = 4) -> list[VocObject]:
    """Return boxes of a 40 x 30 image, all of other sizes."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0, 12, (count, 2)), rng.uniform(16, 30, (count, 2))
    return [
        VocObject("cat", (float(x1), float(y1), float(x2), float(y2)), difficult=number == 0)
        for number, ((x1, y1), (x2, y2)) in enumerate(zip(low, high, strict=True))
    ]


def fit(*argv: str) -> int:
    return data.main(["anchors", "--data", "voc", *argv])


# Unusable data and settings.


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "0 objects of 0 sizes are too few"),
        ([VocObject("cat", (1, 1, 9, 9))] * 8, "8 objects of 1 sizes are too few for 6 anchors"),
        ([VocObject("cat", (1, 1, 9 + n, 9), difficult=True) for n in range(9)], "0 objects of 0 sizes"),
    ],
)
def test_too_few_boxes(capsys: pytest.CaptureFixture[str], objects: list[VocObject], reason: str) -> None:
    write_voc(Path("voc"), {"train": {"a": objects}})
    assert fit() == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert reason in last
    assert not Path("runs/anchors").exists()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--number", "5"], "--number 5: must be a multiple of 2"),
        (["--number", "8", "--heads", "3"], "--number 8: must be a multiple of 3"),
        (["--heads", "4"], "--heads 4"),
        (["--number", "0"], "--number 0"),
        (["--imgsz", "100"], "--imgsz 100"),
        (["--split", "night"], "no split 'night'"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0)}})
    assert fit(*argv) == 2
    assert reason in capsys.readouterr().err


# What is printed and written.


def test_the_file_the_table_and_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0, 9), "b": boxes(1, 9)}, "val": {"c": boxes(2)}})
    assert fit("--imgsz", "64") == 0
    out = capsys.readouterr().out
    folder = Path("runs/anchors/exp")
    fitted, masks = read_anchors(folder / "anchors.txt")
    assert (len(fitted), masks) == (6, HALVED)
    areas = [width * height for width, height in fitted]
    assert areas == sorted(areas)
    assert (folder / "anchors.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "args.yaml").read_text())["imgsz"] == [64, 64]
    assert "16 objects" in out  # two of 18 are difficult, those of val are others
    assert "compare both" in out
    assert out.splitlines()[-1] == (
        "next: python train.py --data voc --imgsz 64 --anchors runs/anchors/exp/anchors.txt"
    )


def test_boxes_are_those_of_the_letterboxed_picture() -> None:
    """Six sizes give themselves: 64 pixels of 40 x 30 enlarge by 1.6."""
    sizes = [(4, 5), (6, 8), (10, 9), (12, 14), (20, 15), (30, 25)]
    write_voc(Path("voc"), {"train": {"a": [VocObject("cat", (1, 2, 1 + w, 2 + h)) for w, h in sizes]}})
    assert fit("--imgsz", "64") == 0
    expected = [(1.6 * width, 1.6 * height) for width, height in sizes]
    np.testing.assert_allclose(read_anchors("runs/anchors/exp/anchors.txt")[0], expected, atol=0.051)


def test_the_seed_and_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(Path("voc"), {"train": {str(n): boxes(n, 9) for n in range(6)}})
    for name in ("one", "two"):
        assert fit("--imgsz", "64", "--seed", "3", "--number", "8", "--name", name) == 0
    one, two = (Path(f"runs/anchors/{name}/anchors.txt").read_bytes() for name in ("one", "two"))
    assert one == two
    fitted, masks = read_anchors("runs/anchors/one/anchors.txt")
    assert (len(fitted), masks) == (8, ((4, 5, 6, 7), (0, 1, 2, 3)))


def test_three_heads_get_nine_anchors_that_train_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0, 9), "b": boxes(1, 9)}})
    assert fit("--imgsz", "64", "--heads", "3") == 0
    fitted, masks = read_anchors("runs/anchors/exp/anchors.txt")
    assert (len(fitted), masks) == (9, ((6, 7, 8), (3, 4, 5), (0, 1, 2)))
    out = capsys.readouterr().out
    assert "142,110 192,243 459,401; 36,75 76,55 72,146; 12,16 19,36 40,28" in out
    assert out.splitlines()[-1].endswith("--imgsz 64 --heads 3 --anchors runs/anchors/exp/anchors.txt")
    model = builders.build_model_config(
        TrainConfig(heads=3, anchors="runs/anchors/exp/anchors.txt", imgsz=(64, 64)), 1
    )
    assert (model.anchors, model.anchor_masks) == (fitted, masks)


def test_splits_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0, 9)}, "night": {"c": boxes(2, 31)}})
    assert fit("--split", "night") == 0
    out = capsys.readouterr().out
    assert "30 objects" in out
    assert "--train night" in out.splitlines()[-1]


def test_a_small_gain_is_not_worth_leaving_the_official_anchors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0, 9)}})
    monkeypatch.setattr(anchors, "fit_anchors", lambda sizes, number, seed: OFFICIAL_ANCHORS)
    assert fit() == 0  # a head owns the official anchor 0 now, which no box here is like
    out = capsys.readouterr().out
    assert "keep the official anchors: fitted ones gain +0.0000 of mean IoU, less than 0.02" in out
    assert "--anchors" not in out.splitlines()[-1]


def test_fit_is_counted_by_the_anchors_that_a_head_owns() -> None:
    """A slow double loop; many boxes are most like the official anchor 0, which none owns."""
    sizes = np.random.default_rng(0).lognormal(3.0, 0.8, (100, 2))

    def best(width: float, height: float, owners: set[int]) -> float:
        ious = []
        for index in owners:
            anchor_width, anchor_height = OFFICIAL_ANCHORS[index]
            shared = min(width, anchor_width) * min(height, anchor_height)
            ious.append(shared / (width * height + anchor_width * anchor_height - shared))
        return max(ious)

    for masks in (USUAL, HALVED):
        found = [best(*size, {index for mask in masks for index in mask}) for size in sizes]
        (line,) = compare(sizes, {"these": (OFFICIAL_ANCHORS, masks)})[-1:]
        mean, quarter, half = re.findall(r"[\d.]+", line)[:3]
        assert float(mean) == pytest.approx(sum(found) / 100, abs=6e-5)
        assert float(quarter) == pytest.approx(sum(iou >= 0.25 for iou in found), abs=0.06)
        assert float(half) == pytest.approx(sum(iou >= 0.5 for iou in found), abs=0.06)


def test_train_takes_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(Path("voc"), {"train": {"a": boxes(0, 9), "b": boxes(1, 9)}, "val": {"c": boxes(2)}})
    assert fit("--imgsz", "64") == 0
    networks = []

    def stop(config: object, model: object, *_: object) -> None:
        networks.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr(builders, "build_trainer", stop)
    argv = ["--data", "voc", "--imgsz", "64", "--weights", "none", "--device", "cpu", "--workers", "0"]
    assert train.main([*argv, "--batch-size", "2", "--anchors", "runs/anchors/exp/anchors.txt"]) == 130
    config = networks[0].config
    assert (config.anchors, config.anchor_masks) == read_anchors("runs/anchors/exp/anchors.txt")
