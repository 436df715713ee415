"""Small exports in the form that each labeling tool writes: two images of 40 x 30 with a cat and a dog.

`TOOL_EXPORTS` maps a name to a function that fills a folder, the format that it has, its splits, and the row
of docs/data.md that tells how to use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.utils.tools.conversion import save_json, save_picture, save_text
from utils.data.voc_xml import VocObject

CAT, DOG = VocObject("cat", (2.0, 3.0, 12.0, 20.0)), VocObject("dog", (15.0, 9.0, 25.0, 21.0))
OBJECTS = {"a": CAT, "b": DOG}
NAMES = ("cat", "dog")


@dataclass(frozen=True)
class ToolExport:
    """What one tool writes, and what is read from it."""

    make: Callable[[Path], object]
    format: str
    row: tuple[str, str]  # the tool, and what is in its cell
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)


TOOL_EXPORTS: dict[str, ToolExport] = {}


def export(
    format: str, tool: str, named: str, **splits: list[str]
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Register an export under its function's name; `tool` and `named` are its row of the documentation."""

    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        TOOL_EXPORTS[make.__name__] = ToolExport(make, format, (tool, named), splits)
        return make

    return register


def voc_xml(path: Path, image: str, objects: str, *, head: str = "", root: str = "annotation") -> Path:
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    text = (
        f"<{root}><folder>x</folder><filename>{image}</filename>{head}{size}<segmented>0</segmented>{objects}"
    )
    return save_text(path, f"{text}</{root.split()[0]}>")


def voc_object(item: VocObject, more: str = "", box: str | None = None) -> str:
    x1, y1, x2, y2 = (int(edge) for edge in item.box)
    corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    shape = f"<bndbox>{corners}</bndbox>" if box is None else box
    usual = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
    return f"<object><name>{item.name}</name>{usual}{more}{shape}</object>"


def yolo_line(item: VocObject, width: int = 40, height: int = 30) -> str:
    x1, y1, x2, y2 = item.box
    cx, cy = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
    return f"{NAMES.index(item.name)} {cx:.6f} {cy:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"


def coco(path: Path, names: Mapping[str, str], **more: Any) -> Path:
    """Write a COCO file of the images whose file names are given by id a or b."""
    images, annotations = [], []
    for number, (key, name) in enumerate(names.items(), start=1):
        images.append({"id": number, "file_name": name, "width": 40, "height": 30})
        x1, y1, x2, y2 = OBJECTS[key].box
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        category = NAMES.index(OBJECTS[key].name) + 1
        annotations.append({"id": number, "image_id": number, "category_id": category, **box, **more})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return save_json(path, {"images": images, "categories": categories, "annotations": annotations})


def labelme(path: Path, item: VocObject, image: str, **more: Any) -> Path:
    x1, y1, x2, y2 = item.box
    points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    shape = {"label": item.name, "points": points, "shape_type": "rectangle", "flags": {}, **more}
    size = {"imageWidth": 40, "imageHeight": 30, "imageData": None}
    return save_json(path, {"version": "5.6.0", "flags": {}, "shapes": [shape], "imagePath": image, **size})


@export("voc", "CVAT", "PASCAL VOC 1.1", default=["a", "b"])
def cvat_voc(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"JPEGImages/{key}.jpg")
        attributes = "<attributes><attribute><name>track_id</name><value>3</value></attribute></attributes>"
        text = voc_object(item, f"<occluded>0</occluded>{attributes}")
        voc_xml(root / f"Annotations/{key}.xml", f"{key}.jpg", text)
    save_text(root / "ImageSets/Main/default.txt", "a\nb\n")
    save_text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:::\ncat:::\ndog:::\n")


@export("yolo", "CVAT", "YOLO 1.1", train=["a"], val=["b"])
def cvat_yolo(root: Path) -> None:
    for key, part in (("a", "train"), ("b", "valid")):
        save_picture(root / f"obj_{part}_data/{key}.jpg")
        save_text(root / f"obj_{part}_data/{key}.txt", yolo_line(OBJECTS[key]))
        save_text(root / f"{part}.txt", f"data/obj_{part}_data/{key}.jpg\n")
    lists = "train = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    save_text(root / "obj.data", f"classes = 2\n{lists}")
    save_text(root / "obj.names", "cat\ndog\n")


@export("coco", "CVAT", "COCO 1.0")
def cvat_coco(root: Path) -> None:
    for key in OBJECTS:
        save_picture(root / f"images/default/{key}.jpg")
    more = {"segmentation": [], "attributes": {"occluded": False, "rotation": 0.0}}
    coco(root / "annotations/instances_default.json", {"a": "a.jpg", "b": "b.jpg"}, **more)


@export("yolo", "CVAT", "Ultralytics YOLO Detection 1.0", train=["a", "b"])
def cvat_ultralytics(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/train/{key}.jpg")
        save_text(root / f"labels/train/{key}.txt", yolo_line(item))
    save_text(root / "train.txt", "data/images/train/a.jpg\ndata/images/train/b.jpg\n")
    save_text(root / "data.yaml", "path: .\ntrain: train.txt\nnames:\n  0: cat\n  1: dog\n")


@export("voc", "Label Studio", "Pascal VOC XML")
def label_studio_voc(root: Path) -> None:
    owner = "<owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.jpg")
        voc_xml(root / f"Annotations/{key}.xml", f"{key}.jpg", voc_object(item), head=owner)


@export("yolo", "Label Studio", "YOLO")
def label_studio_yolo(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.jpg")
        save_text(root / f"labels/{key}.txt", yolo_line(item))
    save_text(root / "classes.txt", "cat\ndog\n")
    save_json(
        root / "notes.json", {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}}
    )


@export("coco", "Label Studio", "COCO")
def label_studio_coco(root: Path) -> None:
    for key in OBJECTS:
        save_picture(root / f"images/{key}.jpg")
    coco(root / "result.json", {key: f"images/{key}.jpg" for key in OBJECTS}, ignore=0, segmentation=[])


@export("voc", "Roboflow", "Pascal VOC", train=["a"], valid=["b"])
def roboflow_voc(root: Path) -> None:
    for key, part in (("a", "train"), ("b", "valid")):
        save_picture(root / f"{part}/{key}.jpg")
        voc_xml(root / f"{part}/{key}.xml", f"{key}.jpg", voc_object(OBJECTS[key], "<occluded>0</occluded>"))
    save_text(root / "README.roboflow.txt", "exported via roboflow.com\n")


@export("yolo", "Roboflow", "YOLOv8", train=["a"], val=["b"])
def roboflow_yolov8(root: Path) -> None:
    for key, part in (("a", "train"), ("b", "valid")):
        save_picture(root / f"{part}/images/{key}.jpg")
        save_text(root / f"{part}/labels/{key}.txt", yolo_line(OBJECTS[key]))
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    save_picture(root / "test/images/c.jpg")
    save_text(root / "data.yaml", f"{paths}\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  version: 1\n")
    save_text(root / "README.dataset.txt", "pets\n")


@export("coco", "Roboflow", "COCO", train=["a"], val=["b"])
def roboflow_coco(root: Path) -> None:
    for key, part in (("a", "train"), ("b", "valid")):
        save_picture(root / f"{part}/{key}.jpg")
        coco(root / f"{part}/_annotations.coco.json", {key: f"{key}.jpg"}, segmentation=[])


@export("labelme", "X-AnyLabeling", "JSON")
def x_anylabeling(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        labelme(root / f"{key}.json", item, f"{key}.jpg", difficult=False, score=None, attributes={})


@export("voc", "X-AnyLabeling", "VOC")
def x_anylabeling_voc(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.jpg")
        x1, y1, x2, y2 = item.box
        corners = "".join(
            f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate([(x1, y1), (x2, y1), (x2, y2)], 1)
        )
        text = voc_object(item).replace("</object>", f"<polygon>{corners}</polygon></object>")
        voc_xml(root / f"Annotations/{key}.xml", f"{key}.jpg", text)


@export("yolo", "X-AnyLabeling", "YOLO")
def x_anylabeling_yolo(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.jpg")
        save_text(root / f"labels/{key}.txt", yolo_line(item))
    save_text(root / "classes.txt", "cat\ndog\n")


@export("labelme", "labelme", "JSON")
def labelme_json(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        labelme(root / f"{key}.json", item, f"{key}.jpg")


@export("labelme", "labelme", "JSON")
def labelme_in_labels(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.jpg")
        labelme(root / f"labels/{key}.json", item, f"..\\images\\{key}.jpg")


@export("voc", "LabelImg", "PascalVOC")
def labelimg(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        path = f"<path>C:\\Users\\me\\{key}.jpg</path><source><database>Unknown</database></source>"
        voc_xml(
            root / f"{key}.xml", f"{key}.jpg", voc_object(item), head=path, root='annotation verified="yes"'
        )


@export("yolo", "LabelImg", "YOLO")
def labelimg_yolo(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        save_text(root / f"{key}.txt", yolo_line(item))
    save_text(root / "classes.txt", "cat\ndog\n")


@export("voc", "VoTT", "Pascal VOC", train=["a"], val=["b"])
def vott_voc(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"JPEGImages/{key}.jpg")
        head = f"<path>D:/pictures/{key}.jpg</path><source><database>Unknown</database></source>"
        text = voc_object(item).replace(".0", "")
        voc_xml(
            root / f"Annotations/{key}.xml", f"{key}.jpg", text, head=head, root='annotation verified="yes"'
        )
    for name in NAMES:
        save_text(root / f"ImageSets/Main/{name}_train.txt", f"a.jpg {1 if name == 'cat' else -1}\n")
        save_text(root / f"ImageSets/Main/{name}_val.txt", f"b.jpg {1 if name == 'dog' else -1}\n")
    save_text(root / "pascal_label_map.pbtxt", "item {\n id: 1\n name: 'cat'\n}\n")


@export("voc", "roLabelImg", "XML")
def rolabelimg(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        x1, y1, x2, y2 = item.box
        sides = f"<w>{y2 - y1}</w><h>{x2 - x1}</h><angle>1.570796</angle>"  # turned by 90 degrees
        box = f"<robndbox><cx>{(x1 + x2) / 2}</cx><cy>{(y1 + y2) / 2}</cy>{sides}</robndbox>"
        voc_xml(root / f"{key}.xml", key, voc_object(item, "<type>robndbox</type>", box))


@export("voc", "Kaggle and others", "annotations/")
def kaggle_voc(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"images/{key}.png")
        voc_xml(root / f"annotations/{key}.xml", f"{key}.png", voc_object(item, "<occluded>0</occluded>"))


@export("voc", "EasyAnnotate", "VOC")
def easyannotate_voc(root: Path) -> None:
    for key, item in OBJECTS.items():
        save_picture(root / f"{key}.jpg")
        voc_xml(root / f"{key}.xml", f"{key}.jpg", voc_object(item, "<occluded>0</occluded>"))
