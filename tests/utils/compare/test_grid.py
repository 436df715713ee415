import pytest

from utils.cli.compare_config import CompareConfig, folder_name, parse_comparison
from utils.cli.errors import UserError
from utils.cli.parser import given_settings
from utils.cli.train_config import TrainConfig
from utils.compare.grid import plan_runs, save_grid_settings


def test_runs_go_seed_by_seed_into_folders_of_their_own(tmp_path):
    runs = plan_runs(CompareConfig(phi=("none", "dir/own.py:B"), seeds=("0", "3")), {"epochs": 2}, tmp_path)
    assert [(run.phi, run.seed, run.folder.name) for run in runs] == [
        ("none", 0, "none-seed0"),
        ("dir/own.py:B", 0, "own-B-seed0"),
        ("none", 3, "none-seed3"),
        ("dir/own.py:B", 3, "own-B-seed3"),
    ]
    assert folder_name("package.module:B") == "package.module-B"


def test_every_recipe_has_its_runs_and_tells_them_its_settings(tmp_path):
    config = CompareConfig(phi=("none", "se"), seeds=("0", "3"), preset=("default", "reference"))
    runs = plan_runs(config, {"epochs": 2, "mosaic": 0.25}, tmp_path)
    assert [run.folder.name for run in runs[:5]] == [
        "none-seed0",
        "se-seed0",
        "none-reference-seed0",
        "se-reference-seed0",
        "none-seed3",
    ]
    assert [run.kind for run in runs[:4]] == ["none", "se", "none reference", "se reference"]
    assert runs[0].settings == {"epochs": 2, "mosaic": 0.25}
    given = given_settings(TrainConfig, runs[2].arguments(), prog="", description="", example="")
    assert (given["preset"], given["loss"], given["mosaic"]) == ("reference", "means", 0.25)


def test_a_folder_keeps_to_its_recipes_and_repeats_them(tmp_path):
    config = CompareConfig(preset=("default", "reference"))
    save_grid_settings(tmp_path, config, {"mosaic": 0.25})
    save_grid_settings(tmp_path, config, {"mosaic": 0.25})
    for other, told, words in (
        (CompareConfig(), {"mosaic": 0.25}, "preset"),
        (config, {}, "mosaic 0.25"),
        (config, {"mosaic": 0.25, "loss": "means"}, r"loss None \(now means\)"),
    ):
        with pytest.raises(UserError, match=rf"other settings: .*{words}"):
            save_grid_settings(tmp_path, other, told)
    again, settings = parse_comparison(["--config", str(tmp_path / "args.yaml")], description="", example="")
    assert again == config
    default, reference = (run.settings for run in plan_runs(again, settings, tmp_path)[:10:5])
    assert (default.get("loss"), default["mosaic"], reference["loss"]) == (None, 0.25, "means")


def test_the_arguments_of_a_run_say_what_it_is_told(tmp_path):
    told = {"data": "my data", "ema": False, "skip_bad": True, "phi_at": ("c4", "up"), "imgsz": (64, 96)}
    (run,) = plan_runs(CompareConfig(phi=("se",), seeds=("5",)), told, tmp_path)
    given = given_settings(TrainConfig, run.arguments(), prog="", description="", example="")
    assert given == told | {
        "phi": "se",
        "seed": 5,
        "project": str(tmp_path),
        "name": "se-seed5",
        "exist_ok": True,
    }


def test_a_folder_keeps_to_its_settings(tmp_path):
    config = CompareConfig(phi=("none",))
    save_grid_settings(tmp_path, config, {"epochs": 2, "imgsz": (64, 64)})
    more = CompareConfig(phi=("none", "se"), seeds=("5",))
    save_grid_settings(tmp_path, more, {"epochs": 2, "imgsz": (64, 64), "workers": 0})  # change no number
    with pytest.raises(UserError, match=r"other settings: epochs 2 \(now 3\).*another --name"):
        save_grid_settings(tmp_path, config, {"epochs": 3, "imgsz": (64, 64)})
    config, settings = parse_comparison(["--config", str(tmp_path / "args.yaml")], description="", example="")
    assert (config, settings["epochs"], settings["imgsz"]) == (more, 2, (64, 64))


def test_a_table_of_costs_is_no_grid(tmp_path):
    save_grid_settings(tmp_path, CompareConfig(no_train=True), {})
    with pytest.raises(UserError, match=r"no_train True \(now False\)"):
        save_grid_settings(tmp_path, CompareConfig(), {})
