"""Commands in turns, for a long time in one process: memory, open files, threads and processes do not grow.

`make soak` runs it for 40 minutes; SOAK_SECONDS changes that.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import data
import evaluate
import export
import predict
import train
from tests.voc_folder import make_voc_folder
from utils.app.look import LookSession
from utils.app.offer import Offer
from utils.cli.app_config import AppConfig
from utils.inference.predictor import Predictor

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
CALLS = int(os.environ.get("SOAK_CALLS", "400"))  # of one predictor from four threads
SHORT = ["--imgsz", "64", "--batch-size", "4", "--weights", "none", "--device", "cpu"]
MEGABYTES = 60  # more than the allocator's noise, less than a network a turn (24 MB)

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def usage() -> dict[str, int]:
    """Return megabytes of memory, open files, threads and child processes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "megabytes": pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "processes": len(children),
    }


def turn() -> None:
    """Use everything once, and remove what it wrote."""
    assert train.main(["--data", "data", "--epochs", "2", "--workers", "2", "--phi", "cbam", *SHORT]) == 0
    assert data.main(["check", "--data", "data"]) == 0
    assert evaluate.main(["--weights", "last", "--data", "data", "--split", "val"]) == 0
    assert (
        predict.main(["data/JPEGImages", "--weights", "last", "--json", "found.jsonl", "--tile", "64"]) == 0
    )
    assert export.main(["--weights", "last", "--format", "pth", "--half"]) == 0
    session = LookSession(Offer(AppConfig(data="data")))
    for name in session.names():
        session.open(name)
        session.run(["voc"])
        assert session.looks
        assert not session.problems
    shutil.rmtree("runs")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_voc_folder(tmp_path / "data", train_images=8, val_images=4)
    return tmp_path


def test_nothing_grows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # imports, caches, the allocator's pools
        turn()
    before, start, turns = usage(), time.monotonic(), 0
    while turns < 3 or time.monotonic() - start < SECONDS:
        turn()
        turns += 1
        capsys.readouterr()
        after = usage()
        with capsys.disabled():
            print(f"\nturn {turns}, {time.monotonic() - start:.0f} s: {after}", end="", flush=True)
    assert after["megabytes"] <= before["megabytes"] + MEGABYTES
    assert {**after, "megabytes": 0} == {**before, "megabytes": 0}


def test_calls_from_four_threads(folder: Path) -> None:
    predictor = Predictor.from_checkpoint("voc", input_size=(64, 64), conf=0.01)
    images = [np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8) for seed in range(8)]
    expected = [predictor(image) for image in images]

    def call(number: int) -> bool:
        found, one = predictor(images[number % 8]), expected[number % 8]
        return torch.equal(found.boxes, one.boxes) and torch.equal(found.scores, one.scores)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(CALLS)))
        before = usage()
        assert all(pool.map(call, range(CALLS)))
    after = usage()
    assert after["megabytes"] <= before["megabytes"] + MEGABYTES
    assert after["files"] == before["files"]
