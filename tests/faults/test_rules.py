"""Rules for every fault: nothing leaks, hangs or crashes."""

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
from tests.faults.conftest import MakeWorkspace
from tests.faults.rows import FAULTS, ROWS
from tests.faults.workspace import (
    DATA,
    ON_DATA,
    QUICK,
    VAL,
    Workspace,
    draw,
    run,
    run_check,
    run_evaluate,
    run_train,
    snapshot,
)
from tests.faults.xml_faults import CANARY
from tests.training_room import errors_in, started

HOME = Path(data.__file__).parent


def test_every_fault_has_a_row() -> None:
    assert set(FAULTS) == set(ROWS)


def test_an_external_entity_is_read_by_nobody(make_workspace: MakeWorkspace, weights: Path) -> None:
    workspace = make_workspace("xml_external_entity", "000006")
    outcomes = [
        run_check(workspace),
        run_check(workspace, "--skip-bad"),
        run_evaluate(workspace, weights),
        run_train(workspace),
    ]
    outcomes.append(run_evaluate(workspace, weights, "--skip-bad"))
    outcomes.append(run(workspace, train.main, (*ON_DATA, *QUICK, "--skip-bad")))
    assert outcomes[-1].status == 0
    for outcome in outcomes:
        assert CANARY not in outcome.out + outcome.err + str(outcome.report)
    written = [path for path in (workspace.folder / "runs").rglob("*") if path.is_file()]
    assert {path.parent.name for path in written} >= {"exp", "cache"}
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("image_id", ["000001", "000006"])
def test_a_named_pipe_is_not_waited_for(make_workspace: MakeWorkspace, weights: Path, image_id: str) -> None:
    workspace = make_workspace("img_fifo", image_id)
    assert stat.S_ISFIFO(workspace.image.stat().st_mode)
    before = snapshot(workspace.folder)
    commands = [(data.main, ("check", *ON_DATA, "--json", "report.json")), (train.main, (*ON_DATA, *QUICK))]
    if image_id in VAL:
        commands.append((evaluate.main, (*ON_DATA, "--weights", str(weights), "--device", "cpu")))
    for work, argv in commands:
        with started(*argv, work=work) as command:
            assert command.wait(60) == 2
            (line,) = errors_in(command.text)
        assert f"{image_id}.jpg: not a regular file" in line
        assert len(line) <= 400
    assert snapshot(workspace.folder) == before
    findings = json.loads((workspace.folder / "report.json").read_text())["findings"]
    (found,) = [row for row in findings if row["level"] == "error"]
    assert found["file"].endswith(f"{image_id}.jpg")
    assert (found["kind"], found["reason"]) == ("unreadable", "not a regular file")


def give_up_rights() -> None:
    """Take from root, in a process of its own, the right to read what nobody may read."""
    if os.geteuid() == 0:
        version_3, myself = 0x20080522, 0
        assert ctypes.CDLL(None).capset(struct.pack("Ii", version_3, myself), bytes(24)) == 0


def test_a_file_that_may_not_be_read(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace("img_unreadable")
    with started("check", *ON_DATA, before=give_up_rights, work=data.main) as command:
        assert command.wait() == 2
        (line,) = errors_in(command.text)
        assert "000001.jpg: cannot read the image: Permission denied" in line
    workspace.image.chmod(0o644)  # and what was found is not held against it
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
def test_an_id_does_not_leave_the_folder(make_workspace: MakeWorkspace, weights: Path, line: str) -> None:
    workspace = make_workspace()
    draw(9).save(workspace.folder / "outside.jpg")
    shutil.copy(workspace.xml, workspace.folder / "outside.xml")
    for split in ("train", "val"):
        with (workspace.lists / f"{split}.txt").open("a") as file:
            file.write(f"{line}\n")
    for outcome in (
        run_check(workspace),
        run_check(workspace, "--skip-bad"),
        run_train(workspace),
        run_evaluate(workspace, weights),
    ):
        assert "is outside the data folder" in outcome.error
        assert ".txt" in outcome.error


@pytest.mark.parametrize("name", ["/etc/passwd", "../../outside.jpg", "C:\\outside.jpg", "000002.jpg"])
def test_a_file_name_in_the_xml_is_not_followed(make_workspace: MakeWorkspace, name: str) -> None:
    workspace = make_workspace()
    text = workspace.xml.read_text().replace(">000001.jpg<", f">{name}<")
    workspace.xml.write_text(text.replace("</filename>", f"</filename><path>{name}</path>"))
    assert run_check(workspace).status == 0
    assert workspace.records()["000001"].image_path == Path(DATA, "JPEGImages", "000001.jpg")


def translate(workspace: Workspace) -> None:
    """Give the first image and both classes Chinese names."""
    FAULTS["img_unicode_space"](workspace)
    for path in (*workspace.xml.parent.iterdir(), workspace.folder / "classes.txt"):
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
def test_a_plain_locale_does_not_crash_on_chinese_names(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace()
    translate(workspace)
    Path("in_turn.py").write_text(IN_TURN, encoding="utf-8")
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    plain.pop("PYTHONUTF8", None)
    words = [sys.executable, "in_turn.py"]
    done = subprocess.run(words, capture_output=True, text=True, env=plain, check=False)
    assert done.returncode == 0, done.stderr
    assert "方块" in (workspace.folder / "report.json").read_text(encoding="utf-8")
    assert "\\u65b9\\u5757 4" in done.stderr
    assert (workspace.folder / "runs/train/exp/weights/best.pth").is_file()
    lines = errors_in(done.stderr)
    assert len(lines) == 2
    assert all("\\u56fe \\u7247 \\xe9 1.xml: the file is empty" in line for line in lines)
