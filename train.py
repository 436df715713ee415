"""Train YOLOv4-tiny on a VOC-format data set: python train.py --data VOCdevkit --phi cbam."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import torch

from nets.loss import YoloLoss
from nets.yolo import ModelConfig, YoloBody
from utils.config import TrainConfig, config_as_dict, config_from_dict, given_settings, save_args_yaml
from utils.console import log, run_command
from utils.data.demo import make_demo
from utils.data.loaders import VocDataset, build_train_loader
from utils.data.splits import load_training_data
from utils.device import choose_device
from utils.files import new_run_folder
from utils.inference.evaluate import evaluate
from utils.inference.predictor import Predictor
from utils.training.ema import ModelEma
from utils.training.engine import set_frozen, train_one_epoch
from utils.training.optim import build_optimizer, build_schedule
from utils.training.run import Run, estimate_seconds, load_resumable, restore_training_state, training_state
from utils.weights.checkpoint import Checkpoint
from utils.weights.load import load_model
from utils.weights.transfer import transfer

DEMO = {"data": "runs/demo", "epochs": 12, "imgsz": (320, 320), "freeze_epochs": 2}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(train, argv)


def train(argv: list[str]) -> int:
    """Train as the arguments say."""
    config, folder, resumed = read_settings(argv)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    if config.demo:
        make_demo(Path(config.data))
    train_set, val_set = load_training_data(config)
    model = build_model(config, train_set.class_names, resumed).to(device)
    loader = build_train_loader(
        train_set,
        input_size=config.imgsz,
        batch_size=config.batch_size,
        workers=config.workers,
        seed=config.seed,
        mosaic=config.mosaic,
        mixup=config.mixup,
        close_epoch=config.epochs - config.close_mosaic,
    )
    steps = len(loader)
    criterion = YoloLoss(
        num_classes=model.config.num_classes,
        anchors=model.config.anchors,
        anchor_masks=model.config.anchor_masks,
        scale_x_y=model.config.scale_x_y,
        label_smoothing=config.label_smoothing,
    )
    optimizer = build_optimizer(
        model,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
    )
    schedule = build_schedule(
        optimizer, total_steps=config.epochs * steps, warmup_steps=round(config.warmup_epochs * steps)
    )
    ema = ModelEma(model, steps) if config.ema else None
    done = restore_training_state(resumed.training, model, ema, optimizer, schedule) if resumed else 0

    folder = folder or new_run_folder(config.project, config.name, config.exist_ok)
    run = Run(folder, resumed.training["best_map50"] if resumed else -1.0)
    save_args_yaml(config, folder / "args.yaml")
    log(f"run folder: {folder}")
    log_estimate(config, model, criterion, device, len(train_set), done)
    for epoch in range(done, config.epochs):
        set_frozen(model, epoch < config.freeze_epochs)
        loader.batch_sampler.set_epoch(epoch)
        label = f"epoch {epoch + 1}/{config.epochs}"
        result = train_one_epoch(model, criterion, loader, optimizer, schedule, ema, device, label)
        average = ema.model if ema else model
        metrics = measure(config, average, val_set, train_set.class_names, epoch, device)
        checkpoint = Checkpoint(
            model.config,
            train_set.class_names,
            average.state_dict(),
            metrics,
            config_as_dict(config),
            training_state(epoch + 1, model, ema, optimizer, schedule),
        )
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **result.as_row(), **metrics}
        run.finish_epoch(checkpoint, row, evaluates=val_set is not None)
        log(describe_epoch(label, row))
    log_next_commands(config, run)
    return 0


def read_settings(argv: list[str]) -> tuple[TrainConfig, Path | None, Checkpoint | None]:
    """Return the settings, and for --resume the run folder and the checkpoint that they come from."""
    given = given_settings(
        TrainConfig,
        argv,
        prog="train.py",
        description="Train YOLOv4-tiny, with or without attention, on data in PASCAL VOC format.",
        example="python train.py --data VOCdevkit --train VOC2007/trainval --phi cbam --epochs 50",
    )
    if given.get("resume") is None:
        return TrainConfig(**((DEMO | given) if given.get("demo") else given)), None, None
    path, checkpoint = load_resumable(given["resume"])
    stored = config_from_dict(TrainConfig, checkpoint.run_config, source=str(path))
    beside = {name: given[name] for name in ("epochs", "device", "workers") if name in given}
    config = dataclasses.replace(stored, **beside)
    log(f"resuming {path} after {checkpoint.training['epoch']} of {config.epochs} epochs")
    return config, path.parent.parent, checkpoint


def build_model(config: TrainConfig, class_names: tuple[str, ...], resumed: Checkpoint | None) -> YoloBody:
    """Build the network, started from --weights unless the run is resumed."""
    if resumed is not None:
        return YoloBody(resumed.config)
    shape = ModelConfig(len(class_names), config.phi, config.phi_at, config.imgsz)
    if config.weights == "none":
        return YoloBody(shape)
    source = load_model(config.weights, phi=config.phi if ":" in config.phi else None)
    outputs = {name: getattr(source.config, name) for name in ("anchors", "anchor_masks", "scale_x_y")}
    model = YoloBody(dataclasses.replace(shape, **outputs))
    for line in transfer(model, class_names, source):
        log(line)
    return model


def measure(
    config: TrainConfig, model: YoloBody, val_set: VocDataset | None, epoch: int, device: torch.device
) -> dict[str, float | None]:
    """Evaluate on the selection split at the end of an epoch, if it is due; returns the means by name."""
    due = (epoch + 1) % config.eval_interval == 0 or epoch + 1 == config.epochs
    if val_set is None or not due:
        return {}
    predictor = Predictor(model, model.config, val_set.class_names, conf=0.001, device=device)
    metrics = evaluate(predictor, val_set, batch_size=config.batch_size).as_dict()
    return {name: metrics[name] for name in ("map50", "map50_95", "voc_ap50_area")}


if __name__ == "__main__":
    sys.exit(main())
