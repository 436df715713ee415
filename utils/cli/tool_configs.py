"""Settings of the data.py verbs: a config dataclass, a description and an example each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nets.config import MOST_ANCHORS, ModelConfig
from utils.cli.errors import UserError
from utils.cli.parser import check_settings, setting
from utils.cli.shared_config import (
    AUGMENT_HELP,
    FLOAT_BOXES_HELP,
    SKIP_UNREVIEWED_HELP,
    UNLABELLED_HELP,
    DataConfig,
    RunConfig,
    check_augment,
    check_augment_file,
    check_imgsz,
)

SOURCE_FORMATS = ("coco", "yolo", "labelme", "list", "voc")  # that convert reads
VOC_YEARS = ("2007", "2012")  # that download fetches
SHEET_SIZE = 16  # images on a contact sheet of show
JPEG_QUALITY = 95  # of augmented copies


def _splits(text: str) -> Any:
    return setting(None, text, metavar="SPLIT")


def _imgsz(of: str) -> Any:
    return setting(ModelConfig(1).input_size, f"side of {of} in pixels, or height and width")


def _seed(of: str) -> Any:
    return setting(0, f"random seed of {of}", within="[0, 4294967295]")


@dataclass(frozen=True)
class CheckConfig(DataConfig):
    """Settings of data.py check; a UserError names the flag of a bad value."""

    split: tuple[str, ...] | None = _splits("splits to check (default: all)")
    anchors: str | None = setting(
        None, "also check this anchor file, as train.py --anchors takes it", metavar="FILE"
    )
    decode: bool = setting(False, "decode every pixel; also finds damage in the middle of a file")
    json: str | None = setting(None, "write the report as JSON", metavar="FILE", is_output=True)
    csv: str | None = setting(None, "write the findings as CSV, one row each", metavar="FILE", is_output=True)

    def __post_init__(self) -> None:
        self.check_data()


@dataclass(frozen=True)
class StatsConfig(RunConfig, DataConfig):
    """Settings of data.py stats; a UserError names the flag of a bad value."""

    split: tuple[str, ...] | None = _splits("splits to count (default: those that train.py trains on)")
    imgsz: tuple[int, int] = _imgsz("the network's input")
    project: str = setting("runs/stats", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        check_imgsz(self.imgsz)


@dataclass(frozen=True)
class ShowConfig(RunConfig, DataConfig):
    """Settings of data.py show; a UserError names the flag of a bad value."""

    split: tuple[str, ...] | None = _splits("splits to draw (default: those that train.py trains on)")
    count: int = setting(SHEET_SIZE, f"random images to draw, {SHEET_SIZE} on a sheet", within="[1, 10000]")
    seed: int = _seed("the selection")
    only: tuple[str, ...] | None = setting(None, "only images with objects of these classes", metavar="NAME")
    ids: tuple[str, ...] | None = setting(
        None, "these images instead of random ones, such as VOC2007/000005 or 000005", metavar="ID"
    )
    augment: str | None = setting(
        None, f"draw the images as training sees them; {AUGMENT_HELP}", metavar="NAME"
    )
    imgsz: tuple[int, int] | None = setting(
        None, "with --augment: input side in pixels, or height and width (default: 416)"
    )
    mosaic: float | None = setting(
        None, "with --augment: probability of a mosaic (default: 0.5)", metavar="P", within="[0, 1]"
    )
    project: str = setting("runs/show", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        if self.ids and self.only:
            raise UserError("--ids cannot be combined with --only; leave one of them out")
        check_imgsz(self.imgsz)
        if self.augment is not None:
            check_augment(self.augment)
        elif self.imgsz or self.mosaic is not None:
            raise UserError(
                f"{'--imgsz' if self.imgsz else '--mosaic'}: needs --augment; add --augment default"
            )

    def check_inputs(self) -> None:
        """Refuse a data folder or a file of --augment that does not exist; the UserError names it."""
        super().check_inputs()
        check_augment_file(self.augment)


@dataclass(frozen=True)
class SplitConfig(DataConfig):
    """Settings of data.py split; a UserError names the flag of a bad value."""

    val: float = setting(0.1, "fraction of the images for validation", within="[0, 1)")
    test: float = setting(0.1, "fraction of the images for testing", within="[0, 1)")
    seed: int = _seed("the split")
    group_by: str | None = setting(
        None,
        "regular expression on file names, such as '^(.*)_frame'; images with the same first group (else the "
        "same match) stay in one split, as near-duplicates always do",
        metavar="REGEX",
    )

    def __post_init__(self) -> None:
        self.check_data()
        if self.val + self.test == 0:
            raise UserError("--val 0 --test 0: nothing to split; set one of them above 0")
        if self.val + self.test >= 1:
            raise UserError(
                f"--val {self.val:g} --test {self.test:g}: no images are left for training; use smaller "
                "fractions"
            )
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise UserError(
                f"--group-by {self.group_by}: not a regular expression: {error}; example: '^(.*)_frame'"
            ) from None


@dataclass(frozen=True)
class AnchorsConfig(RunConfig, DataConfig):
    """Settings of data.py anchors; a UserError names the flag of a bad value."""

    split: tuple[str, ...] | None = _splits("splits to fit to (default: those that train.py trains on)")
    imgsz: tuple[int, int] = _imgsz("the network's input")
    heads: int = setting(2, "heads of the network: 2 or 3", within="[2, 3]")
    number: int | None = setting(
        None, "anchors, equally many for each head (default: 3 for each head)", within=f"[2, {MOST_ANCHORS}]"
    )
    seed: int = _seed("k-means")
    project: str = setting("runs/anchors", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        check_imgsz(self.imgsz)
        if self.number is not None and self.number % self.heads:
            raise UserError(
                f"--number {self.number}: must be a multiple of {self.heads}, the number of heads"
            )


@dataclass(frozen=True)
class AugmentConfig(DataConfig):
    """Settings of data.py augment; a UserError names the flag of a bad value."""

    copies: int = setting(
        1, f"augmented copies of each training image, JPEG of quality {JPEG_QUALITY}", within="[1, 1000]"
    )
    out: str | None = setting(None, "new folder; must not exist, or be empty", metavar="DIR")
    train: tuple[str, ...] | None = _splits("splits to copy (default: those that train.py trains on)")
    imgsz: tuple[int, int] = _imgsz("the copies")
    augment: str = setting("default", AUGMENT_HELP, metavar="NAME")
    mosaic: float = setting(
        0.5, "probability that a copy is a mosaic of four images", metavar="P", within="[0, 1]"
    )
    seed: int = _seed("the augmentation")
    float_boxes: bool = setting(False, f"{FLOAT_BOXES_HELP} (of the copies)")

    def __post_init__(self) -> None:
        self.check_data()
        check_imgsz(self.imgsz)
        check_augment(self.augment)
        if self.out is None:
            raise UserError("--out: is required; name a new folder, such as --out VOCdevkit_augmented")
        check_outside("--out", self.out, self.data)

    def check_inputs(self) -> None:
        """Refuse a data folder or a file of --augment that does not exist; the UserError names it."""
        super().check_inputs()
        check_augment_file(self.augment)


@dataclass(frozen=True)
class ConvertConfig:
    """Settings of data.py convert; a UserError names the flag of a bad value."""

    sources: tuple[str, ...] = setting(
        (),
        "annotations: a COCO .json, a YOLO folder, data.yaml or obj.data, a labelme folder, a "
        "2007_train.txt, or data in VOC layout; several .json or .txt files are several splits",
        positional=True,
        metavar="SOURCE",
    )
    out: str | None = setting(None, "new folder; must not exist, or be empty", metavar="DIR")
    source_format: str | None = setting(
        None,
        f"format of SOURCE: {', '.join(SOURCE_FORMATS)} (default: detected)",
        flag="--from",
        choices=SOURCE_FORMATS,
        metavar="FORMAT",
    )
    target_format: str | None = setting(
        None,
        "voc, coco or yolo (default: voc; coco if SOURCE is voc)",
        flag="--to",
        choices=("voc", "coco", "yolo"),
        metavar="FORMAT",
    )
    images: str | None = setting(
        None,
        "folder of the images, if they are not beside the annotations or have paths of another machine",
        metavar="DIR",
    )
    classes: str | None = setting(
        None,
        "file of class names, one per line, in the order of the class numbers; objects of other classes are "
        "faults",
        metavar="FILE",
    )
    float_boxes: bool = setting(False, FLOAT_BOXES_HELP)
    unlabelled: str = setting("skip", f"VOC: {UNLABELLED_HELP}", choices=("skip", "background"))
    skip_bad: bool = setting(False, "skip faulty images and objects (counted and named) instead of stopping")
    skip_unreviewed: bool = setting(False, SKIP_UNREVIEWED_HELP)

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.sources:
            raise UserError(f"SOURCE: is required; for example {VERBS['convert'].example}")
        if self.out is None:
            raise UserError("--out: is required; name a new folder, such as --out VOCdevkit/mine")

    def check_inputs(self) -> None:
        """Refuse sources that do not exist, and a new folder inside of one; the UserError names it."""
        for source in self.sources:
            if not Path(source).exists():
                raise UserError(f"{source}: no such file or folder; check the path")
        if self.images is not None and not Path(self.images).is_dir():
            raise UserError(f"--images {self.images}: no such folder; check the path")
        for folder in (*self.sources, self.images):
            if folder is not None and Path(folder).is_dir():
                check_outside("--out", str(self.out), folder)


@dataclass(frozen=True)
class DownloadConfig:
    """Settings of data.py download; a UserError names the flag of a bad value."""

    years: tuple[str, ...] = setting(
        (), "2007 (trainval and test), 2012 (trainval), or both", positional=True, metavar="YEAR"
    )
    data: str = setting("VOCdevkit", "folder that gets VOC2007/ and VOC2012/", metavar="DIR")
    keep: bool = setting(False, "keep the archives (.tar) in that folder")

    def __post_init__(self) -> None:
        check_settings(self)
        unknown = [year for year in self.years if year not in VOC_YEARS]
        if unknown or not self.years:
            raise UserError(f"YEAR {' '.join(unknown) or 'is missing'}: choose from {', '.join(VOC_YEARS)}")

    def check_inputs(self) -> None:
        """Refuse a year that is already there; the UserError names its folder."""
        for year in self.years:
            target = Path(self.data, f"VOC{year}")
            if target.exists() or target.is_symlink():
                raise UserError(
                    f"{target}: exists already and is not overwritten; remove it or choose another --data"
                )


def check_outside(flag: str, out: str, data: str) -> None:
    """Refuse a new folder that is, or lies in, the folder that is read; the UserError names both."""
    new, read = Path(out).resolve(), Path(data).resolve()
    if new == read or read in new.parents:
        raise UserError(f"{flag} {out}: lies in {data}, which is only read; choose a folder outside it")


@dataclass(frozen=True)
class Verb:
    """A subcommand of data.py: its config class, a line for the help text, and an example."""

    config: type[Any]
    description: str
    example: str


VERBS = {
    "check": Verb(
        CheckConfig,
        "find every fault in a data set, in one pass over all splits",
        "python data.py check --data VOCdevkit --csv findings.csv",
    ),
    "stats": Verb(
        StatsConfig,
        "count objects per class, and plot the sizes, shapes and positions of the boxes",
        "python data.py stats --data VOCdevkit --split VOC2007/trainval",
    ),
    "show": Verb(
        ShowConfig,
        "draw images with their boxes on contact sheets, to check the labels by eye",
        "python data.py show --data VOCdevkit --only cat dog --count 32",
    ),
    "split": Verb(
        SplitConfig,
        "divide a folder in VOC layout into train, val and test; writes the lists into that folder",
        "python data.py split --data VOCdevkit/VOC2007 --val 0.1 --test 0.2",
    ),
    "anchors": Verb(
        AnchorsConfig,
        "fit anchors to the training boxes, and compare them with the official ones",
        "python data.py anchors --data VOCdevkit --imgsz 416",
    ),
    "augment": Verb(
        AugmentConfig,
        "write a new folder in VOC layout with augmented copies of the training images",
        "python data.py augment --data VOCdevkit --copies 2 --out VOCdevkit_augmented",
    ),
    "convert": Verb(
        ConvertConfig,
        "convert COCO, YOLO, labelme or 2007_train.txt to VOC, or any of them to COCO or YOLO",
        "python data.py convert instances_train.json --images pictures --out VOCdevkit/mine",
    ),
    "download": Verb(
        DownloadConfig,
        "download Pascal VOC 2007 (trainval and test, 0.9 GB) or 2012 (trainval, 2.0 GB)",
        "python data.py download 2007 2012",
    ),
}
