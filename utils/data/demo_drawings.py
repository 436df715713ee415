"""The drawings of the demo data set: a table of shapes, and the function that reads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np


def palette(text: str) -> np.ndarray:
    """Read colors, (N, 3), written as on the web."""
    return np.array([tuple(bytes.fromhex(word)) for word in text.split()], np.float64)


_PAINT = "c8282a e87624 f0be30 3e8e4c 228086 2e62b2 463a8c 963c80 ece8de 969ca4 3a404a 7a543a 80bed6 e68c96"
_COLORS = {  # a drawing picks one for each name
    "paint": _PAINT, "other": _PAINT, "third": _PAINT, "sail": _PAINT + " f4f2ea" * 8, "pane": "5c7e98",
    "wall": "eee2c8 e0c496 ce785a beccd2 aa624e d8b060 a0b496 c496a0", "glass": "86b0ca 5c7e98 3c5064",
    "coat": "4a4a54 5c504a eeeeec 96969c aa3c2e 3c64a0 8c6a48", "roof": "963c2c 703e32 4e5460 aa5c38",
    "leaf": "42783a 608c3c 2c5c42 be782c 8c9646", "white": "f4f2ea", "black": "0a0c18", "gray": "787a82",
    "dark": "303238", "metal": "ced0d4", "wood": "785232", "log": "b08252", "brick": "965242",
    "red": "ce221e", "beak": "f0a82e", "tar": "5c5c62", "lit": "ffd67a", "lamp": "fff0c4",
}  # fmt: skip
COLORS = {name: palette(text) for name, text in _COLORS.items()}
_BRIGHT = ("lit", "lamp", "sun", "cloud")  # not darkened at night

# A line is a drawing: parts of a shape, a color and numbers. Of several drawings of a name, one is chosen.
# The unit is a meter, x to the right, y up, the ground at y = 0.
#   box x1 y1 x2 y2 | disc x y rx ry | poly x y x y ... | blob: a poly with round corners, sharp if doubled
#   soft x y rx ry opacity: fades to its rim, not a part of the object | glow: the same, only at night
#   @NAME x y size: another drawing | ?shape: half of the time | shape!: and its mirror image
#   color+3, color-3: 30 % lighter, darker | *N,dx,dy: N copies in a row | x.8: narrower
_ENVELOPE = "-1 3 1 3 4.6 6.6 5.6 10.4 4.4 14.2 0 15.2 -4.4 14.2 -5.6 10.4 -4.6 6.6"
_TABLE = f"""
balloon: blob paint {_ENVELOPE}; blob other {_ENVELOPE} x.82; blob paint {_ENVELOPE} x.6;
  blob other {_ENVELOPE} x.36; blob paint {_ENVELOPE} x.13; @basket 0 0 1
balloon: blob paint {_ENVELOPE}; blob other {_ENVELOPE} x.75; blob third {_ENVELOPE} x.45;
  blob paint {_ENVELOPE} x.15; ?poly other -5 8.6 5 8.6 5.2 10.2 -5.2 10.2; @basket 0 0 1
balloon: blob paint {_ENVELOPE}; poly other -5 8 5 8 5.2 11 -5.2 11; blob third -1.8 9.5 0 12 1.8 9.5 0 7;
  ?blob other -3.2 13.6 3.2 13.6 1.6 14.8 -1.6 14.8; @basket 0 0 1
basket: poly! wood .75 3.4 1 3.4 .85 1.4 .65 1.4; soft white -1.9 11 2.4 3 .4; glow lit 0 8 5 6 .7;
  poly wood+2 -.9 1.4 .9 1.4 .75 0 -.75 0; box wood -1 1.2 1 1.45
bird: blob! coat 0 .08 .45 .5 .8 .42 1.5 -.1 1.5 -.1 .85 .24 .45 .24 0 -.16; disc coat+3 0 0 .2 .2;
  disc beak 0 0 .07 .06
bird: blob coat-3 -.1 .1 -.2 .6 -.2 .85 -.2 .85 .3 .6 .65 .05; @birdbody 0 0 1;
  blob coat+1 -.3 .1 -.6 .65 -.6 1 -.6 1 .1 .6 .42 .05
bird: blob coat-3 0 .1 -.3 -.5 -.5 -.8 -.5 -.8 .3 -.5 .65 .05; @birdbody 0 0 1;
  blob coat+1 -.3 .1 -.8 -.5 -1 -.8 -1 -.8 0 -.55 .42 .05
birdbody: poly coat-1 -.5 .08 -1.1 .2 -1.02 .02 -1.12 -.14 -.5 -.1; disc coat .66 .18 .22 .2;
  disc dark .73 .22 .05 .05; blob coat+3 -.9 .02 -.4 .25 .4 .26 .75 .12 .5 -.2 -.4 -.24;
  poly beak .82 .25 1.16 .12 .82 .07
boat: box wood -.07 .5 .07 6; blob sail -.12 1.1 -.12 6 -.12 6 -1.3 2.8 -2.1 1.05 -2.1 1.05;
  box wood -2.1 .95 0 1.1; ?blob other .14 1.1 .14 5.4 .14 5.4 1.5 2.2 2.2 1.05 2.2 1.05;
  poly third 0 6 0 6.4 -.6 6.2; @hull 0 0 1
boat: ?box third -1.1 2.1 -.6 3; box gray .5 2 .6 3; poly wall -1.5 .6 -1.5 2.1 .6 2.1 1 .6;
  box pane -1.3 1.5 -.9 1.9 *3,.6,0; box other -1.6 2.1 .7 2.25; @hull 0 0 1
boat: blob other -.5 .3 -.4 1.3 .2 1.3 .3 .3; disc log+4 -.08 1.45 .22 .26;
  poly wood .1 1 1.5 .1 1.6 .2 .15 1.12; @hull 0 0 .8
hull: @shadow 0 -.1 2.7; poly paint -2.4 .85 -2.1 0 1.6 0 2.6 1;
  poly other-1 -2.2 .25 -2.1 -.05 1.6 -.05 1.9 .28; poly paint+6 -2.4 .85 -2.38 .7 2.4 .82 2.6 1;
  soft white -.5 -.04 2.4 .14 .6
car: @shadow 0 0 2.4; blob paint+1 -1.6 .8 -1.2 1.5 -1.2 1.5 .4 1.5 1.1 .8;
  poly glass -1.3 .88 -1.05 1.38 .35 1.38 .8 .88; box paint-2 -.45 .88 -.34 1.4;
  blob paint -2.1 .24 -2.1 .35 -2.1 .85 -1.8 .92 1.1 .92 1.9 .8 2.1 .6 2.1 .3 2.1 .24;
  box dark -.4 .36 -.37 .88; @carparts 0 0 1
car: @shadow 0 0 2.3; blob paint+1 -1.9 .8 -1.8 1.7 -1.8 1.7 .5 1.7 1.2 .8;
  poly glass -1.65 .95 -1.6 1.55 .4 1.55 .9 .95; box paint-2 -.9 .9 -.78 1.6 *2,.8,0;
  blob paint -2.1 .24 -2.1 .35 -2.1 .9 -1.8 1 1.2 .95 1.9 .85 2.1 .6 2.1 .3 2.1 .24; box dark -.1 .36 -.07 .9;
  @carparts 0 0 1
car: @shadow 0 0 2.3; blob paint -2 .3 -1.9 1.2 -.9 1.75 .5 1.7 1 1 2 .9 2.1 .3;
  poly glass -1.2 1 -.8 1.5 .3 1.5 .7 1; box paint-2 -.3 1 -.2 1.5; box dark -.5 .36 -.47 1; @carparts 0 0 1
car: @carend 0 0 1; box! lamp .48 .6 .8 .74; box gray -.36 .48 .36 .6; glow! lamp .64 .66 .7 .6 .6
car: @carend 0 0 1; box! red .58 .62 .84 .8; box white -.27 .5 .27 .62
carend: @shadow 0 0 1.25; box! dark .58 0 .86 .5; blob paint -.85 .8 -.7 1.55 .7 1.55 .85 .8;
  poly glass -.75 .9 -.57 1.4 .57 1.4 .75 .9; disc! paint-2 .97 .95 .1 .08;
  blob paint -.92 .2 -.92 .92 -.8 .98 .8 .98 .92 .92 .92 .2; box dark -.86 .22 .86 .36
carparts: box paint+3 -1.9 .66 1.8 .7; box dark -2 .24 2 .36; disc lamp 1.98 .62 .12 .09;
  disc red -2 .68 .07 .11; @wheel! 1.3 .35 .35; glow lamp 2.1 .6 .8 .6 .6
shadow: soft black 0 0 1 .14 .6
wheel: disc black 0 0 1.15 1.15; disc dark 0 0 1 1; disc metal 0 0 .6 .6; disc gray 0 0 .2 .2
truck: @chassis 0 0 1; box other -3 .65 1 2.9; box other-2 -2.6 .75 -2.56 2.8 *6,.62,0;
  ?box third -3 1.5 1 1.9; box other-4 -3 2.8 1 2.92; @cab 0 0 1
truck: @chassis 0 0 1; disc other-4 -1 2.1 .3 .15; blob other+2 -3 .75 -3 2.2 1 2.2 1 .75;
  box other-3 -2.6 1.4 .6 1.58; @cab 0 0 1
truck: @chassis 0 0 1; disc log -2.6 1.2 .3 .3 *6,.6,0; disc log -2.3 1.7 .3 .3 *5,.6,0;
  ?disc log -2 2.2 .3 .3 *4,.6,0; box other -3 .65 1 1.1; @cab 0 0 1
truck: @chassis 0 0 1; blob leaf-2 -2.9 1.5 -1.6 2.5 -.4 2 .8 1.5; poly other -3.1 1.8 -2.7 .65 1 .65 1 1.8;
  box other-3 -2.2 .75 -2.1 1.7 *4,.85,0; @cab 0 0 1
chassis: @shadow -.1 0 3.3; box dark -3 .5 2.6 .75
cab: blob paint 1.1 .5 1.1 2 1.2 2.25 2.4 2.2 2.5 2 2.85 1.3 2.9 .6 2.85 .45;
  poly glass 1.45 1.35 1.45 2 2.35 2 2.65 1.35; box dark 1.36 .6 1.39 2; box dark 1.2 .42 2.85 .58;
  disc lamp 2.78 .82 .12 .14; glow lamp 2.9 .8 .9 .7 .6; @wheel 2.05 .46 .46; @wheel -2.2 .46 .46;
  ?@wheel -1.15 .46 .46
house: @shadow 0 0 4; box brick 1.2 3 2 6; poly wall -3 0 -3 2.8 0 5.4 3 2.8 3 0;
  poly! roof-2 3.5 2.3 0 5.4 0 5.95 3.6 2.8; @window 0 3.1 1; @window! 1.9 .95 1; @door 0 0 1
house: @shadow 0 0 4; box brick -2 5 -1.2 8.4; poly wall -3 0 -3 5.4 0 8.2 3 5.4 3 0;
  poly! roof-2 3.5 4.9 0 8.2 0 8.75 3.6 5.4; @window 0 5.8 1; @window -1.8 3.6 1 *3,1.8,0; @window -1.8 .95 1;
  @window .1 .95 1; @door 1.9 0 1
house: @shadow 0 0 4; ?box brick 1.4 3 2.2 5.6; @front 0 0 1; @window -2.6 .95 1 *2,1.6,0; @window 2.4 .95 1;
  @door .8 0 1; poly roof -3.9 2.6 -3 4.8 3 4.8 3.9 2.6; box roof-3 -3.2 3.3 3.2 3.38 *2,0,.7
house: @shadow 0 0 4; box brick -2.2 5 -1.4 8; @front 0 0 1 *2,0,2.7; @window -2.5 3.6 1 *4,1.66,0;
  @window! 2.4 .95 1; ?@window 1 .95 1; @door -.6 0 1; poly roof -3.9 5.2 -2.7 7.2 2.7 7.2 3.9 5.2;
  box roof-3 -3.1 5.9 3.1 5.98 *2,0,.6
front: box wall -3.4 0 3.4 2.75
window: box white -.5 -.1 .5 1.2; box pane -.4 0 .4 1.1; box white -.04 0 .04 1.1; box white -.4 .52 .4 .6
door: box white -.6 0 .6 2.15; box third -.48 0 .48 2.05; disc lit .3 1 .08 .08
tree: @shadow 0 0 2; box wood -.25 0 .25 4; disc leaf-3 -1 3.8 1.3 1.2 *2,2,.1; disc leaf-2 0 4.9 1.6 1.4;
  disc leaf+1 -1.1 4.1 .9 .7 *2,2,.1; disc leaf+2 -.2 5.2 1.1 .9
tree: @shadow 0 0 1.8; box wood -.2 0 .2 3; blob leaf-1 -1.6 1.6 -1.5 4.5 0 7.4 1.5 4.5 1.6 1.6;
  disc leaf+1 -.4 4.4 .7 1.4
fir: @shadow 0 0 2; box wood -.25 0 .25 2; poly leaf-2 -2 1 0 3.6 2 1; poly leaf-1 -1.6 2.4 0 4.9 1.6 2.4;
  poly leaf -1.1 3.8 0 6.2 1.1 3.8
bush: @shadow 0 0 2; disc leaf -.9 .5 .9 .8 *2,1.7,0; disc leaf+1 0 .7 .8 .9
fence: box white-2 -3 .3 3 .44 *2,0,.46; poly white -3 0 -3 1 -2.85 1.2 -2.7 1 -2.7 0 *12,.52,0
fence: box wood -2.4 .35 2.4 .5 *2,0,.45; box wood -2.3 0 -2.1 1.2 *5,1.1,0
rock: poly gray -1.3 0 -1.1 .6 -.3 1.1 .6 .9 1.3 0; poly gray+3 -1.1 .6 -.3 1.1 -.1 .4
tent: poly paint -2.2 0 0 2.8 2.2 0; poly dark -.6 0 0 1.9 .6 0; ?poly other -2.2 0 0 2.8 -1.4 0
lamppost: box gray -.1 0 .1 5.6; box gray 0 5.4 1.3 5.6; disc lamp 1.2 5.3 .4 .24; glow lit 1.2 5 1.6 1.6 .6
sign: box gray -.09 0 .09 3; disc paint 0 3.2 .7 .7; disc white 0 3.2 .4 .4
sign: box! gray 1.6 0 1.8 3; box paint+4 -2.6 1.4 2.6 3.6; disc other -1.3 2.5 .7 .7; box third -.1 2.3 2 2.7
container: box paint -2.6 0 2.6 2.5; box paint-3 -2.3 .15 -2.18 2.35 *9,.56,0
buoy: @shadow 0 0 1; poly paint -.6 0 -.25 1.6 .25 1.6 .6 0; box white -.5 .5 .5 .85; disc lit 0 1.8 .2 .2
kite: poly paint 0 1.2 -.8 .2 0 -1.3; poly other 0 1.2 .8 .2 0 -1.3;
  poly third 0 -1.5 .3 -1.4 .1 -1.7 *4,-.2,-.4
plane: poly white -1 .5 1.1 0 -.5 -.1; poly white-2 -.5 -.1 1.1 0 -.6 -.5
cloud: soft cloud-1 0 -.3 4 1 .6; soft cloud -1.8 .2 2 1 .8; soft cloud .2 .7 2.2 1.5 .9;
  soft cloud 2 .1 1.9 .9 .8
sun: soft sun 0 0 5 5 .5; disc sun 0 0 1 1
stars: disc lamp 0 0 1 1 *3,57,31
plants: poly plant -.1 0 -.15 .2 0 .08 0 .25 .06 .08 .15 .2 .1 0 *3,.7,.1
plants: disc plant 0 .1 .12 .08 *2,-.5,-.2
hills: blob hill -20 -.1 -20 .6 -15 .9 -12 .5 -8 1 -5 .6 -2 1.2 2 .5 5 .9 9 .6 12 1.1 15 .5 20 .8 20 -.1
hills: blob hill -20 -.1 -20 .3 -14 .5 -9 1.3 -6 .8 -3 .9 3 .3 8 .4 11 .8 14 1.2 18 .4 20 .4 20 -.1
skyline: @block -20 0 1 *27,1.5,0
block: box hill -.7 0 .7 1.8; @floor 0 .25 1 *4,0,.4
block: box hill-1 -.8 0 .8 1; @floor .1 .2 1 *2,0,.4
floor: ?box pane+2 -.5 0 -.35 .2; ?box pane+2 0 0 .15 .2; ?box pane+2 .35 0 .5 .2
road: poly tar -5 -.7 5 -.7 5 -.4 -5 -.4; box white -5 -.56 -4.85 -.54 *40,.3,0
road: poly tar -.01 0 .01 0 .4 -1.2 -.8 -1.2; poly white -.02 -.15 -.01 -.15 -.02 -.22 -.035 -.22;
  poly white -.05 -.35 -.035 -.35 -.05 -.5 -.075 -.5; poly white -.11 -.7 -.08 -.7 -.12 -.95 -.16 -.95
"""
_DRAWINGS: dict[str, list[list[list[str]]]] = {}  # drawings by name: lists of parts, which are lists of words
for _line in _TABLE.replace("\n  ", " ").strip().splitlines():
    _name, _parts = _line.split(":")
    _DRAWINGS.setdefault(_name, []).append([part.split() for part in _parts.split(";")])
_CIRCLE = np.stack([np.cos(np.arange(36) * np.pi / 18), np.sin(np.arange(36) * np.pi / 18)], axis=1)


class Part(NamedTuple):
    """One filled outline."""

    color: np.ndarray  # (3,) RGB
    points: np.ndarray  # (N, 2)
    opacity: float = 0.0  # of the middle of a soft ellipse; 0: a solid part, which belongs to the object
    is_bright: bool = False


def tone(color: np.ndarray, amount: float) -> np.ndarray:
    """Return a lighter color for a positive amount up to 1, a darker one for a negative amount."""
    return color + (255 - color) * amount if amount > 0 else color * (1 + amount)


def draw(rng: np.random.Generator, name: str, colors: Mapping[str, np.ndarray], *, night: bool) -> list[Part]:
    """Draw one of the table's drawings of a name, in meters, in colors and proportions of its own."""
    return list(_Pen(rng, colors, night).read_drawing(name))


@cache
def _read_outline(shape: str, *words: str) -> tuple[np.ndarray, np.ndarray | float, float]:
    """Return the points of a polygon, or the middle of an ellipse and its rim around it, and the opacity."""
    numbers = [float(word) for word in words]
    if shape in ("disc", "soft", "glow"):
        return np.array(numbers[:2]), _CIRCLE * numbers[2:4], sum(numbers[4:])
    if shape == "box":
        x1, y1, x2, y2 = numbers
        return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]), 0, 0
    points = np.reshape(numbers, (-1, 2))
    for _ in range(3 if shape == "blob" else 0):  # Chaikin's corner cutting
        step = (np.roll(points, -1, axis=0) - points) / 4
        points = np.stack([points + step, points + 3 * step], axis=1).reshape(-1, 2)
    return points, 0, 0


class _Pen:
    """Reads one drawing: every part of it has the same proportions, every color name the same color."""

    def __init__(self, rng: np.random.Generator, colors: Mapping[str, np.ndarray], night: bool) -> None:
        self.rng, self.colors, self.night = rng, colors, night
        self.chosen: dict[str, np.ndarray] = {}
        self.stretch = rng.uniform((0.85, 0.9), (1.18, 1.12))
        self.stretch[0] *= rng.choice([-1, 1])  # faces either way

    def read_drawing(self, name: str) -> Iterator[Part]:
        for shape, *words in _DRAWINGS[name][self.rng.integers(len(_DRAWINGS[name]))]:
            if (shape[0] == "?" and self.rng.random() < 0.5) or ("glow" in shape and not self.night):
                continue
            copies, dx, dy = map(float, words.pop()[1:].split(",")) if words[-1][0] == "*" else (1, 0, 0)
            width = float(words.pop()[1:]) if words[-1][0] == "x" else 1
            sides = (width, -width) if shape[-1] == "!" else (width,)
            for shift in np.arange(copies)[:, None] * (dx, dy) * self.stretch:
                for part, side in itertools.product(self._read_parts(shape.strip("?!"), words), sides):
                    yield part._replace(points=part.points * (side, 1) + shift)

    def _read_parts(self, shape: str, words: list[str]) -> list[Part]:
        if shape[0] == "@":
            x, y, size = map(float, words)
            parts = self.read_drawing(shape[1:])
            return [part._replace(points=part.points * size + (x, y) * self.stretch) for part in parts]
        points, circle, opacity = _read_outline(shape, *words[1:])
        points = points * self.stretch + circle * np.abs(self.stretch).mean()  # wheels stay round
        color, is_bright = self._read_color(words[0])
        return [Part(color, points, opacity, is_bright)]

    def _read_color(self, word: str) -> tuple[np.ndarray, bool]:
        name, amount = (word[:-2], int(word[-2:]) / 10) if word[-2] in "+-" else (word, 0)
        if name == "pane" and self.night and self.rng.random() < 0.6:
            name = "lit"
        if name not in self.chosen:
            self.chosen[name] = self.rng.choice(self.colors[name]) + self.rng.normal(0, 8, 3)
        return tone(self.chosen[name], amount), name in _BRIGHT
