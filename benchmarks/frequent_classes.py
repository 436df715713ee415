"""Mean AP of the classes with enough ground truth, a row for each metrics.json of evaluate.py.

    python benchmarks/frequent_classes.py runs/evaluate/exp/metrics.json runs/train/*/metrics.json

`--as-in METRICS_JSON` takes the frequent classes of another split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

FIGURES = ("voc_ap50_area", "ap50", "ap50_95")


def frequent_classes(path: Path, at_least: int) -> list[str]:
    """Return the names of the classes with at least so many ground truths, and at least one."""
    classes = json.loads(path.read_text(encoding="utf-8"))["per_class"]
    return [name for name, entry in classes.items() if entry["ground_truths"] >= max(at_least, 1)]


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="+", type=Path, help="metrics.json, as evaluate.py writes it")
    parser.add_argument("--at-least", type=int, default=10, help="ground truths of a frequent class")
    parser.add_argument("--as-in", type=Path, help="use the frequent classes of this metrics.json")
    args = parser.parse_args(argv)
    print("| | classes | VOC AP50 area, all | these | AP50 | AP50-95 |\n|---|---|---|---|---|---|")
    for path in args.metrics:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        names = frequent_classes(args.as_in or path, args.at_least)
        entries = [metrics["per_class"][name] for name in names]
        entries = [entry for entry in entries if entry["ground_truths"] > 0]
        means = (statistics.fmean(entry[figure] for entry in entries) for figure in FIGURES)
        shown = " | ".join(f"{mean:.4f}" for mean in means)
        print(f"| {path} | {len(names)} | {metrics['voc_ap50_area']:.4f} | {shown} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
