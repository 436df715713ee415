"""Makers of faults in annotations, each under the name of its row: xml_<name>(room) makes that very input."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.faults.room import BOTH, CIRCLE, SQUARE, TRAIN, VAL, WIDTH, Room, item, size

CANARY = "CANARY-7c1e42"
XML_MAKERS: dict[str, Callable[[Room], object]] = {}


def row(make: Callable[[Room], object]) -> Callable[[Room], object]:
    XML_MAKERS[make.__name__] = make
    return make


def boxed(name: str, *values: object) -> None:
    """Register the row that gives the first object another box; the second one stays good."""

    def make(room: Room) -> None:
        room.write(item(box=values) + item("circle", CIRCLE))

    XML_MAKERS[name] = make


def worded(name: str, objects: str = BOTH, **parts: str) -> None:
    """Register the row that writes these objects, or this head, root or start."""
    XML_MAKERS[name] = lambda room: room.write(objects, **parts)


def encoded(name: str, encoding: str, start: str = "") -> None:
    """Register the row that holds a Chinese <folder> in this encoding."""

    def make(room: Room) -> None:
        room.write(head=f"<folder>数据集</folder>{size()}", start=start)
        room.xml.write_bytes(room.xml.read_text(encoding="utf-8").encode(encoding))

    XML_MAKERS[name] = make


@row
def xml_malformed(room: Room) -> None:
    room.xml.write_text(room.xml.read_text()[:-20])


@row
def xml_empty(room: Room) -> None:
    room.xml.write_bytes(b"")


@row
def xml_missing(room: Room) -> None:
    room.xml.unlink()


@row
def xml_json(room: Room) -> None:
    room.xml.write_text('{"annotation": {"object": []}}')


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
def xml_all_unknown(room: Room) -> None:
    for path in room.xml.parent.iterdir():
        path.write_text(path.read_text().replace("square", "zebra").replace("circle", "zebra"))


@row
def xml_no_objects_anywhere(room: Room) -> None:
    for name in (*TRAIN, *VAL):
        Room(room.folder, name, room.captured).write("")


_PART = item("head", (22, 32, 40, 50), "").replace("object>", "part>")
worded("xml_parts", item(more=_PART) + item("circle", CIRCLE).replace("</object>", f"{_PART}</object>"))


@row
def xml_reordered(room: Room) -> None:
    objects = ""
    for name, (xmin, ymin, xmax, ymax) in (("square", SQUARE), ("circle", CIRCLE)):
        corners = f"<ymax>{ymax}</ymax><xmax>{xmax}</xmax><ymin>{ymin}</ymin><xmin>{xmin}</xmin>"
        objects += f"<object><bndbox>{corners}</bndbox><difficult>0</difficult><name>{name}</name></object>"
    room.write(objects, head="")
    room.xml.write_text(room.xml.read_text().replace("</annotation>", f"{size()}</annotation>"))


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
def xml_external_entity(room: Room) -> None:
    secret = room.folder / "secret.txt"
    secret.write_text(CANARY)
    dtd("", f'<!ENTITY leak SYSTEM "{secret.as_uri()}">', "&leak;")
    XML_MAKERS.pop("")(room)


@row
def xml_huge(room: Room) -> None:
    comment = f"<!--{'x' * 996}-->\n"
    room.write(head=comment * 60_000 + size())


@row
def xml_deep(room: Room) -> None:
    room.write(head="<deep>" * 200_000 + "</deep>" * 200_000 + size())


@row
def xml_many_objects(room: Room) -> None:
    lefts = [1 + number % (WIDTH - 40) for number in range(20_000)]
    room.write("".join(item(box=(left, 31, left + 30, 90)) for left in lefts))


@row
def xml_filename_lies(room: Room) -> None:
    text = room.xml.read_text()
    other = re.sub("<filename>.*</filename>", "<filename>/home/somebody/000002.jpg</filename>", text)
    room.xml.write_text(other.replace("<size>", "<path>/home/somebody/000002.jpg</path><size>", 1))


worded("xml_windows_path", head=f"<path>C:\\Users\\x\\000002.jpg</path>{size()}")
