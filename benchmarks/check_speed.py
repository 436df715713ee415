"""Time of data.py check: without cache, with its cache, and with --decode.

Usage: python benchmarks/check_speed.py --data $DATA/VOCdevkit
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.data.samples import list_main_splits, load_samples

_LONGEST = 500  # pixels, as in Pascal VOC
_CHECK = Path(__file__).resolve().parent.parent / "data.py"


def main() -> None:
    """Build a data set with the given number of images and time the command on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="source of the images and annotations")
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the cache goes there
        make_data(Path("data"), Path(arguments.data), arguments.images)
        print(f"{arguments.images} images of {_LONGEST} pixels")
        print(f"no cache     {time_check():6.1f} s")
        print(f"cache        {time_check():6.1f} s")
        shutil.rmtree("runs")
        print(f"--decode     {time_check('--decode'):6.1f} s")


def make_data(folder: Path, source: Path, images: int) -> None:
    """Copy images at the size of Pascal VOC's, repeatedly if there are too few."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    samples = [sample for split in list_main_splits(source) for sample in load_samples(source, split)]
    names = [f"{number:06}" for number in range(images)]
    for name, sample in zip(names, itertools.cycle(samples), strict=False):
        picture = Image.open(sample.image_path)
        scale = _LONGEST / max(picture.size)
        size = round(picture.width * scale), round(picture.height * scale)
        picture.resize(size).save(folder / f"JPEGImages/{name}.jpg", quality=92)
        shutil.copy(str(sample.xml_path), folder / f"Annotations/{name}.xml")
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(names))


def time_check(*flags: str) -> float:
    """Return the seconds of the command, start-up included."""
    start = time.perf_counter()
    command = [sys.executable, str(_CHECK), "check", "--data", "data", *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
