"""Pascal VOC folders, Annotations/, JPEGImages/ and ImageSets/Main/: reader and writer of convert."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.dataset_report import describe_counted
from utils.data.samples import DataFolder, Sample, load_samples
from utils.data.voc_xml import read_annotation, round_boxes, write_annotation
from utils.formats.intermediate import ConvertedDataset, SourceDataset, SourceImage, SourceObject
from utils.formats.parsing import clean_name


def read_voc(root: Path, unlabelled: str = "skip") -> SourceDataset:
    """Read all splits of a VOCdevkit, a folder in VOC layout, or images with XML beside them.

    VOC's lists of single classes (cat_train, with a column of 1, 0 and -1) are not splits.

    Raises:
        UserError: no data in one of the layouts, or a split list that cannot be read.
    """
    source = SourceDataset()
    counted: Counter[str] = Counter()
    folder = DataFolder(root)
    names = folder.list_main_splits()
    class_lists = sorted(set(folder.list_splits()) - set(names))
    if class_lists:
        source.notes.append(f"{len(class_lists)} lists of single classes, such as {class_lists[0]}, skipped")
    read: dict[str, SourceImage | None] = {}
    for name in names:
        for sample in load_samples(folder, name, unlabelled=unlabelled):
            if sample.image_id not in read:
                read[sample.image_id] = _read_image(sample, source, counted)
            image = read[sample.image_id]
            if image is not None:
                source.images.append(replace(image, splits=(name,)))
    source.notes += [describe_counted(counted)] if counted else []
    if unused := folder.describe_unused(unlabelled, names):
        source.notes.append(
            f"not used: {unused}; which: python data.py check --data {shlex.quote(str(root))}"
        )
    return source


def _read_image(sample: Sample, source: SourceDataset, counted: Counter[str]) -> SourceImage | None:
    """Read one annotation; None, and a fault of the source, if it cannot be used."""
    try:
        if sample.problem:
            raise UserError(sample.problem)
        if sample.xml_path is None:
            return SourceImage(sample.image_path, [])
        annotation = read_annotation(sample.xml_path)
    except UserError as error:
        source.image_faults.append(str(error))
        return None
    counted.update(annotation.counted)
    for number, name, reason in annotation.errors:
        named = f" ({name})" if name else ""
        source.image_faults.append(f"{sample.xml_path}: object {number}{named}: {reason}")
    if annotation.errors:
        return None
    objects = [
        SourceObject(f"{sample.xml_path}: object {number}", item.name, item.box, item.difficult, item.score)
        for number, item in enumerate(annotation.objects, start=1)
    ]
    return SourceImage(sample.image_path, objects, size=annotation.size)


def write_voc(folder: Path, dataset: ConvertedDataset, *, float_boxes: bool = False) -> list[str]:
    """Write Annotations/ and, if the source has splits, ImageSets/Main/<split>.txt.

    Boxes are rounded to whole pixels, unless `float_boxes`; a line is returned if any changes.

    A lone split `all` gets no list: it is what the reader makes of a folder without lists.
    """
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    rounded = 0
    for image in dataset.images:
        xml = folder / "Annotations" / f"{image.image_id}.xml"
        objects = round_boxes(image.objects, image.width, image.height)
        rounded += sum(new != old for new, old in zip(objects, image.objects, strict=True))
        written = image.objects if float_boxes else objects
        write_annotation(xml, image.file_name, image.width, image.height, written)
    splits = dataset.splits if list(dataset.splits) != ["all"] else {}
    for split, images in splits.items():
        with atomic_write(folder / "ImageSets" / "Main" / f"{clean_name(split)}.txt", "w") as file:
            file.writelines(f"{image.image_id}\n" for image in images)
    if not rounded or float_boxes:
        return []
    return [f"boxes rounded to whole pixels: {plural(rounded, 'object')}; --float-boxes keeps fractions"]
