"""The rules that hold for every fault: the table is whole, nothing leaks, hangs or crashes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import data
import evaluate
import train
from tests.faults.conftest import MakeRoom
from tests.faults.room import DATA, ON_DATA, QUICK, VAL, Room, check, contents, draw, learn, measure, run
from tests.faults.rows import MAKERS, ROWS
from tests.faults.xml_faults import CANARY
from tests.training_room import errors_in, started

HOME = Path(data.__file__).parent
NAMES = """
good_control xml_malformed xml_empty xml_missing xml_wrong_root xml_json xml_no_size xml_zero_size
xml_size_mismatch xml_box_partly_outside xml_box_outside xml_box_negative xml_box_inverted xml_box_zero
xml_box_float xml_box_text xml_box_nan xml_box_huge xml_no_bndbox xml_missing_coord xml_no_name
xml_unknown_class xml_all_unknown xml_class_blanks xml_difficult xml_no_difficult xml_difficult_text
xml_no_objects xml_no_objects_anywhere xml_parts xml_reordered xml_attribute xml_namespace
xml_duplicate_object xml_gbk_declared xml_gbk_undeclared xml_bom xml_utf16 xml_entity_bomb xml_quadratic
xml_external_entity xml_huge xml_deep xml_many_objects xml_filename_lies xml_windows_path img_truncated
img_truncated_png img_zero_bytes img_html img_lfs_pointer img_is_directory img_missing img_png_named_jpg
img_upper_ext img_jpeg_ext img_other_formats img_two_candidates img_cmyk img_gray img_gray16 img_rgb16
img_alpha img_palette img_bilevel img_animated img_exif_display img_exif_stored img_bad_exif img_1x1
img_extreme_aspect img_bomb img_bomb_warn img_header_lies img_trailing_bytes img_unicode_space
img_unreadable img_symlink_loop img_symlink_dangling img_fifo img_truncated_in_val dir_symlink_loop
split_missing split_empty split_val_empty split_unknown_id split_crlf_blank split_columns split_bom
split_duplicate split_overlap split_traversal split_binary split_with_ext split_no_voc cfg_classes_empty
cfg_classes_missing cfg_classes_duplicate cfg_classes_blanks cfg_classes_gbk cfg_anchors_odd
cfg_anchors_text cfg_anchors_zero cfg_anchors_few cfg_anchors_empty cfg_anchors_lines
"""


def test_the_table_holds_every_fault() -> None:
    assert list(ROWS) == NAMES.split()
    assert set(MAKERS) == set(ROWS)


def test_a_changed_file_would_be_seen(make_room: MakeRoom) -> None:
    room = make_room()
    before = contents(room.folder)
    assert {str(room.xml.relative_to(room.folder)), "classes.txt"} < set(before)
    room.image.write_bytes(room.image.read_bytes()[:-1] + b"\0")
    (room.image.parent / "new.jpg").touch()
    after = contents(room.folder)
    assert {name for name in after if after[name] != before.get(name)} == {
        f"{DATA}/JPEGImages",
        f"{DATA}/JPEGImages/000001.jpg",
        f"{DATA}/JPEGImages/new.jpg",
    }


def test_an_external_entity_is_read_by_nobody(make_room: MakeRoom, weights: Path) -> None:
    room = make_room("000006")
    MAKERS["xml_external_entity"](room)
    outcomes = [check(room), check(room, "--skip-bad"), measure(room, weights), learn(room)]
    outcomes.append(measure(room, weights, "--skip-bad"))
    outcomes.append(run(room, train.main, (*ON_DATA, *QUICK, "--skip-bad")))
    assert outcomes[-1].status == 0
    for outcome in outcomes:
        assert CANARY not in outcome.out + outcome.err + str(outcome.report)
    written = [path for path in (room.folder / "runs").rglob("*") if path.is_file()]
    assert {path.parent.name for path in written} >= {"exp", "cache"}
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("image_id", ["000001", "000006"])
def test_a_named_pipe_is_not_waited_for(make_room: MakeRoom, weights: Path, image_id: str) -> None:
    room = make_room(image_id)
    MAKERS["img_fifo"](room)
    assert stat.S_ISFIFO(room.image.stat().st_mode)
    before = contents(room.folder)
    commands = [(data.main, ("check", *ON_DATA, "--json", "report.json")), (train.main, (*ON_DATA, *QUICK))]
    if image_id in VAL:
        commands.append((evaluate.main, (*ON_DATA, "--weights", str(weights), "--device", "cpu")))
    for work, argv in commands:
        with started(*argv, work=work) as command:
            assert command.wait(60) == 2
            (line,) = errors_in(command.text)
        assert f"{image_id}.jpg: not a regular file" in line
        assert len(line) <= 400
    assert contents(room.folder) == before
    findings = json.loads((room.folder / "report.json").read_text())["findings"]
    (found,) = [row for row in findings if row["level"] == "error"]
    assert found["file"].endswith(f"{image_id}.jpg")
    assert (found["kind"], found["reason"]) == ("unreadable", "not a regular file")


def give_up_rights() -> None:
    """Take from root, in a process of its own, the right to read what nobody may read."""
    if os.geteuid() == 0:
        version_3, myself = 0x20080522, 0
        assert ctypes.CDLL(None).capset(struct.pack("Ii", version_3, myself), bytes(24)) == 0


def test_a_file_that_may_not_be_read(make_room: MakeRoom) -> None:
    room = make_room()
    MAKERS["img_unreadable"](room)
    with started("check", *ON_DATA, before=give_up_rights, work=data.main) as command:
        assert command.wait() == 2
        (line,) = errors_in(command.text)
        assert "000001.jpg: cannot read the image: Permission denied" in line
    room.image.chmod(0o644)  # and what was found is not held against it
    with started("check", *ON_DATA, before=give_up_rights, work=data.main) as command:
        assert command.wait() == 0


@pytest.mark.parametrize(
    "line",
    [
        "../../outside",
        "../outside",
        "a/../../../outside",
        "/etc/passwd",
        "..\\outside",
        "C:\\outside",
        "../../outside.jpg",
        "../../outside 1",
    ],
)
def test_an_id_does_not_leave_the_folder(make_room: MakeRoom, weights: Path, line: str) -> None:
    room = make_room()
    draw(9).save(room.folder / "outside.jpg")
    shutil.copy(room.xml, room.folder / "outside.xml")
    for split in ("train", "val"):
        with (room.lists / f"{split}.txt").open("a") as file:
            file.write(f"{line}\n")
    for outcome in (check(room), check(room, "--skip-bad"), learn(room), measure(room, weights)):
        assert "is outside the data folder" in outcome.error
        assert ".txt" in outcome.error


@pytest.mark.parametrize("name", ["/etc/passwd", "../../outside.jpg", "C:\\outside.jpg", "000002.jpg"])
def test_a_file_name_in_the_xml_is_not_followed(make_room: MakeRoom, name: str) -> None:
    room = make_room()
    text = room.xml.read_text().replace(">000001.jpg<", f">{name}<")
    room.xml.write_text(text.replace("</filename>", f"</filename><path>{name}</path>"))
    assert check(room).status == 0
    assert room.records()["000001"].image_path == Path(DATA, "JPEGImages", "000001.jpg")


def translate(room: Room) -> None:
    """Give the first image and both classes Chinese names."""
    MAKERS["img_unicode_space"](room)
    for path in (*room.xml.parent.iterdir(), room.folder / "classes.txt"):
        text = path.read_text(encoding="utf-8").replace("square", "方块").replace("circle", "圆 形")
        path.write_text(text, encoding="utf-8")


# One interpreter for all the commands, since each would import torch anew.
IN_TURN = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(HOME)!r})
import data, train
commands = (data.main, {["check", *ON_DATA, "--json", "report.json"]}), (train.main, {[*ON_DATA, *QUICK]})
statuses = [work(argv) for work, argv in commands]
Path({DATA!r}, "Annotations", "图 片 é 1.xml").write_bytes(b"")
statuses += [work(argv) for work, argv in commands]
assert statuses == [0, 0, 2, 2], statuses
"""


@pytest.mark.slow
def test_a_plain_locale_does_not_crash_on_chinese_names(make_room: MakeRoom) -> None:
    room = make_room()
    translate(room)
    Path("in_turn.py").write_text(IN_TURN, encoding="utf-8")
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    plain.pop("PYTHONUTF8", None)
    words = [sys.executable, "in_turn.py"]
    done = subprocess.run(words, capture_output=True, text=True, env=plain, check=False)
    assert done.returncode == 0, done.stderr
    assert "方块" in (room.folder / "report.json").read_text(encoding="utf-8")
    assert "\\u65b9\\u5757 4" in done.stderr
    assert (room.folder / "runs/train/exp/weights/best.pth").is_file()
    lines = errors_in(done.stderr)
    assert len(lines) == 2
    assert all("\\u56fe \\u7247 \\xe9 1.xml: the file is empty" in line for line in lines)
