"""Runs of train.py and evaluate.py in processes of their own, as a user would start them."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nets.attention import same_attention
from nets.config import ModelConfig
from utils.cli.compare_config import EVALUATION_SETTINGS, CompareConfig
from utils.cli.console import log
from utils.cli.errors import Interrupted, UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.files import read_yaml
from utils.cli.parser import as_arguments, as_plain
from utils.compare.cost import Cost
from utils.compare.differences import FEWEST_SEEDS
from utils.compare.grid import GridRun
from utils.compare.report_files import describe_noise, write_tables
from utils.compare.results import (
    Row,
    RunResult,
    build_rows,
    group_runs,
    read_finished,
    read_progress,
    read_run,
)
from utils.weights.load import confirm_phi

_SCRIPTS = Path(__file__).resolve().parents[2]
_SIGHUP = 1  # Windows has no name for it
_REPORT = "report"  # the folder in a run's that holds its evaluation on --split
_RERUN = "fix it and rerun the same command"


def train_grid(
    config: CompareConfig,
    settings: Mapping[str, Any],
    runs: Sequence[GridRun],
    costs: Mapping[str, Cost],
    notes: Sequence[str],
    folder: Path,
) -> list[Row]:
    """Train what is not trained yet; the tables are written anew after every run.

    Args:
        config: the comparison's settings.
        settings: what was given for the training runs, by field of `TrainConfig`.
        runs: the grid.
        costs: by kind of run.
        notes: lines below the table.
        folder: for the tables.

    Raises:
        UserError: a run failed; its own error is printed above.
    """
    results: list[RunResult] = []
    for number, run in enumerate(runs, start=1):
        if run.epochs_left() > 0:
            title, failure = f"run {number} of {len(runs)}", f"{run.folder}: this run failed; {_RERUN}"
            _call("train.py", run.arguments(), title, failure)
        results.append(_read_result(config, settings, run.folder, run.phi))
        groups = group_runs(results)
        kinds = {label: runs[results.index(found[0])].kind for label, found in groups.items()}
        rows = build_rows(groups, {label: costs[kind] for label, kind in kinds.items()})
        write_tables(rows, [*notes, f"{number} of {len(runs)} runs done"], folder)
        if number == FEWEST_SEEDS * len(groups):  # all blocks have so many
            log("; ".join(describe_noise(rows)))
    return rows


def read_runs(
    config: CompareConfig, settings: Mapping[str, Any]
) -> tuple[dict[str, list[RunResult]], dict[str, ModelConfig]]:
    """Return results and networks of the finished runs of --from, by label; they are evaluated on --split.

    Raises:
        UserError: a run is not finished, or its weights cannot be read.
    """
    folders, networks = [*map(Path, config.runs or ())], []
    for folder in folders:
        read_finished(folder)  # all are checked before the first is evaluated
        last = folder / "weights" / "last.pth"
        network = read_progress(last).network
        assert network is not None  # compare.py has looked for the file
        own = [spec for spec in config.phi if same_attention(spec, network.phi)]
        networks.append(replace(network, phi=confirm_phi(last, network.phi, own[0] if own else None)))
    results = [
        _read_result(config, settings, folder, network.phi)
        for folder, network in zip(folders, networks, strict=True)
    ]
    groups = group_runs(results)
    return groups, {label: networks[results.index(runs[0])] for label, runs in groups.items()}


def _read_result(config: CompareConfig, settings: Mapping[str, Any], folder: Path, phi: str) -> RunResult:
    """Read the result of a run, on --split of its last (EMA) weights, which are evaluated if necessary."""
    if not config.split:
        return read_run(folder)
    weights, metrics = folder / "weights" / "last.pth", folder / _REPORT / "metrics.json"
    stored = read_yaml(folder / "args.yaml")
    values = {name: settings.get(name, stored.get(name)) for name in EVALUATION_SETTINGS}
    values |= {"weights": str(weights), "split": config.split, "batch_size": stored["batch_size"]}
    if metrics.exists() and metrics.stat().st_mtime > weights.stat().st_mtime:
        done = read_yaml(folder / _REPORT / "args.yaml")
        if all(done[name] == as_plain(value) for name, value in values.items() if name != "device"):
            return read_run(folder, _REPORT)
    values |= {"project": str(folder), "name": _REPORT, "exist_ok": True, "phi": phi if ":" in phi else None}
    _call("evaluate.py", as_arguments(EvaluateConfig, values), "report", f"{folder}: not evaluated; {_RERUN}")
    return read_run(folder, _REPORT)


def _call(script: str, arguments: Sequence[str], title: str, failure: str) -> None:
    """Run a script to its end; if a signal stops this command, the script has time to save."""
    log(f"{title}: python {script} {shlex.join(arguments)}")
    with subprocess.Popen([sys.executable, str(_SCRIPTS / script), *arguments], stdout=sys.stderr) as process:
        try:
            status = process.wait()
        except Interrupted as stop:
            if stop.number == signal.SIGTERM:  # a terminal sends its signals to both
                process.terminate()
            process.wait()
            raise
    if status - 128 in (signal.SIGINT, signal.SIGTERM, _SIGHUP):
        raise Interrupted(status - 128)
    if status != 0:
        raise UserError(failure, exit_code=1)
