"""data.py stats: objects of a data set by class and size, and the input size that fits its images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nets.config import OFFICIAL_ANCHORS
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import StatsConfig
from utils.data.canvas import choose_canvas
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.tools.printing import next_command, print_lines, text_table
from utils.vision.plots.label_plots import plot_labels

SMALL, LARGE = 32**2, 96**2  # square pixels, COCO's limits


def run(config: StatsConfig) -> int:
    """Print the tables and draw labels.png."""
    dataset, _ = prepare_splits(config, config.split)
    labels, boxes = dataset.letterboxed_objects(config.imgsz)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    plot_labels(folder / "labels.png", dataset.class_names, labels, boxes, config.imgsz, OFFICIAL_ANCHORS)
    height, width = config.imgsz
    sizes = f"sizes: in pixels of the network's input, {height}x{width}; small below 32x32, large from 96x96"
    canvas = choose_canvas(dataset, config.imgsz).describe()
    lines = [*describe_classes(dataset, labels, boxes), "", *describe_images(dataset), sizes, canvas]
    following = next_command("data.py", "anchors", *config.data_arguments())
    print_lines([*lines, f"labels.png: {folder}", following])
    return 0


def describe_classes(dataset: VocDataset, labels: NDArray[np.int64], boxes: NDArray[np.float32]) -> list[str]:
    """Return a table with a line per class; labels (N,) and boxes (N, 4) in network pixels are in order."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1)
    difficult = np.concatenate([record.difficult for record in dataset.records] or [np.zeros(0, bool)])
    rows: list[list[object]] = [
        ["class", "images", "objects", "difficult", "small", "medium", "large", "median size"]
    ]
    for label, name in enumerate(dataset.class_names):
        own = labels == label
        images = sum(name in record.names for record in dataset.records)
        small, large = int((areas[own] < SMALL).sum()), int((areas[own] >= LARGE).sum())
        median = "{:.0f} x {:.0f}".format(*np.median(sides[own], axis=0)) if own.any() else "-"
        medium = own.sum() - small - large
        rows.append([name, images, own.sum(), difficult[own].sum(), small, medium, large, median])
    return text_table(rows)


def describe_images(dataset: VocDataset) -> list[str]:
    """Return lines on the sizes of the images and on their numbers of objects."""
    sizes = np.array([(record.width, record.height) for record in dataset.records])
    objects = np.array([len(record.names) for record in dataset.records])
    (low_w, low_h), (high_w, high_h) = sizes.min(axis=0), sizes.max(axis=0)
    median_w, median_h = np.median(sizes, axis=0)
    empty = int((objects == 0).sum())
    return [
        f"{len(sizes)} images of {low_w}x{low_h} to {high_w}x{high_h}, median {median_w:.0f}x{median_h:.0f}",
        f"{objects.mean():.1f} objects per image, at most {objects.max()}; {empty} images without objects",
    ]
