"""data.py show: contact sheets of images with their annotated boxes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from utils.cli.class_names import normalize_name
from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.cli.files import new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.tool_configs import SHEET_SIZE, ShowConfig
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_splits
from utils.tools.printing import next_command, print_lines
from utils.vision.contact_sheet import cell_size, draw_cell, save_sheet
from utils.vision.draw import HasBoxes
from utils.vision.image_reader import Pixels

Draw = Callable[[int], tuple[Pixels, HasBoxes]]  # takes the index of an image


def run(
    config: ShowConfig, augmented: Callable[[VocDataset], tuple[Draw, tuple[int, int]]] | None = None
) -> int:
    """Draw the sheets and print their paths.

    `augmented` returns what draws the images of a data set as training sees them, and their (height, width).
    """
    dataset, _ = prepare_splits(config, config.split)
    chosen = _find_ids(dataset, config.ids) if config.ids else _sample(dataset, config)
    if not chosen:
        raise UserError(
            f"--only {' '.join(config.only or ())}: no image has such an object; choose other names"
        )
    records = [dataset.records[index] for index in chosen]
    shape = statistics.median(record.height / record.width for record in records)
    draw: Draw | None = None
    if augmented is not None:
        draw, (height, width) = augmented(dataset)
        shape = height / width
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    cell = cell_size(shape)
    cells = []
    for index in progress(chosen, "show"):
        image, objects = draw(index) if draw else (dataset.read(index), dataset.objects(index))
        cells.append(draw_cell(image, objects, dataset.class_names, dataset.records[index].image_id, cell))
    for start in range(0, len(cells), SHEET_SIZE):
        path = folder / f"sheet{start // SHEET_SIZE}.jpg"
        save_sheet(path, cells[start : start + SHEET_SIZE], columns=4)
        print_lines([str(path)])
    augment = ["--augment", config.augment] if config.augment else []
    print_lines([next_command("train.py", *config.data_arguments(), *augment)])
    return 0


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
