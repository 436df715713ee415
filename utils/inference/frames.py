"""Pictures on their way through the network, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.console import log, warn
from utils.errors import UserError
from utils.images import Pixels, read_image
from utils.inference.ahead import map_ahead
from utils.inference.predictor import Predictor, Prepared

_MOST_WARNINGS = 10
AHEAD = 4  # pictures in flight: few, as one may have hundreds of megabytes


@dataclass(frozen=True)
class Frame:
    """One picture: an image file, or a frame of a video.

    Attributes:
        path: the file that it comes from.
        image: uint8 (H, W, 3) in RGB.
        prepared: the image as the network takes it.
    """

    path: Path
    image: Pixels
    prepared: Prepared


class Failures:
    """The sources that could not be read: the first ten are named, all are counted."""

    def __init__(self, total: int) -> None:
        self._total = total
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
            others = f"; none of {self._total} images could be read" if self._total > 1 else ""
            raise UserError(f"{self._errors[0]}{others}", exit_code=1)
        if count > _MOST_WARNINGS:
            log(f"… and {count - _MOST_WARNINGS} more")
        if count:
            log(f"skipped {count} of {self._total} images: unreadable")
        return 1 if count else 0


def read_pictures(paths: Sequence[Path], predictor: Predictor, failures: Failures) -> Iterator[Frame]:
    """Yield the image files that can be read, in order, read and prepared ahead in threads."""

    def read(path: Path) -> Frame | UserError:
        try:
            image = read_image(path)
        except UserError as error:
            return error
        return Frame(path, image, predictor.prepare(image))

    for result in map_ahead(read, paths, ahead=AHEAD):
        if isinstance(result, UserError):
            failures.add(result)
        else:
            yield result
