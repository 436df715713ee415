"""Report of a comparison: tables in Markdown, LaTeX and CSV, and a plot."""

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
    """Return the table in Markdown, with a line for each note below it."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in _cells(row)) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    """Return the table as a LaTeX tabular that needs no package."""
    lines = [r"\begin{tabular}{l" + "r" * (len(_HEADINGS) - 3) + "ll}", r"\hline"]
    lines += [" & ".join(map(_escape, _HEADINGS)) + r" \\", r"\hline"]
    lines += [" & ".join(map(_escape, _cells(row))) + r" \\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Return all numbers in full precision as CSV, a line a row; cells without a value are empty."""
    file = io.StringIO()
    names = "block parameters gflops milliseconds time_ratio map50_mean map50_std map50_95_mean map50_95_std"
    names += " difference_mean difference_low difference_high verdict seeds"
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names.split())
    for row in rows:
        cost, difference = row.cost, row.difference
        writer.writerow(
            [
                row.label,
                *((cost.parameters, cost.gflops, cost.milliseconds, cost.ratio) if cost else [""] * 4),
                *((row.map50.mean, row.map50.std) if row.map50 else [""] * 2),
                *((row.map50_95.mean, row.map50_95.std) if row.map50_95 else [""] * 2),
                difference.mean if difference else "",
                *(difference.interval if difference and difference.interval else [""] * 2),
                difference.verdict if difference else "",
                " ".join(map(str, row.seeds)),
            ]
        )
    return file.getvalue()


def draw_comparison(rows: Sequence[Row], path: Path) -> None:
    """Plot mAP50 of each run by block as a PNG; the band is the first block's mean ± standard deviation.

    Nothing is written if no row has runs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    shown = [(row.label, row.map50, row.points) for row in rows if row.map50 is not None and row.points]
    if not shown:
        return
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(shown)), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (_, map50, points) in enumerate(shown):
        axes.scatter([place] * len(points), list(points.values()), color="tab:blue", s=22, zorder=3)
        axes.hlines(map50.mean, place - 0.25, place + 0.25, color="black", linewidth=2, zorder=2)
    label, first, _ = shown[0]
    if first.std is not None:
        axes.axhspan(first.mean - first.std, first.mean + first.std, color="0.9", zorder=0)
    axes.axhline(first.mean, color="0.6", linewidth=1, zorder=1)
    axes.set_xticks(range(len(shown)), [label.replace(" ", "\n") for label, *_ in shown], fontsize=9)
    axes.set_ylabel("mAP50")
    axes.set_title(f"Dots: runs; bars: means; gray: {label} ± one standard deviation", fontsize=10)
    axes.margins(x=0.1, y=0.15)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format="png")


def _cells(row: Row) -> list[str]:
    cost, difference = row.cost, row.difference
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
    if difference is None:
        cells += ["-", "-"]
    else:
        low_high = difference.interval
        interval = f" [{low_high[0]:+.4f}, {low_high[1]:+.4f}]" if low_high else ""
        cells += [f"{difference.mean:+.4f}{interval}", difference.verdict]
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
