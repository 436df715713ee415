"""data.py augment: a data set with augmented copies of its training images.

It is for programs without augmentation. train.py augments every epoch differently, and needs no copies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from nets.structures import Target
from utils.cli.class_names import read_class_names
from utils.cli.console import log, plural, progress, warn
from utils.cli.files import atomic_write, free_name
from utils.cli.tool_configs import JPEG_QUALITY, AugmentConfig
from utils.data.augmentation_check import check_augmentation
from utils.data.dataset_report import Record, count_overlap
from utils.data.prepare import TrainingData, prepare_splits, prepare_training
from utils.data.samples import DataFolder
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.data.voc_xml import VocObject, read_annotation, rewrite_annotation, round_boxes, write_annotation
from utils.tools.atomic_folder import atomic_folder, check_unused
from utils.tools.printing import next_command, print_lines
from utils.vision.image_reader import Pixels


def run(config: AugmentConfig) -> int:
    """Write the new folder and print what is in it.

    Raises:
        UserError: the data cannot be used, the folder is in use, or it cannot be written.
    """
    out = Path(str(config.out))
    check_unused(out)
    data = prepare_training(config, config.train, seed=config.seed)
    splits = [*data.train_splits, *data.val_splits]
    parts: dict[str, Sequence[Record]] = {"train": data.train.records}
    if data.val is not None:
        parts["val"] = data.val.records
        if not data.val_splits:
            log("val: the held-out images get a list and no copies, so that no copy shows one of them")
    folder_of_data = DataFolder(config.data)
    tests = [name for name in folder_of_data.list_splits() if name.rpartition("/")[2] == "test"]
    if tests := [name for name in tests if name not in data.train_splits]:
        splits += tests
        parts["test"] = prepare_splits(config, tests, training=False)[0].records
        if shared := count_overlap(data.train.records, parts["test"]):
            warn(f"{plural(shared, 'image')} in both training and test lists; their copies show test images")
    records = {record.image_id: record for part in parts.values() for record in part}
    names = name_images(list(records), config.copies)
    if any("/" in image_id for image_id in records):
        first = next(iter(records))
        log(f"all images go into one folder: {first} is now called {names[first][0]}")
    xml = _find_xml(folder_of_data, config.unlabelled, splits)
    if scored := _count_scored(config, data.train.records, xml):
        objects = plural(scored, "object")
        warn(f"{objects} with a score, which augmented copies lack; --skip-unreviewed skips them")
    lists = {part: [names[record.image_id][0] for record in found] for part, found in parts.items()}
    lists["train"] += [name for record in parts["train"] for name in names[record.image_id][1:]]
    with atomic_folder(out) as folder:
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        for image_id in progress(records, "copying"):
            _copy(folder, names[image_id][0], records[image_id], xml.get(image_id), config)
        _write_copies(folder, config, data, names)
        for name, listed in lists.items():
            with atomic_write(folder / "ImageSets" / "Main" / f"{name}.txt", "w") as file:
                file.writelines(f"{line}\n" for line in listed)
    for name, listed in lists.items():
        copies = len(listed) - len(parts[name])
        print(f"{name}: {len(listed)} images" + (f", {copies} of them copies" if name == "train" else ""))
    print("there is no list trainval: images held out of it would be visible in the copies")
    arguments = ["--data", str(out), "--mosaic", "0", *(["--skip-bad"] if config.skip_bad else [])]
    print_lines([f"written: {out}", next_command("train.py", *arguments)])
    return 0


def name_images(image_ids: Sequence[str], copies: int) -> dict[str, list[str]]:
    """Name each image and its copies in one folder; all names differ, also without regard to case.

    Of an image_id such as VOC2007/000005 the names are VOC2007_000005, then VOC2007_000005_aug1 and so on.
    """
    taken: set[str] = set()
    own = {image_id: free_name(image_id.replace("/", "_"), taken) for image_id in image_ids}
    numbers = range(1, copies + 1)
    return {i: [name, *(free_name(f"{name}_aug{n}", taken) for n in numbers)] for i, name in own.items()}


def _find_xml(folder: DataFolder, unlabelled: str, splits: Sequence[str]) -> dict[str, Path]:
    """Return the XML of each image that has one."""
    return {
        sample.image_id: sample.xml_path
        for split in splits
        for sample in folder.load(split, unlabelled, on_warning=lambda _: None)
        if sample.xml_path is not None
    }


def _count_scored(config: AugmentConfig, records: Sequence[Record], xml: Mapping[str, Path]) -> int:
    if config.skip_unreviewed:
        return 0
    found = (read_annotation(xml[record.image_id]) for record in records if record.image_id in xml)
    return sum(item.score is not None for annotation in found for item in annotation.objects)


def _copy(folder: Path, name: str, record: Record, xml: Path | None, config: AugmentConfig) -> None:
    """Copy an image with its XML, byte by byte where neither classes nor the image's name change."""
    image_name = name + record.image_path.suffix
    shutil.copyfile(record.image_path, folder / "JPEGImages" / image_name)
    target = folder / "Annotations" / f"{name}.xml"
    if xml is None:
        write_annotation(target, image_name, record.width, record.height, ())
    elif config.rename or config.classes or config.skip_unreviewed or image_name != record.image_path.name:
        wanted = read_class_names(config.classes) if config.classes else None

        def rename(written: str) -> str | None:
            label = config.renames.get(written, written)
            return label if wanted is None or label in wanted else None

        rewrite_annotation(xml, target, image_name, rename, skip_scored=config.skip_unreviewed)
    else:
        shutil.copyfile(xml, target)


def _write_copies(
    folder: Path, config: AugmentConfig, data: TrainingData, names: Mapping[str, Sequence[str]]
) -> None:
    settings = AugmentSettings(config.mosaic, 0.0, config.augment)
    augmented = TrainDataset(data.train, config.imgsz, settings, config.seed)
    check_augmentation(augmented.augmenter)
    keys = [(copy, index) for index in range(len(data.train)) for copy in range(1, config.copies + 1)]
    for copy, index in progress(keys, "augmenting"):
        image, target = augmented.render((copy, index))
        name = names[data.train.records[index].image_id][copy]
        _write_jpeg(folder / "JPEGImages" / f"{name}.jpg", image)
        height, width = config.imgsz
        objects = list_objects(target, data.train.class_names)
        if not config.float_boxes:
            objects = round_boxes(objects, width, height)
        write_annotation(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", width, height, objects)


def list_objects(target: Target, class_names: Sequence[str]) -> list[VocObject]:
    """Return the objects of a target."""
    return [
        VocObject(class_names[label], (x1, y1, x2, y2), difficult)
        for (x1, y1, x2, y2), label, difficult in zip(
            target.boxes.tolist(), target.labels.tolist(), target.difficult.tolist(), strict=True
        )
    ]


def _write_jpeg(path: Path, image: Pixels) -> None:
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())
