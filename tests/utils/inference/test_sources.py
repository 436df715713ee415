from __future__ import annotations

from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from utils.cli.errors import UserError
from utils.inference.sources import find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "c[1].bmp", "deep/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(folder: Path, *sources: str) -> list[str]:
    return [
        one.path.relative_to(folder).as_posix()
        for one in find_sources([f"{folder}/{source}" for source in sources])
    ]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], []),
        (["b.jpg"], ["b.jpg"]),
        (["."], ["a.PNG", "b.jpg", "c[1].bmp"]),
        (["*.jpg"], ["b.jpg"]),
        (["**/*"], ["a.PNG", "b.jpg", "c[1].bmp", "deep/d.jpg"]),
        (["**"], ["a.PNG", "b.jpg", "c[1].bmp", "deep/d.jpg"]),
        (["**/*.jpg"], ["b.jpg", "deep/d.jpg"]),
        (["d*/**/?.jpg"], ["deep/d.jpg"]),
        (["**/deep/**/d.*"], ["deep/d.jpg"]),
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
        ("street.mp4", "no such file"),
    ],
)
def test_what_is_no_source_is_named(folder: Path, source: str, reason: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=reason) as caught:
        find_sources([f"{folder}/{source}"])
    assert source in str(caught.value)


def test_a_glob_does_not_follow_links_that_lead_back(folder: Path) -> None:
    for link, target in (("self", "."), ("deep/up", ".."), ("deep/again", "../deep")):
        (folder / link).symlink_to(target)
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere/e.jpg").write_bytes(b"")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "deep/.hidden.jpg").write_bytes(b"")
    assert names(folder, "**/.h*") == ["deep/.hidden.jpg"]
    assert names(folder, "**/*") == ["a.PNG", "b.jpg", "c[1].bmp", "deep/d.jpg", "linked/e.jpg"]


def test_files_that_are_not_used_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.heic", "y.HEIC", "z", ".hidden", "Thumbs.db", "v.mp4"):
        (folder / name).write_bytes(b"")
    find_sources([str(folder)])
    assert f"{folder}: other files not used: 2 .heic, 1 .txt, 1 without suffix\n" in capsys.readouterr().err
    find_sources([f"{folder}/*"])
    assert capsys.readouterr().err == ""
    for name in ("a.avif", "b.pgm"):
        (folder / "folder.jpg" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"directly in this folder, only other files \(1 \.\w+, 1 \.\w+\);"):
        find_sources([str(folder / "folder.jpg")])


def test_videos_stand_among_the_images(folder: Path) -> None:
    (folder / "aa.MP4").write_bytes(b"")
    kinds = {one.path.name: one.kind for one in find_sources([str(folder)])}
    assert kinds == {"a.PNG": "image", "aa.MP4": "video", "b.jpg": "image", "c[1].bmp": "image"}


@pytest.mark.parametrize(
    ("source", "name", "path"),
    [
        ("0", "0", "camera0.mp4"),
        ("rtsp://camera/1", "rtsp://camera/1", "camera_1.mp4"),
        (
            "rtsp://me:secret@10.0.0.7:554/live?x=1",
            "rtsp://***@10.0.0.7:554/live?x=1",
            "10.0.0.7_554_live.mp4",
        ),
        ("http://host/../../a.mjpeg", "http://host/../../a.mjpeg", "host_.._.._a.mjpeg.mp4"),
    ],
)
def test_cameras_and_streams(source: str, name: str, path: str) -> None:
    (one,) = find_sources([source, source])
    assert (one.kind, one.name, one.path, one.address) == ("live", name, Path(path), source)


@pytest.mark.parametrize("number", ["2147483648", "9" * 200])
def test_a_number_too_large_for_a_camera_is_named(number: str) -> None:
    with pytest.raises(UserError, match="too large for the number of a camera; give an image"):
        find_sources([number])
    assert [one.kind for one in find_sources(["999999999", "00000000001"])] == ["live", "live"]


def test_a_file_beats_the_camera_of_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0").write_bytes(b"")
    assert [one.kind for one in find_sources(["0", "1"])] == ["image", "live"]


def test_one_file_under_several_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (one,) = find_sources(["b.jpg", "./b.jpg", str(folder / "b.jpg"), "deep/../b.jpg", "./b.*"])
    assert one.path == Path("b.jpg")


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_lists_of_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    (folder / "größe.jpg").write_bytes(b"")
    wanted = [str(folder / "b.jpg"), "größe.jpg", "", "deep", "deep/d.jpg", "rtsp://camera/1"]
    text = separator.join(wanted).encode()
    (folder / "list.TXT").write_bytes(b"\xef\xbb\xbf" + text)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text)))
    elsewhere = find_sources([str(folder / "list.TXT")])  # names are beside the list
    monkeypatch.chdir(folder)
    for found in (elsewhere, find_sources(["list.TXT"]), find_sources(["-"])):
        assert [one.path.name for one in found] == ["b.jpg", "größe.jpg", "d.jpg", "camera_1.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^-: no path came on standard input; give an image"),
        ("b.jpg\ngone.jpg\n", "^-, entry 2: gone.jpg: no such file"),
        ("-\n", "^-, entry 1: -: no such file"),
    ],
)
def test_entries_that_are_no_source_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message):
        find_sources(["-"])


def test_a_text_file_that_names_no_file_is_no_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.txt").write_text("0 0.5 0.5 0.1 0.1\n")  # labels of YOLO, beside b.jpg
    assert names(folder, "b.txt") == ["b.txt"]
    assert "b.txt: names no file that is there, so it is not read as a list" in capsys.readouterr().err


def test_a_closed_standard_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as Python has it after <&-
    with pytest.raises(UserError, match=r"^-: standard input is closed; give an image"):
        find_sources(["-"])
