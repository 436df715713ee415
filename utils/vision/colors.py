"""Colors of the classes: by name, so that a class has one color in every model, picture and chart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from utils.cli.class_names import MODEL_DATA, canonical_name, read_class_names

Color = tuple[int, int, int]
# Twenty colors that are easy to tell apart, the most different first: Sasha Trubetskoy,
# https://sashamaps.net/docs/resources/20-colors/.
_PALETTE = (
    *("e6194b", "3cb44b", "ffe119", "4363d8", "f58231", "911eb4", "42d4f4", "f032e6", "bfef45", "fabed4"),
    *("469990", "dcbeff", "9a6324", "fffac8", "800000", "aaffc3", "808000", "ffd8b1", "000075", "a9a9a9"),
)
_TINTS = (0.0, 0.5, -0.4)  # of each further round of the palette: toward white, toward black
_GOLDEN = 0.618034  # golden ratio: hues this far apart differ, however many classes there are


@lru_cache(maxsize=64)
def class_colors(class_names: Sequence[str]) -> tuple[Color, ...]:
    """Return the color of each class as RGB in 0 to 255, all different; takes a tuple.

    VOC's classes have the palette's colors in VOC's order. Another name starts from a place that follows from
    the name, and takes the next free one if a class of this list has it.
    """
    voc = {name: place for place, name in enumerate(read_class_names(MODEL_DATA / "voc_classes.txt"))}
    wanted = {name: voc.get(canonical_name(name)) for name in class_names}
    places = {name: place for name, place in wanted.items() if place is not None}
    taken = set(places.values())
    for name in sorted(name for name, place in wanted.items() if place is None):
        start = crc32(name.encode()) % len(_PALETTE)
        first_round = [(start + step) % len(_PALETTE) for step in range(len(_PALETTE))]
        free = (place for place in first_round if place not in taken)
        places[name] = next(free, max(len(_PALETTE), len(taken)))
        taken.add(places[name])
    return tuple(_color(places[name]) for name in class_names)


def _color(place: int) -> Color:
    round_, index = divmod(place, len(_PALETTE))
    if round_ >= len(_TINTS):
        red, green, blue = colorsys.hsv_to_rgb(place * _GOLDEN % 1.0, 0.5 + 0.5 * (place % 3) / 2, 0.9)
        return round(red * 255), round(green * 255), round(blue * 255)
    tint = _TINTS[round_]
    base = bytes.fromhex(_PALETTE[index])
    goal = 255 if tint > 0 else 0
    red, green, blue = (round(part + abs(tint) * (goal - part)) for part in base)
    return red, green, blue
