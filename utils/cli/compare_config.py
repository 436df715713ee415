"""Settings of compare.py: its own, and those of train.py for every run of the grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.cli.errors import UserError
from utils.cli.parser import check_settings, flag_of, given_settings, setting
from utils.cli.presets import with_preset
from utils.cli.shared_config import phi_name
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig

# Beside --from, for --split.
EVALUATION_SETTINGS = ("data", "rename", "unlabelled", "skip_bad", "skip_unreviewed", "device")
FREE = {"device", "workers"}  # without influence on the results
_MOST_SEEDS = 1000
# Set by the grid, or senseless for several runs.
NOT_PASSED_ON = {"phi", "seed", "preset", "resume", "demo", "project", "name", "exist_ok"}


@dataclass(frozen=True)
class CompareConfig:
    """Settings of compare.py itself; raises a UserError that names the flag of an invalid value."""

    phi: tuple[str, ...] = setting(
        ("none", "se", "cbam", "eca", "ca"),
        "attention blocks to compare: registered names, numbers or path/to/file.py:Class",
        aliases=("--attention",),
        metavar="BLOCK",
    )
    seeds: tuple[str, ...] = setting(
        ("0", "1", "2"), "seeds of the runs of each block, or a range: 0-11", metavar="N"
    )
    preset: tuple[str, ...] = setting(
        (DEFAULT_PRESET,),
        "training recipes of each block, such as default reference",
        metavar="NAME",
        beside_config=False,  # as for train.py
    )
    split: tuple[str, ...] | None = setting(
        None,
        "evaluate the last weights on this split (default: the validation split of the runs)",
        metavar="SPLIT",
    )
    runs: tuple[str, ...] | None = setting(
        None, "tabulate these finished runs instead of training", flag="--from", metavar="RUN"
    )
    no_train: bool = setting(False, "report only parameters, GFLOPs and latency")
    project: str = setting("runs/compare", "parent folder of the comparisons", group="output", metavar="DIR")
    name: str = setting("exp", "name of the comparison's folder; the same name resumes it", group="output")

    def __post_init__(self) -> None:
        check_settings(self)
        names = [str(phi_name(spec)) for spec in self.phi]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise UserError(f"--phi {name}: given twice")
        object.__setattr__(self, "phi", tuple(sorted(names, key=lambda name: name != "none")))  # none first
        seeds = [str(seed) for given in self.seeds for seed in _expand_seeds(given)]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"--seeds {' '.join(self.seeds)}: a seed is given twice")
        object.__setattr__(self, "seeds", tuple(seeds))
        if len(set(self.preset)) < len(self.preset):
            raise UserError(f"--preset {' '.join(self.preset)}: a recipe is given twice")
        if self.runs and self.preset != (DEFAULT_PRESET,):
            raise UserError("--from cannot be combined with --preset: the runs are already trained")
        folders = [folder_name(name) for name in self.phi]
        for folder in folders:
            if folders.count(folder) > 1:
                raise UserError(f"--phi: two blocks share the name {folder}; rename the file or class of one")
        if self.runs and self.no_train:
            raise UserError("--from cannot be combined with --no-train: the runs are already trained")


def _expand_seeds(given: str) -> range:
    """Return the seeds of a number such as 3 or a range such as 0-11."""
    first, dash, last = given.partition("-")
    ends = [first, last] if dash else [first, first]
    is_seed = [end.isdecimal() and len(end) <= 10 and int(end) < 2**32 for end in ends]
    if not all(is_seed) or int(ends[0]) > int(ends[1]):
        raise UserError(f"--seeds {given}: needs whole numbers from 0 to 4294967295, or a range such as 0-11")
    if int(ends[1]) - int(ends[0]) >= _MOST_SEEDS:
        raise UserError(f"--seeds {given}: more than {_MOST_SEEDS} seeds")
    return range(int(ends[0]), int(ends[1]) + 1)


def folder_name(phi: str) -> str:
    """Return a block's name as part of a folder's: 'se', or 'file-Class' for 'path/to/file.py:Class'."""
    source, colon, class_name = phi.replace("\\", "/").rpartition(":")
    return f"{source.rpartition('/')[2].removesuffix('.py')}-{class_name}" if colon else phi


def parse_comparison(
    argv: Sequence[str], *, description: str, example: str
) -> tuple[CompareConfig, dict[str, Any]]:
    """Read compare.py's arguments.

    Returns:
        Its own settings, and what was given for the training runs, by field of `TrainConfig`.

    Raises:
        UserError: bad usage; the message names the flag and the value.
    """
    own = {field.name: field for field in dataclasses.fields(CompareConfig)}
    passed_on = {
        field.name: field for field in dataclasses.fields(TrainConfig) if field.name not in NOT_PASSED_ON
    }
    flags = dataclasses.make_dataclass(
        "CompareFlags",
        [
            (field.name, field.type, dataclasses.field(default=field.default, metadata=field.metadata))
            for field in (own | passed_on).values()
        ],
    )
    given = given_settings(flags, argv, prog="compare.py", description=description, example=example)
    config = CompareConfig(**{name: given.pop(name) for name in own if name in given})
    ignored = [name for name in given if name not in EVALUATION_SETTINGS] if config.runs else []
    if ignored:
        flags_of = ", ".join(flag_of(passed_on[name]) for name in ignored)
        raise UserError(f"--from cannot be combined with {flags_of}: the runs are already trained")
    for preset in config.preset if not config.runs else ():
        for phi in config.phi:
            TrainConfig(**run_settings(preset, given), phi=phi)  # checks the values before the first run
    return config, given


def run_settings(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run by a recipe is told, when this was given for all runs."""
    return with_preset(given if preset == DEFAULT_PRESET else {**given, "preset": preset})
