from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.inference.sources import find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "c[1].bmp", "deep/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(folder: Path, *sources: str) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in find_images([f"{folder}/{source}" for source in sources])
    ]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], []),
        (["b.jpg"], ["b.jpg"]),
        (["."], ["a.PNG", "b.jpg", "c[1].bmp"]),
        (["*.jpg"], ["b.jpg"]),
        (["**/*"], ["a.PNG", "b.jpg", "c[1].bmp", "deep/d.jpg"]),
        (["c[1].bmp"], ["c[1].bmp"]),  # a file beats the glob it could be
        (["notes.txt"], ["notes.txt"]),  # named by the user: reading it says what is wrong
        (["b.jpg", "*", "b.jpg"], ["b.jpg", "a.PNG", "c[1].bmp"]),
    ],
)
def test_sources(folder: Path, sources: list[str], expected: list[str]) -> None:
    assert names(folder, *sources) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.jpg", "no such file"),
        ("empty", "no images directly in this folder"),
        ("*.webp", "matches no image"),
        ("street.mp4", "not read yet"),
    ],
)
def test_what_is_no_source_is_named(folder: Path, source: str, reason: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=reason) as caught:
        find_images([f"{folder}/{source}"])
    assert source in str(caught.value)


@pytest.mark.parametrize("source", ["0", "rtsp://camera/1"])
def test_cameras_and_streams_are_refused_in_words(source: str) -> None:
    with pytest.raises(UserError, match="not read yet; an image, a folder"):
        find_images([source])
