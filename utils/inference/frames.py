"""Frames to detect objects in, image files as a stream of frames, and the sources that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli.console import log, warn
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor, Prepared
from utils.inference.prefetch import prefetch
from utils.inference.sources import Source
from utils.vision.image_reader import Pixels, read_image

_MAX_WARNINGS = 10
MAX_IN_FLIGHT = 4  # frames; few, as one may take hundreds of megabytes


@dataclass(frozen=True)
class Frame:
    """An image file, or one frame of a video, a camera or a stream.

    Attributes:
        name: the name of its source.
        path: the file of its source.
        image: uint8 (H, W, 3) in RGB.
        prepared: the image as the network takes it.
        number: its index in the video, from 0; None for an image file.
        time_s: seconds from the start of the video.
    """

    name: str
    path: Path
    image: Pixels
    prepared: Prepared
    number: int | None = None
    time_s: float | None = None


class Failures:
    """The sources that could not be read: all are counted, the first ten named."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._total = len(sources)
        self._kind = "images" if all(source.kind == "image" for source in sources) else "sources"
        self._errors: list[UserError] = []

    def add(self, error: UserError) -> None:
        """Record a source that could not be read, and warn if there are others."""
        self._errors.append(error)
        if self._total > 1 and len(self._errors) <= _MAX_WARNINGS:
            warn(f"{error}; skipped")

    def conclude(self) -> int:
        """Log how many there were; returns the exit status.

        Raises:
            UserError: nothing could be read (exit code 1).
        """
        count = len(self._errors)
        if count == self._total:
            others = f"; none of {self._total} {self._kind} could be read" if self._total > 1 else ""
            raise UserError(f"{self._errors[0]}{others}", exit_code=1)
        if count > _MAX_WARNINGS:
            log(f"… and {count - _MAX_WARNINGS} more")
        if count:
            log(f"skipped {count} of {self._total} {self._kind}: unreadable")
        return 1 if count else 0


class ImageFiles:
    """Image files, read in order; those that cannot be read go to the failures."""

    def __init__(self, paths: Sequence[Path], failures: Failures) -> None:
        self._paths, self._failures = paths, failures

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the images, read and prepared ahead in threads."""

        def read(path: Path) -> Frame | UserError:
            try:
                image = read_image(path)
            except UserError as error:
                return error
            return Frame(str(path), path, image, predictor.prepare(image))

        for result in prefetch(read, self._paths, depth=MAX_IN_FLIGHT):
            if isinstance(result, UserError):
                self._failures.add(result)
            else:
                yield result
