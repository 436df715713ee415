"""Video files, read and written frame by frame in constant memory."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2

from utils.cli.console import log, progress, warn
from utils.cli.errors import Interrupted, UserError
from utils.inference.frames import MAX_IN_FLIGHT, Frame
from utils.inference.predictor import Predictor
from utils.inference.prefetch import prefetch
from utils.inference.sources import Source
from utils.vision.image_reader import MAX_PIXELS, Pixels
from utils.vision.letterbox import letterbox

DEFAULT_FPS = 25.0  # for a video that states no frame rate
_MAX_FPS = 1000.0  # a header with more is broken
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # other containers only estimate their number of frames
_CODEC = "mp4v"  # MPEG-4 part 2: every OpenCV with FFmpeg has it, and every player reads it

# FFmpeg and OpenCV would print their own messages beside our one line.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
with suppress(AttributeError):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoFile:
    """An open video file.

    Attributes:
        name: its name in lines and in JSON.
        path: the file.
        size: (height, width) of its first frame in pixels.
        fps: frames a second.
        is_live: False, as no frame is dropped.
    """

    is_live = False

    def __init__(self, source: Source) -> None:
        """Open a video and read its first frame.

        Raises:
            UserError: not a regular file, not a video, or no frame can be read.
        """
        self.name, self.path = source.name, source.path
        _check_file(self.path)
        # An absolute path, as FFmpeg takes what stands before a colon for a protocol.
        self._capture = cv2.VideoCapture(os.path.abspath(self.path), capture_backend())
        ok, self._first = self._capture.read()
        if not ok:
            self._capture.release()
            raise UserError(
                f"{self.path}: no frame can be read: not a video, or cut off (MP4 has its index at the end)"
            )
        self.size = self._first.shape[:2]
        check_frame_size(self.name, self.size)
        self.fps = read_fps(self._capture, self.name)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._total = int(count) if math.isfinite(count) and count > 0 else None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the frames in order, prepared ahead in threads, and show the progress.

        FFmpeg skips frames that it cannot decode, and a file that is cut off just ends: a warning at the end
        says how many frames are missing.
        """

        def prepare(item: tuple[Pixels, int, float]) -> Frame:
            bgr, number, time_s = item
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            return Frame(self.name, self.path, image, predictor.prepare(image), number, time_s)

        count = 0
        frames = prefetch(prepare, self._read(), depth=MAX_IN_FLIGHT)
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
        """Return the time of the frame just read in seconds; videos of phones have a variable frame rate."""
        milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        is_known = math.isfinite(milliseconds) and milliseconds > 0
        return milliseconds / 1000 if is_known else number / self.fps


class VideoWriter:
    """An MP4 file that gets its name only when it is complete; a context manager."""

    def __init__(self, target: Path, size: tuple[int, int], fps: float) -> None:
        """Open the file.

        Args:
            target: the final name; it must end with .mp4.
            size: (height, width) of the frames in pixels; an odd side grows by a pixel for the codec.
            fps: frames a second.

        Raises:
            UserError: it cannot be opened, or this OpenCV lacks the codec.
        """
        self._target, self._size, self._fps = target, size, fps
        self._temporary = target.with_name(f".{target.stem}.part.mp4")  # OpenCV goes by the suffix
        self._margins = (0, size[0] % 2, 0, size[1] % 2)
        self._written = 0
        self._is_warned = False
        sides = (size[1] + size[1] % 2, size[0] + size[0] % 2)
        self._writer = cv2.VideoWriter(
            os.fspath(self._temporary), cv2.VideoWriter.fourcc(*_CODEC), fps, sides
        )
        if not self._writer.isOpened():
            self._discard()
            raise UserError(
                f"{target}: cannot write a video of {sides[0]}x{sides[1]}: the disk is full, or this OpenCV "
                f"lacks {_CODEC}; --no-save writes none",
                exit_code=1,
            )

    def write(self, image: Pixels, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 (H, W, 3) in RGB; one of another size than the first is letterboxed to that size.
            time_s: for a live source, seconds from its start: the frame is repeated or dropped so that the
                video plays in real time. None appends it once.
        """
        if image.shape[:2] != self._size:
            image = letterbox(image, self._size)[0]
            if not self._is_warned:
                self._is_warned = True
                warn(f"{self._target}: the frame size changes; frames are letterboxed to the first one's")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if any(self._margins):
            bgr = cv2.copyMakeBorder(bgr, *self._margins, cv2.BORDER_REPLICATE)
        copies = 1 if time_s is None else round(time_s * self._fps) + 1 - self._written
        for _ in range(copies):
            self._writer.write(bgr)
            self._written += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Finish the file and give it its name, also after a signal; without a frame no file is left.

        Raises:
            UserError: it did not reach the disk completely.
        """
        self._writer.release()
        if not self._written or not (error is None or isinstance(error, Interrupted)):
            self._discard()
        elif self._is_complete():
            os.replace(self._temporary, self._target)
        else:
            self._discard()
            raise UserError(f"{self._target}: cannot write the video: is the disk full?", exit_code=1)

    def _discard(self) -> None:
        with suppress(OSError):
            self._temporary.unlink()

    def _is_complete(self) -> bool:
        """Read the header again: OpenCV reports no failed write."""
        capture = cv2.VideoCapture(os.path.abspath(self._temporary))
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if count != self._written:
            return False
        with open(self._temporary, "rb") as file:
            os.fsync(file.fileno())
        return True


def capture_backend() -> int:
    """Return FFmpeg where OpenCV has it: other backends read a number in a file name as an image index."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY


def read_fps(capture: cv2.VideoCapture, name: str) -> float:
    """Return the frames a second that a header states; without, log it and return 25."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    if math.isfinite(fps) and 0 < fps <= _MAX_FPS:
        return fps
    log(f"{name}: states no frame rate; {DEFAULT_FPS:g} frames a second are assumed")
    return DEFAULT_FPS


def check_frame_size(name: str, size: tuple[int, int]) -> None:
    """Check that frames of (height, width) are no larger than images may be.

    Raises:
        UserError: they are larger.
    """
    if size[0] * size[1] > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{name}: frames of {size[1]}x{size[0]} have more than {limit} million pixels")


def _check_file(path: Path) -> None:
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):  # opening a named pipe would block
            raise UserError(f"{path}: not a regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot read the video: {error.strerror}") from None
    if not state.st_size:
        raise UserError(f"{path}: not a video: the file is empty")
