import dataclasses

import pytest
import yaml

from utils.errors import UserError
from utils.training.config import TrainConfig
from utils.training.recipes import RECIPES, with_preset


def test_nothing_given_stays_nothing_and_the_default_recipe_is_the_defaults():
    assert with_preset({}) == {}
    assert with_preset({"preset": "default", "epochs": 3}) == {"preset": "default", "epochs": 3}


def test_a_recipe_holds_where_nothing_is_given():
    assert TrainConfig(**with_preset({"preset": "reference"})).loss == "means"
    chosen = TrainConfig(**with_preset({"preset": "reference", "mosaic": 0.3}))
    assert (chosen.mosaic, chosen.augment, chosen.preset) == (0.3, "reference", "reference")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_holds_only_differences(path):
    settings = yaml.safe_load(path.read_text())
    plain = TrainConfig()
    assert settings
    for name, value in dataclasses.asdict(TrainConfig(**with_preset({"preset": path.stem}))).items():
        is_named = name in settings or name == "preset"
        assert is_named == (value != getattr(plain, name)), name


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="--preset refrence: choose from default, reference"):
        with_preset({"preset": "refrence"})
