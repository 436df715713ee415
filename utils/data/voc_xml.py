"""Pascal VOC annotations: reading and writing XML files.

VOC counts pixels from 1 and includes both ends, so x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax are the
edges of the box in pixels. A round trip is exact. Other programs expect whole pixels: `round_boxes`.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from utils.cli.errors import UserError
from utils.cli.files import atomic_write, read_bytes

_LARGEST_COORDINATE = 1e6
_SMALLEST_SIDE = 2  # pixels of a rounded box
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class VocObject:
    """One annotated object: class name, box as (x1, y1, x2, y2) edges in pixels, VOC's difficult flag.

    `score` is the number in <score>, which a model wrote; None without one.
    """

    name: str
    box: Box
    difficult: bool = False
    score: float | None = None


@dataclass(frozen=True)
class VocAnnotation:
    """Content of one XML file.

    Attributes:
        size: (width, height) of the image in pixels; None if it is missing or makes no sense.
        objects: those that can be read.
        errors: of the others: place in the file, counted from 1; class name, may be empty; reason.
    """

    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]
    errors: tuple[tuple[int, str, str], ...] = ()


def read_annotation(path: Path | str) -> VocAnnotation:
    """Read one XML annotation.

    Boxes are returned as written: they may be inverted or outside the image. `<filename>`, `<path>` and the
    `<part>` elements of an object are ignored.

    Raises:
        UserError: not readable, not VOC, more than 16 MB, or with a DTD, which could declare entities.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: the root element is <{root.tag[:80]}>, not <annotation>")
    objects, errors = [], []
    for number, node in enumerate(root.findall("object"), start=1):
        name = (node.findtext("name") or "").strip()
        try:
            objects.append(_read_object(name, node))
        except ValueError as error:
            errors.append((number, name, str(error)))
    return VocAnnotation(_read_size(root.find("size")), tuple(objects), tuple(errors))


def write_annotation(
    path: Path | str,
    filename: str,
    width: int,
    height: int,
    objects: Sequence[VocObject],
    *,
    folder: str = "JPEGImages",
) -> None:
    """Write one XML annotation atomically, the inverse of `read_annotation`.

    It has all elements of Pascal VOC in its order, since some readers stop without one. `filename` is that of
    the image, in `folder`; sizes and boxes are in pixels.

    Raises:
        UserError: the file cannot be written.
    """
    root = ET.Element("annotation")
    _add_children(root, {"folder": folder, "filename": filename})
    _add_children(ET.SubElement(root, "source"), {"database": "Unknown"})
    _add_children(ET.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add_children(root, {"segmented": 0})
    for item in objects:
        node = ET.SubElement(root, "object")
        state = {"pose": "Unspecified", "truncated": 0, "difficult": int(item.difficult)}
        _add_children(node, {"name": item.name, **state})
        x1, y1, x2, y2 = item.box
        _add_children(ET.SubElement(node, "bndbox"), {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2})
        if item.score is not None:
            _add_children(node, {"score": f"{item.score:.6f}"})
    ET.indent(root)
    _write(path, root)


def rewrite_annotation(
    source: Path | str, target: Path | str, filename: str, rename: Callable[[str], str | None]
) -> None:
    """Copy one XML annotation with other class names, atomically; all other elements stay as they are.

    `rename` returns the new name of a class, or None to leave its objects out. `filename` is that of the
    image of the copy, without a folder.

    Raises:
        UserError: `source` is not well-formed XML, or `target` cannot be written.
    """
    root = _parse(source)
    named = next((node for node in root if node.tag.lower() == "filename"), None)
    if named is None:
        named = ET.Element("filename")
        root.insert(0, named)
    named.text = filename
    for parent in (root, *(node for node in root if node.tag.lower() == "objects")):
        for node in [node for node in parent if node.tag.lower() == "object"]:
            # Its own name, not that of a part or an attribute.
            label = next((inner for inner in (*node, *node.iter()) if inner.tag.lower() == "name"), None)
            name = None if label is None else rename((label.text or "").strip())
            if label is None or name is None:
                parent.remove(node)
            else:
                label.text = name
    _write(target, root)


def round_boxes(objects: Sequence[VocObject], width: int, height: int) -> list[VocObject]:
    """Round the boxes to whole pixels inside an image of width x height pixels.

    A side that would be under two pixels, which the reader refuses, gets two where the image has them.
    """
    return [
        replace(item, box=(x1, y1, x2, y2))
        for item in objects
        for x1, x2 in [_round_edges(item.box[0], item.box[2], width)]
        for y1, y2 in [_round_edges(item.box[1], item.box[3], height)]
    ]


def _round_edges(low: float, high: float, side: int) -> tuple[float, float]:
    first, last = max(round(low), 0), min(round(high), side)
    if last - first < _SMALLEST_SIDE:
        first = max(min(round((low + high - _SMALLEST_SIDE) / 2), side - _SMALLEST_SIDE), 0)
        last = min(first + _SMALLEST_SIDE, side)
    return float(first), float(last)


def _write(path: Path | str, root: ET.Element) -> None:
    with atomic_write(path) as file:
        file.write(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_children(node: ET.Element, values: dict[str, object]) -> None:
    for tag, value in values.items():
        whole = isinstance(value, float) and value.is_integer()
        ET.SubElement(node, tag).text = str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def _parse(path: Path | str) -> ET.Element:
    try:
        return fromstring(_read_text(path), forbid_dtd=True)
    except DefusedXmlException:  # entity attacks need a DTD, VOC does not
        raise UserError(f"{path}: has a DTD, which is not allowed; remove the <!DOCTYPE ...> part") from None
    except (ET.ParseError, ValueError) as error:
        raise UserError(f"{path}: not well-formed XML: {error}") from None


def _read_text(path: Path | str) -> str:
    """Decode by byte order mark, else by the XML declaration, else as UTF-8."""
    data = read_bytes(path)
    if not data:
        raise UserError(f"{path}: the file is empty")
    declared = _ENCODING.match(data)
    encoding = declared.group(1).decode("ascii") if declared else "utf-8"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data.startswith(b"\xef\xbb\xbf"):
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise UserError(f"{path}: not {encoding} text; save it as UTF-8 or declare its encoding") from None


def _read_object(name: str, node: ET.Element) -> VocObject:
    """Read one object; raises a ValueError with what is wrong with it."""
    if not name:
        raise ValueError("no <name>")
    box = node.find("bndbox")
    if box is None:
        raise ValueError("no <bndbox>")
    xmin, ymin, xmax, ymax = (_read_coordinate(box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (node.findtext("difficult") or "").strip() == "1"  # tools also write "" and "Unspecified"
    return VocObject(name, (xmin - 1, ymin - 1, xmax, ymax), difficult)


def _read_coordinate(box: ET.Element, tag: str) -> float:
    text = box.findtext(tag)
    if text is None:
        raise ValueError(f"no <{tag}>")
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"<{tag}> is {text.strip()[:40]!r}, not a number") from None
    if not math.isfinite(value) or abs(value) > _LARGEST_COORDINATE:
        raise ValueError(f"<{tag}> is {text.strip()[:40]}, not a pixel coordinate")
    return value


def _read_size(node: ET.Element | None) -> tuple[int, int] | None:
    """Return (width, height); None if missing or senseless, such as the 0x0 that labelImg can write."""
    if node is None:
        return None
    try:
        width, height = (int(float(node.findtext(tag) or 0)) for tag in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
