"""Outputs of predict.py: images, videos, files, lines and a window, as its settings ask."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import cv2

from nets.structures import Detections
from utils.cli.console import log, one_line, plural, warn
from utils.cli.errors import Interrupted, UserError
from utils.cli.files import free_name, new_run_folder
from utils.cli.parser import save_args_yaml
from utils.cli.predict_config import PredictConfig
from utils.inference.explain import Explainer
from utils.inference.predictor import Predictor
from utils.inference.sources import Source, without_password
from utils.inference.streams import Frame, ImageFiles, Stream
from utils.inference.writers import (
    Append,
    VideoWriter,
    choose_image_ids,
    choose_images,
    choose_label_files,
    coco_file,
    csv_file,
    describe,
    describe_counts,
    json_file,
    write_class_list,
    write_crops,
    write_txt,
    write_xml,
)
from utils.vision.draw import draw_detections
from utils.vision.image_reader import Pixels
from utils.vision.image_writer import write_image

_TITLE = "press q to quit"
_QUIT_KEYS = (ord("q"), 27)  # 27 is Escape


@dataclass
class ClassCounts:
    """The number of objects of each class over many images, and the milliseconds that they took."""

    images: int = 0
    milliseconds: float = 0.0
    total: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)  # in one image

    def add(self, counts: Counter[str], milliseconds: float) -> None:
        """Add the counts of an image."""
        self.images += 1
        self.milliseconds += milliseconds
        self.total += counts
        self.most |= counts


class Window:
    """Shows an image until a key is pressed, a video as it comes.

    Attributes:
        is_closed: whether the user pressed q or Escape, or closed the window.
    """

    def __init__(self, must_stop: Callable[[], bool] = lambda: False) -> None:
        """Open the window; `must_stop` tells that waiting for a key is to end.

        Raises:
            UserError: there is no screen, or this OpenCV has no windows.
        """
        self.is_closed = False
        self._must_stop = must_stop
        advice = "leave it out; the run's folder holds the images"
        # Without a screen OpenCV's Qt ends the whole process.
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"--view: there is no screen; {advice}")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise UserError(
                f"--view: this OpenCV has no windows (opencv-python-headless); {advice}"
            ) from None

    def show(self, image: Pixels, *, wait: bool) -> None:
        """Show an image, uint8 (H, W, 3) in RGB; `wait` for a key, or return at once."""
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        while not self.is_closed:
            key = cv2.waitKey(50 if wait else 1)
            self.is_closed = key in _QUIT_KEYS or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
            if key >= 0 or not wait or self._must_stop():
                return

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()


class Outputs:
    """Writes and shows the detections of each frame; a context manager, as some files stay open.

    Attributes:
        folder: the run's folder, None where no images are written.
    """

    def __init__(
        self, config: PredictConfig, sources: Sequence[Source], predictor: Predictor, window: Window | None
    ) -> None:
        """Choose every file that will be written.

        Raises:
            UserError: a source would be overwritten, a folder cannot be written to, or a flag takes image
                files only.
        """
        self._config, self._window = config, window
        self._class_names = predictor.class_names
        self._explainer = Explainer(predictor, attention_maps=config.attention_maps, heatmap=config.heatmap)
        self._image_counts = self._counts = ClassCounts()
        self._open_files = ExitStack()
        self._appends: list[Append] = []  # of the files of lines
        self._video: VideoWriter | None = None
        self._sizes: set[tuple[int, ...]] = set()  # of which the number of tiles was logged
        _check_only_images(config, sources)
        paths = [source.path for source in sources]
        self._image_ids = choose_image_ids(paths) if config.coco else {}
        self._xml = choose_label_files("--xml", Path(config.xml), ".xml", paths) if config.xml else {}
        self._txt = choose_label_files("--txt", Path(config.txt), ".txt", paths) if config.txt else {}
        if config.txt:
            write_class_list(Path(config.txt), self._class_names, self._txt.values())
        self.folder = new_run_folder(config.project, config.name, config.exist_ok) if config.save else None
        self._images: dict[Path, Path] = {}
        if self.folder:
            self._images = choose_images(self.folder, [*paths, *self._explainer.targets(paths)])
        taken: set[str] = set()
        self._crop_stems = {path: free_name(path.stem, taken) for path in paths}

    def __enter__(self) -> Outputs:
        if self.folder:
            shown = tuple(map(without_password, self._config.sources))
            save_args_yaml(replace(self._config, sources=shown), self.folder / "args.yaml")
        config = self._config
        for path, open_file in ((config.json, json_file), (config.csv, csv_file), (config.coco, coco_file)):
            if path:
                self._appends.append(self._open_files.enter_context(open_file(path)))
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
            places = (config.json, config.csv, config.coco, config.xml, config.txt, self.folder)
            kept = [str(place) for place in places if place]
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
        self._counts = ClassCounts()
        with ExitStack() as files:
            if self._images:
                target = self._images[stream.path]
                fps = min(stream.fps, max(1.0, stream.fps / self._config.stride))
                self._video = files.enter_context(VideoWriter(target, stream.size, fps))
            yield
        counts, self._counts, self._video = self._counts, self._image_counts, None
        mean = counts.milliseconds / max(counts.images, 1)
        total = describe_counts(counts.total)
        print(one_line(f"{stream.name}  {plural(counts.images, 'frame')}  {total}  {mean:.0f} ms each"))
        if self._config.count:
            print(one_line(f"at most in one frame of {stream.name}: {describe_counts(counts.most)}"))

    def announce_tiles(self, frames: Sequence[Frame]) -> None:
        """Log how many tiles the images take, once for each size."""
        for frame in frames:
            height, width = frame.image.shape[:2]
            if (tiles := len(frame.prepared.tiles)) and (height, width) not in self._sizes:
                self._sizes.add((height, width))
                image = f"an image {width} pixels wide and {height} high"
                log(f"{image} takes {tiles} tiles, and once the whole image")

    def write(self, frame: Frame, detections: Detections, milliseconds: float) -> None:
        """Write the detections of a frame, with the time they took; an image file also gets a line."""
        counts = Counter(self._class_names[label] for label in detections.labels.tolist())
        self._counts.add(counts, milliseconds)
        if self._appends:
            described = describe(frame, detections, self._class_names)
            for append in self._appends:
                append(described, self._image_ids.get(frame.path))
        if self._xml:
            scores, exact = self._config.scores, self._config.float_boxes
            target = self._xml[frame.path]
            write_xml(target, frame, detections, self._class_names, scores=scores, float_boxes=exact)
        if self._txt:
            write_txt(self._txt[frame.path], frame, detections, scores=self._config.scores)
        if self.folder and self._config.crop:
            stem = self._crop_stems[frame.path]
            write_crops(self.folder / "crops", stem, frame, detections, self._class_names)
        if self._images or self._window:
            self._write_drawn(frame, detections, draw_detections(frame.image, detections, self._class_names))
        if frame.number is None:
            line = f"{frame.name}  {describe_counts(counts)}  {milliseconds:.0f} ms"
            print(one_line(line), flush=True)

    def _write_drawn(self, frame: Frame, detections: Detections, drawn: Pixels) -> None:
        if self._window:
            self._window.show(drawn, wait=frame.number is None)
        if self._video:
            self._video.write(drawn, frame.time_s or 0.0)
        elif self._images:
            write_image(drawn, self._images[frame.path])
            for target, image in self._explainer.draw(frame, detections):
                write_image(image, self._images[target])

    def conclude(self) -> None:
        """Print the counts of the image files and the places of the outputs."""
        config, counts = self._config, self._image_counts
        if config.count and counts.images:
            print(one_line(f"in {plural(counts.images, 'image')}: {describe_counts(counts.total)}"))
        for kind, place in (
            ("detections", config.json),
            ("detections", config.csv),
            ("detections", config.coco),
            ("annotations", config.xml),
            ("labels", config.txt),
            ("images", self.folder),
        ):
            if place:
                print(one_line(f"{kind}: {place}"))


def _check_only_images(config: PredictConfig, sources: Sequence[Source]) -> None:
    """Check that what only images can have is not asked of a video, and say that --stride is for videos."""
    asked = {
        "--coco": config.coco is not None,
        "--xml": config.xml is not None,
        "--txt": config.txt is not None,
        "--heatmap": config.heatmap is not None,
        "--attention-maps": config.attention_maps,
    }
    flags = [flag for flag, is_asked in asked.items() if is_asked]
    videos = [source.name for source in sources if source.kind != "image"]
    if config.stride > 1 and not videos:
        warn("--stride: has no effect on images")
    if flags and videos:
        raise UserError(f"{flags[0]}: takes image files only, not {videos[0]}; --json takes videos too")
