"""What the Look tab offers: the images of --data and --label, and the weights."""

from __future__ import annotations

import os
from pathlib import Path

from utils.app.label import list_images
from utils.cli.app_config import AppConfig
from utils.cli.class_names import MODEL_DATA
from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.cli.files import as_utf8
from utils.cli.inputs import COCO_WEIGHTS
from utils.data.samples import Sample


class Offer:
    """The images of --data and --label, and the weights that `load_predictor` takes, by name on the page."""

    def __init__(self, config: AppConfig) -> None:
        """List them; raises a UserError if a folder has no images."""
        self.config = config
        self.samples: dict[str, Sample] = {}
        for folder in dict.fromkeys(filter(None, (config.data, config.label))):
            images = list_images(Path(folder))
            for name, files in images.items():
                sample = Sample(name, *files)
                if self.samples.setdefault(name, sample) != sample:  # --data has another of this name
                    self.samples[as_utf8(sample.image_path)] = sample
            if folder == config.data and not any(os.path.lexists(xml) for _, xml, _ in images.values()):
                warn(f"--data {folder}: no VOC XML, so no ground truth; data.py convert reads other formats")
        self.weights = {as_utf8(name): name for name in (*config.weights, "voc")}
        if COCO_WEIGHTS.is_file():  # the page fetches nothing
            self.weights["coco"] = "coco"
        runs = [path for path in Path(config.project).rglob("weights/best.pth") if path.is_file()]
        for path in sorted(runs, key=lambda path: -path.stat().st_mtime):
            self.weights[as_utf8(path)] = str(path)

    def locate(self, name: str) -> str:
        """Return the weights of this name, or the path of this file.

        Raises:
            UserError: there is no such file, or it is not below the working folder, --project or model_data.
        """
        if not name.strip():
            raise UserError("weights without a name; remove the empty entry")
        if name in self.weights:
            return self.weights[name]
        # The whole path, so that no other name fetches anything; no path has a NUL.
        path = os.path.realpath(name.replace("\0", "\N{REPLACEMENT CHARACTER}"))
        places = (".", self.config.project, str(MODEL_DATA))
        if not any(Path(path).is_relative_to(os.path.realpath(place)) for place in places):
            raise UserError(
                f"{name}: not below the working folder, --project or model_data; give it with --weights"
            )
        if not os.path.exists(path):  # also of a name that is too long
            raise UserError(f"{name[:200]}: no such weights file")
        return path
