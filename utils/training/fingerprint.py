"""Fingerprint of a run's data and transforms, by which a resumed run knows them wherever they are now."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.cli.console import log, plural, warn
from utils.cli.errors import UserError
from utils.data.augmentation import Augmenter
from utils.data.dataset import VocDataset
from utils.data.prepare import TrainingData
from utils.weights.checkpoint import Checkpoint


def fingerprint(data: TrainingData) -> dict[str, Any]:
    """Describe the training and the validation images in plain values.

    Returns:
        For each part that there is: `images`, their number; `ids`, a hash of their ids in order; `objects`,
        their number by class; `annotations`, a hash of their classes, boxes and difficult flags.
    """
    parts = {"train": data.train, "val": data.val}
    return {part: _describe(dataset) for part, dataset in parts.items() if dataset is not None}


def check_same_data(folder: str, data: TrainingData, resumed: Checkpoint) -> None:
    """Compare the data in a folder with what a run began with; a change in the same folder causes a warning.

    Raises:
        UserError: the folder is another one, and so is its data.
    """
    has_moved = Path(resumed.run_config["data"]).resolve() != Path(folder).resolve()
    before = resumed.training.get("data")  # missing in older checkpoints
    if before is None:
        if has_moved:
            log(f"--data {folder}: only the classes are compared: the checkpoint is of an older version")
        return
    difference = describe_difference(before, fingerprint(data))
    if difference and has_moved:
        raise UserError(f"--data {folder}: not the data of the run: {difference}; choose another folder")
    if difference:
        warn(f"{folder}: has changed since the run began: {difference}; results will differ")


def check_same_transforms(augmenter: Augmenter, resumed: Checkpoint) -> None:
    """Compare names and arguments of the user's own transforms with those that a run began with.

    Raises:
        UserError: they differ.
    """
    if augmenter.own_hash != resumed.training.get("augment"):  # missing in older checkpoints, which had none
        raise UserError(
            f"--augment {augmenter.name}: its transforms have changed since the run began; restore them, or "
            "start a new run with --weights"
        )


def describe_difference(before: Mapping[str, Any], now: Mapping[str, Any], *, same_seed: bool = True) -> str:
    """Return the first difference of two fingerprints in words, empty if there is none.

    Another seed may have held out other images, so without `same_seed` only the sums of the parts are
    compared.
    """
    if not same_seed:
        before, now = _sum_parts(before), _sum_parts(now)
    for part in dict.fromkeys((*before, *now)):
        old, new = (found.get(part, {"images": 0, "ids": "", "objects": {}}) for found in (before, now))
        if old["images"] != new["images"]:
            return f"{part} has {plural(new['images'], 'image')}, the run {old['images']}"
        if old["ids"] != new["ids"]:
            return f"{part} has {plural(new['images'], 'image')}, as the run, but not the same ones"
        for name in sorted({*old["objects"], *new["objects"]}):
            counts = [found["objects"].get(name, 0) for found in (new, old)]
            if counts[0] != counts[1]:
                return f"{part} has {plural(counts[0], 'object')} of {name}, the run {counts[1]}"
        hashes = {found["annotations"] for found in (old, new) if "annotations" in found}
        if len(hashes) > 1:  # older checkpoints have none
            return f"{part} has as many objects as the run, but other boxes, classes or difficult flags"
    return ""


def _sum_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of all parts together, as far as their order does not matter."""
    objects: Counter[str] = Counter()
    for part in found.values():
        objects.update(part["objects"])
    images = sum(part["images"] for part in found.values())
    return {"the data set": {"images": images, "ids": "", "objects": objects}}


def _describe(dataset: VocDataset) -> dict[str, Any]:
    ids = "\n".join(dataset.image_ids).encode("utf-8", "surrogateescape")
    objects = Counter(name for record in dataset.records for name in record.names)
    annotations = hashlib.sha256()
    for record in dataset.records:
        annotations.update(repr(record.names).encode("utf-8", "surrogateescape"))
        annotations.update(record.boxes.astype("<f4").tobytes() + record.difficult.tobytes())
    return {
        "images": len(dataset),
        "ids": hashlib.sha256(ids).hexdigest(),
        "objects": dict(objects),
        "annotations": annotations.hexdigest(),
    }
