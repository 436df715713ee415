"""Labeling: the images of a folder, their objects beside a model's suggestions, and saving VOC XML.

An object with a score is a suggestion. It is never written before it is accepted, which removes the score.
Objects with a score that are in the XML already, as `predict.py --xml DIR --scores` writes them, are
suggestions too, and stay in the file as they are until they are accepted or deleted.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from pycocotools.mask import iou

from utils.cli.class_names import canonical_name
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.cli.files import as_utf8, read_bytes
from utils.cli.predict_config import PredictConfig
from utils.data.dataset_report import rotate_box, unrotate_box
from utils.data.folder_walk import walk_folder
from utils.data.layouts import describe_contents, find_parts
from utils.data.voc_xml import (
    VocAnnotation,
    VocObject,
    edit_annotation,
    read_annotation,
    round_boxes,
    write_annotation,
)
from utils.vision.image_reader import ImageHeader, Pixels, read_header, read_image

if TYPE_CHECKING:  # it needs torch, which is imported when the page is up
    from utils.inference.predictor import Predictor

SAME = 0.5  # IoU from which a suggestion is taken for an object that is there
_MIN_SIDE = 2  # pixels of a suggestion, as in the XML of predict.py


@dataclass(frozen=True)
class LabelBox:
    """A box of the editor: an object with whole pixels of the displayed image.

    Attributes:
        item: the object; a suggestion has a score.
        place: its place among the objects of the XML, None if it is not in there.
    """

    item: VocObject
    place: int | None = None

    @property
    def is_suggestion(self) -> bool:
        """Whether nobody has accepted it."""
        return self.item.score is not None

    @property
    def is_written(self) -> bool:
        """Whether saving writes it, or leaves it in the XML."""
        return self.place is not None or not self.is_suggestion


@dataclass(frozen=True)
class OpenImage:
    """An image as it was opened for labeling.

    Attributes:
        key: its name in the folder.
        image_path: the image.
        xml_path: its annotation, which need not exist.
        header: size and orientation.
        stamp: hash of the annotation as it was read, empty without one.
        annotation: its content.
        boxes: its objects as they are displayed.
    """

    key: str
    image_path: Path
    xml_path: Path
    header: ImageHeader
    stamp: str
    annotation: VocAnnotation
    boxes: tuple[LabelBox, ...]

    @property
    def is_stored(self) -> bool:
        """Whether the boxes of the XML are in pixels of the stored image, which EXIF rotates."""
        return self.header.is_stored_size(self.annotation.size)

    def in_file(self, one: LabelBox) -> VocObject:
        """Return a box as it is to be in the XML: exactly as it was there if it was not moved."""
        if one.place is not None:
            before = self.annotation.objects[one.place]
            if one.is_suggestion:
                return before
            if one.item.box == self.boxes[one.place].item.box:
                return replace(one.item, box=before.box)
        (item,) = round_boxes([one.item], self.header.width, self.header.height)
        return replace(item, box=unrotate_box(item.box, self.header)) if self.is_stored else item


def list_images(root: Path) -> dict[str, tuple[Path, Path, str]]:
    """List the images below a folder, in a layout of layouts.py or alone, by their path without suffix.

    Bytes of the path that are not UTF-8 are escapes.

    Returns:
        The image, its annotation, which need not exist, and why the image cannot be used, else "".

    Raises:
        UserError: there are none, or a folder cannot be read.
    """
    images = {}
    walk = walk_folder(root)
    for part in find_parts(walk):
        for image_id, (file, *others) in part.images.items():
            xml = part.xml.get(image_id, f"{part.xml_folder}{image_id}.xml")
            path = root / file
            twin = f"{path}: {Path(others[0]).name} lies beside it; keep one of the two" if others else ""
            images[as_utf8(part.prefix + image_id)] = path, root / xml, twin
    if not images:
        raise UserError(f"{root}: {describe_contents(walk) or 'no images in this folder'}")
    return images


class LabelFolder:
    """A folder of images to label, in a layout of layouts.py; what all tabs of a browser share.

    Attributes:
        root: the folder.
        images: as `list_images` gives them.
        class_names: the classes of the annotations, and those that were added.
        scores: mean score of the detections in each image without XML, as far as `rank` has come.
        problem: why there are no suggestions.
    """

    def __init__(self, root: Path | str, load: Callable[[], Predictor]) -> None:
        """List the images; `load` gives the model that suggests boxes.

        Raises:
            UserError: there are none, or a folder cannot be read.
        """
        self.root, self._load = Path(root), load
        self.images = list_images(self.root)
        self.scores: dict[str, float] = {}
        self.problem = ""
        self._labelled = {key for key, (_, xml, _) in self.images.items() if os.path.lexists(xml)}
        names: set[str] = set()
        for key in self._labelled:
            with suppress(UserError):  # shown when the image is opened
                names.update(item.name for item in read_annotation(self.images[key][1]).objects)
        self.class_names = sorted(names)

    def add_classes(self, names: Iterable[str]) -> list[str]:
        """Add the names that are new, and return them."""
        new = [name for name in dict.fromkeys(names) if name and name not in self.class_names]
        self.class_names += new
        return new

    def describe_progress(self) -> str:
        """Return such as "37 of 120 images labelled"."""
        return f"{len(self._labelled)} of {plural(len(self.images), 'image')} labelled"

    def predictor(self) -> Predictor | None:
        """Return the model; None if it cannot be loaded, for the reason in `problem`."""
        if self.problem:
            return None
        try:
            predictor = self._load()
        except UserError as error:
            self.problem = f"no suggestions: {error}"
            return None
        if set(self.class_names) <= set(predictor.class_names):  # made for these classes
            self.add_classes(predictor.class_names)
        return predictor

    def rank(self, is_stopped: Callable[[], bool]) -> None:
        """Score the images without XML one after another, until stopped.

        One without detections, or that cannot be read, has 0.
        """
        for key in [key for key in self.images if key not in self._labelled]:
            if is_stopped() or (predictor := self.predictor()) is None:
                return
            self.scores[key] = 0.0
            with suppress(UserError):  # shown when the image is opened
                scores = predictor(self.images[key][0]).scores
                if len(scores := scores[scores >= PredictConfig.conf]):
                    self.scores[key] = float(scores.mean())
        log(f"{self.root}: all images without XML are in order, the least certain first")

    def choose_next(self, seen: Collection[str]) -> str | None:
        """Return the image to label next among those not `seen`: without XML first, by lowest mean score.

        An image whose score is not known yet comes after those with one. None if all were seen.
        """
        left = [key for key in self.images if key not in seen]
        return min(left, key=lambda key: (key in self._labelled, self.scores.get(key, 1.0)), default=None)

    def open(self, key: str) -> tuple[OpenImage, Pixels]:
        """Read an image and its annotation.

        Raises:
            UserError: one of them cannot be read, or there is no such image.
        """
        if key not in self.images:
            raise UserError(f"{key}: no such image in {self.root}")
        path, _, problem = self.images[key]
        if problem:
            raise UserError(problem)
        return self._open(key, read_header(path)), read_image(path)

    def _open(self, key: str, header: ImageHeader) -> OpenImage:
        image, xml, _ = self.images[key]
        stamp = stamp_of(xml)
        annotation = read_annotation(xml) if stamp else VocAnnotation(None, ())
        (self._labelled.add if stamp else self._labelled.discard)(key)
        opened = OpenImage(key, image, xml, header, stamp, annotation, ())
        items = annotation.objects
        if opened.is_stored:
            items = tuple(replace(item, box=rotate_box(item.box, header)) for item in items)
        shown = round_boxes(items, header.width, header.height)
        return replace(opened, boxes=tuple(LabelBox(item, place) for place, item in enumerate(shown)))

    def save(self, opened: OpenImage, boxes: Sequence[LabelBox]) -> OpenImage:
        """Write the accepted boxes to the annotation, and return the image as if opened again.

        Boxes of the XML that are not among `boxes` are removed; what has not been changed stays as it is.

        Raises:
            UserError: a box has no class, the annotation or the size of the image was changed since it was
                opened, or the annotation is outside the folder or cannot be written.
        """
        if unnamed := sum(not one.item.name for one in boxes):
            raise UserError(f"{opened.key}: {plural(unnamed, 'box', 'boxes')} without a class; not saved")
        path, image = opened.xml_path, opened.image_path
        kept = {one.place: opened.in_file(one) for one in boxes if one.place is not None}
        added = [opened.in_file(one) for one in boxes if one.place is None and not one.is_suggestion]
        with _lock_of(path):
            if os.path.lexists(image) and read_header(image) != opened.header:
                raise UserError(f"{image}: another image than was opened; not saved: reload the image")
            if not image.parent.is_dir():
                raise UserError(f"{image.parent}: the folder is gone; not saved")
            if stamp_of(path) != opened.stamp:
                raise UserError(f"{path}: changed on disk since it was opened; not saved: reload the image")
            if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
                raise UserError(f"{path}: leads out of {self.root}; give --label the folder it leads to")
            if not opened.stamp:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise UserError(f"{path.parent}: cannot write here: {error.strerror}") from None
                folder = as_utf8(os.path.basename(os.path.dirname(os.path.abspath(image))))
                size = opened.header.width, opened.header.height
                write_annotation(path, as_utf8(image.name), *size, added, folder=folder)
            elif added or kept != dict(enumerate(opened.annotation.objects)):
                edit_annotation(path, kept, added)
            return self._open(opened.key, opened.header)  # the image may be gone


def _lock_of(path: Path) -> FileLock:
    """Return a lock of saving in a folder, for all tabs and programs of this user; not beside the images."""
    folder = os.path.dirname(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(f"{os.path.expanduser('~')}:{folder}")).hexdigest()[:16]
    return FileLock(os.path.join(tempfile.gettempdir(), f"label-{name}.lock"), timeout=60)


def stamp_of(path: Path) -> str:
    """Return a hash of the content of a file, empty if there is none; a UserError if it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest() if os.path.lexists(path) else ""


def find_suggestions(predictor: Predictor, image: Pixels, class_names: Sequence[str]) -> list[LabelBox]:
    """Detect objects in an image, best first; a class has its spelling among `class_names`."""
    spelled = {canonical_name(name): name for name in class_names}
    found = predictor(image)
    rows = zip(found.names, found.boxes.tolist(), found.scores.tolist(), strict=True)
    items = [
        VocObject(spelled.get(canonical_name(name), name), (x1, y1, x2, y2), score=score)
        for name, (x1, y1, x2, y2), score in rows
        if x2 - x1 >= _MIN_SIDE and y2 - y1 >= _MIN_SIDE
    ]
    return [LabelBox(item) for item in round_boxes(items, image.shape[1], image.shape[0])]


def add_suggestions(
    boxes: Iterable[LabelBox], suggestions: Iterable[LabelBox], conf: float
) -> list[LabelBox]:
    """Return the boxes that are no suggestion of the model, and its suggestions for what they do not cover.

    `conf` is the lowest score of a suggestion.
    """
    own = [one for one in boxes if one.is_written]
    more = [one for one in suggestions if (one.item.score or 0.0) >= conf]
    if own and more:
        covered = overlaps(more, own).max(axis=1) >= SAME
        more = [one for one, is_covered in zip(more, covered, strict=True) if not is_covered]
    return own + more


def accept(boxes: Iterable[LabelBox]) -> list[LabelBox]:
    """Turn all suggestions into objects."""
    return [replace(one, item=replace(one.item, score=None)) for one in boxes]


def overlaps(boxes: Sequence[LabelBox], others: Sequence[LabelBox]) -> np.ndarray:
    """Return the pairwise IoU, float64 (N, M)."""
    edges = [np.array([one.item.box for one in these]) for these in (boxes, others)]
    first, second = (np.hstack([part[:, :2], part[:, 2:] - part[:, :2]]) for part in edges)
    return iou(first, second, [False] * len(others))
