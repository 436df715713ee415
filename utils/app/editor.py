"""The box editor: boxes to what gradio_image_annotation shows, and back.

The editor gives back text, color and corners of each box and nothing else. So the text says all of an object:
"dog", "dog (difficult)", "dog 0.83?" for a suggestion. Which object it was is in the low four bits of the
color's three parts; a color that was chosen in the editor has lost them, then the place tells.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from utils.app.label import SAME, LabelBox, overlaps
from utils.cli.class_names import normalize_name
from utils.cli.errors import UserError
from utils.data.voc_xml import VocObject
from utils.vision.colors import Color, class_colors

SUGGESTION: Color = (0, 240, 0)  # far from the colors of classes
MOST_BOXES = 4095  # 12 bits, without 0, which new boxes have
_TEXT = re.compile(r"(?P<name>.*?)(?P<difficult> \(difficult\))?(?: (?P<score>[01]\.\d\d)\?)?", re.DOTALL)


def editor_colors(class_names: Sequence[str]) -> list[Color]:
    """Return the color of each class with its low bits free."""
    return [(red & 0xF0, green & 0xF0, blue & 0xF0) for red, green, blue in class_colors(tuple(class_names))]


def hex_colors(class_names: Sequence[str]) -> list[str]:
    """Return the color of each class as CSS has it."""
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in editor_colors(class_names)]


def to_editor(boxes: Sequence[LabelBox], class_names: Sequence[str], zoom: int = 1) -> list[dict[str, Any]]:
    """Return the boxes as the editor takes them, on an image enlarged by `zoom`.

    Raises:
        UserError: more than 4095 boxes, or names that are not among the class names.
    """
    if len(boxes) > MOST_BOXES:
        raise UserError(f"{len(boxes)} boxes; the editor shows at most {MOST_BOXES}")
    colors = dict(zip(class_names, editor_colors(class_names), strict=True))
    shown = []
    for number, one in enumerate(boxes, start=1):
        base = SUGGESTION if one.is_suggestion else colors[one.item.name]
        bits = (number >> 8, number >> 4 & 15, number & 15)
        color = tuple(part & 0xF0 | low for part, low in zip(base, bits, strict=True))
        corners = dict(
            zip(("xmin", "ymin", "xmax", "ymax"), (int(zoom * edge) for edge in one.item.box), strict=True)
        )
        shown.append({"label": text_of(one.item), "color": color, **corners})
    return shown


def from_editor(
    values: Sequence[Mapping[str, Any]], sent: Sequence[LabelBox], zoom: int = 1, *, orientation: int = 0
) -> list[LabelBox]:
    """Return the boxes of the editor in the order of `sent`, new ones last in the order they were drawn.

    Args:
        values: what the editor gives back; new boxes are first, the newest before all.
        sent: the boxes that were given to `to_editor`.
        zoom: as it was given to `to_editor`.
        orientation: quarter turns of the displayed image.

    Raises:
        UserError: the image was turned, so that boxes do not have its coordinates.
    """
    if orientation:
        raise UserError("the image is rotated in the editor; rotate it back first")
    parsed = [_parse(value, zoom) for value in values]
    values_of: dict[int, int] = {}  # index in `values` by index in `sent`
    for index, value in enumerate(values):
        values_of.setdefault(_number(value["color"]) - 1, index)
    origins = {index: place for place, index in values_of.items() if 0 <= place < len(sent)}
    others = [index for index in range(len(values)) if index not in origins]
    free = [place for place in range(len(sent)) if place not in values_of]
    if others and free:
        shared = overlaps([LabelBox(parsed[index]) for index in others], [sent[place] for place in free])
        for index, ious in zip(others, shared, strict=True):
            if ious.max() >= SAME:
                origins[index] = free[ious.argmax()]
                shared[:, ious.argmax()] = 0
    order = sorted(range(len(values)), key=lambda index: (origins.get(index, len(sent)), -index))
    return [
        _restored(values[index]["label"], parsed[index], sent[origins[index]] if index in origins else None)
        for index in order
    ]


def text_of(item: VocObject) -> str:
    """Return the text of an object in the editor."""
    score = ""
    if item.score is not None:
        shown = item.score if 0 <= item.score <= 1 else 0.0  # that of an XML may be anything
        score = f" {shown:.2f}?"
    return f"{item.name}{' (difficult)' * item.difficult}{score}"


def to_html(text: str) -> str:
    """Return text as HTML; a file name may have bytes that are not UTF-8."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def describe_classes(class_names: Sequence[str]) -> str:
    """Return HTML with the classes, the keys of the first nine, and their colors, which keys.js reads."""
    colors = hex_colors(class_names)
    data = html.escape(json.dumps({"names": list(class_names), "colors": colors}))
    keys = [f"<kbd>{number}</kbd> " if number <= 9 else "" for number in range(1, len(class_names) + 1)]
    entries = " ".join(
        f'<span><i style="background:{color}"></i>{key}{html.escape(name)}</span>'
        for key, name, color in zip(keys, class_names, colors, strict=True)
    )
    return f'<div id="classes" data-classes="{data}">{entries or "no class yet: add one"}</div>'


def _parse(value: Mapping[str, Any], zoom: int) -> VocObject:
    match = _TEXT.fullmatch(normalize_name(value["label"] or ""))
    assert match is not None  # any text fits
    x1, y1, x2, y2 = (float(round(value[edge] / zoom)) for edge in ("xmin", "ymin", "xmax", "ymax"))
    score = None if match["score"] is None else float(match["score"])
    return VocObject(match["name"].strip(), (x1, y1, x2, y2), match["difficult"] is not None, score)


def _restored(text: str, item: VocObject, origin: LabelBox | None) -> LabelBox:
    """Return a box with the place and the exact score of the one that it was; None for a new one."""
    if origin and text == text_of(origin.item):  # the class itself may end in "(difficult)" or "0.83?"
        return LabelBox(replace(origin.item, box=item.box), origin.place)
    if item.score is not None:
        score = origin.item.score if origin else None
        # Only a suggestion has a score; the class of another box ends so.
        item = VocObject(normalize_name(text), item.box) if score is None else replace(item, score=score)
    return LabelBox(item, origin.place if origin else None)


def _number(color: Sequence[int]) -> int:
    red, green, blue = (part & 15 for part in color)
    return red << 8 | green << 4 | blue
