"""Train YOLOv4-tiny on a VOC-format data set: python train.py --data VOCdevkit --phi cbam."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from utils.cli.console import log, run_command
from utils.cli.error_messages import is_out_of_memory
from utils.cli.files import new_run_folder
from utils.cli.parser import given_settings
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.demo import make_demo
from utils.data.loader import TrainLoader
from utils.data.prepare import TrainingData
from utils.training.attention import check_attention, check_smallest_batch
from utils.training.distributed import (
    from_first,
    is_launched,
    joined,
    one_by_one,
    own_device,
    rank,
    together,
)
from utils.training.estimate import log_estimate
from utils.training.loop import Job, draw_data, run_epochs
from utils.training.network import build_model, settle
from utils.training.report import explain_memory
from utils.training.run import Run
from utils.training.setup import (
    build_loader,
    build_trainer,
    load_data,
    prepare_machine,
    resolve_settings,
)
from utils.training.state import find_place
from utils.weights.checkpoint import Checkpoint


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
    if config.demo:
        from_first(lambda: make_demo(Path(config.data)))
    device, data, loader = together(lambda: prepare(config, resumed))
    with one_by_one():
        config = settle(config, data.train.class_names)
        model = build_model(config, data.train.class_names, resumed)
    trainer = build_trainer(config, model, len(loader), len(data.train), device)
    if resumed:
        trainer.load_state_dict(resumed.training)
    place = find_place(resumed)
    folder = from_first(lambda: folder or new_run_folder(config.project, config.name, config.exist_ok))
    with Run(folder, resumed.training if resumed else None, is_writer=rank() == 0) as run:
        run.keep_settings(config)
        log(f"run folder: {folder}; should it stop: python train.py --resume {run.last}")
        log_estimate(config, trainer.model, trainer.criterion, len(data.train), place.epoch)
        job = Job(config, data, loader, trainer, run, stop)
        draw_data(job)
        try:
            run_epochs(job, place)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise explain_memory(config, given) from error
            raise
    return 0


def prepare(
    config: TrainConfig, resumed: Checkpoint | None
) -> tuple[torch.device, TrainingData, TrainLoader]:
    """Find all that is wrong with the machine, the settings and the data before the first step."""
    device = own_device(config.device)
    prepare_machine(config, device, resumed)
    check_attention(config)
    torch.manual_seed(config.seed)
    data = load_data(config)
    check_smallest_batch(config, len(data.train))
    return device, data, build_loader(config, data.train, device)


if __name__ == "__main__":
    sys.exit(main())
