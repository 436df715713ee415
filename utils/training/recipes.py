"""Recipes that `--preset` names: files in model_data/recipes with what differs from the defaults, no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.classes import MODEL_DATA
from utils.errors import UserError
from utils.flags import read_settings
from utils.training.config import DEFAULT_PRESET, TrainConfig

RECIPES = MODEL_DATA / "recipes"


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the settings that were given those of the recipe that `preset` names; what was given wins.

    Raises:
        UserError: there is no such recipe, or its file holds what train.py does not know.
    """
    name = given.get("preset") or DEFAULT_PRESET
    if name == DEFAULT_PRESET:
        return dict(given)
    known = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    if name not in known:
        raise UserError(f"--preset {name}: choose from {', '.join([DEFAULT_PRESET, *known])}")
    return read_settings(TrainConfig, known[name]) | dict(given)
