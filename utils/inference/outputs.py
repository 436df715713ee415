"""Outputs of predict.py: images, videos, files and lines, as its settings ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO

from nets.structures import Detections
from utils.cli.console import one_line
from utils.cli.errors import Interrupted, UserError
from utils.cli.files import atomic_write, check_output_file, new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.predict_config import PredictConfig
from utils.inference.explain import Explainer
from utils.inference.frames import Frame, ImageFiles
from utils.inference.predictor import Predictor
from utils.inference.sources import Source, without_password
from utils.inference.streams import Stream
from utils.inference.video import VideoWriter
from utils.inference.window import Window
from utils.inference.writers import (
    CropWriter,
    ImageWriter,
    TxtWriter,
    XmlWriter,
    console_line,
    describe_counts,
    json_line,
    refuse_overwriting,
)
from utils.vision.draw import draw_detections
from utils.vision.image_reader import Pixels


class ClassCounts:
    """The number of objects of each class over many images, and the milliseconds that they took."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self.images = 0
        self.milliseconds = 0.0
        self.total: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # in one image

    def add(self, detections: Detections, milliseconds: float) -> None:
        """Count the detections of an image."""
        counts = Counter(self._class_names[label] for label in detections.labels.tolist())
        self.images += 1
        self.milliseconds += milliseconds
        self.total += counts
        self.most |= counts


class Outputs:
    """Writes and shows the detections of each frame; a context manager, as some files stay open.

    Attributes:
        folder: the run's folder, None where no images are written.
    """

    def __init__(
        self, config: PredictConfig, sources: Sequence[Source], predictor: Predictor, window: Window | None
    ) -> None:
        """Choose every file that will be written.

        Args:
            config: the settings.
            sources: what objects are detected in.
            predictor: the detector, which is also explained.
            window: shows the images.

        Raises:
            UserError: a source would be overwritten, a folder cannot be written to, or a flag takes image
                files only.
        """
        self._config, self._window = config, window
        self._class_names = predictor.class_names
        self._explainer = Explainer(predictor, attention_maps=config.attention_maps, heatmap=config.heatmap)
        self._image_counts = self._counts = ClassCounts(self._class_names)
        self._open_files = ExitStack()
        self._json: IO[str] | None = None
        self._video: VideoWriter | None = None
        self._is_live = False
        _check_only_images(config, sources)
        paths = [source.path for source in sources]
        check_output_file("--json", config.json)
        inputs = [*paths, *(Path(path) for path in (config.classes, predictor.source) if path)]
        refuse_overwriting([config.json] if config.json else [], inputs)
        self._labels: list[XmlWriter | TxtWriter] = []
        if config.xml:
            self._labels.append(XmlWriter(Path(config.xml), paths, self._class_names))
        if config.txt:
            self._labels.append(
                TxtWriter(Path(config.txt), paths, self._class_names, scores=config.txt_scores)
            )
        self.folder = new_run_folder(config.project, config.name, config.exist_ok) if config.save else None
        self._images = self._crops = None
        if self.folder:
            self._images = ImageWriter(self.folder, [*paths, *self._explainer.targets(paths)])
            if config.crop:
                self._crops = CropWriter(self.folder / "crops", paths, self._class_names)

    def __enter__(self) -> Outputs:
        if self.folder:
            shown = tuple(map(without_password, self._config.sources))
            save_args_yaml(replace(self._config, sources=shown), self.folder / "args.yaml")
        if self._config.json:
            self._json = self._open_files.enter_context(atomic_write(self._config.json, "w"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._window:
            self._window.close()
        if not isinstance(error, (Interrupted, BrokenPipeError)):
            self._open_files.__exit__(kind, error, trace)
            return
        self._open_files.close()  # after a signal or a closed pipe the detections so far are kept
        if isinstance(error, Interrupted):
            config = self._config
            kept = [str(place) for place in (config.json, config.xml, config.txt, self.folder) if place]
            error.message = one_line(f"detections so far: {' and '.join(kept)}" if kept else "no files")

    @property
    def is_closed(self) -> bool:
        """Whether the user closed the window, which ends the run."""
        return self._window is not None and self._window.is_closed

    @contextmanager
    def of(self, stream: Stream) -> Iterator[None]:
        """Write the frames of a stream: those of a video into one video, with one line at the end."""
        if isinstance(stream, ImageFiles):
            yield
            return
        self._counts = counts = ClassCounts(self._class_names)
        self._is_live = stream.is_live
        video = None
        if self._images:
            video = self._video = VideoWriter(self._images.targets[stream.path], stream.size, stream.fps)
        try:
            yield
        except BaseException as error:
            if video and not isinstance(error, Interrupted):
                video.discard()
            elif video:
                video.close()
            raise
        else:
            if video:
                video.close()
        finally:
            self._counts, self._video = self._image_counts, None
        mean = counts.milliseconds / max(counts.images, 1)
        print(
            one_line(
                f"{stream.name}  {counts.images} frames  {describe_counts(counts.total)}  {mean:.0f} ms each"
            )
        )
        if self._config.count:
            print(one_line(f"at most in one frame of {stream.name}: {describe_counts(counts.most)}"))

    def write(self, frame: Frame, detections: Detections, milliseconds: float) -> None:
        """Write the detections of a frame; an image file also gets a line.

        Args:
            frame: the image.
            detections: boxes in its pixels.
            milliseconds: the time they took.
        """
        self._counts.add(detections, milliseconds)
        if self._json:
            self._json.write(json_line(frame, detections, self._class_names) + "\n")
        for labels in self._labels:
            labels.write(frame, detections)
        if self._crops:
            self._crops.write(frame, detections)
        if self._images or self._window:
            self._write_drawn(frame, detections, draw_detections(frame.image, detections, self._class_names))
        if frame.number is None:
            print(one_line(console_line(frame.path, detections, self._class_names, milliseconds)), flush=True)

    def _write_drawn(self, frame: Frame, detections: Detections, drawn: Pixels) -> None:
        if self._window:
            self._window.show(drawn, wait=frame.number is None)
        if self._video:
            self._video.write(drawn, frame.time_s if self._is_live else None)
        elif self._images:
            self._images.write(frame.path, drawn)
            for target, image in self._explainer.draw(frame, detections):
                self._images.write(target, image)

    def conclude(self) -> None:
        """Print the counts of the image files and the places of the outputs."""
        config, counts = self._config, self._image_counts
        if config.count and counts.images:
            print(one_line(f"in {counts.images} images: {describe_counts(counts.total)}"))
        for kind, place in (
            ("detections", config.json),
            ("annotations", config.xml),
            ("labels", config.txt),
            ("pictures", self.folder),
        ):
            if place:
                print(one_line(f"{kind}: {place}"))


def _check_only_images(config: PredictConfig, sources: Sequence[Source]) -> None:
    """Check that what only image files can have is not asked of a video."""
    asked = {
        "--xml": config.xml is not None,
        "--txt": config.txt is not None,
        "--heatmap": config.heatmap is not None,
        "--attention-maps": config.attention_maps,
    }
    videos = [source.name for source in sources if source.kind != "image"]
    for flag, is_asked in asked.items():
        if is_asked and videos:
            raise UserError(f"{flag}: takes image files only, not {videos[0]}; --json takes videos too")
