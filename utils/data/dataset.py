"""A data set: scanned records in, images and targets out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nets.structures import Target
from utils.cli.errors import UserError
from utils.data.sample_report import Record
from utils.vision.image_reader import Pixels, read_image


class VocDataset:
    """Images and targets as they are: what evaluation sees, and what training starts from."""

    def __init__(self, records: Sequence[Record], class_names: Sequence[str]) -> None:
        """Take records and the classes whose place in `class_names` is their label.

        Raises:
            UserError: a record holds an object of another class.
        """
        self.records = tuple(records)
        self.class_names = tuple(class_names)
        self._index_of = {name: index for index, name in enumerate(self.class_names)}
        others = {name for record in self.records for name in record.names} - set(self._index_of)
        if others:
            known = ", ".join(self.class_names)
            raise UserError(f"the data has classes {', '.join(sorted(others))}, which are not among {known}")

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Name the images, in the order of the data set."""
        return tuple(record.image_id for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    def target(self, index: int) -> Target:
        """Return the target of one image, in pixels of the image, without reading the image."""
        record = self.records[index]
        labels = [self._index_of[name] for name in record.names]
        return Target(
            torch.from_numpy(record.boxes.copy()),
            torch.tensor(labels, dtype=torch.int64),
            torch.from_numpy(record.difficult.copy()),
            record.image_id,
        )

    def load(self, index: int) -> tuple[Pixels, Target]:
        """Read one image, uint8 (H, W, 3) RGB, and its target in pixels of the image.

        Raises:
            UserError: the image cannot be read, or has another size than when it was scanned.
        """
        return self.read(index), self.target(index)

    def read(self, index: int, reduction: int = 1) -> Pixels:
        """Read one image, uint8 (ceil(H / reduction), ceil(W / reduction), 3) RGB, as `read_image` does.

        Raises:
            UserError: the image cannot be read, or has another size than when it was scanned.
        """
        record = self.records[index]
        image = read_image(record.image_path, reduction)
        if image.shape[:2] != (-(-record.height // reduction), -(-record.width // reduction)):
            raise UserError(
                f"{record.image_path}: {image.shape[1] * reduction}x{image.shape[0] * reduction} pixels, "
                f"its header said {record.width}x{record.height}"
            )
        return image
