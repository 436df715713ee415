"""Time and memory of data.py check and train.py's start on many images: benchmarks/check_speed.py DATA.

DATA is a VOCdevkit. Its images are linked under new names, with copies of their XML, until there are enough.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUM_IMAGES = 20_596  # VOC2007 and VOC2012 trainval and VOC2007 test: 16,551 + 4,952, less the shared 907
# Ends the process before the first step, as soon as the data are read and the model is built.
START = """
import os, sys
import train
from utils.training import train_loop
train_loop.run_epochs = lambda *_: os._exit(0)
train.main(sys.argv[1:])
"""


def main() -> int:
    """Print a Markdown row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a VOCdevkit with real images")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="number of images")
    parser.add_argument("--repo", type=Path, default=ROOT, help="the checkout to measure")
    options = parser.parse_args()
    check = [sys.executable, str(options.repo / "data.py"), "check", "--data", "data"]
    start = [sys.executable, "-c", START, "--data", "data", "--weights", "none"]
    rows = {"check, first time": check, "check, remembered": check}
    rows |= {"train's start, first time": start, "train's start, remembered": start}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_data(options.data, work / "data", options.images)
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"\n| {options.images:,} images | seconds | CPU seconds | peak memory, MB |\n|---|---|---|---|")
        for name, command in rows.items():
            if name.endswith("first time"):
                shutil.rmtree(work / "runs", ignore_errors=True)
            cells = [f"{number:.0f}" for number in measure(command, work, options.repo)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


def make_data(source: Path, folder: Path, number: int) -> None:
    """Write a VOC folder of `number` images, nine tenths in train and one tenth in val."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    pictures = sorted(source.glob("*/JPEGImages/*.jpg"))
    ids = [f"{index:06}" for index in range(number)]
    for image_id, picture in zip(ids, islice(cycle(pictures), number), strict=True):
        try:
            os.link(picture, folder / "JPEGImages" / f"{image_id}.jpg")
        except OSError:  # another file system
            shutil.copyfile(picture, folder / "JPEGImages" / f"{image_id}.jpg")
        xml = picture.parent.parent / "Annotations" / f"{picture.stem}.xml"
        shutil.copyfile(xml, folder / "Annotations" / f"{image_id}.xml")
    border = number * 9 // 10
    for name, listed in (("train", ids[:border]), ("val", ids[border:])):
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{i}\n" for i in listed))


def measure(command: list[str], work: Path, repo: Path) -> tuple[float, float, float]:
    """Run a command in `work`; return its seconds, CPU seconds of all threads, and peak memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(repo)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
