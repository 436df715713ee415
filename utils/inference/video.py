"""Video files, frame by frame in constant memory."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2

from utils.cli.console import log, progress, warn
from utils.cli.errors import UserError
from utils.inference.frames import AHEAD, Frame
from utils.inference.predictor import Predictor
from utils.inference.prefetch import map_ahead
from utils.inference.sources import Source
from utils.vision.image_reader import MAX_PIXELS, Pixels

USUAL_FPS = 25.0  # taken where a video does not say how many frames a second it has
_HIGHEST_FPS = 1000.0  # a header with more is broken
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # of the other containers the number of frames is an estimate

# What goes wrong is our one line to tell; FFmpeg and OpenCV would write theirs beside it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
with suppress(AttributeError):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Video:
    """An open video file.

    Attributes:
        name: what it is called.
        path: the file.
        size: (height, width) of its first frame in pixels.
        fps: frames a second.
        is_live: False, as its frames wait till we are ready.
    """

    is_live = False

    def __init__(self, source: Source) -> None:
        """Open a video and read its first frame.

        Raises:
            UserError: no regular file, no video, or without a frame that can be read.
        """
        self.name, self.path = source.name, source.path
        _check_file(self.path)
        # An absolute path, as FFmpeg takes what stands before a colon for a protocol.
        self._capture = cv2.VideoCapture(os.path.abspath(self.path), backend())
        ok, self._first = self._capture.read()
        if not ok:
            self._capture.release()
            raise UserError(
                f"{self.path}: no frame can be read: no video, or cut off (MP4 has its index at the end)"
            )
        self.size = self._first.shape[:2]
        check_size(self.name, self.size)
        self.fps = stated_fps(self._capture, self.name)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._total = int(count) if math.isfinite(count) and count > 0 else None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the frames in order, prepared a little ahead, while showing how far we are.

        Frames that cannot be decoded are passed over by FFmpeg, and a file that ends early just ends: at the
        end a warning says how many are missing.
        """

        def prepare(item: tuple[Pixels, int, float]) -> Frame:
            bgr, number, time_s = item
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            return Frame(self.name, self.path, image, predictor.prepare(image), number, time_s)

        count = 0
        frames = map_ahead(prepare, self._read(), ahead=AHEAD)
        for frame in progress(frames, self.name, total=self._total, unit="frame"):
            count += 1
            yield frame
        missing = (self._total or 0) - count
        tolerated = 0 if self.path.suffix.lower() in _COUNTED else max(2, count // 50)
        if missing > tolerated:
            warn(f"{self.name}: {missing} of {self._total} frames could not be read: damaged or cut off")

    def _read(self) -> Iterator[tuple[Pixels, int, float]]:
        """Yield (frame in BGR, number, seconds from the start)."""
        frame, number = self._first, 0
        while True:
            yield frame, number, self._time_of(number)
            ok, frame = self._capture.read()
            if not ok:
                return
            number += 1

    def _time_of(self, number: int) -> float:
        """Return the seconds of the frame just read; a camera of a phone does not keep its rate."""
        milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        is_known = math.isfinite(milliseconds) and milliseconds > 0
        return milliseconds / 1000 if is_known else number / self.fps


def backend() -> int:
    """Return FFmpeg where this OpenCV has it: others take a number in a name for that of an image."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY


def stated_fps(capture: cv2.VideoCapture, name: str) -> float:
    """Return the frames a second that a header states, or 25 with a line that says so."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    if math.isfinite(fps) and 0 < fps <= _HIGHEST_FPS:
        return fps
    log(f"{name}: states no frame rate; {USUAL_FPS:g} frames a second are taken")
    return USUAL_FPS


def check_size(name: str, size: tuple[int, int]) -> None:
    """Hold that frames of (height, width) are no larger than images may be."""
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(
            f"{name}: frames of {size[1]}x{size[0]} are more than {MAX_PIXELS // 10**6} million pixels"
        )


def _check_file(path: Path) -> None:
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):  # opening a named pipe would wait for ever
            raise UserError(f"{path}: not a regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot read the video: {error.strerror}") from None
    if not state.st_size:
        raise UserError(f"{path}: no video: the file is empty")
