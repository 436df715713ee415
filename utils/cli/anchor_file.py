"""Anchor files: width and height of each anchor in network pixels, as in a Darknet .cfg.

Masks name the anchors of each head; they are needed unless six anchors are split between two heads, or nine
between three:

    10,14,  23,27,  37,58,  81,82,  135,169,  344,319
    masks = 3,4,5  1,2,3
    # a comment

One pair per line, a trailing comma and `anchors =` in front are read too. Masks count from 0. The head of the
large objects comes first; heads are divided by spaces or brackets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from nets.config import USUAL_ANCHORS, Anchors, Masks, ModelConfig
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, plain_float, read_text

_MAX_SIDE = 65536.0  # pixels
_MAX_BYTES = 100_000
_MISSING = "no such anchor file; `python data.py anchors` writes one"


def read_anchors(path: Path | str) -> tuple[Anchors, Masks]:
    """Read a file of anchors.

    Without masks the official anchors keep their own; six others are split between two heads, nine between
    three.

    Returns:
        (width, height) pairs in network pixels, and for each head, coarse first, the indices of its anchors.

    Raises:
        UserError: the file is missing, not text, or invalid.
    """
    values: dict[str, list[str]] = {"anchors": [], "masks": []}  # lines
    for line in read_text(path, _MAX_BYTES, _MISSING).splitlines():
        name, equals, rest = line.partition("#")[0].partition("=")
        if equals and name.strip() not in values:
            raise UserError(f"{path}: {name.strip()[:40]!r} is neither anchors nor masks; see --anchors")
        values[name.strip() if equals else "anchors"].append(rest if equals else name)
    anchors = _parse_anchors(path, _words("\n".join(values["anchors"])))
    masks_text = "\n".join(values["masks"])
    masks = _parse_masks(path, masks_text) if _words(masks_text) else _default_masks(path, anchors)
    try:
        ModelConfig(1, anchors=anchors, anchor_masks=masks)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return anchors, masks


def write_anchors(path: Path | str, anchors: Anchors, masks: Masks, note: str) -> None:
    """Write anchors, masks and a comment; raises a UserError as `atomic_write`.

    The anchors are the first line, the only one that bubbliiiing/yolov4-tiny-pytorch reads.
    """
    pairs = ",  ".join(f"{width:.10g},{height:.10g}" for width, height in anchors)
    lists = "  ".join(",".join(map(str, mask)) for mask in masks)
    with atomic_write(path, "w") as file:
        file.write(f"{pairs}\nmasks = {lists}\n# {' '.join(note.split())}\n")


def anchors_by_head(anchors: Anchors, masks: Masks) -> tuple[Anchors, ...]:
    """Return the anchors of each head, coarse first."""
    return tuple(tuple(anchors[index] for index in mask) for mask in masks)


def describe_anchors(anchors: Anchors, masks: Masks) -> str:
    """Return the anchors of each head, coarse first: "81x82 135x169 344x319; 23x27 37x58 81x82"."""
    heads = anchors_by_head(anchors, masks)
    return "; ".join(" ".join(f"{width:g}x{height:g}" for width, height in head) for head in heads)


def split_masks(number: int, num_heads: int) -> Masks:
    """Return masks that split sorted anchors equally between the heads, the largest to the coarse one."""
    share = number // num_heads
    return tuple(tuple(range(first, first + share)) for first in range(number - share, -1, -share))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,;()\[\]\s]+", text) if word]


def _parse_anchors(path: Path | str, words: Sequence[str]) -> Anchors:
    if not words:
        raise UserError(f"{path}: no anchors in it; write pairs width,height, such as 10,14, 23,27")
    values = []
    for word in words:
        try:
            values.append(plain_float(word))
        except ValueError:
            raise UserError(f"{path}: {word[:40]!r} is not a number; write pairs width,height") from None
        if not (math.isfinite(values[-1]) and 1 <= values[-1] <= _MAX_SIDE):
            raise UserError(
                f"{path}: {word[:40]} is not a valid side; sides of anchors are at least 1 network pixel"
            )
    if len(values) % 2:
        raise UserError(f"{path}: an odd number of values, {len(values)}; write pairs width,height")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _parse_masks(path: Path | str, text: str) -> Masks:
    # A list ends at a bracket, a semicolon, or a space that follows no comma.
    lists = [words for part in re.split(r"[;)\]]|(?<![\s,])\s+(?!,)", text) if (words := _words(part))]
    words = [word for part in lists for word in part]
    if len(lists) not in USUAL_ANCHORS and (len(lists) == 1 or {*map(len, lists)} == {1}):
        # One separator everywhere: two lists of any length.
        half = len(words) // 2
        lists = [words[:half], words[half:]]
    is_index = re.compile(r"[0-9]{1,4}").fullmatch
    if not all(map(is_index, words)) or len({*map(len, lists)}) > 1:
        raise UserError(
            f"{path}: masks need equally many anchor indices per head, such as masks = 3,4,5  0,1,2"
        )
    masks = tuple(tuple(map(int, part)) for part in lists)
    if len(masks) not in USUAL_ANCHORS:
        raise UserError(f"{path}: masks of {len(masks)} heads; a network has 2 or 3")
    if any(len(set(mask)) < len(mask) for mask in masks):
        raise UserError(f"{path}: masks {' '.join(words)} name an anchor twice for one head")
    return masks


def _default_masks(path: Path | str, anchors: Anchors) -> Masks:
    for num_heads, (usual, masks) in USUAL_ANCHORS.items():
        if anchors == usual:
            return masks
        if len(anchors) == len(usual):
            return split_masks(len(anchors), num_heads)
    raise UserError(
        f"{path}: {len(anchors)} anchors, 6 are needed for two heads and 9 for three; or name those of each "
        "head, such as masks = 3,4,5  0,1,2"
    )
