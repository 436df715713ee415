"""Report of a comparison: tables in Markdown, LaTeX and CSV, and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from utils.cli.files import atomic_write
from utils.compare.results import Row, mean_and_deviation

_COST_HEADINGS = ("parameters", "GFLOPs", "CPU ms", "time ratio")
_HEADINGS = ("block", *_COST_HEADINGS, "mAP50", "mAP50-95", "mAP50 to none [95 %]", "verdict", "seeds")
_COLUMNS = (
    "block parameters gflops milliseconds time_ratio map50_mean map50_std map50_95_mean map50_95_std "
    "difference_mean difference_low difference_high verdict seeds"
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
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS.split())
    for row in rows:
        cost, difference = row.cost, row.difference
        writer.writerow(
            [
                row.label,
                *(astuple(cost) if cost else [None] * 4),
                *(mean_and_deviation([run.map50 for run in row.runs]) if row.runs else [None] * 2),
                *(mean_and_deviation([run.map50_95 for run in row.runs]) if row.runs else [None] * 2),
                difference.mean if difference else None,
                *(difference.interval if difference and difference.interval else [None] * 2),
                difference.verdict if difference else None,
                " ".join(str(run.seed) for run in row.runs),
            ]
        )
    return file.getvalue()


def draw_comparison(rows: Sequence[Row], path: Path) -> None:
    """Plot mAP50 of each run by block as a PNG; the band is the first block's mean ± standard deviation.

    Nothing is written if no row has runs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    shown = {row.label: [run.map50 for run in row.runs] for row in rows if row.runs}
    if not shown:
        return
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(shown)), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, values in enumerate(shown.values()):
        axes.scatter([place] * len(values), values, color="tab:blue", s=22, zorder=3)
        mean, _ = mean_and_deviation(values)
        axes.hlines(mean, place - 0.25, place + 0.25, color="black", linewidth=2, zorder=2)
    label, first = next(iter(shown.items()))
    mean, deviation = mean_and_deviation(first)
    if deviation is not None:
        axes.axhspan(mean - deviation, mean + deviation, color="0.9", zorder=0)
    axes.axhline(mean, color="0.6", linewidth=1, zorder=1)
    axes.set_xticks(range(len(shown)), [label.replace(" ", "\n") for label in shown], fontsize=9)
    axes.set_ylabel("mAP50")
    axes.set_title(f"Dots: runs; bars: means; gray: {label} ± one standard deviation", fontsize=10)
    axes.margins(x=0.1, y=0.15)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format="png")


def _cells(row: Row) -> list[str]:
    cells, difference = [row.label, *["-"] * 9], row.difference
    if cost := row.cost:
        cells[1:5] = f"{cost.parameters:,} {cost.gflops:.3f} {cost.milliseconds:.1f} {cost.ratio:.2f}".split()
    if row.runs:
        cells[5] = _spread([run.map50 for run in row.runs])
        cells[6] = _spread([run.map50_95 for run in row.runs])
        cells[9] = " ".join(str(run.seed) for run in row.runs)
    if difference is not None:
        interval = " [{:+.4f}, {:+.4f}]".format(*difference.interval) if difference.interval else ""
        cells[7:9] = f"{difference.mean:+.4f}{interval}", difference.verdict
    return cells


def _spread(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def _escape(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
