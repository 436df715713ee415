"""predict.py on cameras and streams: there, gone, silent, and recorded videos behind a URL."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

import predict
from tests.predict_room import EVERYTHING, run
from tests.training_room import errors_in, started, wait_until
from tests.video_files import frames_of, make_video, make_webm
from utils.inference import image_urls, streams
from utils.inference.outputs import Outputs
from utils.inference.streams import Frame

FOLDER = Path("runs/predict/exp")


class Camera:
    """A camera that gives so many frames, one every `interval` seconds, and is then silent or gone."""

    def __init__(self, count: int, interval: float, silent: float = 0.0) -> None:
        self.count, self.interval, self.silent = count, interval, silent
        self.given = 0
        self.is_released = False

    def isOpened(self) -> bool:  # noqa: N802
        return self.count > 0

    def get(self, which: int) -> float:
        return {cv2.CAP_PROP_FPS: 20.0}.get(which, -1.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.given == self.count:
            time.sleep(self.silent)
            return False, None
        time.sleep(self.interval)
        self.given += 1
        return True, np.full((48, 64, 3), self.given, dtype=np.uint8)

    def release(self) -> None:
        self.is_released = True


def plug_in(patch: pytest.MonkeyPatch, camera: Camera) -> Camera:
    patch.setattr(streams, "_open", lambda _: camera)
    return camera


@pytest.mark.parametrize("source", ["7", "rtsp://127.0.0.1:1/none", "http://127.0.0.1:1/none.mp4"])
def test_what_cannot_be_opened_is_one_line(
    work: Path, capfd: pytest.CaptureFixture[str], source: str
) -> None:
    assert run(source) == 1
    (error,) = errors_in(capfd.readouterr().err)
    assert error.startswith(f"error: {source}: ")
    assert not list(FOLDER.glob("*.mp4"))


def test_what_is_no_url_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://[::1/a.jpg") == 2
    assert errors_in(capsys.readouterr().err) == ["error: http://[::1/a.jpg: not a URL: Invalid IPv6 URL"]


def test_a_camera_beside_images_that_is_not_there(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("7", "photos") == 1
    out, err = capsys.readouterr()
    assert "warning: 7: no such camera, or it is in use; no frame came; skipped" in err
    assert "photos/a.jpg" in out


def test_a_camera_that_ends(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = plug_in(monkeypatch, Camera(10, interval=0.05))
    assert run("0", *EVERYTHING, "--json", "found.jsonl") == 0
    out, err = capsys.readouterr()
    assert "0: no more frames" in err
    lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == {"0"}
    times = [line["time_s"] for line in lines]
    assert times == sorted(times)
    assert f"0  {len(lines)} frames" in out
    recorded = frames_of(FOLDER / "camera0.mp4")
    assert len(recorded) == pytest.approx(times[-1] * 20 + 1, abs=1)  # plays as long as it took
    assert {path.name for path in FOLDER.iterdir()} == {"camera0.mp4", "args.yaml"}  # no picture a frame
    assert camera.is_released


def test_a_slow_reader_sees_the_newest_frame(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Camera(100, interval=0.005))
    seen, write = [], Outputs.write

    def look(self: Outputs, frame: Frame, *more: object) -> None:
        seen.append(int(frame.image[0, 0, 0]))
        time.sleep(0.1)
        write(self, frame, *more)

    monkeypatch.setattr(Outputs, "write", look)
    assert run("0", "--no-save") == 0
    assert seen == sorted(set(seen))
    assert len(seen) < 20
    assert np.diff(seen).max() > 5


def test_a_stream_that_falls_silent_ends(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streams, "TIMEOUT", 0.5)
    plug_in(monkeypatch, Camera(3, interval=0.01, silent=20.0))
    start = time.monotonic()
    assert run("rtsp://camera/1", "--no-save") == 0
    assert time.monotonic() - start < 10
    assert "rtsp://camera/1: no frame for 0.5 seconds" in capsys.readouterr().err


def test_a_stream_without_a_first_frame_is_an_error(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streams, "TIMEOUT", 0.3)
    plug_in(monkeypatch, Camera(1, interval=20.0))
    assert run("rtsp://me:secret@word@camera/1") == 1
    err = capsys.readouterr().err
    assert errors_in(err) == ["error: rtsp://***@camera/1: cannot be opened; no frame came"]
    assert "secret" not in err
    settings = Path("runs/predict/exp/args.yaml").read_text()
    assert "rtsp://***@camera/1" in settings
    assert "word" not in settings


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; /photo as a JPEG, /video as WebM, /private/ with a password only.

    What starts with /once is there once.
    /huge.jpg and /slow.jpg have no end, of /dribble and /dribble.jpg the header comes byte by byte.
    """

    seen: ClassVar[set[str]] = set()

    def log_message(self, *_: object) -> None:
        pass

    def guess_type(self, path: str) -> str:  # type: ignore[override]
        kinds = {"photo": "image/jpeg", "video": "video/webm"}
        return kinds.get(Path(path).name) or super().guess_type(path)

    def do_GET(self) -> None:
        is_known = self.headers.get("Authorization") == "Basic bWU6c2VjcmV0"  # me:secret
        if self.path.startswith("/private/") and not is_known:
            self.send_error(401, "Unauthorized")
        elif self.path in self.seen:
            self.send_error(410, "Gone")
        elif self.path in ("/huge.jpg", "/slow.jpg"):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(bytes(1000))
                    time.sleep(0.05 if self.path == "/slow.jpg" else 0)
        elif self.path.startswith("/dribble"):
            with suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n" + b"X-Filler: 1\r\n" * 20:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
        else:
            self.seen.update({self.path} if self.path.startswith("/once") else ())
            super().do_GET()


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server of the working folder."""
    Quiet.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=".")) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.parametrize(
    "url", ["http://{}/photos/a.jpg", "http://{}/photo?n=1", "http://me:secret@{}/private/größe 1.JPG"]
)
def test_an_image_behind_a_url_is_an_image(
    work: Path, server: str, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    Path("private").mkdir()
    for name in ("photo", "private/größe 1.JPG"):
        Path(name).write_bytes(Path("photos/a.jpg").read_bytes())
    argv = [url.format(server), "photos/a.jpg", *EVERYTHING, "--xml", "labels", "--json", "found.jsonl"]
    assert run(*argv, "--name", "url") == 0
    ours, theirs = map(json.loads, Path("found.jsonl").read_text().splitlines())
    assert ours["detections"] == theirs["detections"]
    assert ours["path"] == url.format(server).replace("me:secret", "***")
    out, err = capsys.readouterr()
    assert out.startswith(ours["path"])
    assert "secret" not in out + err + Path("runs/predict/url/args.yaml").read_text()
    assert len(list(Path("labels").glob("*.xml"))) == 2
    assert len(list(Path("runs/predict/url").glob("*.[jJ][pP][gG]"))) == 2


def test_urls_that_differ_in_their_query_are_two_images(work: Path, server: str) -> None:
    Path("photo").write_bytes(Path("photos/a.jpg").read_bytes())
    assert run(f"http://{server}/photo?n=1", f"http://{server}/photo?n=2") == 0
    assert len(list(FOLDER.glob("*.jpg"))) == 2


def test_an_image_whose_link_works_once(work: Path, server: str) -> None:
    Path("once").mkdir()
    Path("once/photo").write_bytes(Path("photos/a.jpg").read_bytes())
    assert run(f"http://{server}/once/photo", "photos/a.jpg", "--no-save", "--json", "found.jsonl") == 0
    ours, theirs = map(json.loads, Path("found.jsonl").read_text().splitlines())
    assert ours["detections"] == theirs["detections"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone.jpg", "cannot be downloaded: 404 File not found"),
        ("huge.jpg", "more than 0.5 MB"),
        ("slow.jpg", "cannot be downloaded: not complete within 0.5 seconds"),
        ("dribble.jpg", "cannot be downloaded: not complete within 0.5 seconds"),
        ("dribble", "cannot be downloaded: not complete within 0.5 seconds"),
        ("gone.mp4", "cannot be downloaded: 404 File not found"),
        ("page.html", "no frame came, the server sends text/html; if it is a file, download it first"),
        ("page.jpg", "not an image that can be read: an HTML page"),
        ("private/a.jpg", "cannot be downloaded: 401 Unauthorized"),
    ],
)
def test_an_image_that_cannot_be_downloaded_is_named_and_skipped(
    work: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str,
    reason: str,
) -> None:
    monkeypatch.setattr(image_urls, "MAX_BYTES", 500_000)
    monkeypatch.setattr(image_urls, "_LONGEST", 0.5 if path.startswith(("slow", "dribble")) else 60.0)
    monkeypatch.setattr(streams, "TIMEOUT", 0.5)
    for name in ("page.jpg", "page.html"):
        Path(name).write_text("<!doctype html>")
    url = f"http://{server}/{path}"
    start = time.monotonic()
    assert run(url, "photos/a.jpg", "--no-save") == 1
    assert time.monotonic() - start < 8
    assert f"{url}: {reason}; skipped" in capsys.readouterr().err


def test_a_server_that_is_gone(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://127.0.0.1:1/a.jpg", "--no-save") == 1
    (error,) = errors_in(capsys.readouterr().err)
    assert error.startswith("error: http://127.0.0.1:1/a.jpg: cannot be downloaded: ")


def test_of_a_video_behind_a_url_every_frame_is_seen(work: Path, server: str) -> None:
    make_video(Path("v.avi"), count=30)
    assert run(f"http://{server}/v.avi", *EVERYTHING, "--json", "url.jsonl") == 0
    assert run("v.avi", *EVERYTHING, "--no-save", "--json", "file.jsonl") == 0
    ours, theirs = (
        [json.loads(line) for line in Path(name).read_text().splitlines()]
        for name in ("url.jsonl", "file.jsonl")
    )
    assert len(ours) == 30
    for one, other in zip(ours, theirs, strict=True):
        assert (one["detections"], one["time_s"]) == (other["detections"], other["time_s"])
    (recorded,) = FOLDER.glob("*.mp4")
    assert len(frames_of(recorded)) == 30


@pytest.mark.parametrize("name", ["v.webm", "video"])
def test_a_video_behind_a_url_plays_in_its_time(
    work: Path, server: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    stamps = [33 * number + 8000 * (number >= 30) for number in range(60)]
    make_webm(Path(name), stamps)  # states neither duration nor frame rate
    assert run(f"http://{server}/{name}", "--json", "found.jsonl") == 0
    assert "frame rate" not in capsys.readouterr().err
    lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == pytest.approx([stamp / 1000 for stamp in stamps])
    (recorded,) = FOLDER.glob("*.mp4")
    capture = cv2.VideoCapture(str(recorded))
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert seconds == pytest.approx(10.0, abs=0.15)


@pytest.mark.slow
def test_ctrl_c_ends_a_camera(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Camera(10**6, interval=0.02))
    argv = ("0", "--json", "found.jsonl", "--weights", "best.pth", "--device", "cpu")
    with started(*argv, before=lambda: torch.set_num_threads(1), work=predict.main) as command:
        wait_until(lambda: list(FOLDER.glob(".camera0*")))
        time.sleep(1.0)
        command.signal(signal.SIGINT)
        assert command.wait(20) == 130
        assert "interrupted: detections so far: found.jsonl" in command.text
    assert frames_of(FOLDER / "camera0.mp4")
    assert Path("found.jsonl").read_text()
