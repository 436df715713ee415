"""Grid of a comparison: one training run a block, recipe and seed, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nets.attention import short_name
from nets.config import ModelConfig
from nets.structures import Target
from utils.cli.class_names import read_class_names
from utils.cli.compare_config import FREE, NOT_PASSED_ON, CompareConfig, folder_name, run_settings
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.cli.files import read_yaml
from utils.cli.parser import as_arguments, as_plain, config_as_dict, save_args_yaml
from utils.cli.presets import read_recipe
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.compare.results import read_progress
from utils.data.prepare import TrainingData, prepare_evaluation
from utils.inference.device import choose_device
from utils.training.block_trial import check_attention
from utils.training.builders import build_model_config, build_trainer, load_data, load_pretrained
from utils.training.engine import EpochMeter
from utils.training.fingerprint import describe_difference, fingerprint
from utils.training.run_log import format_duration
from utils.weights.own_block import build_network

_VOC_CLASSES = 20
_MAY_CHANGE = FREE | {"phi", "seeds", "split", "project", "name"}  # when a comparison is resumed


@dataclass(frozen=True, eq=False)
class GridRun:
    """One training run of a comparison; `settings` are the others, by field of `TrainConfig`."""

    phi: str
    seed: int
    folder: Path
    settings: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole run."""
        return TrainConfig(**self.settings).epochs

    @property
    def kind(self) -> str:
        """Name of its block and recipe."""
        return kind_of(self.phi, self.settings.get("preset", DEFAULT_PRESET))

    @property
    def last(self) -> Path:
        """Its resumable checkpoint."""
        return self.folder / "weights" / "last.pth"

    def epochs_left(self) -> int:
        """Return the number of epochs left; 0 if --patience has ended it."""
        saved = read_progress(self.last)
        return 0 if saved.stopped_early else self.epochs - (saved.epoch or 0)

    def arguments(self) -> list[str]:
        """Return the arguments of train.py that start or resume it."""
        if self.last.exists():
            free = {name: value for name, value in self.settings.items() if name in {*FREE, "augment"}}
            phi = ["--phi", self.phi] if ":" in self.phi else []
            return ["--resume", str(self.last), *phi, *as_arguments(TrainConfig, free)]
        start = ["--phi", self.phi, "--seed", str(self.seed), *as_arguments(TrainConfig, self.settings)]
        return [*start, "--project", str(self.folder.parent), "--name", self.folder.name, "--exist-ok"]


def kind_of(phi: str, preset: str) -> str:
    """Return the name of a block and a recipe: 'se', or 'se reference'."""
    return short_name(phi) + ("" if preset == DEFAULT_PRESET else f" {preset}")


def plan_runs(config: CompareConfig, settings: Mapping[str, Any], folder: Path) -> list[GridRun]:
    """Return the runs, seed by seed, so that the first seed of every block is done first.

    The settings, by field of `TrainConfig`, hold for all runs and override the recipes.
    """
    recipes = {preset: run_settings(preset, settings) for preset in config.preset}
    runs = []
    for seed in map(int, config.seeds):
        for preset, values in recipes.items():
            suffix = f"-seed{seed}" if preset == DEFAULT_PRESET else f"-{preset}-seed{seed}"
            runs += [GridRun(phi, seed, folder / (folder_name(phi) + suffix), values) for phi in config.phi]
    return runs


def plan_networks(
    config: CompareConfig, settings: dict[str, Any]
) -> tuple[dict[str, ModelConfig], TrainingData | None]:
    """Check blocks and data, and return the network of each kind of run, and the data (None for costs alone).

    Raises:
        UserError: a block cannot be trained, the data have a fault, or there is nothing to evaluate on.
    """
    runs = [
        TrainConfig(**run_settings(preset, settings), phi=phi)
        for preset in config.preset
        for phi in config.phi
    ]
    for run in runs:
        check_attention(run)
    num_classes, data = _VOC_CLASSES, None
    if not config.no_train or "data" in settings:
        data = load_data(runs[0])
        num_classes = len(data.train.class_names)
        if config.split and not config.no_train:
            prepare_evaluation(runs[0], config.split)
        elif data.val is None and not config.no_train:
            raise UserError("--val none: leaves nothing to compare on; name a split to evaluate on: --split")
    elif runs[0].classes:
        num_classes = len(read_class_names(runs[0].classes))
    else:
        log(f"parameters for {num_classes} classes; --data or --classes gives another number")
    # The COCO weights, the default, have the usual heads, and may not be there yet.
    named = {run.weights: run for run in runs if run.weights != TrainConfig.weights}
    sources = {weights: load_pretrained(run, None) for weights, run in named.items()}
    networks = {
        kind_of(run.phi, run.preset): build_model_config(run, num_classes, sources.get(run.weights))
        for run in runs
    }
    return networks, data


def check_data(runs: Sequence[GridRun], data: TrainingData) -> None:
    """Check that the runs that are done or begun have seen these data, as all that follow will.

    Raises:
        UserError: a run has not.
    """
    now = fingerprint(data)
    for run in runs:
        before = read_progress(run.last).data
        same_seed = run.seed == TrainConfig.seed or bool(data.val_splits)
        if before and (difference := describe_difference(before, now, same_seed=same_seed)):
            raise UserError(
                f"{run.folder}: the data have changed since it was trained: {difference}; restore them, or "
                "give this comparison another --name"
            )


def log_estimate(runs: Sequence[GridRun], networks: Mapping[str, ModelConfig], num_images: int) -> None:
    """Log how long the runs that are left will take, from a few steps of each kind of run."""
    seconds, left = 0.0, {run: run.epochs_left() for run in runs}
    for kind, run in {run.kind: run for run in runs if left[run]}.items():
        whole = num_images * _estimate_seconds(TrainConfig(**run.settings, phi=run.phi), networks[kind])
        seconds += whole * sum(left[other] / other.epochs for other in runs if other.kind == kind)
    work = f"{sum(map(bool, left.values()))} of {plural(len(runs), 'run')} left"
    images, duration = plural(num_images, "image"), format_duration(seconds)
    log(f"{work}, {images} each: about {duration} without loading and evaluation")


def _estimate_seconds(config: TrainConfig, network: ModelConfig) -> float:
    """Measure the seconds that a run's steps take an image, over all epochs, on random images."""
    device = choose_device(config.device)
    with torch.random.fork_rng(devices=[]):  # the runs start from the same random state
        model = build_network(network)
    batches_per_epoch = 10**6  # of no effect on the time
    trainer = build_trainer(config, model, batches_per_epoch, config.batch_size, device)
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, 3, *network.input_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    target = Target(torch.tensor([[8.0, 8.0, 120.0, 90.0]]), torch.tensor([0]), torch.tensor([False]))
    batches = [(images, [target] * config.batch_size)]
    frozen = min(config.freeze_epochs, config.epochs)
    seconds = 0.0
    for epochs, freeze in ((frozen, True), (config.epochs - frozen, False)):
        if epochs:
            trainer.start_epoch(freeze_backbone=freeze)
            meter = EpochMeter()
            for _ in range(2):  # the first step includes one-time set-up
                meter.seconds = 0.0
                trainer.step(batches, meter)
                trainer.finish_step(meter)
            seconds += epochs * meter.seconds / config.batch_size
    return seconds


def save_grid_settings(folder: Path, config: CompareConfig, settings: Mapping[str, Any]) -> None:
    """Write args.yaml; a folder with other settings is refused.

    Raises:
        UserError: the folder holds a comparison with other settings; the message names them.
    """
    path, own = folder / "args.yaml", config_as_dict(config)
    passed_on = {name: as_plain(value) for name, value in settings.items()}
    if not (config.runs or config.no_train):
        resolved = config_as_dict(TrainConfig(**settings))
        # Settings of a recipe stay out: the file would be read as given, for all recipes.
        of_recipes = {name for preset in config.preset for name in read_recipe(preset)} - set(settings)
        passed_on = {
            name: value for name, value in resolved.items() if name not in NOT_PASSED_ON | of_recipes
        }
    if path.exists():
        stored = read_yaml(path)
        now = own | passed_on
        names = [name for name in stored | now if name not in _MAY_CHANGE]
        other = [name for name in names if stored.get(name) != now.get(name)]
        if other:
            shown = ", ".join(f"{name} {stored.get(name)} (now {now.get(name)})" for name in other)
            raise UserError(
                f"{folder}: holds a comparison with other settings: {shown}; give this one another --name"
            )
    save_args_yaml(own | passed_on, path)
