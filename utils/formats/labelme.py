"""The JSON files of labelme, one an image; every shape becomes the box around it.

Points and lines have no area and are left out, said with their number. A shape whose flag `difficult` is set
is a difficult object.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from utils.cli.errors import UserError
from utils.data.voc import Box
from utils.formats.reading import (
    MAX_TEXT_BYTES,
    list_files,
    path_inside,
    read_json,
    shown,
    to_class_name,
    to_number,
    to_size,
)
from utils.formats.source import Source, SourceImage, SourceObject, folder_split, polygon_box

_FLAT = ("point", "points", "line", "linestrip")


def read_labelme(folder: Path, images: Path | None = None) -> Source:
    """Read every JSON file below a folder; folders train, val and test directly in it are splits.

    Args:
        folder: where the JSON files lie, or one of them.
        images: where the images lie; None follows each file's imagePath, which must stay in the folder.

    Raises:
        UserError: there is no JSON file.
    """
    files = [folder] if folder.is_file() else list(list_files(folder, (".json",)))
    root = folder.parent if folder.is_file() else folder
    if not files:
        raise UserError(f"{folder}: no .json file in it")
    source = Source()
    shapes: Counter[str] = Counter()
    for path in files:
        try:
            source.images.append(_read_file(path, root, images, source, shapes))
        except UserError as error:
            source.image_faults.append(str(error))
    turned = ", ".join(f"{n} {kind}" for kind, n in shapes.items() if kind not in (*_FLAT, "rectangle"))
    flat = ", ".join(f"{n} {kind}" for kind, n in shapes.items() if kind in _FLAT)
    source.notes += [f"shapes that become the box around them: {turned}"] if turned else []
    source.notes += [f"shapes without area, left out: {flat}"] if flat else []
    source.notes += _count_unlabelled(source, images or root)
    return source


def _count_unlabelled(source: Source, folder: Path) -> list[str]:
    seen = {image.path for image in source.images}
    others = [path for path in list_files(Path(folder).absolute()) if path not in seen]
    return [f"{len(others)} images without a JSON file, such as {others[0]}, left out"] if others else []


def _read_file(
    path: Path, root: Path, images: Path | None, source: Source, shapes: Counter[str]
) -> SourceImage:
    data = read_json(path, MAX_TEXT_BYTES)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise UserError(f"{path}: not labelme: it has no list `shapes`")
    image_path = _find_image(path, root, images, data.get("imagePath"))
    split = folder_split(path.relative_to(root).parts[0]) if path.parent != root else None
    size = to_size(data.get("imageWidth"), data.get("imageHeight"))
    image = SourceImage(image_path, splits=(split,) if split else (), size=size)
    for number, shape in enumerate(data["shapes"], start=1):
        where = f"{path}: shape {number}"
        fault = _read_shape(where, shape, image, shapes)
        if fault:
            source.object_faults.append(f"{where}: {fault}")
    return image


def _find_image(path: Path, root: Path, images: Path | None, named: Any) -> Path:
    found = path_inside(root, named, path.parent)
    if images is not None and isinstance(named, str):
        found = path_inside(images, named.replace("\\", "/").rpartition("/")[2])
    if found is None:
        raise UserError(f"{path}: imagePath {shown(named)} is no path inside {root}; give --images DIR")
    return found


def _read_shape(where: str, shape: Any, image: SourceImage, shapes: Counter[str]) -> str:
    """Add one shape to its image; return what is wrong with it, if something is."""
    if not isinstance(shape, dict):
        return "is no object with names and values"
    name = to_class_name(shape.get("label"))
    if name is None:
        return f"label {shown(shape.get('label'))} is no class name"
    kind = shape.get("shape_type", "polygon")  # versions before 3.3 know nothing else
    if isinstance(kind, str) and kind in _FLAT:
        shapes[kind] += 1
        return ""
    points = _to_points(shape.get("points"))
    if points is None:
        return f"points {shown(shape.get('points'))} are not pairs of pixel numbers"
    box = _to_box(kind, points)
    if box is None:
        return f"a shape_type {shown(kind)} of {len(points)} points has no box"
    shapes[kind] += 1
    flags = shape.get("flags")
    difficult = isinstance(flags, dict) and flags.get("difficult") is True
    image.objects.append(SourceObject(where, name, box, difficult))
    return ""


def _to_points(values: Any) -> list[tuple[float, float]] | None:
    if not isinstance(values, list):
        return None
    points: list[tuple[float, float]] = []
    for value in values:
        pair = [to_number(part) for part in value] if isinstance(value, list) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None:
            return None
        points.append((pair[0], pair[1]))
    return points


def _to_box(kind: Any, points: list[tuple[float, float]]) -> Box | None:
    if kind == "circle" and len(points) == 2:  # the center, and a point on the circle
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    if kind == "mask" and len(points) == 2:  # its first and last pixel
        x1, y1, x2, y2 = polygon_box(points)
        return x1, y1, x2 + 1, y2 + 1
    if (kind == "rectangle" and len(points) >= 2) or (kind == "polygon" and len(points) >= 3):
        return polygon_box(points)
    return None
