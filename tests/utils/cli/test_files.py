from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from utils.cli.errors import UserError
from utils.cli.files import atomic_write, check_output_files, new_run_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("mode", "content", "expected"), [("wb", b"", b""), ("wb", b"\0a", b"\0a"), ("w", "é\n", "é\n".encode())]
)
def test_atomic_write_writes_whole_file(tmp_path, mode, content, expected):
    path = tmp_path / "x.bin"
    with atomic_write(path, mode) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), UserError("no")])
def test_atomic_write_keeps_the_old_file_on_failure(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write_half():
        with atomic_write(path, "w") as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_atomic_write_keeps_permissions_and_owner(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    with atomic_write(path, "w") as file:
        file.write("new")
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_atomic_write_does_not_replace_a_protected_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda file, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"a\.txt: cannot write: Permission denied"), atomic_write(path):
        pass
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_atomic_write_names_the_file_when_the_disk_is_full(tmp_path):
    def write_to_full_disk():
        with atomic_write(tmp_path / "x.txt", "w"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"x\.txt: cannot write: No space left") as caught:
        write_to_full_disk()
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_leaves_a_file_of_the_temporary_name_alone(tmp_path):
    (tmp_path / "x.txt.tmp").write_text("mine")
    with atomic_write(tmp_path / "x.txt", "w") as first, atomic_write(tmp_path / "x.txt", "w") as second:
        first.write("first")  # ends last
        second.write("second")
    assert (tmp_path / "x.txt").read_text() == "first"
    assert (tmp_path / "x.txt.tmp").read_text() == "mine"
    (tmp_path / "y.txt.tmp").symlink_to(tmp_path / "x.txt.tmp")
    with atomic_write(tmp_path / "y.txt", "w") as file:
        file.write("y")
    assert {path.name for path in tmp_path.iterdir()} == {"x.txt", "x.txt.tmp", "y.txt", "y.txt.tmp"}
    assert (tmp_path / "x.txt.tmp").read_text() == "mine"


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "狗" * 83 + ".txt"])
def test_atomic_write_writes_the_longest_names(tmp_path, name):
    with atomic_write(tmp_path / name, "w") as file:
        file.write("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("path", ["missing/x.txt", "file/x.txt", "folder"])
def test_atomic_write_refuses_impossible_places(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()

    def write():
        with atomic_write(tmp_path / path, "w") as file:
            file.write("x")

    with pytest.raises(UserError, match=path):
        write()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_atomic_write_leaves_trouble_with_another_file_alone(tmp_path):
    def write():
        with atomic_write(tmp_path / "x.txt", "w"):
            (tmp_path / "other.txt").read_text()

    with pytest.raises(FileNotFoundError, match=r"other\.txt"):
        write()


def test_run_folders_are_numbered(tmp_path):
    project = tmp_path / "runs" / "train"
    names = [new_run_folder(project).name for _ in range(3)]
    assert names == ["exp", "exp2", "exp3"]
    assert new_run_folder(project, "exp", exist_ok=True).name == "exp"
    assert new_run_folder(project, "mine").name == "mine"
    assert list((project / "exp").iterdir()) == []


def test_run_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--project"):
        new_run_folder(tmp_path / "file")
    with pytest.raises(UserError, match="file"):
        new_run_folder(tmp_path, "file", exist_ok=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_run_name_is_a_plain_name(tmp_path, name):
    with pytest.raises(UserError, match="--name"):
        new_run_folder(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_follows_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there/x.txt")
    with atomic_write(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/x.txt").read_text() == "new"


def test_what_is_written_into_a_pipe_goes_through_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path / "pipe", "w") as file:
        file.write("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_outlives_a_failure(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BrokenPipeError), atomic_write(tmp_path / "pipe", "w"):
        raise BrokenPipeError
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_may_be_piped_through_dev_stdout():
    code = (
        "from utils.cli.files import atomic_write\nwith atomic_write('/dev/stdout', 'w') as f: f.write('{}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "{}"


def test_a_reader_of_stdout_who_left_is_no_trouble_with_the_file(tmp_path):
    with pytest.raises(BrokenPipeError), atomic_write(tmp_path / "x.txt", "w"):
        raise BrokenPipeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [(".", "is a folder"), ("gone/a.json", "folder does not exist"), ("-", "is no file; name a file")],
)
def test_a_place_that_cannot_be_written_to_is_refused_beforehand(path, reason):
    check_output_files({"--json": None}, {})
    with pytest.raises(UserError, match=f"--json {path}: .*{reason}"):
        check_output_files({"--json": path}, {})


@pytest.mark.parametrize("protected", ["old.json", "."])  # root may write everywhere
def test_what_may_not_be_written_is_refused_beforehand(tmp_path, monkeypatch, protected):
    (tmp_path / "old.json").write_text("[]")
    is_free = {os.path.realpath(tmp_path / protected): False}
    monkeypatch.setattr(os, "access", lambda path, mode: is_free.get(path, True))
    with pytest.raises(UserError, match=r"--coco .*old\.json: cannot write: Permission denied"):
        check_output_files({"--coco": str(tmp_path / "old.json")}, {})
    check_output_files({"--coco": os.devnull}, {})


OLD = {
    "found.jsonl": '{"path": "a.jpg", "width": 8}\n',
    "metrics.json": '{\n "images": 700,\n "skipped": 0}',
    "check.json": '{\n "data": "voc",\n "splits": {}}',
    "found.csv": "path,width,height,frame,time_s,label\n",
    "check.csv": "level,kind,splits,file\n",
    "coco.json": '[{"image_id": 1, "category_id": 1}]',
    "nothing.json": "[]\n",
    "empty.xml": "",
    # Of the user.
    "labelme.json": '{\n  "version": "5.0.1",\n  "shapes": []}',
    "instances.json": '{"images": [], "annotations": []}',
    "table.csv": "path,label\n",
    "a.xml": "<annotation/>",
    "a.jpg": "\xff\xd8",
    # Also read.
    "best.param": "7767517",
    "best.json": '{"data": 1}',
    "names.json": '{"path": "cat"}',
}


def test_only_an_old_report_is_replaced(tmp_path):
    path = {name: str(tmp_path / name) for name in [*OLD, "link.json", "new.xml"]}
    for name, text in OLD.items():
        Path(path[name]).write_text(text)
    Path(path["link.json"]).symlink_to("a.xml")
    read = {"--weights": [path["best.param"]], "--classes": [path["names.json"], "nothing"]}
    free = {
        "--json": {"found.jsonl", "metrics.json", "check.json"},
        "--csv": {"found.csv", "check.csv"},
        "--coco": {"coco.json", "nothing.json"},
    }
    for flag, expected in free.items():
        allowed = set()
        for name in path:
            with suppress(UserError):
                check_output_files({flag: path[name]}, read)
                allowed.add(name)
        assert allowed == {*expected, "empty.xml", "new.xml"}
    with pytest.raises(UserError, match=r"best\.json: is also the file of --weights; name another"):
        check_output_files({"--json": path["best.json"]}, read)
    with pytest.raises(UserError, match=r"--csv .*new\.xml: is also the file of --json; name another"):
        check_output_files(dict.fromkeys(("--json", "--csv"), path["new.xml"]), {})
