"""Streams of frames: image files, videos, cameras and network streams; and sources that cannot be read."""

from __future__ import annotations

import math
import os
import queue
import stat
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from pathlib import Path

import cv2

from utils.cli.console import log, progress, warn
from utils.cli.errors import UserError
from utils.cli.files import read_bytes
from utils.inference.image_urls import MAX_BYTES, download_image, explain_no_frame
from utils.inference.predictor import Predictor, Prepared
from utils.inference.prefetch import prefetch
from utils.inference.sources import Source
from utils.vision.image_reader import MAX_PIXELS, Pixels, count_frames, read_image

DEFAULT_FPS = 25.0  # for a video that states no frame rate
TIMEOUT = 10.0  # seconds to wait for a frame before a source counts as ended
_MAX_FPS = 240.0  # a header with more counts in time stamps (1000 in WebM) or is broken
_MIN_FPS = 1.0
_MAX_MEASURED_FPS = 60.0  # more only if the header states it: a burst of frames is no rate
_MEASURED = 3000  # first packets, by whose time stamps the frame rate is measured
_MEASURED_DECODED = 60  # frames instead, where OpenCV cannot read packets
_MAX_IN_FLIGHT = 4  # frames; few, as one may take hundreds of megabytes
_MAX_WARNINGS = 10
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # others estimate the number of frames from their duration
_Item = tuple[Pixels, float] | None  # a frame in BGR and its time in seconds; None at the end

# FFmpeg and OpenCV would print their own messages beside our one line.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
with suppress(AttributeError):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Frame:
    """An image file, or one frame of a video, a camera or a stream."""

    name: str  # the name of its source
    path: Path  # the file of its source; of a URL or a camera the file that a copy would be
    image: Pixels  # uint8 (H, W, 3) in RGB
    prepared: Prepared
    number: int | None = None  # its index in the video, from 0; None for an image file
    time_s: float | None = None  # seconds from the start of the video


class Failures:
    """The sources that could not be read: all are counted, the first ten named."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._total = len(sources)
        self._kind = "images" if all(source.kind == "image" for source in sources) else "sources"
        self._errors: list[UserError] = []

    def add(self, error: UserError) -> None:
        """Record a source that could not be read, and warn if there are others."""
        self._errors.append(error)
        if self._total > 1 and len(self._errors) <= _MAX_WARNINGS:
            warn(f"{error}; skipped")

    def conclude(self) -> int:
        """Log how many there were; returns the exit status.

        Raises:
            UserError: nothing could be read (exit code 1).
        """
        count = len(self._errors)
        if count == self._total:
            others = f"; none of {self._total} {self._kind} could be read" if self._total > 1 else ""
            raise UserError(f"{self._errors[0]}{others}", exit_code=1)
        if count > _MAX_WARNINGS:
            log(f"… and {count - _MAX_WARNINGS} more")
        if count:
            log(f"skipped {count} of {self._total} {self._kind}: unreadable")
        return 1 if count else 0


class ImageFiles:
    """Image files and images behind URLs, in order; those that cannot be read go to the failures."""

    def __init__(self, sources: Sequence[Source], failures: Failures) -> None:
        self._sources, self._failures = sources, failures

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the images, read and prepared ahead in threads."""

        def read(source: Source) -> Frame | UserError:
            name = source.name
            try:
                data = None
                if source.copy:
                    data = read_bytes(source.copy, limit=MAX_BYTES)
                elif source.address:
                    data = download_image(source.address, name)
                image = read_image(name, data=data)
                prepared = predictor.prepare(image, name)
            except UserError as error:
                return error
            with suppress(UserError):  # of a later image, which is not used
                if (count := count_frames(name, data=data)) > 1:
                    log(f"{name}: an animation or pages, {count} images; only the first is used")
            return Frame(name, source.path, image, prepared)

        for result in prefetch(read, self._sources, depth=_MAX_IN_FLIGHT):
            if isinstance(result, UserError):
                self._failures.add(result)
            else:
                yield result


class VideoStream:
    """An open video, camera or network stream; a context manager.

    Attributes:
        name: its name in lines and in JSON.
        path: the file; of a live source the file that a recording of it would be.
        size: (height, width) of its first frame in pixels.
        fps: frames a second, at which it is written.
        is_live: whether frames come in real time, and are dropped when prediction is slower.
    """

    size: tuple[int, int]
    fps = 0.0
    is_live = False

    def __init__(self, source: Source, stride: int) -> None:
        self.name, self.path, self._stride = source.name, source.path, stride

    def _set_size(self, first: Pixels) -> None:
        height, width = self.size = first.shape[:2]
        if height * width > MAX_PIXELS:
            limit = MAX_PIXELS // 10**6
            raise UserError(f"{self.name}: frames of {width}x{height} have more than {limit} million pixels")

    def _time_of(self, capture: cv2.VideoCapture, number: int) -> float:
        """Return the time of the frame just read in seconds; videos of phones have a variable frame rate."""
        milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
        is_known = math.isfinite(milliseconds) and milliseconds > 0
        return milliseconds / 1000 if is_known else number / self.fps

    def _frame(self, predictor: Predictor, bgr: Pixels, number: int, time_s: float) -> Frame:
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return Frame(self.name, self.path, image, predictor.prepare(image, self.name), number, time_s)


class VideoFile(VideoStream):
    """An open video file."""

    def __init__(self, source: Source, stride: int = 1) -> None:
        """Open a video, of which every `stride`-th frame is used, and read its first frame.

        Raises:
            UserError: not a regular file, not a video, or no frame can be read.
        """
        super().__init__(source, stride)
        _check_file(self.path)
        # An absolute path, as FFmpeg takes what stands before a colon for a protocol.
        place = os.path.abspath(self.path)
        self._capture = cv2.VideoCapture(place, capture_backend())
        ok, self._first = self._capture.read()
        if not ok:
            self._capture.release()
            raise UserError(
                f"{self.path}: no frame can be read: not a video, or cut off (MP4 has its index at the end)"
            )
        self._set_size(self._first)
        stated = stated_fps(self._capture)
        measured = measure_fps(cv2.VideoCapture(place, capture_backend()), stated)
        self.fps = measured or known_fps(stated, self.name)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_counted = self.path.suffix.lower() in _COUNTED and math.isfinite(count) and count > 0
        self._total = int(count) if is_counted else None
        self._count = 1  # frames read

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the frames in order, prepared ahead in threads, and show the progress.

        FFmpeg skips frames that it cannot decode, and a file that is cut off just ends: where the container
        counts its frames, a warning at the end says how many are missing.
        """
        frames = prefetch(lambda item: self._frame(predictor, *item), self._read(), depth=_MAX_IN_FLIGHT)
        total = math.ceil(self._total / self._stride) if self._total else None
        yield from progress(frames, self.name, total=total, unit="frame")
        missing = (self._total or 0) - self._count
        if missing > 0:
            warn(f"{self.name}: {missing} of {self._total} frames could not be read: damaged or cut off")

    def _read(self) -> Iterator[tuple[Pixels, int, float]]:
        """Yield (frame in BGR, number, seconds from the start)."""
        frame, ok = self._first, True
        while ok:
            number = self._count - 1
            yield frame, number, self._time_of(self._capture, number)
            for _ in range(self._stride - 1):
                self._count += self._capture.grab()
            ok, frame = self._capture.read()
            self._count += ok


class LiveStream(VideoStream):
    """An open camera or network stream, read in a thread.

    Of a camera or a live stream only the newest frame is kept, so that what is shown is at most one frame
    old; a recorded video behind a URL is read frame by frame.
    """

    def __init__(self, source: Source, stride: int = 1) -> None:
        """Open a camera or a stream, of which every `stride`-th frame is used, and wait for its first frame.

        Raises:
            UserError: it cannot be opened, or no frame comes within TIMEOUT seconds.
        """
        super().__init__(source, stride)
        self._address, self._kind = source.address, source.kind
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self.is_live = True
        # A daemon, as a driver that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            first = self._next()
            if first is None:
                if self._address.lower().startswith(("http://", "https://")):
                    raise UserError(explain_no_frame(self._address, self.name))
                reason = "no such camera, or it is in use" if self._address.isdigit() else "cannot be opened"
                raise UserError(f"{self.name}: {reason}; no frame came")
            self._first = first
            self._set_size(first[0])
            measured = None if self.is_live else measure_fps(_open(self._address), self._stated)
            self.fps = measured or known_fps(self._stated, self.name)
        except BaseException:
            self._stopped.set()
            raise

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(1.0)

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield frames until no more come, and show the progress."""
        items = chain([self._first], iter(self._next, None))
        for number, (bgr, time_s) in enumerate(progress(items, self.name, unit="frame")):
            if number % self._stride == 0:
                yield self._frame(predictor, bgr, number, time_s)
        log(f"{self.name}: no more frames")

    def _next(self) -> _Item:
        try:
            return self._items.get(timeout=TIMEOUT)
        except queue.Empty:
            log(f"{self.name}: no frame for {TIMEOUT:g} seconds")
            return None

    def _read(self) -> None:
        """Read frames until there are none or the stream is closed; runs in the thread."""
        capture = _open(self._address)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        self.is_live = self._kind == "live" and not (math.isfinite(count) and count > 0)
        self._stated = stated_fps(capture) if capture.isOpened() else None
        self.fps = self._stated or DEFAULT_FPS
        start, number = 0.0, 0
        while not self._stopped.is_set():
            ok, frame = capture.read()
            if not ok:
                break
            now = time.monotonic()
            start = start or now
            time_s = now - start if self.is_live else self._time_of(capture, number)
            self._put((frame, time_s), replace=self.is_live)
            number += 1
        capture.release()
        self._put(None, replace=False)

    def _put(self, item: _Item, replace: bool) -> None:
        """Queue a frame: in place of one that is still waiting (`replace`), or after it."""
        while not self._stopped.is_set():
            if replace:
                with suppress(queue.Empty):
                    self._items.get_nowait()
            with suppress(queue.Full):
                self._items.put(item, timeout=0.1)
                return


Stream = ImageFiles | VideoFile | LiveStream


def open_streams(sources: Sequence[Source], failures: Failures, stride: int = 1) -> Iterator[Stream]:
    """Open the sources in order, each until the next is asked for; consecutive images are one stream.

    Of a video or a camera every `stride`-th frame is used.
    """
    for is_image, group in groupby(sources, key=lambda source: source.kind == "image"):
        if is_image:
            yield ImageFiles(list(group), failures)
            continue
        for source in group:
            try:
                opened = (LiveStream if source.address else VideoFile)(source, stride)
            except UserError as error:
                failures.add(error)
                continue
            with opened:
                yield opened


def _open(address: str) -> cv2.VideoCapture:
    if address.isdigit():
        return cv2.VideoCapture(int(address))
    timeout = round(1000 * TIMEOUT)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout]
    return cv2.VideoCapture(address, capture_backend(), limits)


def capture_backend() -> int:
    """Return FFmpeg where OpenCV has it: other backends read a number in a file name as an image index."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY


def known_fps(stated: float | None, name: str) -> float:
    """Return the frames a second that a header states; without, log it and return 25."""
    if stated is None:
        log(f"{name}: states no frame rate; {DEFAULT_FPS:g} frames a second are assumed")
    return stated or DEFAULT_FPS


def stated_fps(capture: cv2.VideoCapture) -> float | None:
    """Return the frames a second that a header states, None if it states none that can be."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else None


def measure_fps(capture: cv2.VideoCapture, stated: float | None) -> float | None:
    """Return the frames a second of the fastest tenth of the time stamps, None without them.

    So a recording that starts with a still screen keeps its moving part. What the header states is returned
    if it agrees to 2 %, as stamps are rounded. The capture, which is at its start, is read for `TIMEOUT`
    seconds at most and released.
    """
    is_fast = capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets, which are not decoded
    count = _MEASURED if is_fast else _MEASURED_DECODED
    stamps: list[float] = []
    deadline = time.monotonic() + TIMEOUT
    while len(stamps) < count and time.monotonic() < deadline and capture.grab():
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    # Packets come in the order of decoding.
    intervals = sorted(after - before for before, after in pairwise(sorted(stamps)) if after > before)
    if not intervals:
        return None
    shortest = intervals[len(intervals) // 10]
    # The mean of those like it, as the intervals of phones vary a little.
    fps = 1 / statistics.fmean(one for one in intervals if shortest / 1.5 < one < shortest * 1.5)
    if stated is not None and abs(fps - stated) <= 0.02 * stated:
        return stated
    return min(max(fps, _MIN_FPS), max(_MAX_MEASURED_FPS, stated or 0.0))


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
