"""Train YOLOv4-tiny on a VOC-format data set: python train.py --data VOCdevkit --phi cbam."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from nets.yolo import YoloBody
from utils.config import TrainConfig, config_as_dict, given_settings, save_args_yaml
from utils.console import log, run_command
from utils.data.dataset import VocDataset
from utils.data.demo import make_demo
from utils.device import choose_device
from utils.files import new_run_folder
from utils.inference.evaluate import evaluate
from utils.inference.predictor import Predictor
from utils.training.attention import check_attention
from utils.training.ema import ModelEma
from utils.training.engine import set_frozen, train_one_epoch
from utils.training.report import describe_epoch, log_estimate, log_next_commands
from utils.training.run import Run, restore_training_state, training_state
from utils.training.start import (
    build_criterion,
    build_loader,
    build_model,
    build_optimization,
    load_data,
    resolve_settings,
)
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
    config, folder, resumed = resolve_settings(given)
    device = choose_device(config.device)
    check_attention(config)
    torch.manual_seed(config.seed)
    if config.demo:
        make_demo(Path(config.data))
    data = load_data(config)
    loader, sampler = build_loader(config, data.train)
    model = build_model(config, data.train.class_names, resumed).to(device)
    criterion = build_criterion(config, model)
    optimizer, schedule = build_optimization(config, model, steps_per_epoch=len(loader))
    ema = ModelEma(model, len(loader)) if config.ema else None
    done = restore_training_state(resumed.training, model, ema, optimizer, schedule) if resumed else 0

    folder = folder or new_run_folder(config.project, config.name, config.exist_ok)
    run = Run(folder, resumed.training["best_map50"] if resumed else None)
    save_args_yaml(config, folder / "args.yaml")
    log(f"run folder: {folder}; should it stop: python train.py --resume {run.last}")
    log_estimate(config, model, criterion, len(data.train), done)
    for epoch in range(done, config.epochs):
        set_frozen(model, epoch < config.freeze_epochs)
        sampler.set_epoch(epoch)
        label = f"epoch {epoch + 1}/{config.epochs}"
        result = train_one_epoch(model, criterion, loader, optimizer, schedule, ema, device, label)
        average = ema.model if ema else model
        is_due = (epoch + 1) % config.eval_interval == 0 or epoch + 1 == config.epochs
        metrics = measure(config, average, data.val) if data.val and is_due else {}
        row = {"epoch": epoch + 1, "lr": schedule.get_last_lr()[0], **result.as_row(), **metrics}
        checkpoint = Checkpoint(
            config=model.config,
            class_names=data.train.class_names,
            weights=average.state_dict(),
            metrics=metrics,
            run_config=config_as_dict(config),
            training=training_state(epoch + 1, model, ema, optimizer, schedule),
        )
        run.finish_epoch(checkpoint, row)
        log(describe_epoch(label, row))
    log_next_commands(config, run.best, data)
    return 0


def measure(config: TrainConfig, model: YoloBody, val_set: VocDataset) -> dict[str, float | None]:
    """Evaluate on the selection split as evaluate.py does; returns the means by name."""
    device = next(model.parameters()).device
    predictor = Predictor(model, model.config, val_set.class_names, conf=0.001, device=device)
    result = evaluate(predictor, val_set, batch_size=config.batch_size, skip_bad=config.skip_bad)
    metrics = result.as_dict()
    return {name: metrics[name] for name in ("map50", "map50_95", "voc_ap50_area")}


if __name__ == "__main__":
    sys.exit(main())
