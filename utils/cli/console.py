"""Console output and exit status: results on stdout, logs and progress on stderr, errors in one line."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import redirect_stdout, suppress
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from utils.cli.error_messages import explain_failure, explain_missing_module
from utils.cli.errors import Interrupted, UserError
from utils.cli.own_code import where_it_failed
from utils.cli.signals import StopSignals

Item = TypeVar("Item")
_LONGEST_ERROR = 400
_LINE_INTERVAL = 10.0  # seconds between lines of progress
_is_muted = False


def run_command(function: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; the body of every script's `main`.

    Args:
        function: takes the arguments after the script's name; returns the exit status (None means 0).
        argv: the arguments; None takes the process's own. `--debug` among them shows tracebacks.

    Returns:
        0 done; 1 failed while running; 2 bad usage, data or config; 130 interrupted from the keyboard, 143 by
        SIGTERM, 129 by a closed terminal.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a C locale must not crash on a class name
    try:
        with redirect_stdout(_StandardOutput(sys.stdout)):
            try:
                _check_current_folder()
                with StopSignals():
                    status = function(arguments) or 0
            except SystemExit as stop:  # after --help
                status = stop.code if isinstance(stop.code, int) else 0
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout, sys.stderr)
        return 1
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    except Interrupted as stop:
        log(f"interrupted: {stop.message}")
        return 128 + stop.number
    except Exception as error:  # every failure ends as one line, whatever it was
        if "--debug" in arguments:
            traceback.print_exc()
        _fail(_explain(error))
        return error.exit_code if isinstance(error, UserError) else 1
    return status


def log(message: str) -> None:
    """Write a line to stderr, above the progress bar, with control characters escaped.

    A closed stderr (`2>&1 | head`, a closed terminal) is ignored, and the work goes on.
    """
    if not _is_muted:
        _write(one_line(message))


def mute() -> None:
    """Drop log lines and progress, but not errors, from now on: only one of several processes logs."""
    global _is_muted
    _is_muted = True


def warn(message: str) -> None:
    """Write a warning line to stderr."""
    log(f"warning: {message}")


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return a count with its noun: '1 image', '2 images'; `many` is the plural that is not noun + s."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def one_line(message: str) -> str:
    """Return the message with line breaks and control characters, as file names may hold, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message)


def progress(
    items: Iterable[Item],
    label: str,
    *,
    total: int | None = None,
    unit: str = "image",
    status: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yield the items and show progress: a bar on a terminal, plain lines on stderr otherwise.

    `status` returns the text at the end of the line, such as the current loss; `total` is needed where the
    items have no length.
    """
    if _is_muted:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    has_bar = sys.stderr is not None and sys.stderr.isatty()  # None in a program of a user without one
    of_total = f"/{total}" if total is not None else ""
    last_line = time.monotonic()
    with tqdm(
        total=total, desc=label, unit=unit, disable=not has_bar, dynamic_ncols=True, leave=False
    ) as bar:
        for count, item in enumerate(items, start=1):
            yield item
            if has_bar and status is not None:
                bar.set_postfix_str(status(), refresh=False)
            elif not has_bar and time.monotonic() - last_line >= _LINE_INTERVAL:
                last_line = time.monotonic()
                log(f"{label}  {count}{of_total} {unit}s  {status() if status is not None else ''}".rstrip())
            bar.update()


class _StandardOutput:
    """Standard output whose errors name it; an OSError of print would count as one of another open file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        return self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], Item]) -> Item:
        try:
            return action()
        except BrokenPipeError:
            raise
        except OSError as error:
            _silence(self._stream)
            raise UserError(f"standard output: {error.strerror or error}", exit_code=1) from None


def _fill_closed_streams() -> None:
    """Connect standard streams that were closed (`>&-`) to nothing.

    Otherwise the next file that is opened takes their number, and what a C library prints goes into it.
    Python has None for a closed one, which packages fail with.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # os.open takes the lowest free number, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _check_current_folder() -> None:
    """Check that the current folder was not deleted, as a process that is started in it fails strangely."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder no longer exists; change to another one with cd") from None


def _explain(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if known := explain_failure(error):
        return known
    where = where_it_failed(error)
    if isinstance(error, ModuleNotFoundError) and not where:
        return explain_missing_module(error)
    begin = f"{where}, your own code: " if where else "unexpected "
    return f"{begin}{type(error).__name__}: {error}; --debug shows the traceback"


def _fail(message: str) -> None:
    line = one_line(" ".join(message.split("\n")))
    if len(line) > _LONGEST_ERROR:  # the file is at the start, the advice at the end
        line = f"{line[:240]} … {line[-(_LONGEST_ERROR - 250) :]}"
    _write(f"error: {line}")


def _write(line: str) -> None:
    if sys.stderr is None:  # closed before the program began
        return
    try:
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(*streams: TextIO) -> None:
    """Redirect streams to nothing, so that the interpreter's last flush does not raise BrokenPipeError."""
    for stream in streams:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
