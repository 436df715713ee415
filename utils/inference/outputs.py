"""All that a run of predict.py leaves behind, as its settings ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

from nets.structures import Detections
from utils.config import PredictConfig, save_args_yaml
from utils.console import one_line
from utils.draw import draw_detections
from utils.files import atomic_write, new_run_folder
from utils.inference.explainer import Explainer
from utils.inference.frames import Frame
from utils.inference.labels import TxtWriter, XmlWriter
from utils.inference.predictor import Predictor
from utils.inference.writers import (
    CropWriter,
    PictureWriter,
    console_line,
    describe_counts,
    json_line,
    refuse_overwriting,
)


class Outputs:
    """Takes what was found in each picture; a context manager, since some files are open till the end."""

    def __init__(
        self, config: PredictConfig, sources: Sequence[Path], predictor: Predictor, explainer: Explainer
    ) -> None:
        """Choose every file that will be written.

        Args:
            config: the settings.
            sources: the files that are read.
            predictor: what makes the detections.
            explainer: draws further pictures.

        Raises:
            UserError: a file of the user's would be overwritten, or a folder cannot be written to.
        """
        self._config, self._explainer = config, explainer
        self._class_names = predictor.class_names
        self._counts: Counter[str] = Counter()
        self._images = 0
        self._files = ExitStack()
        self._json: IO[str] | None = None
        read = [
            *sources,
            *(Path(path) for path in (config.weights, config.classes, predictor.source) if path),
        ]
        refuse_overwriting([config.json] if config.json else [], read)
        self._labels = self._choose_labels(sources)
        self.folder = new_run_folder(config.project, config.name, config.exist_ok) if config.save else None
        self._pictures = self._crops = None
        if self.folder:
            self._pictures = PictureWriter(self.folder, [*sources, *explainer.targets(sources)])
            if config.crop:
                self._crops = CropWriter(self.folder / "crops", sources, self._class_names)

    def _choose_labels(self, sources: Sequence[Path]) -> list[XmlWriter | TxtWriter]:
        config, names = self._config, self._class_names
        labels: list[XmlWriter | TxtWriter] = []
        if config.xml:
            labels.append(XmlWriter(Path(config.xml), sources, names))
        if config.txt:
            labels.append(TxtWriter(Path(config.txt), sources, names, scores=config.txt_scores))
        return labels

    def __enter__(self) -> Outputs:
        if self.folder:
            save_args_yaml(self._config, self.folder / "args.yaml")
        if self._config.json:
            self._json = self._files.enter_context(atomic_write(self._config.json, "w"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, frame: Frame, found: Detections, milliseconds: float) -> None:
        """Take what was found in a picture, and print its line.

        Args:
            frame: the picture.
            found: detections in its pixels.
            milliseconds: what finding them took.

        Raises:
            UserError: a file cannot be written.
        """
        if self._json:
            line = json_line(frame.path, frame.image.shape[:2], found, self._class_names)
            self._json.write(line + "\n")
        for labels in self._labels:
            labels.write(frame, found)
        if self._crops:
            self._crops.write(frame.path, frame.image, found)
        if self._pictures:
            self._pictures.write(frame.path, draw_detections(frame.image, found, self._class_names))
            for target, picture in self._explainer.draw(frame.path, frame.image, frame.prepared, found):
                self._pictures.write(target, picture)
        self._counts.update(self._class_names[label] for label in found.labels.tolist())
        self._images += 1
        print(one_line(console_line(frame.path, found, self._class_names, milliseconds)), flush=True)

    def conclude(self) -> None:
        """Print the counts and where the files are."""
        config = self._config
        if config.count:
            print(one_line(f"in {self._images} images: {describe_counts(self._counts)}"))
        for kind, place in (("detections", config.json), ("annotations", config.xml), ("labels", config.txt)):
            if place:
                print(one_line(f"{kind}: {place}"))
        if self.folder:
            print(one_line(f"pictures: {self.folder}"))
