"""Signals that ask a run to stop: the step under way is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from utils.cli.errors import Interrupted

Item = TypeVar("Item")
# Ctrl-C, what `kill`, torchrun and schedulers send, and a terminal that is closed (which Windows has not).
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignals:
    """Raise `Interrupted` for a signal: at once, or where `check` is called inside `deferred`.

    A second signal ends the program at once, unless `repeats_end` is False. What was ignored when the program
    started (nohup ignores SIGHUP) stays ignored.
    """

    def __init__(self, *, repeats_end: bool = True) -> None:
        self.requested: int | None = None  # the signal that came
        self._repeats_end = repeats_end  # torchrun sends its own after the terminal's, so there False
        self._is_deferred = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back until `check`: around what must not be cut in two."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside `deferred`: let signals raise where they come, around what may be cut anywhere."""
        self._is_deferred = False
        self.check()
        try:
            yield
        finally:
            self._is_deferred = True

    def interruptible(self, items: Iterable[Item]) -> Iterator[Item]:
        """Inside `deferred`: take items; a signal ends the waiting for one, but not the work on it."""
        iterator = iter(items)
        while True:
            with self.at_once():
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def check(self, requested: int | None = None) -> None:
        """Raise `Interrupted` if a signal has come, here or (`requested`) in another process of the run.

        That the other's signal reaches this process a moment later, while it saves, is then a repetition.
        """
        self.requested = self.requested or requested or None
        if self.requested:
            raise Interrupted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_repeat = self.requested is not None
        self.requested = self.requested or number
        if not self._is_deferred and not is_repeat:
            raise Interrupted(number)
        if is_repeat and self._repeats_end:
            raise SystemExit(128 + number)
