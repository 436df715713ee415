"""data.py stats: how many objects of which class and size, as a table and a picture."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nets.config import OFFICIAL_ANCHORS
from utils.cli.console import one_line
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import StatsConfig
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.vision.plots.label_plots import plot_labels

SMALL, LARGE = 32**2, 96**2  # square pixels, COCO's limits


def run(config: StatsConfig) -> int:
    """Print the figures and draw labels.png."""
    dataset, _ = prepare_splits(config.data, config.split, **config.reading())
    labels, boxes = dataset.letterboxed_objects(config.imgsz)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    plot_labels(folder / "labels.png", dataset.class_names, labels, boxes, config.imgsz, OFFICIAL_ANCHORS)
    for line in [*describe_classes(dataset, labels, boxes), "", *describe_images(dataset)]:
        print(one_line(line))
    height, width = config.imgsz
    print(f"sizes: in pixels of the network's input, {height}x{width}; small below 32x32, large from 96x96")
    print(one_line(f"labels.png: {folder}"))
    print(one_line(f"next: {shlex.join(['python', 'data.py', 'anchors', *config.data_arguments()])}"))
    return 0


def describe_classes(
    dataset: VocDataset, labels: NDArray[np.int64], boxes: NDArray[np.float32]
) -> Iterator[str]:
    """Yield a table with a line a class.

    Args:
        dataset: its records, in whose order the objects stand.
        labels: int64 (N,), of all objects.
        boxes: float32 (N, 4), xyxy in network pixels, one each.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1)
    hard = np.concatenate([record.difficult for record in dataset.records] or [np.zeros(0, dtype=bool)])
    width = max(5, *(len(name) for name in dataset.class_names), 0)
    head = "images  objects  difficult  small  medium  large  median size"
    yield f"{'class':<{width}}  {head}"
    for label, name in enumerate(dataset.class_names):
        own = labels == label
        images = sum(name in record.names for record in dataset.records)
        small, large = int((areas[own] < SMALL).sum()), int((areas[own] >= LARGE).sum())
        counts = f"{images:>6}  {own.sum():>7}  {hard[own].sum():>9}  {small:>5}"
        median = "{:.0f} x {:.0f}".format(*np.median(sides[own], axis=0)) if own.any() else "-"
        yield f"{name:<{width}}  {counts}  {own.sum() - small - large:>6}  {large:>5}  {median:>11}"


def describe_images(dataset: VocDataset) -> Iterator[str]:
    """Yield lines on the sizes of the images and on how many objects they show."""
    sizes = np.array([(record.width, record.height) for record in dataset.records])
    objects = np.array([len(record.names) for record in dataset.records])
    (low_w, low_h), (high_w, high_h) = sizes.min(axis=0), sizes.max(axis=0)
    median_w, median_h = np.median(sizes, axis=0)
    yield f"{len(sizes)} images of {low_w}x{low_h} to {high_w}x{high_h}, median {median_w:.0f}x{median_h:.0f}"
    empty = int((objects == 0).sum())
    yield f"{objects.mean():.1f} objects an image, at most {objects.max()}; {empty} images without any"
