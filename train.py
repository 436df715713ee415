"""Train YOLOv4-tiny on a VOC-format data set: python train.py --data VOCdevkit --phi cbam."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from utils.config import given_settings
from utils.console import log, run_command
from utils.data.demo import make_demo
from utils.data.loaders import TrainLoader
from utils.data.prepare import TrainingData
from utils.errors import Interrupted
from utils.failures import is_out_of_memory
from utils.files import new_run_folder
from utils.training.attention import check_attention
from utils.training.config import TrainConfig
from utils.training.distributed import (
    from_first,
    highest,
    is_launched,
    joined,
    one_by_one,
    own_device,
    rank,
    together,
)
from utils.training.engine import EpochMeter, Trainer, set_frozen
from utils.training.estimate import log_estimate
from utils.training.measure import columns_of, measure
from utils.training.report import EpochTable, describe_stop, explain_memory, log_next_commands, memory_in_use
from utils.training.run import Run
from utils.training.signals import StopSignals
from utils.training.start import (
    build_loader,
    build_model,
    build_trainer,
    load_data,
    prepare_machine,
    resolve_settings,
)
from utils.training.state import Place, find_place, take_snapshot


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(train, argv)


def train(argv: list[str]) -> int:
    """Train as the arguments say."""
    given = given_settings(
        TrainConfig,
        argv,
        prog="train.py",
        description="Train YOLOv4-tiny, with or without attention, on data in PASCAL VOC format.",
        example="python train.py --data VOCdevkit --train VOC2007/trainval --phi cbam --epochs 50",
    )
    with StopSignals(repeats_end=not is_launched()) as stop, joined():
        return train_in_processes(given, stop)


def train_in_processes(given: dict[str, Any], stop: StopSignals) -> int:
    """Set the run up, the same in each process, and go through its epochs."""
    config, folder, resumed = from_first(lambda: resolve_settings(given))
    device = together(lambda: own_device(config.device))
    together(lambda: prepare_machine(config, device, resumed))
    together(lambda: check_attention(config))
    torch.manual_seed(config.seed)
    if config.demo:
        from_first(lambda: make_demo(Path(config.data)))
    data = together(lambda: load_data(config))
    loader = together(lambda: build_loader(config, data.train, device))
    with one_by_one():
        model = build_model(config, data.train.class_names, resumed)
    trainer = build_trainer(config, model, len(loader), device)
    if resumed:
        trainer.load_state_dict(resumed.training)
    place = find_place(resumed)
    folder = from_first(lambda: folder or new_run_folder(config.project, config.name, config.exist_ok))
    with Run(folder, resumed.training if resumed else None, is_writer=rank() == 0) as run:
        run.keep_settings(config)
        log(f"run folder: {folder}; should it stop: python train.py --resume {run.last}")
        log_estimate(config, trainer.model, trainer.criterion, len(data.train), place.epoch)
        try:
            run_epochs(config, data, loader, trainer, run, stop, place)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise explain_memory(config, given) from error
            raise
    return 0


def run_epochs(
    config: TrainConfig,
    data: TrainingData,
    loader: TrainLoader,
    trainer: Trainer,
    run: Run,
    stop: StopSignals,
    place: Place,
) -> None:
    """Train, evaluate and save, epoch by epoch; a signal saves what there is."""
    snapshot = partial(take_snapshot, config, trainer, data.train.class_names)
    table, stops_early = EpochTable(config.epochs, place.epoch), False
    try:
        while place.epoch < config.epochs and not stops_early:
            with stop.deferred():
                for _ in train_steps(config, loader, trainer, place):
                    stop.check(highest(stop.requested or 0))
                    if config.save_steps and trainer.schedule.step % config.save_steps == 0:
                        run.save(snapshot(place))
                result = None
                if data.val and is_evaluated(config, place.epoch):
                    with stop.at_once():
                        result, _ = measure(config, trainer, data.val)
                row = {"epoch": place.epoch + 1, **place.meter.as_row(), **columns_of(result)}
                row["memory_gb"] = memory_in_use(trainer.device)
                place = Place(place.epoch + 1)
                is_best = run.judge(place.epoch, result)
                stops_early = 0 < config.patience <= place.epoch - run.best_epoch
                checkpoint = snapshot(place, metrics=columns_of(result), stopped_early=stops_early)
                is_kept = config.save_period > 0 and place.epoch % config.save_period == 0
                run.finish_epoch(checkpoint, row, result if is_best else None, is_best, is_kept)
                table.log(row)
    except Interrupted as interruption:
        if place.is_inside:
            run.save(snapshot(place))
        interruption.message = describe_stop(run.last, place)
        raise
    if stops_early:
        log(f"stopped: mAP50 has not risen since epoch {run.best_epoch} (--patience {config.patience})")
    log_next_commands(config, run.best, data)


def train_steps(
    config: TrainConfig, loader: TrainLoader, trainer: Trainer, place: Place
) -> Iterator[EpochMeter]:
    """Go through what is left of the epoch; yields after each step, when all can be saved."""
    set_frozen(trainer.model, place.epoch < config.freeze_epochs)
    batches = loader.epoch(place.epoch, place.meter.batches)
    label = f"epoch {place.epoch + 1}/{config.epochs}"
    return trainer.epoch(batches, place.meter, label, len(loader) - place.meter.batches)


def is_evaluated(config: TrainConfig, epoch: int) -> bool:
    """Tell whether an epoch, from 0, ends in an evaluation; the last one always does."""
    return (epoch + 1) % config.eval_interval == 0 or epoch + 1 == config.epochs


if __name__ == "__main__":
    sys.exit(main())
