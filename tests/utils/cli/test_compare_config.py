import pytest

from utils.cli.compare_config import parse_comparison, run_settings
from utils.cli.errors import UserError


def parse(*argv):
    return parse_comparison(argv, description="", example="")


def test_nothing_given_is_the_published_blocks_and_three_seeds():
    config, settings = parse()
    assert config.phi == ("none", "se", "cbam", "eca", "ca")
    assert config.seeds == ("0", "1", "2")
    assert (config.no_train, settings) == (False, {})


def test_flags_of_train_are_passed_on_and_its_own_are_not():
    config, settings = parse(
        "--phi", "2", "0", "--seeds", "7", "--epochs", "3", "--imgsz", "64", "--no-train"
    )
    assert (config.phi, config.seeds, config.no_train) == (("none", "cbam"), ("7",), True)
    assert settings == {"epochs": 3, "imgsz": (64, 64)}


def test_what_is_given_wins_over_a_recipe():
    config, settings = parse("--preset", "default", "reference", "--mosaic", "0.25")
    assert config.preset == ("default", "reference")
    assert settings == run_settings("default", settings) == {"mosaic": 0.25}
    told = run_settings("reference", settings)
    assert (told["loss"], told["mosaic"], told["preset"]) == ("means", 0.25, "reference")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--preset", "mine"), "--preset mine: choose from default, reference"),
        (("--preset", "default", "default"), "--preset default default: a recipe is given twice"),
        (("--from", "a", "--preset", "reference"), "--from cannot be combined with --preset"),
        (("--phi", "none", "9"), "--phi 9: unknown attention"),
        (("--phi", "2", "cbam"), "--phi cbam: given twice"),
        (("--phi", "a/own.py:B", "b/own.py:B"), "two blocks share the name own-B"),
        (("--from", "a", "--epochs", "3"), "--from cannot be combined with --epochs"),
        (("--seeds", "0", "x"), "--seeds x: needs whole numbers"),
        (("--seeds", "-1"), "--seeds -1"),
        (("--seeds", "9" * 5000), "--seeds 9"),
        (("--seeds", "1", "01"), "a seed is given twice"),
        (("--epochs", "0"), "--epochs 0: must be at least 1"),
        (("--seed", "1"), "did you mean --seeds"),
        (("--resume",), "unknown flag --resume"),
        (("--from", "a", "--no-train"), "--from cannot be combined with --no-train"),
    ],
)
def test_nonsense_is_refused_before_the_first_run(argv, words):
    with pytest.raises(UserError, match=words):
        parse(*argv)
