"""Looking in one tab of a browser: its images, the chosen weights, and what they found."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from utils.app.look import (
    Look,
    compare_detections,
    downscale,
    draw_gates,
    draw_heat,
    draw_look,
    judge,
    look,
    read_truth,
    summarize,
    to_json,
)
from utils.cli.app_config import AppConfig
from utils.cli.class_names import MODEL_DATA
from utils.cli.errors import UserError
from utils.cli.inputs import COCO_WEIGHTS
from utils.data.samples import DataFolder, Sample
from utils.data.voc_xml import VocObject
from utils.inference.predictor import Predictor
from utils.vision.image_reader import Pixels, read_image

_KEPT = 8  # networks in memory


class Looking:
    """What all tabs share: the images of --data, the weights that can be chosen, and the loaded networks.

    Attributes:
        samples: the images of --data by id.
        weights: what `Predictor.from_checkpoint` takes, by the name that the page shows.
    """

    def __init__(self, config: AppConfig, temporary: Path) -> None:
        """List the images and the weights; `temporary` is for files that the browser gets.

        Raises:
            UserError: --data has none of the layouts.
        """
        self.temporary = temporary
        self._config, self._lock = config, threading.Lock()
        self._predictors: dict[str, Predictor] = {}
        self.samples: dict[str, Sample] = {}
        if config.data is not None:
            folder = DataFolder(config.data)
            for split in folder.list_main_splits():
                with suppress(UserError):  # a list that cannot be read; `data.py check` tells
                    found = folder.load(split, "background", lambda _: None)
                    self.samples |= {sample.image_id: sample for sample in found}
        self.weights = {name: name for name in config.weights} | {"voc": "voc"}
        if COCO_WEIGHTS.is_file():  # the page fetches nothing
            self.weights["coco"] = "coco"
        runs = [path for path in Path(config.project).rglob("weights/best.pth") if path.is_file()]
        for path in sorted(runs, key=lambda path: -path.stat().st_mtime):
            self.weights[str(path)] = str(path)

    def predictor(self, name: str) -> Predictor:
        """Return the network of the weights of this name, or of this file, loaded once.

        Raises:
            UserError: they cannot be loaded, or the file is not below the working folder, --project or
                model_data.
        """
        source = self.weights.get(name, os.path.realpath(name))  # so that no other name fetches anything
        places = [os.path.realpath(place) for place in (".", self._config.project, str(MODEL_DATA))]
        if name not in self.weights and not any(Path(source).is_relative_to(place) for place in places):
            raise UserError(
                f"{name}: not below the working folder, --project or model_data; give it with --weights"
            )
        with self._lock:
            if name not in self._predictors:
                while len(self._predictors) >= _KEPT:
                    del self._predictors[next(iter(self._predictors))]
                self._predictors[name] = Predictor.from_checkpoint(
                    source, device=self._config.device, input_size=self._config.imgsz
                )
            return self._predictors[name]


class LookSession:
    """One tab: the images that were dropped there, the open one, and what the chosen weights say of it.

    Attributes:
        name: of the open image, empty before the first.
        dropped: image files by name, beside those of --data.
        shown: the open image at the size of the page; None before the first.
        truth: its objects; None without annotation.
        looks: the weights that could be run, in order.
        problems: why the others could not.
    """

    def __init__(self, looking: Looking) -> None:
        self.looking = looking
        self._folder = looking.temporary / uuid4().hex
        self.name = ""
        self.dropped: dict[str, Path] = {}
        self.shown: Pixels | None = None
        self.truth: list[VocObject] | None = None
        self.looks: list[Look] = []
        self.problems: list[str] = []
        self._image: Pixels | None = None

    def names(self) -> list[str]:
        """List the images that can be chosen, the newest first."""
        return [*reversed(self.dropped), *self.looking.samples]

    def open(self, name: str) -> None:
        """Read an image, and its annotation if it is of --data.

        Raises:
            UserError: the image or its annotation cannot be read, or there is no such image.
        """
        sample = self.looking.samples.get(name)
        if name not in self.dropped and sample is None:
            raise UserError(f"{name}: no such image on this page")
        self.name, self.looks, self._image, self.shown, self.truth = name, [], None, None, None
        if name in self.dropped:
            self._image = read_image(self.dropped[name])
        elif sample is not None:
            if sample.problem:
                raise UserError(sample.problem)
            self._image = read_image(sample.image_path)
            self.truth = read_truth(sample) if sample.xml_path and sample.xml_path.exists() else None
        assert self._image is not None
        self.shown = downscale(self._image)

    def run(self, weights: Sequence[str]) -> None:
        """Run the weights on the open image; those that already ran are not run again."""
        known = {one.name: one for one in self.looks}
        self.looks, self.problems = [], []
        for name in weights:
            try:
                if name not in known and self._image is not None:
                    known[name] = look(name, self.looking.predictor(name), self._image)
            except UserError as error:
                self.problems.append(str(error))
            if name in known:
                self.looks.append(known[name])

    def panel(self, one: Look, conf: float, nms_iou: float, with_truth: bool) -> tuple[Pixels, str]:
        """Return the image with the boxes of the weights, and a line about them."""
        assert self.shown is not None
        assert self._image is not None
        found = one.detections(conf, nms_iou)
        judged = judge(found, self.truth) if with_truth and self.truth is not None else None
        factor = self.shown.shape[1] / self._image.shape[1]
        return draw_look(self.shown, found, judged, factor), summarize(one, found, judged)

    def gates(self, one: Look) -> Pixels | None:
        """Return the attention maps of the weights; None without attention."""
        return None if self.shown is None else draw_gates(one, self.shown)

    def heat(self, one: Look, conf: float, nms_iou: float, name: str | None) -> Pixels | None:
        """Return the heat map of the detections of a class, of all with None; None without any."""
        return None if self.shown is None else draw_heat(one, self.shown, one.detections(conf, nms_iou), name)

    def table(self, conf: float, nms_iou: float) -> tuple[list[str], list[list[str]]]:
        """Return the heading and the rows of what the weights found, where they disagree first."""
        names = [one.name for one in self.looks]
        found = [one.detections(conf, nms_iou) for one in self.looks]
        return ["difference", "lowest IoU", *names], compare_detections(names, found)

    def write_json(self, conf: float, nms_iou: float) -> Path | None:
        """Write the detections to a file for the browser; None without an image."""
        if self._image is None:
            return None
        found = [(one, one.detections(conf, nms_iou)) for one in self.looks]
        path = self._folder / "detections.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_json(self.name, self._image, found), encoding="utf-8")
        return path
