"""What a run starts from: its settings, data, network and optimizer."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from nets.attention import same_attention
from nets.loss import YoloLoss
from nets.yolo import YoloBody
from utils.cli.console import log, warn
from utils.cli.errors import UserError
from utils.cli.parser import config_as_dict, config_from_dict
from utils.cli.presets import with_preset
from utils.cli.train_config import TrainConfig
from utils.data.dataset import VocDataset
from utils.data.loader import TrainLoader, build_train_loader
from utils.data.prepare import TrainingData, prepare_training
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.training.distributed import copy_from_first, rank, restart_count, world_size
from utils.training.ema import ModelEma
from utils.training.engine import Trainer, known_norms
from utils.training.network import settled_by
from utils.training.optim import Schedule, build_optimizer
from utils.training.run import load_resumable
from utils.weights.checkpoint import Checkpoint

# What --demo changes, unless the command line says otherwise: three minutes on two CPU cores.
_DEMO = {
    "data": "runs/demo",
    "epochs": 8,
    "batch_size": 8,
    "imgsz": (288, 288),
    "freeze_epochs": 1,
    "close_mosaic": 2,
}


def resolve_settings(given: dict[str, Any]) -> tuple[TrainConfig, Path | None, Checkpoint | None]:
    """Turn what the command line gave into the run's settings.

    Args:
        given: settings by name, only those that were given.

    Returns:
        The settings; for a run that goes on also its folder and the checkpoint that they come from.

    Raises:
        UserError: a value makes no sense, or there is nothing to resume.
    """
    if given.get("resume") is not None:
        return _resume(given)
    chosen = with_preset(given)
    config = TrainConfig(**((_DEMO | chosen) if given.get("demo") else chosen))
    started = _find_restarted(config) if restart_count() else None
    if started is None:
        return config, None, None
    own = {"phi": config.phi} if ":" in config.phi else {}
    return _resume({"resume": str(started / "weights" / "last.pth"), **own})


def _resume(given: dict[str, Any]) -> tuple[TrainConfig, Path, Checkpoint]:
    path, checkpoint = load_resumable(given["resume"])
    phi, done = checkpoint.config.phi, checkpoint.training["epoch"]
    if ":" in phi and "phi" not in given:
        raise UserError(
            f"--resume {path}: has a block of your own; to let its code be imported add --phi {phi}"
        )
    if "phi" in given and not same_attention(given["phi"], phi):
        raise UserError(f"--resume {path}: was made with attention={phi}, you asked for {given['phi']}")
    if path.absolute().parent.name != "weights":
        raise UserError(
            f"--resume {path}: not in its run's folder (RUN/weights/last.pth), where the run goes on; put it "
            f"back, or start a new run from it: --weights {path}"
        )
    older = {"freeze_norms": False, "ema_memory": "recent"}  # as runs were before there was the choice
    stored = config_from_dict(TrainConfig, older | checkpoint.run_config, source=str(path))
    config = dataclasses.replace(stored, **{name: given[name] for name in given if name != "resume"})
    if config.epochs <= done:
        raise UserError(f"--resume {path}: {done} epochs are done; to go on give --epochs above that")
    if checkpoint.training["stopped_early"] and "epochs" not in given:
        raise UserError(
            f"--resume {path}: stopped after {done} epochs since mAP50 rose no more; to go on give --epochs"
        )
    meter = checkpoint.training["meter"]
    within = f" and {meter['batches']} batches" if meter else ""
    log(f"resuming {path} after {done} of {config.epochs} epochs{within}")
    # Of "last.pth" alone, typed in weights/, the parent's parent is weights/ again.
    folder = path.parent.parent if path.parent.name else path.absolute().parent.parent
    return config, folder, checkpoint


def _find_restarted(config: TrainConfig) -> Path | None:
    """Return the folder of the run that torchrun starts again: the newest, if it saved and was run like this.

    Where the newest has saved nothing yet, an older run of the same settings is another one.
    """
    own = re.compile(rf"{re.escape(config.name)}\d*")  # exp, exp2, exp3 ...
    found = [path for path in Path(config.project).glob("*/args.yaml") if own.fullmatch(path.parent.name)]
    written = sorted(found, key=lambda path: path.stat().st_mtime)
    if not written or not (written[-1].parent / "weights" / "last.pth").is_file():
        return None
    stored = yaml.safe_load(written[-1].read_text(encoding="utf-8"))
    possible = [config_as_dict(settled_by(config, knows_all)) for knows_all in (False, True)]
    return written[-1].parent if stored in possible else None


def prepare_machine(config: TrainConfig, device: torch.device, resumed: Checkpoint | None) -> None:
    """Set what holds for the whole process: --deterministic, and the threads of a run that goes on."""
    if config.sync_bn and (device.type != "cuda" or world_size() == 1):
        raise UserError("--sync-bn: needs several GPUs, a process each; start the run with torchrun")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants to be told by this
    # Some operations have no exact form on a GPU; there torch warns and names them.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=device.type != "cpu")
    torch.backends.cudnn.benchmark = not config.deterministic
    if resumed is None:
        return
    threads, processes = resumed.training["threads"], resumed.training["processes"]
    if config.deterministic:
        torch.set_num_threads(threads)
    elif threads != torch.get_num_threads():
        warn(f"the run began with {threads} threads, here are {torch.get_num_threads()}: digits may differ")
    if processes != world_size():
        warn(f"the run began with {processes} processes, now {world_size()}: the numbers will differ")


def load_data(config: TrainConfig) -> TrainingData:
    """Read and check what the run trains and selects on."""
    data = prepare_training(
        config.data,
        train=config.train,
        val=("none",) if config.overfit else config.val,
        seed=config.seed,
        **config.reading(),
    )
    if config.overfit is None:
        return data
    records = [record for record in data.train.records if record.names][: config.overfit]
    few = VocDataset(records, data.train.class_names)
    log(f"overfit: {len(few)} images to learn by heart and to be measured on")
    return dataclasses.replace(data, train=few, val=few, val_splits=data.train_splits)


def build_loader(config: TrainConfig, dataset: VocDataset, device: torch.device) -> TrainLoader:
    """Build the loader of this process's share of the augmented batches."""
    settings = AugmentSettings(config.mosaic, config.mixup, config.augment)
    if config.overfit:
        settings = AugmentSettings(0.0, 0.0, "none")
    close_epoch = config.epochs - min(config.close_mosaic, config.epochs // 2)
    samples = TrainDataset(dataset, config.imgsz, settings, config.seed, close_epoch=close_epoch)
    if config.cache:
        log(f"cache: {samples.cache() / 1e9:.2f} GB of decoded pictures in memory")
    return build_train_loader(
        samples,
        batch_size=config.batch_size,
        workers=config.workers,
        pin_memory=device.type == "cuda",
        rank=rank(),
        world_size=world_size(),
    )


def build_trainer(
    config: TrainConfig, model: YoloBody, batches_per_epoch: int, num_images: int, device: torch.device
) -> Trainer:
    """Build what trains a network, on the device; every process starts from the first one's weights.

    Args:
        config: the run's settings.
        model: the network.
        batches_per_epoch: number of the loader's batches.
        num_images: number of the training images; a step cannot have more.
        device: where to train.
    """
    config = settled_by(config, knows_all=False)  # what train.py has not settled already
    held_norms = known_norms(model) if config.freeze_norms else []  # first: --sync-bn changes their class
    if held_norms and config.sync_bn:
        warn("--sync-bn: statistics that came with --weights are held; --no-freeze-norms lets them follow")
    model = model.to(device).to(memory_format=torch.channels_last)
    if config.sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    copy_from_first(model)
    steps_per_epoch = math.ceil(batches_per_epoch / config.accumulate)
    optimizer = build_optimizer(
        model,
        name=config.optimizer,
        lr=cast(float, config.lr),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        batch_size=min(config.images_a_step, num_images),
    )
    schedule = Schedule(
        optimizer,
        kind=config.lr_schedule,
        total_steps=config.epochs * steps_per_epoch,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
    )
    remembered = config.epochs * steps_per_epoch if config.ema_memory == "run" else None
    return Trainer(
        model,
        build_criterion(config, model),
        optimizer,
        schedule,
        ema=ModelEma(model, steps_per_epoch, run_steps=remembered) if config.ema else None,
        held_norms=held_norms,
        accumulate=config.accumulate,
        clip_grad=config.clip_grad,
        autocast=_choose_precision(config.amp, device),
        compiled=config.compile,
    )


def _choose_precision(amp: bool | None, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision: bfloat16 has the range of float32, float16 a scaled loss."""
    if amp is False or (amp is None and device.type != "cuda"):
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def build_criterion(config: TrainConfig, model: YoloBody) -> YoloLoss:
    """Build the loss that belongs to a network."""
    return YoloLoss(
        num_classes=model.config.num_classes,
        anchors=model.config.anchors,
        anchor_masks=model.config.anchor_masks,
        scale_x_y=model.config.scale_x_y,
        label_smoothing=config.label_smoothing,
        normalization=config.loss,
    )
