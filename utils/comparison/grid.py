"""The runs of a comparison: one a block and seed, each a call of train.py, restarted where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.comparison.config import CompareConfig
from utils.config import TrainConfig, config_as_dict
from utils.errors import UserError
from utils.files import atomic_write
from utils.flags import as_arguments
from utils.weights.checkpoint import load_checkpoint

_SETTINGS = "settings.yaml"


@dataclass(frozen=True)
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

    def epochs_done(self) -> int:
        """Return how many epochs its checkpoint has behind it; 0 when there is none."""
        return int(load_checkpoint(self.last).training["epoch"]) if self.last.exists() else 0

    def arguments(self) -> list[str]:
        """Return the arguments of train.py that start it, or that go on with what is there."""
        if self.epochs_done():
            return ["--resume", str(self.last), *(["--phi", self.phi] if ":" in self.phi else [])]
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


def folder_name(phi: str) -> str:
    """Return a block's name as part of a folder's: 'se', or 'file-Class' for 'path/to/file.py:Class'."""
    source, colon, class_name = phi.replace("\\", "/").rpartition(":")
    return f"{source.rpartition('/')[2].removesuffix('.py')}-{class_name}" if colon else phi


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Remember what the runs in a folder are told, and refuse to mix it with runs that were told otherwise.

    Raises:
        UserError: the folder holds runs with other settings; the message names them.
    """
    path = folder / _SETTINGS
    resolved = config_as_dict(TrainConfig(**settings))
    if path.exists():
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        free = {"device", "workers"}
        other = [name for name in resolved if name not in free and stored.get(name) != resolved[name]]
        if other:
            told = ", ".join(f"{name} {stored.get(name)} (now {resolved[name]})" for name in other)
            raise UserError(
                f"{folder}: holds a comparison with other settings: {told}; give this one another --name"
            )
    with atomic_write(path, "w") as file:
        yaml.safe_dump(resolved, file, sort_keys=False, allow_unicode=True, default_flow_style=None)
