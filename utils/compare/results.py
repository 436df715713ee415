"""Results of the runs of a comparison, and statistics: which differences are more than noise."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from scipy.special import stdtrit  # quantiles of Student's t; scipy.stats takes seconds to import

from nets.attention import short_name
from utils.cli.compare_config import FREE, NOT_PASSED_ON
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.parser import as_plain
from utils.cli.presets import read_recipe
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.compare.cost import Cost
from utils.weights.checkpoint import load_checkpoint

CONFIDENCE = 0.95
# Settings that may differ between runs of one group.
_INCIDENTAL = (NOT_PASSED_ON | FREE) - {"preset"}
_OF_ATTENTION = {"phi_at", "insert", "partial"}
_RESOLVED = {"lr", "ema_memory"}  # by train.py, if neither the recipe nor the user sets them
_DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}


@dataclass(frozen=True)
class RunResult:
    """Result of one run.

    Attributes:
        phi: its attention block.
        seed: its seed.
        settings: its other settings that may set it apart, by name.
        map50: mAP at IoU 0.5 of the last epoch's (EMA) weights.
        map50_95: mAP over IoU 0.5 to 0.95.
    """

    phi: str
    seed: int
    settings: dict[str, Any]
    map50: float
    map50_95: float


@dataclass(frozen=True)
class Difference:
    """Mean of the differences of runs with one seed, and its 95 % interval (Student's t; None for one)."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """Whether the difference is more than noise."""
        if self.interval is None:
            return "one seed: noise unknown"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "within noise"


@dataclass(frozen=True)
class Row:
    """Row of the table.

    Attributes:
        label: the block, and the settings that set it apart.
        cost: None if not measured.
        runs: the results, by rising seed.
        difference: of mAP50 to the runs without attention, paired by seed; None for those, or without them.
    """

    label: str
    cost: Cost | None
    runs: Sequence[RunResult] = ()
    difference: Difference | None = None


def read_run(folder: Path, report: str | None = None) -> RunResult:
    """Read the result of a finished run.

    Args:
        folder: its run folder.
        report: the folder in it with the metrics.json to read; None reads the last row of results.csv.

    Raises:
        UserError: it is no run folder, the run is not finished (nor ended by --patience), or its last epoch
            was not evaluated.
    """
    try:
        settings = yaml.safe_load((folder / "args.yaml").read_text(encoding="utf-8"))
        with open(folder / "results.csv", newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
        epochs, done = settings["epochs"], int(last["epoch"])
    except (OSError, yaml.YAMLError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: not the folder of a training run: {error}") from None
    checkpoint = folder / "weights" / "last.pth"
    if done < epochs and not (checkpoint.exists() and load_checkpoint(checkpoint).training["stopped_early"]):
        raise UserError(f"{folder}: not finished: {done} of {plural(epochs, 'epoch')} done")
    metrics = last
    if report is not None:
        metrics = json.loads((folder / report / "metrics.json").read_text(encoding="utf-8"))
    try:
        map50, map50_95 = float(metrics["map50"]), float(metrics["map50_95"])
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{folder}: has no mAP of its last epoch; evaluate it on a split: --split") from None
    dropped = _INCIDENTAL | (_OF_ATTENTION if settings["phi"] == "none" else set())
    kept = {name: value for name, value in settings.items() if name not in dropped}
    return RunResult(settings["phi"], settings["seed"], kept, map50, map50_95)


def group_runs(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group runs that differ only in their seed under a label; those without attention come first.

    Raises:
        UserError: two runs of a group have the same seed.
    """
    values_of: dict[str, list[Any]] = {}
    for result in results:
        for name, value in result.settings.items():
            values_of.setdefault(name, []).append(value)
    varying = [name for name, values in values_of.items() if any(value != values[0] for value in values)]
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        expected = _DEFAULTS | _recipe(result.settings)
        same_recipe = [r for r in results if r.settings.get("preset") == result.settings.get("preset")]
        differences = [
            f"{name}={_shown(result.settings[name])}"
            for name in varying
            if name in result.settings and result.settings[name] != as_plain(expected.get(name))
            if name not in _RESOLVED
            or any(r.settings.get(name) != result.settings[name] for r in same_recipe)
        ]
        group = groups.setdefault(" ".join([short_name(result.phi), *differences]), [])
        if any(result.seed == other.seed for other in group):
            raise UserError(f"two runs of {result.phi} have the seed {result.seed}; name each run once")
        group.append(result)
    return dict(sorted(groups.items(), key=lambda item: item[1][0].phi != "none"))


def build_rows(groups: Mapping[str, Sequence[RunResult]], costs: Mapping[str, Cost]) -> list[Row]:
    """Summarize the runs of each label.

    Differences are to the runs without attention and with the same settings. Those of runs without attention
    and with another recipe are to the default recipe.
    """
    plain = {label: runs[0].settings for label, runs in groups.items() if runs[0].phi == "none"}
    usual = {
        label for label, settings in plain.items() if settings.get("preset", DEFAULT_PRESET) == DEFAULT_PRESET
    }
    rows = []
    for label, runs in groups.items():
        ours = runs[0].settings
        is_other_recipe = label in plain and label not in usual
        left = _OF_ATTENTION | ({"preset", *_recipe(ours), *_RESOLVED} if is_other_recipe else set())
        alike = [
            other
            for other in (usual if is_other_recipe else plain)
            if other != label and _without(left, plain[other]) == _without(left, ours)
        ]
        base = groups[alike[0]] if len(alike) == 1 else ()
        by_seed = sorted(runs, key=lambda run: run.seed)
        rows.append(Row(label, costs.get(label), by_seed, paired_difference(runs, base)))
    return rows


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; the latter is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_difference(ours: Sequence[RunResult], base: Sequence[RunResult]) -> Difference | None:
    """Compare the mAP50 of two blocks over the seeds of both; None if they share no seed."""
    map50_of = {run.seed: run.map50 for run in base}
    differences = [run.map50 - map50_of[run.seed] for run in ours if run.seed in map50_of]
    if not differences:
        return None
    mean, deviation = mean_and_deviation(differences)
    if deviation is None:
        return Difference(mean, None)
    count = len(differences)
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / count**0.5
    return Difference(mean, (mean - reach, mean + reach))


def _recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run's recipe; none if it does not exist any more."""
    try:
        return read_recipe(settings.get("preset", DEFAULT_PRESET))
    except UserError:
        return {}


def _without(names: Collection[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
