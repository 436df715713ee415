"""Data set of annotated images: checked records and class names, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.cli.errors import UserError
from utils.data.dataset_report import Record
from utils.vision.image_reader import Pixels, read_image
from utils.vision.letterbox import fit


class ImageObjects(NamedTuple):
    """Annotated objects of one image."""

    boxes: NDArray[np.float32]  # (M, 4), (x1, y1, x2, y2) edges in pixels of the image
    labels: NDArray[np.int64]  # (M,) class indices, starting at 0
    difficult: NDArray[np.bool_]  # (M,), VOC's difficult flag


class VocDataset:
    """Annotated images of one or more splits; `targets.build_target` gives the objects as tensors."""

    def __init__(self, records: Sequence[Record], class_names: Sequence[str]) -> None:
        """Take records and class names; the label of a class is its index in `class_names`.

        Raises:
            UserError: a record has an object of another class.
        """
        self.records = tuple(records)
        self.class_names = tuple(class_names)
        self._label_of = {name: label for label, name in enumerate(self.class_names)}
        others = {name for record in self.records for name in record.names} - set(self._label_of)
        if others:
            known = ", ".join(self.class_names)
            raise UserError(f"the data has classes {', '.join(sorted(others))}, which are not among {known}")

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Ids of the images, in order."""
        return tuple(record.image_id for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    def objects(self, index: int) -> ImageObjects:
        """Return the objects of one image; the image is not read."""
        record = self.records[index]
        labels = np.array([self._label_of[name] for name in record.names], dtype=np.int64)
        return ImageObjects(record.boxes, labels, record.difficult)

    def read(self, index: int, reduction: int = 1) -> Pixels:
        """Read one image, uint8 (ceil(H / reduction), ceil(W / reduction), 3) RGB, as `read_image` does.

        Raises:
            UserError: the image cannot be read, or its size has changed since the scan.
        """
        record = self.records[index]
        image = read_image(record.image_path, reduction)
        if image.shape[:2] != (-(-record.height // reduction), -(-record.width // reduction)):
            raise UserError(
                f"{record.image_path}: {image.shape[1] * reduction}x{image.shape[0] * reduction} pixels, "
                f"its header said {record.width}x{record.height}"
            )
        return image

    def letterboxed_objects(
        self, input_size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return labels (N,) and boxes (N, 4) in network pixels of all objects; no image is read."""
        labels, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
        for index, record in enumerate(self.records):
            objects = self.objects(index)
            labels.append(objects.labels)
            boxes.append(fit((record.height, record.width), input_size).apply(objects.boxes))
        return np.concatenate(labels), np.concatenate(boxes)
