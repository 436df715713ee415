import dataclasses

import pytest
import yaml

from utils.cli import presets as recipes
from utils.cli.errors import UserError
from utils.cli.parser import given_settings
from utils.cli.presets import RECIPES, with_preset
from utils.cli.train_config import TrainConfig


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", None),
        ("lr: 0.5\nmosaic: 0\nepochs: 3\n", None),
        *((f"{key}: {value}\n", f"mine.yaml: {key} does not belong in a recipe")
          for key, value in (("demo", "true"), ("seed", 5), ("phi", "se"), ("resume", "auto"), ("data", "x"),
                             ("project", "x"), ("preset", "mine"))),
        ("lrr: 1\n", "unknown key 'lrr'"),
    ],
)  # fmt: skip
def test_a_recipe_of_ones_own(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    (tmp_path / "default.yaml").write_text("lr: 1\n")
    assert with_preset({"preset": "default"}) == {"preset": "default"}
    if words is None:
        assert with_preset({"preset": "mine"}).keys() >= {"preset"}
    else:
        with pytest.raises(UserError, match=words):
            with_preset({"preset": "mine"})


def test_a_preset_on_the_command_line_cannot_stand_beside_a_file_that_names_everything(tmp_path):
    (tmp_path / "a.yaml").write_text("preset: reference\nepochs: 3\n")
    argv = ["--config", str(tmp_path / "a.yaml")]
    texts = {"prog": "train.py", "description": "", "example": ""}
    assert with_preset(given_settings(TrainConfig, argv, **texts))["loss"] == "means"
    with pytest.raises(UserError, match="--preset cannot be combined with --config"):
        given_settings(TrainConfig, [*argv, "--preset", "default"], **texts)
