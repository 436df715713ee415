from __future__ import annotations

import math
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from utils.cli.errors import UserError
from utils.data.dataset_report import clip_box
from utils.data.voc_xml import (
    VocAnnotation,
    VocObject,
    edit_annotation,
    read_annotation,
    rewrite_annotation,
    round_boxes,
    write_annotation,
)

BOX = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>12</ymax></bndbox>"
OBJECT = f"<object><name>cat</name>{BOX}</object>"
CAT = VocObject("cat", (2, 3, 10, 12))
DIFFICULT = VocObject("cat", CAT.box, True)


NORMALIZED = (
    OBJECT.replace(">3<", ">0.1<").replace(">4<", ">0<").replace(">10<", ">1<").replace(">12<", ">0.5<")
)
ATTRIBUTES = "<attributes><attribute><name>{}</name><value>{}</value></attribute></attributes>"
METADATA = (
    "<source><database>x</database><annotation>PASCAL VOC2007</annotation></source><verified>1</verified>"
    "<owner><flickrid>9</flickrid><name>Label Studio</name></owner><imagesize><nrows>9</nrows></imagesize>"
    "<camera name='a'><width>40</width><height>30</height><fx>9</fx><fy>9</fy><cx>1</cx><cy>2</cy></camera>"
    "<metadata><category>street</category><date>2020-01-02</date><gps lat='1' lon='2' alt='3'/></metadata>"
    "<num_objects>1</num_objects><size><width>40</width><height>30</height><depth>3</depth></size>"
)
MORE_METADATA = (
    "<scene><label>street</label></scene><geo><bounds>48.1,11.2,48.2,11.3</bounds></geo>"
    "<crop><left>0</left><top>0</top><width>80</width><height>60</height></crop>"
    "<roi><x1>0</x1><y1>0</y1><x2>80</x2><y2>60</y2></roi><page x='0' y='0' width='80' height='60'/>"
    "<attributes><attribute><name>weather</name><label>rain</label></attribute></attributes>"
    "<source class='web'/><image><class>urban</class></image><objects>3</objects>"
    "<resolution><x>72</x><y>72</y><width>80</width><height>60</height></resolution>"
    "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
)
ROTATED = "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>{angle}</angle></robndbox>"


def scored(score: float) -> VocObject:
    return VocObject("cat", CAT.box, False, score)


def shaped(inside: str) -> str:
    return f"<object><name>cat</name>{inside}</object>"


def points(*numbers: float) -> str:
    return "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in zip(numbers[::2], numbers[1::2], strict=True))


def enclosed(tag: str, box: tuple[float, float, float, float]) -> VocAnnotation:
    return VocAnnotation(None, (VocObject("cat", box),), (), {tag: 1})


def read(tmp_path: Path, content: str | bytes) -> VocAnnotation:
    path = tmp_path / "000001.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_annotation(path)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", VocAnnotation(None, ())),
        (OBJECT, VocAnnotation(None, (CAT,))),
        (OBJECT * 2, VocAnnotation(None, (CAT, CAT))),
        ("<size><width>40</width><height>30</height></size>", VocAnnotation((40, 30), ())),
        ("<size><width>0</width><height>0</height></size>", VocAnnotation(None, ())),
        ("<size><width>wide</width></size>", VocAnnotation(None, ())),
        (OBJECT.replace("cat", " cat\n"), VocAnnotation(None, (CAT,))),
        (
            OBJECT.replace("<name>", "<difficult>1</difficult><name>"),
            VocAnnotation(None, (VocObject("cat", CAT.box, True),)),
        ),
        *(
            (shaped(f"<difficult>{text}</difficult>{BOX}"), VocAnnotation(None, (DIFFICULT,)))
            for text in ("True", "true", " yes ", "1.0")
        ),
        (shaped(f"{ATTRIBUTES.format('difficult', 'true')}{BOX}"),
         VocAnnotation(None, (DIFFICULT,))),
        (OBJECT.replace("<name>", "<difficult/><name>"), VocAnnotation(None, (CAT,))),
        (OBJECT.replace("<name>", "<difficult>Unspecified</difficult><name>"), VocAnnotation(None, (CAT,))),
        (f"<object>{BOX}<name>cat</name></object>", VocAnnotation(None, (CAT,))),
        (
            OBJECT.replace(">3<", ">12.5<").replace(">10<", ">20.25<"),
            VocAnnotation(None, (VocObject("cat", (11.5, 3, 20.25, 12)),)),
        ),
        (
            f"<object><name>cat</name>{BOX}<part><name>head</name>{BOX}</part></object>",
            VocAnnotation(None, (CAT,)),
        ),
        (f"<filename>/etc/passwd</filename><path>C:\\x</path>{OBJECT}", VocAnnotation(None, (CAT,))),
        ("<objects></objects>", VocAnnotation(None, ())),
        (f"<objects>{OBJECT}</objects>{OBJECT}", VocAnnotation(None, (CAT, CAT))),
        (OBJECT.replace(BOX, BOX * 2), VocAnnotation(None, (CAT, CAT))),
        (OBJECT.upper().replace("CAT", "cat"), VocAnnotation(None, (CAT,))),
        ("<Size><Width>40</Width><Height>30</Height></Size>", VocAnnotation((40, 30), ())),
        (OBJECT.replace("cat", "cafe\u0301"), VocAnnotation(None, (VocObject("caf\xe9", CAT.box),))),
        (shaped(f"<score>0.75</score>{BOX}"), VocAnnotation(None, (scored(0.75),))),
        (shaped(f"<Confidence> 1 </Confidence>{BOX}"), VocAnnotation(None, (scored(1.0),))),
        (shaped(f"<score/><conf>None</conf>{BOX}"), VocAnnotation(None, (CAT,))),
        (shaped(f"<score>95%</score>{BOX}"), VocAnnotation(None, (scored(0.95),))),
        (shaped(f"<score/><probability>0.5</probability>{BOX}"), VocAnnotation(None, (scored(0.5),))),
        (shaped(BOX.replace("<xmin>", "<conf>0.25</conf><xmin>")), VocAnnotation(None, (scored(0.25),))),
        (shaped(f"{ATTRIBUTES.format('Score', 0.5)}{BOX}"), VocAnnotation(None, (scored(0.5),))),
        (shaped(f"{ATTRIBUTES.format('track_id', 5)}{BOX}"), VocAnnotation(None, (CAT,))),
        (shaped(f"<extra><score>0.5</score></extra>{BOX}"), VocAnnotation(None, (scored(0.5),))),
        (shaped(f"<part><score>0.5</score></part>{BOX}"), VocAnnotation(None, (CAT,))),
        (METADATA + OBJECT, VocAnnotation((40, 30), (CAT,))),
        (METADATA, VocAnnotation((40, 30), ())),
        (MORE_METADATA + OBJECT, VocAnnotation(None, (CAT,))),
        (MORE_METADATA, VocAnnotation(None, ())),
        (f"<margin left='1' top='2' right='3' bottom='4'/>{OBJECT}", VocAnnotation(None, (CAT,))),
        # a box of 8 x 9 around (6, 7.5), turned by 45 degrees: 17 / sqrt(2) = 12.021 wide and high
        (shaped(f"{ATTRIBUTES.format('rotation', '45.0')}{BOX}"),
         VocAnnotation(None, (VocObject("cat", (-0.01, 1.49, 12.01, 13.51)),), (), {"rotated bndbox": 1})),
        (shaped(f"{ATTRIBUTES.format('rotation', '0.0')}{BOX}"), VocAnnotation(None, (CAT,))),
        (shaped(f"{BOX}<point><x>3</x><y>4</y></point>"), VocAnnotation(None, (CAT,))),  # VOC2012's actions
        (shaped(ROTATED.format(angle=0)), enclosed("robndbox", (40, 35, 60, 45))),
        (shaped(ROTATED.format(angle=1.5707963)), enclosed("robndbox", (45, 30, 55, 50))),
        # sides of 20 and 10, turned by 30 degrees: 20 cos 30 + 10 sin 30 = 22.321 wide, 18.660 high
        (shaped(ROTATED.format(angle=0.5235988)), enclosed("robndbox", (38.84, 30.67, 61.16, 49.33))),
        (shaped("<polygon><x1>2</x1><y1>5</y1><x2>9.5</x2><y2>3</y2><x3>4</x3><y3>8</y3></polygon>"),
         enclosed("polygon", (2, 3, 9.5, 8))),
        (shaped(f"<polygon><username>me</username>{points(2, 5, 9, 3, 4, 8)}</polygon>"),
         enclosed("polygon", (2, 3, 9, 8))),
        (shaped("<points><point>2.0,5</point><point>9,3</point><point>4,8</point></points>"),
         enclosed("points", (2, 3, 9, 8))),
        (shaped(f"{BOX}<polygon><x1>1</x1></polygon><robndbox/>"), VocAnnotation(None, (CAT,))),
        (shaped(f"{BOX}<deleted>0</deleted>"), VocAnnotation(None, (CAT,))),
        (shaped(f"{BOX}<deleted>1</deleted>") + OBJECT, VocAnnotation(None, (CAT,), (), {"deleted": 1})),
        (f"<objects><object><possibleresult><name>cat</name></possibleresult>{BOX}</object></objects>",
         VocAnnotation(None, (CAT,))),
    ],
)  # fmt: skip
def test_read(tmp_path: Path, inside: str, expected: VocAnnotation) -> None:
    assert read(tmp_path, f'<annotation verified="yes">{inside}</annotation>') == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        ("<annotation><object>", "not well-formed"),
        ('{"objects": []}', "not well-formed"),
        ("<html></html>", "<html>, not <annotation>"),
        (f'<annotation xmlns="http://x.org/y">{OBJECT}</annotation>', "not <annotation>"),
        ("<annotation><folder>汉字</folder></annotation>".encode("gbk"), "not utf-8 text"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "not klingon text"),
        *(
            (f'<?xml version="1.0" encoding="{name}"?>\n<annotation/>'.encode(), f"not {name} text")
            for name in ("undefined", "punycode", "idna", "unicode_escape", "rot13", "zlib", "mbcs-x")
        ),
        (
            "<annotations><image/></annotations>",
            r"not <annotation> \(CVAT's own format; export it as PASCAL VOC",
        ),
        (
            f"<annotation><labels>{OBJECT}</labels></annotation>",
            "<labels> with <object> in it is not read; write",
        ),
        (f"<annotation><cat>{BOX}</cat></annotation>", "<cat> with <bndbox> in it is not read"),
        ("<annotation><bbox>1 2 3 4</bbox></annotation>", "<bbox> is not read"),
        (f"<annotation><objects>{BOX}</objects></annotation>", "<bndbox> is not read"),
        (f"<annotation xmlns:x='u:v'><x:Object>{BOX}</x:Object></annotation>", "Object> is not read"),
        *(
            (f"<annotation>{OBJECT}{inside}</annotation>", f"{place} is not read")
            for inside, place in {
                "<found><name>cat</name><bounds>1 2 3 4</bounds></found>": "<found>",
                "<item><name>cat</name><x>1</x><y>2</y><w>3</w><h>4</h></item>": "<item>",
                "<a><b><tag>cat</tag><tl>5,5</tl><br>20,20</br></b></a>": "<a> with <b> in it",
                "<region><type>cat</type><coords>[5, 5, 20, 20]</coords></region>": "<region>",
                "<instance><class>cat</class><place>1 2 3 4</place></instance>": "<instance>",
                "<HRSC_Object><Class_ID>1</Class_ID></HRSC_Object>": "<HRSC_Object>",
                "<HRSC_Object><box_xmin>1</box_xmin></HRSC_Object>": "<HRSC_Object>",
                "<found><box_xmin>1</box_xmin></found>": "<found> with <box_xmin> in it",
                "<target name='cat' x1='1' y1='2' x2='3' y2='4'/>": "<target>",
                "<x>1</x><y>2</y><w>3</w><h>4</h>": "a box outside of an <object>",
            }.items()
        ),
        *(
            (f"<annotation>{inside}</annotation>", f"{place} is not read")
            for inside, place in {
                "<item><left>1</left><top>2</top><width>3</width><height>4</height></item>": "<item>",
                "<face x1='1' y1='2' x2='3' y2='4'/>": "<face>",
                "<a><name>cat</name><p>1</p><q>2</q><r>3</r><s>4</s></a>": "<a>",
            }.items()
        ),
        (
            f"<annotation>{NORMALIZED * 2}</annotation>",
            "all coordinates are between 0 and 1 and look normalized",
        ),
    ],
)
def test_broken_file_is_named(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / '000001.xml'}: ")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<annotation></annotation>", None),
        (f"<annotation><object>{BOX}</object></annotation>", (1, "", "no <name>")),
        (f"<annotation>{OBJECT}<object><name>dog</name></object></annotation>", (2, "dog", "no <bndbox>")),
        (f"<annotation>{OBJECT.replace('<ymax>12</ymax>', '')}</annotation>", (1, "cat", "no <ymax>")),
        (
            f"<annotation>{OBJECT.replace('>12<', '>many<')}</annotation>",
            (1, "cat", "<ymax> is 'many', not a number"),
        ),
        *(  # float takes them
            (
                f"<annotation>{OBJECT.replace('>12<', f'>{text}<')}</annotation>",
                (1, "cat", f"<ymax> is {text!r}, not a number"),
            )
            for text in ("1_2", "\u0661\u0662", "\uff11\uff12")
        ),
        (
            f"<annotation>{OBJECT.replace('>12<', '>nan<')}</annotation>",
            (1, "cat", "<ymax> is nan, not a pixel coordinate"),
        ),
        (
            f"<annotation>{OBJECT.replace('>12<', '>-inf<')}</annotation>",
            (1, "cat", "<ymax> is -inf, not a pixel coordinate"),
        ),
        (
            f"<annotation>{OBJECT.replace('>12<', '>1e308<')}</annotation>",
            (1, "cat", "<ymax> is 1e308, not a pixel coordinate"),
        ),
        (
            f"<annotation>{OBJECT.replace('>12<', '>' + '9' * 400 + '<')}</annotation>",
            (1, "cat", f"<ymax> is {'9' * 40}, not a pixel coordinate"),
        ),
        *(
            (f"<annotation>{OBJECT}{shaped(inside)}</annotation>", (2, "cat", reason))
            for inside, reason in {
                f"<name>dog</name>{BOX}": "2 names; write an <object> for each",
                f"{BOX}{shaped(BOX)}": "<object> is not read; write a <bndbox>",
                "<bbox>1 2 3 4</bbox>": "<bbox> is not read; write a <bndbox>",
                f"<boxes>{BOX}</boxes>": "<boxes> with <bndbox> in it is not read; write a <bndbox>",
                BOX.replace(
                    "<ymin>4</ymin>", "<ymin>4</ymin><ymin>5</ymin>"
                ): "2 <ymin>; write a <bndbox> for each box",
                ATTRIBUTES.format("rotation", "left") + BOX: "<rotation> is 'left', not a number",
                ROTATED.format(angle=30): "<angle> is 30, not in radians",
                ROTATED.replace("<w>20</w>", ""): "no <w>",
                "<polygon><x1>1</x1><x2>3</x2></polygon>": "no <y1>",
                f"<polygon>{points(1, 2, 3, 4)}</polygon>": "<polygon> has 2 points; it needs 3",
                "<polygon><point>1</point></polygon>": "<polygon> has 0 points; it needs 3",
                "<polygon><point>1,x</point></polygon>": "<point> is 'x', not a number",
            }.items()
        ),
    ],
)
def test_objects_that_cannot_be_read_are_listed(
    tmp_path: Path, content: str, fault: tuple[int, str, str] | None
) -> None:
    both = content.replace("</annotation>", f"{OBJECT}<object><name>late</name></object></annotation>")
    annotation = read(tmp_path, both)
    last = len(annotation.objects) + len(annotation.errors)
    assert annotation.errors == (*([fault] if fault else []), (last, "late", "no <bndbox>"))
    assert len(annotation.objects) == last - len(annotation.errors) >= 1


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk", "iso-8859-1", "cp1252", "windows-1252", "latin1"]
)
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    name = "图片" if encoding.startswith(("utf", "gbk")) else "caf\xe9"
    declared = encoding.removesuffix("-sig")
    text = (
        f'<?xml version="1.0" encoding="{declared}"?><annotation>{OBJECT.replace("cat", name)}</annotation>'
    )
    assert read(tmp_path, text.encode(encoding)).objects[0].name == name


def test_entities_are_refused_quickly(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("CANARY")
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><annotation><folder>&e9;</folder></annotation>'
    outside = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]><annotation><name>&x;</name></annotation>'
    start = time.perf_counter()
    declared = bomb.replace("<!DOCTYPE", '<?xml version="1.0" encoding="utf-7"?><!DOCTYPE').encode("utf-7")
    for content in (bomb, outside, bomb.encode("utf-16"), declared):
        with pytest.raises(UserError, match="DTD"):
            read(tmp_path, content)
    assert time.perf_counter() - start < 1


def test_size_is_limited_and_depth_does_no_harm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16 MB"):
        read(tmp_path, f"<annotation><!--{'x' * 16_000_000}--></annotation>")
    assert read(tmp_path, f"<annotation>{'<a>' * 200_000}{'</a>' * 200_000}</annotation>").objects == ()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "000001.xml").mkdir()
    with pytest.raises(UserError, match=r"000001\.xml: not a regular file"):
        read_annotation(tmp_path / "000001.xml")
    with pytest.raises(UserError, match=r"000002\.xml: no such file"):
        read_annotation(tmp_path / "000002.xml")


def test_writer_is_the_exact_inverse(tmp_path: Path) -> None:
    objects = (
        VocObject("cat", (0.0, 0.0, 40.0, 30.0)),
        VocObject("<图> & co", (1.5, 2.25, 10.125, 12.0), True),
    )
    write_annotation(tmp_path / "a.xml", "a.jpg", 40, 30, ())
    assert read_annotation(tmp_path / "a.xml") == VocAnnotation((40, 30), ())
    write_annotation(tmp_path / "a.xml", "a.jpg", 40, 30, objects)
    assert read_annotation(tmp_path / "a.xml") == VocAnnotation((40, 30), objects)
    assert "<xmin>1</xmin>" in (tmp_path / "a.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\ud800", "\ufffe", "\uffff"])
def test_a_text_that_no_parser_reads_is_not_written(tmp_path: Path, character: str) -> None:
    path = tmp_path / "a.xml"
    write_annotation(path, "a.jpg", 64, 48, [VocObject("cat", (1, 2, 30, 40))])
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"a\.xml: .*U\+{ord(character):04X}, which XML cannot hold"):
        write_annotation(path, "a.jpg", 64, 48, [VocObject(f"c{character}t", (1, 2, 30, 40))])
    assert path.read_bytes() == before


def test_all_elements_of_voc_are_written_in_its_order(tmp_path: Path) -> None:
    objects = (VocObject("cat", (2.0, 3.0, 10.0, 12.0), True), VocObject("dog", (0.5, 0, 9, 9), score=2 / 3))
    write_annotation(tmp_path / "a.xml", "a.jpg", 40, 30, objects, folder="shots")
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert [node.tag for node in root] == [
        "folder", "filename", "source", "size", "segmented", "object", "object"
    ]  # fmt: skip
    texts = {node.tag: node.text for node in root.iter() if not len(node)}
    assert (texts["folder"], texts["filename"], texts["database"]) == ("shots", "a.jpg", "Unknown")
    assert (texts["width"], texts["height"], texts["depth"], texts["segmented"]) == ("40", "30", "3", "0")
    first, second = root.findall("object")
    assert [(node.tag, node.text) for node in first if not len(node)] == [
        ("name", "cat"), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "1")
    ]  # fmt: skip
    assert [(node.tag, node.text) for node in first[-1]] == [
        ("xmin", "3"), ("ymin", "4"), ("xmax", "10"), ("ymax", "12")
    ]  # fmt: skip
    assert (second[-1].tag, second[-1].text) == ("score", "0.666667")


def test_rewriting_finds_objects_however_their_tags_are_written(tmp_path: Path) -> None:
    part = "<part><name>cat</name></part>"
    text = (
        f"<Annotation><objects><Object>{part}<Name> cat </Name></Object><object><name>dog</name></object>"
        "<object/></objects></Annotation>"
    )
    (tmp_path / "a.xml").write_text(text)
    rewrite_annotation(tmp_path / "a.xml", tmp_path / "b.xml", "b.jpg", {"cat": "animal"}.get)
    assert (
        (tmp_path / "b.xml")
        .read_text()
        .endswith(
            f"<Annotation><filename>b.jpg</filename><objects><Object>{part}<Name>animal</Name></Object>"
            "</objects></Annotation>"
        )
    )
    assert (tmp_path / "a.xml").read_text() == text


def as_torchvision(node: ElementTree.Element) -> dict:
    """Parse as torchvision's VOCDetection: repeated tags become lists, <object> always is one."""
    texts = {node.tag: (node.text or "").strip()}
    if not len(node):
        return texts
    found: dict[str, list] = {}
    for child in map(as_torchvision, node):
        for tag, value in child.items():
            found.setdefault(tag, []).append(value)
    if node.tag == "annotation":
        found["object"] = [found.get("object", [])]
    return {node.tag: {tag: values[0] if len(values) == 1 else values for tag, values in found.items()}}


def test_the_usual_readers_take_what_is_written(tmp_path: Path) -> None:
    """They call int() or int(float()) on texts that they look up without asking whether they are there."""
    objects = round_boxes([VocObject("cat", (1.6, 2.0, 9.7, 12.2), True)], 40, 30)
    write_annotation(tmp_path / "a.xml", "a.jpg", 40, 30, objects)
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    parsed = as_torchvision(root)["annotation"]
    (found,) = parsed["object"]
    assert [int(found["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")] == [3, 3, 10, 12]
    assert (int(found["difficult"]), int(found["truncated"]), found["pose"]) == (1, 0, "Unspecified")
    assert (int(parsed["size"]["width"]), int(parsed["size"]["height"])) == (40, 30)
    vision = pytest.importorskip("torchvision.datasets.voc")
    assert vision.VOCDetection.parse_voc_xml(root)["annotation"] == parsed


def test_rounded_boxes_keep_two_pixels() -> None:
    """Sides of 2 pixels anywhere stay 2 pixels or more; the reader takes a box of one for a slip."""
    assert round_boxes([], 40, 30) == []
    for low in np.arange(0, 28, 0.05).tolist():
        for side in (1.0, 1.2, 2.0, 2.4, 11.5):
            high = min(low + side, 30.0)
            (found,) = round_boxes([VocObject("cat", (low, low, high, high))], 30, 30)
            x1, y1, x2, y2 = found.box
            assert (x1, x2) == (y1, y2)
            assert 0 <= x1 <= x2 - 2 <= 28
            assert all(edge.is_integer() for edge in found.box)
            assert clip_box(found.box, 30, 30) == (found.box, "")
            if side >= 2:
                assert max(abs(x1 - low), abs(x2 - high)) <= 0.5
            else:
                assert abs((x1 + x2) - (low + high)) <= 2


def test_a_rounded_box_ends_at_the_image() -> None:
    odd = [VocObject("cat", (-0.4, 28.9, 40.2, 30.1)), VocObject("cat", (39.2, 0, 40, 30))]
    assert [item.box for item in round_boxes(odd, 40, 30)] == [(0, 28, 40, 30), (38, 0, 40, 30)]
    assert round_boxes([VocObject("cat", (0, 0, 1, 30))], 1, 30)[0].box == (0, 0, 1, 30)


def test_a_score_that_is_no_number_is_still_a_score(tmp_path: Path) -> None:
    for inside in (f"<score>high</score>{BOX}", f"{BOX}{ATTRIBUTES.format('confidence', '?')}"):
        (found,) = read(tmp_path, f"<annotation>{shaped(inside)}</annotation>").objects
        assert found.score is not None
        assert math.isnan(found.score)
        write_annotation(tmp_path / "again.xml", "a.jpg", 40, 30, [found])
        assert math.isnan(read_annotation(tmp_path / "again.xml").objects[0].score or 0)


def test_rewriting_can_skip_predictions(tmp_path: Path) -> None:
    predicted = shaped(f"{BOX}<score>0.5</score>") + shaped(f"{BOX}<score>high</score>")
    text = f"<annotation>{OBJECT}{predicted}{shaped(BOX)}</annotation>"
    (tmp_path / "a.xml").write_text(text.replace("<name>cat", "<name>cafe\u0301"), encoding="utf-8")
    for skip, left in ((False, 4), (True, 2)):
        target = tmp_path / f"{skip}.xml"
        rewrite_annotation(tmp_path / "a.xml", target, "b.jpg", {"caf\u00e9": "tea"}.get, skip_scored=skip)
        assert [item.name for item in read_annotation(target).objects] == ["tea"] * left


EVERYTHING = (
    "<annotation verified='yes'><folder>x</folder><source><database>mine</database></source>"
    "<object id='7'><name>cat</name><pose>Left</pose><occluded>1</occluded>"
    "<part><name>head</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>6</xmax><ymax>7</ymax></bndbox></part>"
    "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>12</ymax><note>n</note></bndbox></object>"
    "<object><name>broken</name></object>"
    f"<objects><object><name>dog</name>{BOX}{BOX.replace('>10<', '>20<')}</object></objects></annotation>"
)
LONG = (2, 3, 20, 12)


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        ({}, "", ""),
        ({0: VocObject("cow", CAT.box)}, "<name>cat<", "<name>cow<"),
        (
            {0: DIFFICULT},
            "</bndbox></object><object><name>b",
            "</bndbox><difficult>1</difficult></object><object><name>b",
        ),
        (
            {0: VocObject("cat", (0, 1, 8, 9))},
            "<xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>12</ymax><note>n</note>",
            "<note>n</note><xmin>1</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax>",
        ),
        ({2: None}, BOX.replace(">10<", ">20<"), ""),
        (
            {1: VocObject("cow", CAT.box)},
            f"<object><name>dog</name>{BOX}",
            f"<object><name>cow</name>{BOX}</object><object><name>dog</name>",
        ),
        ({1: None, 2: None}, f"<object><name>dog</name>{BOX}{BOX.replace('>10<', '>20<')}</object>", ""),
    ],
    ids=["none", "name", "difficult", "box", "one box of two", "name of one box of two", "removed"],
)
def test_editing_changes_nothing_else(tmp_path, change, old, new):
    path = tmp_path / "a.xml"
    path.write_text(EVERYTHING)
    objects = read_annotation(path).objects
    assert objects == (CAT, VocObject("dog", CAT.box), VocObject("dog", LONG))
    states = dict(enumerate(objects)) | change
    edit_annotation(path, {place: item for place, item in states.items() if item is not None}, [])
    expected = ElementTree.fromstring(EVERYTHING.replace(old, new) if old else EVERYTHING)
    assert canonical(ElementTree.parse(path).getroot()) == canonical(expected)
    assert set(read_annotation(path).objects) == {item for item in states.values() if item is not None}


def canonical(node):
    return ElementTree.canonicalize(ElementTree.tostring(node, encoding="unicode"), strip_text=True)


def test_added_objects_follow_those_of_the_file(tmp_path):
    path = tmp_path / "a.xml"
    write_annotation(path, "a.jpg", 40, 30, [CAT])
    edit_annotation(path, {0: CAT}, [DIFFICULT, scored(0.5)])
    assert read_annotation(path).objects == (CAT, DIFFICULT, scored(0.5))


@pytest.mark.parametrize(
    "inside",
    [
        f"{BOX}<score>0.5</score>",
        f"{BOX}<difficult>1</difficult><prediction Confidence='50%'/>",
        BOX + ATTRIBUTES.format("score", "0.5"),
        "<polygon>" + points(2, 3, 10, 3, 10, 12) + "</polygon>",
        ROTATED.format(angle=0.5),
        BOX + ATTRIBUTES.format("rotation", "30"),
        BOX + ATTRIBUTES.format("difficult", "True"),
        "<possibleresult><name>cat</name></possibleresult>" + BOX,
    ],
)
def test_an_object_of_any_tool_takes_its_new_state(tmp_path, inside):
    path = tmp_path / "a.xml"
    name = "" if "possibleresult" in inside else "<name>cat</name>"
    path.write_text(f"<annotation><object>{name}{inside}</object></annotation>")
    assert len(read_annotation(path).objects) == 1
    for item in (VocObject("cow", (4, 5, 20, 22), True), VocObject("cow", (4, 5, 20, 22), False)):
        edit_annotation(path, {0: item}, [])
        assert read_annotation(path).objects == (item,)
