"""An annotated video on its way to a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import cv2

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import letterbox

_CODEC = "mp4v"  # MPEG-4 part 2: every OpenCV with FFmpeg has it, and every player reads it


class Recording:
    """Writes frames to an MP4 file that has its name only once it is whole."""

    def __init__(self, target: Path, size: tuple[int, int], fps: float) -> None:
        """Open the file.

        Args:
            target: what the file is called in the end; it must end with .mp4.
            size: (height, width) of the frames in pixels; an odd side grows by a pixel, as the codec needs.
            fps: frames a second.

        Raises:
            UserError: it cannot be opened, or this OpenCV has no such codec.
        """
        self._target, self._size, self._fps = target, size, fps
        self._temporary = target.with_name(f".{target.stem}.part.mp4")  # OpenCV goes by the ending
        self._margins = (0, size[0] % 2, 0, size[1] % 2)
        self._written = 0
        self._is_warned = False
        sides = (size[1] + size[1] % 2, size[0] + size[0] % 2)
        self._writer = cv2.VideoWriter(
            os.fspath(self._temporary), cv2.VideoWriter.fourcc(*_CODEC), fps, sides
        )
        if not self._writer.isOpened():
            self.discard()
            raise UserError(
                f"{target}: cannot begin a video of {sides[0]}x{sides[1]}: no room, or no {_CODEC} in this "
                "OpenCV; --no-save goes without",
                exit_code=1,
            )

    def write(self, image: Pixels, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 (H, W, 3) in RGB; one of another size than the first is fitted into it.
            time_s: of a live source, seconds from its start: the frame is repeated or left out so that the
                video plays at the speed of life. None appends it once.
        """
        if image.shape[:2] != self._size:
            image = letterbox(image, self._size)[0]
            if not self._is_warned:
                self._is_warned = True
                warn(f"{self._target}: the frames change their size; they are fitted into that of the first")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if any(self._margins):
            bgr = cv2.copyMakeBorder(bgr, *self._margins, cv2.BORDER_REPLICATE)
        copies = 1 if time_s is None else round(time_s * self._fps) + 1 - self._written
        for _ in range(copies):
            self._writer.write(bgr)
            self._written += 1

    def close(self) -> None:
        """Finish the file and give it its name; without a frame there is none.

        Raises:
            UserError: it did not get to the disk as a whole.
        """
        if not self._written:
            self.discard()
            return
        self._writer.release()
        if not self._is_whole():
            self.discard()
            raise UserError(f"{self._target}: cannot write the video: no room on the disk?", exit_code=1)
        os.replace(self._temporary, self._target)

    def discard(self) -> None:
        """Throw the file away."""
        self._writer.release()
        with suppress(OSError):
            self._temporary.unlink()

    def _is_whole(self) -> bool:
        """Read the header again: OpenCV keeps silent when a write fails."""
        capture = cv2.VideoCapture(os.path.abspath(self._temporary))
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if count != self._written:
            return False
        with open(self._temporary, "rb") as file:
            os.fsync(file.fileno())
        return True
