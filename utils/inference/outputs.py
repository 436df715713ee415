"""All that a run of predict.py leaves behind, as its settings ask for it."""

from __future__ import annotations

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
from utils.inference.class_counts import Tally
from utils.inference.explainer import Explainer
from utils.inference.frames import Frame, Pictures
from utils.inference.labels import TxtWriter, XmlWriter
from utils.inference.predictor import Predictor
from utils.inference.recording import Recording
from utils.inference.sources import Source, without_password
from utils.inference.streams import Stream
from utils.inference.window import View
from utils.inference.writers import CropWriter, PictureWriter, console_line, json_line, refuse_overwriting
from utils.vision.draw import draw_detections
from utils.vision.image_reader import Pixels


class Outputs:
    """Takes what was found in each picture; a context manager, since some files are open till the end.

    Attributes:
        folder: the run's folder, None where no pictures are written.
    """

    def __init__(
        self,
        config: PredictConfig,
        sources: Sequence[Source],
        predictor: Predictor,
        explainer: Explainer,
        view: View | None = None,
    ) -> None:
        """Choose every file that will be written.

        Args:
            config: the settings.
            sources: what is looked at.
            predictor: what makes the detections.
            explainer: draws further pictures.
            view: shows the pictures.

        Raises:
            UserError: a file of the user's would be overwritten, a folder cannot be written to, or what is
                asked for is made of image files only.
        """
        self._config, self._explainer, self._view = config, explainer, view
        self._class_names = predictor.class_names
        self._pictures_tally = self._tally = Tally(self._class_names)
        self._files = ExitStack()
        self._json: IO[str] | None = None
        self._recording: Recording | None = None
        self._is_live = False
        _refuse_videos(config, sources)
        paths = [source.path for source in sources]
        read = [*paths, *(Path(path) for path in (config.classes, predictor.source) if path)]
        check_output_file("--json", config.json)
        refuse_overwriting([config.json] if config.json else [], read)
        self._labels = self._choose_labels(paths)
        self.folder = new_run_folder(config.project, config.name, config.exist_ok) if config.save else None
        self._pictures = self._crops = None
        if self.folder:
            self._pictures = PictureWriter(self.folder, [*paths, *explainer.targets(paths)])
            if config.crop:
                self._crops = CropWriter(self.folder / "crops", paths, self._class_names)

    def _choose_labels(self, paths: Sequence[Path]) -> list[XmlWriter | TxtWriter]:
        config, names = self._config, self._class_names
        labels: list[XmlWriter | TxtWriter] = []
        if config.xml:
            labels.append(XmlWriter(Path(config.xml), paths, names))
        if config.txt:
            labels.append(TxtWriter(Path(config.txt), paths, names, scores=config.txt_scores))
        return labels

    def __enter__(self) -> Outputs:
        if self.folder:
            shown = tuple(map(without_password, self._config.sources))
            save_args_yaml(replace(self._config, sources=shown), self.folder / "args.yaml")
        if self._config.json:
            self._json = self._files.enter_context(atomic_write(self._config.json, "w"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view:
            self._view.close()
        if not isinstance(error, (Interrupted, BrokenPipeError)):
            self._files.__exit__(kind, error, trace)
            return
        # What a signal ends, or a reader of stdout who has seen enough, is kept up to there.
        self._files.close()
        if isinstance(error, BrokenPipeError):
            return
        config = self._config
        kept = [str(place) for place in (config.json, config.xml, config.txt, self.folder) if place]
        error.message = one_line(f"what was found so far is in {' and '.join(kept)}" if kept else "no files")

    @property
    def is_closed(self) -> bool:
        """Whether the user closed the window, which ends the run."""
        return self._view is not None and self._view.is_closed

    @contextmanager
    def of(self, stream: Stream) -> Iterator[None]:
        """Take the frames of a stream: of a video, write them as one and print its line in the end.

        Raises:
            UserError: the video cannot be written.
        """
        if isinstance(stream, Pictures):
            yield
            return
        self._tally = Tally(self._class_names)
        self._is_live = stream.is_live
        if self._pictures:
            self._recording = Recording(self._pictures.targets[stream.path], stream.size, stream.fps)
        try:
            yield
        except Interrupted:
            self._end_recording()
            raise
        except BaseException:
            if self._recording:
                self._recording.discard()
            raise
        else:
            self._end_recording()
        finally:
            tally, self._tally = self._tally, self._pictures_tally
            self._recording = None
        print(
            one_line(
                f"{stream.name}  {tally.pictures} frames  {tally.total()}  {tally.per_picture():.0f} ms each"
            )
        )
        if self._config.count:
            print(one_line(f"at most in one frame of {stream.name}: {tally.most()}"))

    def _end_recording(self) -> None:
        if self._recording:
            self._recording.close()

    def write(self, frame: Frame, found: Detections, milliseconds: float) -> None:
        """Take what was found in a picture; that of an image file is told in a line.

        Args:
            frame: the picture.
            found: detections in its pixels.
            milliseconds: what finding them took.

        Raises:
            UserError: a file cannot be written.
        """
        self._tally.add(found, milliseconds)
        if self._json:
            self._json.write(json_line(frame, found, self._class_names) + "\n")
        for labels in self._labels:
            labels.write(frame, found)
        if self._crops:
            self._crops.write(frame, found)
        if self._pictures or self._view:
            self._draw(frame, found, draw_detections(frame.image, found, self._class_names))
        if frame.number is None:
            print(one_line(console_line(frame.path, found, self._class_names, milliseconds)), flush=True)

    def _draw(self, frame: Frame, found: Detections, drawn: Pixels) -> None:
        if self._view:
            self._view.show(drawn, wait=frame.number is None)
        if self._recording:
            self._recording.write(drawn, frame.time_s if self._is_live else None)
        elif self._pictures:
            self._pictures.write(frame.path, drawn)
            for target, picture in self._explainer.draw(frame.path, frame.image, frame.prepared, found):
                self._pictures.write(target, picture)

    def conclude(self) -> None:
        """Print the counts of the image files and where the outputs are."""
        config, tally = self._config, self._pictures_tally
        if config.count and tally.pictures:
            print(one_line(f"in {tally.pictures} images: {tally.total()}"))
        for kind, place in (("detections", config.json), ("annotations", config.xml), ("labels", config.txt)):
            if place:
                print(one_line(f"{kind}: {place}"))
        if self.folder:
            print(one_line(f"pictures: {self.folder}"))


def _refuse_videos(config: PredictConfig, sources: Sequence[Source]) -> None:
    """Hold that what can only be made of image files is not asked for of a video."""
    asked = {
        "--xml": config.xml is not None,
        "--txt": config.txt is not None,
        "--heatmap": config.heatmap is not None,
        "--attention-maps": config.attention_maps,
    }
    videos = [source.name for source in sources if source.kind != "image"]
    for flag, is_asked in asked.items():
        if is_asked and videos:
            raise UserError(
                f"{flag}: is made of image files only, and {videos[0]} is none; --json takes videos too"
            )
