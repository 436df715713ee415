"""Pictures on their way through the network, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli.console import log, warn
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor, Prepared
from utils.inference.prefetch import map_ahead
from utils.vision.image_reader import Pixels, read_image

_MOST_WARNINGS = 10
AHEAD = 4  # pictures in flight: few, as one may have hundreds of megabytes


@dataclass(frozen=True)
class Frame:
    """One picture: an image file, or a frame of a video, a camera or a stream.

    Attributes:
        name: what its source is called.
        path: the file of its source.
        image: uint8 (H, W, 3) in RGB.
        prepared: the image as the network takes it.
        number: its place in the video, counted from 0; None for an image file.
        time_s: seconds from the start of the video.
    """

    name: str
    path: Path
    image: Pixels
    prepared: Prepared
    number: int | None = None
    time_s: float | None = None


class Failures:
    """The sources that could not be read: the first ten are named, all are counted."""

    def __init__(self, total: int, kind: str = "images") -> None:
        """Start with none.

        Args:
            total: number of sources.
            kind: what they are, in the plural.
        """
        self._total, self._kind = total, kind
        self._errors: list[UserError] = []

    def add(self, error: UserError) -> None:
        """Note a source that could not be read, and warn of it where there are others."""
        self._errors.append(error)
        if self._total > 1 and len(self._errors) <= _MOST_WARNINGS:
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
        if count > _MOST_WARNINGS:
            log(f"… and {count - _MOST_WARNINGS} more")
        if count:
            log(f"skipped {count} of {self._total} {self._kind}: unreadable")
        return 1 if count else 0


class Pictures:
    """Image files, read one after the other."""

    def __init__(self, paths: Sequence[Path], failures: Failures) -> None:
        """Take the files; those that cannot be read go to the failures."""
        self._paths, self._failures = paths, failures

    def frames(self, predictor: Predictor) -> Iterator[Frame]:
        """Yield the images in order, read and prepared ahead in threads."""

        def read(path: Path) -> Frame | UserError:
            try:
                image = read_image(path)
            except UserError as error:
                return error
            return Frame(str(path), path, image, predictor.prepare(image))

        for result in map_ahead(read, self._paths, ahead=AHEAD):
            if isinstance(result, UserError):
                self._failures.add(result)
            else:
                yield result
