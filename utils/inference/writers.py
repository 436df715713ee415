"""Writers of detections: annotated images and videos, crops, VOC XML, YOLO label files, JSON, CSV, COCO."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import torch

from nets.boxes import xyxy_to_cxcywh
from nets.structures import Detections
from utils.cli.console import log, warn
from utils.cli.errors import Interrupted, UserError
from utils.cli.files import as_utf8, atomic_write, free_name
from utils.data.folder_walk import VIDEO_SUFFIXES
from utils.data.voc_xml import VocObject, round_boxes, write_annotation
from utils.inference.streams import Frame
from utils.vision.image_reader import Pixels
from utils.vision.image_writer import write_image
from utils.vision.letterbox import letterbox

_LONGEST_PAUSE = 600.0  # seconds without a frame
_CODEC = "mp4v"  # MPEG-4 part 2: every OpenCV with FFmpeg has it, and every player reads it
_CLASSES = "classes.txt"
_MIN_SIDE = 2  # pixels of a box in XML; nobody could correct a smaller one


def choose_images(folder: Path, sources: Sequence[Path]) -> dict[Path, Path]:
    """Choose a file in the folder for the image of each source; a name that is taken gets a number.

    Raises:
        UserError: an image would overwrite a source.
    """
    targets: dict[Path, Path] = {}
    taken: set[str] = set()
    for source in sources:
        suffix = source.suffix.lower()
        suffix = ".mp4" if suffix in VIDEO_SUFFIXES else ".png" if suffix == ".png" else ".jpg"
        targets[source] = folder / free_name(source.stem, taken, suffix)
    refuse_overwriting(targets.values(), sources)
    return targets


def choose_label_files(flag: str, folder: Path, suffix: str, sources: Sequence[Path]) -> dict[Path, Path]:
    """Choose the annotation file of each image, which has its name, and make the folder.

    Raises:
        UserError: two images would share a file, a file exists (it may hold hours of corrections), or the
            folder cannot be made.
    """
    targets: dict[Path, Path] = {}
    owners: dict[str, Path] = {}
    for source in sources:
        target = folder / f"{source.stem}{suffix}"
        other = owners.setdefault(target.name.casefold(), source)
        if other is not source:
            raise UserError(
                f"{flag} {folder}: {other} and {source} would both become {target.name}; rename one of them, "
                "or predict them into separate folders"
            )
        targets[source] = target
    existing = [target for target in targets.values() if target.exists()]
    if existing:
        more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise UserError(
            f"{flag} {folder}: {existing[0].name}{more} and may hold corrections, which are never "
            "overwritten; choose another folder, or give only images without such files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write here: {error.strerror or error}") from None
    return targets


def write_class_list(folder: Path, class_names: Sequence[str], label_files: Iterable[Path]) -> None:
    """Write classes.txt, the names behind the labels of --txt.

    Raises:
        UserError: the file exists and names other classes, or it is the label file of an image.
    """
    path = folder / _CLASSES
    if path in label_files:
        raise UserError(f"--txt {folder}: {_CLASSES} is for the class names; rename that image")
    text = "".join(f"{name}\n" for name in class_names)
    if not path.exists():
        with atomic_write(path, "w") as file:
            file.write(text)
    elif path.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(f"--txt {folder}: {_CLASSES} there names other classes; choose another folder")


class VideoWriter:
    """An MP4 file that gets its name only when it is complete; a context manager."""

    def __init__(self, target: Path, size: tuple[int, int], fps: float) -> None:
        """Open the file for frames of (height, width); an odd side grows by a pixel for the codec.

        Raises:
            UserError: it cannot be opened, or this OpenCV lacks the codec.
        """
        self._target, self._size, self._fps = target, size, fps
        self._temporary = target.with_name(f".{target.stem[:40]}.part.mp4")  # OpenCV goes by the suffix
        self._margins = (0, size[0] % 2, 0, size[1] % 2)
        self._written = self._given = self._dropped = 0
        self._start = self._time = 0.0  # seconds in the source
        self._last: Pixels | None = None
        self._is_warned = self._has_cut = False
        sides = (size[1] + size[1] % 2, size[0] + size[0] % 2)
        self._writer = cv2.VideoWriter(
            os.fspath(self._temporary), cv2.VideoWriter.fourcc(*_CODEC), fps, sides
        )
        if not self._writer.isOpened():
            self._discard()
            raise UserError(
                f"{target}: cannot write a video of {sides[0]}x{sides[1]}: the disk is full, or this OpenCV "
                f"lacks {_CODEC}; --no-save writes none",
                exit_code=1,
            )

    def write(self, image: Pixels, time_s: float) -> None:
        """Append a frame, uint8 (H, W, 3) in RGB; one of another size is letterboxed to the first one's.

        By `time_s`, seconds in the source, the frame before is repeated, or this one dropped, so that the
        video plays in the time of the source; the log says how many were dropped. After a jump back, or ahead
        by over ten minutes, time goes on from there; the log says the first time.
        """
        if image.shape[:2] != self._size:
            image = letterbox(image, self._size)[0]
            if not self._is_warned:
                self._is_warned = True
                warn(f"{self._target}: the frame size changes; frames are letterboxed to the first one's")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if any(self._margins):
            bgr = cv2.copyMakeBorder(bgr, *self._margins, cv2.BORDER_REPLICATE)
        jump = time_s - self._time
        if not self._written or not 0 <= jump <= _LONGEST_PAUSE:
            self._start = time_s - self._written / self._fps
            if self._written and not self._has_cut:
                self._has_cut = True
                what = "a pause of the source is cut out" if jump > 0 else "the time of the source jumps back"
                log(f"{self._target}: {what}: {abs(jump):.1f} seconds")
        self._time = time_s
        pause = round((time_s - self._start) * self._fps) - self._written
        self._given += 1
        self._dropped += pause < 0
        for frame in [self._last] * pause + [bgr] * (pause >= 0):
            self._writer.write(frame)
            self._written += 1
        self._last = bgr

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Finish the file and give it its name, also after a signal; without a frame no file is left.

        Raises:
            UserError: it did not reach the disk completely.
        """
        self._writer.release()
        if not self._written or not (error is None or isinstance(error, Interrupted)):
            self._discard()
        elif self._is_complete():
            os.replace(self._temporary, self._target)
            if self._dropped:
                count = f"{self._dropped} of {self._given} frames are not in the video"
                log(f"{self._target}: {count}, which has {self._fps:.4g} a second")
        else:
            self._discard()
            raise UserError(f"{self._target}: cannot write the video: is the disk full?", exit_code=1)

    def _discard(self) -> None:
        with suppress(OSError):
            self._temporary.unlink()

    def _is_complete(self) -> bool:
        """Read the header again: OpenCV reports no failed write."""
        capture = cv2.VideoCapture(os.path.abspath(self._temporary))
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if count != self._written:
            return False
        with open(self._temporary, "rb") as file:
            os.fsync(file.fileno())
        return True


def write_crops(
    folder: Path, stem: str, frame: Frame, detections: Detections, class_names: Sequence[str]
) -> None:
    """Write each detected object to FOLDER/CLASS/STEM_N.jpg; in a video the frame's number follows STEM."""
    if frame.number is not None:
        stem = f"{stem}_frame{frame.number:06}"
    rows = zip(detections.boxes.tolist(), detections.labels.tolist(), strict=True)
    for number, ((left, top, right, bottom), label) in enumerate(rows, start=1):
        # A class named ../x must not lead out of the folder.
        safe = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", class_names[label]).strip(" .") or "_"
        try:
            (folder / safe).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder / safe}: cannot write here: {error.strerror}", exit_code=1) from None
        crop = frame.image[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
        write_image(crop, folder / safe / f"{stem}_{number}.jpg")


def write_xml(
    target: Path,
    frame: Frame,
    detections: Detections,
    class_names: Sequence[str],
    *,
    scores: bool,
    float_boxes: bool,
) -> None:
    """Write the VOC annotation of an image, boxes in whole pixels unless `float_boxes`, with scores if asked.

    Detections less than two pixels wide or high are skipped.
    """
    height, width = frame.image.shape[:2]
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    objects = [
        VocObject(class_names[label], (left, top, right, bottom), score=score if scores else None)
        for (left, top, right, bottom), score, label in rows
        if right - left >= _MIN_SIDE and bottom - top >= _MIN_SIDE
    ]
    written = objects if float_boxes else round_boxes(objects, width, height)
    folder = as_utf8(os.path.basename(os.path.dirname(os.path.abspath(frame.path))))
    write_annotation(target, as_utf8(frame.path.name), width, height, written, folder=folder)


def write_txt(target: Path, frame: Frame, detections: Detections, *, scores: bool) -> None:
    """Write an image's lines of class, center, size (fractions of the image) and, if asked, score."""
    height, width = frame.image.shape[:2]
    boxes = xyxy_to_cxcywh(detections.boxes) / detections.boxes.new_tensor((width, height) * 2)
    rows = torch.cat([boxes, detections.scores[:, None]] if scores else [boxes], dim=1).tolist()
    with atomic_write(target, "w") as file:
        for label, row in zip(detections.labels.tolist(), rows, strict=True):
            file.write(f"{label} {' '.join(f'{value:.6f}' for value in row)}\n")


def refuse_overwriting(outputs: Iterable[Path | str], sources: Sequence[Path]) -> None:
    """Check that no file to be written is also read.

    Raises:
        UserError: one is; names it.
    """
    read = {os.path.realpath(source) for source in sources}  # Path.resolve fails on a link to itself
    for output in outputs:
        if os.path.realpath(output) in read:
            raise UserError(
                f"{output}: is also a source, which is never overwritten; choose another place to write to"
            )


def describe(frame: Frame, detections: Detections, class_names: Sequence[str]) -> dict[str, Any]:
    """Describe the detections of a frame as plain values; a video's has number and time of the frame."""
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    height, width = frame.image.shape[:2]
    line: dict[str, Any] = {"path": as_utf8(frame.name), "width": width, "height": height}
    if frame.number is not None and frame.time_s is not None:
        line |= {"frame": frame.number, "time_s": round(frame.time_s, 3)}
    line["detections"] = [
        {
            "box": [round(edge, 3) for edge in box],
            "score": round(score, 6),
            "label": class_names[label],
            "class_id": label,
        }
        for box, score, label in rows
    ]
    return line


def json_line(described: dict[str, Any]) -> str:
    """Return what `describe` returned as one line of JSON."""
    return json.dumps(described, ensure_ascii=False, allow_nan=False)


Append = Callable[[dict[str, Any], int | None], None]  # takes what `describe` returned and COCO's id


@contextmanager
def json_file(path: str) -> Iterator[Append]:
    """Open a file of JSON lines, and yield the function that appends a frame's."""
    with atomic_write(path, "w") as file:
        yield lambda described, _: print(json_line(described), file=file)


@contextmanager
def csv_file(path: str) -> Iterator[Append]:
    """Open a CSV file, and yield the function that appends a row per detection of a frame."""
    of_frame, of_object = ("path", "width", "height", "frame", "time_s"), ("label", "class_id", "score")
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*of_frame, *of_object, "x1", "y1", "x2", "y2"])
        yield lambda described, _: writer.writerows(
            [*(described.get(key, "") for key in of_frame), *(one[key] for key in of_object), *one["box"]]
            for one in described["detections"]
        )


@contextmanager
def coco_file(path: str) -> Iterator[Append]:
    """Open a file of COCO results, and yield the function that appends an image's.

    Categories are numbered from 1; `file_name` is not a key of COCO, whose tools ignore it.
    """
    with atomic_write(path, "w") as file:
        separator = "["

        def append(described: dict[str, Any], image_id: int | None) -> None:
            nonlocal separator
            for one in described["detections"]:
                left, top, right, bottom = one["box"]
                row = {
                    "image_id": image_id,
                    "category_id": one["class_id"] + 1,
                    "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
                    "score": one["score"],
                    "file_name": described["path"],
                }
                file.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
                separator = ",\n"

        yield append
        file.write("[]\n" if separator == "[" else "]\n")


def choose_image_ids(paths: Sequence[Path]) -> dict[Path, int]:
    """Choose COCO's id of each image: the number that its name is (000000000139.jpg), else its 1-based place.

    If two images would share an id, all have their places, with a warning.
    """
    stems = [path.stem for path in paths]
    ids = [
        int(stem) if stem.isascii() and stem.isdigit() else place for place, stem in enumerate(stems, start=1)
    ]
    if len(set(ids)) < len(ids):
        warn("--coco: file names give two images one image_id, so all have their 1-based places")
        ids = list(range(1, len(ids) + 1))
    return dict(zip(paths, ids, strict=True))


def describe_counts(counts: Counter[str]) -> str:
    """Describe the number of objects of each class, such as `2 cat 1 dog`."""
    return " ".join(f"{count} {name}" for name, count in counts.most_common()) or "0 objects"
