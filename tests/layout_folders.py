"""Small data folders in every layout that tools and people make, and the images of their splits."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.utils.data.conftest import save_picture
from utils.data.voc_xml import VocObject, write_annotation


@dataclass(frozen=True)
class Layout:
    """Files of a data folder, and the ids of its splits.

    Attributes:
        images: the XML of each image; None for none.
        expected: the ids of each split.
        train: the splits that are trained on.
        texts: other files, such as lists.
        untrained: the number of listed images that train.py leaves unused by default.
    """

    images: Mapping[str, str | None]
    expected: Mapping[str, list[str]]
    train: tuple[str, ...] = ("all",)
    texts: Mapping[str, str] = field(default_factory=dict)
    untrained: int = 0

    def write(self, folder: Path) -> Path:
        """Write the folder; each image is 40 x 30 and has a cat in it."""
        for image, xml in self.images.items():
            picture = folder / image
            picture.parent.mkdir(parents=True, exist_ok=True)
            drawn = picture.with_suffix(".jpg")
            save_picture(drawn, 40, 30, zlib.crc32(image.encode()))
            drawn.rename(picture)
            if xml is not None:
                (folder / xml).parent.mkdir(parents=True, exist_ok=True)
                write_annotation(folder / xml, picture.name, 40, 30, [VocObject("cat", (2, 3, 10, 12))])
        for name, text in self.texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return folder


def side_by_side(*images: str) -> dict[str, str | None]:
    return {image: image.rpartition(".")[0] + ".xml" for image in images}


def in_folders(images: str, xml: str, *names: str) -> dict[str, str | None]:
    return {f"{images}/{name}.jpg": f"{xml}/{name}.xml" for name in names}


def voc(*names: str, folder: str = "") -> dict[str, str | None]:
    return in_folders(f"{folder}JPEGImages", f"{folder}Annotations", *names)


def lists(folder: str, **ids: str) -> dict[str, str]:
    return {f"{folder}/{name}.txt": "".join(f"{i}\n" for i in text.split()) for name, text in ids.items()}


NFC, NFD = (unicodedata.normalize(form, "ärger") for form in ("NFC", "NFD"))
TWO = {"train": ["a", "b"], "val": ["c"]}
ABC = {"all": ["a", "b", "c"]}
ABC_IN_MY = {"my/all": ["my/a", "my/b", "my/c"]}
PATHS = {"all": ["cam0/1", "cam1/1", "cam1/2"]}
ON_TRAIN = ("train",)
JUNK = {
    "__MACOSX/JPEGImages/._a.jpg": "",
    "JPEGImages/._a.jpg": "",
    "Annotations/._a.xml": "",
    "ImageSets/Main/._train.txt": "",
    ".git/x/y.jpg": "",
    ".DS_Store": "",
    "JPEGImages/Thumbs.db": "",
    "Annotations/desktop.ini": "",
}
LAYOUTS = {
    "VOC folder": Layout(voc("a", "b", "c"), TWO, ON_TRAIN, lists("ImageSets/Main", train="a b", val="c")),
    "flat folder with lists": Layout(
        side_by_side("a.jpg", "b.jpg", "c.jpg"), TWO, ON_TRAIN, lists("ImageSets/Main", train="a b", val="c")
    ),
    "VOCdevkit": Layout(
        {**voc("a", folder="VOC2007/"), **voc("a", "b", folder="VOC2012/")},
        {"VOC2007/trainval": ["VOC2007/a"], "VOC2012/train": ["VOC2012/a"], "VOC2012/val": ["VOC2012/b"]},
        ("VOC2007/trainval", "VOC2012/train"),
        lists("VOC2007/ImageSets/Main", trainval="a") | lists("VOC2012/ImageSets/Main", train="a", val="b"),
    ),
    "VOCdevkit two folders down": Layout(
        voc("a", "b", folder="archive/VOCdevkit/VOC2007/"),
        {
            "archive/VOCdevkit/VOC2007/train": ["archive/VOCdevkit/VOC2007/a"],
            "archive/VOCdevkit/VOC2007/test": ["archive/VOCdevkit/VOC2007/b"],
        },
        ("archive/VOCdevkit/VOC2007/train",),
        lists("archive/VOCdevkit/VOC2007/ImageSets/Main", train="a", test="b"),
    ),
    "VOC folder without lists": Layout(voc("a", "b", "c"), ABC),
    "trainval is more than train and val": Layout(
        voc("a", "b", "c", "d"),
        TWO | {"trainval": ["a", "b", "c", "d"]},
        ON_TRAIN,
        lists("ImageSets/Main", train="a b", val="c", trainval="a b c d"),
        untrained=1,
    ),
    "a list of all, one more and a test list": Layout(
        voc("a", "b", "c", "d", "e"),
        {"train": ["a"], "all": ["a", "b", "c"], "train_extra": ["b", "d"], "test": ["e"]},
        ON_TRAIN,
        lists("ImageSets/Main", train="a", all="a b c", train_extra="b d", test="e"),
        untrained=3,
    ),
    "test list alone": Layout(
        voc("a", "b", "c"), {"train": ["a", "b"], "test": ["c"]}, ON_TRAIN, lists("ImageSets", test="c")
    ),
    "test list on top of a flat folder": Layout(
        side_by_side("a.jpg", "b.jpg", "c.jpg"),
        {"train": ["a", "b"], "test": ["c"]},
        ON_TRAIN,
        {"test.txt": "c.jpg\n"},
    ),
    "test list beside split folders": Layout(
        side_by_side("train/a.jpg", "val/b.jpg", "new/c.jpg"),
        {"train": ["train/a"], "val": ["val/b"], "test": ["new/c"]},
        ON_TRAIN,
        {"test.txt": "new/c.jpg\n"},
    ),
    "val and valid": Layout(
        side_by_side("train/a.jpg", "val/b.jpg", "valid/c.jpg"),
        {"train": ["train/a"], "val": ["val/b"], "valid": ["valid/c"]},
        ON_TRAIN,
    ),
    "lists in ImageSets": Layout(voc("a", "b", "c"), TWO, ON_TRAIN, lists("ImageSets", train="a b", val="c")),
    "lists in ImageSets/main": Layout(
        voc("a", "b", "c"), TWO, ON_TRAIN, lists("ImageSets/main", train="a b", val="c")
    ),
    "CVAT's lists": Layout(
        voc("a", "b", "c"), TWO, ON_TRAIN, lists("ImageSets/Main", Train="a b", Validation="c")
    ),
    "CVAT's lone list": Layout(
        voc("a", "b"), {"default": ["a", "b"]}, ("default",), lists("ImageSets/Main", default="a b")
    ),
    "VoTT's lists of classes": Layout(
        voc("a", "b", "c"),
        TWO,
        ON_TRAIN,
        {
            "ImageSets/Main/cat_train.txt": "a.jpg 1\nb.jpg -1\n",
            "ImageSets/Main/cat_val.txt": "c.jpg 1\n",
            "ImageSets/Main/dog_train.txt": "b.jpg 1\na.jpg -1\n",
        },
    ),
    "CVAT's subfolders": Layout(
        voc("cam0/1", "cam1/1", "cam1/2"),
        {"train": ["cam0/1", "cam1/1"], "val": ["cam1/2"]},
        ON_TRAIN,
        lists("ImageSets/Main", train="cam0/1 cam1/1", val="cam1/2"),
    ),
    "subfolders without lists": Layout(voc("cam0/1", "cam1/1", "cam1/2"), PATHS),
    "subfolders of splits": Layout(
        voc("train/a", "train/b", "val/c"),
        {"train": ["train/a", "train/b"], "val": ["val/c"]},
        ON_TRAIN,
    ),
    "subfolders of images only": Layout(
        {"images/cat/a.jpg": "annotations/a.xml", "images/dog/b.jpg": "annotations/b.xml"},
        {"all": ["cat/a", "dog/b"]},
    ),
    "Label Studio": Layout(in_folders("images", "Annotations", "a", "b", "c"), ABC),
    "Kaggle": Layout(in_folders("images", "annotations", "a", "b", "c"), ABC),
    "Kaggle, annotations/xmls": Layout(in_folders("images", "annotations/xmls", "a", "b", "c"), ABC),
    "splits of images and annotations": Layout(
        {
            **in_folders("train/images", "train/annotations", "a", "b"),
            **in_folders("val/images", "val/annotations", "c"),
        },
        {"train": ["train/a", "train/b"], "val": ["val/c"]},
        ON_TRAIN,
    ),
    "splits of both kinds": Layout(
        {**in_folders("train/images", "train/annotations", "a", "b"), **side_by_side("test/d.jpg")},
        {"train": ["train/images/a", "train/images/b"], "test": ["test/d"]},
        ON_TRAIN,
    ),
    "XML beside the images and a folder of others": Layout(
        {**side_by_side("a.jpg"), **in_folders("images", "xml", "b")}, {"all": ["a", "images/b"]}
    ),
    "images and annotations of splits": Layout(
        {
            **in_folders("images/train", "annotations/train", "a", "b"),
            **in_folders("images/val", "annotations/val", "c"),
        },
        {"train": ["train/a", "train/b"], "val": ["val/c"]},
        ON_TRAIN,
    ),
    "flat": Layout(side_by_side("a.jpg", "b.png", "c.jfif"), ABC),
    "flat with batches": Layout(
        side_by_side("a.jpg", "batch2/b.jpg", "batch3/new/c.jpg"), {"all": ["a", "batch2/b", "batch3/new/c"]}
    ),
    "XML in a folder beside": Layout({"a.jpg": "xml/a.xml", "b.jpg": "xml/b.xml"}, {"all": ["a", "b"]}),
    "class folders": Layout(side_by_side("cat/a.jpg", "dog/a.jpg"), {"all": ["cat/a", "dog/a"]}),
    "Roboflow": Layout(
        side_by_side("train/a.jpg", "train/batch2/b.jpg", "valid/c.jpg", "test/d.jpg"),
        {"train": ["train/a", "train/batch2/b"], "valid": ["valid/c"], "test": ["test/d"]},
        ON_TRAIN,
    ),
    "test beside the images": Layout(
        side_by_side("a.jpg", "batch2/b.jpg", "test/c.jpg"),
        {"train": ["a", "batch2/b"], "test": ["test/c"]},
        ON_TRAIN,
    ),
    "val and test beside the images": Layout(
        side_by_side("a.jpg", "val/b.jpg", "test/c.jpg"),
        {"train": ["a"], "val": ["val/b"], "test": ["test/c"]},
        ON_TRAIN,
    ),
    "images beside train": Layout(
        side_by_side("a.jpg", "train/b.jpg", "test/c.jpg"),
        {"train": ["a", "train/b"], "test": ["test/c"]},
        ON_TRAIN,
    ),
    "other names of split folders": Layout(
        side_by_side("Train/a.jpg", "Validation/b.jpg", "test_images/c.jpg"),
        {"train": ["Train/a"], "val": ["Validation/b"], "test": ["test_images/c"]},
        ON_TRAIN,
    ),
    "XML of other spelling": Layout(
        {"a.jpg": "a.jpg.xml", "IMG_1.JPG": "img_1.xml", "b.jpg": "b.XML"}, {"all": ["IMG_1", "a", "b"]}
    ),
    "lists on top of a flat folder": Layout(
        side_by_side("a.jpg", "b.jpg", "c.jpg"),
        TWO,
        ON_TRAIN,
        {"train.txt": "a.jpg\n/home/x/photos/b.jpg\n", "val.txt": "data/c.jpg\n"},
    ),
    "lists beside images and annotations": Layout(
        in_folders("images", "annotations", "a", "b", "c"),
        TWO,
        ON_TRAIN,
        {"Train.txt": "a\nb\n", "val.txt": "images/c.jpg\n"},
    ),
    "images in a folder of another name": Layout(in_folders("photos", "Annotations", "a", "b", "c"), ABC),
    "XML in a folder of another name": Layout(
        in_folders("my/images", "my/images_xml", "a", "b", "c"), ABC_IN_MY, ("my/all",)
    ),
    "split folders of images beside one of XML": Layout(
        {
            "train/a.jpg": "annotations/a.xml",
            "train/b.jpg": "annotations/b.xml",
            "val/c.jpg": "annotations/c.xml",
        },
        {"train": ["train/a", "train/b"], "val": ["val/c"]},
        ON_TRAIN,
    ),
    "images beside test and a folder of XML": Layout(
        {"a.jpg": "boxes/a.xml", "test/b.jpg": "boxes/b.xml"}, {"train": ["a"], "test": ["test/b"]}, ON_TRAIN
    ),
    "splits with other names of folders": Layout(
        {**in_folders("train/photos", "train/boxes", "a"), **in_folders("val/photos", "val/boxes", "b")},
        {"train": ["train/a"], "val": ["val/b"]},
        ON_TRAIN,
    ),
    "folder called like an image": Layout(side_by_side("x.jpg/a.jpg", "b.jpg"), {"all": ["b", "x.jpg/a"]}),
    "macOS names": Layout(
        {f"JPEGImages/{NFD}.jpg": f"Annotations/{NFC}.xml", **voc("b")},
        {"train": [NFC], "val": ["b"]},
        ON_TRAIN,
        lists("ImageSets/Main", train=NFC, val="b"),
    ),
    "macOS leftovers": Layout(
        voc("a", "b", "c"), TWO, ON_TRAIN, lists("ImageSets/Main", train="a b", val="c") | JUNK
    ),
}
