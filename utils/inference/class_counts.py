"""Counting what was found over many pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nets.structures import Detections
from utils.inference.writers import describe_counts


class Tally:
    """How many objects of each class there were, in all and at most in one picture."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self.pictures = 0
        self.milliseconds = 0.0
        self._total: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    def add(self, found: Detections, milliseconds: float) -> None:
        """Count what was found in a picture, and the time that it took."""
        counts = Counter(self._class_names[label] for label in found.labels.tolist())
        self.pictures += 1
        self.milliseconds += milliseconds
        self._total += counts
        self._most |= counts

    def total(self) -> str:
        """Describe the objects in all pictures, such as `12 cat 1 dog`."""
        return describe_counts(self._total)

    def most(self) -> str:
        """Describe the most objects in one picture."""
        return describe_counts(self._most)

    def per_picture(self) -> float:
        """Return the mean milliseconds a picture."""
        return self.milliseconds / max(self.pictures, 1)
