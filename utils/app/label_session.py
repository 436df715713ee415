"""Labeling in one tab of a browser: the images on the way, and the boxes that its editor shows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image

from utils.app.editor import MOST_BOXES, from_editor, to_editor
from utils.app.label import LabelBox, LabelFolder, OpenImage, accept, add_suggestions, find_suggestions
from utils.cli.class_names import normalize_name
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor
from utils.vision.image_reader import Pixels

_ROOM = 700, 1200  # pixels, height and width; an image that fits several times is enlarged
_MOST_REASONS = 10  # why images were skipped
_KEPT = 3  # image files of a tab, as the browser may still load the one before


class Labeling:
    """What all tabs share: the folder, the classes, the model that suggests, and the order of the images."""

    def __init__(self, folder: LabelFolder, load: Callable[[], Predictor], temporary: Path) -> None:
        """Read the class names of the annotations; `load` gives the model, `temporary` is for image files."""
        self.folder, self.temporary = folder, temporary
        self.class_names = folder.find_class_names()
        self.problem = ""  # why there are no suggestions
        self._load, self._lock = load, threading.Lock()
        self._predictor: Predictor | None = None

    def predictor(self) -> Predictor | None:
        """Return the model, loaded on the first call; None if that failed, for the reason in `problem`."""
        with self._lock:
            if self._predictor is None and not self.problem:
                try:
                    self._predictor = self._load()
                    if set(self.class_names) <= set(self._predictor.class_names):  # made for these classes
                        self.add_classes(self._predictor.class_names)
                except UserError as error:
                    self.problem = f"no suggestions: {error}"
            return self._predictor

    def rank(self, is_stopped: Callable[[], bool]) -> None:
        """Score the images without XML one after another, until stopped: the least certain come first."""
        for key in self.folder.unscored():
            predictor = self.predictor()
            if predictor is None or is_stopped():
                return
            self.folder.add_score(key, predictor)
        log(f"{self.folder.root}: all images without XML are in order, the least certain first")

    def add_classes(self, names: Iterable[str]) -> list[str]:
        """Add the names that are new, and return them."""
        new = [name for name in dict.fromkeys(names) if name and name not in self.class_names]
        self.class_names += new
        return new


class LabelSession:
    """One tab: its way through the images, the open one, and the boxes as they were given to the editor.

    Attributes:
        opened: the open image; None if none can be read.
        shown: the boxes as given to the editor.
        image_file: the open image as the browser gets it.
        message: what there is to say.
    """

    def __init__(self, labeling: Labeling) -> None:
        self.labeling = labeling
        self.opened: OpenImage | None = None
        self.shown: list[LabelBox] = []
        self.image_file: Path | None = None
        self.message = ""
        self._way: list[str] = []
        self._position = -1
        self._suggested: list[LabelBox] = []
        self._files: deque[Path] = deque()
        self._zoom = 1

    def editor_boxes(self) -> list[dict[str, Any]]:
        """Return `shown` as the editor takes it."""
        return to_editor(self.shown, self.labeling.class_names, self._zoom)

    def editor_width(self) -> str:
        """Return the width of the editor in CSS, at which three quarters of the window have its height."""
        if self.opened is None:
            return "100%"
        ratio = self.opened.header.width / self.opened.header.height
        return f"min(100%, {max(10, 75 * ratio):.0f}vh)"

    def move(self, step: int, value: Mapping[str, Any] | None, conf: float) -> None:
        """Open the next (1) or the previous (-1) image of the way; those that cannot be read are skipped.

        What was changed in the editor is saved first.
        """
        self._leave(value)
        skipped: list[str] = []
        position = self._position
        while True:
            position += step
            if position < 0:
                break
            if position == len(self._way):
                key = self.labeling.folder.choose_next(set(self._way))
                if key is None:
                    break
                self._way.append(key)
            try:
                self._open(self._way[position], conf)
            except UserError as error:
                skipped.append(str(error))
                continue
            self._position = position
            self.message = _shorten(skipped)
            return
        end = "this was the last image" if step > 0 else "this is the first image"
        self.message = "; ".join(filter(None, [_shorten(skipped), end]))

    def jump(self, key: str, value: Mapping[str, Any] | None, conf: float) -> None:
        """Save what was changed, and open an image by its key; raises a UserError if it cannot be read."""
        self._leave(value)
        self._open(key, conf)
        self._way[self._position + 1 :] = [key]
        self._position += 1
        self.message = ""

    def reload(self, conf: float) -> None:
        """Open the image again as it is on disk; what was not saved is lost."""
        if self.opened is not None:
            self._open(self.opened.key, conf)
            self.message = "reloaded from disk"

    def has_changes(self, value: Mapping[str, Any] | None) -> bool:
        """Tell whether saving would change the annotation."""
        boxes = self._read(value)
        return self.opened is not None and _to_write(boxes) != list(self.opened.boxes)

    def save(self, value: Mapping[str, Any] | None) -> None:
        """Write the accepted boxes of the editor; suggestions stay.

        Raises:
            UserError: as `LabelFolder.save`.
        """
        if self.opened is None:
            raise UserError("no image is open")
        boxes = self._read(value)
        self.opened = self.labeling.folder.save(self.opened, boxes)
        new = self.labeling.add_classes(one.item.name for one in boxes if not one.is_suggestion)
        count = sum(not one.is_suggestion for one in self.opened.boxes)
        waiting = [one for one in boxes if one.is_suggestion and one.place is None]
        self.shown = [*self.opened.boxes, *waiting]
        self.message = f"saved {plural(count, 'object')} in {self.opened.xml_path}"
        if waiting:
            self.message += f"; {plural(len(waiting), 'suggestion')} not accepted"
        if new:
            self.message += f"; new class: {', '.join(new)}"

    def accept_all(self, value: Mapping[str, Any] | None) -> None:
        """Turn all suggestions in the editor into objects; nothing is written yet."""
        self._show(accept(self._read(value)))

    def suggest(self, value: Mapping[str, Any] | None, conf: float) -> None:
        """Show the suggestions from another score on; the other boxes stay."""
        self._show(add_suggestions(self._read(value), self._suggested, conf))

    def add_class(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Add a class to the list; the boxes of the editor stay."""
        self._show(self._read(value))
        new = self.labeling.add_classes([normalize_name(name)])
        self.message = f"added the class {new[0]}" if new else "this class is there already"

    def describe(self) -> str:
        """Return a line about the open image."""
        if self.opened is None:
            return "no image can be read"
        header, score = self.opened.header, self.labeling.folder.scores.get(self.opened.key)
        parts = [str(self.opened.image_path), f"{header.width} x {header.height} pixels"]
        parts.append("has XML" if self.opened.stamp else "without XML")
        if score is not None and not self.opened.stamp:
            parts.append(f"mean score {score:.2f}")
        if errors := self.opened.annotation.errors:
            parts.append(f"{plural(len(errors), 'object')} that cannot be read stay as they are")
        if self.labeling.problem:
            parts.append(self.labeling.problem)
        return ", ".join(parts)

    def close(self) -> None:
        """Remove the image files."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def _leave(self, value: Mapping[str, Any] | None) -> None:
        if value is not None and self.has_changes(value):
            self.save(value)

    def _open(self, key: str, conf: float) -> None:
        opened, image = self.labeling.folder.open(key)
        predictor = self.labeling.predictor()
        if len(opened.boxes) > MOST_BOXES:
            raise UserError(
                f"{opened.xml_path}: {len(opened.boxes)} objects; the editor shows at most {MOST_BOXES}"
            )
        self.labeling.add_classes(box.item.name for box in opened.boxes)
        suggested = find_suggestions(predictor, image, self.labeling.class_names) if predictor else []
        self.opened, self._suggested = opened, suggested
        self._show(add_suggestions(opened.boxes, suggested, conf)[:MOST_BOXES])
        self._write_image(image)

    def _read(self, value: Mapping[str, Any] | None) -> list[LabelBox]:
        """Return the boxes of the editor."""
        if value is None:
            return []
        return from_editor(value["boxes"], self.shown, self._zoom, orientation=value["orientation"] or 0)

    def _show(self, boxes: Sequence[LabelBox]) -> None:
        self.labeling.add_classes(one.item.name for one in boxes)
        self.shown = list(boxes)

    def _write_image(self, image: Pixels) -> None:
        height, width = image.shape[:2]
        self._zoom = max(1, min(_ROOM[0] // height, _ROOM[1] // width))
        shown = Image.fromarray(image).resize((self._zoom * width, self._zoom * height))
        self.image_file = self.labeling.temporary / f"{uuid4().hex}.jpg"
        shown.save(self.image_file, quality=90)
        self._files.append(self.image_file)
        while len(self._files) > _KEPT:
            self._files.popleft().unlink(missing_ok=True)


def _to_write(boxes: Iterable[LabelBox]) -> list[LabelBox]:
    return [one for one in boxes if one.place is not None or not one.is_suggestion]


def _shorten(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return "; ".join([*reasons[:_MOST_REASONS], *([f"… and {more} more"] if more > 0 else [])])
