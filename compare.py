"""Compare blocks and recipes over several seeds: python compare.py --data VOCdevkit --phi none se."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.compare_config import CompareConfig, parse_comparison, run_settings
from utils.cli.console import one_line, run_command
from utils.cli.errors import Interrupted, UserError
from utils.cli.files import new_run_folder
from utils.cli.inputs import check_data_folder
from utils.cli.train_config import TrainConfig


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_parse_and_compare, argv)


def _parse_and_compare(argv: list[str]) -> int:
    config, settings = parse_comparison(
        argv,
        description="Train every block with every recipe and seed (a seed sets initial weights, data order "
        "and augmentation) and tabulate cost, mAP and the differences that are more than noise.",
        example="python compare.py --data VOCdevkit --phi none se cbam --seeds 0 1 2 --epochs 20",
    )
    for run in config.runs or ():
        if not (Path(run) / "weights" / "last.pth").is_file():
            raise UserError(f"--from {run}: not the folder of a training run: no weights/last.pth in it")
    if config.no_train and "data" in settings:
        check_data_folder(settings["data"])
    elif not (config.no_train or config.runs):
        for preset in config.preset:
            TrainConfig(**run_settings(preset, settings)).check_inputs()
    return compare(config, settings, f"python compare.py {shlex.join(argv)}")


def compare(config: CompareConfig, settings: dict[str, Any], command: str) -> int:
    """Compare the blocks; everything that needs torch is imported here, after parsing.

    Args:
        config: the settings of the comparison.
        settings: what was given for the training runs, by field of `TrainConfig`.
        command: the command line, for the notes and for resuming.
    """
    from utils.compare.cost import describe_latency, describe_machine, measure_costs
    from utils.compare.grid import check_data, log_estimate, plan_networks, plan_runs, save_grid_settings
    from utils.compare.report_files import STATISTICS_NOTE, draw_comparison, write_tables
    from utils.compare.results import Row, build_rows
    from utils.compare.runner import read_runs, train_grid

    if config.runs:
        groups, networks = read_runs(config, settings)
    else:
        networks, data = plan_networks(config, settings)
    is_grid = not (config.runs or config.no_train)
    folder = new_run_folder(config.project, config.name, exist_ok=is_grid)  # a grid is resumed
    save_grid_settings(folder, config, settings)
    costs, aa_ratio = measure_costs(networks)
    notes = [
        f"`{command}`",
        *describe_machine(),
        describe_latency(aa_ratio),
        STATISTICS_NOTE,
    ]
    if config.runs:
        rows = build_rows(groups, costs)
    elif config.no_train or data is None:
        rows = [Row(label, cost) for label, cost in costs.items()]
    else:
        runs = plan_runs(config, settings, folder)
        check_data(runs, data)
        log_estimate(runs, networks, len(data.train))
        try:
            rows = train_grid(config, settings, runs, costs, notes, folder)
        except Interrupted as stop:
            stop.message = f"to resume rerun the same command: {command}"
            raise
    write_tables(rows, notes, folder)
    draw_comparison(rows, folder / "comparison.png")
    print((folder / "table.md").read_text(encoding="utf-8").rstrip())
    print(one_line(f"table.md, table.csv, table.tex: {folder}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
