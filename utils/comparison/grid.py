"""The runs of a comparison: one a block and seed, each a call of train.py, restarted where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.comparison.config import FREE, NOT_PASSED_ON, CompareConfig, folder_name
from utils.config import as_plain, config_as_dict
from utils.errors import UserError
from utils.flags import as_arguments, save_settings
from utils.training.config import TrainConfig
from utils.weights.checkpoint import load_checkpoint


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


def plan_runs(config: CompareConfig, settings: Mapping[str, Any], folder: Path) -> list[GridRun]:
    """List the runs, seed by seed, so that every block has been seen once after a fraction of the time."""
    return [
        GridRun(phi, int(seed), folder / f"{folder_name(phi)}-seed{int(seed)}", settings)
        for seed in config.seeds
        for phi in config.phi
    ]


def keep_settings(folder: Path, config: CompareConfig, settings: Mapping[str, Any]) -> None:
    """Write args.yaml, and refuse to mix a grid with runs that were told otherwise.

    Blocks, seeds and the split to report on may change from call to call, and what changes no number.

    Raises:
        UserError: the folder holds a comparison with other settings; the message names them.
    """
    path, own = folder / "args.yaml", config_as_dict(config)
    told = {name: as_plain(value) for name, value in settings.items()}
    if not (config.runs or config.no_train):
        resolved = config_as_dict(TrainConfig(**settings))
        told = {name: value for name, value in resolved.items() if name not in NOT_PASSED_ON}
    if path.exists():
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        fixed = {"runs": own["runs"], "no_train": own["no_train"]} | told
        other = [name for name in fixed if name not in FREE and stored.get(name) != fixed[name]]
        if other:
            shown = ", ".join(f"{name} {stored.get(name)} (now {fixed[name]})" for name in other)
            raise UserError(
                f"{folder}: holds a comparison with other settings: {shown}; give this one another --name"
            )
    save_settings(own | told, path)
