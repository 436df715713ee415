"""Training loop: the epochs of a run, their evaluation and checkpoints, and stopping on a signal."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from utils.cli.console import log, plural, warn
from utils.cli.errors import Interrupted, UserError
from utils.cli.parser import config_as_dict
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.dataset import VocDataset
from utils.data.loader import TrainLoader
from utils.data.prepare import TrainingData
from utils.inference.evaluation import (
    DatasetDetections,
    EvalResult,
    detect_dataset,
    merge_detections,
    score_detections,
)
from utils.inference.evaluation_pictures import draw_summary
from utils.inference.predictor import Predictor
from utils.metrics.diagnose import ENOUGH_STEPS, explain_low_map
from utils.training.distributed import all_gather, broadcast_model, rank, world_size
from utils.training.engine import EpochMeter, Trainer, set_train_mode
from utils.training.run_folder import Run
from utils.training.run_log import EpochTable, log_next_commands, peak_memory
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
            **self.trainer.state_dict(),
        }
        return Checkpoint(
            config=self.trainer.model.config,
            class_names=self.data.train.class_names,
            weights=self.trainer.average.state_dict(),
            metrics=metrics or {},
            run_config=config_as_dict(self.config),
            training=training,
        )

    def check_signals(self) -> None:
        """Raise Interrupted if a signal came to any rank."""
        self.stop.check(max(all_gather(self.stop.requested or 0)))


def run_epochs(job: Job, position: Position) -> None:
    """Train from a position to the end of the run.

    Raises:
        Interrupted: a signal came; the state is saved, and the message says where.
        UserError: the last steps were skipped, so that there is nothing to save.
    """
    first, stops_early, has_drawn = position.epoch, False, False
    table = EpochTable(job.config.epochs, first)
    try:
        while position.epoch < job.config.epochs and not stops_early:
            job.check_signals()  # one may have come while the epoch was saved
            with job.stop.deferred():
                for _ in train_epoch(job, position):
                    job.check_signals()
                    if not has_drawn:  # after the first step, which need not wait for matplotlib
                        draw_data(job)
                        has_drawn = True
                    if job.config.save_steps and job.trainer.schedule.step % job.config.save_steps == 0:
                        save(job, position)
                evaluation = evaluate_epoch(job, position)
                stops_early = finish_epoch(job, position, evaluation, table)
                position = Position(position.epoch + 1)
                is_last = stops_early or position.epoch == job.config.epochs
                if is_last or position.epoch % _PICTURES_EVERY == 0 or position.epoch == first + 1:
                    draw_results(job, evaluation, is_last)
    except Interrupted as interruption:
        is_saved = save(job, position) if position.is_within_epoch else position.epoch > 0
        interruption.message = _describe_stop(job.run.last, position, is_saved)
        raise
    if not job.trainer.is_finite:
        raise UserError("the run ended with weights that are not finite; try a lower --lr", exit_code=1)
    if stops_early:
        since, patience = job.run.risen_epoch, job.config.patience
        log(f"stopped early: mAP50 has not risen since epoch {since} (--patience {patience})")
    log_next_commands(job.config, job.run.best, job.data)


def train_epoch(job: Job, position: Position) -> Iterator[EpochMeter]:
    """Train on the rest of the epoch; yields after each step, when the state may be saved."""
    trainer, done = job.trainer, position.meter.batches
    set_train_mode(trainer.model, position.epoch < job.config.freeze_epochs, trainer.frozen_bn)
    batches = job.loader.epoch(position.epoch, done)
    label = f"epoch {position.epoch + 1}/{job.config.epochs}"
    return trainer.epoch(batches, position.meter, label, len(job.loader) - done)


def save(job: Job, position: Position) -> bool:
    """Save last.pth within an epoch if the weights are finite; returns whether it was saved."""
    if job.trainer.is_finite:
        job.run.save(job.checkpoint(position))
    return job.trainer.is_finite


def evaluate_epoch(job: Job, position: Position) -> Evaluation | None:
    """Evaluate the network if this epoch ends with an evaluation; the last one always does."""
    epoch = position.epoch + 1
    is_due = epoch % job.config.eval_interval == 0 or epoch == job.config.epochs
    if job.data.val is None or not is_due or not job.trainer.is_finite:
        return None
    try:
        with job.stop.at_once():
            return evaluate_on_all_ranks(job, job.data.val)
    except UserError as error:  # an image was readable when the run began
        save(job, position)
        raise UserError(str(error), exit_code=1) from error


def evaluate_on_all_ranks(job: Job, val_set: VocDataset) -> Evaluation:
    """Evaluate the network as evaluate.py does, each rank on its share; all ranks return the same.

    Raises:
        UserError: an image cannot be read.
    """
    broadcast_model(job.trainer.average)  # batch statistics differ between ranks
    own = detect_dataset(
        build_predictor(job.trainer, val_set.class_names),
        val_set,
        indices=range(rank(), len(val_set), world_size()),
        batch_size=job.config.batch_size,
        skip_bad=job.config.skip_bad,
    )
    detections = merge_detections(all_gather(own))
    # The result is written if this epoch is the best so far, and then its weights are best.pth.
    result = score_detections(detections, val_set, weights="best.pth", splits=job.data.selection)
    return result, detections


def build_predictor(trainer: Trainer, class_names: tuple[str, ...]) -> Predictor:
    """Build a predictor of the network to evaluate, with the settings of evaluate.py."""
    average = trainer.average
    return Predictor(average, average.config, class_names, conf=0.001, device=trainer.device)


def finish_epoch(job: Job, position: Position, evaluation: Evaluation | None, table: EpochTable) -> bool:
    """Save and log an epoch; returns whether the run stops early."""
    config, run, epoch = job.config, job.run, position.epoch + 1
    result = evaluation[0] if evaluation else None
    if not job.trainer.is_finite:
        warn(f"epoch {epoch} is not saved: its last step was skipped, or its weights are not finite")
        return False
    figures = result.as_dict() if result else {}
    metrics = {name: figures[name] for name in METRIC_COLUMNS if name in figures}
    memory_gb = peak_memory(job.trainer.device)
    row = {"epoch": epoch, **position.meter.as_row(), "memory_gb": memory_gb, **metrics}
    is_best = run.judge(epoch, result)
    stops_early = result is not None and 0 < config.patience <= epoch - run.risen_epoch
    checkpoint = job.checkpoint(Position(epoch), metrics, stops_early)
    is_kept = config.save_period > 0 and epoch % config.save_period == 0
    run.finish_epoch(checkpoint, row, result, is_best, is_kept)
    table.log(row)
    return stops_early


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
    """Draw the curves and val_batch0.jpg, and explain an mAP50 near 0."""
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
    if map50 < _LOW_MAP50 and (is_last or steps > ENOUGH_STEPS):
        reason = explain_low_map(found.detections, found.targets, val.class_names, steps)
        warn(f"mAP50 is {map50:.4f}: {reason} in {folder}")


def _describe_stop(last: Path, position: Position, is_saved: bool) -> str:
    resume = shlex.join(["python", "train.py", "--resume", str(last)])
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
