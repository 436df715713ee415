"""Calls of train.py and evaluate.py, each in its own process: a run is the one that a user would start."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from utils.cli.compare_config import EVALUATION_SETTINGS
from utils.cli.console import log
from utils.cli.errors import Interrupted, UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.parser import as_arguments, as_plain
from utils.compare.grid import GridRun

_SCRIPTS = Path(__file__).resolve().parents[2]
_SIGHUP = 1  # Windows has no name for it
_REPORT = "report"  # the folder in a run's that holds its evaluation on --split
_GO_ON = "mend it and type the same command to go on"


def train(run: GridRun, title: str) -> None:
    """Train a run of the grid, or what is left of it.

    Raises:
        UserError: it failed; its own error stands above.
    """
    if run.epochs_left() > 0:
        _call("train.py", run.arguments(), title, f"{run.folder}: this run failed; {_GO_ON}")


def measure(folder: Path, phi: str, split: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Evaluate a run's last (EMA) weights on a split, unless that is done.

    Args:
        folder: the run's folder.
        phi: its attention block.
        split: lists to measure on.
        settings: what was given for training, by field of `TrainConfig`; the rest is the run's own.

    Returns:
        The folder in the run's that holds metrics.json.

    Raises:
        UserError: it failed; its own error stands above.
    """
    weights, metrics = folder / "weights" / "last.pth", folder / _REPORT / "metrics.json"
    stored = yaml.safe_load((folder / "args.yaml").read_text(encoding="utf-8"))
    told = {name: settings.get(name, stored.get(name)) for name in EVALUATION_SETTINGS}
    told |= {"weights": str(weights), "split": tuple(split), "batch_size": stored["batch_size"]}
    if metrics.exists() and metrics.stat().st_mtime > weights.stat().st_mtime:
        measured = yaml.safe_load((folder / _REPORT / "args.yaml").read_text(encoding="utf-8"))
        if all(measured[name] == as_plain(value) for name, value in told.items() if name != "device"):
            return _REPORT
    told |= {"project": str(folder), "name": _REPORT, "exist_ok": True, "phi": phi if ":" in phi else None}
    _call("evaluate.py", as_arguments(EvaluateConfig, told), "report", f"{folder}: not evaluated; {_GO_ON}")
    return _REPORT


def _call(script: str, arguments: Sequence[str], title: str, failure: str) -> None:
    """Run a script to its end; when a signal stops this command the script has the time to save."""
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
