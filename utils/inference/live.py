"""Cameras and streams: the newest frame, and an end when no more come."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import cv2

from utils.cli.console import log, progress
from utils.cli.errors import UserError
from utils.inference.frames import Frame
from utils.inference.predictor import Predictor
from utils.inference.sources import Source
from utils.inference.video import backend, check_size, stated_fps
from utils.vision.image_reader import Pixels

PATIENCE = 10.0  # seconds to wait for a frame before a source counts as ended
_Item = tuple[Pixels, float] | None  # a frame in BGR with its seconds; None: no more will come


class Live:
    """An open camera or stream, read by a thread of its own.

    Of a camera or a live stream only the newest frame is kept, so that what is shown is never older than one
    frame; a recorded video behind a URL is read frame by frame.

    Attributes:
        name: what it is called.
        path: the file that a recording of it would be.
        size: (height, width) of its first frame in pixels.
        fps: frames a second, as it states.
        is_live: whether frames come by the clock.
    """

    def __init__(self, source: Source) -> None:
        """Open a camera or a stream and wait for its first frame.

        Raises:
            UserError: it cannot be opened, or no frame comes within PATIENCE seconds.
        """
        self.name, self.path = source.name, source.path
        self._address = source.address
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self.fps, self.is_live = 0.0, True
        # A daemon, as a driver that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._pull, daemon=True)
        self._thread.start()
        try:
            self._first = self._next()
            if self._first is None:
                what = "no such camera, or it is in use" if self._address.isdigit() else "cannot be opened"
                raise UserError(f"{self.name}: {what}; no frame came")
            self.size = self._first[0].shape[:2]
            check_size(self.name, self.size)
        except BaseException:
            self._stopped.set()
            raise

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(1.0)

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield frames till no more come."""
        return progress(self._frames(predictor), self.name, unit="frame")

    def _frames(self, predictor: Predictor) -> Iterator[Frame]:
        item, number = self._first, 0
        while item is not None:
            image = cv2.cvtColor(item[0], cv2.COLOR_BGR2RGB)
            yield Frame(self.name, self.path, image, predictor.prepare(image), number, item[1])
            item, number = self._next(), number + 1
        log(f"{self.name}: no more frames")

    def _next(self) -> _Item:
        try:
            return self._items.get(timeout=PATIENCE)
        except queue.Empty:
            log(f"{self.name}: no frame for {PATIENCE:g} seconds")
            return None

    def _pull(self) -> None:
        """Read frames until there are none or we are stopped; this is the thread."""
        capture = _open(self._address)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        self.is_live = not (math.isfinite(count) and count > 0)
        if capture.isOpened():
            self.fps = stated_fps(capture, self.name)
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
        """Hand a frame over: in place of one that nobody took, or when that is gone."""
        while not self._stopped.is_set():
            if replace:
                with suppress(queue.Empty):
                    self._items.get_nowait()
            with suppress(queue.Full):
                self._items.put(item, timeout=0.1)
                return


def _open(address: str) -> cv2.VideoCapture:
    if address.isdigit():
        return cv2.VideoCapture(int(address))
    timeout = round(1000 * PATIENCE)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout]
    return cv2.VideoCapture(address, backend(), limits)
