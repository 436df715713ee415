"""Start-up times of every command as a process: python benchmarks/startup.py [--runs 5] [--repo DIR]."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "predict", "evaluate", "export", "compare", "data")
NUM_IMAGES = 300
VERBS = {verb: ["--data", "data"] for verb in ("check", "stats", "split", "anchors", "show")}
VERBS["convert"] = ["data", "--out", "converted"]
# Ends the process after the first optimizer step.
FIRST_STEP = """
import os, sys
sys.argv = ["train.py", *sys.argv[1:]]
import train
from utils.training import engine
name = "step" if hasattr(engine.Trainer, "step") else "_step"  # in an older checkout (--repo)
step = getattr(engine.Trainer, name)
def stop(self, *args, **kwargs):
    step(self, *args, **kwargs)
    os._exit(0)
setattr(engine.Trainer, name, stop)
train.main(sys.argv[1:])
"""
ANNOTATION = """<annotation><filename>{name}.jpg</filename>
<size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>{label}</name><difficult>0</difficult>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"""


def main() -> int:
    """Print a Markdown table: the median, the fastest and the slowest run of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each command, after one warm-up")
    parser.add_argument("--only", nargs="*", help="rows whose name contains one of these")
    parser.add_argument("--repo", type=Path, default=ROOT, help="the checkout to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_pictures(data)
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {NUM_IMAGES} pictures of 500x375\n")
        print("| command | median s | fastest | slowest |")
        print("|---|---|---|---|")
        for name, command in build_rows(options.repo).items():
            if options.only and not any(part in name for part in options.only):
                continue
            status = 2 if name.endswith(("no-such-flag", "missing file")) else 0
            seconds = [run_once(command, data, options.repo, status) for _ in range(options.runs + 1)][1:]
            figures = (statistics.median(seconds), min(seconds), max(seconds))
            print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in figures) + " |", flush=True)
    return 0


def build_rows(repo: Path) -> dict[str, list[str]]:
    """Return the command line of each row."""
    rows = {"import torch": [sys.executable, "-c", "import torch"]}
    for command in COMMANDS:
        script = [sys.executable, str(repo / f"{command}.py")]
        verb = ["check"] if command == "data" else []
        rows[f"{command}.py --help"] = [*script, "--help"]
        rows[f"{command}.py --help-all"] = [*script, *verb, "--help-all"]
        rows[f"{command}.py --version"] = [*script, "--version"]
        rows[f"{command}.py --no-such-flag"] = [*script, *verb, "--no-such-flag"]
        missing = ["gone.jpg"] if command == "predict" else ["--weights", "gone.pth"]
        missing = ["--data", "gone"] if command in ("data", "compare") else missing
        rows[f"{command}.py, a missing file"] = [*script, *verb, *missing]
    for verb, flags in VERBS.items():
        rows[f"data.py {verb}"] = [sys.executable, str(repo / "data.py"), verb, *flags]
    picture = "data/JPEGImages/0000.jpg"
    rows["predict.py one.jpg"] = [sys.executable, str(repo / "predict.py"), picture]
    flags = ["--data", "data", "--weights", "voc", "--batch-size", "2", "--imgsz", "96", "--workers", "0"]
    rows["train.py, first step"] = [sys.executable, "-c", FIRST_STEP, *flags]
    return rows


def run_once(command: Sequence[str], data: Path, repo: Path, status: int) -> float:
    """Return the seconds of one run in a new working folder, so that nothing is cached."""
    work = data.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(data, work / "data", copy_function=os.link)
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the warm-up leaves bytecode, as on a user's machine
    start = time.perf_counter()
    result = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode != status:
        raise SystemExit(f"{command}: {result.stderr}")
    return seconds


def write_pictures(folder: Path) -> None:
    """Write a folder in VOC layout, without lists: blurred noise with one box a picture, of two classes."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        small = rng.integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{number:04}.jpg"), cv2.resize(small, (500, 375)))
        x1, y1 = rng.integers(1, 200, 2)
        values = {"x1": x1, "y1": y1, "x2": x1 + rng.integers(20, 250), "y2": y1 + rng.integers(20, 150)}
        text = ANNOTATION.format(name=f"{number:04}", label=("cat", "dog")[number % 2], **values)
        (folder / "Annotations" / f"{number:04}.xml").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
