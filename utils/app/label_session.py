"""Labeling in one tab of a browser: the images on the way, and the boxes that its editor shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from PIL import Image

from utils.app.editor import MOST_BOXES, from_editor, to_editor
from utils.app.label import LabelBox, LabelFolder, OpenImage, accept, add_suggestions, find_suggestions
from utils.cli.class_names import normalize_name
from utils.cli.console import plural
from utils.cli.errors import UserError

_ROOM = 700, 1200  # pixels, height and width; an image that fits several times is enlarged
_MOST_REASONS = 10  # why images were skipped


class LabelSession:
    """One tab: its way through the images, the open one, and the boxes as they were given to the editor.

    A method changes no object that it holds: a copy is as it was.

    Attributes:
        opened: the open image; None if none can be read.
        shown: the boxes as given to the editor.
        view: how often `shown` has changed; the page sends it back with the boxes.
        image: the open image, enlarged if it is small.
        message: what there is to say.
    """

    def __init__(self, folder: LabelFolder) -> None:
        self.folder = folder
        self.opened: OpenImage | None = None
        self.shown: list[LabelBox] = []
        self.view = 0
        self.image: Image.Image | None = None
        self.message = ""
        self._way: list[str] = []
        self._position = -1
        self._suggested: list[LabelBox] = []
        self._zoom = 1

    def editor_boxes(self) -> list[dict[str, Any]]:
        """Return `shown` as the editor takes it."""
        return to_editor(self.shown, self.folder.class_names, self._zoom)

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
        lost = self._leave(value)
        skipped, end = [], []
        for position in count(self._position + step, step):
            if position == len(self._way) and (key := self.folder.choose_next(set(self._way))) is not None:
                self._way = [*self._way, key]
            if not 0 <= position < len(self._way):
                end = ["this was the last image" if step > 0 else "this is the first image"]
                break
            try:
                self._open(self._way[position], conf)
                self._position = position
                break
            except UserError as error:
                skipped.append(str(error))
        more = len(skipped) - _MOST_REASONS
        more_skipped = [f"… and {more} more"] if more > 0 else []
        self.message = "; ".join([*lost, *skipped[:_MOST_REASONS], *more_skipped, *end])

    def jump(self, key: str, value: Mapping[str, Any] | None, conf: float) -> None:
        """Save what was changed, and open an image by its key; raises a UserError if it cannot be read."""
        lost = self._leave(value)
        self._open(key, conf)
        self._way = [*self._way[: self._position + 1], key]
        self._position += 1
        self.message = "; ".join(lost)

    def reload(self, conf: float) -> None:
        """Open the image again as it is on disk; what was not saved is lost."""
        if self.opened is not None:
            self._open(self.opened.key, conf)
            self.message = "reloaded from disk"

    def has_changes(self, value: Mapping[str, Any] | None) -> bool:
        """Tell whether saving would change the annotation."""
        written = [one for one in self._read(value) if one.is_written]
        return self.opened is not None and written != list(self.opened.boxes)

    def save(self, value: Mapping[str, Any] | None) -> None:
        """Write the accepted boxes of the editor; suggestions stay.

        Raises:
            UserError: as `LabelFolder.save`.
        """
        if self.opened is None:
            raise UserError("no image is open")
        boxes = self._read(value)
        back = self._describe_changed(one for one in boxes if one.is_written)  # as they are in the XML
        self.opened = self.folder.save(self.opened, boxes)
        waiting = [one for one in boxes if not one.is_written]
        self._show([*self.opened.boxes, *waiting])
        saved = sum(not one.is_suggestion for one in self.opened.boxes)
        self.message = f"saved {plural(saved, 'object')} in {self.opened.xml_path}"
        if waiting:
            self.message += f"; {plural(len(waiting), 'suggestion')} not accepted"
        self.message = "; ".join([self.message, *back])

    def accept_all(self, value: Mapping[str, Any] | None) -> None:
        """Turn all suggestions in the editor into objects; nothing is written yet."""
        self._show(accept(self._read(value)))

    def suggest(self, value: Mapping[str, Any] | None, conf: float) -> None:
        """Show the suggestions from another score on; the other boxes stay."""
        self._show(add_suggestions(self._read(value), self._suggested, conf))

    def add_class(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Add a class to the list; the boxes of the editor stay. A UserError tells that the name is empty."""
        name = normalize_name(name)
        if not name:
            raise UserError("type the name of the new class first")
        self._show(self._read(value))
        new = self.folder.add_classes([name])
        self.message = f"added the class {name}" if new else f"the class {name} is there already"

    def describe(self) -> str:
        """Return a line about the open image."""
        if self.opened is None:
            return "no image can be read"
        header, score = self.opened.header, self.folder.scores.get(self.opened.key)
        parts = [str(self.opened.image_path), f"{header.width} x {header.height} pixels"]
        parts.append("has XML" if self.opened.stamp else "without XML")
        if score is not None and not self.opened.stamp:
            parts.append(f"mean score {score:.2f}")
        if errors := self.opened.annotation.errors:
            parts.append(f"{plural(len(errors), 'object')} that cannot be read stay as they are")
        if self.folder.problem:
            parts.append(self.folder.problem)
        return ", ".join(parts)

    def _leave(self, value: Mapping[str, Any] | None) -> list[str]:
        """Save what was changed, and return what is lost."""
        if value is None:
            return []
        lost = self._describe_changed(self._read(value))
        if self.has_changes(value):
            self.save(value)
        return lost

    def _describe_changed(self, boxes: Iterable[LabelBox]) -> list[str]:
        as_found = [*(self.opened.boxes if self.opened else ()), *self._suggested]
        changed = sum(one.is_suggestion and one not in as_found for one in boxes)
        return [f"{plural(changed, 'changed suggestion')} not accepted"] if changed else []

    def _open(self, key: str, conf: float) -> None:
        opened, image = self.folder.open(key)
        predictor = self.folder.predictor()
        if len(opened.boxes) > MOST_BOXES:
            raise UserError(
                f"{opened.xml_path}: {len(opened.boxes)} objects; the editor shows at most {MOST_BOXES}"
            )
        self.folder.add_classes(box.item.name for box in opened.boxes)
        suggested = find_suggestions(predictor, image, self.folder.class_names) if predictor else []
        self.opened, self._suggested = opened, suggested
        self._show(add_suggestions(opened.boxes, suggested, conf)[:MOST_BOXES])
        height, width = image.shape[:2]
        self._zoom = max(1, min(_ROOM[0] // height, _ROOM[1] // width))
        self.image = Image.fromarray(image).resize((self._zoom * width, self._zoom * height))

    def _read(self, value: Mapping[str, Any] | None) -> list[LabelBox]:
        """Return the boxes of the editor."""
        if value is None:
            if self.opened is not None:
                raise UserError("the editor is empty; nothing is saved: reload from disk")
            return []
        return from_editor(value["boxes"], self.shown, self._zoom, orientation=value["orientation"] or 0)

    def _show(self, boxes: Sequence[LabelBox]) -> None:
        self.folder.add_classes(one.item.name for one in boxes)
        self.shown = list(boxes)
        self.view += 1
