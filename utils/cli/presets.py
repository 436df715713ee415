"""Training recipes of `--preset`: YAML files in model_data/recipes that hold what is not the default."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from utils.cli.class_names import MODEL_DATA
from utils.cli.errors import UserError
from utils.cli.parser import read_settings
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig

RECIPES = MODEL_DATA / "recipes"
# What --demo changes unless the command line says otherwise: three minutes on two CPU cores.
_DEMO = {
    "data": "runs/demo",
    "epochs": 8,
    "batch_size": 8,
    "imgsz": (288, 288),
    "freeze_epochs": 1,
    "close_mosaic": 2,
}
_GROUPS = ("network", "optimization")
_ELSEWHERE = ("project", "name", "exist_ok", "resume", "workers")  # of a run's folder and machine
_OTHERS = (
    *("epochs", "batch_size", "imgsz", "freeze_epochs"),
    *("augment", "mosaic", "mixup", "close_mosaic", "multi_scale", "balance"),
)


def build_train_config(given: Mapping[str, Any]) -> TrainConfig:
    """Build the config of a new run from the given settings, its preset and --demo.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """
    chosen = with_preset(given)
    return TrainConfig(**((_DEMO | chosen) if given.get("demo") else chosen))


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the recipe that `preset` names to the given settings, which override it.

    Raises:
        UserError: unknown recipe, or its file has an unknown setting.
    """
    return read_recipe(given.get("preset") or DEFAULT_PRESET) | dict(given)


def settings_to_repeat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a command line must give to train in the same way.

    These are the settings that differ from the defaults, --demo and the recipe of the run. Settings of the
    run's folder are skipped.

    Args:
        values: what `config_as_dict` returned, also by another version of this project.
    """
    usual = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    usual |= _DEMO if values.get("demo") else {}
    with suppress(UserError):  # a recipe that no longer exists
        usual |= read_recipe(str(values.get("preset") or DEFAULT_PRESET))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    names = [name for name in usual if name in given and name not in _ELSEWHERE]
    return {name: given[name] for name in names if given[name] != usual[name]}


def read_recipe(name: str) -> dict[str, Any]:
    """Return the settings of a recipe; the default recipe has none.

    Raises:
        UserError: unknown recipe, or its file has an unknown setting.
    """
    if name == DEFAULT_PRESET:
        return {}
    known = {path.stem: path for path in sorted(RECIPES.glob("*.yaml")) if path.stem != DEFAULT_PRESET}
    if name not in known:
        raise UserError(f"--preset {name}: choose from {', '.join([DEFAULT_PRESET, *known])}")
    recipe = read_settings(TrainConfig, known[name])
    groups = {field.name: field.metadata["group"] for field in dataclasses.fields(TrainConfig)}
    for key in recipe:
        if key == "preset" or not (groups[key] in _GROUPS or key in _OTHERS):
            raise UserError(f"{known[name]}: {key} does not belong in a recipe; give it on the command line")
    return recipe
