from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nets.structures import Detections
from tests.voc_folder import make_voc_folder
from utils.app.look import compare_detections, downscale, draw_look, judge, look
from utils.app.look_session import Looking, LookSession
from utils.cli.app_config import AppConfig
from utils.cli.errors import UserError
from utils.data.voc_xml import VocObject
from utils.inference.predictor import Predictor

NAMES = ("cat", "dog")
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def found(*rows: tuple[str, float, tuple[float, ...]], names: tuple[str, ...] = NAMES) -> Detections:
    boxes = torch.tensor([box for *_, box in rows]).reshape(-1, 4)
    labels = torch.tensor([names.index(name) for name, *_ in rows], dtype=torch.long)
    return Detections(boxes, torch.tensor([score for _, score, _ in rows]), labels, names)


A, NEAR_A, B = (10.0, 10.0, 50.0, 40.0), (12.0, 10.0, 50.0, 40.0), (60.0, 5.0, 79.0, 50.0)


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        ((), (), []),
        ((("cat", 0.9, A),), (), [["only x", "", "cat 0.90", ""]]),
        ((("cat", 0.9, A),), (("cat", 0.8, NEAR_A),), [["", "0.95", "cat 0.90", "cat 0.80"]]),
        ((("cat", 0.9, A),), (("dog", 0.8, A),), [["class differs", "1.00", "cat 0.90", "dog 0.80"]]),
        (
            (("cat", 0.9, A), ("dog", 0.5, B)),
            (("cat", 0.8, A),),
            [["only x", "", "dog 0.50", ""], ["", "1.00", "cat 0.90", "cat 0.80"]],
        ),
    ],
)
def test_the_table_says_where_two_weights_disagree(first, second, rows):
    assert compare_detections(["x", "y"], [found(*first), found(*second)]) == rows


def test_the_table_of_three_weights_names_those_that_miss_an_object_or_lack_its_class():
    tv = found(("tvmonitor", 0.7, A), names=("tvmonitor",))
    same = found(("tv", 0.6, A), names=("tv",))
    (row,) = compare_detections(["x", "y", "z"], [tv, same, found()])
    assert row == ["not z, z has no such class", "1.00", "tvmonitor 0.70", "tv 0.60", ""]


def test_detections_are_judged_as_in_evaluation():
    truth = [
        VocObject("cat", A),
        VocObject("dog", B),
        VocObject("cat", B, difficult=True),
        VocObject("cow", A),
    ]
    judged = judge(found(("cat", 0.9, A), ("cat", 0.8, NEAR_A), ("cat", 0.3, B)), truth)
    assert judged.right.tolist() == [True, False, False]
    assert judged.wrong.tolist() == [False, True, False]  # the last is on a difficult object
    assert (judged.missed, judged.unknown) == ([truth[1]], [truth[3]])
    assert judge(found(), []).missed == []


def test_truth_is_drawn_in_its_colors():
    cat = found(("cat", 0.9, A))
    drawn = draw_look(np.zeros((100, 100, 3), np.uint8), cat, judge(cat, [VocObject("dog", B)]))
    colors = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    assert {(245, 140, 0), (230, 20, 40)} <= colors
    assert not {(40, 170, 60)} & colors


def test_thresholds_act_as_in_prediction_without_running_the_network_again(weights: Path):
    predictor = Predictor.from_checkpoint(weights, device="cpu")
    one = look("x", predictor, IMAGE)
    predictor.model = None  # running it again would fail
    for conf, nms_iou in ((0.3, 0.5), (1e-6, 0.9), (0.0052, 0.1)):
        own = Predictor.from_checkpoint(weights, device="cpu", conf=conf, nms_iou=nms_iou)
        expected, shown = own(IMAGE), one.detections(conf, nms_iou)
        assert torch.equal(shown.boxes, expected.boxes)
        assert torch.equal(shown.scores, expected.scores)
        assert shown.names == expected.names
    counts = [len(one.detections(conf, iou)) for conf, iou in ((1e-6, 0.9), (1e-6, 0.1), (0.99, 0.1))]
    assert counts[0] > counts[1] > counts[2] == 0


def test_large_images_are_displayed_smaller():
    assert downscale(IMAGE) is IMAGE
    assert downscale(np.zeros((3000, 4000, 3), np.uint8)).shape == (960, 1280, 3)


@pytest.fixture
def session(weights: Path, tmp_path: Path) -> LookSession:
    make_voc_folder(tmp_path / "voc", train_images=2, val_images=1)
    (tmp_path / "runs/a/weights").mkdir(parents=True)
    (tmp_path / "runs/a/weights/best.pth").symlink_to(weights)
    (tmp_path / "runs/b/weights").mkdir(parents=True)
    (tmp_path / "runs/b/weights/best.pth").symlink_to("gone.pth")  # not offered
    config = AppConfig(
        data=str(tmp_path / "voc"), weights=(str(weights),), project=str(tmp_path / "runs"), device="cpu"
    )
    return LookSession(Looking(config, tmp_path))


def test_a_session_offers_the_given_images_and_weights_only(
    session: LookSession, tmp_path: Path, weights: Path
):
    assert session.names() == ["0", "1", "2"]
    names = list(session.looking.weights)
    assert names[:2] == [str(weights), "voc"]
    assert names[-1] == str(tmp_path / "runs/a/weights/best.pth")
    for name in ("../../etc/passwd", str(tmp_path / "voc/JPEGImages/0.jpg")):
        with pytest.raises(UserError, match="no such image on this page"):
            session.open(name)
    session.open("0")


def test_weights_are_read_by_path_from_a_few_places_only(
    session: LookSession, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    session.open("0")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("copy.pth").write_bytes(weights.read_bytes())
    Path("link.pth").symlink_to("/etc/passwd")
    session.run(["copy.pth", "../here/copy.pth"])
    assert (len(session.looks), session.problems) == (2, [])
    for name in ("/etc/passwd", "../copy.pth", "link.pth"):
        session.run([name])
        assert session.looks == []
        assert "not below the working folder, --project or model_data" in session.problems[0]
    session.run(["gone.pth"])
    assert "gone.pth: no such weights file" in session.problems[0]


def test_a_session_shows_boxes_truth_and_json(session: LookSession, weights: Path):
    session.open("0")
    session.run([str(weights)])
    (one,) = session.looks
    session.run([str(weights), "missing"])
    assert session.looks[0] is one  # not run again
    drawn, line = session.panel(one, 0.99, 0.5, True)
    assert drawn.shape == (60, 80, 3)
    assert line.startswith("nothing found; ")
    assert line.endswith("0 right, 0 false alarms, 1 missed")
    assert "missed" not in session.panel(one, 0.99, 0.5, False)[1]
    headers, rows = session.table(1e-6, 0.5)
    assert headers == ["difference", "lowest IoU", str(weights)]
    assert len(rows) == len(one.detections(1e-6, 0.5))
    (line,) = session.write_json(1e-6, 0.5).read_text().splitlines()
    described = json.loads(line)
    assert described["weights"] == str(weights)
    assert (described["path"], described["width"], described["height"]) == ("0", 80, 60)
    assert len(described["detections"]) == len(rows)
    assert session.gates(one) is None  # no attention
    assert session.heat(one, 1e-6, 0.5, "cat").shape == (60, 80, 3)
    assert session.heat(one, 0.99, 0.5, None) is None


def test_a_broken_image_is_named(session: LookSession, tmp_path: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"nothing")
    session.dropped["broken.jpg"] = path
    session.open("0")
    with pytest.raises(UserError, match=r"broken\.jpg: not an image"):
        session.open("broken.jpg")
    session.run(list(session.looking.weights)[:1])  # not on the image before
    assert session.looks == []
