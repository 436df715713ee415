"""Time and memory of the metrics, on random detections.

Half of the detections lie near the objects, half anywhere; an image has 1 to 5 objects, a tenth of them
difficult. Seconds are CPU time of the process, which depends least on other work; memory is the peak of the
process up to the end of each part. For one core:

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/metrics_speed.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nets.structures import Detections, Target
from utils.cli.console import run_command
from utils.compare.cost import describe_machine
from utils.data.dataset_report import Record
from utils.inference.evaluation import EvalResult
from utils.metrics.analysis import best_rates, count_confusion, rates_at
from utils.metrics.coco_ap import ENGINES, coco_ap
from utils.metrics.error_kinds import find_error_kinds
from utils.metrics.interval import map50_of_draws
from utils.metrics.matching import flatten, match
from utils.metrics.voc_ap import voc_ap
from utils.training.run_log import peak_memory

Result = TypeVar("Result")
CONF = 0.25
CPU = torch.device("cpu")
PACKAGES = ("numpy", *ENGINES)


def make_image(rng: np.random.Generator, count: int, classes: int) -> tuple[Detections, Target]:
    """Return random detections and ground truth of an image of about 400 x 400 pixels."""
    objects, near = int(rng.integers(1, 6)), count // 2
    corner = rng.uniform(0, 300, (objects, 2))
    truth = np.concatenate((corner, corner + rng.uniform(20, 200, (objects, 2))), axis=1)
    labels = rng.integers(0, classes, objects)
    place = rng.integers(0, objects, near)
    corner = rng.uniform(0, 400, (count - near, 2))
    anywhere = np.concatenate((corner, corner + rng.uniform(10, 100, (count - near, 2))), axis=1)
    boxes = np.concatenate((truth[place] + rng.normal(0, 15, (near, 4)), anywhere))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    guesses = rng.integers(0, classes, count)
    guesses[:near] = np.where(rng.random(near) < 0.75, labels[place], guesses[:near])
    scores = np.sort(rng.random(count))[::-1].astype(np.float32)
    shuffled = rng.permutation(count)
    found = Detections(
        torch.from_numpy(boxes[shuffled].astype(np.float32)),
        torch.from_numpy(scores.copy()),
        torch.from_numpy(guesses[shuffled]),
    )
    hard = torch.from_numpy(rng.random(objects) < 0.1)
    return found, Target(torch.from_numpy(truth.astype(np.float32)), torch.from_numpy(labels), hard)


def timed(part: str, work: Callable[[], Result]) -> tuple[Result, float]:
    """Run one part and print its row of the table."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    print(f"| {part} | {seconds:.2f} | {1000 * peak_memory(CPU):.0f} |", flush=True)
    return result, seconds


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="an image")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--engines", nargs="+", default=[*ENGINES][-1:], choices=ENGINES, help="for COCO AP")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    made = [make_image(rng, options.detections, options.classes) for _ in range(options.images)]
    detections, targets = [found for found, _ in made], [target for _, target in made]

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(*describe_machine(), versions, sep="\n")
    print(f"{options.images} images x {options.detections} detections x {options.classes} classes\n")
    print("| part | seconds | peak memory, MB |\n|---|---|---|")
    print(f"| before, with the detections | | {1000 * peak_memory(CPU):.0f} |")
    boxes, flat = timed("laying out", lambda: flatten(detections, targets, options.classes))
    matching, matched = timed("IoU of all pairs, matching", lambda: match(boxes))
    voc, devkit = timed("VOC AP", lambda: voc_ap(matching))
    figures, analyzed = timed(
        "rates, confusion, errors, interval",
        lambda: {
            "best": best_rates(matching),
            "at_report_conf": rates_at(matching, CONF),
            "confusion": count_confusion(matching, CONF),
            "map50_draws": map50_of_draws(matching),
            "errors": find_error_kinds(matching),
        },
    )
    total = flat + matched + devkit + analyzed
    for engine in options.engines:
        coco, _ = timed(f"COCO AP by {engine}", partial(coco_ap, boxes, engine))
        assert abs((coco.map50 or 0.0) - (matching.map50() or 0.0)) < 1e-9
    names = tuple(f"class {number}" for number in range(options.classes))
    no_objects = (), np.zeros((0, 4), np.float32), np.zeros(0, bool)
    records = tuple(
        Record(str(index), Path(f"{index:06}.jpg"), 500, 500, *no_objects) for index in range(options.images)
    )
    result = EvalResult(
        names,
        records,
        0,
        matching,
        coco,
        voc,
        report_conf=CONF,
        speed_ms={},
        weights="",
        splits=(),
        **figures,
    )
    with tempfile.TemporaryDirectory() as folder:
        _, written = timed("writing the three JSON files", lambda: result.write(Path(folder)))
    print(f"| all but COCO AP | {total + written:.2f} | |")


if __name__ == "__main__":
    sys.exit(run_command(main))
