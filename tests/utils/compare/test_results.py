import csv
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from nets.config import ModelConfig
from utils.cli.compare_config import CompareConfig
from utils.cli.errors import UserError
from utils.cli.parser import config_as_dict
from utils.cli.presets import with_preset
from utils.cli.train_config import TrainConfig
from utils.compare import grid, results, runner
from utils.compare.grid import GridRun
from utils.compare.results import RunResult, build_rows, compare_runs, group_runs, read_run
from utils.compare.runner import read_runs
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def write_run(folder, map50=0.5, epochs=2, done=2, state=None, **settings):
    """Write a run's folder; with `state`, what its last.pth says on the training, also that."""
    folder.mkdir(parents=True)
    config = config_as_dict(TrainConfig(**{"epochs": epochs, **settings}))
    (folder / "args.yaml").write_text(yaml.safe_dump(config))
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "map50", "map50_95"])
        writer.writerows([epoch + 1, map50 - 0.1 * (done - 1 - epoch), map50 / 2] for epoch in range(done))
    if state is not None:
        (folder / "weights").mkdir()
        save_checkpoint(folder / "weights/last.pth", Checkpoint(ModelConfig(1), ("cell",), {}, {}, {}, state))
    return folder


def result(phi, seed, map50, **settings):
    return RunResult(phi, seed, settings, map50, map50 / 2)


def blocks(**map50s):
    """Return runs of each block with the seeds 0, 1, ..."""
    return [[result(phi, seed, value) for seed, value in enumerate(values)] for phi, values in map50s.items()]


def test_without_a_common_seed_there_is_no_difference():
    assert compare_runs([], []) is None
    assert compare_runs([result("se", 1, 0.5)], [result("none", 2, 0.5)]) is None


def test_one_common_seed_has_no_interval():
    compared = compare_runs(*blocks(se=(0.6, 0.9), none=(0.5,)))
    assert compared.map50.mean == pytest.approx(0.1)
    assert (compared.map50.interval, compared.verdict) == (None, "one seed: noise unknown")


def test_several_blocks_share_one_chance_of_a_false_verdict():
    """p of se alone is 0.03; with four blocks Holm makes it 0.12."""
    base = (0.5, 0.6, 0.7, 0.8)
    noise = (0.0, 0.02, -0.02, 0.01)
    better = [value + 0.02 + shift for value, shift in zip(base, (0.0, 0.02, -0.004, 0.01), strict=True)]
    same = [value + shift for value, shift in zip(base, noise, strict=True)]
    alone, *_ = (
        row
        for row in build_rows(dict(zip("ns", blocks(none=base, se=better), strict=True)), {})
        if row.comparison
    )
    assert alone.comparison.verdict == "better"
    four = blocks(none=base, se=better, cbam=same, eca=same, ca=same)
    rows = build_rows({runs[0].phi: runs for runs in four}, {})
    assert rows[1].comparison.p_value == pytest.approx(4 * alone.comparison.p_value)
    assert rows[1].comparison.verdict == "within noise"


@pytest.mark.parametrize("stopped_early", [False, True])
def test_a_run_that_patience_ended_is_finished(tmp_path, stopped_early):
    state = {"stopped_early": stopped_early}
    folder = write_run(tmp_path / "run", map50=0.7, epochs=20, done=12, state=state, patience=3)
    if stopped_early:
        assert read_run(folder).map50 == 0.7
    else:
        with pytest.raises(UserError, match="not finished: 12 of 20 epochs"):
            read_run(folder)


def test_a_run_that_was_stopped_in_its_first_epoch_can_be_resumed(tmp_path):
    folder = write_run(tmp_path / "run", epochs=3, state={"stopped_early": False, "epoch": 0})
    (folder / "results.csv").unlink()
    words = r"run: not finished: 0 of 3 epochs done; resume it: python train.py --resume .*weights/last\.pth"
    with pytest.raises(UserError, match=words):
        read_run(folder)


def test_a_run_whose_results_are_only_a_heading_is_not_finished(tmp_path):
    folder = write_run(tmp_path / "run", epochs=3, state={"stopped_early": False, "epoch": 1})
    (folder / "results.csv").write_text("epoch,map50\n")
    with pytest.raises(UserError, match="run: not finished: 0 of 3 epochs done"):
        read_run(folder)


def test_the_checkpoint_of_a_run_is_read_once_until_it_changes(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(results, "load_checkpoint", lambda path: loaded.append(path) or load_checkpoint(path))
    monkeypatch.setattr(grid, "fingerprint", lambda data: {})
    folder = write_run(tmp_path / "run", state={"stopped_early": False, "epoch": 2})
    run, last = GridRun("none", 0, folder, {"epochs": 2}), folder / "weights/last.pth"
    for _ in range(2):
        grid.check_data([run], SimpleNamespace(val_splits=()))
        assert run.epochs_left() == 0
        assert read_run(folder).map50 == 0.5
        read_runs(CompareConfig(runs=(str(folder),)), {})
    assert loaded == [last]
    os.utime(last, (1, 1))
    assert run.epochs_left() == 0
    assert loaded == [last, last]


def test_no_run_is_evaluated_beside_one_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_call", lambda *_: pytest.fail("evaluated"))
    whole = write_run(tmp_path / "whole", state={"epoch": 2})
    short = write_run(tmp_path / "short", done=1, state={"epoch": 1})
    with pytest.raises(UserError, match="short: not finished: 1 of 2 epochs"):
        read_runs(CompareConfig(runs=(str(whole), str(short)), split=("val",)), {})


def seen(images, folder, seed=0, phi="se", boxes="", **settings):
    """Return the result of a run on so many images with a cat in each."""
    ids, cats = str(seed) * images, {"cat": images}
    data = {"train": {"images": images, "ids": ids, "objects": cats, "annotations": boxes}}
    return RunResult(phi, seed, {"data": "d", **settings}, 0.5, 0.25, folder=folder, data=data)


def test_runs_on_data_that_have_changed_are_refused(tmp_path):
    none = seen(4, tmp_path / "a", phi="none")
    for other, difference in (
        (seen(3, tmp_path / "b"), "train has 3 images, the run 4"),
        (seen(3, tmp_path / "b", seed=1), "the data set has 3 images, the run 4"),
        (seen(4, tmp_path / "b", boxes="moved"), "train has as many objects as the run"),
    ):
        with pytest.raises(UserError, match=f"b: was trained on other data than .*a: {difference}"):
            group_runs([none, other])
    assert len(group_runs([none, seen(4, tmp_path / "b"), seen(4, tmp_path / "b", seed=1)])) == 2
    assert len(group_runs([none, seen(3, tmp_path / "b", data="e")])) == 2  # not paired
    assert len(group_runs([none, replace(seen(3, tmp_path / "b"), data=None)])) == 2  # older checkpoint


def test_runs_evaluated_on_data_that_have_changed_are_refused(tmp_path):
    runs = [seen(4, tmp_path / phi, phi=phi) for phi in ("none", "se")]
    folders = [write_run(tmp_path / str(number)) for number in range(2)]
    for number, folder in enumerate(folders):
        (folder / "report").mkdir()
        (folder / "report/metrics.json").write_text('{"map50": 0.25, "map50_95": 0.125}')
        (folder / "report/ground_truth.json").write_text(f"[{number}]")
    hashes = [read_run(folder, "report").evaluated for folder in folders]
    with pytest.raises(UserError, match=r"se: was evaluated on other data than .*none; remove"):
        group_runs([replace(run, evaluated=hash) for run, hash in zip(runs, hashes, strict=True)])
    assert len(group_runs([replace(run, evaluated=hashes[0]) for run in runs])) == 2


def test_a_runs_last_epoch_counts_not_its_best(tmp_path):
    run = read_run(write_run(tmp_path / "run", 0.5, seed=4, phi="se"))
    assert (run.phi, run.seed, run.map50, run.map50_95) == ("se", 4, 0.5, 0.25)


def test_a_report_on_another_split_counts_instead(tmp_path):
    folder = write_run(tmp_path / "run", 0.5)
    (folder / "report").mkdir()
    (folder / "report/metrics.json").write_text('{"map50": 0.25, "map50_95": 0.125}')
    assert read_run(folder, "report").map50 == 0.25


def test_a_table_that_is_a_pipe_is_not_waited_for(tmp_path):
    folder = write_run(tmp_path / "run", 0.5)
    (folder / "results.csv").unlink()
    os.mkfifo(folder / "results.csv")
    with pytest.raises(UserError, match=r"results\.csv: not a regular file"):
        read_run(folder)


def test_what_is_no_finished_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing: not the folder of a training run"):
        read_run(tmp_path / "nothing")
    with pytest.raises(UserError, match="short: not finished: 1 of 2 epochs"):
        read_run(write_run(tmp_path / "short", done=1))
    blind = write_run(tmp_path / "blind")
    (blind / "results.csv").write_text("epoch,box\n2,0.5\n")
    with pytest.raises(UserError, match=r"blind: has no mAP.*--split"):
        read_run(blind)


def test_runs_meet_under_what_sets_them_apart(tmp_path):
    runs = [
        write_run(tmp_path / "a", seed=0),
        write_run(tmp_path / "b", seed=1, name="b", workers=0),
        write_run(tmp_path / "c", seed=0, phi="se"),
        write_run(tmp_path / "d", seed=0, phi="se", insert="published"),
        write_run(tmp_path / "e", seed=0, phi="some/where/own.py:Block"),
    ]
    groups = group_runs([read_run(run) for run in runs])
    assert {label: len(found) for label, found in groups.items()} == {
        "none": 2,
        "se": 1,
        "se insert=published": 1,
        "own.py:Block": 1,
    }


def test_rates_of_one_recipe_set_runs_apart():
    rates = [result("none", 0, 0.5, preset="default", lr=lr) for lr in (0.01, 0.02)]
    assert list(group_runs(rates)) == ["none lr=0.01", "none lr=0.02"]


def test_runs_of_the_default_recipe_at_several_rates_are_no_base_for_one_another():
    rates = [result("none", 0, 0.5 + lr, preset="default", lr=lr) for lr in (0.01, 0.02, 0.03)]
    assert all(row.comparison is None for row in build_rows(group_runs(rates), {}))


def test_the_same_run_twice_is_refused():
    with pytest.raises(UserError, match="two runs of se have the seed 0"):
        group_runs([result("se", 0, 0.5), result("se", 0, 0.5)])


def test_rows_compare_with_the_runs_without_attention():
    groups = group_runs([result("se", 0, 0.6), result("none", 0, 0.5), result("none", 1, 0.7)])
    none, se = build_rows(groups, {})
    assert (se.label, none.label) == ("se", "none")
    assert se.comparison.map50.mean == pytest.approx(0.1)
    assert none.comparison is None
    assert [(run.seed, run.map50) for run in none.runs] == [(0, 0.5), (1, 0.7)]
    (alone,) = build_rows(group_runs([result("se", 0, 0.6)]), {})
    assert alone.comparison is None


def test_a_recipe_is_compared_with_the_default_and_its_blocks_with_its_own_runs(tmp_path):
    runs = [
        read_run(
            write_run(
                tmp_path / f"{phi}{preset}", value, phi=phi, **settled | with_preset({"preset": preset})
            )
        )
        for phi, preset, value, settled in (
            ("none", "default", 0.5, {"lr": 0.001, "ema_memory": "run"}),
            ("none", "reference", 0.2, {"ema_memory": "recent"}),
            ("se", "default", 0.6, {"lr": 0.001, "ema_memory": "run"}),
            ("se", "reference", 0.4, {"ema_memory": "recent"}),
        )
    ]
    changes = {row.label: row.comparison for row in build_rows(group_runs(runs), {})}
    assert list(changes) == ["none", "none preset=reference", "se", "se preset=reference"]
    assert changes["none"] is None
    assert changes["none preset=reference"].map50.mean == pytest.approx(-0.3)
    assert changes["se"].map50.mean == pytest.approx(0.1)
    assert changes["se preset=reference"].map50.mean == pytest.approx(0.2)


def test_differences_are_between_runs_that_are_otherwise_alike():
    runs = [
        result(phi, 0, value, epochs=epochs)
        for phi, value, epochs in (("none", 0.5, 100), ("se", 0.6, 100), ("none", 0.1, 3), ("se", 0.3, 3))
    ]
    changes = {row.label: row.comparison for row in build_rows(group_runs(runs), {})}
    assert changes["se"].map50.mean == pytest.approx(0.1)
    assert changes["se epochs=3"].map50.mean == pytest.approx(0.2)
    assert changes["none epochs=3"] is None
