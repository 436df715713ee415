from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nets.config import ModelConfig
from nets.structures import Detections
from tests.voc_folder import make_voc_folder
from utils.app.look import LookSession, compare_detections, judge, load_predictor, look, to_display
from utils.app.offer import Offer
from utils.cli.app_config import AppConfig
from utils.cli.class_names import MODEL_DATA, match_class_names, read_class_names
from utils.cli.errors import UserError
from utils.data.dataset_report import Record
from utils.data.voc_xml import VocObject
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.own_block import build_network

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


def test_every_class_of_voc_is_known_to_the_coco_weights():
    voc, coco = (read_class_names(MODEL_DATA / f"{name}_classes.txt") for name in ("voc", "coco"))
    official = tuple({"aeroplane": "airplane", "tvmonitor": "tv"}.get(name, name) for name in coco)
    for names in (coco, official):
        for name, label in zip(voc, match_class_names(names, voc), strict=True):
            assert label is not None
            same = found((names[label], 0.8, A), names=names)
            rows = compare_detections(["voc", "coco"], [found((name, 0.9, A), names=voc), same])
            assert rows == [["", "1.00", f"{name} 0.90", f"{names[label]} 0.80"]]


def record(*objects: VocObject) -> Record:
    return Record(
        "x",
        Path("x.jpg"),
        80,
        60,
        tuple(item.name for item in objects),
        np.array([item.box for item in objects], np.float32).reshape(-1, 4),
        np.array([item.difficult for item in objects], bool),
    )


def test_detections_are_judged_as_in_evaluation():
    assert judge(found(), record()) == []
    truth = record(
        VocObject("cat", A),
        VocObject("dog", B),
        VocObject("cat", B, difficult=True),
        VocObject("cow", A),
    )
    marks = judge(found(("cat", 0.9, A), ("cat", 0.8, NEAR_A), ("cat", 0.3, B)), truth)
    green, orange, red, gray, white = (
        (40, 170, 60), (245, 140, 0), (230, 20, 40), (130, 130, 130), (255, 255, 255)
    )  # fmt: skip
    assert marks == [
        ("cat 0.90", green),
        ("false: cat 0.80", orange),
        ("cat 0.30", gray),  # on a difficult object
        ("", white),
        ("missed: dog", red),
        ("", white),
        ("no such class: cow", gray),
    ]


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


def test_code_of_an_own_block_is_imported_only_if_phi_names_it(tmp_path: Path, weights: Path):
    file, own = tmp_path / "block.py", tmp_path / "own.pth"
    file.write_text("import torch\nclass Block(torch.nn.Identity):\n    pass\n")
    spec = f"{file}:Block"
    model = build_network(ModelConfig(2, phi=spec, input_size=(64, 64)))
    save_checkpoint(own, Checkpoint(model.config, NAMES, model.state_dict()))
    with pytest.raises(UserError, match=re.escape(f"to import its code add --phi {spec}")):
        load_predictor(AppConfig(weights=(str(own),), device="cpu"), str(own))
    config = AppConfig(phi=(spec, "se"), device="cpu")
    assert load_predictor(config, str(own)).config.phi == spec
    assert load_predictor(config, str(weights)).config.phi == "none"


def test_weights_are_read_again_when_their_file_changed(weights: Path, monkeypatch: pytest.MonkeyPatch):
    config = AppConfig(device="cpu")
    monkeypatch.setattr("utils.app.look.read_weights", None)  # without --phi they are read once
    first = load_predictor(config, str(weights))
    assert load_predictor(config, str(weights)) is first
    os.utime(weights, ns=(0, 0))
    assert load_predictor(config, str(weights)) is not first


def test_large_images_are_displayed_smaller():
    assert to_display(IMAGE).size == (80, 60)
    assert to_display(np.zeros((3000, 4000, 3), np.uint8)).size == (1280, 960)


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
    return LookSession(Offer(config))


def test_a_session_offers_the_given_images_and_weights_only(
    session: LookSession, tmp_path: Path, weights: Path
):
    assert session.names() == ["0", "1", "2"]
    names = list(session.offer.weights)
    assert names[:2] == [str(weights), "voc"]
    assert names[-1] == str(tmp_path / "runs/a/weights/best.pth")
    for name in ("../../etc/passwd", str(tmp_path / "voc/JPEGImages/0.jpg")):
        session.open(name)
        assert session.faults == [f"{name}: no such image on this page"]
    session.open("0")
    assert session.faults == []


def test_dropped_images_with_one_name_are_numbered(session: LookSession):
    paths = [Path("1/a.jpg"), Path("2/a.jpg"), Path("1/a.jpg"), Path("3/a.jpg")]
    assert [session.drop(path) for path in paths] == ["a.jpg", "a (2).jpg", "a.jpg", "a (3).jpg"]
    assert session.names()[:3] == ["a (3).jpg", "a (2).jpg", "a.jpg"]


def test_images_of_both_folders_are_offered_also_without_xml(tmp_path: Path, capsys):
    for file in ("data/a.jpg", "label/a.jpg", "label/b.jpg"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGE).save(tmp_path / file)
    data, label = str(tmp_path / "data"), str(tmp_path / "label")
    assert LookSession(Offer(AppConfig(data=data))).names() == ["a"]
    assert "no VOC XML, so no ground truth" in capsys.readouterr().err
    both = LookSession(Offer(AppConfig(data=data, label=label)))
    assert both.names() == ["a", str(tmp_path / "label/a.jpg"), "b"]
    (tmp_path / "data/a.jpg").unlink()
    with pytest.raises(UserError, match="data: no images in this folder"):
        Offer(AppConfig(data=data))


def test_four_weights_that_can_be_run_are_shown_and_the_others_named(session: LookSession, weights: Path):
    names = [str(weights.with_name(f"{number}.pth")) for number in range(5)]
    for name in names:
        shutil.copy(weights, name)
    session.offer.weights |= dict(zip(names, names, strict=True))
    session.open("0")
    session.run(["", *names])
    assert [one.name for one in session.looks] == names[:4]
    assert session.problems == [
        "weights without a name; remove the empty entry",
        f"{names[4]}: not shown, at most 4 weights; remove one",
    ]


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
    for name in ("gone.pth", "x" * 5000, "x\0"):
        session.run([name])
        assert f"{name[:200]}: no such weights file" in session.problems[0]


def test_a_session_shows_boxes_truth_and_json(session: LookSession, weights: Path):
    session.open("0")
    session.run([str(weights)])
    (one,) = session.looks
    session.run([str(weights), "missing"])
    assert session.looks[0] is one  # not run again
    none, many = one.detections(0.99, 0.5), one.detections(1e-6, 0.5)
    drawn, line = session.draw(one, none, True)
    assert drawn.size == (80, 60)
    assert (np.asarray(drawn) == (230, 20, 40)).all(axis=2).any()  # the missed object
    assert line.startswith("nothing found; ")
    assert line.endswith("0 right, 0 false alarms, 1 missed")
    assert "missed" not in session.draw(one, none, False)[1]
    (line,) = session.write_json([many]).splitlines()
    described = json.loads(line)
    assert described["weights"] == str(weights)
    assert (described["path"], described["width"], described["height"]) == ("0", 80, 60)
    assert len(described["detections"]) == len(many)
    with pytest.raises(UserError, match="no attention maps: weights without attention"):
        one.attention_maps()
    assert one.heat_map(many, "cat").size == (80, 60)
    for name, missing in ((None, "object"), ("cat", "cat")):
        with pytest.raises(UserError, match=f"no heat map: no {missing} found"):
            one.heat_map(none, name)


def test_a_broken_image_or_xml_is_named(session: LookSession, tmp_path: Path, weights: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"nothing")
    session.open("0")
    session.open(session.drop(path))
    assert session.faults == ["broken.jpg: not an image that can be read"]
    session.run([str(weights)])  # not on the image before
    assert session.looks == []
    xml = tmp_path / "voc/Annotations/0.xml"
    xml.write_text("<annotation>")
    session.open("0")
    assert session.faults[0].startswith(f"{xml}: not well-formed XML")
    session.run([str(weights)])
    assert "missed" not in session.draw(session.looks[0], session.looks[0].detections(0.9, 0.5), True)[1]
