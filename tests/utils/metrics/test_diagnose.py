from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from nets.structures import Detections, Target
from utils.metrics.diagnose import explain_low_map, find_correction
from utils.metrics.matching import flatten, match

NAMES = ("cat", "dog", "{bird}")
BOXES = torch.tensor(  # one an image; none overlaps itself with x and y swapped
    [
        [20.0, 100.0, 80.0, 140.0],
        [200.0, 30.0, 260.0, 90.0],
        [10.0, 150.0, 110.0, 200.0],
        [120.0, 40.0, 180.0, 60.0],
        [30.0, 80.0, 70.0, 120.0],
    ]
)


def make_target(box: torch.Tensor, label: int = 0, difficult: bool = False) -> Target:
    return Target(box.reshape(1, 4), torch.tensor([label]), torch.tensor([difficult]))


def make_found(box: torch.Tensor, label: int = 0, score: float = 0.6) -> Detections:
    return Detections(box.reshape(1, 4), torch.tensor([score]), torch.tensor([label]))


@pytest.mark.parametrize("images", [0, 1, 2])
def test_no_object(images: int) -> None:
    text = explain_low_map([Detections.empty()] * images, [Target.empty()] * images, NAMES, 10)
    assert f"there is no object in the {images} validation images" in text
    assert "val_batch0.jpg" in text


def test_only_difficult_objects() -> None:
    found, target = make_found(BOXES[0]), make_target(BOXES[0], difficult=True)
    assert "all 1 objects are difficult" in explain_low_map([found], [target], NAMES, 10)


def test_no_detection() -> None:
    text = explain_low_map([Detections.empty()], [make_target(BOXES[0])], NAMES, 60)
    assert "nothing scores above 0.05 (there is no box) in images with 1 objects, after 60 steps" in text
    assert "some hundred steps: give more --epochs or a smaller --batch-size" in text
    assert text.endswith("look at val_batch0.jpg")


def test_low_scores_say_the_highest() -> None:
    found = [make_found(BOXES[0], score=0.021), Detections.empty(), make_found(BOXES[1], score=0.012)]
    targets = [make_target(box) for box in BOXES[:3]]
    assert "(the best of 2 boxes has 0.021)" in explain_low_map(found, targets, NAMES, 60)


def test_many_steps_are_not_called_too_few() -> None:
    text = explain_low_map([Detections.empty()], [make_target(BOXES[0])], NAMES, 20_000)
    assert "some hundred steps" not in text
    assert "check the annotations" in text


def test_another_class() -> None:
    targets = [make_target(box, label) for box, label in zip(BOXES, (0, 0, 1, 0, 0), strict=True)]
    found = [make_found(box + 2, label) for box, label in zip(BOXES, (1, 1, 2, 0, 1), strict=True)]
    text = explain_low_map(found, targets, NAMES, 1000)
    assert "4 of 5 objects are detected in the right place but as another class" in text
    assert "most often cat as dog (3)" in text
    assert "--classes" in text
    assert text.endswith("look at val_batch0.jpg")


def test_the_highest_score_says_which_class_was_found_instead() -> None:
    found = Detections(BOXES[[0, 0, 0]], torch.tensor([0.5, 0.4, 0.3]), torch.tensor([2, 1, 1]))
    assert "cat as {bird} (1)" in explain_low_map([found], [make_target(BOXES[0])], NAMES, 1000)


def test_an_object_that_is_found_is_not_confused() -> None:
    found = Detections(BOXES[[0, 0]], torch.tensor([0.5, 0.4]), torch.tensor([1, 0]))
    text = explain_low_map([found], [make_target(BOXES[0])], NAMES, 1000)
    assert "1 of 1 objects are detected and 0 detected as another class" in text


def test_swapped_axes() -> None:
    targets = [make_target(box[[1, 0, 3, 2]]) for box in BOXES]
    text = explain_low_map([make_found(box) for box in BOXES], targets, NAMES, 1000)
    assert "look swapped in x and y: with that undone 5 of 5 objects are detected, else 0" in text
    assert text.endswith("look at train_batch0.jpg and val_batch0.jpg")


def test_boxes_of_another_size_of_the_picture() -> None:
    targets = [make_target(box * torch.tensor([2.0, 1.5, 2.0, 1.5])) for box in BOXES]
    text = explain_low_map([make_found(box) for box in BOXES], targets, NAMES, 1000)
    assert "look scaled by 2.00 in x and 1.50 in y: with that undone 5 of 5" in text
    assert "another image size" in text


def test_a_scale_is_found_among_many_objects() -> None:
    """Unscaled, the nearest detection is not the object's own: its own is found in the second round."""
    boxes = torch.tensor([[40.0 * i, 30, 40 * i + 10 + i, 50] for i in range(1, 7)])
    target = Target(boxes * 2, torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.bool))
    found = Detections(boxes, torch.full((6,), 0.6), torch.zeros(6, dtype=torch.int64))
    text = explain_low_map([found], [target], NAMES, 1000)
    assert "look scaled by 2.00 in x and 2.00 in y: with that undone 6 of 6" in text


def test_shifted_boxes() -> None:
    targets = [make_target(box + torch.tensor([50.0, -30.0, 50.0, -30.0])) for box in BOXES]
    text = explain_low_map([make_found(box) for box in BOXES], targets, NAMES, 1000)
    assert "look shifted by +50 pixels in x and -30 in y: with that undone 5 of 5" in text


def test_a_few_boxes_prove_no_shift() -> None:
    targets = [make_target(box + 50) for box in BOXES[:4]]
    text = explain_low_map([make_found(box) for box in BOXES[:4]], targets, NAMES, 100)
    assert text.startswith(
        "0 of 4 objects are detected and 0 detected as another class; the highest score is 0.60"
    )


def test_boxes_anywhere_give_the_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, 2, generator=generator) * 200
    boxes = torch.cat((corners, corners + 10 + 60 * torch.rand(40, 2, 2, generator=generator)), dim=2)
    found = [make_found(box) for box in boxes[:, 0]]
    targets = [make_target(box) for box in boxes[:, 1]]
    text = explain_low_map(found, targets, NAMES, 100)
    assert "of 40 objects are detected" in text
    assert "after 100 steps; a network usually needs some hundred steps" in text
    assert text.endswith("look at train_batch0.jpg and val_batch0.jpg")


def make_scene(images: int = 60, classes: int = 2) -> tuple[list[Detections], list[Target]]:
    """Objects of some classes, each found but one in ten, beside a few false detections."""
    generator = torch.Generator().manual_seed(1)
    detections, targets = [], []
    for _ in range(images):
        boxes = torch.rand(3, 2, generator=generator) * 300
        sizes = 20 + 60 * torch.rand(3, 2, generator=generator)
        boxes = torch.cat((boxes, boxes + sizes), dim=1)
        labels = torch.randint(classes, (3,), generator=generator)
        targets.append(Target(boxes, labels, torch.zeros(3).bool()))
        is_found = torch.rand(3, generator=generator) > 0.1
        shaken = boxes + 2 * torch.randn(3, 4, generator=generator)
        scores = 0.3 + 0.6 * torch.rand(3, generator=generator)
        one = Detections(shaken[is_found], scores[is_found], labels[is_found])
        detections.append(one[one.scores.argsort(descending=True)])
    return detections, targets


def changed(targets: list[Target], change: Callable[[Target], Target]) -> list[Target]:
    return [change(target) for target in targets]


def by_size(target: Target, x: float, y: float) -> Target:
    sizes = target.boxes[:, 2:] - target.boxes[:, :2]
    return replace(target, boxes=target.boxes + (sizes * torch.tensor([x, y])).repeat(1, 2))


def test_sound_annotations_are_not_suspected() -> None:
    assert find_correction([], [], NAMES) is None
    assert find_correction([Detections.empty()], [Target.empty()], NAMES) is None
    assert find_correction(*make_scene(), NAMES) is None
    detections, _ = make_scene()
    generator = torch.Generator().manual_seed(5)
    anywhere = [one[torch.randperm(len(one), generator=generator)] for one in detections]
    _, targets = make_scene()
    assert find_correction(anywhere[1:] + anywhere[:1], targets, NAMES) is None  # of other images


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda target: by_size(target, 0.9, 0), r"boxes shifted by \+0\.[89]\d of their width and [+-]0\.0"),
        (
            lambda target: by_size(target, 0.5, 0.5),
            r"boxes shifted by \+0\.[45]\d of their width and \+0\.[45]",
        ),
        (
            lambda target: replace(target, boxes=target.boxes + torch.tensor([25.0, -10, 25, -10])),
            r"boxes shifted by \+2\d pixels in x and -(9|10|11) in y",
        ),
        (
            lambda target: replace(target, boxes=target.boxes * 1.25),
            r"boxes scaled by 1\.2\d in x and 1\.2\d in y",
        ),
        (lambda target: replace(target, boxes=target.boxes[:, [1, 0, 3, 2]]), "boxes swapped in x and y"),
        (
            lambda target: replace(target, boxes=target.boxes + 20 * torch.tensor([-1.0, -1, 1, 1])),
            "around their centers",
        ),
        (lambda target: replace(target, labels=1 - target.labels), "cat and dog exchanged"),
    ],
)
def test_a_systematic_mistake_is_named_with_what_it_costs(
    mistake: Callable[[Target], Target], words: str
) -> None:
    detections, targets = make_scene()
    good = match(flatten(detections, targets, 3)).map50()
    wrong = changed(targets, mistake)
    bad = match(flatten(detections, wrong, 3)).map50()
    text = find_correction(detections, wrong, NAMES)
    assert text is not None
    assert re.search(words, text)
    after, before = map(float, re.findall(r"about (0\.\d+) instead of (0\.\d+)", text)[0])
    assert before == pytest.approx(bad, abs=0.006)
    assert before + 0.1 <= after <= good + 0.006


def test_two_of_three_classes_exchanged_with_mean_map50() -> None:
    detections, targets = make_scene(classes=3)
    wrong = changed(targets, lambda target: replace(target, labels=torch.tensor([0, 2, 1])[target.labels]))
    assert "{bird}" in (find_correction(detections, wrong, NAMES) or "")
    assert match(flatten(detections, wrong, 3)).map50() > 0.25


def test_two_of_many_classes_exchanged_are_judged_by_these_two() -> None:
    names = [*map(str, range(20))]
    detections, targets = make_scene(images=200, classes=20)
    order = torch.arange(20)
    order[[4, 17]] = torch.tensor([17, 4])
    wrong = changed(targets, lambda target: replace(target, labels=order[target.labels]))
    good, bad = (match(flatten(detections, one, 20)).map50() for one in (targets, wrong))
    assert good - bad < 0.1
    text = find_correction(detections, wrong, names)
    assert re.search(
        r"have 4 and 17 exchanged: .* the mean AP50 of the two would be about 0\.[89]\d instead of 0", text
    )


def test_few_objects_prove_nothing() -> None:
    detections, targets = make_scene(images=1)
    wrong = changed(targets, lambda target: replace(target, labels=1 - target.labels))
    assert find_correction(detections, wrong, NAMES) is None


def test_difficult_objects_and_many_images_are_thinned() -> None:
    detections, targets = make_scene(images=600)
    wrong = changed(targets, lambda target: by_size(target, 0.9, 0))
    assert "of their width" in (find_correction(detections, wrong, NAMES) or "")
    difficult = changed(wrong, lambda target: replace(target, difficult=torch.ones(3).bool()))
    assert find_correction(detections, difficult, NAMES) is None
