from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.data.dataset_report import (
    CLIPPED,
    UNREVIEWED,
    DatasetReport,
    clip_box,
    count_overlap,
    report_findings,
    require_objects,
    rotate_box,
    scan_samples,
)
from utils.data.samples import load_samples
from utils.data.voc_xml import Box, VocObject
from utils.vision.image_reader import ImageHeader

CAT = VocObject("cat", (2, 3, 10, 12))
DOG = VocObject("dog", (0, 0, 40, 30), True)
SLIP = VocObject("cat", (9, 9, 10, 10))


def look(voc: Path, split: str = "train", **options: object) -> DatasetReport:
    """Scan a split as `prepare_training` does."""
    training = bool(options.pop("training", True))
    skip_bad = bool(options.pop("skip_bad", False))
    report = scan_samples(load_samples(voc, split), training=training, **options)  # type: ignore[arg-type]
    report_findings([report], skip_bad=skip_bad)
    if training:
        require_objects(report)
    return report


def test_nothing_to_scan() -> None:
    with pytest.raises(UserError, match="none of the 0 images"):
        report_findings([scan_samples([])], skip_bad=False)


def test_records(make_voc: MakeVoc) -> None:
    report = look(make_voc({"train": {"b": [DOG, CAT], "a": []}}))
    b, a = report.records
    assert (b.image_id, b.width, b.height, b.names) == ("b", 40, 30, ("dog", "cat"))
    np.testing.assert_array_equal(b.boxes, np.array([DOG.box, CAT.box], dtype=np.float32))
    assert b.difficult.tolist() == [True, False]
    assert (a.names, a.boxes.shape, a.boxes.dtype, a.difficult.shape) == ((), (0, 4), np.float32, (0,))
    assert report.class_names == ("cat", "dog")
    assert report.summary() == ["2 images, 2 objects: cat 1, dog 1"]
    assert count_overlap(report.records, [a]) == 1


def test_no_object_anywhere_is_an_error_in_training_only(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [], "b": []}})
    with pytest.raises(UserError, match="no image has an object"):
        look(voc)
    assert len(look(voc, training=False).records) == 2


def test_all_faults_are_told_in_one_go(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {f"{n:02}": [CAT] for n in range(14)}})
    for path in (voc / "Annotations").iterdir():
        path.write_text("")
    with pytest.raises(UserError, match=r"00\.xml.*and 13 more"):
        look(voc)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "warning: … and 4 more"
    with pytest.raises(UserError, match="none of the 14 images"):
        look(voc, skip_bad=True)


def add_to(voc: Path, image_id: str, more: str) -> None:
    xml = voc / "Annotations" / f"{image_id}.xml"
    xml.write_text(xml.read_text().replace("</annotation>", f"{more}</annotation>"))


SCORED = (
    "<object><name>dog</name><score>0.5</score>"
    "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
)


@pytest.mark.parametrize(
    ("skip", "used", "names"),
    [
        (
            False,
            "used; --skip-unreviewed skips them",
            {"a": ("cat",), "b": ("cat", "dog"), "c": ("dog",)},
        ),
        (True, "skipped", {"a": ("cat",), "b": ("cat",)}),
    ],
)
def test_objects_with_a_score_are_counted(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str], skip: bool, used: str, names: dict[str, tuple[str]]
) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": [CAT], "c": []}})
    add_to(voc, "b", SCORED)
    add_to(voc, "c", SCORED)
    report = look(voc, skip_unreviewed=skip)
    assert {record.image_id: record.names for record in report.records} == names
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: 2 objects with a score, as unreviewed predictions have, in 2 images, the first in "
        f"{voc}/Annotations/b.xml: {used}"
    )
    assert report.skipped == ({"unreviewed predictions": 1} if skip else {})  # nobody looked at c
    assert {(f.image_id, f.reason) for f in report.findings if f.kind == UNREVIEWED} == {
        ("b", f"1 of 2 objects with a score: {used}"),
        ("c", f"1 of 1 object with a score: {used}"),
    }


def test_other_shapes_are_counted_once(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": []}})
    corners = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((3, 4), (30, 4), (30, 20)))
    deleted = SCORED.replace("<score>0.5</score>", "<deleted>1</deleted>")
    for image_id in ("a", "b"):
        add_to(voc, image_id, f"<object><name>dog</name><polygon>{corners}</polygon></object>{deleted}")
    report = look(voc)
    assert report.summary() == [
        "2 images, 3 objects: cat 1, dog 2",
        "read as the box around the shape: 2 <polygon>; skipped as <deleted>: 2 objects",
    ]
    assert report.records[1].boxes.tolist() == [[3, 4, 30, 20]]
    assert [f.level for f in report.findings] == ["note", "note"]
    assert capsys.readouterr().err == ""


def test_a_slip_is_left_out_in_training_and_an_error_in_val(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = make_voc({"train": {"a": [CAT, SLIP]}})
    report = look(voc)
    assert report.records[0].names == ("cat",)
    assert report.summary()[1] == "objects clipped: 0, skipped: 1"
    assert "a.xml: object 2 (cat): no area" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"a\.xml: object 2 \(cat\): no area"):
        look(voc, training=False)
    assert look(voc, training=False, skip_bad=True).records[0].names == ("cat",)


def test_clipping_is_told_and_counted(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    report = look(make_voc({"train": {"a": [VocObject("cat", (20, 3, 60, 12))]}}), training=False)
    assert report.records[0].boxes.tolist() == [[20, 3, 40, 12]]
    assert report.count(CLIPPED) == 1
    assert "a.xml: object 1 (cat): clipped, partly outside" in capsys.readouterr().err


def test_unknown_classes(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": [DOG, DOG, CAT]}})
    report = look(voc, class_names=("cat",))
    assert report.class_counts == {"cat": 2}
    assert f"'dog' (2); the first in {voc / 'Annotations' / 'b.xml'}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"only objects of 'cat', 'dog'|only objects of 'dog', 'cat'"):
        look(voc, class_names=("zebra",))


def test_pixels_decide_about_the_size(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    Image.new("RGB", (50, 20)).save(voc / "JPEGImages" / "a.jpg")
    record = look(voc).records[0]
    assert (record.width, record.height) == (50, 20)
    assert "a.xml: <size> is 40x30, the image 50x20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stated", "expected"),
    [((30, 40), [2, 3, 10, 12]), ((40, 30), [18, 2, 27, 10])],
    ids=["displayed", "stored"],
)
def test_turned_pictures(make_voc: MakeVoc, stated: tuple[int, int], expected: list[int]) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 40 x 30, displayed 30 x 40
    Image.new("RGB", (40, 30)).save(voc / "JPEGImages" / "a.jpg", exif=exif)
    xml = voc / "Annotations" / "a.xml"
    text = xml.read_text().replace("<width>40<", f"<width>{stated[0]}<")
    xml.write_text(text.replace("<height>30<", f"<height>{stated[1]}<"))
    record = look(voc).records[0]
    assert (record.width, record.height) == (30, 40)
    assert record.boxes[0].tolist() == expected


def test_one_image_in_two_splits_counts_once(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": [CAT]}, "val": {"b": [CAT]}})
    report = scan_samples(load_samples(voc, "train") + load_samples(voc, "val"))
    assert [record.image_id for record in report.records] == ["a", "b"]


TURNS = {  # what each EXIF orientation does to the stored rows and columns
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ((0, 0, 40, 30), (0, 0, 40, 30), ""),
        ((2, 3, 4, 5), (2, 3, 4, 5), ""),
        ((2.5, 3, 4.5, 5), (2.5, 3, 4.5, 5), ""),
        ((-1, -1, 10, 10), (0, 0, 10, 10), ""),  # counted from 0: no word
        ((2, 3, 41, 31), (2, 3, 40, 30), ""),
        ((2, 3, 900, 10), None, "mostly outside"),
        (
            (2, 3, 60, 10),
            (2, 3, 40, 10),
            "partly outside the image of 40x30 (xmin 3, ymin 4, xmax 60, ymax 10)",
        ),
        ((-20, 3, 10, 10), (0, 3, 10, 10), "partly outside"),
        ((-46, 3, 10, 10), None, "mostly outside"),
        ((39.5, 3, 42, 10), None, "mostly outside"),  # less than a pixel of it is left
        ((50, 3, 60, 10), None, "wholly outside"),
        ((-9, -9, 0, 0), None, "wholly outside"),
        ((10, 3, 4, 10), None, "inverted"),
        ((3, 9, 10, 9), None, "inverted (xmin 4, ymin 10, xmax 10, ymax 9)"),
        ((503, 336, 504, 337), None, "no area (xmin 504, ymin 337, xmax 504, ymax 337)"),
    ],
)
def test_clip(box: Box, expected: Box | None, reason: str) -> None:
    clipped, said = clip_box(box, 40, 30)
    assert clipped == expected
    assert said.startswith(reason)
    assert bool(said) == bool(reason)


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_boxes_turn_with_the_pixels(orientation: int) -> None:
    stored = np.zeros((30, 40))
    stored[4:11, 2:9] = 1
    displayed = TURNS[orientation](stored)
    rows, columns = np.nonzero(displayed)
    header = ImageHeader(*displayed.shape, orientation)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert rotate_box((2, 4, 9, 11), header) == expected
