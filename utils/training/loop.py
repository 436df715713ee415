"""The epochs of a run: train, evaluate, save, say how it went; a signal saves what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.cli.console import log, warn
from utils.cli.errors import Interrupted, UserError
from utils.cli.signals import StopSignals
from utils.cli.train_config import TrainConfig
from utils.data.loader import TrainLoader
from utils.data.prepare import TrainingData
from utils.inference.evaluation_pictures import draw_summary
from utils.metrics.diagnose import ENOUGH_STEPS, explain_low_map
from utils.training.distributed import highest
from utils.training.engine import EpochMeter, Trainer, set_frozen
from utils.training.report import (
    EpochTable,
    describe_overfit,
    describe_stop,
    log_next_commands,
    memory_in_use,
)
from utils.training.run import Run
from utils.training.run_pictures import save_labels, save_train_batch, save_val_batch
from utils.training.state import Place, take_snapshot
from utils.training.validation import Measured, build_predictor, columns_of, measure
from utils.vision.plots.training_curves import plot_results
from utils.weights.checkpoint import Checkpoint

_PICTURES_EVERY = 10  # epochs
_NEXT_TO_NOTHING = 0.01  # mAP50 that calls for an explanation


@dataclass(frozen=True)
class Job:
    """What a run is made of."""

    config: TrainConfig
    data: TrainingData
    loader: TrainLoader
    trainer: Trainer
    run: Run
    stop: StopSignals

    def snapshot(self, place: Place, **more: Any) -> Checkpoint:
        """Return the checkpoint of the run as it stands."""
        return take_snapshot(self.config, self.trainer, self.data.train.class_names, place, **more)


def run_epochs(job: Job, place: Place) -> None:
    """Go through the epochs from a place on.

    Raises:
        Interrupted: a signal came; what was trained is saved, and the message says where.
        UserError: the last steps had to be left out, so that there is nothing to save.
    """
    first, stops_early = place.epoch, False
    table = EpochTable(job.config.epochs, first)
    try:
        while place.epoch < job.config.epochs and not stops_early:
            job.stop.check(highest(job.stop.requested or 0))  # one that came while the epoch was stored
            with job.stop.deferred():
                for _ in train_steps(job, place):
                    job.stop.check(highest(job.stop.requested or 0))
                    if job.config.save_steps and job.trainer.schedule.step % job.config.save_steps == 0:
                        save(job, place)
                measured = evaluate_epoch(job, place)
                stops_early = finish_epoch(job, place, measured, table)
                place = Place(place.epoch + 1)
                is_last = stops_early or place.epoch == job.config.epochs
                if is_last or place.epoch % _PICTURES_EVERY == 0 or place.epoch == first + 1:
                    look_back(job, measured, is_last)
    except Interrupted as interruption:
        is_saved = save(job, place) if place.is_inside else place.epoch > 0
        interruption.message = describe_stop(job.run.last, place, is_saved)
        raise
    if not job.trainer.is_sound:
        raise UserError("the run ended in weights that cannot be saved; try a lower --lr", exit_code=1)
    if stops_early:
        since, patience = job.run.risen_epoch, job.config.patience
        log(f"stopped: mAP50 has not risen since epoch {since} (--patience {patience})")
    log_next_commands(job.config, job.run.best, job.data)


def train_steps(job: Job, place: Place) -> Iterator[EpochMeter]:
    """Go through what is left of the epoch; yields after each step, when all can be saved."""
    trainer = job.trainer
    set_frozen(trainer.model, place.epoch < job.config.freeze_epochs, trainer.held_norms)
    batches = job.loader.epoch(place.epoch, place.meter.batches)
    label = f"epoch {place.epoch + 1}/{job.config.epochs}"
    return job.trainer.epoch(batches, place.meter, label, len(job.loader) - place.meter.batches)


def save(job: Job, place: Place) -> bool:
    """Write last.pth inside an epoch, unless the weights may be spoilt; returns whether it was written."""
    if job.trainer.is_sound:
        job.run.save(job.snapshot(place))
    return job.trainer.is_sound


def evaluate_epoch(job: Job, place: Place) -> Measured | None:
    """Measure the network if this epoch ends in an evaluation; the last one always does."""
    is_due = (place.epoch + 1) % job.config.eval_interval == 0 or place.epoch + 1 == job.config.epochs
    if job.data.val is None or not is_due or not job.trainer.is_sound:
        return None
    try:
        with job.stop.at_once():
            return measure(job.config, job.trainer, job.data.val, job.data.selection)
    except UserError as error:  # an image that was there when the run began
        save(job, place)
        raise UserError(str(error), exit_code=1) from error


def finish_epoch(job: Job, place: Place, measured: Measured | None, table: EpochTable) -> bool:
    """Store an epoch and say how it went; returns whether the run shall stop early."""
    config, run, epoch = job.config, job.run, place.epoch + 1
    result = measured[0] if measured else None
    if not job.trainer.is_sound:
        warn(f"epoch {epoch} is not saved: its last step was left out, or its weights are not finite")
        return False
    memory = {"memory_gb": memory_in_use(job.trainer.device)}
    row = {"epoch": epoch, **place.meter.as_row(), **memory, **columns_of(result)}
    is_best = run.judge(epoch, result)
    stops_early = result is not None and 0 < config.patience <= epoch - run.risen_epoch
    checkpoint = job.snapshot(Place(epoch), metrics=columns_of(result), stopped_early=stops_early)
    is_kept = config.save_period > 0 and epoch % config.save_period == 0
    run.finish_epoch(checkpoint, row, result if is_best else None, is_best, is_kept)
    table.log(row)
    return stops_early


def draw_data(job: Job) -> None:
    """Write the pictures of what is trained on: what the labels are like, what the network is shown."""
    folder, train, config = job.run.folder, job.data.train, job.trainer.model.config
    job.run.attempt(
        "labels.png",
        lambda: save_labels(folder / "labels.png", train, config.input_size, config.anchors),
    )
    job.run.attempt(
        "train_batch0.jpg",
        lambda: save_train_batch(folder / "train_batch0.jpg", *job.loader.preview(), train.class_names),
    )


def look_back(job: Job, measured: Measured | None, is_last: bool) -> None:
    """Write the curves and what the network finds, and say why it finds nothing if that is so."""
    folder, val = job.run.folder, job.data.val
    job.run.attempt("results.png", lambda: plot_results(folder / "results.png", job.run.rows()))
    if val is None or measured is None:
        return
    predictor = build_predictor(job.trainer, val.class_names)
    job.run.attempt("val_batch0.jpg", lambda: save_val_batch(folder / "val_batch0.jpg", predictor, val))
    result, findings = measured
    job.run.attempt("PR_curve.png, confusion_matrix.png", lambda: draw_summary(result, folder))
    map50, steps = result.coco.map50 or 0.0, job.trainer.schedule.step
    if is_last and job.config.overfit:
        log(describe_overfit(map50, len(val)))
    if map50 < _NEXT_TO_NOTHING and (is_last or steps > ENOUGH_STEPS):
        reason = explain_low_map(findings.detections, findings.targets, val.class_names, steps)
        warn(f"mAP50 is {map50:.4f}: {reason} in {folder}")
