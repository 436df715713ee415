from __future__ import annotations

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import as_files, devkit_iou, make_detections, make_target, random_case
from utils.metrics.error_kinds import KINDS, ErrorKind, find_error_kinds
from utils.metrics.matching import Matching, average_precision, flatten, match

BOX, OTHER, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0], [0.0, 100.0, 40.0, 140.0]
QUARTER = [0.0, 0.0, 40.0, 10.0]  # IoU 0.25 with BOX
TENTH = [0.0, 0.0, 40.0, 4.0]  # IoU 0.1 with BOX
HALF = [0.0, 0.0, 40.0, 20.0]  # IoU 0.5 with BOX
SLIVER = [0.0, 0.0, 40.0, 3.9]


def errors_of(objects: list, found: list, classes: int = 2) -> dict[str, ErrorKind]:
    return find_error_kinds(match(flatten([make_detections(*found)], [make_target(*objects)], classes)))


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    matching = match(flatten([Detections.empty()] * images, [Target.empty()] * images, 2))
    assert find_error_kinds(matching) == {kind: ErrorKind(0, None) for kind in KINDS}


def test_without_ground_truth_errors_are_counted_and_cost_nothing_known() -> None:
    assert errors_of([(BOX, 0, True)], [(FAR, 0, 0.9)])["background"] == ErrorKind(1, None)


def test_without_detections_all_is_missed() -> None:
    assert errors_of([(BOX, 0), (OTHER, 1), (FAR, 1, True)], [])["missed"] == ErrorKind(2, 1.0)


# Of one class (0) with the objects; AP50 of class 0 before and after, by COCO's 101 points.
UP_TO_HALF = 51 / 101


@pytest.mark.parametrize(
    ("kind", "objects", "found", "cost"),
    [
        # One wrong detection in front, mended: the AP goes from 0 to 1,
        ("class", [(BOX, 0)], [(BOX, 1, 0.9)], 1.0),
        ("class", [(BOX, 0)], [(HALF, 1, 0.9)], 1.0),
        ("location", [(BOX, 0)], [(QUARTER, 0, 0.9)], 1.0),
        ("location", [(BOX, 0)], [(TENTH, 0, 0.9)], 1.0),
        # or let go: from 1/2 to 1.
        ("background", [(BOX, 0)], [(FAR, 0, 0.9), (BOX, 0, 0.8)], 0.5),
        ("background", [(BOX, 0)], [(SLIVER, 0, 0.9), (BOX, 0, 0.8)], 0.5),
        ("both", [(BOX, 0), (OTHER, 1)], [([100, 0, 140, 10], 0, 0.9), (BOX, 0, 0.8), (OTHER, 1, 0.7)], 0.25),
        ("duplicate", [(BOX, 0), (OTHER, 0)], [(BOX, 0, 0.9), (BOX, 0, 0.8), (OTHER, 0, 0.7)], 50 / 101 / 3),
        # Asked for no longer: recall 1/2 becomes 1.
        ("missed", [(BOX, 0), (OTHER, 0)], [(BOX, 0, 0.9)], 1 - UP_TO_HALF),
    ],
)  # fmt: skip
def test_each_kind_hand_worked(kind: str, objects: list, found: list, cost: float) -> None:
    errors = errors_of(objects, found)
    assert errors[kind] == ErrorKind(1, pytest.approx(cost))
    assert {other: error for other, error in errors.items() if other != kind} == {
        other: ErrorKind(0, pytest.approx(0.0)) for other in KINDS if other != kind
    }


@pytest.mark.parametrize(
    ("objects", "found", "counts"),
    [
        # An object that a class or location error points at is not missed too.
        ([(BOX, 0)], [(BOX, 1, 0.9), (QUARTER, 0, 0.8)], {"class": 1, "location": 1}),
        # Location stands before class, and class before duplicate.
        ([(BOX, 0), ([0, 0, 40, 12], 1)], [([0, 0, 40, 12], 0, 0.9)], {"location": 1, "missed": 1}),
        ([(BOX, 0), (BOX, 1)], [(BOX, 0, 0.9), (BOX, 0, 0.8)], {"class": 1}),
        # Difficult objects are not there; a detection inside one of its class does not count.
        ([(BOX, 0, True)], [(BOX, 1, 0.9), (QUARTER, 0, 0.8)], {"background": 1}),
        ([(BOX, 0, True)], [(BOX, 0, 0.9), (BOX, 0, 0.8)], {}),
    ],
)
def test_one_kind_each(objects: list, found: list, counts: dict[str, int]) -> None:
    errors = errors_of(objects, found)
    assert {kind: error.count for kind, error in errors.items() if error.count} == counts


@pytest.mark.parametrize(("kind", "label", "box"), [("class", 1, BOX), ("location", 0, QUARTER)])
def test_the_best_of_several_errors_is_mended_and_the_others_go(kind: str, label: int, box: list) -> None:
    """Mended are the object of class 0 at rank 1 and the one at rank 2, with nothing wrong between."""
    found = [(box, label, 0.9), (box, label, 0.8), (OTHER, 0, 0.7)]
    error = errors_of([(BOX, 0), (OTHER, 0)], found)[kind]
    before = UP_TO_HALF * (1 if kind == "class" else 1 / 3)
    assert error == ErrorKind(2, pytest.approx(1.0 - before))


def test_an_error_at_an_object_that_is_found_is_not_mended_but_goes() -> None:
    error = errors_of([(BOX, 0)], [(QUARTER, 0, 0.9), (BOX, 0, 0.8)])["location"]
    assert error == ErrorKind(1, pytest.approx(0.5))


def test_a_class_left_without_objects_is_right_only_if_nothing_was_detected_of_it() -> None:
    objects = [(BOX, 0), (OTHER, 1)]
    assert errors_of(objects, [(BOX, 0, 0.9)])["missed"].cost == pytest.approx(0.5)
    assert errors_of(objects, [(BOX, 0, 0.9), (FAR, 1, 0.1)])["missed"].cost == pytest.approx(0.0)


def slow_errors(matching: Matching) -> dict[str, tuple[int, float | None]]:
    """Look at one detection after the other, at every object of its image."""
    truth, found = as_files(matching.boxes)
    objects, taken = truth["annotations"], matching.taken.tolist()
    free = {i for i, row in enumerate(objects) if not row["ignore"]} - set(taken)
    errors: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    covered = set()
    for row in matching.ranked.tolist():
        if taken[row] >= 0:
            continue
        best = {True: (0.0, -1), False: (0.0, -1)}  # of its class, of another
        for index, one in enumerate(objects):
            if one["image_id"] == found[row]["image_id"] and not one["ignore"]:
                is_same = one["category_id"] == found[row]["category_id"]
                iou = devkit_iou(found[row]["bbox"], one["bbox"])
                best[is_same] = max(best[is_same], (iou, index), key=lambda pair: pair[0])
        (same, same_index), (other, other_index) = best[True], best[False]
        if 0.1 <= same < 0.5:
            errors["location"].append((row, same_index)), covered.add(same_index)
        elif other >= 0.5:
            errors["class"].append((row, other_index)), covered.add(other_index)
        elif same >= 0.5:
            errors["duplicate"].append((row, -1))
        else:
            errors["background" if other < 0.1 else "both"].append((row, -1))
    errors["missed"] = [(-1, index) for index in free - covered]
    costs = {kind: slow_map50(matching, errors[kind], free) for kind in KINDS}
    before = slow_map50(matching, [], free)
    return {kind: (len(errors[kind]), None if before is None else costs[kind] - before) for kind in KINDS}


def slow_map50(matching: Matching, mended: list[tuple[int, int]], free: set[int]) -> float | None:
    labels = dict(zip(matching.ranked.tolist(), matching.ranked_labels.tolist(), strict=True))
    right = dict(zip(matching.ranked.tolist(), matching.right.tolist(), strict=True))
    counts = matching.truths.tolist()
    done: set[int] = set()
    for row, index in mended:
        if row < 0:
            counts[matching.boxes.truth_label[index]] -= 1
        elif index in free - done:
            done.add(index)
            labels[row], right[row] = int(matching.boxes.truth_label[index]), True
        else:
            del labels[row]
    aps = []
    for label, count in enumerate(counts):
        mine = [right[row] for row in labels if labels[row] == label]
        if count:
            aps.append(average_precision(np.array(mine, dtype=bool), count))
        elif matching.truths[label]:
            aps.append(float(not mine))
    return sum(aps) / len(aps) if aps else None


@pytest.mark.parametrize("seed", range(40))
def test_equals_looking_at_one_after_the_other(seed: int) -> None:
    matching = match(random_case(seed))
    errors = {kind: (error.count, error.cost) for kind, error in find_error_kinds(matching).items()}
    for kind, (count, cost) in slow_errors(matching).items():
        assert errors[kind] == (count, pytest.approx(cost, abs=1e-9)), kind
        assert cost is None or cost > -1e-9
