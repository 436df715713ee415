"""Looking at an image with several weights: their detections side by side, why, and where they disagree."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from nets.boxes import box_iou
from nets.postprocess import postprocess
from nets.structures import Detections, Target
from utils.cli.class_names import canonical_name, match_class_names
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.data.dataset_report import clip_box, rotate_box
from utils.data.samples import Sample
from utils.data.voc_xml import VocObject, read_annotation
from utils.inference.explain import attention_gates, find_attention, heat_map
from utils.inference.predictor import Predictor, Prepared, undo_placement
from utils.inference.runtimes import ExportedModel
from utils.inference.streams import Frame
from utils.inference.writers import describe, json_line
from utils.metrics.matching import flatten, match
from utils.vision.colors import Color
from utils.vision.draw import draw_boxes, draw_detections
from utils.vision.heatmap import draw_attention_maps, draw_heatmap
from utils.vision.image_reader import Pixels, read_header

_LONGEST = 1280  # pixels of the longer side of a displayed image
_SAME = 0.5  # IoU from which boxes of two weights are of one object
_RIGHT: Color = (40, 170, 60)
_FALSE: Color = (245, 140, 0)
_MISSED: Color = (230, 20, 40)
_IGNORED: Color = (130, 130, 130)
_TRUTH: Color = (255, 255, 255)


@dataclass(frozen=True)
class Look:
    """What one network says of an image, before the thresholds.

    Attributes:
        name: of the weights.
        predictor: the network.
        prepared: the image as the network takes it.
        boxes: Tensor[1, N, 4], in network pixels.
        scores: Tensor[1, N, K].
        milliseconds: of the network.
    """

    name: str
    predictor: Predictor
    prepared: Prepared
    boxes: Tensor
    scores: Tensor
    milliseconds: float

    def detections(self, conf: float, nms_iou: float) -> Detections:
        """Return what predict.py finds with these thresholds; the network does not run again."""
        (found,) = postprocess(
            self.boxes,
            self.scores,
            conf_threshold=conf,
            iou_threshold=nms_iou,
            max_detections=self.predictor.max_det,
        )
        found = undo_placement(found, self.prepared.placement)
        return Detections(found.boxes, found.scores, found.labels, self.predictor.class_names)


@torch.no_grad()
def look(name: str, predictor: Predictor, image: Pixels) -> Look:
    """Run a network on an image.

    Raises:
        UserError: an exported model that ends in NMS, whose thresholds cannot change.
    """
    if isinstance(predictor.model, ExportedModel) and predictor.model.ends_in_nms:
        raise UserError(f"{name}: ends in NMS, so its thresholds cannot change here; use one without")
    prepared = predictor.prepare(image)
    start = time.perf_counter()
    with predictor.evaluation_mode:
        maps = predictor.model(predictor.to_input([prepared]))
    milliseconds = 1000 * (time.perf_counter() - start)
    boxes, scores = (part.cpu() for part in predictor.decode(maps))
    return Look(name, predictor, prepared, boxes, scores, milliseconds)


def read_truth(sample: Sample) -> list[VocObject]:
    """Read the objects of an image of a data set, in pixels of the displayed image, as training does.

    Raises:
        UserError: the annotation or the image cannot be read.
    """
    if sample.xml_path is None:
        return []
    annotation, header = read_annotation(sample.xml_path), read_header(sample.image_path)
    objects = []
    for item in annotation.objects:
        box = rotate_box(item.box, header) if header.is_stored_size(annotation.size) else item.box
        clipped, _ = clip_box(box, header.width, header.height)
        if clipped is not None:
            objects.append(replace(item, box=clipped))
    return objects


@dataclass(frozen=True)
class Judgement:
    """Which detections are right by COCO's rule at IoU 0.5.

    Attributes:
        truth: all objects of the image.
        right: bool (N,), those that took an object.
        wrong: bool (N,), false alarms; a detection of a difficult object is neither.
        missed: the objects that none took; difficult ones do not count.
        unknown: the objects of classes that the weights do not have.
    """

    truth: Sequence[VocObject]
    right: np.ndarray
    wrong: np.ndarray
    missed: list[VocObject]
    unknown: list[VocObject]


def judge(found: Detections, truth: Sequence[VocObject]) -> Judgement:
    """Match detections, which have class names, with the ground truth of their image."""
    labels = match_class_names(found.class_names, [item.name for item in truth])
    known = [item for item, label in zip(truth, labels, strict=True) if label is not None]
    unknown = [item for item, label in zip(truth, labels, strict=True) if label is None]
    target = Target(
        torch.tensor([item.box for item in known]).reshape(-1, 4),
        torch.tensor([label for label in labels if label is not None], dtype=torch.long),
        torch.tensor([item.difficult for item in known], dtype=torch.bool),
    )
    matching = match(flatten([found], [target], len(found.class_names)))
    right = matching.taken >= 0
    wrong = np.zeros(len(found), dtype=bool)
    wrong[matching.ranked[~matching.right]] = True
    missed = [
        item
        for item, taker in zip(known, matching.taker.tolist(), strict=True)
        if taker < 0 and not item.difficult
    ]
    return Judgement(truth, right, wrong, missed, unknown)


def draw_look(image: Pixels, found: Detections, judged: Judgement | None, factor: float = 1.0) -> Pixels:
    """Draw detections on an image by class; with the ground truth by whether they are right.

    `factor` is the size of `image` as a multiple of the one in whose pixels the boxes are.
    """
    if judged is None:
        return draw_detections(image, replace(found, boxes=factor * found.boxes), found.class_names)
    captions, colors = [], []
    for name, score, right, wrong in zip(
        found.names, found.scores.tolist(), judged.right, judged.wrong, strict=True
    ):
        captions.append(f"{'false: ' * bool(wrong)}{name} {score:.2f}")
        colors.append(_RIGHT if right else _FALSE if wrong else _IGNORED)
    others = [*judged.missed, *judged.unknown, *judged.truth]  # on top of the white boxes of all objects
    captions += [f"missed: {item.name}" for item in judged.missed]
    captions += [f"no such class: {item.name}" for item in judged.unknown]
    colors += [_MISSED] * len(judged.missed) + [_IGNORED] * len(judged.unknown) + [_TRUTH] * len(judged.truth)
    boxes = np.concatenate([found.boxes.numpy(), np.reshape([item.box for item in others], (-1, 4))])
    return draw_boxes(image, factor * boxes, [*captions, *[""] * len(judged.truth)], colors)


def summarize(one: Look, found: Detections, judged: Judgement | None) -> str:
    """Return the count of each class, the time, and with the ground truth how many are right."""
    counts = Counter(found.names)
    parts = [", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"]
    parts.append(f"{one.milliseconds:.0f} ms")
    if judged is not None:
        wrong = plural(int(judged.wrong.sum()), "false alarm")
        parts.append(f"{int(judged.right.sum())} right, {wrong}, {len(judged.missed)} missed")
    return "; ".join(parts)


def draw_gates(one: Look, image: Pixels) -> Pixels | None:
    """Draw the attention maps of each place; None for weights without attention.

    Raises:
        UserError: a block's gates cannot be drawn.
    """
    if isinstance(one.predictor.model, ExportedModel) or one.predictor.config.phi == "none":
        return None
    if not find_attention(one.predictor.model)[0]:
        return None
    return draw_attention_maps(image, attention_gates(one.predictor, one.prepared))


def draw_heat(one: Look, image: Pixels, found: Detections, name: str | None) -> Pixels | None:
    """Draw what raises the scores of the detections of a class, of all with None; None without any.

    `found` is in pixels of the original, `image` is a displayed copy of any size.
    """
    if isinstance(one.predictor.model, ExportedModel):
        return None
    wanted = [name is None or canonical_name(own) == canonical_name(name) for own in found.names]
    chosen = found[torch.tensor(wanted, dtype=torch.bool)]
    if not len(chosen):
        return None
    heat = heat_map(one.predictor, one.prepared, chosen)
    factor = image.shape[1] / one.prepared.placement.image_size[1]
    return draw_heatmap(image, heat, replace(chosen, boxes=factor * chosen.boxes), found.class_names)


def downscale(image: Pixels) -> Pixels:
    """Return an image of at most 1280 pixels a side, to display."""
    height, width = image.shape[:2]
    factor = min(1.0, _LONGEST / max(height, width))
    sides = max(1, round(width * factor)), max(1, round(height * factor))
    return image if factor == 1 else np.asarray(cv2.resize(image, sides, interpolation=cv2.INTER_AREA))


def compare_detections(names: Sequence[str], results: Sequence[Detections]) -> list[list[str]]:
    """Return a table of the objects that several weights found; those on which they disagree come first.

    Boxes of different weights with an IoU of at least 0.5 are of one object. A row has the class and score of
    each of the weights, the lowest IoU between their boxes, and what they disagree on.
    """
    rows = []
    for group in _group_objects(results):
        cells = [""] * len(results)
        for index, row in group.items():
            cells[index] = f"{results[index].names[row]} {float(results[index].scores[row]):.2f}"
        boxes = torch.stack([results[index].boxes[row] for index, row in group.items()])
        iou = f"{float(box_iou(boxes, boxes).min()):.2f}" if len(group) > 1 else ""
        classes = {canonical_name(results[index].names[row]) for index, row in group.items()}
        remarks = []
        if len(group) == 1 < len(results):
            remarks.append(f"only {names[next(iter(group))]}")
        elif absent := [name for index, name in enumerate(names) if index not in group]:
            remarks.append(f"not {', '.join(absent)}")
        if len(classes) > 1:
            remarks.append("class differs")
        for index, (name, found) in enumerate(zip(names, results, strict=True)):
            if index not in group and None in match_class_names(found.class_names, sorted(classes)):
                remarks.append(f"{name} has no such class")
        rows.append([", ".join(remarks), iou, *cells])
    return sorted(rows, key=lambda row: not row[0])


def _group_objects(results: Sequence[Detections]) -> list[dict[int, int]]:
    """Group detections of one object: for each object the row of each of the weights that found it."""
    scored = [
        (score, index, row)
        for index, one in enumerate(results)
        for row, score in enumerate(one.scores.tolist())
    ]
    groups: list[dict[int, int]] = []
    for _, index, row in sorted(scored, key=lambda entry: -entry[0]):
        best, chosen = (False, _SAME), None
        for group in groups:
            if index in group:
                continue
            first, other = next(iter(group.items()))  # the one with the highest score
            pair = results[index].boxes[row][None], results[first].boxes[other][None]
            is_same = canonical_name(results[index].names[row]) == canonical_name(results[first].names[other])
            likeness = (is_same, float(box_iou(*pair)))
            if likeness[1] >= _SAME and likeness >= best:
                best, chosen = likeness, group
        if chosen is None:
            groups.append({index: row})
        else:
            chosen[index] = row
    return groups


def to_json(path: str, image: Pixels, looks: Sequence[tuple[Look, Detections]]) -> str:
    """Return the detections as JSON lines, one per weights, as predict.py --json writes them."""
    lines = []
    for one, found in looks:
        frame = Frame(path, Path(path), image, one.prepared)
        lines.append(json_line({"weights": one.name, **describe(frame, found, found.class_names)}))
    return "\n".join(lines) + "\n"
