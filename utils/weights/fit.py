"""Which tensors of a file have a place in a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

_MOST_NAMES = 3


@dataclass(frozen=True)
class Fit:
    """Tensors by name.

    Attributes:
        fitting: those that the file has and the network takes.
        without_place: those that the file has and the network does not take, each with the reason.
        missing: those that the network has and the file lacks.
    """

    fitting: list[str]
    without_place: dict[str, str]
    missing: list[str]

    @property
    def is_exact(self) -> bool:
        """Tell whether nothing is left over on either side."""
        return not self.without_place and not self.missing

    def summary(self) -> str:
        """Say in one line what does not fit."""
        parts = []
        if self.without_place:
            shown = [f"{name} {reason}" for name, reason in self.without_place.items()]
            parts.append(f"{len(shown)} without a place ({_first(shown)})")
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_first(self.missing)})")
        return f"{len(self.fitting)} tensors fit, {', '.join(parts) or 'all'}"


def fit_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Fit:
    """Compare a network's tensors with a file's, by name and shape."""
    without_place = {}
    for name, value in theirs.items():
        if name not in ours:
            without_place[name] = "has no place in this network"
        elif ours[name].shape != value.shape:
            without_place[name] = (
                f"has shape {tuple(value.shape)}, the network takes {tuple(ours[name].shape)}"
            )
    fitting = [name for name in theirs if name not in without_place]
    return Fit(fitting, without_place, [name for name in ours if name not in theirs])


def _first(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_MOST_NAMES])
    return f"{shown}, …" if len(names) > _MOST_NAMES else shown
