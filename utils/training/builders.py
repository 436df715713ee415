"""Builders of a training run from its config: data, model, loss, optimizer."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping

import torch

from nets.config import THIRD_HEAD_PLACES, USUAL_ANCHORS, ModelConfig
from nets.loss import YoloLoss
from nets.yolo import YoloBody
from utils.cli.anchor_file import describe_anchors
from utils.cli.class_names import read_class_names
from utils.cli.console import log, plural, warn
from utils.cli.errors import UserError
from utils.cli.inputs import COCO_WEIGHTS, VOC_WEIGHTS
from utils.cli.train_config import TrainConfig
from utils.data.augmentation_check import check_augmentation
from utils.data.balance import describe_balance
from utils.data.canvas import choose_canvas
from utils.data.dataset import VocDataset
from utils.data.input_sizes import build_input_sizes
from utils.data.loader import TrainLoader
from utils.data.prepare import TrainingData, prepare_training
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.inference.device import autocast_dtype, has_fast_bfloat16, precision_name
from utils.training.block_trial import check_attention
from utils.training.distributed import (
    all_gather,
    broadcast_from_rank_zero,
    local_rank,
    rank,
    rank_device,
    run_on_all_ranks,
    world_size,
)
from utils.training.ema import ModelEma
from utils.training.engine import Trainer, pretrained_bn
from utils.training.fingerprint import check_same_data, check_same_transforms
from utils.training.optim import Schedule, build_optimizer
from utils.training.resolve import default_lr_and_ema
from utils.weights.checkpoint import Checkpoint
from utils.weights.fetch import ensure_coco_weights
from utils.weights.load import WeightsFile, read_weights, usual_class_names
from utils.weights.own_block import build_network, to_channels_last
from utils.weights.transfer import transfer


def prepare(
    config: TrainConfig, resumed: Checkpoint | None
) -> tuple[torch.device, TrainingData, TrainLoader]:
    """Set up this process and load the data; finds every fault in settings and data before the first step.

    Rank 0 alone reads the annotations.

    Raises:
        UserError: something in the settings or the data is wrong.
    """
    device = run_on_all_ranks(lambda: rank_device(config.device))
    log(f"device {device}, precision {precision_name(autocast_dtype(config.amp, device))}")
    if device.type == "cpu" and torch.cuda.is_available():
        log("there is a GPU: --device cuda uses it")
    if config.amp and device.type == "cpu" and not has_fast_bfloat16(device):
        warn("--amp: this CPU is slower in bfloat16 than in float32; leave --amp out")
    run_on_all_ranks(lambda: prepare_process(config, device, resumed))
    run_on_all_ranks(lambda: check_attention(config))
    torch.manual_seed(config.seed)
    data = broadcast_from_rank_zero(lambda: load_data(config, resumed))
    if resumed is None and (canvas := choose_canvas(data.train, config.imgsz)).is_worthwhile:
        log(canvas.describe())
    loader = run_on_all_ranks(lambda: build_loader(config, data.train, device, resumed))
    if config.cache:
        cache_training_images(loader)
    return device, data, loader


def prepare_process(config: TrainConfig, device: torch.device, resumed: Checkpoint | None) -> None:
    """Set the options of the whole process: --deterministic, and the thread count of a resumed run."""
    if config.sync_bn and (device.type != "cuda" or world_size() == 1):
        raise UserError("--sync-bn: needs several GPUs, a process each; start the run with torchrun")
    if config.deterministic or torch.are_deterministic_algorithms_enabled():  # the call imports the compiler
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        # Some operations have no deterministic form on a GPU; there torch warns and names them.
        torch.use_deterministic_algorithms(config.deterministic, warn_only=device.type != "cpu")
    torch.backends.cudnn.benchmark = not config.deterministic
    if resumed is None:
        return
    threads, processes = resumed.training["threads"], resumed.training["processes"]
    if config.deterministic:
        torch.set_num_threads(threads)
    elif threads != torch.get_num_threads():
        change = f"{plural(threads, 'thread')}, now {torch.get_num_threads()}"
        warn(
            f"the run began with {change}: results may differ in the last digits; --deterministic restores "
            "the count"
        )
    if processes != world_size():
        change = f"{plural(processes, 'process', 'processes')}, now {world_size()}"
        warn(f"the run began with {change}: results will differ")
    precision = precision_name(autocast_dtype(config.amp, device))
    before = resumed.training.get("precision", precision)  # missing in older checkpoints
    if before != precision:
        warn(f"the run began in {before}, now {precision}: results and speed will differ")


def check_batch_of_one(config: TrainConfig, num_images: int) -> None:
    """Refuse a single image a step and process if batch normalization or a block cannot be trained on one."""
    if min(config.batch_size, num_images) // world_size() > 1:
        return
    if build_input_sizes(config).smallest == (32, 32):
        sides = " ".join(map(str, dict.fromkeys(config.imgsz)))
        raise UserError(
            f"--imgsz {sides}: with a single image a step of 32x32 pixels batch normalization would see a "
            "single value; use more images, or a larger --imgsz"
        )
    check_attention(config, batch_size=1)


def load_data(config: TrainConfig, resumed: Checkpoint | None = None) -> TrainingData:
    """Read and check the images to train and to validate on; those of a resumed run must be the same."""
    val = ("none",) if config.overfit else config.val
    data = prepare_training(config, config.train, val, config.seed)
    check_batch_of_one(config, len(data.train))
    if config.overfit is not None:
        records = [record for record in data.train.records if record.names][: config.overfit]
        few = VocDataset(records, data.train.class_names)
        log(f"overfit: trains and validates on the same {plural(len(few), 'image')}")
        data = dataclasses.replace(data, train=few, val=few, val_splits=data.train_splits)
    if resumed is not None:
        check_same_data(config.data, data, resumed)
    return data


def build_loader(
    config: TrainConfig, dataset: VocDataset, device: torch.device, resumed: Checkpoint | None = None
) -> TrainLoader:
    """Build the loader of this process's share of the augmented batches.

    Raises:
        UserError: a transform of the user's own cannot be used, or is not that of the resumed run.
    """
    settings = AugmentSettings(config.mosaic, config.mixup, config.augment)
    if config.overfit:
        settings = AugmentSettings(0.0, 0.0, "none")
    close_epoch = config.epochs - min(config.close_mosaic, config.epochs // 2)
    sizes = build_input_sizes(config)
    if config.multi_scale or config.grow:
        log(f"input sizes: {sizes.describe()}")
    samples = TrainDataset(
        dataset,
        config.imgsz,
        settings,
        config.seed,
        close_epoch=close_epoch,
        sizes=sizes,
        balance=config.balance,
    )
    if samples.repeats is not None:
        log(f"balance: {describe_balance(dataset, samples.repeats)}")
    check_augmentation(samples.augmenter)
    for size in {sizes.smallest, sizes.largest} - {sizes.full}:
        try:
            check_augmentation(samples.augmenter.resized(size))
        except UserError as error:
            raise UserError(f"{error}; it fits --imgsz: remove --multi-scale and --grow") from error
    if resumed is not None:
        check_same_transforms(samples.augmenter, resumed)
    return TrainLoader(
        samples,
        batch_size=config.batch_size,
        workers=config.workers,
        pin_memory=device.type == "cuda",
        rank=rank(),
        world_size=world_size(),
    )


def cache_training_images(loader: TrainLoader) -> None:
    """Decode the training images once per machine, for all of its ranks and their workers; call on all ranks.

    Raises:
        UserError: as `cache_images`, on all ranks.
    """
    samples = loader.dataset
    own = run_on_all_ranks(lambda: samples.fill_cache() if local_rank() == 0 else None)
    caches = all_gather(own)
    if own is None:
        samples.image_cache = caches[rank() - local_rank()]  # the ranks of a machine are consecutive
    else:
        log(f"cache: {own.nbytes / 1e9:.2f} GB of decoded images in {own.path}")


def fetch_weights(
    config: TrainConfig, given: Mapping[str, object], resumed: Checkpoint | None
) -> TrainConfig:
    """Download the COCO weights if the run starts from them and they are missing.

    A demo that cannot download them, because there is no network, starts from the bundled VOC weights.

    Raises:
        UserError: the download fails.
    """
    if resumed is not None or config.weights != "coco" or COCO_WEIGHTS.exists():
        return config
    try:
        ensure_coco_weights(COCO_WEIGHTS)
    except UserError:
        if not config.demo or "weights" in given or not VOC_WEIGHTS.is_file():
            raise
        warn(f"the COCO weights could not be downloaded; the demo starts from the bundled {VOC_WEIGHTS}")
        return dataclasses.replace(config, weights="voc")
    return config


def load_pretrained(config: TrainConfig, resumed: Checkpoint | None) -> WeightsFile | None:
    """Read what --weights names, with class names if they are known; None for a new or a resumed run.

    Class names that the file lacks are those of --classes if their number fits, else those of COCO or VOC.

    Raises:
        UserError: the file cannot be read.
    """
    if resumed is not None or config.weights == "none":
        return None
    source = read_weights(config.weights)
    if source.names_from is not None:
        log(f"class names of {source.path.name}: {source.names_from}")
    if source.class_names is not None:
        return source
    num_classes = source.config.num_classes
    names = read_class_names(config.classes) if config.classes else ()
    fitting = names if len(names) == num_classes else usual_class_names(num_classes)
    return dataclasses.replace(source, class_names=fitting)


def build_model(
    config: TrainConfig,
    class_names: tuple[str, ...],
    source: WeightsFile | None,
    resumed: Checkpoint | None = None,
) -> YoloBody:
    """Build the network, with the weights of `source` where they fit; logs what was loaded.

    The network of a resumed run is that of the checkpoint, whose weights are loaded later.

    Raises:
        UserError: the weights do not fit, or the data of a resumed run have other classes.
    """
    if resumed is not None:
        if resumed.class_names != class_names:
            known, found = ", ".join(resumed.class_names), ", ".join(class_names)
            raise UserError(
                f"--resume: the run has the classes {known}, the data now {found}; start a new run"
            )
        return build_network(dataclasses.replace(resumed.config, phi=config.phi))
    model_config = build_model_config(config, len(class_names), source)
    used = (model_config.anchors, model_config.anchor_masks)
    origin, is_assumed = config.anchors or "official", False
    if source and not config.anchors and used == (source.config.anchors, source.config.anchor_masks):
        origin = source.anchors_origin
        is_assumed = source.anchors_from is None and not source.is_partial
    if is_assumed or used != USUAL_ANCHORS[2]:
        log(f"anchors: {describe_anchors(*used)} ({origin})")
    model = build_network(model_config)
    if source is None:
        return model
    lines = transfer(
        model, class_names, source, insert=config.insert, partial=config.partial, new_heads=config.new_heads
    )
    for line in lines:
        log(line)
    return model


def build_model_config(
    config: TrainConfig, num_classes: int, source: WeightsFile | None = None
) -> ModelConfig:
    """Return the network of the settings; what they leave open is as in the starting weights.

    Raises:
        UserError: --anchors cannot be read, or --phi-at names places of a third head that there is not.
    """
    theirs = ModelConfig(num_classes) if source is None else source.config
    own = theirs.anchors, theirs.anchor_masks
    if config.heads not in (None, theirs.num_heads):
        own = USUAL_ANCHORS[config.heads]
    anchors, masks = config.read_anchors() or own
    if len(masks) < 3 and any(place in THIRD_HEAD_PLACES for place in config.phi_at):
        raise UserError(f"--phi-at {' '.join(config.phi_at)}: needs --heads 3")
    return ModelConfig(
        num_classes, config.phi, config.phi_at, config.imgsz, anchors, masks, scale_x_y=theirs.scale_x_y
    )


def build_criterion(config: TrainConfig, model: YoloBody) -> YoloLoss:
    """Build the loss of a network."""
    return YoloLoss(
        num_classes=model.config.num_classes,
        anchors=model.config.anchors,
        anchor_masks=model.config.anchor_masks,
        scale_x_y=model.config.scale_x_y,
        label_smoothing=config.label_smoothing,
        normalization=config.loss,
    )


def build_trainer(
    config: TrainConfig, model: YoloBody, batches_per_epoch: int, num_images: int, device: torch.device
) -> Trainer:
    """Build loss, optimizer, schedule and moving average of a network, which is moved to the device.

    A step has at most `num_images` images.
    """
    config = default_lr_and_ema(config, is_fine_tuning=False)  # where they are not resolved yet
    frozen_bn = pretrained_bn(model) if config.freeze_norms else []  # first: --sync-bn changes their class
    if frozen_bn and config.sync_bn:
        warn("--sync-bn: pretrained batch statistics stay frozen; --no-freeze-norms trains them")
    to_channels_last(model.to(device))
    if config.sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if rank() > 0:
        torch.manual_seed(config.seed + rank())  # a block that draws random numbers must not draw the same
    steps_per_epoch = math.ceil(batches_per_epoch / config.accumulate)
    optimizer = build_optimizer(model, config, min(config.images_a_step, num_images))
    total_steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    schedule = Schedule(optimizer, kind=config.lr_schedule, total_steps=total_steps, warmup_steps=warmup)
    run_steps = total_steps if config.ema_memory == "run" else None
    return Trainer(
        model,
        build_criterion(config, model),
        optimizer,
        schedule,
        ema=ModelEma(model, steps_per_epoch, run_steps=run_steps) if config.ema else None,
        frozen_bn=frozen_bn,
        clip_grad=config.clip_grad,
        autocast=autocast_dtype(config.amp, device),
        compiled=config.compile,
        find_unused=":" in config.phi,  # nobody knows what a block of the user's own leaves out
    )
