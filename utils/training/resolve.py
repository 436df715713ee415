"""Resolution of a run's settings: preset, --demo, --resume, torchrun restarts, learning rate."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nets.attention import same_attention
from nets.loss import WEIGHTS
from utils.cli.class_names import match_class_names
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.cli.files import read_yaml
from utils.cli.inputs import locate_checkpoint, say_current_folder
from utils.cli.parser import config_as_dict, config_from_dict
from utils.cli.presets import build_train_config
from utils.cli.shared_config import AUGMENT_LEVELS, is_pipeline_file
from utils.cli.train_config import DEFAULT_LR, FINE_TUNING_FACTOR, TrainConfig
from utils.training.distributed import restart_count
from utils.training.engine import EpochMeter
from utils.weights.checkpoint import Checkpoint, load_checkpoint
from utils.weights.load import WeightsFile


class _Part(NamedTuple):
    """What a part of a training state must be: its types, and the range of a number."""

    kinds: tuple[type, ...]
    least: float = 0
    most: float = 1e9  # more than any run takes

    def fits(self, value: object) -> bool:
        if type(value) not in self.kinds:
            return False
        return not isinstance(value, (int, float)) or self.least <= value <= self.most


_NONE, _MISSING = type(None), type(...)  # missing: in checkpoints of older versions
_COUNT, _NUMBER = _Part((int,)), _Part((int, float), most=math.inf)
_FINGERPRINT = {
    **{"images": _COUNT, "ids": _Part((str,)), "objects": _Part((dict,))},
    "annotations": _Part((str, _MISSING)),
}
# The parts of a training state. Those of a part that is None or missing are not looked for.
_STATE: dict[str, _Part] = {
    **dict.fromkeys(("model", "optimizer", "schedule", "scaler", "random"), _Part((dict,))),
    **dict.fromkeys(("ema", "meter"), _Part((dict, _NONE))),
    **dict.fromkeys(("epoch", "risen_epoch", "skipped_in_a_row", "schedule.step", "ema.updates"), _COUNT),
    **dict.fromkeys(("threads", "processes"), _Part((int,), 1, 1e4)),
    "patience_epoch": _Part((int, _MISSING)),
    "stopped_early": _Part((bool,)),
    "best_map50": _Part((int, float, _NONE), 0, 1),
    "held_norms": _Part((list, _MISSING)),
    "gains": _Part((dict, _MISSING)),
    **dict.fromkeys((f"meter.{field.name}" for field in dataclasses.fields(EpochMeter)), _NUMBER),
    "meter.batches": _COUNT,
    "meter.losses": _Part((dict,)),
    **dict.fromkeys((f"meter.losses.{term}" for term in WEIGHTS), _NUMBER),
    "data": _Part((dict, _NONE, _MISSING)),
    **dict.fromkeys(("data.train", "data.val"), _Part((dict, _MISSING))),
    **{f"data.{split}.{key}": part for split in ("train", "val") for key, part in _FINGERPRINT.items()},
}


def resolve_config(given: dict[str, Any]) -> tuple[TrainConfig, Path | None, Checkpoint | None]:
    """Resolve the settings of the command line into those of the run.

    Args:
        given: settings by name, only those that were given.

    Returns:
        The settings; for a resumed run also its folder and its checkpoint.

    Raises:
        UserError: a value makes no sense, or there is nothing to resume.
    """
    if given.get("resume") is not None:
        return _resume(given)
    config = build_train_config(given)
    restarted = _find_restarted(config) if restart_count() else None
    if restarted is None:
        return config, None, None
    own = {name: getattr(config, name) for name in ("phi", "augment") if ":" in getattr(config, name)}
    return _resume({"resume": str(restarted / "weights" / "last.pth"), **own})


def _resume(given: dict[str, Any]) -> tuple[TrainConfig, Path, Checkpoint]:
    path = locate_checkpoint(given["resume"])  # "auto" is the newest last.pth under runs/train
    checkpoint = load_checkpoint(path)
    if "optimizer" not in checkpoint.training:
        raise UserError(f"--resume {path}: has no training state; resume from the last.pth beside it")
    if "scaler" not in checkpoint.training:
        raise UserError(
            f"--resume {path}: saved by an older version that cannot be resumed; start a new run from its "
            f"weights: --weights {path}"
        )
    _check_state(path, checkpoint.training)
    phi, done = checkpoint.config.phi, checkpoint.training["epoch"]
    if ":" in phi and "phi" not in given:
        raise UserError(
            f"--resume {path}: has an attention block of your own; to import its code add --phi {phi}"
        )
    if "phi" in given and not same_attention(given["phi"], phi):
        raise UserError(f"--resume {path}: was made with attention={phi}, you asked for {given['phi']}")
    if path.absolute().parent.name != "weights":
        raise UserError(
            f"--resume {path}: not in its run folder (RUN/weights/last.pth), which the run writes to; put it "
            f"back, or start a new run from it: --weights {path}"
        )
    older = {"freeze_norms": False, "ema_memory": "recent"}  # of runs before these settings existed
    stored = config_from_dict(TrainConfig, older | checkpoint.run_config, source=str(path))
    if not same_attention(stored.phi, phi):  # only the network's own was checked above
        raise _damaged(path, f"its settings say attention={stored.phi}, its network {phi}")
    if done > stored.epochs:
        raise _damaged(path, f"its 'epoch' is {done}, of {plural(stored.epochs, 'epoch')}")
    _check_augment(path, given.get("augment"), stored.augment)
    replaced = {name: given[name] for name in given if name != "resume"}
    if "data" in given:
        replaced["demo"] = False  # which would draw pictures into that folder
    elif not stored.demo and not Path(stored.data).is_dir():
        place = f"{stored.data} is missing{say_current_folder(stored.data)}"
        raise UserError(
            f"--resume {path}: its data {place}; resume from the folder where the "
            "run began, or name where the data is now: --data DIR"
        )
    config = dataclasses.replace(stored, **replaced)
    epochs_done = plural(done, "epoch")
    if config.epochs <= done:
        raise UserError(f"--resume {path}: {epochs_done} done; to train longer give a larger --epochs")
    if checkpoint.training["stopped_early"] and "epochs" not in given:
        raise UserError(
            f"--resume {path}: stopped early after {epochs_done} (--patience); to train longer give --epochs"
        )
    meter = checkpoint.training["meter"]
    within = f" and {plural(meter['batches'], 'batch', 'batches')}" if meter else ""
    log(f"resuming {path} after {done} of {plural(config.epochs, 'epoch')}{within}")
    # Of "last.pth" alone, typed in weights/, the parent's parent is weights/ again.
    folder = path.parent.parent if path.parent.name else path.absolute().parent.parent
    return config, folder, checkpoint


def _check_state(path: Path, training: Mapping[str, Any]) -> None:
    """Check the parts of the training state; the trainer compares the tensors with its own."""
    for name, part in _STATE.items():
        *parents, key = name.split(".")
        holder: Any = training
        for parent in parents:
            holder = (holder or {}).get(parent)
        value = ... if holder is None else holder.get(key, ...)
        if holder is not None and not part.fits(value):
            raise _damaged(path, f"its {name!r} is {_say(value)}")
    if unknown := [key for key in training["meter"] or () if f"meter.{key}" not in _STATE]:
        raise _damaged(path, f"its 'meter' has {str(unknown[0])[:40]!r}")
    if (broken := next(_not_finite(training), None)) is not None:
        raise _damaged(path, f"its {broken[1:]!r} is not finite")


def _say(value: object) -> str:
    if value is ...:
        return "missing"
    return str(value) if isinstance(value, (int, float)) else f"of type {type(value).__name__}"


def _not_finite(value: object, name: str = "") -> Iterator[str]:
    """Yield the names of the numbers and tensors in a value that are not finite."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}")
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, Tensor):
        is_finite = value.layout == torch.strided and bool(value.isfinite().all())
    if not is_finite:
        yield name


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"--resume {path}: damaged training state: {what}; start a new run from its weights: --weights {path}"
    )


def _check_augment(path: Path, given: str | None, stored: str) -> None:
    """Refuse other augmentation than that of the run, and code of the user's that is not named again."""
    if given is None and ":" in stored and not is_pipeline_file(stored):
        raise UserError(
            f"--resume {path}: has transforms of your own; to import their code add --augment {stored}"
        )
    if given not in (None, stored) and {given, stored} & set(AUGMENT_LEVELS):
        raise UserError(f"--resume {path}: was made with --augment {stored}, you asked for {given}")
    if given is None and is_pipeline_file(stored) and not Path(stored).is_file():
        raise UserError(
            f"--resume {path}: its transforms {stored} are missing; name where they are now: --augment FILE"
        )


def _find_restarted(config: TrainConfig) -> Path | None:
    """Return the folder of the run that torchrun restarts: the newest one.

    None if that has no checkpoint or other settings: an older run with these settings is another run.
    """
    own = re.compile(rf"{re.escape(config.name)}\d*")  # exp, exp2, exp3 ...
    found = [path for path in Path(config.project).glob("*/args.yaml") if own.fullmatch(path.parent.name)]
    written = sorted(found, key=lambda path: path.stat().st_mtime)
    if not written or not (written[-1].parent / "weights" / "last.pth").is_file():
        return None
    stored = read_yaml(written[-1])
    possible = [config_as_dict(default_lr_and_ema(config, is_known)) for is_known in (False, True)]
    return written[-1].parent if stored in possible else None


def resolve_lr_and_ema(
    config: TrainConfig, source: WeightsFile | None, class_names: tuple[str, ...]
) -> TrainConfig:
    """Choose learning rate and EMA memory where none is given, by whether the weights know every class."""
    if None not in (config.lr, config.ema_memory):
        return config
    is_fine_tuning = _is_fine_tuning(config, source, class_names)
    resolved = default_lr_and_ema(config, is_fine_tuning)
    if is_fine_tuning:
        gentle = [f"lr {resolved.lr:g}"] if config.lr is None else []
        gentle += ["average over the run"] if config.ema and config.ema_memory is None else []
        if gentle:
            log(f"{config.weights} knows every class: {', '.join(gentle)}")
    return resolved


def default_lr_and_ema(config: TrainConfig, is_fine_tuning: bool) -> TrainConfig:
    """Fill in learning rate and EMA memory where none is given."""
    lr = DEFAULT_LR[config.optimizer] * (FINE_TUNING_FACTOR if is_fine_tuning else 1)
    memory = "run" if is_fine_tuning else "recent"
    return dataclasses.replace(
        config, lr=lr if config.lr is None else config.lr, ema_memory=config.ema_memory or memory
    )


def _is_fine_tuning(config: TrainConfig, source: WeightsFile | None, class_names: tuple[str, ...]) -> bool:
    """Return whether the heads' weights are loaded and know every class; --overfit takes the full rate."""
    if source is None or config.anchors is not None or config.new_heads or config.overfit is not None:
        return False
    if config.heads not in (None, source.config.num_heads):
        return False
    known = source.class_names if "head_p5.predict.weight" in source.state_dict else None
    return None not in match_class_names(known or (), class_names)
