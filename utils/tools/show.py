"""data.py show: contact sheets of images with their annotated boxes, plain or as training sees them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from nets.config import ModelConfig
from utils.cli.class_names import normalize_name
from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import SHEET_SIZE, ShowConfig
from utils.data.augmentation_check import check_augmentation
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.tools.printing import next_command, print_lines
from utils.vision.contact_sheet import cell_size, draw_cell, save_sheet
from utils.vision.draw import HasBoxes
from utils.vision.image_reader import Pixels


def run(config: ShowConfig) -> int:
    """Draw the sheets and print their paths."""
    dataset, _ = prepare_splits(config, config.split)
    chosen = _find_ids(dataset, config.ids) if config.ids else _sample(dataset, config)
    if not chosen:
        raise UserError(
            f"--only {' '.join(config.only or ())}: no image has such an object; choose other names"
        )
    augmented = _build_augmented(dataset, config) if config.augment else None
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    records = [dataset.records[index] for index in chosen]
    cell = cell_size(statistics.median(record.height / record.width for record in records))
    if augmented is not None:
        cell = cell_size(augmented.input_size[0] / augmented.input_size[1])
    cells = []
    for index in progress(chosen, "show"):
        image: Pixels
        objects: HasBoxes
        if augmented is None:
            image, objects = dataset.read(index), dataset.objects(index)
        else:
            image, objects = augmented.render((0, index))
        cells.append(draw_cell(image, objects, dataset.class_names, dataset.records[index].image_id, cell))
    for start in range(0, len(cells), SHEET_SIZE):
        path = folder / f"sheet{start // SHEET_SIZE}.jpg"
        save_sheet(path, cells[start : start + SHEET_SIZE], columns=4)
        print_lines([str(path)])
    print_lines([next_command("train.py", *config.data_arguments())])
    return 0


def _build_augmented(dataset: VocDataset, config: ShowConfig) -> TrainDataset:
    mosaic = AugmentSettings.mosaic if config.mosaic is None else config.mosaic
    settings = AugmentSettings(mosaic, 0.0, str(config.augment))
    augmented = TrainDataset(dataset, config.imgsz or ModelConfig(1).input_size, settings, config.seed)
    check_augmentation(augmented.augmenter)
    return augmented


def _sample(dataset: VocDataset, config: ShowConfig) -> list[int]:
    """Return the indices of random images, in the order of the data."""
    wanted = set(map(normalize_name, config.only or dataset.class_names))
    if unknown := wanted - set(dataset.class_names):
        known = ", ".join(dataset.class_names)
        raise UserError(f"--only {' '.join(sorted(unknown))}: no such class; choose from {known}")
    indices = [
        index for index, record in enumerate(dataset.records) if not config.only or wanted & set(record.names)
    ]
    drawn = np.random.default_rng(config.seed).permutation(len(indices))[: config.count]
    return [indices[place] for place in sorted(drawn.tolist())]


def _find_ids(dataset: VocDataset, ids: Sequence[str]) -> list[int]:
    """Return the indices of the images with these ids; the folder in front of an id is optional."""
    found = []
    for wanted in ids:
        matches = [
            index
            for index, image_id in enumerate(dataset.image_ids)
            if wanted in (image_id, image_id.rpartition("/")[2])
        ]
        if not matches:
            raise UserError(f"--ids {wanted}: no such image in these splits; name other splits with --split")
        found += matches
    return found
