"""data.py anchors: how well the official anchors fit the boxes of a data set, and which would fit better."""

from __future__ import annotations

import shlex

import numpy as np

from nets.config import ModelConfig
from utils.cli.console import one_line
from utils.cli.errors import UserError
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import AnchorsConfig
from utils.data.anchor_boxes import (
    Anchors,
    Masks,
    Sizes,
    fit_anchors,
    halved_masks,
    shape_ious,
    used_anchors,
    write_anchors,
)
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.vision.plots.label_plots import plot_anchors

WORTH = 0.02  # of mean IoU gained; below it the weights that know the official anchors are worth more
_BOUNDS = (0.25, 0.5)  # of the best IoU, for the share of the objects that reach it


def run(config: AnchorsConfig) -> int:
    """Fit anchors, print how they compare with the official ones, and write them and a picture.

    Raises:
        UserError: the data cannot be used or have too few objects, or the folder cannot be written.
    """
    dataset, _ = prepare_splits(config.data, config.split, **config.reading())
    sizes = sizes_of(dataset, config.imgsz)
    try:
        fitted = fit_anchors(sizes, config.number, config.seed)
    except UserError as error:
        raise UserError(f"{config.data}: {error}; difficult ones do not count") from None
    usual = ModelConfig(1)
    official, masks = usual.anchors, halved_masks(config.number)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    path = folder / "anchors.txt"
    save_args_yaml(config, folder / "args.yaml")
    height, width = config.imgsz
    note = f"fitted by data.py anchors to {len(sizes)} objects of {config.data}, at {width}x{height} pixels"
    write_anchors(path, fitted, one_line(note))
    shapes = {"official": used_anchors(official, usual.anchor_masks), "fitted": fitted}
    plot_anchors(folder / "anchors.png", sizes, config.imgsz, shapes)
    for line in compare(sizes, {"official": (official, usual.anchor_masks), "fitted": (fitted, masks)}):
        print(line)
    gain = _mean_iou(sizes, fitted) - _mean_iou(sizes, shapes["official"])
    for line in _advise(config, gain, str(path)):
        print(one_line(line))
    return 0


def sizes_of(dataset: VocDataset, input_size: tuple[int, int]) -> Sizes:
    """Return width and height (N, 2) in network pixels of all objects that are not difficult."""
    _, boxes = dataset.letterboxed_objects(input_size)
    difficult = np.concatenate([np.zeros(0, bool), *(record.difficult for record in dataset.records)])
    return (boxes[:, 2:] - boxes[:, :2])[~difficult].astype(np.float64)


def compare(sizes: Sizes, sets: dict[str, tuple[Anchors, Masks]]) -> list[str]:
    """Describe how well sets of anchors fit boxes, a line a set; anchors that no head owns do not count."""
    heading = "  ".join(f"IoU >= {bound:g}" for bound in _BOUNDS)
    lines = [
        f"{len(sizes)} objects; the best IoU of an object is that with the anchor most like it in shape,",
        "which answers for it in training however small it is",
        f"{'anchors':<10}mean best IoU  {heading}  coarse head; fine head",
    ]
    for name, (anchors, masks) in sets.items():
        best = shape_ious(sizes, used_anchors(anchors, masks)).max(axis=1)
        shares = "  ".join(f"{(best >= bound).mean():>{6 + len(f'{bound:g}')}.1%}" for bound in _BOUNDS)
        shown = "; ".join(" ".join("{:g},{:g}".format(*anchors[index]) for index in mask) for mask in masks)
        lines.append(f"{name:<10}{best.mean():>13.4f}  {shares}  {shown}")
    return lines


def _mean_iou(sizes: Sizes, anchors: Anchors) -> float:
    return float(shape_ious(sizes, anchors).max(axis=1).mean())


def _advise(config: AnchorsConfig, gain: float, path: str) -> list[str]:
    """Say what to do with the anchors, and what to type next."""
    command = ["python", "train.py", *config.data_arguments()]
    command += ["--train", *config.split] if config.split else []
    if config.imgsz != (416, 416):
        command += ["--imgsz", *dict.fromkeys(map(str, config.imgsz))]
    if gain < WORTH:
        verdict = f"keep the official anchors: fitted ones gain {gain:+.4f} of mean IoU, less than {WORTH:g}"
    else:
        verdict = (
            f"the fitted anchors gain {gain:+.4f} of mean IoU; weights trained with the official ones have "
            "to learn the new, so compare both: a short run may be worse off (docs/data.md)"
        )
        command += ["--anchors", path]
    return [verdict, f"written: {path} and anchors.png beside it", f"next: {shlex.join(command)}"]
