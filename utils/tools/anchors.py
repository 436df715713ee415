"""data.py anchors: anchors fitted to the boxes of a data set, compared with the official ones."""

from __future__ import annotations

import numpy as np

from nets.config import USUAL_ANCHORS, Anchors, Masks, ModelConfig
from utils.cli.anchor_file import split_masks, write_anchors
from utils.cli.console import one_line
from utils.cli.errors import UserError
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import AnchorsConfig
from utils.data.anchor_boxes import Sizes, fit_anchors, shape_ious, used_anchors
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.tools.printing import next_command, print_lines, text_table
from utils.vision.plots.label_plots import plot_anchors

MIN_GAIN = 0.02  # in mean IoU; below it, keeping pretrained weights with their anchors is better
_THRESHOLDS = (0.25, 0.5)  # of the best IoU, for the fraction of objects above it


def run(config: AnchorsConfig) -> int:
    """Fit anchors, print a comparison with the official ones, and write the file and a plot.

    Raises:
        UserError: the data cannot be used or have too few objects, or the folder cannot be written.
    """
    dataset, _ = prepare_splits(config, config.split)
    sizes = sizes_of(dataset, config.imgsz)
    number = config.number or 3 * config.heads
    try:
        fitted = fit_anchors(sizes, number, config.seed)
    except UserError as error:
        raise UserError(f"{config.data}: {error}; difficult ones do not count") from None
    masks = split_masks(number, config.heads)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    path = folder / "anchors.txt"
    save_args_yaml(config, folder / "args.yaml")
    height, width = config.imgsz
    note = f"fitted by data.py anchors to {len(sizes)} objects of {config.data}, at {width}x{height} pixels"
    write_anchors(path, fitted, masks, one_line(note))
    sets = {"official": USUAL_ANCHORS[config.heads], "fitted": (fitted, masks)}
    shapes = {name: used_anchors(*own) for name, own in sets.items()}
    plot_anchors(folder / "anchors.png", sizes, config.imgsz, shapes)
    official_iou, fitted_iou = (shape_ious(sizes, own).max(axis=1).mean() for own in shapes.values())
    gain = float(fitted_iou - official_iou)
    print_lines([*compare(sizes, sets), *_advise(config, gain, str(path))])
    return 0


def sizes_of(dataset: VocDataset, input_size: tuple[int, int]) -> Sizes:
    """Return width and height (N, 2) in network pixels of all objects that are not difficult."""
    _, boxes = dataset.letterboxed_objects(input_size)
    difficult = np.concatenate([np.zeros(0, bool), *(record.difficult for record in dataset.records)])
    return (boxes[:, 2:] - boxes[:, :2])[~difficult].astype(np.float64)


def compare(sizes: Sizes, sets: dict[str, tuple[Anchors, Masks]]) -> list[str]:
    """Return a table of how well sets of anchors fit boxes; anchors that no head uses do not count."""
    heading = ["anchors", "mean best IoU", *(f"IoU >= {bound:g}" for bound in _THRESHOLDS)]
    rows: list[list[object]] = [[*heading]]
    heads = ["heads, coarse first"]
    for name, (anchors, masks) in sets.items():
        best = shape_ious(sizes, used_anchors(anchors, masks)).max(axis=1)
        fractions = [f"{(best >= bound).mean():.1%}" for bound in _THRESHOLDS]
        shown = "; ".join(" ".join("{:g},{:g}".format(*anchors[index]) for index in mask) for mask in masks)
        rows.append([name, f"{best.mean():.4f}", *fractions])
        heads.append(shown)
    return [
        f"{len(sizes)} objects; best IoU: with the anchor closest in shape, which is assigned in training",
        *(f"{line}  {head}" for line, head in zip(text_table(rows), heads, strict=True)),
    ]


def _advise(config: AnchorsConfig, gain: float, path: str) -> list[str]:
    """Return a recommendation and the next command."""
    arguments = config.data_arguments()
    arguments += ["--train", *config.split] if config.split else []
    if config.imgsz != ModelConfig(1).input_size:
        arguments += ["--imgsz", *dict.fromkeys(map(str, config.imgsz))]
    if config.heads != AnchorsConfig.heads:
        arguments += ["--heads", str(config.heads)]
    if gain < MIN_GAIN:
        advice = (
            f"keep the official anchors: fitted ones gain {gain:+.4f} of mean IoU, less than {MIN_GAIN:g}"
        )
    else:
        advice = (
            f"the fitted anchors gain {gain:+.4f} of mean IoU; weights trained with the official ones must "
            "adapt to them, so compare both: a short run may be worse (docs/data.md)"
        )
        arguments += ["--anchors", path]
    return [advice, f"written: {path} and anchors.png beside it", next_command("train.py", *arguments)]
