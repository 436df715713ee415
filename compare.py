"""Compare blocks and recipes over several seeds: python compare.py --data VOCdevkit --phi none se."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from nets.attention import same_attention
from nets.config import ModelConfig
from utils.cli.class_names import read_class_names
from utils.cli.compare_config import CompareConfig, parse_comparison, run_settings
from utils.cli.console import log, one_line, run_command
from utils.cli.errors import Interrupted, UserError
from utils.cli.files import new_run_folder
from utils.cli.train_config import TrainConfig
from utils.compare.cost import Cost, measure_costs
from utils.compare.grid import GridRun, keep_settings, kind_of, plan_runs
from utils.compare.picture import draw_comparison
from utils.compare.report import describe_machine, log_estimate
from utils.compare.results import Row, RunResult, build_rows, group_runs, read_run
from utils.compare.runner import measure, train
from utils.compare.table import write_tables
from utils.data.prepare import prepare_evaluation
from utils.training.attention import check_attention
from utils.training.network import shape_of
from utils.training.setup import load_data
from utils.weights.load import confirm_phi, read_weights

Groups = dict[str, list[RunResult]]  # by label
Networks = dict[str, ModelConfig]  # by label, or a kind of run
VOC_CLASSES = 20


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_compare, argv)


def _compare(argv: list[str]) -> int:
    config, settings = parse_comparison(
        argv,
        description="Train every block by every recipe with every seed (a seed is one start, data order and "
        "augmentation) and tabulate cost, mAP and the differences that are more than noise.",
        example="python compare.py --data VOCdevkit --phi none se cbam --seeds 0 1 2 --epochs 20",
    )
    groups: Groups = {}
    num_images = 0
    if config.runs:
        groups, networks = _read_runs(config, settings)
    else:
        networks, num_images = _plan_networks(config, settings)
    is_grid = not (config.runs or config.no_train)
    folder = new_run_folder(config.project, config.name, exist_ok=is_grid)  # a grid goes on where it stopped
    keep_settings(folder, config, settings)
    different = list(dict.fromkeys(networks.values()))
    costs, same = measure_costs(different)
    cost_of = {name: costs[different.index(network)] for name, network in networks.items()}
    notes = [
        f"`python compare.py {shlex.join(argv)}`",
        *describe_machine(),
        "GFLOPs count a multiply-add as two; CPU ms is the network alone on one image, the median of "
        f"interleaved rounds, in which the first network against itself (A/A) has the ratio {same:.3f}",
        "differences are paired by seed; the interval is Student's t at 95 %",
    ]
    if config.runs:
        rows = build_rows(groups, cost_of)
    elif config.no_train:
        rows = [Row(label, cost) for label, cost in cost_of.items()]
    else:
        runs = plan_runs(config, settings, folder)
        log_estimate(runs, networks, num_images)
        try:
            rows = _train_grid(config, settings, runs, folder, cost_of, notes)
        except Interrupted as stop:
            stop.message = f"to go on type the same again: python compare.py {shlex.join(argv)}"
            raise
    write_tables(rows, notes, folder)
    draw_comparison(rows, folder / "comparison.png")
    print((folder / "table.md").read_text(encoding="utf-8").rstrip())
    print(one_line(f"table.md, table.csv, table.tex: {folder}"))
    return 0


def _plan_networks(config: CompareConfig, settings: dict[str, Any]) -> tuple[Networks, int]:
    """Return the network of each kind of run and the number of training images, once all is checked."""
    runs = [
        TrainConfig(**run_settings(name, settings), phi=phi) for name in config.preset for phi in config.phi
    ]
    for run in runs:
        check_attention(run)
    num_classes, num_images = VOC_CLASSES, 0
    if not config.no_train or "data" in settings:
        data = load_data(runs[0])
        num_classes, num_images = len(data.train.class_names), len(data.train)
        if config.split and not config.no_train:
            prepare_evaluation(runs[0].data, splits=config.split, **runs[0].reading())
        elif data.val is None and not config.no_train:
            raise UserError("--val none: leaves nothing to compare by; name a list to measure on: --split")
    elif runs[0].classes:
        num_classes = len(read_class_names(runs[0].classes))
    else:
        log(f"parameters for {num_classes} classes; --data or --classes gives another number")
    networks = {kind_of(run.phi, run.preset): shape_of(run, num_classes) for run in runs}
    return networks, num_images


def _read_runs(config: CompareConfig, settings: dict[str, Any]) -> tuple[Groups, Networks]:
    """Return the results of finished runs, and the networks behind them."""
    results, networks = [], []
    for run in map(Path, config.runs or ()):
        if not (run / "weights" / "last.pth").is_file():
            raise UserError(f"--from {run}: not the folder of a training run: no weights/last.pth in it")
        file = read_weights(str(run / "weights" / "last.pth"))
        own = [spec for spec in config.phi if same_attention(spec, file.config.phi)]
        phi = confirm_phi(file, own[0] if own else None)
        report = measure(run, phi, config.split, settings) if config.split else None
        results.append(read_run(run, report))
        networks.append(dataclasses.replace(file.config, phi=phi))
    groups = group_runs(results)
    return groups, {label: networks[results.index(runs[0])] for label, runs in groups.items()}


def _train_grid(
    config: CompareConfig,
    settings: dict[str, Any],
    runs: list[GridRun],
    folder: Path,
    costs: dict[str, Cost],
    notes: list[str],
) -> list[Row]:
    """Train what is not trained yet; the table is written anew after every run."""
    results: list[RunResult] = []
    for number, run in enumerate(runs, start=1):
        train(run, f"run {number} of {len(runs)}")
        report = measure(run.folder, run.phi, config.split, settings) if config.split else None
        results.append(read_run(run.folder, report))
        groups = group_runs(results)
        kinds = {label: runs[results.index(found[0])].kind for label, found in groups.items()}
        rows = build_rows(groups, {label: costs[kind] for label, kind in kinds.items()})
        write_tables(rows, [*notes, f"{number} of {len(runs)} runs are done"], folder)
    return rows


if __name__ == "__main__":
    sys.exit(main())
