"""Annotations from other formats to VOC, and from VOC to COCO: python data.py convert SOURCE --out DIR.

The source is only read. Everything is checked before the first file is written, and the new folder appears
whole or not at all. Images are copied byte by byte.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from utils.cli.class_names import read_class_names
from utils.cli.console import log, one_line, progress
from utils.cli.errors import UserError
from utils.cli.tool_configs import ConvertConfig
from utils.formats.coco import read_coco, write_coco
from utils.formats.dataset import Dataset, build_dataset
from utils.formats.detect import detect_format
from utils.formats.labelme import read_labelme
from utils.formats.lists import read_lists
from utils.formats.source import Source
from utils.formats.voc import read_voc, write_voc
from utils.formats.yolo import read_yolo
from utils.tools.folders import new_folder, refuse_used


def run(config: ConvertConfig) -> int:
    """Convert, print what was found and what to type next; returns the exit status.

    Raises:
        UserError: the sources cannot be read, hold faults that may not be skipped, or the folder cannot be
            written.
    """
    sources = [Path(source) for source in config.sources]
    out = Path(os.path.abspath(str(config.out)))
    images = Path(config.images) if config.images else None
    kind, target = _choose_formats(config, sources)
    refuse_used(out)
    names = read_class_names(config.classes) if config.classes else ()
    source = _read(kind, sources, names, images)
    for note in source.notes:
        log(one_line(note))
    if names:
        _keep_classes(source, names)
    dataset = build_dataset(source, skip_bad=config.skip_bad)
    written = _write(dataset, target, out)
    for line in [f"{kind} -> {target}  {config.out}", *dataset.summary()]:
        print(one_line(line))
    for name in written:
        print(one_line(f"{config.out}/{name}"))
    following = ["check", "--data", str(config.out)] if target == "voc" else _way_back(str(config.out))
    print(one_line(f"next: {shlex.join(['python', 'data.py', *following])}"))
    return 0


def _way_back(out: str) -> list[str]:
    return ["convert", out, "--out", out.rstrip("/\\") + "_voc"]


def _choose_formats(config: ConvertConfig, sources: list[Path]) -> tuple[str, str]:
    kind = config.source_format or detect_format(sources)
    target = config.target_format or ("coco" if kind == "voc" else "voc")
    if kind == target:
        raise UserError(f"--to {target}: {sources[0]} is {kind} already; give --from if it is not")
    if len(sources) > 1 and kind not in ("coco", "list"):
        raise UserError(f"{sources[1]}: one SOURCE at a time for {kind}; only coco and list take several")
    if kind == "list" and not config.classes:
        raise UserError(f"{sources[0]}: holds class numbers only; give --classes FILE, a name a line")
    if kind == "list" and sources[0].is_dir():
        raise UserError(f"{sources[0]}: is a folder; name the .txt file")
    if kind == "voc" and (config.images or not sources[0].is_dir()):
        raise UserError(f"{config.images or sources[0]}: data in VOC layout is one folder, with its images")
    return kind, target


def _read(kind: str, sources: list[Path], names: tuple[str, ...], images: Path | None) -> Source:
    if kind == "coco":
        return read_coco(sources, images)
    if kind == "yolo":
        return read_yolo(sources[0], names, images)
    if kind == "labelme":
        return read_labelme(sources[0], images)
    if kind == "list":
        return read_lists(sources, names, images)
    return read_voc(sources[0])


def _keep_classes(source: Source, names: tuple[str, ...]) -> None:
    """Hold a source to the classes that are wanted, in their order."""
    source.class_names = names
    for image in source.images:
        others = [item for item in image.objects if item.name not in names]
        source.object_faults += [f"{o.where}: class {o.name!r} is not in --classes" for o in others]
        image.objects = [item for item in image.objects if item.name in names]


def _write(dataset: Dataset, target: str, out: Path) -> list[str]:
    """Write the new folder; return the files that are worth a word."""
    with new_folder(out) as folder:
        place = folder / ("JPEGImages" if target == "voc" else "images")
        place.mkdir()
        for picture in progress(dataset.pictures, "copying"):
            shutil.copyfile(picture.path, place / picture.file_name)
        if target == "coco":
            return write_coco(folder, dataset)
        write_voc(folder, dataset)
    return []
