"""Table of all faults, with what the user must see for each.

Outcomes:
    ok: works without a warning, and `verify` passes.
    warned: works, a warning says what is corrected or skipped, and `verify` passes.
    object: as warned in training; in val an error, which --skip-bad skips.
    image: an error before the first step; --skip-bad skips the image with a warning and a total.
    error: an error that --skip-bad does not skip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.faults.image_faults import IMAGE_FAULTS
from tests.faults.list_faults import LIST_FAULTS
from tests.faults.workspace import CIRCLE, HEIGHT, SQUARE, TRAIN, WIDTH, Workspace, draw
from tests.faults.xml_faults import XML_FAULTS
from utils.data.dataset_report import Record
from utils.vision.image_reader import read_image

Verify = Callable[[Workspace, dict[str, Record]], None]
FAULTS: dict[str, Callable[[Workspace], object]] = {
    "good_control": lambda workspace: None,
    **XML_FAULTS,
    **IMAGE_FAULTS,
    **LIST_FAULTS,
}
# Box edges by letter: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax.
_EDGES = {name: (box[0] - 1, box[1] - 1, box[2], box[3]) for name, box in (("s", SQUARE), ("c", CIRCLE))}
_NAMES = {"s": "square", "c": "circle"}


@dataclass(frozen=True)
class Row:
    """What is expected of one fault."""

    outcome: str  # see the top of this file
    says: str = ""  # what the message must name; `{id}` is the broken image
    verify: Verify | None = None  # checks what was read from the data


def has(objects: str, *others: tuple[float, ...], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Verify:
    """Expect a size (width, height) and objects: s the square as drawn, c the circle, ? another box."""

    def verify(workspace: Workspace, found: dict[str, Record]) -> None:
        given = iter(others)
        record = found[workspace.image_id]
        assert record.names == tuple(_NAMES.get(letter, "square") for letter in objects)
        wanted = [_EDGES[letter] if letter in _EDGES else next(given) for letter in objects]
        np.testing.assert_array_equal(record.boxes, np.array(wanted, np.float32).reshape(-1, 4))
        assert (record.width, record.height) == size
        assert not record.difficult.any()

    return verify


def as_drawn(_: Workspace, found: dict[str, Record]) -> None:
    """Expect all images and all objects as in the data without a fault."""
    for name, record in found.items():
        has("sc")(Workspace(record.image_path, name, None), found)  # type: ignore[arg-type]
    assert len(found) == len(TRAIN)


def shows(change: Callable[[Image.Image], Image.Image] = lambda picture: picture) -> Verify:
    """Expect all images as drawn, and the pixels of the broken one as those of a changed picture."""

    def verify(workspace: Workspace, found: dict[str, Record]) -> None:
        as_drawn(workspace, found)
        for record in found.values():
            number = int(record.image_id) if record.image_id.isdigit() else 1
            picture = change(draw(number)) if number == 1 else draw(number)
            wanted = np.asarray(picture.convert("RGB"), dtype=np.float32)
            pixels = read_image(record.image_path)
            assert pixels.shape == wanted.shape
            assert np.abs(pixels - wanted).mean() < 2.0

    return verify


def red_inside(size: tuple[int, int], box: tuple[int, ...]) -> Verify:
    """Expect one box at this place, and red pixels in it and nowhere beside it."""

    def verify(workspace: Workspace, found: dict[str, Record]) -> None:
        has("?", box, size=size)(workspace, found)
        x1, y1, x2, y2 = box
        pixels = read_image(found[workspace.image_id].image_path).astype(np.int16)
        assert pixels.shape == (size[1], size[0], 3)
        red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(axis=-1)
        assert red[y1:y2, x1:x2].mean() > 0.95
        red[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = False
        assert red.mean() < 0.05

    return verify


def over_white(picture: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))


def half_over_white(picture: Image.Image) -> Image.Image:
    picture.putalpha(Image.new("L", picture.size, 128))
    return over_white(picture)


def palette_over_white(picture: Image.Image) -> Image.Image:
    picture = picture.quantize(64)
    picture.info["transparency"] = 0
    return over_white(picture)


def difficult(which: list[bool]) -> Verify:
    def verify(workspace: Workspace, found: dict[str, Record]) -> None:
        assert found[workspace.image_id].names == ("square", "circle")
        assert found[workspace.image_id].difficult.tolist() == which

    return verify


def many(workspace: Workspace, found: dict[str, Record]) -> None:
    assert len(found[workspace.image_id].names) == 20_000


_XML, _JPG = "{id}.xml", "{id}.jpg"
_OK = Row("ok", verify=as_drawn)
_BAD_XML, _BAD_IMAGE = Row("image", _XML), Row("image", _JPG)
_SEEN = Row("ok", verify=shows())
_NO_OBJECT = Row("object", _XML, has("c"))

ROWS: dict[str, Row] = {
    "good_control": _SEEN,
    # annotations
    "xml_malformed": _BAD_XML,
    "xml_empty": _BAD_XML,
    "xml_missing": _BAD_XML,
    "xml_wrong_root": _BAD_XML,
    "xml_json": _BAD_XML,
    "xml_no_size": _OK,
    "xml_zero_size": _OK,
    "xml_size_mismatch": Row("warned", "{id}.xml: <size> is 400x300, the image 200x150", as_drawn),
    "xml_box_partly_outside": Row("object", "{id}.xml: object 1 (square)", has("c")),  # 12 % are left
    "xml_box_outside": _NO_OBJECT,
    "xml_box_negative": Row("warned", "{id}.xml: object 1 (square)", has("?c", (0, 0, 80, 90))),
    "xml_box_inverted": _NO_OBJECT,
    "xml_box_zero": _NO_OBJECT,
    "xml_box_float": Row("ok", verify=has("?c", (11.5, 30.25, 80.75, 90))),
    "xml_box_text": _BAD_XML,
    "xml_box_nan": _BAD_XML,
    "xml_box_huge": _BAD_XML,
    "xml_no_bndbox": _BAD_XML,
    "xml_missing_coord": _BAD_XML,
    "xml_no_name": _BAD_XML,
    "xml_unknown_class": Row("warned", "zebra", has("c")),
    "xml_all_unknown": Row("error", "zebra"),
    "xml_class_blanks": _OK,
    "xml_difficult": Row("ok", verify=difficult([False, True])),
    "xml_no_difficult": _OK,
    "xml_difficult_text": _OK,
    "xml_no_objects": Row("ok", verify=has("")),
    "xml_no_objects_anywhere": Row("error", "no image has an object"),
    "xml_parts": _OK,
    "xml_reordered": _OK,
    "xml_several_boxes": Row("ok", verify=has("s?c", _EDGES["c"])),
    "xml_polygon": _OK,
    "xml_rotated_box": _OK,
    "xml_unknown_box": _BAD_XML,
    "xml_several_names": _BAD_XML,
    "xml_objects_element": _OK,
    "xml_upper_case": _OK,
    "xml_unknown_element": _BAD_XML,
    "xml_normalized": Row("image", "{id}.xml: all coordinates are between 0 and 1"),
    "xml_score": Row("warned", "{id}.xml", as_drawn),
    "xml_deleted": _OK,
    "xml_attribute": _OK,
    "xml_namespace": _BAD_XML,
    "xml_duplicate_object": Row("ok", verify=has("ssc")),
    "xml_gbk_declared": _OK,
    "xml_gbk_undeclared": _BAD_XML,
    "xml_bom": _OK,
    "xml_utf16": _OK,
    "xml_entity_bomb": _BAD_XML,
    "xml_quadratic": _BAD_XML,
    "xml_external_entity": _BAD_XML,
    "xml_huge": _BAD_XML,
    "xml_deep": _OK,
    "xml_many_objects": Row("ok", verify=many),
    "xml_filename_lies": _OK,
    "xml_windows_path": _OK,
    # images
    "img_truncated": _BAD_IMAGE,
    "img_truncated_png": _BAD_IMAGE,
    "img_zero_bytes": _BAD_IMAGE,
    "img_html": _BAD_IMAGE,
    "img_lfs_pointer": _BAD_IMAGE,
    "img_is_directory": _BAD_IMAGE,
    "img_missing": _BAD_IMAGE,
    "img_png_named_jpg": _SEEN,
    "img_upper_ext": _SEEN,
    "img_jpeg_ext": _SEEN,
    "img_other_formats": _SEEN,
    "img_two_candidates": _BAD_IMAGE,
    "img_cmyk": _SEEN,
    "img_gray": Row("ok", verify=shows(lambda picture: picture.convert("L"))),
    "img_gray16": Row("ok", verify=shows(lambda picture: picture.convert("L"))),
    "img_rgb16": _SEEN,
    "img_alpha": Row("ok", verify=shows(half_over_white)),
    "img_palette": Row("ok", verify=shows(palette_over_white)),
    "img_bilevel": Row("ok", verify=shows(lambda picture: picture.convert("1"))),
    "img_animated": Row("ok", verify=shows(lambda picture: picture.quantize(256))),
    "img_exif_display": Row("ok", verify=red_inside((HEIGHT, WIDTH), (20, 60, 80, 160))),
    "img_exif_stored": Row("ok", verify=red_inside((HEIGHT, WIDTH), (60, 20, 120, 80))),
    "img_bad_exif": _SEEN,
    "img_1x1": Row("ok", verify=has("", size=(1, 1))),
    "img_extreme_aspect": Row("ok", verify=has("?", (10, 0, 2900, 2), size=(3000, 2))),
    "img_bomb": _BAD_IMAGE,
    "img_bomb_warn": _BAD_IMAGE,
    "img_header_lies": _BAD_IMAGE,
    "img_trailing_bytes": _SEEN,
    "img_unicode_space": _SEEN,
    "img_unreadable": _BAD_IMAGE,
    "img_symlink_loop": _BAD_IMAGE,
    "img_symlink_dangling": _BAD_IMAGE,
    "img_fifo": _BAD_IMAGE,
    "img_truncated_in_val": Row("image", "000006.jpg"),
    "dir_symlink_loop": _OK,
    # split files
    "split_missing": Row("error", "train.txt"),
    "split_empty": Row("error", "train.txt"),
    "split_val_empty": Row("error", "val.txt"),
    "split_unknown_id": Row("image", "000099"),
    "split_crlf_blank": _OK,
    "split_columns": _OK,
    "split_bom": _OK,
    "split_duplicate": Row("warned", "train.txt: 4 ids listed twice", as_drawn),
    "split_overlap": Row("warned", "2 images", as_drawn),
    "split_traversal": Row("error", ".."),
    "split_binary": Row("error", "train.txt"),
    "split_with_ext": _OK,
    "split_no_voc": Row("error", "VOCdevkit"),
    # classes and anchors
    "cfg_classes_empty": Row("error", "classes.txt"),
    "cfg_classes_missing": Row("error", "classes.txt"),
    "cfg_classes_duplicate": Row("error", "square"),
    "cfg_classes_blanks": _OK,
    "cfg_classes_gbk": Row("error", "classes.txt"),
    "cfg_anchors_odd": Row("error", "anchors.txt"),
    "cfg_anchors_text": Row("error", "anchors.txt"),
    "cfg_anchors_zero": Row("error", "anchors.txt"),
    "cfg_anchors_few": Row("error", "anchors.txt"),
    "cfg_anchors_empty": Row("error", "anchors.txt"),
    "cfg_anchors_lines": _OK,
}
ANCHOR_ROWS = tuple(name for name in ROWS if name.startswith("cfg_anchors"))


HEAVY = ("xml_huge", "xml_deep", "xml_many_objects", "img_bomb", "img_bomb_warn")
# Tested in a process of their own: a named pipe could block, and root first has to drop its rights to read.
APART = ("img_fifo", "img_unreadable")


def rows(*outcomes: str, prefix: str = "", quick: Collection[str] | None = None) -> list[Any]:
    """Return the rows of these outcomes as parameters of a test, without those of anchors and APART.

    Args:
        outcomes: of the rows.
        prefix: of their names.
        quick: the rows of the quick tests; None marks only HEAVY as slow.
    """
    names = [name for name, row in ROWS.items() if row.outcome in outcomes and name.startswith(prefix)]
    chosen = [name for name in names if name not in (*APART, *ANCHOR_ROWS)]
    slow = [name for name in chosen if name in HEAVY or (quick is not None and name not in quick)]
    marks = [pytest.mark.slow] if quick is None else [pytest.mark.slow, pytest.mark.exhaustive]
    return [pytest.param(name, marks=marks) if name in slow else name for name in chosen]
