"""Detections and ground truths as COCO's files hold them; ids start at 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from utils.cli.files import atomic_write
from utils.metrics.flat import FlatBoxes

_ROWS_AT_A_TIME = 10_000


def list_truths(boxes: FlatBoxes) -> list[dict[str, Any]]:
    """Return the ground truths as COCO's annotations; `ignore` is VOC's difficult."""
    rows = zip(
        boxes.truth_image.tolist(),
        boxes.truth_label.tolist(),
        boxes.truth_box.tolist(),
        boxes.difficult.tolist(),
        strict=True,
    )
    return [
        {
            "id": number,
            "image_id": image + 1,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "ignore": int(difficult),
        }
        for number, (image, label, box, difficult) in enumerate(rows, start=1)
    ]


def iterate_detections(boxes: FlatBoxes) -> Iterator[dict[str, Any]]:
    """Yield the detections as the rows that COCO calls results."""
    columns = (boxes.image.tolist(), boxes.label.tolist(), boxes.box.tolist(), boxes.score.tolist())
    for image, label, box, score in zip(*columns, strict=True):
        yield {"image_id": image + 1, "category_id": label + 1, "bbox": box, "score": score}


def build_ground_truth(
    boxes: FlatBoxes,
    class_names: Sequence[str],
    file_names: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, list[dict[str, Any]]]:
    """Lay out the content of ground_truth.json.

    Args:
        boxes: what the annotations are made of.
        class_names: the K names; category_id is the index plus 1.
        file_names: the name of each image.
        image_sizes: (height, width) of each image in pixels.
    """
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, (height, width)) in enumerate(zip(file_names, image_sizes, strict=True), start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    return {"images": images, "categories": categories, "annotations": list_truths(boxes)}


def write_detections(boxes: FlatBoxes, path: Path) -> None:
    """Write detections.json, a part at a time, which bounds the memory.

    Raises:
        UserError: it cannot be written.
    """
    rows = iterate_detections(boxes)
    with atomic_write(path, "w") as file:
        before = "["
        while part := list(islice(rows, _ROWS_AT_A_TIME)):
            file.write(before + json.dumps(part, allow_nan=False)[1:-1])  # json.dump is far slower
            before = ", "
        file.write("]\n" if before == ", " else "[]\n")
