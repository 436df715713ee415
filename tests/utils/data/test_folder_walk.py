from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.cli.errors import UserError
from utils.cli.files import nfc
from utils.data.folder_walk import walk_folder


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def test_an_empty_folder(tmp_path: Path) -> None:
    walk = walk_folder(tmp_path)
    assert (walk.files, walk.system_files, walk.below(""), walk.below("x/")) == ([], [], [], [])


def test_files_stand_before_those_of_subfolders(tmp_path: Path) -> None:
    names = ["b.jpg", "z", "a/c", "a/a/b", "a.d/e", "é/f"]
    walk = walk_folder(make(tmp_path, *names))
    assert walk.files == ["b.jpg", "z", "a/c", "a/a/b", "a.d/e", "é/f"]
    assert walk.below("a/") == ["a/c", "a/a/b"]
    assert walk.below("a/a/") == ["a/a/b"]
    assert walk.below("") == walk.files
    assert dict(walk.subfolders) == {"": ["a", "a.d", "é"], "a/": ["a"]}


def test_what_systems_leave_behind_is_kept_apart(tmp_path: Path) -> None:
    junk = ["._a.jpg", ".DS_Store", "x/Thumbs.db", "x/Desktop.ini", "__MACOSX/a.jpg", "__MACOSX/b/c.xml"]
    hidden = [".git/HEAD", "x/.cache/b/c.jpg"]
    walk = walk_folder(make(tmp_path, "x/a.jpg", ".hidden.jpg", *junk, *hidden))
    assert walk.files == [".hidden.jpg", "x/a.jpg"]
    assert sorted(walk.system_files) == sorted(junk + hidden)
    assert dict(walk.subfolders) == {"": ["x"]}


def test_linked_folders_are_entered_once_and_loops_are_not(tmp_path: Path) -> None:
    other = make(tmp_path / "other", "a.jpg", "deep/b.jpg")
    (other / "again").symlink_to(tmp_path / "data")  # a link behind a link
    data = make(tmp_path / "data", "x/c.jpg")
    (data / "train").symlink_to(other)
    (data / "x" / "up").symlink_to(data)
    (data / "x" / "self").symlink_to("self")
    (data / "gone.jpg").symlink_to("nowhere")
    assert walk_folder(data).files == ["gone.jpg", "train/a.jpg", "train/deep/b.jpg", "x/c.jpg", "x/self"]


def test_links_to_folders_above_the_data_are_not_entered(tmp_path: Path) -> None:
    data = make(tmp_path / "all/mine", "x/a.jpg")
    make(tmp_path / "all/other", "train/b.jpg")
    (data / "x" / "up").symlink_to("../..")
    (data / "higher").symlink_to(tmp_path)
    (data / "root").symlink_to("/")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(data)
    (data / "user").symlink_to(tmp_path / "elsewhere")
    for root in (data, tmp_path / "elsewhere" / "link"):
        assert walk_folder(root).files == ["x/a.jpg"]


def test_folders_inside_each_other_without_end(tmp_path: Path) -> None:
    (tmp_path / ("d/" * 210)).mkdir(parents=True)  # more than 1,000 would be a RecursionError
    with pytest.raises(UserError, match="more than 200 folders inside each other"):
        walk_folder(tmp_path)


def test_a_folder_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    assert walk_folder(make(tmp_path, "a.jpg/inside.jpg")).files == ["a.jpg/inside.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"gone/?: cannot list the files: No such file"):
        walk_folder(tmp_path / "gone")
    make(tmp_path, "x/a.jpg")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.rstrip("/").endswith("x"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="x/: cannot list the files: Permission denied"):
        walk_folder(tmp_path)
    (tmp_path / "x").rename(tmp_path / "lost+found")
    (tmp_path / "lost+found" / "x").mkdir()
    assert walk_folder(tmp_path).files == []  # what does not count need not be readable


def test_composed_and_decomposed_names_are_one() -> None:
    assert nfc("a\u0308b") == nfc("\u00e4b") == "\u00e4b"
