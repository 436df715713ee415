"""data.py convert: annotations from COCO, YOLO, labelme, lists or VOC to VOC, COCO or YOLO.

The source is only read. Everything is checked before the first file is written, and the new folder appears
complete or not at all. Images are copied byte by byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from utils.cli.class_names import read_class_names
from utils.cli.console import log, progress
from utils.cli.errors import UserError
from utils.cli.tool_configs import SOURCE_FORMATS, ConvertConfig
from utils.formats.annotation_list import read_annotation_lists
from utils.formats.coco import find_coco_files, read_coco, write_coco
from utils.formats.intermediate import ConvertedDataset, SourceDataset, build_dataset
from utils.formats.labelme import read_labelme
from utils.formats.parsing import contains, list_files
from utils.formats.voc import read_voc, write_voc
from utils.formats.yolo import looks_like_yolo, place_images, read_yolo, write_yolo
from utils.tools.atomic_folder import atomic_folder, check_unused
from utils.tools.printing import next_command, print_lines

_FILE_FORMATS = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".data": "yolo", ".txt": "list"}
_SNIFFED = 100  # JSON files that are looked into to tell their format


def run(config: ConvertConfig) -> int:
    """Convert, print the counts and the next command; returns the exit status.

    Raises:
        UserError: the sources cannot be read, have faults and --skip-bad is not given, or the folder cannot
            be written.
    """
    sources = [Path(source) for source in config.sources]
    out = Path(os.path.abspath(str(config.out)))
    kind, target = _choose_formats(config, sources)
    check_unused(out)
    names = read_class_names(config.classes) if config.classes else ()
    if kind == "voc":
        source = read_voc(sources[0], config.unlabelled)
    else:
        source = _read(kind, sources, names, Path(config.images) if config.images else None)
    for note in source.notes:
        log(note)
    if names:
        _select_classes(source, names)
    dataset = build_dataset(source, skip_bad=config.skip_bad, skip_unreviewed=config.skip_unreviewed)
    written = _write(dataset, target, out, config)
    following = ["check", "--data", str(config.out)]
    if target != "voc":
        following = ["convert", str(config.out), "--out", str(config.out).rstrip("/\\") + "_voc"]
    lines = [f"{kind} -> {target}  {config.out}", *dataset.summary(), *written]
    print_lines([*lines, next_command("data.py", *following)])
    return 0


def _choose_formats(config: ConvertConfig, sources: Sequence[Path]) -> tuple[str, str]:
    kind = config.source_format or detect_format(sources)
    target = config.target_format or ("coco" if kind == "voc" else "voc")
    if kind == target:
        raise UserError(f"--to {target}: {sources[0]} is {kind} already; give --from if it is not")
    if config.float_boxes and target != "voc":
        raise UserError(f"--float-boxes: is for --to voc; the boxes of {target} are exact without it")
    if config.unlabelled != "skip" and kind != "voc":
        raise UserError(f"--unlabelled: is for VOC folders, not for {kind}; leave it out")
    if len(sources) > 1 and kind not in ("coco", "list"):
        raise UserError(f"{sources[1]}: {kind} takes one SOURCE only; convert them one by one")
    if kind == "list" and not config.classes:
        raise UserError(f"{sources[0]}: has class numbers only; give --classes FILE with one name per line")
    if kind == "list" and sources[0].is_dir():
        raise UserError(f"{sources[0]}: is a folder; give the .txt file")
    if kind == "voc" and (config.images or not sources[0].is_dir()):
        raise UserError(
            f"{config.images or sources[0]}: VOC is one folder with its images; give it as SOURCE"
        )
    return kind, target


def detect_format(sources: Sequence[Path]) -> str:
    """Return the format of the sources, one of SOURCE_FORMATS.

    Raises:
        UserError: a source has no known format or several, or the sources differ.
    """
    found = {path: _formats_of(path) for path in sources}
    for path, names in found.items():
        if not names:
            raise UserError(
                f"{path}: not recognized as any of {', '.join(SOURCE_FORMATS)}; name the format with --from, "
                "or give the folder or file that holds the annotations"
            )
        if len(names) > 1:
            raise UserError(f"{path}: looks like {' and '.join(names)}; choose one with --from")
    kinds = sorted({name for names in found.values() for name in names})
    if len(kinds) > 1:
        raise UserError(f"SOURCE: has several formats ({', '.join(kinds)}); convert them one by one")
    return kinds[0]


def _formats_of(path: Path) -> list[str]:
    if path.is_file():
        kind = _FILE_FORMATS.get(path.suffix.lower())
        if kind == "coco" and _is_labelme(path):
            kind = "labelme"
        return [kind] if kind else []
    coco_files = find_coco_files(path)
    signs = {
        "coco": bool(coco_files) and not _is_labelme(coco_files[0]),
        "yolo": looks_like_yolo(path),
        "labelme": any(map(_is_labelme, islice(list_files(path, (".json",)), _SNIFFED))),
        "voc": any(any(path.glob(pattern)) for pattern in ("JPEGImages", "*/JPEGImages"))
        or any(list_files(path, (".xml",))),
    }
    return [name for name, shows in signs.items() if shows]


def _is_labelme(path: Path) -> bool:
    return contains(path, b'"shapes"')


def _read(kind: str, sources: Sequence[Path], names: tuple[str, ...], images: Path | None) -> SourceDataset:
    if kind == "coco":
        return read_coco(sources, images)
    if kind == "yolo":
        return read_yolo(sources[0], names, images)
    if kind == "labelme":
        return read_labelme(sources[0], images)
    return read_annotation_lists(sources, names, images)


def _select_classes(source: SourceDataset, names: tuple[str, ...]) -> None:
    """Restrict a source to the classes of --classes, in their order; other objects are faults."""
    source.class_names = names
    for image in source.images:
        others = [item for item in image.objects if item.name not in names]
        source.object_faults += [f"{o.where}: class {o.name!r} is not in --classes" for o in others]
        image.objects = [item for item in image.objects if item.name in names]


def _write(dataset: ConvertedDataset, target: str, out: Path, config: ConvertConfig) -> list[str]:
    """Write the new folder; returns lines about it."""
    places = {"JPEGImages" if target == "voc" else "images": dataset.images}
    if target == "yolo":
        places = place_images(dataset)
    with atomic_folder(out) as folder:
        for place in places:
            (folder / place).mkdir(parents=True)
        copies = [(place, image) for place, images in places.items() for image in images]
        for place, image in progress(copies, "copying"):
            shutil.copyfile(image.path, folder / place / image.file_name)
        if target == "coco":
            return [f"{config.out}/{name}" for name in write_coco(folder, dataset)]
        if target == "yolo":
            lines = write_yolo(folder, places, dataset.class_names, out)
            return [f"{config.out}/data.yaml", *lines]
        return write_voc(folder, dataset, float_boxes=config.float_boxes)
