from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from nets.config import ModelConfig
from nets.structures import Detections
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.inference.evaluation import (
    EvalResult,
    detect_dataset,
    score_detections,
)
from utils.inference.predictor import Predictor, Prepared

BOX = [10.0, 10.0, 40.0, 30.0]


class KnownAnswers(Predictor):
    """Answers from a list, image by image, instead of asking a network."""

    def __init__(
        self, class_names: tuple[str, ...], answers: list[list[tuple[list[float], int, float]]]
    ) -> None:
        config = ModelConfig(len(class_names), input_size=(32, 32))
        super().__init__(torch.nn.Identity(), config, class_names)
        self.answers = iter(answers)
        self.batches: list[int] = []

    def detect(self, batch, timings=None) -> list[Detections]:
        assert all(isinstance(prepared, Prepared) for prepared in batch)
        self.batches.append(len(batch))
        timings.images += len(batch)
        found = []
        for _ in batch:
            rows = [row for row in next(self.answers) if not self._unwanted[row[1]]]
            boxes = torch.tensor([box for box, _, _ in rows]).reshape(-1, 4)
            scores, labels = (
                torch.tensor([row[2] for row in rows]),
                torch.tensor([row[1] for row in rows]).long(),
            )
            found.append(Detections(boxes, scores, labels))
        return found


def make_dataset(folder: Path, objects: list[list[str]], class_names: tuple[str, ...]) -> VocDataset:
    records = []
    for index, names in enumerate(objects):
        path = folder / f"{index}.png"
        Image.fromarray(np.full((50, 60, 3), index, dtype=np.uint8)).save(path)
        boxes = np.array([BOX] * len(names), dtype=np.float32).reshape(-1, 4)
        records.append(
            Record(str(index), path, 60, 50, tuple(names), boxes, np.zeros(len(names), dtype=bool))
        )
    return VocDataset(records, class_names)


def evaluate(predictor: Predictor, dataset: VocDataset, batch_size=8, skip_bad=False, **knobs) -> EvalResult:
    found = detect_dataset(predictor, dataset, batch_size=batch_size, skip_bad=skip_bad)
    return score_detections(found, dataset, **knobs)


def measure(folder: Path, **knobs) -> EvalResult:
    """Images of a cat, a dog and nothing; the cat is found, the dog missed, and seen where none is."""
    dataset = make_dataset(folder, [["cat"], ["dog"], []], ("cat", "dog", "tvmonitor"))
    answers = [[(BOX, 2, 0.9), (BOX, 1, 0.8)], [], [(BOX, 3, 0.7)]]
    predictor = KnownAnswers(("tv", "bird", "cat", "dog"), answers)
    return evaluate(predictor, dataset, **knobs)


def test_no_images_is_an_error() -> None:
    with pytest.raises(UserError, match="no images"):
        evaluate(KnownAnswers(("cat",), []), VocDataset([], ("cat",)))


def test_images_without_detections_and_ground_truth(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [[]], ("cat",))
    result = evaluate(KnownAnswers(("cat",), [[]]), dataset)
    assert result.as_dict()["map50"] is None
    assert result.as_dict()["per_class"]["cat"]["voc_ap50_area"] is None
    assert "1 of 1 classes have no ground truth" in result.table()


def test_classes_meet_by_name_and_aliases(tmp_path: Path) -> None:
    figures = measure(tmp_path).as_dict()
    assert figures["images"] == 3
    assert list(figures["per_class"]) == ["cat", "dog", "tvmonitor"]
    cat = figures["per_class"]["cat"]
    rates = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert cat.pop("at_report_conf") == rates
    aps = {"ap50": 1.0, "ap50_95": 1.0, "voc_ap50_area": 1.0, "voc_ap50_11point": 1.0}
    assert cat == pytest.approx({"ground_truths": 1, **aps, **rates, "threshold": 0.9})
    assert figures["per_class"]["dog"]["voc_ap50_area"] == 0.0
    assert figures["per_class"]["tvmonitor"]["ap50"] is None
    assert figures["map50"] == pytest.approx(0.5)
    assert figures["voc_ap50_area"] == pytest.approx(0.5)


@pytest.mark.parametrize(("batch_size", "counted"), [(1, 2), (2, 1), (3, 3)])
def test_the_first_batch_is_not_timed_if_there_are_others(
    tmp_path: Path, batch_size: int, counted: int
) -> None:
    dataset = make_dataset(tmp_path, [["cat"], ["cat"], []], ("cat",))
    found = detect_dataset(KnownAnswers(("cat",), [[], [], []]), dataset, batch_size=batch_size)
    assert found.timings.images == counted
    assert len(found.detections) == 3


def test_a_class_that_the_weights_lack_is_an_error_that_lists_both(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [["cat"]], ("cat", "zebra"))
    with pytest.raises(UserError, match=r"zebra .* the data have cat, zebra; the weights have bird, cat"):
        evaluate(KnownAnswers(("bird", "cat"), []), dataset)


def test_two_classes_that_are_one_of_the_weights_are_an_error(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [["couch"], ["sofa"]], ("cat", "couch", "sofa"))
    with pytest.raises(UserError, match=r"couch, sofa of the data match one .* --rename sofa=couch"):
        evaluate(KnownAnswers(("cat", "couch"), []), dataset)


def test_metrics_json_holds_what_the_interface_promises(tmp_path: Path) -> None:
    result = measure(tmp_path, weights="best.pth", splits=("VOC2007/test",))
    result.write(tmp_path)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    means = "map50 map75 map50_95 map_small map_medium map_large ar100 voc_ap50_area voc_ap50_11point"
    rest = "images skipped map50_interval map50_draws report_conf per_class errors confusion"
    speed = {"speed_ms", "speed_conditions"}
    assert {*means.split(), *rest.split(), *speed, "weights", "splits"} == set(figures)
    rates = {"precision", "recall", "f1"}
    per_class = {"ground_truths", "ap50", "ap50_95", "voc_ap50_area", "voc_ap50_11point", "threshold", *rates}
    assert all(set(one) == {*per_class, "at_report_conf"} for one in figures["per_class"].values())
    assert all(set(one["at_report_conf"]) == rates for one in figures["per_class"].values())
    assert all(set(one) == {"count", "cost"} for one in figures["errors"].values())
    assert figures["confusion"] == {
        "conf": 0.25,
        "iou": 0.5,
        "labels": ["cat", "dog", "tvmonitor", "background"],
        "matrix": [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]],
    }
    assert set(figures["speed_ms"]) == {"preprocess", "network", "postprocess"}
    conditions = {"batch_size", "input_size", "precision", "threads", "device", "runtime"}
    assert set(figures["speed_conditions"]) == conditions
    assert figures["speed_conditions"]["batch_size"] == 8
    assert (figures["weights"], figures["splits"]) == ("best.pth", ["VOC2007/test"])


def test_the_coco_files_are_read_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(tmp_path).write(tmp_path)
    truth = COCO(str(tmp_path / "ground_truth.json"))
    found = truth.loadRes(str(tmp_path / "detections.json"))
    assert [truth.imgs[image]["file_name"] for image in sorted(truth.imgs)] == ["0.png", "1.png", "2.png"]
    assert truth.anns[1]["bbox"] == [10, 10, 30, 20]
    assert [(row["image_id"], row["category_id"]) for row in found.anns.values()] == [(1, 1), (3, 2)]


def test_the_table(tmp_path: Path) -> None:
    lines = measure(tmp_path).table().splitlines()
    assert lines[1].split() == ["cat", "1", *["1.0000"] * 7, "0.9000"]
    assert lines[2].split() == ["dog", "1", *["0.0000"] * 7, "0.7000"]
    assert lines[3].split() == ["tvmonitor", "0", *["-"] * 8]
    assert lines[4].split() == ["mean", "2", *["0.5000"] * 7, "-"]
    assert lines[6] == "means at score 0.25: precision 0.5000  recall 0.5000  F1 0.5000"
    assert lines[7].startswith("mAP50 0.5000, 95 % interval over the images 0.0000 to 1.0000")
    assert lines[-1] == "mAP over 3 images"
    assert len({len(line) for line in lines[:5]}) == 1
    assert len(lines[0]) <= 105


def test_the_table_of_errors(tmp_path: Path) -> None:
    lines = [line.split() for line in measure(tmp_path).error_table().splitlines()]
    assert [line[0] for line in lines[1:]] == [
        "class",
        "location",
        "both",
        "duplicate",
        "background",
        "missed",
    ]
    assert lines[5] == ["background", "1", "0.0000"]
    assert lines[6] == ["missed", "1", "0.0000"]


def test_precision_and_recall_are_reported_at_the_score_that_is_asked_for(tmp_path: Path) -> None:
    low, high = (measure(tmp_path, report_conf=conf).as_dict() for conf in (0.75, 0.95))
    assert (low["report_conf"], high["report_conf"], high["confusion"]["conf"]) == (0.75, 0.95, 0.95)
    assert low["per_class"]["cat"]["at_report_conf"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert high["per_class"]["cat"]["at_report_conf"] == {"precision": None, "recall": 0.0, "f1": 0.0}
    assert low["per_class"]["dog"]["at_report_conf"] == {"precision": None, "recall": 0.0, "f1": 0.0}
    assert {k: v for k, v in low.items() if k in ("map50", "errors")} == {
        k: v for k, v in high.items() if k in ("map50", "errors")
    }


@pytest.mark.parametrize(("batch_size", "expected"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_batches(tmp_path: Path, batch_size: int, expected: list[int]) -> None:
    predictor = KnownAnswers(("cat",), [[(BOX, 0, 0.9)], [], []])
    batches = predictor.batches  # shared with the limited copy that evaluate makes
    evaluate(predictor, make_dataset(tmp_path, [["cat"], [], []], ("cat",)), batch_size=batch_size)
    assert batches == expected


def test_a_broken_image_is_an_error_or_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(tmp_path, [["cat"], ["cat"]], ("cat",))
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1\.png.*--skip-bad"):
        evaluate(KnownAnswers(("cat",), [[(BOX, 0, 0.9)]]), dataset)
    result = evaluate(KnownAnswers(("cat",), [[(BOX, 0, 0.9)]]), dataset, skip_bad=True, skipped=3)
    assert (result.images, result.skipped, result.voc.area) == (1, 4, (1.0,))
    assert "mAP over 1 of 5 images" in result.table()
    assert "1.png" in capsys.readouterr().err


def test_detections_have_the_labels_of_the_data(tmp_path: Path) -> None:
    none = VocDataset([], ("cat",))
    nothing = detect_dataset(KnownAnswers(("cat",), []), none)
    assert (nothing.indices, nothing.detections, nothing.targets) == ([], [], [])
    with pytest.raises(UserError, match="no images to evaluate"):
        score_detections(nothing, none)
    dataset = make_dataset(tmp_path, [["cat"], ["dog"]], ("dog", "cat", "tv"))
    answers = [[(BOX, 2, 0.9), (BOX, 1, 0.8), (BOX, 0, 0.4)], [(BOX, 3, 0.7)]]
    found = detect_dataset(KnownAnswers(("tv", "bird", "cat", "dog"), answers), dataset, batch_size=1)
    assert [target.labels.tolist() for target in found.targets] == [[1], [0]]
    # Of the known classes bird is not asked for; cat is 1 among the data's and tv 2.
    assert [one.labels.tolist() for one in found.detections] == [[1, 2], [0]]
    assert found.timings.images == 1  # the first batch is slower
    with pytest.raises(UserError, match="nothing to evaluate: not one image could be read"):
        score_detections(nothing, dataset)
