"""What becomes of an annotated box that does not lie squarely in its image."""

from __future__ import annotations

from utils.data.voc import Box
from utils.vision.image_reader import ImageHeader

_LEAST_SIDE = 1.0  # pixels
_LEAST_AREA = 0.2  # of the box as written


def turn_box(box: Box, header: ImageHeader) -> Box:
    """Turn a box from the stored picture into the displayed one, for EXIF orientations 5 to 8.

    Args:
        box: (x1, y1, x2, y2) in pixels of the stored picture, whose width is `header.height`.
        header: size as displayed, and the orientation.
    """
    x1, y1, x2, y2 = box
    if header.orientation in (6, 7):  # the stored bottom is displayed at the left
        left, right = header.width - y2, header.width - y1
    else:
        left, right = y1, y2
    if header.orientation in (7, 8):  # the stored right is displayed at the top
        top, bottom = header.height - x2, header.height - x1
    else:
        top, bottom = x1, x2
    return left, top, right, bottom


def clip_box(box: Box, width: int, height: int) -> tuple[Box | None, str]:
    """Cut a box at the borders of its image, or rule it out.

    A box one pixel wide or high (xmin = xmax) is a slip of the labeler and ruled out. One that reaches out
    by up to a pixel, as in files that count pixels from 0, is cut without a word.

    Args:
        box: (x1, y1, x2, y2) edges in pixels.
        width: columns of the image.
        height: rows of the image.

    Returns:
        The box inside the image, or None; and the reason, empty when there is nothing to say.
    """
    x1, y1, x2, y2 = box
    written = f"xmin {x1 + 1:g}, ymin {y1 + 1:g}, xmax {x2:g}, ymax {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return None, f"inverted ({written})"
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None, f"less than a pixel wide or high ({written})"
    if x2 - x1 == 1 or y2 - y1 == 1:
        return None, f"no area ({written})"
    inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if inside == box:
        return box, ""
    new_width, new_height = inside[2] - inside[0], inside[3] - inside[1]
    share = new_width * new_height / ((x2 - x1) * (y2 - y1))
    out = f"outside the image of {width}x{height} ({written})"
    if new_width <= 0 or new_height <= 0:
        return None, f"wholly {out}"
    if min(new_width, new_height) < _LEAST_SIDE or share < _LEAST_AREA:
        return None, f"mostly {out}"
    slight = all(abs(new - old) <= 1 for new, old in zip(inside, box, strict=True))
    return inside, "" if slight else f"partly {out}"
