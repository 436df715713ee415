"""Small videos, and what is wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)  # height, width
FPS = 10.0


def make_video(path: Path, count: int = 40, size: tuple[int, int] = SIZE, codec: str = "") -> Path:
    """Write a video of moving noise at 10 frames a second: MJPEG in AVI, MPEG-4 in MP4."""
    code = cv2.VideoWriter.fourcc(*(codec or {".avi": "MJPG"}.get(path.suffix, "mp4v")))
    writer = cv2.VideoWriter(str(path), code, FPS, size[::-1])
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, size[::-1])
    for number in range(count):
        writer.write(np.roll(picture, 3 * number, axis=1))
    writer.release()
    return path


def make_webm(path: Path, stamps: Sequence[int], seconds: float | None = None) -> Path:
    """Write a Matroska video with the time stamps in milliseconds, as browsers and screen recorders do.

    It states a thousand frames a second, and a duration in `seconds` or none. The frames are plain gray, each
    a level brighter than the one before.
    """

    def element(code: str, content: bytes | int) -> bytes:  # EBML: code, length in eight bytes, content
        data = content.to_bytes(8, "big") if isinstance(content, int) else content
        return bytes.fromhex(code) + (1 << 56 | len(data)).to_bytes(8, "big") + data

    sides = element("b0", SIZE[1]) + element("ba", SIZE[0])
    track = element("d7", 1) + element("73c5", 1) + element("83", 1) + element("86", b"V_MJPEG")
    track += element("23e383", 1_000_000) + element("e0", sides)
    info = element("2ad7b1", 1_000_000)
    info += b"" if seconds is None else element("4489", struct.pack(">d", seconds * 1000))
    content = element("1549a966", info) + element("1654ae6b", element("ae", track))
    for number, stamp in enumerate(stamps):
        picture = cv2.imencode(".jpg", np.full((*SIZE, 3), number, dtype=np.uint8))[1].tobytes()
        block = element("a3", b"\x81\x00\x00\x80" + picture)
        content += element("1f43b675", element("e7", stamp) + block)
    path.write_bytes(element("1a45dfa3", element("4282", b"matroska")) + element("18538067", content))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """Decode a video by OpenCV alone."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            capture.release()
            return frames
        frames.append(frame)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def add_noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 6
    content[middle : middle + length] = np.random.default_rng(1).bytes(length)
    path.write_bytes(content)


# Rows of faults in a file that is a whole video at first: its name, what is done to it.
FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "video_good": ("video.mp4", lambda path: None),
    "video_ends_early": ("video.avi", cut),
    "video_mp4_truncated": ("video.mp4", cut),
    "video_corrupt_frames": ("video.avi", add_noise),
    "video_zero": ("video.mp4", lambda path: path.write_bytes(b"")),
    "video_text": ("video.mp4", lambda path: path.write_text("no video\n" * 99)),
}
