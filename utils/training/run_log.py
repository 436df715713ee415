"""Console output of a training run: time estimate, epoch table, next commands, advice on memory."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from nets.loss import WEIGHTS
from utils.cli.console import log, plural
from utils.cli.error_messages import is_out_of_memory
from utils.cli.errors import UserError
from utils.cli.parser import as_arguments
from utils.cli.presets import with_preset
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.data.input_sizes import InputSizes
from utils.data.prepare import TrainingData
from utils.data.samples import DataFolder, choose_evaluation_splits, load_samples
from utils.training.engine import EpochMeter

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_LONG_RUN = 600  # seconds, from which on shorter runs are suggested on a CPU
_MEASURED = 5  # seconds of steps that an estimate is made from
_FREE_TO_FROZEN = 2  # time of a step that trains the backbone too, relative to one that does not
_HEADING_EVERY = 20  # lines


class RunEstimate:
    """Estimate of a run's duration from its first steps, logged once.

    These steps take what they take with the precision, processes, batch size and data workers of the run; the
    first one, which includes one-time set-up, is left out.
    """

    def __init__(
        self,
        config: TrainConfig,
        sizes: InputSizes,
        num_images: int,
        epochs_done: int,
        meter: EpochMeter,
        device: torch.device,
    ) -> None:
        """Take the position of the run: the whole epochs that are done, and the meter of the current one.

        An epoch has `num_images` images.
        """
        self._config, self._sizes, self._device, self._epochs_done = config, sizes, device, epochs_done
        self._num_images, self._images_done = num_images, meter.images
        self._seen: EpochMeter | None = None
        self._epoch = epochs_done  # the one that is measured
        self._work, self._seconds = 0.0, 0.0
        self._is_logged = False

    def update(self, meter: EpochMeter) -> None:
        """Log the estimate once the steps since the first have taken a few seconds.

        For a long run on a CPU also log flags that shorten it.
        """
        if self._is_logged:
            return
        if self._seen is not None:
            is_new_epoch = meter.steps <= self._seen.steps
            before = EpochMeter() if is_new_epoch else self._seen
            self._epoch += is_new_epoch
            self._work += (meter.images - before.images) * self._cost(self._epoch)
            self._seconds += meter.seconds - before.seconds
        self._seen = replace(meter)
        if self._work and self._seconds >= _MEASURED:
            self._is_logged = True
            self._log()

    def _log(self) -> None:
        config, done = self._config, self._epochs_done
        epochs = sum(map(self._cost, range(done, config.epochs)))
        images = self._num_images * epochs - self._images_done * self._cost(done)
        duration = self._seconds / self._work * images
        what = (
            f"{plural(self._num_images, 'image')}, {plural(config.epochs - done, 'epoch')} on {self._device}"
        )
        log(f"{what}: about {format_duration(duration)} without evaluation")
        if self._device.type != "cpu" or duration <= _LONG_RUN or done > 0:  # a resumed run takes no advice
            return
        advice = []
        if (smaller := smaller_size(config.imgsz)) != config.imgsz:
            size = " ".join(map(str, dict.fromkeys(smaller)))
            advice.append(f"--imgsz {size} takes about half the time")
        if config.freeze_epochs < (half := config.epochs // 2):
            advice.append(f"--freeze-epochs {half} about three quarters")
        if advice:
            log(f"shorter: {', '.join(advice)}")

    def _cost(self, epoch: int) -> float:
        """Return the time of an image in an epoch, relative to that in others."""
        height, width = self._sizes.of_epoch(epoch)
        return height * width * (1 if epoch < self._config.freeze_epochs else _FREE_TO_FROZEN)


def smaller_size(imgsz: tuple[int, int]) -> tuple[int, int]:
    """Return three quarters of a network input's (height, width), in steps of 32: half of the work."""
    height, width = (max(32, side * 3 // 4 // 32 * 32) for side in imgsz)
    return height, width


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units: '1 h 05 min', '3 min 20 s', '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class EpochTable:
    """Console table of a run: a heading, then a line an epoch."""

    def __init__(self, epochs: int, first_epoch: int = 0) -> None:
        self._epochs = epochs
        self._first_epoch = first_epoch
        self._started = time.monotonic()
        self._lines = 0

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Log an epoch, given its row of results.csv."""
        epoch = int(row["epoch"] or 0)
        spent = (time.monotonic() - self._started) / max(epoch - self._first_epoch, 1)
        cells = {
            "epoch": f"{epoch}/{self._epochs}",
            **{name: f"{row[name]:.3f}" for name in WEIGHTS},
            "mAP50": "-" if row.get("map50") is None else f"{row['map50']:.4f}",
            "mAP50-95": "-" if row.get("map50_95") is None else f"{row['map50_95']:.4f}",
            "lr": f"{row['lr']:.2g}",
            "images/s": f"{row['images_per_second']:.1f}",
            "waiting": f"{row['waiting']:.1%}",
            "memory": f"{row['memory_gb']:.1f} GB",
            "left": format_duration(spent * (self._epochs - epoch)),
        }
        widths = {name: max(len(name), 8) for name in cells}
        if self._lines % _HEADING_EVERY == 0:
            log("  ".join(name.rjust(width) for name, width in widths.items()))
        self._lines += 1
        line = "  ".join(cells[name].rjust(width) for name, width in widths.items())
        if row["unassigned"]:
            line += f"  {plural(int(row['unassigned']), 'object')} without a free anchor"
        log(line + (f"  {plural(int(row['skipped']), 'step')} skipped" if row["skipped"] else ""))


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of the run so far in GB: the GPU's, else that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def log_next_commands(config: TrainConfig, best: Path, data: TrainingData, *, amp: bool = False) -> None:
    """Log what to type next: evaluate (in the precision of the run), predict and export commands."""
    weights = ["--weights", str(best), *(["--phi", config.phi] if ":" in config.phi else [])]
    evaluate = ["python", "evaluate.py", *weights, *replace(config, classes=None).data_arguments()]
    evaluate += ["--amp"] if amp else []
    try:
        choose_evaluation_splits(config.data)
    except UserError:
        evaluate += ["--split", *data.train_splits]
        log("no test or val split: evaluate below takes the training images; the score will be optimistic")
    predict = ["python", "predict.py", str(_find_unseen_picture(config, data)), *weights]
    log(f"best weights: {best}")
    log(f"evaluate: {shlex.join(evaluate)}")
    log(f"predict:  {shlex.join(predict)}")
    log(f"export:   {shlex.join(['python', 'export.py', *weights])}")


def _find_unseen_picture(config: TrainConfig, data: TrainingData) -> Path:
    """Return an image of val or test, or one of training if there is no other."""
    if data.val is not None:
        return data.val.records[0].image_path
    with suppress(UserError):
        folder = DataFolder(config.data)
        for split in choose_evaluation_splits(folder):
            for sample in load_samples(folder, split, unlabelled="background", on_warning=lambda _: None):
                if not sample.problem:
                    return sample.image_path
    return data.train.records[0].image_path


@contextmanager
def memory_advice(config: TrainConfig, given: Mapping[str, object]) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a UserError, and log commands that need less memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = {"imgsz": smaller_size(config.imgsz)}
        half = {"batch_size": max(config.batch_size // 2, 1), "accumulate": 2 * config.accumulate}
        frozen = {"freeze_epochs": config.epochs}
        is_single = config.batch_size == 1
        changes = (smaller, frozen, smaller | frozen) if is_single else (half, smaller, half | frozen)
        for change in changes:
            settings = {**_settings_of_new_run(config, given), **change}
            log(f"try: python train.py {shlex.join(as_arguments(TrainConfig, settings))}")
        first, second = (shlex.join(as_arguments(TrainConfig, change)) for change in changes[:2])
        tried = f"batch {config.batch_size} at {'x'.join(map(str, config.imgsz))}"
        raise UserError(f"out of memory with {tried}; try {first}, or {second}", exit_code=1) from error


def _settings_of_new_run(config: TrainConfig, given: Mapping[str, object]) -> Mapping[str, object]:
    """Return what was given; for a resumed run, which takes no other batch, a new run from its weights."""
    resumed = given.get("resume")
    if resumed is None:
        return given
    usual = vars(TrainConfig(**with_preset({"preset": config.preset}))) | {"preset": DEFAULT_PRESET}
    settings = vars(config) | {"new_heads": False}  # they are trained by now
    own = {name: value for name, value in settings.items() if value != usual[name]}
    return {**own, "weights": "last" if resumed == "auto" else resumed}
