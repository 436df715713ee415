"""Settings of train.py."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nets.attention import describe_names
from nets.config import LOSS_NORMALIZATIONS, PLACES, THIRD_HEAD_PLACES, Anchors, Masks
from utils.cli.anchor_file import read_anchors
from utils.cli.errors import UserError
from utils.cli.inputs import check_class_file, locate_weights
from utils.cli.parser import setting
from utils.cli.shared_config import (
    AUGMENT_HELP,
    AUGMENT_LEVELS,
    DEVICE_HELP,
    NAMED_WEIGHTS,
    DataConfig,
    RunConfig,
    check_augment,
    check_augment_file,
    check_imgsz,
    phi_name,
)

DEFAULT_PRESET = "default"
DEFAULT_LR = {"sgd": 0.01, "adamw": 0.001}
FINE_TUNING_FACTOR = 1 / 10  # of DEFAULT_LR for weights that know every class: more makes them forget


def _phi_help() -> str:
    return f"attention block: {describe_names()}, or your own: path/to/file.py:Class or package.module:Class"


def _workers() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


@dataclass(frozen=True)
class TrainConfig(RunConfig, DataConfig):
    """Settings of train.py; raises a UserError that names the flag of an invalid value."""

    train: tuple[str, ...] | None = setting(
        None, "splits to train on, such as VOC2007/trainval (default: train, else trainval)", metavar="SPLIT"
    )
    val: tuple[str, ...] | None = setting(
        None,
        "splits to select the best epoch on, or none (default: val, else a held-out tenth)",
        metavar="SPLIT",
    )
    phi: str = setting("none", _phi_help, aliases=("--attention",))
    weights: str = setting(
        "coco",
        f"initial weights: {NAMED_WEIGHTS}, a .pth, .weights or .conv.N file, or none (random)",
        metavar="FILE",
    )
    epochs: int = setting(100, "passes over the training images", within="[1, 100000]")
    batch_size: int = setting(16, "images per batch, over all processes of torchrun", within="[1, 65536]")
    imgsz: tuple[int, int] = setting((416, 416), "input side in pixels, or height and width")
    device: str = setting("auto", DEVICE_HELP)
    workers: int = setting(
        _workers(), "processes that load images; 0 loads in the main process", within="[0, 256]"
    )
    seed: int = setting(0, "seed of all random choices", within="[0, 4294967295]")
    freeze_epochs: int = setting(0, "first epochs with a frozen backbone", within="[0, 100000]")
    patience: int = setting(
        0, "stop after N epochs without a better mAP50; 0 never stops early", within="[0, 100000]"
    )
    resume: str | None = setting(
        None,
        "resume from this last.pth (no value: the newest); --data DIR if the data has moved",
        bare="auto",
        metavar="FILE",
        alone_with=("epochs", "device", "workers", "phi", "augment", "data"),
    )
    demo: bool = setting(False, "draw a small data set in runs/demo and train on it")
    overfit: int | None = setting(
        None,
        "overfit N images without augmentation and evaluate on them, to check that training works",
        within="[1, 100000]",
    )

    cache: bool = setting(False, "cache the decoded images in memory", group="data")
    augment: str = setting("default", AUGMENT_HELP, group="data", metavar="NAME")
    mosaic: float = setting(
        0.5, "probability of a mosaic of four images", group="data", metavar="P", within="[0, 1]"
    )
    mixup: float = setting(
        0.0, "probability of blending with another image", group="data", metavar="P", within="[0, 1]"
    )
    close_mosaic: int = setting(
        5, "last epochs without mosaic and mixup, at most half of the run", group="data", within="[0, 100000]"
    )

    multi_scale: bool = setting(
        False,
        "draw the input sides of each batch between 0.7 and 1.3 of --imgsz, in steps of 32; evaluate at "
        "--imgsz",
        group="data",
    )
    grow: bool = setting(
        False,
        "begin with 0.6 of --imgsz and grow, in steps of 32, to the full size for the last third of the "
        "epochs: cheaper epochs",
        group="data",
    )
    balance: bool = setting(
        False,
        "repeat images by their rarest class: one in a fraction f < 0.1 of the images is drawn sqrt(0.1 / f) "
        "times as often",
        group="data",
    )

    heads: int | None = setting(
        None,
        "number of heads: 2, or 3 with one for small objects, as in Darknet's yolov4-tiny-3l (default: as in "
        "--anchors, else in --weights)",
        group="network",
        within="[2, 3]",
    )
    anchors: str | None = setting(
        None,
        "file of anchors (width,height in input pixels) from data.py anchors; without a masks "
        "line, six anchors are split between two heads, nine between three, the large ones to P5 (default: "
        "from --weights)",
        group="network",
        metavar="FILE",
    )
    phi_at: tuple[str, ...] = setting(
        ("c4", "c5", "up"),
        "where attention blocks are inserted: c4 (stride 16), c5 (stride 32), up (upsampled P5); with "
        "--heads 3 also c3 (stride 8), up2 (upsampled P4)",
        group="network",
        metavar="PLACE",
        choices=tuple(PLACES),
    )
    insert: str = setting(
        "preserve",
        "initialization of a block that the weights lack: preserve (the network output stays the same) or "
        "published (the block's own)",
        group="network",
        choices=("preserve", "published"),
    )
    new_heads: bool = setting(
        False, "initialize the last layers randomly instead of from --weights", group="network"
    )
    partial: bool = setting(
        False, "load what fits from --weights and print the rest, instead of stopping", group="network"
    )
    sync_bn: bool = setting(
        False, "synchronize batch normalization over the GPUs of torchrun", group="network"
    )

    preset: str = setting(
        DEFAULT_PRESET,
        "training recipe, overridden by other flags: default, voc (of the bundled weights: --multi-scale "
        "--balance) or reference (of bubbliiiing/yolov4-tiny-pytorch); the files are in model_data/recipes",
        group="optimization",
        metavar="NAME",
        beside_config=False,  # args.yaml holds every setting, and each overrides the recipe
    )
    loss: str = setting(
        "sums",
        "normalization of the loss: sums (over the batch, divided by its positives) or means (per head, with "
        "the weights of the reference implementation)",
        group="optimization",
        choices=LOSS_NORMALIZATIONS,
    )
    optimizer: str = setting("sgd", "sgd or adamw", group="optimization", choices=("sgd", "adamw"))
    lr: float | None = setting(
        None,
        "peak learning rate for a batch of 16, scaled linearly with the batch (default: 0.01 for sgd, 0.001 "
        "for adamw; a tenth of it if --weights know every class)",
        group="optimization",
        within="[0, 1e30]",
    )
    momentum: float = setting(
        0.937, "momentum of SGD, first beta of AdamW", group="optimization", within="[0, 1)"
    )
    weight_decay: float = setting(
        0.0005, "weight decay of the convolution weights", group="optimization", within="[0, inf)"
    )
    lr_schedule: str = setting(
        "cos",
        "after the warm-up: cos (half cosine to 1 %) or step (1/10 from 80 % of the steps, 1/100 from 90 %)",
        group="optimization",
        choices=("cos", "step"),
    )
    warmup_epochs: float = setting(
        1.0,
        "epochs of linear warm-up of the learning rate, at most half of the run",
        group="optimization",
        within="[0, inf)",
    )
    accumulate: int = setting(
        1,
        "batches per optimizer step: an N times larger batch in the same memory",
        group="optimization",
        within="[1, 65536]",
    )
    clip_grad: float = setting(
        10.0,
        "maximum gradient norm over all parameters; 0 for no limit",
        group="optimization",
        within="[0, inf)",
    )
    label_smoothing: float = setting(
        0.0, "label smoothing: class targets are 1 - X/2 and X/2", group="optimization", within="[0, 1)"
    )
    freeze_norms: bool = setting(
        True, "update the batch normalization statistics that came with --weights", group="optimization"
    )
    ema: bool = setting(True, "no exponential moving average of the weights", group="optimization")

    ema_memory: str | None = setting(
        None,
        "span of the moving average: recent (two epochs) or run (all of it, at most 5,000 steps; default if "
        "--weights know every class)",
        group="optimization",
        choices=("recent", "run"),
    )

    amp: bool | None = setting(
        None,
        "mixed precision: bfloat16, on a GPU without it float16 (default: on for CUDA, and on a CPU with "
        "fast bfloat16)",
        group="machine",
    )
    compile: bool = setting(False, "compile the network with torch.compile", group="machine")
    deterministic: bool = setting(False, "deterministic operations only, also on a GPU", group="machine")

    eval_interval: int = setting(1, "epochs between evaluations", group="output", within="[1, 100000]")
    save_period: int = setting(
        0, "keep weights/epochN.pth every N epochs; 0 keeps none", group="output", within="[0, 100000]"
    )
    save_steps: int = setting(
        0,
        "also write last.pth every N steps; 0 only at the end of an epoch",
        group="output",
        within="[0, 1000000]",
    )
    project: str = setting("runs/train", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        check_imgsz(self.imgsz)
        check_augment(self.augment)
        object.__setattr__(self, "phi", phi_name(self.phi))
        if self.freeze_epochs > self.epochs:
            raise UserError(f"--freeze-epochs {self.freeze_epochs}: more than --epochs {self.epochs}")
        if self.val is not None and "none" in self.val and len(self.val) > 1:
            raise UserError(f"--val {' '.join(self.val)}: none cannot be combined with a split")
        if self.patience and self.val == ("none",):
            raise UserError(f"--patience {self.patience}: needs an evaluation; remove --val none")
        if self.overfit and self.val is not None:
            raise UserError(f"--overfit {self.overfit}: evaluates on the training images; remove --val")
        has_own_augment = self.augment not in AUGMENT_LEVELS
        unused = {"multi-scale": self.multi_scale, "balance": self.balance, "augment": has_own_augment}
        for flag in (flag for flag, is_given in unused.items() if self.overfit and is_given):
            raise UserError(f"--overfit {self.overfit}: trains without augmentation; remove --{flag}")
        if len(set(self.phi_at)) != len(self.phi_at):
            raise UserError(f"--phi-at {' '.join(self.phi_at)}: a place is given twice")
        if self.heads == 2 and any(place in THIRD_HEAD_PLACES for place in self.phi_at):
            raise UserError(f"--phi-at {' '.join(self.phi_at)}: needs --heads 3")
        if self.batch_size == 1 and self.imgsz == (32, 32):
            raise UserError(
                "--batch-size 1: at --imgsz 32 batch normalization sees one value per channel; use at least 2"
            )

    def check_inputs(self) -> None:
        """Check that data folder and weights exist and that the text files can be read; else a UserError."""
        if not self.demo:
            super().check_inputs()
        if self.weights != "none":
            locate_weights(self.weights)
        check_class_file(self.classes)
        check_augment_file(self.augment)
        self.read_anchors()

    def read_anchors(self) -> tuple[Anchors, Masks] | None:
        """Read --anchors and its masks, None without; a UserError if they are not for --heads."""
        if self.anchors is None:
            return None
        anchors, masks = read_anchors(self.anchors)
        if self.heads not in (None, len(masks)):
            raise UserError(
                f"--heads {self.heads}: {self.anchors} has anchors for {len(masks)} heads; "
                "`python data.py anchors --heads` fits others"
            )
        return anchors, masks

    @property
    def images_a_step(self) -> int:
        """Number of images per optimizer step."""
        return self.batch_size * self.accumulate
