"""Reader of annotation lists such as 2007_train.txt: one line per image, its boxes after its path.

    path/to image.jpg 48,240,195,371,11 8,12,352,498,14

A box is xmin,ymin,xmax,ymax,class with VOC's numbers, counted from 1, as the reference implementation's
voc_annotation.py copies them from the XML. The class is an index into the classes file, from 0. Paths may be
absolute, lead anywhere and contain spaces: the images are only read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import on_disk, read_text
from utils.data.folder_walk import IMAGE_SUFFIXES, files_in
from utils.formats.image_folder import ImageFolder, note_unused
from utils.formats.intermediate import SourceDataset, SourceImage, SourceObject
from utils.formats.parsing import guess_split, list_files, parse_numbers

_MAX_LIST_BYTES = 1_000_000_000


def read_annotation_lists(
    paths: Sequence[Path], class_names: Sequence[str], images: Path | None = None
) -> SourceDataset:
    """Read lists, each of which is a split if its name says so.

    With the folder `images` every image is found below it by `ImageFolder.find`. Without it relative paths
    start from the list's folder, else the working folder.

    Raises:
        UserError: a list cannot be read or is empty.
    """
    source = SourceDataset(class_names=tuple(class_names))
    folder = ImageFolder(images) if images else None
    for path in paths:
        split = guess_split(path.stem) or (path.stem if len(paths) > 1 else None)
        bases = [path.parent, Path.cwd()]
        lines = read_text(path, _MAX_LIST_BYTES).splitlines()
        if not any(line.strip() for line in lines):
            raise UserError(f"{path}: the list is empty; give a list with one line per image")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                _read_line(f"{path}: line {number}", line.strip(), folder or bases, split, source)
    missing = [path for path in {image.path: 1 for image in source.images} if not os.path.exists(path)]
    if missing and folder is None:
        where = f"{plural(len(missing), 'image')} not where the list says, such as {missing[0]}"
        source.notes.append(f"{where}; --images DIR looks for them by name")
    source.notes += folder.notes() if folder else []
    used = [image.path for image in source.images]
    beside = {path.parent for path in used if os.path.exists(path)}
    there = (path for place in beside for path in files_in(place, *IMAGE_SUFFIXES))
    source.notes += note_unused(list_files(images) if images else there, used, "in no list")
    return source


def _read_line(
    where: str, line: str, places: ImageFolder | Sequence[Path], split: str | None, source: SourceDataset
) -> None:
    words = line.split()
    while len(words) > 1 and words[-1].count(",") == 4:
        words.pop()
    boxes = line.split()[len(words) :]
    name = (line.rsplit(None, len(boxes))[0] if boxes else line).strip("\"'")
    if not name.lower().endswith(IMAGE_SUFFIXES):
        source.image_faults.append(f"{where}: {name[-80:]!r} is neither an image nor x1,y1,x2,y2,class")
        return
    if isinstance(places, ImageFolder):
        try:
            path = places.find(name)
        except ValueError as error:
            source.image_faults.append(f"{where}: {error}")
            return
    else:
        first, *others = (os.path.abspath(os.path.join(base, name)) for base in places)
        path = on_disk(Path(first))
        if not os.path.exists(path):
            path = next((found for found in map(on_disk, map(Path, others)) if os.path.exists(found)), path)
    image = SourceImage(path, splits=() if split is None else (split,))
    for number, text in enumerate(boxes, start=1):
        box = f"{where}, box {number}"
        if fault := _read_box(box, text, image, source.class_names):
            source.object_faults.append(f"{box}: {text[:60]} {fault}")
    source.images.append(image)


def _read_box(where: str, text: str, image: SourceImage, class_names: Sequence[str]) -> str:
    """Add one box to its image; returns what is wrong with it, if anything."""
    numbers = parse_numbers(text.split(","))
    if numbers is None or len(numbers) != 5:
        return "is not five numbers xmin,ymin,xmax,ymax,class"
    xmin, ymin, xmax, ymax, label = numbers
    if not label.is_integer() or not 0 <= label < len(class_names):
        return f"has the class {label:g}, but there are {len(class_names)} class names (from 0)"
    image.objects.append(SourceObject(where, class_names[int(label)], (xmin - 1, ymin - 1, xmax, ymax)))
    return ""
