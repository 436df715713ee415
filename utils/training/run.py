"""The folder of a training run: its table, its checkpoints, its pictures; one process writes into it."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from utils.cli.console import log, warn
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.inputs import RUNS, find_newest
from utils.cli.parser import save_args_yaml
from utils.cli.train_config import TrainConfig
from utils.inference.evaluation import EvalResult
from utils.training.lock import FolderLock
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


class Run:
    """Write what an epoch gave into the run's folder: a row of results.csv, last.pth, and best.pth if better.

    best.pth is the epoch of the highest map50 on the selection split, the later one of equals; without
    evaluation it is the last epoch. Checkpoints are needed, and a failure to write one ends the run; a table
    or picture that cannot be written is warned of once.

    Attributes:
        folder: where everything goes.
        best_map50: the highest so far, None before the first.
        risen_epoch: whole epochs done when it last rose, or when a run that had stopped early went on.
    """

    def __init__(
        self, folder: Path, resumed: Mapping[str, Any] | None = None, *, is_writer: bool = True
    ) -> None:
        """Take the folder for this run alone.

        Args:
            folder: exists and can be written into.
            resumed: the training state that the run goes on from.
            is_writer: False in all processes of a run but the first, which then write nothing.

        Raises:
            UserError: another run is in this folder.
        """
        self.folder = folder
        self.best_map50 = resumed["best_map50"] if resumed else None
        self.risen_epoch = 0
        if resumed:
            self.risen_epoch = resumed["epoch" if resumed.get("stopped_early") else "risen_epoch"]
        self._is_writer = is_writer
        self._failed: set[str] = set()
        self._board: Any = None
        if not is_writer:
            return
        try:
            (folder / "weights").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder / 'weights'}: cannot be made: {error.strerror}") from error
        self._lock = FolderLock(folder)
        for stale in (*folder.glob("*.tmp"), *folder.glob("weights/*.tmp")):
            log(f"{stale}: left by a run that was killed while it saved; removed")
            stale.unlink()
        if importlib.util.find_spec("tensorboard"):
            self.attempt("TensorBoard events", lambda: self._open_board(resumed["epoch"] if resumed else 0))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self.attempt("TensorBoard events", self._board.close)
        if self._is_writer:
            self._lock.release()

    @property
    def last(self) -> Path:
        """The checkpoint that --resume takes."""
        return self.folder / "weights" / "last.pth"

    @property
    def best(self) -> Path:
        """The checkpoint to share."""
        return self.folder / "weights" / "best.pth"

    def keep_settings(self, config: TrainConfig) -> None:
        """Write args.yaml, which --config repeats.

        Raises:
            UserError: it cannot be written.
        """
        if self._is_writer:
            save_args_yaml(config, self.folder / "args.yaml")

    def judge(self, epoch: int, result: EvalResult | None) -> bool:
        """Tell whether the run is at its best after so many epochs, and remember it.

        Without any evaluation every epoch is better than the one before.
        """
        map50 = result.coco.map50 if result else None
        if self.best_map50 is not None and (map50 is None or map50 < self.best_map50):
            return False
        if map50 is not None and (self.best_map50 is None or map50 > self.best_map50):
            self.risen_epoch = epoch
        self.best_map50 = map50
        return True

    def finish_epoch(
        self,
        checkpoint: Checkpoint,
        row: Mapping[str, Any],
        result: EvalResult | None,
        is_best: bool,
        is_kept: bool,
    ) -> None:
        """Store an epoch.

        Args:
            checkpoint: weights (of the EMA), metrics and, in `training`, what resuming needs.
            row: values of results.csv by column.
            result: what metrics.json shall hold from now on, None to leave it.
            is_best: best.pth shall hold the weights from now on.
            is_kept: write the checkpoint a second time under the epoch's number.
        """
        self.attempt("results.csv", lambda: self._write_row(row))
        self.attempt("TensorBoard events", lambda: self._write_events(row))
        if result is not None:
            self.attempt("metrics.json", lambda: result.write_metrics(self.folder / "metrics.json"))
        if is_best and self._is_writer:
            save_checkpoint(self.best, checkpoint.shareable())
        if is_kept:
            self.save(checkpoint, self.folder / "weights" / f"epoch{row['epoch']}.pth")
        self.save(checkpoint)  # last: a kill before it repeats the epoch and writes the same again

    def save(self, checkpoint: Checkpoint, path: Path | None = None) -> None:
        """Write last.pth (or `path`), from which --resume goes on."""
        checkpoint.training.update(best_map50=self.best_map50, risen_epoch=self.risen_epoch)
        if self._is_writer:
            save_checkpoint(path or self.last, checkpoint)

    def attempt(self, what: str, write: Callable[[], object]) -> None:
        """Write what the run can do without; a failure is warned of once."""
        if not self._is_writer:
            return
        try:
            write()
        # TensorBoard may be there and not work; the table that is there may be another program's.
        except (OSError, ImportError, UserError, KeyError, ValueError) as error:
            if what not in self._failed:
                warn(f"{what}: {error}; training goes on without it")
            self._failed.add(what)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of results.csv."""
        try:
            with open(self.folder / "results.csv", newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def _write_row(self, row: Mapping[str, Any]) -> None:
        """Write the epoch's row, once: a resumed epoch replaces what was there from it on."""
        rows = [*(old for old in self.rows() if int(old["epoch"]) < row["epoch"]), row]
        columns = dict.fromkeys(name for written in rows for name in written)  # a late evaluation adds some
        with atomic_write(self.folder / "results.csv", "w") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def _open_board(self, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and an optional package

        self._board = SummaryWriter(str(self.folder), purge_step=epochs_done + 1)

    def _write_events(self, row: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._board.add_scalar(name, value, row["epoch"])
        self._board.flush()


def load_resumable(path: str) -> tuple[Path, Checkpoint]:
    """Load the checkpoint that --resume names; "auto" is the newest last.pth under runs/train.

    Raises:
        UserError: there is none, or it is a shareable file without what resuming needs.
    """
    if path == "auto":
        newest = find_newest("last.pth")
        if newest is None:
            raise UserError(f"--resume: no run with weights/last.pth in {RUNS}; name one: --resume FILE")
        path = str(newest)
    checkpoint = load_checkpoint(path)
    if "optimizer" not in checkpoint.training:
        raise UserError(f"--resume {path}: holds no training state; resume from the last.pth beside it")
    if "scaler" not in checkpoint.training:
        raise UserError(
            f"--resume {path}: saved by an older version, whose runs cannot be gone on with; start from "
            f"its weights: --weights {path}"
        )
    return Path(path), checkpoint
