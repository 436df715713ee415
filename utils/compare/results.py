"""Results of the runs of a comparison, grouped by what sets them apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from nets.attention import short_name
from nets.config import ModelConfig
from utils.cli.compare_config import FREE, NOT_PASSED_ON
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import read_csv, read_yaml
from utils.cli.parser import as_plain
from utils.cli.presets import read_recipe
from utils.cli.shared_config import DataConfig
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.compare.cost import Cost
from utils.compare.differences import Comparison, correct_for_several, difference, interval_over_images
from utils.training.fingerprint import describe_difference
from utils.weights.checkpoint import load_checkpoint

# Settings that may differ between runs of one group.
_INCIDENTAL = (NOT_PASSED_ON | FREE) - {"preset"}
_OF_DATA = {"train", "val", "overfit", *(field.name for field in fields(DataConfig))}
_OF_ATTENTION = {"phi_at", "insert", "partial"}
_RESOLVED = {"lr", "ema_memory"}  # by train.py, if neither the recipe nor the user sets them
_DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}


@dataclass(frozen=True)
class RunResult:
    """Result of one run."""

    phi: str  # its attention block
    seed: int
    settings: dict[str, Any]  # its other settings that may set it apart, by name
    map50: float = math.nan  # mAP at IoU 0.5 of the last epoch's (EMA) weights
    map50_95: float = math.nan  # mAP over IoU 0.5 to 0.95
    draws: tuple[float | None, ...] = ()  # mAP50 in draws of the images, if it was evaluated on a split
    seconds: float = 0.0  # duration of its epochs; 0 if results.csv does not say
    folder: Path = Path()
    data: Mapping[str, Any] | None = None  # fingerprint of its training data; None in older checkpoints
    evaluated: str = ""  # hash of the annotations that it was evaluated on, if on a split


@dataclass(frozen=True)
class Progress:
    """What a comparison needs from a run's last.pth."""

    network: ModelConfig | None = None  # None without the file
    epoch: int | None = None  # epochs done
    stopped_early: bool = False  # by --patience
    data: Mapping[str, Any] | None = None  # fingerprint of its training data; None in older checkpoints


@dataclass(frozen=True)
class Row:
    """Row of the table."""

    label: str  # the block, and the settings that set it apart
    cost: Cost | None  # None if not measured
    runs: Sequence[RunResult] = ()  # the results, by rising seed
    comparison: Comparison | None = None  # with the runs without attention; None for those, or without them


def read_progress(last: Path) -> Progress:
    """Return how far a run is by its last.pth, which is not read again until it changes."""
    return _read_progress(last, last.stat().st_mtime_ns) if last.exists() else Progress()


@cache
def _read_progress(last: Path, _mtime: int) -> Progress:
    saved = load_checkpoint(last)
    state = saved.training
    return Progress(saved.config, state.get("epoch"), state.get("stopped_early", False), state.get("data"))


def read_finished(folder: Path) -> RunResult:
    """Read the settings of a finished run, without its metrics.

    Raises:
        UserError: it is no run folder, or the run is not finished (nor ended by --patience).
    """
    checkpoint = folder / "weights" / "last.pth"
    saved = read_progress(checkpoint)
    try:
        settings = read_yaml(folder / "args.yaml")
        # A run that was stopped in its first epoch has no results.csv.
        rows = [{"epoch": "0"}] if saved.epoch == 0 else read_csv(folder / "results.csv")
        seconds = sum(float(row.get("seconds") or 0) for row in rows)
        phi, seed = settings["phi"], settings["seed"]
        epochs, done = int(settings["epochs"]), int(rows[-1]["epoch"]) if rows else 0
    except (UserError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: not the folder of a training run: {error}") from None
    if done < epochs and not saved.stopped_early:
        count = f"{done} of {plural(epochs, 'epoch')} done"
        raise UserError(f"{folder}: not finished: {count}; resume it: python train.py --resume {checkpoint}")
    dropped = _INCIDENTAL | (_OF_ATTENTION if phi == "none" else set())
    kept = {name: value for name, value in settings.items() if name not in dropped}
    return RunResult(phi, seed, kept, seconds=seconds, folder=folder, data=saved.data)


def read_run(folder: Path, report: str | None = None) -> RunResult:
    """Read the result of a finished run.

    Args:
        folder: its run folder.
        report: the folder in it with the metrics.json to read; None reads the last row of results.csv.

    Raises:
        UserError: as `read_finished`, or its last epoch was not evaluated.
    """
    run, evaluated = read_finished(folder), ""
    if report is None:
        metrics: dict[str, Any] = read_csv(folder / "results.csv")[-1]
    else:
        metrics = json.loads((folder / report / "metrics.json").read_text(encoding="utf-8"))
        truth = folder / report / "ground_truth.json"
        evaluated = hashlib.sha256(truth.read_bytes()).hexdigest() if truth.exists() else ""
    try:
        map50, map50_95 = float(metrics["map50"]), float(metrics["map50_95"])
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{folder}: has no mAP of its last epoch; evaluate it on a split: --split") from None
    draws = tuple(metrics.get("map50_draws", ()))
    return replace(run, map50=map50, map50_95=map50_95, draws=draws, evaluated=evaluated)


def group_runs(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group runs that differ only in their seed under a label; those without attention come first.

    Raises:
        UserError: two runs of a group have the same seed, or two runs that name the same data have seen
            different ones.
    """
    _check_same_data(results)
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


def _check_same_data(results: Sequence[RunResult]) -> None:
    """Refuse runs whose settings name the same data, but which have seen different ones."""
    for one, other in combinations(results, 2):
        if any(one.settings.get(name) != other.settings.get(name) for name in _OF_DATA):
            continue
        if one.data and other.data:
            same_seed = one.seed == other.seed
            if difference := describe_difference(one.data, other.data, same_seed=same_seed):
                raise UserError(
                    f"{other.folder}: was trained on other data than {one.folder}: {difference}; train one "
                    "of them again"
                )
        if one.evaluated and other.evaluated and one.evaluated != other.evaluated:
            raise UserError(
                f"{other.folder}: was evaluated on other data than {one.folder}; remove the folder report in "
                "both to evaluate them again"
            )


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
        rows.append(Row(label, costs.get(label), by_seed, compare_runs(runs, base)))
    return _correct(rows)


def compare_runs(ours: Sequence[RunResult], base: Sequence[RunResult]) -> Comparison | None:
    """Compare the runs of two blocks over the seeds of both; None if they share no seed."""
    base_of = {run.seed: run for run in base}
    pairs = [(run, base_of[run.seed]) for run in ours if run.seed in base_of]
    if not pairs:
        return None
    map50_95 = difference([(run.map50_95, other.map50_95) for run, other in pairs])
    return Comparison(
        difference([(run.map50, other.map50) for run, other in pairs]),
        map50_95,
        interval_over_images([run.draws for run, _ in pairs], [other.draws for _, other in pairs]),
        map50_95.p_value,
    )


def _correct(rows: Sequence[Row]) -> list[Row]:
    """Correct the p-values for the number of comparisons in the table."""
    known = [row.comparison.p_value for row in rows if row.comparison and row.comparison.p_value is not None]
    corrected = iter(correct_for_several(known))
    return [
        replace(row, comparison=replace(row.comparison, p_value=next(corrected)))
        if row.comparison and row.comparison.p_value is not None
        else row
        for row in rows
    ]


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
