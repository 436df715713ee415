"""Annotation faults, and unusual annotations that are none; each function is a row of the table."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.faults.workspace import BOTH, CIRCLE, SQUARE, TRAIN, VAL, WIDTH, Workspace, bndbox, item, size

CANARY = "CANARY-7c1e42"
XML_FAULTS: dict[str, Callable[[Workspace], object]] = {}


def row(make: Callable[[Workspace], object]) -> Callable[[Workspace], object]:
    XML_FAULTS[make.__name__] = make
    return make


def boxed(name: str, *values: object) -> None:
    """Register the row that gives the first object another box; the second one stays good."""

    def make(workspace: Workspace) -> None:
        workspace.write(item(box=values) + item("circle", CIRCLE))

    XML_FAULTS[name] = make


def worded(name: str, objects: str = BOTH, **parts: str) -> None:
    """Register the row that writes these objects, or this head, root or start."""
    XML_FAULTS[name] = lambda workspace: workspace.write(objects, **parts)


def encoded(name: str, encoding: str, start: str = "") -> None:
    """Register the row that holds a Chinese <folder> in this encoding."""

    def make(workspace: Workspace) -> None:
        workspace.write(head=f"<folder>数据集</folder>{size()}", start=start)
        workspace.xml.write_bytes(workspace.xml.read_text(encoding="utf-8").encode(encoding))

    XML_FAULTS[name] = make


@row
def xml_malformed(workspace: Workspace) -> None:
    workspace.xml.write_text(workspace.xml.read_text()[:-20])


@row
def xml_empty(workspace: Workspace) -> None:
    workspace.xml.write_bytes(b"")


@row
def xml_missing(workspace: Workspace) -> None:
    workspace.xml.unlink()


@row
def xml_json(workspace: Workspace) -> None:
    workspace.xml.write_text('{"annotation": {"object": []}}')


worded("xml_wrong_root", root="html")
worded("xml_no_size", head="")
worded("xml_zero_size", head=size(0, 0))
worded("xml_size_mismatch", head=size(400, 300))
boxed("xml_box_partly_outside", 101, 31, 900, 90)
boxed("xml_box_outside", 301, 31, 380, 90)
boxed("xml_box_negative", -19, -9, 80, 90)
boxed("xml_box_inverted", 80, 31, 21, 90)
boxed("xml_box_zero", 21, 31, 21, 90)
boxed("xml_box_float", 12.5, 31.25, 80.75, 90)
boxed("xml_box_text", "left", 31, 80, 90)
boxed("xml_box_nan", "nan", 31, "inf", 90)
boxed("xml_box_huge", 21, 31, "1e308", "9" * 40)
worded("xml_no_bndbox", "<object><name>square</name></object>" + BOTH)
worded("xml_missing_coord", BOTH.replace("<ymax>90</ymax>", ""))
worded("xml_no_name", BOTH.replace("<name>square</name>", ""))
worded("xml_unknown_class", item("zebra") + item("circle", CIRCLE))
worded("xml_class_blanks", item(" square\n") + item("\tcircle ", CIRCLE))
worded("xml_difficult", item() + item("circle", CIRCLE, "<difficult>1</difficult>"))
worded("xml_no_difficult", item(more="") + item("circle", CIRCLE, ""))
worded(
    "xml_difficult_text",
    item(more="<difficult></difficult>") + item("circle", CIRCLE, "<difficult>Unspecified</difficult>"),
)
worded("xml_no_objects", "")


@row
def xml_all_unknown(workspace: Workspace) -> None:
    for path in workspace.xml.parent.iterdir():
        path.write_text(path.read_text().replace("square", "zebra").replace("circle", "zebra"))


@row
def xml_no_objects_anywhere(workspace: Workspace) -> None:
    for name in (*TRAIN, *VAL):
        Workspace(workspace.folder, name, workspace.captured).write("")


_PART = item("head", (22, 32, 40, 50), "").replace("object>", "part>")
worded("xml_parts", item(more=_PART) + item("circle", CIRCLE).replace("</object>", f"{_PART}</object>"))


@row
def xml_reordered(workspace: Workspace) -> None:
    objects = ""
    for name, (xmin, ymin, xmax, ymax) in (("square", SQUARE), ("circle", CIRCLE)):
        corners = f"<ymax>{ymax}</ymax><xmax>{xmax}</xmax><ymin>{ymin}</ymin><xmin>{xmin}</xmin>"
        objects += f"<object><bndbox>{corners}</bndbox><difficult>0</difficult><name>{name}</name></object>"
    workspace.write(objects, head="")
    workspace.xml.write_text(workspace.xml.read_text().replace("</annotation>", f"{size()}</annotation>"))


X1, Y1, X2, Y2 = SQUARE[0] - 1, SQUARE[1] - 1, *SQUARE[2:]  # edges
_CORNERS = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((X1, Y1), (X2, Y1), (X2, Y2), (X1, Y2)))
_SIDES = f"<w>{Y2 - Y1}</w><h>{X2 - X1}</h><angle>1.57079633</angle>"  # turned by 90 degrees
_CENTER = f"<cx>{(X1 + X2) / 2}</cx><cy>{(Y1 + Y2) / 2}</cy>"


def shaped(name: str, shape: str) -> None:
    """Register the row whose square has another element than <bndbox>."""
    worded(name, item().replace(bndbox(SQUARE), shape) + item("circle", CIRCLE))


shaped("xml_several_boxes", bndbox(SQUARE) + bndbox(CIRCLE))
shaped("xml_polygon", f"<polygon>{_CORNERS}</polygon>")
shaped("xml_rotated_box", f"<robndbox>{_CENTER}{_SIDES}</robndbox>")
shaped("xml_unknown_box", f"<bbox>{_CORNERS}</bbox>")
worded("xml_several_names", BOTH.replace("<name>", "<name>circle</name><name>", 1))
worded("xml_objects_element", f"<objects>{BOTH}</objects>")
worded("xml_upper_case", BOTH.replace("object>", "Object>").replace("name>", "NAME>"))
worded("xml_unknown_element", f"<labels>{BOTH}</labels>")
worded("xml_normalized", item(box=("0.105", "0.2", "0.4", "0.6")) * 2)
worded("xml_score", item(more="<score>0.9</score>") + item("circle", CIRCLE))
worded("xml_deleted", item("zebra", more="<deleted>1</deleted>") + BOTH)
worded("xml_attribute", root='annotation verified="yes"')
worded("xml_namespace", root='annotation xmlns="http://example.org/voc"')
worded("xml_duplicate_object", item() + BOTH)
encoded("xml_gbk_declared", "gbk", '<?xml version="1.0" encoding="GBK"?>')
encoded("xml_gbk_undeclared", "gbk")
encoded("xml_bom", "utf-8-sig")
encoded("xml_utf16", "utf-16", '<?xml version="1.0" encoding="UTF-16"?>')


def dtd(name: str, declarations: str, uses: str) -> None:
    """Register the row that declares entities and uses them in <folder>."""
    start = f'<?xml version="1.0"?>\n<!DOCTYPE annotation [{declarations}]>\n'
    worded(name, head=f"<folder>{uses}</folder>{size()}", start=start)


_TENFOLD = "".join(
    f'<!ENTITY lol{level} "{f"&lol{level - 1};" * 10}">' if level else '<!ENTITY lol0 "lol">'
    for level in range(10)
)
dtd("xml_entity_bomb", _TENFOLD, "&lol9;")
dtd("xml_quadratic", f'<!ENTITY a "{"a" * 60_000}">', "&a;" * 3000)


@row
def xml_external_entity(workspace: Workspace) -> None:
    secret = workspace.folder / "secret.txt"
    secret.write_text(CANARY)
    dtd("", f'<!ENTITY leak SYSTEM "{secret.as_uri()}">', "&leak;")
    XML_FAULTS.pop("")(workspace)


@row
def xml_huge(workspace: Workspace) -> None:
    comment = f"<!--{'x' * 996}-->\n"
    workspace.write(head=comment * 60_000 + size())


@row
def xml_deep(workspace: Workspace) -> None:
    workspace.write(head="<deep>" * 200_000 + "</deep>" * 200_000 + size())


@row
def xml_many_objects(workspace: Workspace) -> None:
    lefts = [1 + number % (WIDTH - 40) for number in range(20_000)]
    workspace.write("".join(item(box=(left, 31, left + 30, 90)) for left in lefts))


@row
def xml_filename_lies(workspace: Workspace) -> None:
    text = workspace.xml.read_text()
    other = re.sub("<filename>.*</filename>", "<filename>/home/somebody/000002.jpg</filename>", text)
    workspace.xml.write_text(other.replace("<size>", "<path>/home/somebody/000002.jpg</path><size>", 1))


worded("xml_windows_path", head=f"<path>C:\\Users\\x\\000002.jpg</path>{size()}")
