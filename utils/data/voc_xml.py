"""Pascal VOC annotations: reading and writing XML files.

VOC counts pixels from 1 and includes both ends, so x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax are the
edges of the box in pixels. A round trip is exact. Other programs expect whole pixels: `round_boxes`.
The corners of other shapes are points on the image, whose upper left corner is (0, 0): edges as they stand.

Tags may be written in any case. An element that looks like an object or a box and is not read is an error;
see `_is_object`.
"""

from __future__ import annotations

import codecs
import copy
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from utils.cli.class_names import normalize_name
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, plain_float, read_bytes

_LARGEST_COORDINATE = 1e6
_SMALLEST_SIDE = 2  # pixels of a rounded box
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
# Beginnings of Python's names of encodings. Others, such as punycode, are no text, or take hours to decode.
_TEXT_ENCODING = re.compile(r"utf|ascii|iso(8859|2022)|cp\d|gb|big5|shift_jis|euc_|koi|mac-|tis-620|hz|johab")
# Names of elements that hold objects or boxes in the XML of some tool, in lower case.
_OBJECT_OR_BOX = re.compile(
    r"obj|objects|(?:\w+_)?object|(?:b|bnd|r|rot|robnd|rotated_?|bounding_?)?box|rect(?:angle)?|polygon"
    r"|(?:\w+_)?xmin"
)
_CLASS = re.compile(r"(?:class|label|category)(?:_?(?:name|id))?|name|type|tag")
# Elements that have names and numbers in many files and are no objects.
_METADATA = re.compile(
    r"source|owner|(?:image_?)?size|camera\w*|meta\w*|exif\w*|gps\w*|geo\w*|crop|roi|page|resolution"
)
_NOT_OF_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # no parser reads them
_NUMBERS = re.compile(r"-?[\d.]+(?:[\s,;]+-?[\d.]+)*")  # such as 5,5,20,20
# Not cx and cy: with width and height they are the intrinsics of a camera.
_COORDINATE = re.compile(
    r"(?:\w+_)?(?:(?P<position>[xy](?:_?(?:\d|min|max|center))?|left|top)|right|bottom|w|h|width|height)"
)
SCORE_NAMES = ("score", "confidence", "conf", "probability", "prob")
_FOREIGN_ROOTS = {
    "annotations": "CVAT's own format; export it as PASCAL VOC 1.1",
    "hrsc_image": "the format of HRSC2016; convert it to VOC",
    "dataset": "dlib's format; convert it to VOC",
}
ROTATED = "rotated bndbox"
DELETED = "deleted"  # a count of `VocAnnotation.counted`; the others name shapes

Box = tuple[float, float, float, float]
_Fields = dict[str, list[ET.Element]]


@dataclass(frozen=True)
class VocObject:
    """One annotated object: class name, box as (x1, y1, x2, y2) edges in pixels, VOC's difficult flag.

    `score` is what tools write for predictions; NaN if it is no number, None without one.
    """

    name: str
    box: Box
    difficult: bool = False
    score: float | None = None


@dataclass(frozen=True)
class VocAnnotation:
    """Content of one XML file."""

    size: tuple[int, int] | None  # (width, height) in pixels; None if it is missing or makes no sense
    objects: tuple[VocObject, ...]  # those that can be read
    # Of the others: place in the file, counted from 1; class name, may be empty; reason.
    errors: tuple[tuple[int, str, str], ...] = ()
    # Objects whose box is the one around another shape, by its tag; under DELETED those that were skipped
    # because their <deleted> is true.
    counted: dict[str, int] = field(default_factory=dict)


def read_annotation(path: Path | str) -> VocAnnotation:
    """Read one XML annotation.

    Boxes are returned as written: they may be inverted or outside the image. Several boxes in one <object>
    are several objects. Without a <bndbox> the box is the one around a <robndbox>, <polygon> or <points>.
    CVAT's attribute `rotation`, in degrees, rotates a <bndbox>: the box is the one around the result.
    `<filename>`, `<path>` and the `<part>` elements of an object are ignored.

    Raises:
        UserError: not readable, not VOC, more than 16 MB, with a DTD, which could declare entities, with
            objects in unknown elements, or with normalized coordinates.
    """
    root = _parse(path)
    if root.tag.lower() != "annotation":
        hint = _FOREIGN_ROOTS.get(root.tag.lower())
        told = f" ({hint})" if hint else ""
        raise UserError(f"{path}: the root element is <{root.tag[:80]}>, not <annotation>{told}")
    objects: list[VocObject] = []
    errors: list[tuple[int, str, str]] = []
    counted: Counter[str] = Counter()
    for number, node in enumerate(_list_objects(root, path), start=1):
        try:
            objects += _read_objects(node, counted)
        except ValueError as error:
            names = _name_nodes(node)
            errors.append((number, normalize_name(names[0].text or "") if names else "", str(error)))
    edges = [edge for item in objects for edge in item.box]
    if edges and all(abs(edge) <= 1 for edge in edges) and not all(edge.is_integer() for edge in edges):
        raise UserError(
            f"{path}: all coordinates are between 0 and 1 and look normalized, but VOC has pixels; multiply "
            "them by the width and height of the image"
        )
    return VocAnnotation(_read_size(_fields(root)["size"]), tuple(objects), tuple(errors), dict(counted))


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
    root.extend(map(_object_node, objects))
    ET.indent(root)
    _write(path, root)


def rewrite_annotation(
    source: Path | str,
    target: Path | str,
    filename: str,
    rename: Callable[[str], str | None],
    *,
    skip_scored: bool = False,
) -> None:
    """Copy one XML annotation with other class names, atomically; all other elements stay as they are.

    `rename` returns the new name of a class, or None to skip its objects. `filename` is that of the
    image of the copy, without a folder. `skip_scored` skips objects with a score.

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
            name = None if label is None else rename(normalize_name(label.text or ""))
            scored = skip_scored and _read_score(node) is not None
            if label is None or name is None or scored:
                parent.remove(node)
            else:
                label.text = name
    _write(target, root)


def edit_annotation(path: Path | str, kept: Mapping[int, VocObject], added: Sequence[VocObject]) -> None:
    """Change the objects of one XML annotation, atomically; all that is not changed stays as it is.

    Args:
        path: the file.
        kept: the new state of each object by its place in `read_annotation(path).objects`, from 0; those that
            are missing are removed. Only what differs is written: a shape with another box becomes a
            <bndbox>, an object without a score loses its own.
        added: further objects.

    Objects that cannot be read stay as they are. Comments are lost.

    Raises:
        UserError: the file is not well-formed XML, or cannot be written.
    """
    root = _parse(path)
    parents = {child: parent for parent in root.iter() for child in parent}
    place = 0
    for node in list(_list_objects(root, path)):
        try:
            found = _read_objects(node, Counter())
        except ValueError:
            continue
        wanted = [kept.get(place + index) for index in range(len(found))]
        place += len(found)
        if wanted == found:
            continue
        parent = parents[node]
        index = list(parent).index(node)
        parent[index : index + 1] = [
            _edit_object(copy.deepcopy(node), number, old, new)
            for number, (old, new) in enumerate(zip(found, wanted, strict=True))
            if new is not None
        ]
    root.extend(map(_object_node, added))
    ET.indent(root)
    _write(path, root)


def _edit_object(node: ET.Element, number: int, old: VocObject, new: VocObject) -> ET.Element:
    """Change an <object> to be its box `number` alone, in another state."""
    fields, name = _fields(node), _name_nodes(node)[0]
    tag = next(tag for tag in ("bndbox", *_SHAPES) if fields[tag])
    for index, shape in enumerate(fields[tag]):
        if index != number:
            node.remove(shape)
    if new.name != old.name:
        name.text = new.name
    if new.box != old.box:
        shape = fields[tag][number]
        if tag != "bndbox":
            shape.clear()
            shape.tag = "bndbox"
        for child in [child for child in shape if child.tag.lower() in ("xmin", "ymin", "xmax", "ymax")]:
            shape.remove(child)
        _add_box(shape, new.box)
        _set_attribute(node, "rotation", "0.0")
    if new.difficult != old.difficult:
        flags = fields["difficult"] or [ET.SubElement(node, "difficult")]
        flags[0].text = str(int(new.difficult))
        _set_attribute(node, "difficult", str(new.difficult))
    if new.score is None and old.score is not None:
        _remove_scores(node)
    return node


def _set_attribute(node: ET.Element, name: str, value: str) -> None:
    """Set one of CVAT's attributes of an object, if it has it."""
    for pair in map(_fields, node.iterfind("attributes/attribute")):
        if _text(pair, "name").lower() == name and pair["value"]:
            pair["value"][0].text = value


def _remove_scores(node: ET.Element) -> None:
    """Remove what `_read_score` finds in an object."""
    parts = {inner for part in _fields(node)["part"] for inner in part.iter()}
    for holder in [inner for inner in node.iter() if inner not in parts]:
        for key in [key for key in holder.attrib if key.lower() in SCORE_NAMES]:
            del holder.attrib[key]
        for child in list(holder):
            is_pair = child.tag == "attribute" and _text(_fields(child), "name").lower() in SCORE_NAMES
            if child not in parts and (child.tag.rpartition("}")[2].lower() in SCORE_NAMES or is_pair):
                holder.remove(child)


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
    # Encoded at once: with encoding="utf-8" each tag is, which takes three times as long.
    text = "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode")
    if match := _NOT_OF_XML.search(text):
        raise UserError(f"{path}: a text has the character U+{ord(match[0]):04X}, which XML cannot hold")
    with atomic_write(path, "w") as file:
        file.write(text)


def _object_node(item: VocObject) -> ET.Element:
    node = ET.Element("object")
    state = {"pose": "Unspecified", "truncated": 0, "difficult": int(item.difficult)}
    _add_children(node, {"name": item.name, **state})
    _add_box(ET.SubElement(node, "bndbox"), item.box)
    if item.score is not None:
        _add_children(node, {"score": f"{item.score:.6f}"})
    return node


def _add_box(node: ET.Element, box: Box) -> None:
    x1, y1, x2, y2 = box
    _add_children(node, {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2})


def _add_children(node: ET.Element, values: dict[str, object]) -> None:
    for tag, value in values.items():
        whole = isinstance(value, float) and value.is_integer()
        ET.SubElement(node, tag).text = str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def _parse(path: Path | str) -> ET.Element:
    text = _read_text(path)
    try:
        # defusedxml refuses DTDs, which declare entities. The parser gets this decoded text: without the word
        # there is no DTD, and plain ElementTree is as safe; it takes 2 s less for 20,596 files.
        return fromstring(text, forbid_dtd=True) if "<!DOCTYPE" in text else ET.fromstring(text)
    except DefusedXmlException:
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
        if not _TEXT_ENCODING.match(codecs.lookup(encoding).name):
            raise LookupError(encoding)
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        raise UserError(f"{path}: not {encoding} text; save it as UTF-8 or declare its encoding") from None


def _list_objects(root: ET.Element, path: Path | str) -> Iterator[ET.Element]:
    """Yield the objects, also those in <objects>; raises a UserError for any in another element."""
    others, alone = [], True
    for node in root:
        inside = node if node.tag.lower() == "objects" else (node,)
        for child in inside:
            if child.tag.lower() == "object":
                alone = False
                yield child
            else:
                others.append(child)
    unread = "a box outside of an <object>" if _has_coordinates(root) else ""
    for child in others if not unread else ():
        found = _find_unread(child, _is_box)
        if not found and not _METADATA.fullmatch(child.tag.lower()):
            found = _find_unread(child, partial(_is_object, alone=alone))
        unread = unread or found
    if unread:
        raise UserError(f"{path}: {unread} is not read; write each object as <object> with a <bndbox>")


def _fields(node: ET.Element) -> _Fields:
    """Return the children of a node by tag in lower case."""
    fields: _Fields = defaultdict(list)
    for child in node:
        fields[child.tag.lower()].append(child)
    return fields


def _values(node: ET.Element) -> list[tuple[str, str]]:
    """Return the children and attributes of a node: name in lower case, text."""
    values = [*((child.tag, child.text or "") for child in node), *node.attrib.items()]
    return [(name.rpartition("}")[2].lower(), text.strip()) for name, text in values]


def _find_unread(node: ET.Element, is_content: Callable[[ET.Element], bool]) -> str:
    """Return the place of an object or a box in a node or below it, such as <item><bbox>; else empty."""
    for inner in node.iter() if len(node) else (node,):
        if is_content(inner):
            below = f"<{inner.tag[:80]}>"
            return below if inner is node else f"<{node.tag[:80]}> with {below} in it"
    return ""


def _is_box(node: ET.Element) -> bool:
    return _OBJECT_OR_BOX.fullmatch(node.tag.rpartition("}")[2].lower()) is not None


def _is_object(node: ET.Element, alone: bool) -> bool:
    """Tell whether a node has a class and coordinates, beside each other.

    In a file without any <object> (`alone`), where the loss would be the greatest, four coordinates or a
    class with any four numbers are enough.
    """
    values = _values(node)
    if len(values) < 2:
        return False
    has_class = any(text and _CLASS.fullmatch(name) for name, text in values)
    if _has_coordinates(node):
        return has_class or alone
    lists = [text.strip("[]()") for _, text in values]
    counts = [len(re.split(r"[\s,;]+", text)) for text in lists if _NUMBERS.fullmatch(text)]
    return has_class and sum(count for count in counts if alone or count > 1) >= 4


def _has_coordinates(node: ET.Element) -> bool:
    """Tell whether a node has four numbers called x, y, width, height or the like, one of them a position."""
    matches = [_COORDINATE.fullmatch(name) for name, text in _values(node) if text[-1:].isdigit()]
    found = [match for match in matches if match]
    return len(found) >= 4 and any(match["position"] for match in found)


def _name_nodes(node: ET.Element) -> list[ET.Element]:
    """Return the elements with the class of one <object>: one, unless something is wrong with it."""
    fields = _fields(node)
    results = fields["possibleresult"] if not fields["name"] else []  # FAIR1M
    return fields["name"] + [name for result in results for name in _fields(result)["name"]]


def _read_objects(node: ET.Element, counted: Counter[str]) -> list[VocObject]:
    """Read the boxes of one <object>; raises a ValueError with what is wrong with it."""
    fields, names = _fields(node), _name_nodes(node)
    name = normalize_name(names[0].text or "") if names else ""
    if is_true(_text(fields, "deleted")):  # LabelMe keeps what was deleted
        counted[DELETED] += 1
        return []
    if not name:
        raise ValueError("no <name>")
    if len(names) > 1:
        raise ValueError(f"{len(names)} names; write an <object> for each")
    known = ("part", "bndbox", *_SHAPES)
    others = [child for tag, children in fields.items() if tag not in known for child in children]
    unread = next(filter(None, (_find_unread(child, _is_box) for child in others)), "")
    tag = next((tag for tag in known[1:] if fields[tag]), None)
    if unread:
        raise ValueError(f"{unread} is not read; write a <bndbox>")
    if tag is None:
        raise ValueError("no <bndbox>")
    attributes = _attributes(node)
    boxes = [_read_bndbox(box) if tag == "bndbox" else _SHAPES[tag](box) for box in fields[tag]]
    if tag == "bndbox" and (angle := _to_number("rotation", attributes.get("rotation", "0"))):
        boxes, tag = [rotate(box, angle) for box in boxes], ROTATED
    counted.update({} if tag == "bndbox" else {tag: len(boxes)})
    difficult = is_true(_text(fields, "difficult")) or is_true(attributes.get("difficult"))
    return [VocObject(name, box, difficult, _read_score(node)) for box in boxes]


def _text(fields: _Fields, tag: str) -> str:
    return (fields[tag][0].text or "").strip() if fields[tag] else ""


def is_true(value: object) -> bool:
    """Tell whether a flag such as VOC's difficult is set: 1, True or yes, and not "" or Unspecified."""
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def _attributes(node: ET.Element) -> dict[str, str]:
    """Return CVAT's attributes of an object: value by name in lower case."""
    pairs = map(_fields, node.iterfind("attributes/attribute"))
    return {_text(pair, "name").lower(): _text(pair, "value") for pair in pairs}


def _read_score(node: ET.Element) -> float | None:
    """Return the score of an object, anywhere in it but in its parts."""
    inside = [inner for child in node if child.tag.lower() != "part" for inner in child.iter()]
    values = [value for holder in (node, *inside) for value in _values(holder)]
    values += _attributes(node).items()
    scores = (parse_score(text) for name, text in values if name in SCORE_NAMES)
    return next((score for score in scores if score is not None), None)


def parse_score(text: str) -> float | None:
    """Return a score such as 0.95 or 95%; NaN if it is no number, None if there is none."""
    if text.strip().lower() in ("", "none", "null"):
        return None
    try:
        number = plain_float(text.replace("%", ""))
    except ValueError:
        return math.nan
    return number / 100 if "%" in text else number


def _read_bndbox(node: ET.Element) -> Box:
    fields = _fields(node)
    xmin, ymin, xmax, ymax = (_read_number(fields, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return xmin - 1, ymin - 1, xmax, ymax


def _enclose_rotated(node: ET.Element) -> Box:
    """Return the box around a <robndbox>: center, sides and angle in radians, as roLabelImg writes it."""
    fields = _fields(node)
    cx, cy, width, height, angle = (_read_number(fields, tag) for tag in ("cx", "cy", "w", "h", "angle"))
    if abs(angle) > 2 * math.pi:
        raise ValueError(f"<angle> is {angle:g}, not in radians")
    box = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    return rotate(box, math.degrees(angle))


def rotate(box: Box, degrees: float) -> Box:
    """Return the box around a box that is rotated about its center; the direction makes no difference."""
    x1, y1, x2, y2 = box
    cx, cy, width, height = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    cos, sin = abs(math.cos(math.radians(degrees))) / 2, abs(math.sin(math.radians(degrees))) / 2
    right, down = width * cos + height * sin, width * sin + height * cos
    return round(cx - right, 3), round(cy - down, 3), round(cx + right, 3), round(cy + down, 3)


def _enclose_points(node: ET.Element) -> Box:
    """Return the box around points.

    They are <x1>1</x1><y1>2</y1> ... (Labelbox), <pt><x>1</x><y>2</y></pt> (LabelMe) or <point>1,2</point>
    (FAIR1M).
    """
    points = []
    fields = _fields(node)
    for tag in [tag for tag in fields if re.fullmatch(r"x\d+", tag)]:
        points.append((_read_number(fields, tag), _read_number(fields, f"y{tag[1:]}")))
    for point in fields["pt"] + fields["point"]:
        texts = (point.text or "").split(",")
        if len(point):
            points.append((_read_number(_fields(point), "x"), _read_number(_fields(point), "y")))
        elif len(texts) == 2:
            points.append((_to_number("point", texts[0]), _to_number("point", texts[1])))
    if len(points) < 3:
        raise ValueError(f"<{node.tag[:80]}> has {len(points)} points; it needs 3")
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


_SHAPES = {"robndbox": _enclose_rotated, "polygon": _enclose_points, "points": _enclose_points}


def _read_number(fields: _Fields, tag: str) -> float:
    if not fields[tag]:
        raise ValueError(f"no <{tag}>")
    if len(fields[tag]) > 1:
        raise ValueError(f"{len(fields[tag])} <{tag}>; write a <bndbox> for each box")
    return _to_number(tag, fields[tag][0].text or "")


def _to_number(tag: str, text: str) -> float:
    try:
        value = plain_float(text)
    except ValueError:
        raise ValueError(f"<{tag}> is {text.strip()[:40]!r}, not a number") from None
    if not math.isfinite(value) or abs(value) > _LARGEST_COORDINATE:
        raise ValueError(f"<{tag}> is {text.strip()[:40]}, not a pixel coordinate")
    return value


def _read_size(nodes: Sequence[ET.Element]) -> tuple[int, int] | None:
    """Return (width, height); None if missing or senseless, such as the 0x0 that labelImg can write."""
    if not nodes:
        return None
    fields = _fields(nodes[0])
    try:
        width, height = (int(plain_float(_text(fields, tag) or "0")) for tag in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
