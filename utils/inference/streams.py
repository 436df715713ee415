"""Cameras and network streams, and opening each source of a run."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby

import cv2

from utils.cli.console import log, progress
from utils.cli.errors import UserError
from utils.inference.frames import Failures, Frame, ImageFiles
from utils.inference.predictor import Predictor
from utils.inference.sources import Source
from utils.inference.video import VideoFile, capture_backend, check_frame_size, read_fps
from utils.vision.image_reader import Pixels

TIMEOUT = 10.0  # seconds to wait for a frame before a source counts as ended
_Item = tuple[Pixels, float] | None  # a frame in BGR and its time in seconds; None at the end


class LiveStream:
    """An open camera or network stream, read in a thread.

    Of a camera or a live stream only the newest frame is kept, so that what is shown is at most one frame
    old; a recorded video behind a URL is read frame by frame.

    Attributes:
        name: its name in lines and in JSON.
        path: the file that a recording of it would be.
        size: (height, width) of its first frame in pixels.
        fps: frames a second, as it states.
        is_live: whether frames come in real time.
    """

    def __init__(self, source: Source) -> None:
        """Open a camera or a stream and wait for its first frame.

        Raises:
            UserError: it cannot be opened, or no frame comes within TIMEOUT seconds.
        """
        self.name, self.path = source.name, source.path
        self._address = source.address
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self.fps, self.is_live = 0.0, True
        # A daemon, as a driver that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            first = self._next()
            if first is None:
                reason = "no such camera, or it is in use" if self._address.isdigit() else "cannot be opened"
                raise UserError(f"{self.name}: {reason}; no frame came")
            self._first, self.size = first, first[0].shape[:2]
            check_frame_size(self.name, self.size)
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
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            yield Frame(self.name, self.path, image, predictor.prepare(image), number, time_s)
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
        self.is_live = not (math.isfinite(count) and count > 0)
        if capture.isOpened():
            self.fps = read_fps(capture, self.name)
        start, number = 0.0, 0
        while not self._stopped.is_set():
            ok, frame = capture.read()
            if not ok:
                break
            now = time.monotonic()
            start = start or now
            self._put((frame, now - start if self.is_live else number / self.fps), replace=self.is_live)
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


def open_streams(sources: Sequence[Source], failures: Failures) -> Iterator[Stream]:
    """Open the sources in order, each until the next is asked for; consecutive images are one stream.

    Args:
        sources: what `find_sources` found.
        failures: takes what cannot be opened.
    """
    for is_image, group in groupby(sources, key=lambda source: source.kind == "image"):
        if is_image:
            yield ImageFiles([source.path for source in group], failures)
            continue
        for source in group:
            try:
                opened = VideoFile(source) if source.kind == "video" else LiveStream(source)
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
