"""Stop signals: the current step is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from utils.cli.errors import Interrupted

Item = TypeVar("Item")
# Ctrl-C; `kill`, torchrun and schedulers; a closed terminal (not on Windows).
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignals:
    """Raise `Interrupted` on a signal: immediately, or inside `deferred` at the next `check`.

    A second signal ends the program immediately, unless `repeats_end` is False. A signal that was ignored at
    the start of the program (nohup ignores SIGHUP) stays ignored.
    """

    def __init__(self, *, repeats_end: bool = True) -> None:
        self.requested: int | None = None  # the received signal
        self._repeats_end = repeats_end  # torchrun adds its own signal to the terminal's, so there False
        self._is_deferred = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals until `check`, around code that must not be interrupted."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside `deferred`: let signals raise immediately, around code that may be interrupted."""
        self._is_deferred = False
        self.check()
        try:
            yield
        finally:
            self._is_deferred = True

    def interruptible(self, items: Iterable[Item]) -> Iterator[Item]:
        """Inside `deferred`: yield items; a signal interrupts waiting for an item, but not the work on it."""
        iterator = iter(items)
        while True:
            with self.at_once():
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def check(self, requested: int | None = None) -> None:
        """Raise `Interrupted` if a signal was received, here or (`requested`) in another process of the run.

        The same signal may reach this process a moment later, while it saves; it then counts as a repetition.
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
