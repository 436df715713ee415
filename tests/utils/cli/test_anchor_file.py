from __future__ import annotations

from pathlib import Path

import pytest

from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS
from utils.cli.anchor_file import anchors_by_head, describe_anchors, read_anchors, split_masks, write_anchors
from utils.cli.errors import UserError

SIX = "10,20, 30,40, 50,60, 70,80, 90,100, 110,120"
HALVED = ((3, 4, 5), (0, 1, 2))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "anchors.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no anchors in it"),
        ("# only a comment\n", "no anchors in it"),
        ("masks = 3,4,5 0,1,2\n", "no anchors in it"),
        ("10,20, 30", "an odd number of values, 3"),
        (SIX.replace("50", "fifty"), "'fifty' is not a number"),
        (SIX.replace("50", "5_0"), "'5_0' is not a number"),
        *(
            (SIX.replace("50", bad), f"{bad} is not a valid side")
            for bad in ("0", "-5", "nan", "inf", "1e999", "0.02")
        ),
        ("10,20, 30,40, 50,60, 70,80", "4 anchors, 6 are needed"),
        (SIX + ", 130,140, 150,160", "8 anchors, 6 are needed for two heads and 9 for three"),
        (SIX + "\nmasks = 3,4,6 0,1,2", "name an anchor that is not among 6"),
        (SIX + "\nmasks = 3,4,5 0,1", "equally many anchor indices per head"),
        (SIX + "\nmasks = 4,5 2,3 1 0", "equally many anchor indices per head"),
        (SIX + "\nmasks = 4,5 2,3 0,1 0,1", "masks of 4 heads"),
        (SIX + "\nmasks = 4,5 2,3 0", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4 0,1,2,5", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4,-5 0,1,2", "equally many anchor indices per head"),
        (SIX + f"\nmasks = 3,4,{'9' * 5000} 0,1,2", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4,4 0,1,2", "an anchor twice"),
        (SIX + "\nsizes = 3,4,5", "'sizes' is neither anchors nor masks"),
        (b"\xff\xfe\x00\x81", "not UTF-8 text"),
        (b"10,20\0", "not UTF-8 text"),
        (b"1," * 60_000, "more than 0.1 MB"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_anchors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) - len(str(path)) < 200


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.txt: no such anchor file"):
        read_anchors(tmp_path / "no.txt")
    with pytest.raises(UserError, match="not a regular file"):
        read_anchors(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        SIX,
        SIX.replace(" ", "") + ",\n",
        "\ufeff" + SIX.replace(", ", "\r\n") + "\r\n",
        "anchors = " + SIX + "  # as in a .cfg",
        "# six\n10 20\n30 40\n\n50 60\n70 80\n90 100\n110 120\n",
        "10,20,\n30,40,\n50,60,\n70,80,\n90,100,\n110,120,\nmasks = (3,4,5), (0,1,2)\n",
    ],
)
def test_ways_to_write_six_anchors(tmp_path: Path, content: str) -> None:
    anchors, masks = read_anchors(written(tmp_path, content))
    assert anchors == ((10, 20), (30, 40), (50, 60), (70, 80), (90, 100), (110, 120))
    assert masks == HALVED


def test_official_anchors_keep_their_masks_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    text = ",  ".join(f"{width},{height}" for width, height in OFFICIAL_ANCHORS)
    assert read_anchors(written(tmp_path, text)) == (OFFICIAL_ANCHORS, ((3, 4, 5), (1, 2, 3)))
    assert read_anchors(written(tmp_path, text + "\nmasks = 3,4,5 0,1,2"))[1] == HALVED


NINE = SIX + ", 130,140, 150,160, 170,180"
THIRDS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))


@pytest.mark.parametrize(
    ("content", "masks"),
    [
        (NINE, THIRDS),
        (NINE + "\nmasks = 6,7,8  3,4,5  0,1,2", THIRDS),
        (NINE + "\nmasks = 6, 7, 8   3, 4, 5   0, 1, 2", THIRDS),
        (NINE + "\nmasks = (6, 7, 8), (3, 4, 5), (0, 1, 2)", THIRDS),
        (NINE + "\nmasks = [[6,7,8],[3,4,5],[0,1,2]]", THIRDS),
        (NINE + "\nmasks = 6,7,8\nmasks = 3,4,5\nmasks = 0,1,2", THIRDS),
        (SIX + "\nmasks = 4,5  2,3  0,1", ((4, 5), (2, 3), (0, 1))),
        (SIX + "\nmasks = 5 3 1", ((5,), (3,), (1,))),
        (NINE + "\nmasks = 6,7,8  3,4,5", ((6, 7, 8), (3, 4, 5))),
        *((SIX + f"\nmasks = {text}", HALVED) for text in ("3 4 5 0 1 2", "3,4,5,0,1,2", "[3 4 5] [0 1 2]")),
    ],
)
def test_masks_name_two_or_three_heads(tmp_path: Path, content: str, masks: tuple) -> None:
    assert read_anchors(written(tmp_path, content))[1] == masks


def test_anchors_are_described_by_head() -> None:
    anchors = ((1.5, 2), (3, 4), (5, 6), (7, 8))
    assert anchors_by_head(anchors, ((3,), (0,))) == (((7, 8),), ((1.5, 2),))
    assert describe_anchors(anchors, ((2, 3), (0, 3))) == "5x6 7x8; 1.5x2 7x8"


def test_darknets_own_nine_anchors_are_read(tmp_path: Path) -> None:
    text = "12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401"
    assert read_anchors(written(tmp_path, "anchors = " + text)) == USUAL_ANCHORS[3]


def test_masks_may_be_of_any_length(tmp_path: Path) -> None:
    anchors, masks = read_anchors(written(tmp_path, "1,1, 2.5,2, 3,3, 4,4\nmasks = 2,3 0,1"))
    assert (anchors, masks) == (((1, 1), (2.5, 2), (3, 3), (4, 4)), ((2, 3), (0, 1)))


@pytest.mark.parametrize(("number", "heads"), [(2, 2), (6, 2), (8, 2), (3, 3), (6, 3), (9, 3)])
def test_what_is_written_is_read(tmp_path: Path, number: int, heads: int) -> None:
    anchors = tuple((10.5 + index, 20.0 + 3 * index) for index in range(number))
    masks = split_masks(number, heads)
    assert [index for mask in masks[::-1] for index in mask] == list(range(number))
    write_anchors(tmp_path / "a.txt", anchors, masks, "two\nlines, and = 5")
    assert read_anchors(tmp_path / "a.txt") == (anchors, masks)
