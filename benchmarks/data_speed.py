"""Training images per second of one worker, beside a plain PIL pipeline with the same steps.

Images have a longest side of 500 pixels (VOC) and of 1600. They become inputs of 416 x 416 at the level
"reference" in one thread; the pipelines take turns on the same images. Times are CPU times of the process,
which depend least on other work: medians over the rounds, ratios are medians of each round's. "To float" adds
the division by 255, which ours leaves to the device.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.cli.console import progress, run_command
from utils.compare.cost import describe_machine
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record, scan_samples
from utils.data.samples import load_samples
from utils.data.train_dataset import AugmentSettings, TrainDataset

SIDE = 416
Made = tuple[torch.Tensor, NDArray[np.float32]]  # float32 (3, SIDE, SIDE) in [0, 1]; boxes (M, 4)
Maker = Callable[[int], object]


def place(
    record: Record, rng: np.random.Generator, center: tuple[int, int] | None, part: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Paste an image onto a canvas: anywhere, or with a corner at the mosaic's center (x, y)."""
    image = Image.open(record.image_path).convert("RGB")
    aspect = image.width / image.height * rng.uniform(0.7, 1.3) / rng.uniform(0.7, 1.3)
    longest = SIDE * rng.uniform(0.4, 1.0)
    width, height = round(longest * min(1, aspect)), round(longest * min(1, 1 / aspect))
    boxes = record.boxes * np.tile([width / image.width, height / image.height], 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    if center is None:
        left, top = int(rng.integers(SIDE - width + 1)), int(rng.integers(SIDE - height + 1))
    else:
        left = center[0] - width if part % 2 == 0 else center[0]
        top = center[1] - height if part < 2 else center[1]
    canvas = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    canvas.paste(image, (left, top))
    return np.array(canvas), (boxes + np.tile([left, top], 2)).astype(np.float32)


def recolor(image: NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
    """Change hue, saturation and value by lookup tables; returns the network's input."""
    gains, levels = 1 + rng.uniform(-1, 1, 3) * [0.1, 0.7, 0.4], np.arange(256)
    tables = [levels * gains[0] % 180, *(np.clip(levels * gain, 0, 255) for gain in gains[1:])]
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    mapped = [cv2.LUT(p, table.astype(np.uint8)) for p, table in zip(planes, tables, strict=True)]
    rgb = cv2.cvtColor(cv2.merge(mapped), cv2.COLOR_HSV2RGB)
    return torch.from_numpy(np.ascontiguousarray((rgb.astype(np.float32) / 255).transpose(2, 0, 1)))


def make_by_pil(records: Sequence[Record], index: int, *, mosaic: bool) -> Made:
    """Return a training image made of one image, or a mosaic of four."""
    rng = np.random.default_rng([1, index])
    if not mosaic:
        image, boxes = place(records[index], rng, None, 0)
        return recolor(image, rng), boxes
    x, y = (int(SIDE * rng.uniform(0.3, 0.7)) for _ in range(2))
    merged, kept = np.empty((SIDE, SIDE, 3), np.uint8), []
    for part, number in enumerate([index, *rng.integers(len(records), size=3)]):
        image, boxes = place(records[number], rng, (x, y), part)
        columns, rows = ((0, x), (x, SIDE))[part % 2], ((0, y), (y, SIDE))[part // 2]
        merged[slice(*rows), slice(*columns)] = image[slice(*rows), slice(*columns)]
        cut = boxes.clip([columns[0], rows[0]] * 2, [columns[1], rows[1]] * 2)
        kept.append(cut[((cut[:, 2:] - cut[:, :2]) > 5).all(axis=1)])
    return recolor(merged, rng), np.concatenate(kept)


def resized(records: Sequence[Record], longest: int, folder: Path) -> list[Record]:
    """Write the images at another size, as JPEGs of quality 90."""
    made = []
    for record in records:
        image, path = Image.open(record.image_path).convert("RGB"), folder / f"{len(made)}.jpg"
        scale = longest / max(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        boxes = (record.boxes * scale).clip(0, [*size, *size]).astype(np.float32)
        made.append(replace(record, image_path=path, width=size[0], height=size[1], boxes=boxes))
    return made


def build_makers(records: Sequence[Record], names: Sequence[str], share: float) -> dict[str, Maker]:
    """Return the pipelines for mosaics (share 1) or single images (share 0), the baseline first."""
    settings, dataset = AugmentSettings(share, 0.0, "reference"), VocDataset(records, names)
    ours, cached = (TrainDataset(dataset, (SIDE, SIDE), settings, 1) for _ in range(2))
    cached.fill_cache()
    baseline = partial(make_by_pil, records, mosaic=share > 0)
    return {
        "PIL": baseline,
        "PIL again (A/A)": baseline,
        "ours": lambda index: ours[0, index],
        "ours, and to float": lambda index: ours[0, index][0].float().div_(255),
        "ours, --cache": lambda index: cached[0, index],
    }


def compare(makers: dict[str, Maker], images: int, rounds: int) -> tuple[NDArray[np.floating], float]:
    """Run the pipelines in turn: seconds (rounds, makers) per image, and the A/A ratio."""
    seconds, count = np.zeros((rounds, len(makers))), 10
    for turn in progress(range(rounds), "comparing", unit="round"):
        for number in np.random.default_rng(turn).permutation(len(makers)):
            make = list(makers.values())[number]
            start = time.process_time()
            for index in range(count):
                make((turn * count + index) % images)
            seconds[turn, number] = (time.process_time() - start) / count
    return seconds, float(np.median(seconds[:, 0] / seconds[:, 1]))


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="VOCdevkit", help="folder in VOC layout")
    parser.add_argument("--split", default="VOC2007/trainval")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    report = scan_samples(load_samples(arguments.data, arguments.split))
    records = report.records[:: max(1, len(report.records) // arguments.images)][: arguments.images]
    print(*describe_machine(), f"OpenCV {cv2.__version__}, {len(records)} images", "", sep="\n")
    print("| longest side | | pipeline | images/s | times PIL |\n|---|---|---|---|---|")
    for longest, share in product((500, 1600), (0.0, 1.0)):
        with tempfile.TemporaryDirectory() as folder:
            made = resized(records, longest, Path(folder))
            makers = build_makers(made, report.class_names, share)
            for _ in range(4):
                seconds, same = compare(makers, len(made), arguments.rounds)
                if 0.95 <= same <= 1.05:
                    break
        for number, name in enumerate(makers):
            speed, ratio = 1 / np.median(seconds[:, number]), np.median(seconds[:, 0] / seconds[:, number])
            kind = "mosaic" if share else "plain"
            print(f"| {longest} | {kind} | {name} | {speed:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
