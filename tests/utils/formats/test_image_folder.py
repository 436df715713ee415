from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.utils.tools.conversion import save_picture
from utils.cli.files import nfc
from utils.formats.image_folder import ImageFolder

NFD = unicodedata.normalize("NFD", "é.jpg")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.jpg", "1/twin.jpg", "2/twin.jpg", "deep/b c.jpg", "x%20y.jpg", NFD, "UP.jpg", "up.JPG"):
        save_picture(tmp_path / "images" / name)
    save_picture(tmp_path / "secret.jpg")
    (tmp_path / "images/note.txt").write_text("")
    return tmp_path / "images"


def test_empty_folder(tmp_path: Path) -> None:
    assert ImageFolder(tmp_path).find("a.jpg") == tmp_path / "a.jpg"  # of no file; reading it says so
    with pytest.raises(ValueError, match=r"'/home/x/a\.jpg' is no path inside"):
        ImageFolder(tmp_path).find("/home/x/a.jpg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("images\\1\\a.jpg", "a.jpg"),
        ("D:\\data\\a.jpg", "a.jpg"),
        ("/home/x/a.jpg", "a.jpg"),
        ("..\\..\\a.jpg", "a.jpg"),
        ("../../images/a.jpg", "a.jpg"),
        ("deep/b%20c.jpg", "deep/b c.jpg"),
        ("https://host/b%20c.jpg", "deep/b c.jpg"),
        ("x%20y.jpg", "x%20y.jpg"),  # a file of that very name
        ("é.jpg", NFD),
        ("D:\\é.jpg", NFD),
        ("A.JPG", "a.jpg"),
        ("D:\\É.JPG", NFD),
        ("https://host/a.jpg?x=1&y=b%20c.jpg", "a.jpg"),
        ("/data/local-files/?d=deep/b%20c.jpg", "deep/b c.jpg"),  # Label Studio
        ("UP.jpg", "UP.jpg"),
        ("D:\\up.JPG", "up.JPG"),
        ("D:\\data\\2\\twin.jpg", "2/twin.jpg"),
        ("note.txt", "note.txt"),  # a path that exists is taken as it stands; it is no image, which is said
        ("gone.jpg", "gone.jpg"),
        ("%2e%2e/secret.jpg", "%2e%2e/secret.jpg"),
    ],
)
def test_paths_of_other_machines(images: Path, text: str, expected: str) -> None:
    folder = ImageFolder(images)
    assert folder.find(text) == images / expected
    same = nfc(expected) in (text, text.replace("%20", " "))
    assert folder.found_by_name == (set() if same else {images / expected})
    assert len(folder.notes()) == (not same)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("twin.jpg", r"'twin\.jpg' may be .*1/twin\.jpg or .*2/twin\.jpg; rename one of them"),
        ("D:\\data\\3\\twin.jpg", r"may be .*1/twin\.jpg or .*2/twin\.jpg"),
        ("up.jpg", r"'up\.jpg' may be .*UP\.jpg or .*up\.JPG"),
        ("../secret.jpg", "is no path inside"),
        ("..\\secret.jpg", "is no path inside"),
        ("/etc/passwd", "is no path inside"),
        ("../note.txt", "is no path inside"),
        ("a\0.jpg", "is no path inside"),
        ("", "is no path inside"),
        (None, "None is no path inside"),
        ([5], r"\[5\] is no path inside"),
    ],
)
def test_what_is_refused(images: Path, text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ImageFolder(images).find(text)
