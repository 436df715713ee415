"""Training recipes of `--preset`: YAML files in model_data/recipes with all settings but the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from utils.cli.class_names import MODEL_DATA
from utils.cli.errors import UserError
from utils.cli.parser import read_settings
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig

RECIPES = MODEL_DATA / "recipes"
_GROUPS = ("network", "optimization")
_OTHERS = ("epochs", "batch_size", "imgsz", "freeze_epochs", "augment", "mosaic", "mixup", "close_mosaic")


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the recipe that `preset` names to the given settings, which override it.

    Raises:
        UserError: unknown recipe, or its file has an unknown setting.
    """
    return read_recipe(given.get("preset") or DEFAULT_PRESET) | dict(given)


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
