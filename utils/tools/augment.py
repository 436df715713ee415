"""data.py augment: a data set with augmented copies of its training images, for programs that make none.

train.py augments while it trains, in every epoch anew, and needs no copies.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2

from nets.structures import Target
from utils.cli.console import log, one_line, progress, warn
from utils.cli.files import atomic_write
from utils.cli.tool_configs import JPEG_QUALITY, AugmentConfig
from utils.data.dataset_report import count_overlap
from utils.data.layout import list_splits
from utils.data.prepare import TrainingData, prepare_splits, prepare_training
from utils.data.sample_report import Record
from utils.data.samples import Sample, load_samples
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.data.voc import VocObject, write_annotation
from utils.tools.folders import new_folder, refuse_used
from utils.vision.image_reader import Pixels


def run(config: AugmentConfig) -> int:
    """Write the new folder and print what is in it.

    Raises:
        UserError: the data cannot be used, the folder is in use, or it cannot be written.
    """
    out = Path(str(config.out))
    refuse_used(out)
    data, parts = _read(config)
    records = {record.image_id: record for part in parts.values() for record in part}
    ids = name_images(list(records), config.copies)
    if any("/" in image_id for image_id in records):
        first = next(iter(records))
        log(f"one folder of all: {first} is now called {ids[first][0]}")
    xml = _find_xml(config, parts, data)
    with new_folder(out) as folder:
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        for image_id in progress(records, "copying"):
            _copy(folder, ids[image_id][0], records[image_id], xml.get(image_id))
        _write_copies(folder, config, data, ids)
        lists = {name: [ids[record.image_id][0] for record in part] for name, part in parts.items()}
        lists["train"] += [copy for record in parts["train"] for copy in ids[record.image_id][1:]]
        for name, listed in lists.items():
            with atomic_write(folder / "ImageSets" / "Main" / f"{name}.txt", "w") as file:
                file.writelines(f"{line}\n" for line in listed)
    for name, listed in lists.items():
        more = f", {len(listed) - len(parts[name])} of them copies" if name == "train" else ""
        print(f"{name}: {len(listed)} images{more}")
    print("there is no list trainval: what is held out of it would be seen in the copies")
    print(one_line(f"written: {out}"))
    words = ["--data", str(out), "--mosaic", "0", *(["--skip-bad"] if config.skip_bad else [])]
    print(one_line(f"next: {shlex.join(['python', 'train.py', *words])}"))
    return 0


def name_images(image_ids: Sequence[str], copies: int) -> dict[str, list[str]]:
    """Name each image and its copies in one folder; no two names are alike, in capitals or not.

    Args:
        image_ids: such as "000005" or, of several folders, "VOC2007/000005", which becomes VOC2007_000005.
        copies: number of copies of each.

    Returns:
        By image_id the image's own name, then those of its copies.
    """
    taken: set[str] = set()

    def free(name: str) -> str:
        number, found = 1, name
        while found.casefold() in taken:
            number += 1
            found = f"{name}_{number}"
        taken.add(found.casefold())
        return found

    own = {image_id: free(image_id.replace("/", "_")) for image_id in image_ids}
    return {
        i: [name, *(free(f"{name}_aug{copy}") for copy in range(1, copies + 1))] for i, name in own.items()
    }


def whole_objects(target: Target, class_names: Sequence[str]) -> list[VocObject]:
    """Return the objects of a target with edges in whole pixels, as VOC has them and every program reads.

    The nearest whole edges of a side of at least 2 pixels, which the pipeline keeps, are 2 pixels apart too;
    what is smaller yet is left out, as the reader would.
    """
    objects = []
    for box, label, difficult in zip(
        target.boxes.round().tolist(), target.labels.tolist(), target.difficult.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        if min(x2 - x1, y2 - y1) >= 2:
            objects.append(VocObject(class_names[label], (x1, y1, x2, y2), difficult))
    return objects


def _read(config: AugmentConfig) -> tuple[TrainingData, dict[str, Sequence[Record]]]:
    """Read what train.py would train, select and test on; without a val list a tenth is held out."""
    data = prepare_training(config.data, train=config.train, seed=config.seed, **config.reading())
    parts: dict[str, Sequence[Record]] = {"train": data.train.records}
    if data.val is not None:
        parts["val"] = data.val.records
        if not data.val_splits:
            log("val: what is held out gets a list and no copies, so that none shows what is selected on")
    tests = [name for name in list_splits(config.data) if name.rpartition("/")[2] == "test"]
    if tests and (tests := [name for name in tests if name not in data.train_splits]):
        parts["test"] = prepare_splits(config.data, tests, training=False, **config.reading())[0].records
        if shared := count_overlap(data.train.records, parts["test"]):
            warn(
                f"{shared} images are in the training and the test lists; their copies show what is tested on"
            )
    return data, parts


def _find_xml(
    config: AugmentConfig, parts: Mapping[str, Sequence[Record]], data: TrainingData
) -> dict[str, Path]:
    """Return the XML of each image, which is copied as it is; none where classes get other names."""
    if config.rename or config.classes:
        log("all XML is written anew, with the classes of --classes and the names of --rename")
        return {}
    splits = [*data.train_splits, *data.val_splits]
    if "test" in parts:
        splits += [name for name in list_splits(config.data) if name.rpartition("/")[2] == "test"]
    samples: Iterable[Sample] = (
        sample
        for split in splits
        for sample in load_samples(
            config.data, split, unlabelled=config.unlabelled, on_warning=lambda _: None
        )
    )
    return {sample.image_id: sample.xml_path for sample in samples if sample.xml_path is not None}


def _copy(folder: Path, name: str, record: Record, xml: Path | None) -> None:
    """Copy an image and its annotation, which is written from the record where there is none to copy."""
    image_name = name + record.image_path.suffix
    shutil.copyfile(record.image_path, folder / "JPEGImages" / image_name)
    target = folder / "Annotations" / f"{name}.xml"
    if xml is not None:
        shutil.copyfile(xml, target)
        return
    objects = [
        VocObject(label, (box[0], box[1], box[2], box[3]), bool(difficult))
        for label, box, difficult in zip(record.names, record.boxes.tolist(), record.difficult, strict=True)
    ]
    write_annotation(target, image_name, record.width, record.height, objects)


def _write_copies(
    folder: Path, config: AugmentConfig, data: TrainingData, ids: Mapping[str, Sequence[str]]
) -> None:
    pictures = TrainDataset(
        data.train, config.imgsz, AugmentSettings(config.mosaic, 0.0, config.augment), config.seed
    )
    keys = [(copy, index) for index in range(len(data.train)) for copy in range(1, config.copies + 1)]
    for copy, index in progress(keys, "augmenting"):
        image, target = pictures.render((copy, index))
        name = ids[data.train.records[index].image_id][copy]
        _write_jpeg(folder / "JPEGImages" / f"{name}.jpg", image)
        height, width = config.imgsz
        objects = whole_objects(target, data.train.class_names)
        write_annotation(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", width, height, objects)


def _write_jpeg(path: Path, image: Pixels) -> None:
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())
