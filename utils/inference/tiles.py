"""Tiles of large images: their grid, and one list of detections from those of all tiles.

Small objects keep their pixels in a tile; large ones are found in the whole image, which is seen too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from nets.boxes import box_intersection
from nets.postprocess import MAX_CANDIDATES, overlapping, suppress
from nets.structures import Detections
from utils.cli.errors import UserError

Tile = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels of the image
CUT_WEIGHT = 0.5  # a box cut off by its tile counts half beside others, so that the whole object is kept
_MOST_TILES = 20_000  # of an image; one of 89 million pixels has 800 of 416 pixels
_MARGIN = 0.01  # of the tile's side: a box that ends so near the edge is cut off


def tile_grid(image_size: tuple[int, int], tile_size: tuple[int, int], overlap: float) -> list[Tile]:
    """Cut an image into the fewest tiles that overlap by at least a share of their side, evenly spaced.

    Args:
        image_size: (height, width) of the image in pixels.
        tile_size: (height, width) of a tile; a side longer than the image's is cut to it.
        overlap: share of a tile's side that neighbors have in common, from 0 to below 1.

    Returns:
        The tiles row by row; none for an image no larger than one.

    Raises:
        UserError: more than 20,000 tiles.
    """
    rows, columns = (_intervals(*sides, overlap) for sides in zip(image_size, tile_size, strict=True))
    if len(rows) == len(columns) == 1:
        return []
    if (count := len(rows) * len(columns)) > _MOST_TILES:
        (height, width), (tile_height, tile_width) = image_size, tile_size
        raise UserError(
            f"an image {width} pixels wide and {height} high has {count} tiles {tile_width} wide and "
            f"{tile_height} high; at most {_MOST_TILES} are detected: use a larger --tile or a smaller "
            "--tile-overlap"
        )
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def _intervals(length: int, side: int, overlap: float) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    step = max(1, math.floor(side * (1 - overlap)))
    gaps = math.ceil((length - side) / step)
    starts = [gap * (length - side) // gaps for gap in range(gaps + 1)]
    return [(start, start + side) for start in starts]


def find_cut(boxes: Tensor, tile: Tile, image_size: tuple[int, int]) -> Tensor:
    """Return which boxes, Tensor[N, 4] in pixels of the image, end at an edge of their tile, Tensor[N] bool.

    An edge of the image cuts nothing off.
    """
    x1, y1, x2, y2 = tile
    height, width = image_size
    margin = boxes.new_tensor([x2 - x1, y2 - y1] * 2) * _MARGIN
    edges, outer = boxes.new_tensor(tile), torch.tensor([x1 == 0, y1 == 0, x2 == width, y2 == height])
    return (((boxes - edges).abs() <= margin) & ~outer).any(dim=1)


def merge(
    found: Detections, is_cut: Tensor, *, conf: float, iou_threshold: float, max_detections: int
) -> Detections:
    """Choose among the detections of all tiles and of the whole image.

    Class-wise greedy NMS, with two rules for boxes cut off by their tile. Such a box also conflicts with one
    that covers more than `iou_threshold` of it, however large that one is. Its score counts half in the
    order, so that the whole object wins unless it scores less than half as much; the winner takes the highest
    score of the cut boxes it removes.

    Args:
        found: those with a score from `conf` * CUT_WEIGHT; then the result does not depend on `conf`, except
            that it starts there.
        is_cut: Tensor[N] bool, see `find_cut`.
        conf: lowest score of a detection.
        iou_threshold: of two boxes of one class with a higher IoU, one is dropped.
        max_detections: most detections.

    Returns:
        Detections, highest score first.
    """
    order = (found.scores * (1 - (1 - CUT_WEIGHT) * is_cut)).argsort(descending=True, stable=True)
    order = order[:MAX_CANDIDATES]
    found, is_cut = found[order], is_cut[order]

    allowed = iou_threshold * (found.boxes[:, 2:] - found.boxes[:, :2]).prod(dim=1)  # of a box cut off
    allowed = allowed.where(is_cut, torch.inf)

    def conflicts(ours: Tensor, theirs: Tensor) -> Tensor:
        shared = box_intersection(found.boxes[ours], found.boxes[theirs])  # (N, M)
        is_covered = (shared > allowed[ours, None]) | (shared > allowed[theirs])
        is_covered &= found.labels[ours, None] == found.labels[theirs]
        return is_covered | overlapping(found, ours, theirs, iou_threshold)

    kept = suppress(len(found), conflicts, len(found))
    scores = found.scores.clone()
    dropped = is_cut.clone()
    dropped[kept] = False
    for block in dropped.nonzero().flatten().split(256) if len(kept) else ():
        winners = kept[conflicts(kept, block).int().argmax(dim=0)]  # the first that conflicts
        scores.scatter_reduce_(0, winners, found.scores[block], "amax")
    result = replace(found, scores=scores)[kept]
    result = result[result.scores >= conf]
    return result[result.scores.argsort(descending=True, stable=True)[:max_detections]]
