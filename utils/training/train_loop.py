"""Training loop: the epochs of a run, their evaluation and checkpoints, and stopping on a signal."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from utils.cli.console import log, plural, progress, warn
from utils.cli.errors import Interrupted, UserError
from utils.cli.parser import config_as_dict
from utils.cli.shared_config import AUGMENT_LEVELS
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.loader import TrainLoader
from utils.data.prepare import TrainingData
from utils.inference.evaluation import DatasetDetections, EvalResult, detect_dataset, score_detections
from utils.inference.evaluation_pictures import draw_summary
from utils.inference.predictor import Predictor
from utils.metrics.diagnose import ENOUGH_STEPS, explain_low_map, find_correction
from utils.training.distributed import broadcast_from_rank_zero, launcher, max_over_ranks, world_size
from utils.training.engine import EpochMeter, Trainer, accumulated
from utils.training.fingerprint import fingerprint
from utils.training.run_folder import Run
from utils.training.run_log import EpochTable, RunEstimate, log_next_commands, peak_memory
from utils.training.run_pictures import save_train_batch, save_val_batch
from utils.vision.plots.label_plots import plot_labels
from utils.vision.plots.training_curves import plot_results
from utils.weights.checkpoint import Checkpoint

Evaluation = tuple[EvalResult, DatasetDetections]
METRIC_COLUMNS = ("map50", "map50_95", "voc_ap50_area")  # of results.csv
_PICTURES_EVERY = 10  # epochs
_LOW_MAP50 = 0.01  # calls for an explanation
_OVERFIT_MAP50 = 0.9  # on the training images themselves


@dataclass
class Position:
    """Position of a run: the number of whole epochs done, and the totals of the current one."""

    epoch: int = 0
    meter: EpochMeter = field(default_factory=EpochMeter)

    @property
    def is_within_epoch(self) -> bool:
        """Whether an epoch has begun and is not evaluated yet."""
        return self.meter.batches > 0


def position_of(resumed: Checkpoint | None) -> Position:
    """Return the position that a checkpoint was saved at; without one the start."""
    if resumed is None:
        return Position()
    return Position(resumed.training["epoch"], EpochMeter(**(resumed.training["meter"] or {})))


@dataclass(frozen=True)
class Job:
    """The parts of a training run."""

    config: TrainConfig
    data: TrainingData
    loader: TrainLoader
    trainer: Trainer
    run: Run
    stop: StopSignals

    def checkpoint(
        self, position: Position, metrics: dict[str, Any] | None = None, stopped_early: bool = False
    ) -> Checkpoint:
        """Build the checkpoint of the run; it resumes bit for bit and loads with `weights_only=True`."""
        training = {
            "epoch": position.epoch,
            "meter": dataclasses.asdict(position.meter) if position.is_within_epoch else None,
            "stopped_early": stopped_early,
            "threads": torch.get_num_threads(),
            "processes": world_size(),
            "data": self._fingerprint,
            "augment": self.loader.dataset.augmenter.own_hash,
            **self.trainer.state_dict(),
        }
        return Checkpoint(
            config=self.trainer.model.config,
            class_names=self.data.train.class_names,
            weights=self.trainer.average.folded_state_dict(),
            metrics=metrics or {},
            run_config=config_as_dict(self.config),
            training=training,
        )

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.data)

    def check_signals(self) -> None:
        """Raise Interrupted if a signal came to any rank."""
        self.stop.check(max_over_ranks(self.stop.requested or 0))


def run_epochs(job: Job, position: Position) -> None:
    """Train from a position to the end of the run.

    Raises:
        Interrupted: a signal came; the state is saved, and the message says where.
        UserError: the loss is not finite, or the weights at the end.
    """
    config, first, stops_early = job.config, position.epoch, False
    estimate = RunEstimate(
        config,
        job.loader.dataset.sizes,
        job.loader.num_images,
        position.epoch,
        position.meter,
        job.trainer.device,
    )
    table = EpochTable(config.epochs, first)
    try:
        while position.epoch < config.epochs and not stops_early:
            job.check_signals()  # one may have come while the epoch was saved
            with job.stop.deferred():
                train_epoch(job, position, estimate, is_first=position.epoch == first)
                stops_early = broadcast_from_rank_zero(partial(finish_epoch, job, position, table, first))
            position = Position(position.epoch + 1)
    except Interrupted as interruption:
        is_saved = save(job, position) if position.is_within_epoch else position.epoch > 0
        interruption.message = _describe_stop(job.config, job.run.last, position, is_saved)
        raise
    if not job.trainer.is_finite:
        raise UserError("the run ended with weights that are not finite; try a lower --lr", exit_code=1)
    if stops_early:
        since, patience = job.run.risen_epoch, config.patience
        log(f"stopped early: mAP50 has not risen since epoch {since} (--patience {patience})")
    log_next_commands(config, job.run.best, job.data, amp=job.trainer.autocast is not None)


def train_epoch(job: Job, position: Position, estimate: RunEstimate, *, is_first: bool) -> None:
    """Train on the rest of an epoch, `is_first` of this process.

    Raises:
        Interrupted: a signal came to any rank; all steps before are counted.
        UserError: an image cannot be read, or the loss is not finite.
    """
    config, trainer, meter = job.config, job.trainer, position.meter
    label = f"epoch {position.epoch + 1}/{config.epochs}"
    per_epoch = math.ceil(len(job.loader) / config.accumulate)
    done = meter.batches // config.accumulate  # steps
    trainer.start_epoch(freeze_backbone=position.epoch < config.freeze_epochs)
    batches = job.loader.epoch(position.epoch, meter.batches)
    steps = progress(
        accumulated(batches, config.accumulate, meter),
        label,
        total=per_epoch - done,
        unit="step",
        status=meter.line,
    )
    for number, group in enumerate(steps, start=position.epoch * per_epoch + done + 1):  # over the run
        if not trainer.step(group, meter, label, stop=job.stop.requested is not None):
            trainer.finish_step(meter, label)
            job.check_signals()
        if is_first:  # not before the first step, which need not wait for matplotlib
            draw_data(job)
            is_first = False
        estimate.update(meter)
        if config.save_steps and number % config.save_steps == 0:
            trainer.finish_step(meter, label)
            save(job, position)
    trainer.finish_step(meter, label)


def save(job: Job, position: Position) -> bool:
    """Save last.pth within an epoch if the weights are finite; returns whether it was saved."""
    is_finite = job.trainer.is_finite
    if is_finite:
        job.run.save(job.checkpoint(position))
    return is_finite


def finish_epoch(job: Job, position: Position, table: EpochTable, first: int) -> bool:
    """Evaluate, save, log and draw the end of an epoch; returns whether the run stops early.

    `first` is the first epoch of this process, counted from 0.
    """
    config, run, epoch = job.config, job.run, position.epoch + 1
    if not job.trainer.is_finite:
        warn(f"epoch {epoch} is not saved: its weights are not finite")
        return False
    evaluation = evaluate_epoch(job, position)
    result = evaluation[0] if evaluation else None
    figures = result.as_dict() if result else {}
    metrics = {name: figures[name] for name in METRIC_COLUMNS if name in figures}
    memory_gb = peak_memory(job.trainer.device)
    row = {"epoch": epoch, **position.meter.as_row(), "memory_gb": memory_gb, **metrics}
    is_best = run.judge(epoch, result)
    stops_early = result is not None and 0 < config.patience <= epoch - run.patience_epoch
    checkpoint = job.checkpoint(Position(epoch), metrics, stops_early)
    is_kept = config.save_period > 0 and epoch % config.save_period == 0
    run.finish_epoch(checkpoint, row, result, is_best, is_kept)
    table.log(row)
    is_last = stops_early or epoch == config.epochs
    if is_last or epoch % _PICTURES_EVERY == 0 or epoch == first + 1:
        draw_results(job, evaluation, is_last)
    return stops_early


def evaluate_epoch(job: Job, position: Position) -> Evaluation | None:
    """Evaluate the network as evaluate.py does, if the epoch ends with that; the last one always does.

    Raises:
        UserError: an image cannot be read that was readable when the run began; the state is saved.
    """
    epoch, val = position.epoch + 1, job.data.val
    if val is None or (epoch % job.config.eval_interval and epoch != job.config.epochs):
        return None
    try:
        with job.stop.at_once():
            predictor = build_predictor(job.trainer, val.class_names)
            batch_size, skip_bad = job.config.batch_size, job.config.skip_bad
            found = detect_dataset(predictor, val, batch_size=batch_size, skip_bad=skip_bad)
            # The result is written if this epoch is the best so far, and then its weights are best.pth.
            return score_detections(found, val, weights="best.pth", splits=job.data.selection), found
    except UserError as error:
        save(job, position)
        raise UserError(str(error), exit_code=1) from error


def build_predictor(trainer: Trainer, class_names: tuple[str, ...]) -> Predictor:
    """Build a predictor of the network to evaluate, as evaluate.py does, in the precision of the run."""
    average, amp = trainer.average, trainer.autocast is not None
    return Predictor(average, average.config, class_names, conf=0.001, device=trainer.device, amp=amp)


def draw_data(job: Job) -> None:
    """Draw labels.png, a chart of the training labels, and train_batch0.jpg, the first augmented batch."""
    folder, train, config = job.run.folder, job.data.train, job.trainer.model.config

    def draw_labels() -> None:
        labels, boxes = train.letterboxed_objects(config.input_size)
        path = folder / "labels.png"
        plot_labels(path, train.class_names, labels, boxes, config.input_size, config.anchors)

    job.run.attempt("labels.png", draw_labels)
    job.run.attempt(
        "train_batch0.jpg",
        lambda: save_train_batch(folder / "train_batch0.jpg", *job.loader.preview(), train.class_names),
    )


def draw_results(job: Job, evaluation: Evaluation | None, is_last: bool) -> None:
    """Draw the curves and val_batch0.jpg, and explain a low mAP50."""
    folder, val = job.run.folder, job.data.val
    job.run.attempt("results.png", lambda: plot_results(folder / "results.png", job.run.rows()))
    if val is None or evaluation is None:
        return
    predictor = build_predictor(job.trainer, val.class_names)
    job.run.attempt("val_batch0.jpg", lambda: save_val_batch(folder / "val_batch0.jpg", predictor, val))
    result, found = evaluation
    job.run.attempt("PR_curve.png, confusion_matrix.png", lambda: draw_summary(result, folder))
    map50, steps = result.coco.map50 or 0.0, job.trainer.schedule.step
    if is_last and job.config.overfit:
        log(_describe_overfit(map50, len(val)))
    if not (is_last or steps > ENOUGH_STEPS):
        return
    if map50 < _LOW_MAP50:
        reason = explain_low_map(found.detections, found.targets, val.class_names, steps)
        warn(f"mAP50 is {map50:.4f}: {reason} in {folder}")
    elif mistake := find_correction(found.detections, found.targets, val.class_names):
        warn(f"{mistake}; look at val_batch0.jpg in {folder}")


def resume_command(config: TrainConfig, last: Path) -> str:
    """Return the command that resumes a run; it names code of the user's own, which only then is imported."""
    words = [*launcher(), "train.py", "--resume", str(last)]
    words += ["--phi", config.phi] if ":" in config.phi else []
    words += ["--augment", config.augment] if config.augment not in AUGMENT_LEVELS else []
    return shlex.join(words)


def _describe_stop(config: TrainConfig, last: Path, position: Position, is_saved: bool) -> str:
    resume = resume_command(config, last)
    if is_saved:
        return f"saved {last} at epoch {position.epoch + 1} step {position.meter.steps}; resume: {resume}"
    return f"nothing new was saved; resume: {resume}" if last.exists() else "nothing was saved"


def _describe_overfit(map50: float, num_images: int) -> str:
    found = f"overfit: mAP50 {map50:.3f} on the {plural(num_images, 'training image')}"
    if map50 >= _OVERFIT_MAP50:
        return f"{found}: the setup can learn"
    return (
        f"{found}, below {_OVERFIT_MAP50}: train for some hundred steps (--epochs); if that does not help, "
        "look at train_batch0.jpg and val_batch0.jpg"
    )
