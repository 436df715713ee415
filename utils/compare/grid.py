"""The runs of a comparison, one a block, recipe and seed: calls of train.py, restarted where they stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nets.attention import short_name
from utils.cli.compare_config import FREE, NOT_PASSED_ON, CompareConfig, folder_name, run_settings
from utils.cli.errors import UserError
from utils.cli.parser import as_arguments, as_plain, config_as_dict, save_settings
from utils.cli.presets import read_recipe
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.weights.checkpoint import load_checkpoint

# From call to call of one comparison.
_MAY_CHANGE = FREE | {"phi", "seeds", "split", "project", "name"}


@dataclass(frozen=True, eq=False)
class GridRun:
    """One training run of a comparison.

    Attributes:
        phi: its attention block.
        seed: its seed.
        folder: its run folder.
        settings: what it is told beside those, by field of `TrainConfig`.
    """

    phi: str
    seed: int
    folder: Path
    settings: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        """How many it shall have."""
        return TrainConfig(**self.settings).epochs

    @property
    def kind(self) -> str:
        """Its block and recipe in words."""
        return kind_of(self.phi, self.settings.get("preset", DEFAULT_PRESET))

    @property
    def last(self) -> Path:
        """Its resumable checkpoint."""
        return self.folder / "weights" / "last.pth"

    def epochs_left(self) -> int:
        """Return how many epochs it has before it; 0 when --patience has ended it."""
        if not self.last.exists():
            return self.epochs
        stood = load_checkpoint(self.last).training
        return 0 if stood["stopped_early"] else self.epochs - int(stood["epoch"])

    def arguments(self) -> list[str]:
        """Return the arguments of train.py that start it, or that go on with what is there."""
        if self.last.exists():
            free = {name: value for name, value in self.settings.items() if name in FREE}
            own = ["--phi", self.phi] if ":" in self.phi else []
            return ["--resume", str(self.last), *own, *as_arguments(TrainConfig, free)]
        where = ["--project", str(self.folder.parent), "--name", self.folder.name, "--exist-ok"]
        return [
            "--phi",
            self.phi,
            "--seed",
            str(self.seed),
            *as_arguments(TrainConfig, self.settings),
            *where,
        ]


def kind_of(phi: str, preset: str) -> str:
    """Name a block and a recipe: 'se', or 'se reference'."""
    return short_name(phi) + ("" if preset == DEFAULT_PRESET else f" {preset}")


def plan_runs(config: CompareConfig, settings: Mapping[str, Any], folder: Path) -> list[GridRun]:
    """List the runs, seed by seed, so that every block has been seen once after a fraction of the time.

    Args:
        config: blocks, recipes and seeds.
        settings: what was given for all runs, by field of `TrainConfig`; it wins over the recipes.
        folder: the comparison's.
    """
    recipes = {preset: run_settings(preset, settings) for preset in config.preset}
    runs = []
    for seed in map(int, config.seeds):
        for preset, told in recipes.items():
            suffix = f"-seed{seed}" if preset == DEFAULT_PRESET else f"-{preset}-seed{seed}"
            runs += [GridRun(phi, seed, folder / (folder_name(phi) + suffix), told) for phi in config.phi]
    return runs


def keep_settings(folder: Path, config: CompareConfig, settings: Mapping[str, Any]) -> None:
    """Write args.yaml, and refuse to mix a grid with runs that were told otherwise.

    Raises:
        UserError: the folder holds a comparison with other settings; the message names them.
    """
    path, own = folder / "args.yaml", config_as_dict(config)
    told = {name: as_plain(value) for name, value in settings.items()}
    if not (config.runs or config.no_train):
        resolved = config_as_dict(TrainConfig(**settings))
        # What a recipe says is left to it: the file would be read as given, for all recipes.
        of_recipes = {name for preset in config.preset for name in read_recipe(preset)} - set(settings)
        told = {
            name: value
            for name, value in resolved.items()
            if name not in NOT_PASSED_ON and name not in of_recipes
        }
    if path.exists():
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        now = own | told
        names = [name for name in stored | now if name not in _MAY_CHANGE]
        other = [name for name in names if stored.get(name) != now.get(name)]
        if other:
            shown = ", ".join(f"{name} {stored.get(name)} (now {now.get(name)})" for name in other)
            raise UserError(
                f"{folder}: holds a comparison with other settings: {shown}; give this one another --name"
            )
    save_settings(own | told, path)
