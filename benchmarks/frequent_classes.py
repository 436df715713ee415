"""Mean of the classes that a list holds often enough to be measured: a row a metrics.json of evaluate.py.

python benchmarks/frequent_classes.py runs/evaluate/exp/metrics.json runs/train/*/metrics.json --at-least 10
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

FIGURES = ("voc_ap50_area", "ap50", "ap50_95")


def mean_of(metrics: dict[str, Any], figure: str, at_least: int) -> tuple[float, int]:
    """Return the mean of a figure over the classes with so many ground truths, and their number.

    Raises:
        ValueError: no class has so many.
    """
    classes = [entry for entry in metrics["per_class"].values() if entry["ground_truths"] >= at_least]
    if not classes:
        raise ValueError(f"no class has {at_least} ground truths")
    return sum(entry[figure] for entry in classes) / len(classes), len(classes)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="+", type=Path, help="metrics.json, as evaluate.py writes it")
    parser.add_argument("--at-least", type=int, default=10, help="ground truths of a class that counts")
    args = parser.parse_args(argv)
    print(f"| | classes | VOC AP50 area | those with at least {args.at_least} | AP50 | AP50-95 |")
    print("|---|---|---|---|---|---|")
    for path in args.metrics:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        means = [mean_of(metrics, figure, args.at_least) for figure in FIGURES]
        shown = " | ".join(f"{mean:.4f}" for mean, _ in means)
        print(f"| {path} | {means[0][1]} | {metrics['voc_ap50_area']:.4f} | {shown} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
