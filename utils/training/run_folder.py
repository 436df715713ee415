"""Run folder of training: lock, results.csv, checkpoints, TensorBoard events; only rank 0 writes."""

from __future__ import annotations

import csv
import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from utils.cli.console import log, warn
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, check_free_space, new_run_folder, read_csv
from utils.cli.inputs import find_newest
from utils.cli.parser import save_args_yaml
from utils.cli.train_config import TrainConfig
from utils.inference.evaluation import EvalResult
from utils.weights.checkpoint import Checkpoint, save_checkpoint

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks


class FolderLock:
    """Lock of a folder for this process; the system releases it when the process ends.

    The file run.lock names the holder. It stays behind after a kill, but then nobody holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another process holds it, or the file cannot be written.
        """
        self._path = folder / "run.lock"
        self._lock = FileLock(self._path, blocking=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"{folder}: {self._holder()} is training here; wait for it, stop it, or choose another --name"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"{self._path}: cannot write: {error.strerror or error}") from error
        try:
            with suppress(PermissionError):  # Windows keeps a locked file from other handles
                self._path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self._path}: cannot write: {error.strerror or error}", exit_code=1) from error

    def release(self) -> None:
        """Release the lock and remove its file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._lock.release()

    def _holder(self) -> str:
        with suppress(OSError):
            return self._path.read_text(encoding="utf-8")[:200].strip() or "another process"
        return "another process"


def choose_run_folder(config: TrainConfig, model: nn.Module, resumed: Path | None) -> Path:
    """Return the folder of a run: that of the resumed one, else a new one.

    Raises:
        UserError: it cannot be written to, or the disk has no room for best.pth and twice last.pth, whose old
            one is kept until the new one is whole.
    """
    network = sum(tensor.nbytes for tensor in model.state_dict().values())
    copies = 1 + config.ema + (2 if config.optimizer == "adamw" else 1)  # in last.pth
    folder = resumed or Path(config.project, config.name)
    old = [folder / "weights" / name for name in ("best.pth", "last.pth")]
    is_there = resumed is not None or config.exist_ok
    freed = sum(map(os.path.getsize, filter(os.path.isfile, old))) if is_there else 0
    check_free_space(folder, network * (1 + 2 * copies) - freed, None if resumed else "--project")
    return resumed or new_run_folder(config.project, config.name, config.exist_ok)


class Run:
    """A run's folder, and the best result so far.

    best.pth is the epoch of the highest mAP50 on the validation split, the later one of equals; without
    evaluation it is the last epoch. A checkpoint that cannot be written ends the run; a table or picture that
    cannot be written causes one warning.

    Attributes:
        folder: the run folder.
        best_map50: the highest mAP50 so far, None before the first.
        risen_epoch: epochs done when it last rose.
        patience_epoch: epochs done when --patience began to count: the last rise, or the last early stop that
            the run was resumed from.
    """

    def __init__(
        self, folder: Path, resumed: Mapping[str, Any] | None = None, *, is_writer: bool = True
    ) -> None:
        """Lock the folder, which exists, and prepare it; all ranks but the writer write nothing.

        Raises:
            UserError: another run is in this folder.
        """
        self.folder = folder
        self.best_map50 = resumed["best_map50"] if resumed else None
        self.risen_epoch = resumed["risen_epoch"] if resumed else 0
        self.patience_epoch = resumed.get("patience_epoch", self.risen_epoch) if resumed else 0
        if resumed and resumed.get("stopped_early"):
            self.patience_epoch = resumed["epoch"]
        self._is_writer = is_writer
        self._failed: set[str] = set()
        self._board: Any = None
        if not is_writer:
            return
        try:
            (folder / "weights").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder / 'weights'}: cannot create it: {error.strerror}") from error
        self._lock = FolderLock(folder)
        self._newest = _date_of_newest()
        for stale in (*folder.glob("*.*.tmp"), *folder.glob("weights/*.pth*.tmp")):
            if stale.is_file():
                log(f"{stale}: left by a run that was killed while saving; removed")
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
        """The resumable checkpoint."""
        return self.folder / "weights" / "last.pth"

    @property
    def best(self) -> Path:
        """The shareable checkpoint."""
        return self.folder / "weights" / "best.pth"

    def save_args(self, config: TrainConfig) -> None:
        """Write args.yaml, for --config.

        Raises:
            UserError: it cannot be written.
        """
        if self._is_writer:
            save_args_yaml(config, self.folder / "args.yaml")

    def judge(self, epoch: int, result: EvalResult | None) -> bool:
        """Return whether an epoch is the best so far, and remember it; without evaluation each one is."""
        map50 = result.coco.map50 if result else None
        if self.best_map50 is not None and (map50 is None or map50 < self.best_map50):
            return False
        if map50 is not None and (self.best_map50 is None or map50 > self.best_map50):
            self.risen_epoch = self.patience_epoch = epoch
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
        """Save an epoch: its row of results.csv, last.pth, best.pth with metrics.json, and epochN.pth."""
        self.attempt("results.csv", lambda: self._write_row(row))
        self.attempt("TensorBoard events", lambda: self._write_events(row))
        if is_best and result is not None:
            self.attempt("metrics.json", lambda: result.write_metrics(self.folder / "metrics.json"))
        if is_best and self._is_writer:
            self._save(self.best, checkpoint.shareable())
        if is_kept:
            self.save(checkpoint, self.folder / "weights" / f"epoch{row['epoch']}.pth")
        self.save(checkpoint)  # last: a kill before this repeats the epoch with the same results

    def save(self, checkpoint: Checkpoint, path: Path | None = None) -> None:
        """Write last.pth (or `path`), for --resume."""
        checkpoint.training.update(
            best_map50=self.best_map50, risen_epoch=self.risen_epoch, patience_epoch=self.patience_epoch
        )
        if self._is_writer:
            self._save(path or self.last, checkpoint)

    def _save(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, dated after those of earlier runs even if the clock has been set back since."""
        save_checkpoint(path, checkpoint)
        with suppress(OSError):
            if path.stat().st_mtime < self._newest:
                os.utime(path, (self._newest + 1, self._newest + 1))

    def attempt(self, what: str, write: Callable[[], object]) -> None:
        """Write an optional file; the first failure causes a warning."""
        if not self._is_writer:
            return
        try:
            write()
        # TensorBoard may be installed and broken; an existing table may be another program's.
        except (OSError, ImportError, UserError, KeyError, ValueError) as error:
            if what not in self._failed:
                warn(f"{what}: {error}; training continues without it")
            self._failed.add(what)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of results.csv."""
        path = self.folder / "results.csv"
        return read_csv(path) if path.exists() else []

    def _write_row(self, row: Mapping[str, Any]) -> None:
        """Write the epoch's row; it replaces the rows from this epoch on, of a resumed run."""
        rows = [*(old for old in self.rows() if int(old["epoch"]) < row["epoch"]), row]
        columns = dict.fromkeys(name for written in rows for name in written)  # an evaluation adds some
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


def _date_of_newest() -> float:
    """Return the modification time of the newest checkpoint of all runs, 0 without one."""
    with suppress(OSError):  # another run may have just removed its file
        found = filter(None, map(find_newest, ("best.pth", "last.pth")))
        return max((path.stat().st_mtime for path in found), default=0.0)
    return 0.0
