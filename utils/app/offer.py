"""What the Look tab offers: the images of --data, and the weights."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from utils.cli.app_config import AppConfig
from utils.cli.class_names import MODEL_DATA
from utils.cli.errors import UserError
from utils.cli.inputs import COCO_WEIGHTS
from utils.data.samples import DataFolder, Sample


class Offer:
    """The images of --data by id, and the weights: what `load_predictor` takes by the name on the page."""

    def __init__(self, config: AppConfig) -> None:
        """List them; raises a UserError if --data has none of the layouts."""
        self.config = config
        self.samples: dict[str, Sample] = {}
        if config.data is not None:
            folder = DataFolder(config.data)
            for split in folder.list_main_splits():
                with suppress(UserError):  # a list that cannot be read; `data.py check` tells
                    found = folder.load(split, "background", lambda _: None)
                    self.samples |= {sample.image_id: sample for sample in found}
        self.weights = {name: name for name in (*config.weights, "voc")}
        if COCO_WEIGHTS.is_file():  # the page fetches nothing
            self.weights["coco"] = "coco"
        runs = [path for path in Path(config.project).rglob("weights/best.pth") if path.is_file()]
        for path in sorted(runs, key=lambda path: -path.stat().st_mtime):
            self.weights[str(path)] = str(path)

    def locate(self, name: str) -> str:
        """Return the weights of this name, or the path of this file.

        Raises:
            UserError: the file is not below the working folder, --project or model_data.
        """
        if name in self.weights:
            return self.weights[name]
        path = os.path.realpath(name)  # so that no other name fetches anything
        places = (".", self.config.project, str(MODEL_DATA))
        if not any(Path(path).is_relative_to(os.path.realpath(place)) for place in places):
            raise UserError(
                f"{name}: not below the working folder, --project or model_data; give it with --weights"
            )
        return path
