"""Mean AP of the classes with enough ground truth, a row for each metrics.json of evaluate.py.

    python benchmarks/frequent_classes.py runs/evaluate/exp/metrics.json runs/train/*/metrics.json

`--as-in METRICS_JSON` takes the frequent classes of another split.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIGURES = ("voc_ap50_area", "ap50", "ap50_95")


def frequent_classes(metrics: dict[str, Any], at_least: int) -> list[str]:
    """Return the names of the classes with at least so many ground truths."""
    least = max(at_least, 1)
    return [name for name, entry in metrics["per_class"].items() if entry["ground_truths"] >= least]


def mean_of(metrics: dict[str, Any], figure: str, names: Sequence[str]) -> float:
    """Return the mean of a metric over the classes that have ground truth.

    Raises:
        ValueError: no class has any.
    """
    entries = [metrics["per_class"][name] for name in names]
    values = [entry[figure] for entry in entries if entry["ground_truths"] > 0]
    if not values:
        raise ValueError(f"no ground truth of {', '.join(names) or 'so frequent a class'}")
    return float(sum(values) / len(values))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="+", type=Path, help="metrics.json, as evaluate.py writes it")
    parser.add_argument("--at-least", type=int, default=10, help="ground truths of a frequent class")
    parser.add_argument("--as-in", type=Path, help="use the frequent classes of this metrics.json")
    args = parser.parse_args(argv)
    fixed = frequent_classes(_read(args.as_in), args.at_least) if args.as_in else None
    print("| | classes | VOC AP50 area, all | these | AP50 | AP50-95 |")
    print("|---|---|---|---|---|---|")
    for path in args.metrics:
        metrics = _read(path)
        names = frequent_classes(metrics, args.at_least) if fixed is None else fixed
        shown = " | ".join(f"{mean_of(metrics, figure, names):.4f}" for figure in FIGURES)
        print(f"| {path} | {len(names)} | {metrics['voc_ap50_area']:.4f} | {shown} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
