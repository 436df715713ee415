"""Printing of results: lines, tables with aligned columns, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from utils.cli.console import one_line


def print_lines(lines: Iterable[str]) -> None:
    """Print each text as one line."""
    print("\n".join(map(one_line, lines)), flush=True)


def next_command(script: str, *arguments: str) -> str:
    """Return the line that advises the next command."""
    return f"next: {shlex.join(['python', script, *arguments])}"


def text_table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a line per row, the heading first; the first column is aligned left, the others right."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [f"{cell!s:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([f"{first!s:<{widths[0]}}", *cells]).rstrip())
    return lines
