"""Looking at an image with several weights: their detections side by side, why, and where they disagree.

Imports torch, which takes seconds: app.py imports this module when the page is up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nets.attention import same_attention
from nets.boxes import box_iou
from nets.postprocess import postprocess
from nets.structures import Detections, Target
from utils.app.offer import Offer
from utils.cli.app_config import LOWEST_SCORE, MOST_WEIGHTS, AppConfig
from utils.cli.class_names import canonical_name, match_class_names
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.inputs import locate_weights
from utils.data.annotation_cache import AnnotationCache
from utils.data.dataset_report import Record, scan_samples
from utils.data.samples import Sample
from utils.inference.explain import attention_gates, find_attention, heat_map
from utils.inference.predictor import Predictor, Prepared, undo_placement
from utils.inference.runtimes import ExportedModel, is_exported
from utils.inference.streams import Frame
from utils.inference.writers import describe, json_line
from utils.metrics.matching import flatten, match
from utils.vision.colors import Color
from utils.vision.draw import draw_boxes, draw_detections
from utils.vision.heatmap import draw_attention_maps, draw_heatmap
from utils.vision.image_reader import Pixels, read_image
from utils.weights.load import read_weights

_LONGEST = 1280  # pixels of the longer side of a displayed image
_NO_MAPS = "no maps: an exported model"
_SAME = 0.5  # IoU from which boxes of two weights are of one object
_RIGHT: Color = (40, 170, 60)
_FALSE: Color = (245, 140, 0)
_MISSED: Color = (230, 20, 40)
_IGNORED: Color = (130, 130, 130)
_TRUTH: Color = (255, 255, 255)


def load_predictor(config: AppConfig, source: str) -> Predictor:
    """Load weights, once until their file changes, as that of a run in progress does.

    The code of a block of the user's own is imported if --phi names it.

    Raises:
        UserError: they cannot be loaded.
    """
    path = locate_weights(source)
    return _load_once(config, source, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=8)
def _load_once(config: AppConfig, source: str, _modified: int) -> Predictor:
    attention = read_weights(source).config.phi if config.phi and not is_exported(source) else "none"
    phi = next((named for named in config.phi if same_attention(named, attention)), None)
    return Predictor.from_checkpoint(
        source, phi=phi, device=config.device, input_size=config.imgsz, conf=LOWEST_SCORE
    )


@dataclass(frozen=True)
class Look:
    """What one network says of an image, before the thresholds.

    Attributes:
        name: of the weights.
        predictor: the network.
        image: uint8 (H, W, 3) in RGB.
        prepared: the image as the network takes it.
        boxes: Tensor[1, N, 4], in network pixels.
        scores: Tensor[1, N, K].
        milliseconds: of the network.
    """

    name: str
    predictor: Predictor
    image: Pixels
    prepared: Prepared
    boxes: Tensor
    scores: Tensor
    milliseconds: float

    def detections(self, conf: float, nms_iou: float) -> Detections:
        """Return what predict.py finds with these thresholds; the network does not run again."""
        limit = self.predictor.max_det
        (found,) = postprocess(
            self.boxes, self.scores, conf_threshold=conf, iou_threshold=nms_iou, max_detections=limit
        )
        found = undo_placement(found, self.prepared.placement)
        return replace(found, class_names=self.predictor.class_names)

    def attention_maps(self) -> Pixels:
        """Draw the attention maps of each place.

        Raises:
            UserError: there is no attention, or a block's gates cannot be drawn.
        """
        model, phi = self.predictor.model, self.predictor.config.phi
        if isinstance(model, ExportedModel):
            raise UserError(_NO_MAPS)
        if phi == "none" or not find_attention(model)[0]:
            raise UserError("no attention maps: weights without attention")
        return draw_attention_maps(self.image, attention_gates(self.predictor, self.prepared))

    def heat_map(self, found: Detections, name: str | None) -> Image.Image:
        """Draw what raises the scores of the detections of a class, of all with None.

        Raises:
            UserError: there are none, or the model is an exported one.
        """
        if isinstance(self.predictor.model, ExportedModel):
            raise UserError(_NO_MAPS)
        wanted = [name is None or canonical_name(own) == canonical_name(name) for own in found.names]
        chosen = found[torch.tensor(wanted, dtype=torch.bool)]
        if not len(chosen):
            raise UserError(f"no heat map: no {name or 'object'} found")
        heat = heat_map(self.predictor, self.prepared, chosen)
        return to_display(draw_heatmap(self.image, heat, chosen, found.class_names))


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
    return Look(name, predictor, image, prepared, boxes, scores, milliseconds)


class LookSession:
    """One tab of a browser: the images dropped there, the open one, and what the chosen weights say of it.

    Attributes:
        name: of the open image, empty before the first.
        dropped: images beside those of `offer`, by name.
        truth: the objects of the open image; None without annotation.
        looks: the weights that could be run, in order.
        faults: of the open image and its annotation.
        problems: why weights could not be run.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.name = ""
        self.dropped: dict[str, Sample] = {}
        self.truth: Record | None = None
        self.looks: list[Look] = []
        self.faults: list[str] = []
        self.problems: list[str] = []
        self._image: Pixels | None = None

    def names(self) -> list[str]:
        """List the images that can be opened, the last dropped first."""
        return [*reversed(self.dropped), *self.offer.samples]

    def drop(self, path: Path) -> str:
        """Add an image, and return the name it has on the page."""
        for name, sample in self.dropped.items():
            if sample.image_path == path:  # dropped again
                return name
        names = (f"{path.stem}{f' ({number})' * (number > 1)}{path.suffix}" for number in count(1))
        name = next(name for name in names if name not in self.names())
        self.dropped[name] = Sample(name, path, None)
        return name

    def open(self, name: str) -> None:
        """Read an image, and its annotation as training does."""
        self.name, self.looks, self.faults, self.problems = name, [], [], []
        self._image = self.truth = None
        sample = self.dropped.get(name) or self.offer.samples.get(name)
        try:
            if sample is None:
                raise UserError(f"{name}: no such image on this page")
            if sample.problem:
                raise UserError(sample.problem)
            self._image = read_image(sample.image_path)
        except UserError as error:
            shown = str(error)
            if name in self.dropped:  # by its name, not by the path where the server stored it
                shown = shown.replace(str(self.dropped[name].image_path), name)
            self.faults = [shown]
            return
        if sample.xml_path is not None and sample.xml_path.exists():
            report = scan_samples([sample], cache=AnnotationCache([sample]))  # in memory: writes no file
            self.truth = report.records[0] if report.records else None
            self.faults = [str(finding) for finding in report.findings if finding.level != "note"]

    def run(self, weights: Sequence[str]) -> None:
        """Run up to four weights on the open image; those that already ran are not run again."""
        if self._image is None:
            return
        known = {one.name: one for one in self.looks}
        self.looks, self.problems = [], []
        for name in weights:
            try:
                if len(self.looks) == MOST_WEIGHTS:
                    raise UserError(f"{name}: not shown, at most {MOST_WEIGHTS} weights; remove one")
                if name not in known:
                    predictor = load_predictor(self.offer.config, self.offer.locate(name))
                    known[name] = look(name, predictor, self._image)
                self.looks.append(known[name])
            except UserError as error:
                self.problems.append(str(error))

    def draw(self, one: Look, found: Detections, with_truth: bool) -> tuple[Image.Image, str]:
        """Return the image with the boxes of the weights, and a line about them."""
        counts = ", ".join(f"{count} {name}" for name, count in Counter(found.names).most_common())
        line = f"{counts or 'nothing found'}; {one.milliseconds:.0f} ms"
        if not with_truth or self.truth is None:
            return to_display(draw_detections(one.image, found, found.class_names)), line
        marks = judge(found, self.truth)
        captions, colors = [caption for caption, _ in marks], [color for _, color in marks]
        boxes = np.concatenate([found.boxes.numpy(), self.truth.boxes])
        right, wrong, missed = (colors.count(color) for color in (_RIGHT, _FALSE, _MISSED))
        line += f"; {right} right, {plural(wrong, 'false alarm')}, {missed} missed"
        return to_display(draw_boxes(one.image, boxes, captions, colors)), line

    def write_json(self, found: Sequence[Detections]) -> str:
        """Return the detections as JSON lines, one per weights, as predict.py --json writes them."""
        lines = []
        for one, detections in zip(self.looks, found, strict=True):
            frame = Frame(self.name, Path(self.name), one.image, one.prepared)
            described = describe(frame, detections, detections.class_names)
            lines.append(json_line({"weights": one.name, **described}) + "\n")
        return "".join(lines)


def judge(found: Detections, truth: Record) -> list[tuple[str, Color]]:
    """Match detections, which have class names, with the objects of their image by COCO's rule at IoU 0.5.

    Returns:
        Caption and color of each detection, then of each object. Gray do not count: a detection of a
        difficult object, and an object of a class that the weights do not have.
    """
    matched = match_class_names(found.class_names, truth.names)
    known = np.array([label is not None for label in matched], dtype=bool)
    labels = torch.tensor([label for label in matched if label is not None], dtype=torch.long)
    difficult = truth.difficult[known]
    target = Target(torch.from_numpy(truth.boxes[known]), labels, torch.from_numpy(difficult))
    matching = match(flatten([found], [target], len(found.class_names)))
    false = set(matching.ranked[~matching.right].tolist())
    missed = np.zeros_like(known)
    missed[known] = (matching.taker < 0) & ~difficult
    marks: list[tuple[str, Color]] = []
    for row, (name, score) in enumerate(zip(found.names, found.scores.tolist(), strict=True)):
        color = _RIGHT if matching.taken[row] >= 0 else _FALSE if row in false else _IGNORED
        marks.append((f"{'false: ' if row in false else ''}{name} {score:.2f}", color))
    for name, is_known, is_missed in zip(truth.names, known, missed, strict=True):
        if not is_known:
            marks.append((f"no such class: {name}", _IGNORED))
        else:
            marks.append((f"missed: {name}", _MISSED) if is_missed else ("", _TRUTH))
    return marks


def to_display(image: Pixels) -> Image.Image:
    """Return an image of at most 1280 pixels a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST, _LONGEST))
    return picture


def compare_detections(names: Sequence[str], results: Sequence[Detections]) -> list[list[str]]:
    """Return a table of the objects that several weights found; those on which they disagree come first.

    Boxes of different weights with an IoU of at least 0.5 are of one object. A row has what they disagree
    on, the lowest IoU between their boxes, and the class and score of each of the weights.
    """
    owners = [index for index, found in enumerate(results) for _ in range(len(found))]
    labels = [name for found in results for name in found.names]
    scores = [score for found in results for score in found.scores.tolist()]
    boxes = torch.cat([torch.zeros(0, 4), *(found.boxes for found in results)])
    ious = box_iou(boxes, boxes).tolist()
    objects: list[dict[int, int]] = []  # the row of each of the weights that found it, the best score first
    for row in sorted(range(len(owners)), key=lambda row: -scores[row]):
        likeness = {
            number: (canonical_name(labels[row]) == canonical_name(labels[first]), ious[row][first])
            for number, rows in enumerate(objects)
            if owners[row] not in rows and ious[row][first := next(iter(rows.values()))] >= _SAME
        }
        if likeness:
            objects[max(likeness, key=lambda number: likeness[number])][owners[row]] = row
        else:
            objects.append({owners[row]: row})
    table = []
    for rows in objects:
        cells = [
            f"{labels[rows[index]]} {scores[rows[index]]:.2f}" if index in rows else ""
            for index in range(len(names))
        ]
        members = list(rows.values())
        lowest = f"{min(ious[a][b] for a in members for b in members):.2f}" if len(members) > 1 else ""
        classes = sorted({canonical_name(labels[row]) for row in members})
        absent = [index for index in range(len(names)) if index not in rows]
        remarks = []
        if len(members) == 1 and absent:
            remarks.append(f"only {names[owners[members[0]]]}")
        elif absent:
            remarks.append(f"not {', '.join(names[index] for index in absent)}")
        if len(classes) > 1:
            remarks.append("class differs")
        for index in absent:
            if None in match_class_names(results[index].class_names, classes):
                remarks.append(f"{names[index]} has no such class")
        table.append([", ".join(remarks), lowest, *cells])
    return sorted(table, key=lambda row: not row[0])
