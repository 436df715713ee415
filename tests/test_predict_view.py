"""predict.py --view and --fps: a window where one can be had, and a table of times."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.predict_room import run
from tests.training_room import errors_in
from tests.video_files import make_video
from utils.inference import speed


class Screen:
    """Stands for the windows of OpenCV; the user presses these keys, one a call."""

    def __init__(self, patch: pytest.MonkeyPatch, keys: list[int]) -> None:
        self.shown: list[np.ndarray] = []
        self.is_open = False
        self._keys = keys
        patch.setenv("DISPLAY", ":0")
        patch.setattr(cv2, "namedWindow", self._open)
        patch.setattr(cv2, "imshow", lambda _, picture: self.shown.append(picture))
        patch.setattr(cv2, "waitKey", lambda _: self._keys.pop(0) if self._keys else -1)
        patch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
        patch.setattr(cv2, "destroyAllWindows", self._close)

    def _open(self, *_: object) -> None:
        self.is_open = True

    def _close(self) -> None:
        self.is_open = False


@pytest.mark.parametrize("display", ["", ":0"])
def test_without_windows_view_ends_at_once(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, display: str
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def no_window(*_: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", no_window)
    assert run("photos", "--view") == 2
    err = capfd.readouterr().err
    assert errors_in(err)[0].startswith("error: --view: ")
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_an_image_waits_for_a_key_and_q_ends(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [-1, -1, ord(" "), ord("q")])
    (work / "photos/c.png").write_bytes((work / "photos/b c.png").read_bytes())
    assert run("photos", "--view", "--no-save", "--conf", "1") == 0
    assert [picture.shape for picture in screen.shown] == [(60, 80, 3), (90, 30, 3)]
    assert np.array_equal(screen.shown[1], cv2.imread("photos/b c.png"))  # in OpenCV's order of colors
    assert not screen.is_open


def test_a_signal_ends_the_waiting_for_a_key_and_what_was_found_is_kept(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(monkeypatch, [])
    monkeypatch.setattr(cv2, "waitKey", lambda _: os.kill(os.getpid(), signal.SIGTERM) or -1)
    assert run("photos", "--view", "--no-save", "--conf", "1", "--json", "found.jsonl") == 143
    assert len(screen.shown) == 1
    assert len(Path("found.jsonl").read_text().splitlines()) == 1


def test_of_several_sources_the_first_that_can_be_read_is_measured(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/a.jpg").write_bytes(b"")
    assert run("photos", "--fps", "1") == 0
    assert capsys.readouterr().out.startswith("photos/b c.png  1 runs")


def test_a_video_goes_on_by_itself_and_is_kept_up_to_q(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(Path("v.mp4"), count=20)
    screen = Screen(monkeypatch, [-1, -1, -1, 27])
    assert run("v.mp4", "photos", "--view") == 0
    assert len(screen.shown) == 4
    capture = cv2.VideoCapture("runs/predict/exp/v.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize("source", ["photos", "v.mp4"])
def test_fps_prints_a_table_and_writes_nothing(
    work: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    make_video(Path("v.mp4"), count=2)
    before = set(work.rglob("*"))
    assert run(source, "--fps", "3", "--batch-size", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    conditions = f"batch 2  64x64  float32  {threads}  cpu  PyTorch {torch.__version__}"
    assert lines[0].endswith(f"  3 runs  {conditions}")
    assert [line.split()[0] for line in lines[2:6]] == ["preprocess", "network", "postprocess", "total"]
    figures = np.array([[float(word) for word in line.split()[1:]] for line in lines[2:6]])
    assert (figures > 0).all()
    assert (figures[:, 1] <= figures[:, 2]).all()
    assert set(work.rglob("*")) == before


@pytest.mark.parametrize("flags", [[], ["--amp"]])
def test_the_speed_names_amp_where_it_helps(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.setattr("utils.inference.predictor.has_fast_bfloat16", lambda device: True)
    assert run("photos", "--fps", "1", *flags) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "images a second by the median" in line
    assert line.endswith("(--amp may be faster: this device has fast bfloat16)") == (not flags)


def test_the_table_is_of_these_figures() -> None:
    milliseconds = np.array([[1.0, 8.0, 1.0, 10.0]] * 19 + [[2.0, 30.0, 3.0, 35.0]] * 1)
    lines = speed.speed_table(milliseconds, "photo.jpg").splitlines()
    assert lines[2].split() == [
        "preprocess",
        "1.05",
        "1.00",
        "1.05",
    ]
    assert lines[5].split() == ["total", "11.25", "10.00", "11.25"]
    assert lines[6] == "100.0 images a second by the median"


@pytest.mark.parametrize(
    ("argv", "status", "named"),
    [
        (["photos", "--fps", "0"], 2, "--fps 0"),
        (
            ["photos", "--fps", "5", "--json", "a.jsonl"],
            2,
            "--fps: only measures; remove --json",
        ),
        (["photos", "--fps", "5", "--csv", "a.csv"], 2, "--fps: only measures; remove --csv"),
        (["photos", "--fps", "5", "--coco", "a"], 2, "--fps: only measures; remove --coco"),
        (["photos", "--fps", "5", "--heatmap"], 2, "remove --heatmap"),
        (["photos", "--fps", "5", "--count"], 2, "remove --count"),
        (["photos", "--fps", "5", "--view"], 2, "remove --view"),
        (["bad.jpg", "--fps", "5"], 1, "bad.jpg"),
        (["bad.mp4", "--fps", "5"], 1, "bad.mp4"),
    ],
)
def test_mistakes_end_in_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, named: str
) -> None:
    for name in ("bad.jpg", "bad.mp4"):
        Path(name).write_bytes(b"")
    assert run(*argv) == status
    (error,) = errors_in(capsys.readouterr().err)
    assert named in error
