"""A window that shows images, where there is a screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cv2

from utils.cli.errors import UserError
from utils.vision.image_reader import Pixels

_TITLE = "press q to quit"
_QUIT_KEYS = (ord("q"), 27)  # 27 is Escape


class Window:
    """Shows an image until a key is pressed, a video as it comes.

    Attributes:
        is_closed: whether the user pressed q or Escape, or closed the window.
    """

    def __init__(self, must_stop: Callable[[], bool] = lambda: False) -> None:
        """Open the window.

        Args:
            must_stop: tells that the program is to stop, so that waiting for a key ends.

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
