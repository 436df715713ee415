"""predict.py on videos: whole, broken, of any size, and stopped in the middle."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import predict
from tests.predict_room import EVERYTHING, run
from tests.training_room import errors_in, started, wait_until
from tests.video_files import FAULTS, SIZE, frames_of, make_video, make_webm
from utils.inference import streams, writers
from utils.inference.outputs import Outputs

FOLDER = Path("runs/predict/exp")


def lines_of(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_video_beside_images(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("photos/c.mp4"))
    argv = ("photos", *EVERYTHING, "--json", "found.jsonl", "--batch-size", "3", "--count")
    assert run(*argv) == 0
    out, err = capsys.readouterr()
    assert "warning" not in err
    lines = lines_of("found.jsonl")
    of_video = [line for line in lines if line["path"] == "photos/c.mp4"]
    assert [line["path"] for line in lines] == ["photos/a.jpg", "photos/b c.png", *["photos/c.mp4"] * 40]
    assert [line["frame"] for line in of_video] == list(range(40))
    assert [line["time_s"] for line in of_video] == pytest.approx([number / 10 for number in range(40)])
    assert {(line["height"], line["width"]) for line in of_video} == {SIZE}
    assert {path.name for path in FOLDER.iterdir()} == {"a.jpg", "b c.png", "c.mp4", "args.yaml"}
    drawn, plain = frames_of(FOLDER / "c.mp4"), frames_of(Path("photos/c.mp4"))
    assert (len(drawn), drawn[0].shape) == (40, plain[0].shape)
    assert any(np.abs(one.astype(int) - other).mean() > 5 for one, other in zip(drawn, plain, strict=True))
    assert cv2.VideoCapture(str(FOLDER / "c.mp4")).get(cv2.CAP_PROP_FPS) == 10
    names = [one["label"] for line in of_video for one in line["detections"]]
    (summary,) = [line for line in out.splitlines() if line.startswith("photos/c.mp4  40 frames")]
    assert all(f"{names.count(name)} {name}" in summary for name in set(names))
    assert "at most in one frame of photos/c.mp4: " in out
    assert "in 2 images: " in out


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_every_nth_frame(work: Path, capsys: pytest.CaptureFixture[str], stride: int) -> None:
    make_video(Path("v.mp4"), count=40)
    assert run("v.mp4", *EVERYTHING, "--json", "all.jsonl", "--no-save") == 0
    assert run("v.mp4", *EVERYTHING, "--json", "some.jsonl", "--stride", str(stride)) == 0
    assert "warning" not in capsys.readouterr().err
    assert lines_of("some.jsonl") == lines_of("all.jsonl")[::stride]
    capture = cv2.VideoCapture(str(FOLDER / "v.mp4"))
    fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    assert fps == pytest.approx(10 / stride if stride < 10 else 1, abs=1e-3)
    assert count == len(range(0, 40, stride))


def test_a_stride_has_no_effect_on_images(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "--stride", "2", "--no-save") == 0
    out, err = capsys.readouterr()
    assert "--stride: has no effect on images" in err
    assert "photos/b c.png  " in out


def test_the_frames_answer_as_pictures_do(work: Path) -> None:
    make_video(Path("v.avi"), count=5)
    for number, frame in enumerate(frames_of(Path("v.avi"))):
        cv2.imwrite(f"photos/{number}.png", frame)
    assert run("v.avi", *EVERYTHING, "--no-save", "--json", "video.jsonl") == 0
    assert run("photos/[0-9].png", *EVERYTHING, "--no-save", "--json", "images.jsonl") == 0
    for one, other in zip(lines_of("video.jsonl"), lines_of("images.jsonl"), strict=True):
        assert one["detections"] == other["detections"]


def test_nothing_found_and_nothing_saved(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("v.mp4"), count=3)
    before = set(work.rglob("*"))
    assert run("v.mp4", "--conf", "1", "--no-save") == 0
    assert "v.mp4  3 frames  0 objects  " in capsys.readouterr().out
    assert set(work.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("video_good", 0, None),
        ("video_ends_early", 0, "of 40 frames could not be read"),
        ("video_corrupt_frames", 0, "of 40 frames could not be read"),
        ("video_mp4_truncated", 1, "no frame can be read"),
        ("video_zero", 1, "the file is empty"),
        ("video_text", 1, "no frame can be read"),
    ],
)
def test_faults_of_videos(
    work: Path, capfd: pytest.CaptureFixture[str], name: str, status: int, says: str | None
) -> None:
    file_name, spoil = FAULTS[name]
    spoil(make_video(Path(file_name)))
    content = Path(file_name).read_bytes()
    assert run(file_name) == status
    err = capfd.readouterr().err  # what FFmpeg itself would write is caught too
    assert Path(file_name).read_bytes() == content
    target = FOLDER / "video.mp4"
    if status:
        (error,) = errors_in(err)
        assert f"{file_name}: " in error
        assert says in error
        assert not target.exists()
    else:
        warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == (says is not None)
        missing = int(warnings[0].split()[2]) if warnings else 0
        assert says is None or says in warnings[0]
        assert 40 - missing <= len(frames_of(target)) <= 40  # what is missing is a pause
        assert 0 <= missing < 40
    assert not [path for path in FOLDER.iterdir() if "part" in path.name]
    rest = [line for line in err.splitlines() if not line.startswith((f"{file_name}  ", "weights "))]
    assert len(rest) == (says is not None), rest


def test_a_broken_video_does_not_stop_the_others(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/b.mp4").write_bytes(b"")
    os.mkfifo("photos/pipe.mp4")
    make_video(Path("photos/z.mp4"), count=2)
    assert run("photos") == 1
    out, err = capsys.readouterr()
    assert "warning: photos/b.mp4: not a video: the file is empty; skipped" in err
    assert "warning: photos/pipe.mp4: not a regular file; skipped" in err
    assert "skipped 2 of 5 sources: unreadable" in err
    assert "photos/z.mp4  2 frames" in out


@pytest.mark.parametrize("size", [(31, 75), (2, 2), (33, 64)])
def test_any_size_can_be_written(work: Path, size: tuple[int, int]) -> None:
    with writers.VideoWriter(Path("v.mp4"), size, 10.0) as out:
        for number in range(3):
            out.write(np.full((*size, 3), (200, 100, 50), dtype=np.uint8), number / 10)
    frames = frames_of(Path("v.mp4"))
    assert len(frames) == 3
    assert frames[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(frames[2].astype(int) - (50, 100, 200)).max() < 12


def test_frames_that_change_their_size_are_fitted_in(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = b"".join(
        cv2.imencode(".jpg", np.full((*size, 3), 200, dtype=np.uint8))[1].tobytes()
        for size in [(48, 64)] * 4 + [(120, 32)] * 4
    )
    Path("v.mjpeg").write_bytes(stream)
    assert run("v.mjpeg", *EVERYTHING) == 0
    frames = frames_of(FOLDER / "v.mp4")
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 8
    assert all(frame.mean() > 60 for frame in frames)
    # Other readers do not scale as FFmpeg's does.
    with writers.VideoWriter(Path("v.mp4"), (48, 64), 10.0) as out:
        for number, size in enumerate([(48, 64), (96, 128), (120, 32)]):
            out.write(np.full((*size, 3), 200, dtype=np.uint8), number / 10)
    assert [round(frame[24, 32].mean(), -1) for frame in frames_of(Path("v.mp4"))] == [200] * 3
    assert capsys.readouterr().err.count("the frame size changes") == 1


EVEN = [33 * number for number in range(60)]


@pytest.mark.parametrize(
    ("stamps", "stated", "seconds"),
    [
        (EVEN, 2.0, 2.0),
        (EVEN, None, 2.0),  # a browser's recorder states no duration
        ([*EVEN[:30], *(stamp + 4000 for stamp in EVEN[30:])], 6.0, 6.0),  # a pause
        ([33 * number + number % 3 for number in range(60)], 2.0, 2.0),  # a phone
        ([stamp + 700 for stamp in EVEN], 2.7, 2.0),  # does not start at 0
        ([*EVEN[:30], *EVEN[:30]], 2.0, 2.0),  # time starts anew
        ([*range(0, 40_000, 1000), *(40_000 + stamp for stamp in EVEN[:20])], None, 40.7),  # starts still
    ],
)
def test_a_video_plays_in_the_time_of_its_source(
    work: Path, capsys: pytest.CaptureFixture[str], stamps: list[int], stated: float | None, seconds: float
) -> None:
    make_webm(Path("v.webm"), stamps, stated)
    assert run("v.webm", "--json", "found.jsonl") == 0
    out, err = capsys.readouterr()
    assert "v.webm  60 frames" in out
    assert "warning" not in err
    assert "frame rate" not in err
    assert "not in the video" not in err
    written = cv2.VideoCapture(str(FOLDER / "v.mp4"))
    fps, count = written.get(cv2.CAP_PROP_FPS), len(frames_of(FOLDER / "v.mp4"))
    assert fps == pytest.approx(1000 / 33, rel=0.05)
    assert count / fps == pytest.approx(seconds, abs=0.15)
    if stamps == sorted(stamps):
        times = [line["time_s"] for line in lines_of("found.jsonl")]
        assert times == pytest.approx([(stamp - stamps[0]) / 1000 for stamp in stamps])


def test_in_a_pause_the_last_frame_stays(work: Path) -> None:
    """As a screen recorder means it, which writes a frame when something changes."""
    with writers.VideoWriter(Path("v.mp4"), SIZE, 10.0) as out:
        for time_s, level in ((0.0, 50), (0.1, 100), (0.5, 200), (0.52, 90), (0.6, 20)):
            out.write(np.full((*SIZE, 3), level, dtype=np.uint8), time_s)
    levels = [round(frame.mean(), -1) for frame in frames_of(Path("v.mp4"))]
    assert levels == [50, 100, 100, 100, 100, 200, 20]


def test_frames_that_are_not_written_are_counted(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_webm(Path("v.webm"), [*range(0, 80_000, 1000), *(80_000 + 33 * number for number in range(5))])
    assert run("v.webm") == 0
    assert len(frames_of(FOLDER / "v.mp4")) == 81
    assert f"{FOLDER}/v.mp4: 4 of 85 frames are not in the video, which has 1 a" in capsys.readouterr().err


@pytest.mark.parametrize(("jump", "said"), [(-5.0, "jumps back: 4.9 s"), (700.0, "is cut out: 700.1 s")])
def test_after_a_long_pause_or_a_jump_back_time_goes_on(
    work: Path, capsys: pytest.CaptureFixture[str], jump: float, said: str
) -> None:
    with writers.VideoWriter(Path("v.mp4"), SIZE, 10.0) as out:
        for number in range(6):
            out.write(np.full((*SIZE, 3), 9, dtype=np.uint8), 10.0 + (number + jump * 10 * (number > 2)) / 10)
    assert len(frames_of(Path("v.mp4"))) == 6
    assert said in capsys.readouterr().err


class Header:
    def __init__(self, fps: float) -> None:
        self.fps = fps

    def get(self, _: int) -> float:
        return self.fps


@pytest.mark.parametrize(
    ("stated", "taken"),
    [
        (0.0, 25),
        (float("nan"), 25),
        (float("inf"), 25),
        (-1.0, 25),
        (90_000.0, 25),
        (29.97, 29.97),
        (240.0, 240),
        (1000.0, 25),
    ],
)
def test_a_header_without_a_frame_rate(
    capsys: pytest.CaptureFixture[str], stated: float, taken: float
) -> None:
    assert streams.known_fps(streams.stated_fps(Header(stated)), "v.mp4") == taken
    is_said = "v.mp4: states no frame rate; 25 frames a second are assumed" in capsys.readouterr().err
    assert is_said == (taken == 25)


def test_without_a_codec_there_is_an_error_before_the_first_frame(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(Path("v.mp4"), count=3)
    monkeypatch.setattr(writers, "_CODEC", "zzzz")
    monkeypatch.setattr(
        "utils.inference.outputs.Outputs.write", lambda *_: pytest.fail("a frame was looked at")
    )
    assert run("v.mp4") == 1
    (error,) = errors_in(capsys.readouterr().err)
    assert "v.mp4: cannot write a video of 64x48" in error
    assert {path.name for path in FOLDER.iterdir()} == {"args.yaml"}


@pytest.mark.parametrize("flags", [("--xml", "x"), ("--txt", "x"), ("--heatmap",)])
def test_what_is_made_of_images_only_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    make_video(Path("v.mp4"), count=3)
    assert run("photos", "v.mp4", *flags) == 2
    (error,) = errors_in(capsys.readouterr().err)
    assert error.startswith(f"error: {flags[0]}: takes image files only, not v.mp4")
    assert not Path("runs").exists()
    assert not Path("x").exists()


def test_a_video_is_never_written_over_itself(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = make_video(Path("photos/v.mp4"), count=3).read_bytes()
    assert run("photos/v.mp4", "--project", ".", "--name", "photos", "--exist-ok") == 2
    assert "also a source" in errors_in(capsys.readouterr().err)[0]
    assert Path("photos/v.mp4").read_bytes() == content


def test_videos_and_crops_of_one_name_get_numbers(work: Path) -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
        make_video(Path(folder, "v.avi" if folder == "one" else "v.mp4"), count=2)
    assert run("one", "two", *EVERYTHING, "--crop") == 0
    assert {path.name for path in FOLDER.glob("*.mp4")} == {"v.mp4", "v_2.mp4"}
    stems = {path.stem.rpartition("_")[0] for path in FOLDER.rglob("crops/*/*.jpg")}
    assert stems == {f"{stem}_frame00000{number}" for stem in ("v", "v_2") for number in (0, 1)}


def test_few_frames_wait_at_a_time(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(Path("v.mp4"), count=30)
    read, looked_at, most = [0], [0], [0]
    decode, write = streams.VideoFile._time_of, Outputs.write

    def count_read(self: streams.VideoFile, capture: cv2.VideoCapture, number: int) -> float:
        read[0] = number + 1
        most[0] = max(most[0], read[0] - looked_at[0])
        return decode(self, capture, number)

    def count_written(self: Outputs, *told: object) -> None:
        looked_at[0] += 1
        write(self, *told)

    monkeypatch.setattr(streams.VideoFile, "_time_of", count_read)
    monkeypatch.setattr(Outputs, "write", count_written)
    assert run("v.mp4", "--no-save", "--batch-size", "2") == 0
    assert looked_at == [30]
    assert most[0] <= 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)],
)
def test_a_signal_keeps_what_was_found_so_far(work: Path, number: int, status: int) -> None:
    make_video(Path("v.mp4"), count=3000)

    def prepare() -> None:
        torch.set_num_threads(1)

    argv = ("v.mp4", *EVERYTHING, "--json", "found.jsonl", "--weights", "best.pth", "--device", "cpu")
    with started(*argv, before=prepare, work=predict.main) as command:
        wait_until(lambda: any(path.stat().st_size > 20_000 for path in FOLDER.glob(".v.part.mp4")))
        assert not (FOLDER / "v.mp4").exists()
        command.signal(number)
        assert command.wait() == status
        assert "interrupted: detections so far: found.jsonl and runs/predict/exp" in command.text
        assert "Traceback" not in command.text
        assert "could not be read" not in command.text
    lines = lines_of("found.jsonl")
    assert 0 < len(lines) < 3000
    assert len(frames_of(FOLDER / "v.mp4")) == len(lines)
    assert not list(FOLDER.glob(".v*"))


@pytest.mark.slow
def test_a_full_disk_is_said(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    make_video(Path("v.mp4"), count=100)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    argv = ("v.mp4", *EVERYTHING, "--weights", "best.pth", "--device", "cpu")
    with started(*argv, before=limit, work=predict.main) as command:
        assert command.wait() == 1
        (error,) = errors_in(command.text)
        assert "v.mp4: cannot write the video" in error
    assert {path.name for path in FOLDER.iterdir()} == {"args.yaml"}
