"""Fonts for what is written on pictures: the bundled one, or for other letters one that the machine has."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_UNASSIGNED = "\U0010ffff"  # no font has it: what is drawn for it is drawn for every letter that is missing
# What Linux, macOS and Windows come with for letters beyond Latin.
_WIDER_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "NotoSans-Regular.ttf",
)


def load_font(size: int, text: str = "") -> Font:
    """Return a font of a size in pixels that has the letters of a text; the bundled one where none has."""
    return _find_font(size, _unusual(text)) or _bundled(size)


def has_letters(text: str) -> bool:
    """Tell whether a font of this machine has the letters of a text."""
    return _find_font(16, _unusual(text)) is not None


def _unusual(text: str) -> str:
    return "".join(sorted({letter for letter in text if not letter.isascii()}))


@lru_cache(maxsize=256)
def _find_font(size: int, letters: str) -> Font | None:
    candidates = [_bundled(size)]
    if not letters or _has(candidates[0], letters):
        return candidates[0]
    for name in (*_WIDER_FONTS, *_fonts_of_matplotlib()):
        font = _open(name, size)
        if font is not None and _has(font, letters):
            return font
    return None


def _has(font: Font, letters: str) -> bool:
    try:
        missing = bytes(font.getmask(_UNASSIGNED))
        return all(bytes(font.getmask(letter)) != missing for letter in letters)
    except UnicodeEncodeError:  # the bitmap font of a Pillow without FreeType
        return False


@lru_cache(maxsize=64)
def _open(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _bundled(size: int) -> Font:
    return ImageFont.load_default(size)


def _fonts_of_matplotlib() -> list[str]:
    """Return DejaVu Sans, which has Greek and Cyrillic letters; finding it does not import matplotlib."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        return []
    return [str(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")]
