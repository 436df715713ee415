"""The table of a comparison as text: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from utils.cli.files import atomic_write
from utils.compare.results import Row, Spread

_HEADINGS = (
    "block",
    "parameters",
    "GFLOPs",
    "CPU ms",
    "time ratio",
    "mAP50",
    "mAP50-95",
    "mAP50 to none [95 %]",
    "verdict",
    "seeds",
)


def write_tables(rows: Sequence[Row], notes: Sequence[str], folder: Path) -> None:
    """Write table.md with the notes, table.csv and table.tex."""
    texts = {"table.md": as_markdown(rows, notes), "table.csv": as_csv(rows), "table.tex": as_latex(rows)}
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)


def as_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """Write the table, and below it a line for each note."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in _cells(row)) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    """Write the table as a tabular that needs no package."""
    lines = [r"\begin{tabular}{l" + "r" * (len(_HEADINGS) - 3) + "ll}", r"\hline"]
    lines += [" & ".join(map(_escape, _HEADINGS)) + r" \\", r"\hline"]
    lines += [" & ".join(map(_escape, _cells(row))) + r" \\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Write all numbers in full precision, a line a row; what was not measured is empty."""
    file = io.StringIO()
    names = "block parameters gflops milliseconds time_ratio map50_mean map50_std map50_95_mean map50_95_std"
    names += " difference_mean difference_low difference_high verdict seeds"
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names.split())
    for row in rows:
        cost, change = row.cost, row.difference
        writer.writerow(
            [
                row.label,
                *((cost.parameters, cost.gflops, cost.milliseconds, cost.ratio) if cost else [""] * 4),
                *((row.map50.mean, row.map50.std) if row.map50 else [""] * 2),
                *((row.map50_95.mean, row.map50_95.std) if row.map50_95 else [""] * 2),
                change.mean if change else "",
                *(change.interval if change and change.interval else [""] * 2),
                change.verdict if change else "",
                " ".join(map(str, row.seeds)),
            ]
        )
    return file.getvalue()


def _cells(row: Row) -> list[str]:
    cost, change = row.cost, row.difference
    cells = [row.label]
    if cost is None:
        cells += ["-"] * 4
    else:
        cells += [
            f"{cost.parameters:,}",
            f"{cost.gflops:.3f}",
            f"{cost.milliseconds:.1f}",
            f"{cost.ratio:.2f}",
        ]
    cells += [_spread(row.map50), _spread(row.map50_95)]
    if change is None:
        cells += ["-", "-"]
    else:
        reach = f" [{change.interval[0]:+.4f}, {change.interval[1]:+.4f}]" if change.interval else ""
        cells += [f"{change.mean:+.4f}{reach}", change.verdict]
    return [*cells, " ".join(map(str, row.seeds)) or "-"]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + (f" ± {spread.std:.4f}" if spread.std is not None else "")


def _escape(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
