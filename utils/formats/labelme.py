"""Reader of labelme's JSON files, one per image; every shape becomes its enclosing box.

Points and lines have no area and are skipped; a note counts them. A shape with `difficult` set, itself
(X-AnyLabeling) or among its flags, is a difficult object.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from utils.cli.errors import UserError
from utils.cli.files import MAX_TEXT_BYTES, read_json
from utils.data.voc_xml import Box
from utils.formats.image_folder import ImageFolder, note_unused
from utils.formats.intermediate import SourceDataset, SourceImage, SourceObject
from utils.formats.parsing import (
    enclosing_box,
    find_score,
    folder_split,
    is_marked,
    list_files,
    path_inside,
    shown,
    to_class_name,
    to_numbers,
    to_size,
)

_WITHOUT_AREA = ("point", "points", "line", "linestrip")
# Shapes whose box is the one around their points, with the least number of them.
_CORNERS = {"rectangle": 2, "polygon": 3, "rotation": 4, "quadrilateral": 4, "oriented_rectangle": 4}


def read_labelme(folder: Path, images: Path | None = None) -> SourceDataset:
    """Read a JSON file, or all below a folder; folders train, val and test directly in it are splits.

    Images are found below the folder `images` by `ImageFolder.find`. Without it an imagePath is tried as it
    stands, then below the source.

    Raises:
        UserError: there is no JSON file.
    """
    files = [folder] if folder.is_file() else list(list_files(folder, (".json",)))
    root = folder.parent if folder.is_file() else folder
    if not files:
        raise UserError(f"{folder}: no .json file in it; give the folder of the JSON files")
    source = SourceDataset()
    image_folder = ImageFolder(images or root)
    shapes: Counter[str] = Counter()
    for path in files:
        try:
            source.images.append(_read_file(path, root, image_folder, images is not None, source, shapes))
        except UserError as error:
            source.image_faults.append(str(error))
    enclosed = ", ".join(
        f"{n} {kind}" for kind, n in shapes.items() if kind not in (*_WITHOUT_AREA, "rectangle")
    )
    skipped = ", ".join(f"{n} {kind}" for kind, n in shapes.items() if kind in _WITHOUT_AREA)
    source.notes += [f"shapes that become their enclosing box: {enclosed}"] if enclosed else []
    source.notes += [f"shapes without area, skipped: {skipped}"] if skipped else []
    source.notes += image_folder.notes()
    used = [image.path for image in source.images]
    source.notes += note_unused(list_files(images or root), used, "without a JSON file")
    return source


def _read_file(
    path: Path, root: Path, folder: ImageFolder, by_name: bool, source: SourceDataset, shapes: Counter[str]
) -> SourceImage:
    data = read_json(path, MAX_TEXT_BYTES)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise UserError(f"{path}: not labelme: it has no list `shapes`")
    image_path = _find_image(path, root, folder, by_name, data)
    split = folder_split(path.relative_to(root))
    size = to_size(data.get("imageWidth"), data.get("imageHeight"))
    image = SourceImage(image_path, splits=(split,) if split else (), size=size)
    for number, shape in enumerate(data["shapes"], start=1):
        where = f"{path}: shape {number}"
        if fault := _read_shape(where, shape, image, shapes):
            source.object_faults.append(f"{where}: {fault}")
    return image


def _find_image(path: Path, root: Path, folder: ImageFolder, by_name: bool, data: dict[str, Any]) -> Path:
    named = data.get("imagePath")
    found = None if by_name else path_inside(root, named, path.parent)
    fault = f"{shown(named)} is not found below {folder.folder}"
    if found is None or not os.path.exists(found):
        try:
            found = folder.find(named)
        except ValueError as error:
            if by_name:
                raise UserError(f"{path}: imagePath {error}") from None
            fault = str(error)
    if found is not None and os.path.exists(found):
        return found
    if data.get("imageData"):
        raise UserError(
            f"{path}: image {shown(named)} is only in this file (imageData); save it as an image, and "
            "name its folder with --images DIR"
        )
    raise UserError(f"{path}: imagePath {fault}; give --images DIR")


def _read_shape(where: str, shape: Any, image: SourceImage, shapes: Counter[str]) -> str:
    """Add one shape to its image; returns what is wrong with it, if anything."""
    if not isinstance(shape, dict):
        return "is not a JSON object"
    name = to_class_name(shape.get("label"))
    if name is None:
        return f"label {shown(shape.get('label'))} is not a class name"
    kind = shape.get("shape_type", "polygon")  # the only kind before version 3.3
    if kind not in _WITHOUT_AREA:
        values = shape.get("points")
        pairs = [to_numbers(pair) for pair in values] if isinstance(values, list) else [None]
        points = [(pair[0], pair[1]) for pair in pairs if pair is not None and len(pair) == 2]
        if len(points) != len(pairs):
            return f"points {shown(values)} are not pairs of pixel numbers"
        box = _to_box(kind, points)
        if box is None:
            return f"a shape_type {shown(kind)} of {len(points)} points has no box"
        difficult = is_marked("difficult", shape, shape.get("flags"))
        image.objects.append(
            SourceObject(where, name, box, difficult, find_score(shape, shape.get("attributes")))
        )
    shapes[kind] += 1
    return ""


def _to_box(kind: Any, points: list[tuple[float, float]]) -> Box | None:
    if kind == "circle" and len(points) == 2:  # the center, and a point on the circle
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    if kind == "mask" and len(points) == 2:  # its first and last pixel
        x1, y1, x2, y2 = enclosing_box(points)
        return x1, y1, x2 + 1, y2 + 1
    is_known = isinstance(kind, str) and kind in _CORNERS
    return enclosing_box(points) if is_known and len(points) >= _CORNERS[kind] else None
