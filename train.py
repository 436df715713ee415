"""Train YOLOv4-tiny on a VOC-format data set: python train.py --data VOCdevkit --phi cbam."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.console import log, run_command
from utils.cli.inputs import check_data_folder, locate_checkpoint
from utils.cli.parser import given_settings
from utils.cli.presets import build_train_config
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_parse_and_train, argv)


def _parse_and_train(argv: list[str]) -> int:
    given = given_settings(
        TrainConfig,
        argv,
        prog="train.py",
        description="Train YOLOv4-tiny, with or without attention, on data in PASCAL VOC format.",
        example="python train.py --data VOCdevkit --train VOC2007/trainval --phi cbam --epochs 50",
    )
    # Under torchrun all processes would print the error, and only the first needs to see the files.
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if given.get("resume") is not None:
            locate_checkpoint(given["resume"])
            if "data" in given:
                check_data_folder(given["data"])
        else:
            build_train_config(given).check_inputs()
    return train(given)


def train(given: dict[str, Any]) -> int:
    """Train with the given settings; everything that needs torch is imported here, after parsing.

    Args:
        given: settings by name, only those that were given.
    """
    from utils.data.demo import make_demo
    from utils.training.builders import build_model, build_trainer, fetch_weights, load_pretrained, prepare
    from utils.training.distributed import (
        broadcast_from_rank_zero,
        is_distributed,
        process_group,
        rank,
        rank_zero_first,
    )
    from utils.training.resolve import resolve_config, resolve_lr_and_ema
    from utils.training.run_folder import Run, choose_run_folder
    from utils.training.run_log import memory_advice
    from utils.training.train_loop import Job, position_of, resume_command, run_epochs

    with StopSignals(repeats_end=not is_distributed()) as stop, process_group():
        config, folder, resumed = broadcast_from_rank_zero(lambda: resolve_config(given))
        if config.demo:
            broadcast_from_rank_zero(lambda: make_demo(Path(config.data)))
        device, data, loader = prepare(config, resumed)
        class_names = data.train.class_names
        with rank_zero_first():
            config = fetch_weights(config, given, resumed)
            source = load_pretrained(config, resumed)
            config = resolve_lr_and_ema(config, source, class_names)
            model = build_model(config, class_names, source, resumed)
        trainer = build_trainer(config, model, len(loader), loader.num_images, device)
        if resumed:
            trainer.load_state_dict(resumed.training)
        position = position_of(resumed)
        folder = broadcast_from_rank_zero(lambda: choose_run_folder(config, model, folder))
        with Run(folder, resumed.training if resumed else None, is_writer=rank() == 0) as run:
            run.save_args(config)
            log(f"run folder: {folder}; to resume a stopped run: {resume_command(config, run.last)}")
            job = Job(config, data, loader, trainer, run, stop)
            with memory_advice(config, given):
                run_epochs(job, position)
    return 0


if __name__ == "__main__":
    sys.exit(main())
