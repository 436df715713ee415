"""The settings of train.py; flags, help text and YAML keys are derived from these fields."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nets.attention import ATTENTION
from nets.config import LOSS_NORMALIZATIONS, PLACES
from utils.cli.errors import UserError
from utils.cli.parser import setting
from utils.cli.shared_config import DEVICE_HELP, NAMED_WEIGHTS, DataConfig, RunConfig, check_imgsz, phi_name

_PHI = (
    "0|none, 1|se, 2|cbam, 3|eca, 4|ca, "
    f"{', '.join(list(ATTENTION)[5:])}, or a block of your own: path/to/file.py:Class or package.module:Class"
)
_START = f"{NAMED_WEIGHTS}, a .pth, .weights or .conv.N, or none"
DEFAULT_PRESET = "default"
AUGMENT_LEVELS = ("light", "default", "reference")
DEFAULT_LR = {"sgd": 0.01, "adamw": 0.001}
KNOWN_SHARE = 1 / 10  # of it, for weights that know every class: more would unlearn them in a short run


def _workers() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


@dataclass(frozen=True)
class TrainConfig(RunConfig, DataConfig):
    """Settings of train.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    train: tuple[str, ...] | None = setting(
        None,
        "splits to train on, such as VOC2007/trainval (default: train, else trainval)",
        nargs="+",
        metavar="SPLIT",
    )
    val: tuple[str, ...] | None = setting(
        None,
        "splits to select the best epoch on, or none (default: val, else a held-out tenth)",
        nargs="+",
        metavar="SPLIT",
    )
    phi: str = setting("none", f"attention block: {_PHI}", aliases=("--attention",))
    weights: str = setting("coco", f"what to start from: {_START} (random numbers)", metavar="FILE")
    epochs: int = setting(100, "times through the training images", metavar="N", within="[1, 100000]")
    batch_size: int = setting(
        16, "images a batch, over all processes of torchrun", metavar="N", within="[1, 65536]"
    )
    imgsz: tuple[int, int] = setting(
        (416, 416), "side of the network's input in pixels, or height and width", nargs="+", metavar="N"
    )
    device: str = setting("auto", DEVICE_HELP)
    workers: int = setting(
        _workers(), "processes that read images; 0 reads in this one", metavar="N", within="[0, 256]"
    )
    seed: int = setting(0, "of every random choice", metavar="N", within="[0, 4294967295]")
    freeze_epochs: int = setting(
        0, "epochs at the start with the backbone frozen", metavar="N", within="[0, 100000]"
    )
    patience: int = setting(
        0,
        "stop when mAP50 has not risen for so many epochs; 0 never",
        metavar="N",
        within="[0, 100000]",
    )
    resume: str | None = setting(
        None,
        "go on from a last.pth; without a value from the newest",
        nargs="?",
        bare="auto",
        metavar="FILE",
        alone_with=("epochs", "device", "workers", "phi"),
    )
    demo: bool = setting(False, "make a small data set under runs/demo and train on it")
    overfit: int | None = setting(
        None,
        "learn N images by heart, unaugmented, and be measured on them: shows that the setup can learn",
        metavar="N",
        within="[1, 100000]",
    )

    cache: bool = setting(False, "keep the decoded images in memory", group="data")
    augment: str = setting(
        "default",
        "how far colors, size and shape of the pictures are changed: light, default or reference",
        group="data",
        choices=AUGMENT_LEVELS,
    )
    mosaic: float = setting(
        0.5, "probability that a sample is made of four images", group="data", metavar="P", within="[0, 1]"
    )
    mixup: float = setting(
        0.0, "probability that a sample is blended with another", group="data", metavar="P", within="[0, 1]"
    )
    close_mosaic: int = setting(
        5,
        "epochs at the end without mosaic and mixup, at most half of the run",
        group="data",
        metavar="N",
        within="[0, 100000]",
    )

    anchors: str | None = setting(
        None,
        "file of anchors, width,height in network pixels, as data.py anchors writes it; official ones keep "
        "their masks, six others are halved between the heads unless the file says otherwise (default: those "
        "of --weights)",
        group="network",
        metavar="FILE",
    )
    phi_at: tuple[str, ...] = setting(
        ("c4", "c5", "up"),
        "where attention blocks stand",
        group="network",
        nargs="+",
        metavar="PLACE",
        choices=tuple(PLACES),
    )
    insert: str = setting(
        "preserve",
        "how a block that is new to the weights starts: preserve (the network computes what it did) or "
        "published (as the block initializes itself)",
        group="network",
        choices=("preserve", "published"),
    )
    new_heads: bool = setting(
        False, "start the last layers anew instead of with the rows of --weights", group="network"
    )
    partial: bool = setting(
        False, "take from --weights what fits, and print what does not, instead of stopping", group="network"
    )
    sync_bn: bool = setting(
        False, "batch normalization over all GPUs of torchrun instead of each alone", group="network"
    )

    preset: str = setting(
        DEFAULT_PRESET,
        "recipe whose settings hold where none is given: default or reference (that of "
        "bubbliiiing/yolov4-tiny-pytorch, model_data/recipes/reference.yaml)",
        group="optimization",
        metavar="NAME",
        beside_config=False,  # args.yaml names every setting, and what is named wins
    )
    loss: str = setting(
        "sums",
        "how the parts of the loss are weighed: sums (over the batch, divided by its positives) or means (of "
        "each head, as the reference implementation weighs them)",
        group="optimization",
        choices=LOSS_NORMALIZATIONS,
    )
    optimizer: str = setting("sgd", "sgd or adamw", group="optimization", choices=("sgd", "adamw"))
    lr: float | None = setting(
        None,
        "peak learning rate of a batch of 16; other batches take it in proportion (default: 0.01 for sgd, "
        "0.001 for adamw; a tenth of it where the last layers of --weights know every class already)",
        group="optimization",
        metavar="X",
        within="[0, 1e30]",
    )
    momentum: float = setting(
        0.937, "of SGD; the first beta of AdamW", group="optimization", metavar="X", within="[0, 1)"
    )
    weight_decay: float = setting(
        0.0005, "of convolution weights", group="optimization", metavar="X", within="[0, inf)"
    )
    lr_schedule: str = setting(
        "cos",
        "after the warm-up: cos (a half cosine to 1 %) or step (a tenth from 80 % of the steps, a hundredth "
        "from 90 %)",
        group="optimization",
        choices=("cos", "step"),
    )
    warmup_epochs: float = setting(
        1.0,
        "epochs in which the learning rate rises from 0, at most half of the run",
        group="optimization",
        metavar="X",
        within="[0, inf)",
    )
    accumulate: int = setting(
        1,
        "batches whose gradients make one step: a batch N times as large in the same memory",
        group="optimization",
        metavar="N",
        within="[1, 65536]",
    )
    clip_grad: float = setting(
        10.0,
        "largest norm of the gradient over all parameters; 0 for no limit",
        group="optimization",
        metavar="X",
        within="[0, inf)",
    )
    label_smoothing: float = setting(
        0.0, "class targets become 1 - X/2 and X/2", group="optimization", metavar="X", within="[0, 1)"
    )
    freeze_norms: bool = setting(
        True,
        "let the statistics of batch normalization that came with --weights follow the batches",
        group="optimization",
    )
    ema: bool = setting(True, "no moving average of the weights", group="optimization")

    ema_memory: str | None = setting(
        None,
        "what the average remembers: recent (two epochs) or run (it and its start, 5,000 steps at most; the "
        "default where --weights know every class already)",
        group="optimization",
        choices=("recent", "run"),
    )

    amp: bool | None = setting(
        None,
        "mixed precision: bfloat16 where the GPU has it, else float16 (default: on for CUDA only)",
        group="machine",
    )
    compile: bool = setting(False, "run the network through torch.compile", group="machine")
    deterministic: bool = setting(
        False, "only operations that give the same bits every time, also on a GPU", group="machine"
    )

    eval_interval: int = setting(
        1, "epochs from one evaluation to the next", group="output", metavar="N", within="[1, 100000]"
    )
    save_period: int = setting(
        0,
        "keep a checkpoint, weights/epochN.pth, every so many epochs; 0 keeps none",
        group="output",
        metavar="N",
        within="[0, 100000]",
    )
    save_steps: int = setting(
        0,
        "write last.pth every so many steps too; 0 at the end of an epoch only",
        group="output",
        metavar="N",
        within="[0, 1000000]",
    )
    project: str = setting("runs/train", "folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))
        if self.freeze_epochs > self.epochs:
            raise UserError(f"--freeze-epochs {self.freeze_epochs}: more than --epochs {self.epochs}")
        if self.val is not None and "none" in self.val and len(self.val) > 1:
            raise UserError(f"--val {' '.join(self.val)}: none cannot stand beside a split")
        if self.patience and self.val == ("none",):
            raise UserError(f"--patience {self.patience}: needs an evaluation; leave --val none out")
        if self.overfit and self.val is not None:
            raise UserError(f"--overfit {self.overfit}: measures on the images it trains on; leave --val out")
        if len(set(self.phi_at)) != len(self.phi_at):
            raise UserError(f"--phi-at {' '.join(self.phi_at)}: names a place twice")
        if self.batch_size == 1 and self.imgsz == (32, 32):
            raise UserError(
                "--batch-size 1: at --imgsz 32 batch normalization would see a single value; use at least 2"
            )

    @property
    def images_a_step(self) -> int:
        """Number of images whose gradients make one step."""
        return self.batch_size * self.accumulate
