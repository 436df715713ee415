"""Pascal VOC as source and as target: Annotations/, JPEGImages/ and ImageSets/Main/."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.layout import list_main_splits, list_splits
from utils.data.samples import Sample, load_samples
from utils.data.voc import read_annotation, write_annotation
from utils.formats.dataset import Dataset
from utils.formats.reading import clean_name
from utils.formats.source import Source, SourceImage, SourceObject


def read_voc(root: Path) -> Source:
    """Read a VOCdevkit, a folder in VOC layout, or images with XML beside them.

    The images of all splits are taken. VOC's lists of single classes (cat_train, with a column of 1, 0 and
    -1) are no splits.

    Raises:
        UserError: no data in one of the layouts, or a split list that cannot be read.
    """
    source = Source()
    names = list_main_splits(root)
    class_lists = sorted(set(list_splits(root)) - set(names))
    if class_lists:
        source.notes.append(f"{len(class_lists)} lists of single classes, such as {class_lists[0]}, left out")
    read: dict[str, SourceImage | None] = {}
    for name in names:
        for sample in load_samples(root, name):
            if sample.image_id not in read:
                read[sample.image_id] = _read_image(sample, source)
            image = read[sample.image_id]
            if image is not None:
                source.images.append(replace(image, splits=(name,)))
    return source


def write_voc(folder: Path, dataset: Dataset) -> None:
    """Write Annotations/ and, where the source knows splits, ImageSets/Main/<split>.txt.

    A lone split `all` needs no list: it is what the reader takes a folder without lists for.
    """
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for picture in dataset.pictures:
        write_annotation(
            folder / "Annotations" / f"{picture.image_id}.xml",
            picture.file_name,
            picture.width,
            picture.height,
            picture.objects,
        )
    splits = dataset.splits if list(dataset.splits) != ["all"] else {}
    for split, pictures in splits.items():
        text = "".join(f"{picture.image_id}\n" for picture in pictures)
        with atomic_write(folder / "ImageSets" / "Main" / f"{clean_name(split)}.txt", "w") as file:
            file.write(text)


def _read_image(sample: Sample, source: Source) -> SourceImage | None:
    """Read one annotation; where it is not usable the source gets a fault."""
    try:
        if sample.problem:
            raise UserError(sample.problem)
        assert sample.xml_path is not None  # images without XML were left out
        annotation = read_annotation(sample.xml_path)
    except UserError as error:
        source.image_faults.append(str(error))
        return None
    for number, name, reason in annotation.errors:
        named = f" ({name})" if name else ""
        source.image_faults.append(f"{sample.xml_path}: object {number}{named}: {reason}")
    if annotation.errors:
        return None
    objects = [
        SourceObject(f"{sample.xml_path}: object {number}", item.name, item.box, item.difficult)
        for number, item in enumerate(annotation.objects, start=1)
    ]
    return SourceImage(sample.image_path, objects, size=annotation.size)
