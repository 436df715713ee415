"""A window to watch, where one can be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cv2

from utils.cli.errors import UserError
from utils.vision.image_reader import Pixels

_TITLE = "q ends"
_QUIT = (ord("q"), 27)  # 27 is Escape


class View:
    """Shows pictures in a window: an image till a key is pressed, a video as it comes.

    Attributes:
        is_closed: whether the user has had enough: q, Escape, or the window was closed.
    """

    def __init__(self, must_end: Callable[[], bool] = lambda: False) -> None:
        """Open the window.

        Args:
            must_end: says that the program is to stop, so that no key is waited for any more.

        Raises:
            UserError: there is no screen, or this OpenCV has no windows.
        """
        self.is_closed = False
        self._must_end = must_end
        # Without a screen OpenCV's Qt ends the whole process.
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("--view: there is no screen here; leave it out and look into the run's folder")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise UserError(
                "--view: this OpenCV has no windows (opencv-python-headless); leave it out and look into the "
                "run's folder"
            ) from None

    def show(self, image: Pixels, *, wait: bool) -> None:
        """Show a picture, uint8 (H, W, 3) in RGB, till a key is pressed or till the next (`wait` False)."""
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        while not self.is_closed:
            key = cv2.waitKey(50 if wait else 1)
            self.is_closed = key in _QUIT or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
            if key >= 0 or not wait or self._must_end():
                return

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
