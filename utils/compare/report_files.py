"""Report of a comparison: tables in Markdown, LaTeX and CSV, and a plot."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from matplotlib.figure import Figure

from utils.cli.console import plural
from utils.cli.files import atomic_write
from utils.compare.differences import (
    FEWEST_SEEDS,
    Difference,
    Interval,
    mean_and_deviation,
    seeds_needed,
    smallest_visible,
)
from utils.compare.results import Row
from utils.training.run_log import format_duration
from utils.vision.plots.figure import save_figure

STATISTICS_NOTE = (
    "± is the standard deviation over seeds; differences to none are means over seeds, paired by seed, with "
    "95 % intervals by Student's t; [images] is that of the mAP50 difference over draws of the images, "
    "for these networks; the verdict is on mAP50-95 at 5 %, corrected for several blocks (Holm)"
)
_VISIBLE = 0.01  # a difference that people ask for
_HEADINGS = (
    *("block", "parameters", "GFLOPs", "CPU ms", "time ratio", "mAP50", "mAP50-95"),
    *("mAP50 to none [seeds]", "mAP50 to none [images]", "mAP50-95 to none [seeds]", "verdict", "seeds"),
)
_COLUMNS = (
    "block parameters gflops milliseconds time_ratio map50_mean map50_std map50_95_mean map50_95_std "
    "map50_difference map50_difference_low map50_difference_high map50_images_low map50_images_high "
    "map50_95_difference map50_95_difference_low map50_95_difference_high p_value verdict seeds"
)


def write_tables(rows: Sequence[Row], notes: Sequence[str], folder: Path) -> None:
    """Write table.md with the notes, table.csv and table.tex."""
    texts = {
        "table.md": as_markdown(rows, [*notes, *describe_noise(rows)]),
        "table.csv": as_csv(rows),
        "table.tex": as_latex(rows),
    }
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)


def describe_noise(rows: Sequence[Row]) -> list[str]:
    """Say which difference the seeds can show, and what one of 0.01 takes; nothing below three seeds."""
    found = [row.comparison.map50_95 for row in rows if row.comparison]
    known = [(one.deviation, one.seeds) for one in found if one.deviation and one.seeds >= FEWEST_SEEDS]
    if not known:
        return []
    deviation = statistics.fmean(one**2 for one, _ in known) ** 0.5
    seeds = min(count for _, count in known)
    visible = smallest_visible(deviation, seeds)
    text = (
        f"differences of mAP50-95 between two runs of one seed scatter by {deviation:.4f}: {seeds} seeds "
        f"show a true difference of {visible:.4f} four times in five"
    )
    needed = seeds_needed(deviation, _VISIBLE)
    if visible <= _VISIBLE or needed is None:
        return [text]
    more = (needed - seeds) * sum(bool(row.runs) for row in rows)
    seconds = more * statistics.fmean(run.seconds for row in rows for run in row.runs)
    takes = f"{plural(more, 'more run')}, about {format_duration(seconds)}"
    return [f"{text}; one of {_VISIBLE} takes {needed} seeds ({takes} of training)"]


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
        cost, compared = row.cost, row.comparison
        writer.writerow(
            [
                row.label,
                *(astuple(cost) if cost else [None] * 4),
                *(mean_and_deviation([run.map50 for run in row.runs]) if row.runs else [None] * 2),
                *(mean_and_deviation([run.map50_95 for run in row.runs]) if row.runs else [None] * 2),
                *(
                    [*_numbers(compared.map50), *(compared.over_images or (None, None))]
                    if compared
                    else [None] * 5
                ),
                *(_numbers(compared.map50_95) if compared else [None] * 3),
                compared.p_value if compared else None,
                compared.verdict if compared else None,
                " ".join(str(run.seed) for run in row.runs),
            ]
        )
    return file.getvalue()


def draw_comparison(rows: Sequence[Row], path: Path) -> None:
    """Plot mAP50-95 of each run by block as a PNG; the band is the first block's mean ± standard deviation.

    Nothing is written if no row has runs.
    """
    shown = {row.label: [run.map50_95 for run in row.runs] for row in rows if row.runs}
    if not shown:
        return
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(shown)), 4.0), layout="constrained")
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
    axes.set_ylabel("mAP50-95")
    axes.set_title(f"Dots: runs; bars: means; gray: {label} ± one standard deviation", fontsize=10)
    axes.margins(x=0.1, y=0.15)
    save_figure(figure, path, dpi=150)


def _cells(row: Row) -> list[str]:
    cells, compared = [row.label, *["-"] * (len(_HEADINGS) - 1)], row.comparison
    if cost := row.cost:
        cells[1:5] = f"{cost.parameters:,} {cost.gflops:.3f} {cost.milliseconds:.1f} {cost.ratio:.2f}".split()
    if row.runs:
        cells[5] = _spread([run.map50 for run in row.runs])
        cells[6] = _spread([run.map50_95 for run in row.runs])
        cells[11] = " ".join(str(run.seed) for run in row.runs)
    if compared:
        cells[7], cells[9] = _change(compared.map50), _change(compared.map50_95)
        cells[8] = _limits(compared.over_images) or "-"
        cells[10] = compared.verdict
    return cells


def _numbers(difference: Difference) -> tuple[float | None, ...]:
    return difference.mean, *(difference.interval or (None, None))


def _change(difference: Difference) -> str:
    return f"{difference.mean:+.4f} {_limits(difference.interval)}".rstrip()


def _limits(interval: Interval | None) -> str:
    return "[{:+.4f}, {:+.4f}]".format(*interval) if interval else ""


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
