"""Tiles and the mirrored image, found in by a fake detector that sees rectangles."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from nets.boxes import box_iou
from nets.config import ModelConfig
from nets.structures import Detections
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor, mirror
from utils.inference.runtimes import ExportedModel
from utils.inference.tiles import CUT_WEIGHT, find_cut, merge, tile_grid

NAMES = ("red", "green")
SIZE = (64, 64)
CONFIG = ModelConfig(2, input_size=SIZE, anchors=((8, 8), (16, 16), (24, 24), (32, 32), (48, 48), (64, 64)))


class RectangleFinder(ExportedModel):
    """Finds red and green rectangles of at least six pixels; the smaller one looks, the surer it is.

    So the piece of an object that a tile cuts off has a higher score than the whole. Mirrored, it would
    do the same: `sees` limits it to a range of columns.
    """

    ends_in_nms = True
    name, batch, config, class_names, device = "rectangles", None, CONFIG, NAMES, torch.device("cpu")

    def __init__(self, sees: slice = slice(None)) -> None:
        super().__init__()
        self.sees, self.batches = sees, []

    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        self.batches.append(len(images))
        found = np.zeros((len(images), 50, 6), np.float32)
        for rows, image in zip(found, images, strict=True):
            count = 0
            for label in range(2):
                mask = np.zeros(SIZE, np.uint8)
                mask[:, self.sees] = (image[label] > 0.9)[:, self.sees] & (image[1 - label] < 0.6)[
                    :, self.sees
                ]
                for left, top, width, height, _ in cv2.connectedComponentsWithStats(mask)[2][1:]:
                    score = 0.9 - 0.003 * (width + height)
                    if min(width, height) >= 6 and score > thresholds["conf"]:
                        rows[count] = left, top, left + width, top + height, score, label
                        count += 1
        return [found]


def make_image(height: int, width: int, *rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """Return a gray image with rectangles (x1, y1, x2, y2, label)."""
    image = np.full((height, width, 3), 128, np.uint8)
    for x1, y1, x2, y2, label in rectangles:
        image[y1:y2, x1:x2] = (255, 0, 0) if label == 0 else (0, 255, 0)
    return image


def as_rows(found: Detections) -> list[tuple[float, ...]]:
    return sorted(
        (*box, label) for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
    )


def slow_starts(length: int, side: int, overlap: float) -> list[int]:
    starts = [0]
    while starts[-1] + side < length:
        starts.append(starts[-1] + int(side * (1 - overlap)))
    return starts


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (64, 65), (65, 64), (20, 300), (200, 333), (640, 128)])
@pytest.mark.parametrize("tile_size", [(64, 64), (32, 96)])
def test_the_grid_covers_the_image_with_as_few_tiles_as_a_slow_loop(
    size: tuple[int, int], tile_size: tuple[int, int], overlap: float
) -> None:
    tiles = tile_grid(size, tile_size, overlap)
    counts = [len(slow_starts(*sides, overlap)) for sides in zip(size, tile_size, strict=True)]
    assert len(tiles) == (0 if counts == [1, 1] else counts[0] * counts[1])
    seen = np.zeros(size, int)
    for x1, y1, x2, y2 in tiles:
        assert (y2 - y1, x2 - x1) == tuple(np.minimum(size, tile_size))
        assert 0 <= x1 < x2 <= size[1]
        assert 0 <= y1 < y2 <= size[0]
        seen[y1:y2, x1:x2] += 1
    assert not tiles or seen.min() >= 1
    columns = sorted({(x1, x2) for x1, _, x2, _ in tiles})
    for (_, end), (start, _) in pairwise(columns):
        assert end - start >= int(overlap * tile_size[1])


def test_a_grid_of_too_many_tiles_is_refused() -> None:
    assert len(tile_grid((4512, 4512), (32, 32), 0.0)) == 141**2
    with pytest.raises(UserError, match="4544 pixels wide and 4512 high has 20022 tiles 32 wide and 32 high"):
        tile_grid((4512, 4544), (32, 32), 0.0)


def test_a_box_at_an_edge_inside_the_image_is_cut_off() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [60, 5, 99.5, 10], [60, 5, 97, 10], [5, 60, 9, 100], [0, 40, 5, 50]]
    )
    assert find_cut(boxes, (0, 0, 100, 100), (100, 150)).tolist() == [False, True, False, False, False]
    assert find_cut(boxes + 50, (50, 50, 150, 150), (150, 150)).tolist() == [True, False, False, False, True]


def slow_merge(found: Detections, is_cut: list[bool], conf: float, iou: float, most: int) -> list[tuple]:
    """Return (score, label, box) of what stays, written as a loop over pairs."""
    boxes, labels, scores = found.boxes.tolist(), found.labels.tolist(), found.scores.tolist()
    rank = [score * (CUT_WEIGHT if cut else 1) for score, cut in zip(scores, is_cut, strict=True)]
    overlaps = box_iou(found.boxes, found.boxes).tolist()

    def covers(one: int, other: int) -> bool:
        (a1, b1, a2, b2), (x1, y1, x2, y2) = boxes[one], boxes[other]
        shared = max(0, min(a2, x2) - max(a1, x1)) * max(0, min(b2, y2) - max(b1, y1))
        return shared > iou * (x2 - x1) * (y2 - y1)

    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -rank[index]):
        for winner in kept:
            by_cut = (is_cut[index] and covers(winner, index)) or (is_cut[winner] and covers(index, winner))
            if labels[winner] == labels[index] and (overlaps[winner][index] > iou or by_cut):
                if is_cut[index]:
                    scores[winner] = max(scores[winner], found.scores[index].item())
                break
        else:
            kept.append(index)
    return sorted(((scores[i], labels[i], boxes[i]) for i in kept if scores[i] >= conf), reverse=True)[:most]


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 0), (60, 1), (300, 2), (700, 3)])
def test_merging_agrees_with_a_loop_and_does_not_depend_on_conf(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 100
    boxes = torch.cat((low, low + 3 + torch.rand(count, 2, generator=generator) * 40), dim=1)
    scores, labels = torch.rand(count, generator=generator), torch.randint(2, (count,), generator=generator)
    is_cut = torch.rand(count, generator=generator) < 0.4
    found = Detections(boxes, scores, labels)
    for conf in (0.0, 0.3):
        enough = scores >= conf * CUT_WEIGHT
        result = merge(found[enough], is_cut[enough], conf=conf, iou_threshold=0.5, max_detections=80)
        expected = slow_merge(found, is_cut.tolist(), conf, 0.5, 80)
        assert [score for score, _, _ in expected] == result.scores.tolist()
        assert [box for _, _, box in expected] == result.boxes.tolist()
        assert [label for _, label, _ in expected] == result.labels.tolist()


RECTANGLES = (
    (5, 5, 17, 15, 0),  # in the first tile alone
    (45, 20, 57, 32, 1),  # over the edge of a tile, smaller than the overlap
    (58, 100, 66, 108, 0),
    (104, 5, 250, 60, 1),  # wider than a tile: only the whole image holds it
    (110, 120, 122, 128, 0),  # touches the other of its class nowhere
    (150, 90, 162, 102, 0),
    (150, 103, 162, 115, 1),  # another class beside it
    (288, 140, 300, 150, 0),  # at the corner of the image
)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("flip_test", [False, True])
def test_objects_over_the_seam_are_found_once(batch: int, flip_test: bool) -> None:
    image = make_image(150, 300, *RECTANGLES)
    predictor = Predictor(RectangleFinder(), CONFIG, NAMES, tile=0, flip_test=flip_test)
    assert len(as_rows(Predictor(RectangleFinder(), CONFIG, NAMES)(image))) == 1  # all but one are too small
    for found in predictor([image] * batch, batch_size=batch):
        rows = as_rows(found)
        assert len(rows) == len(RECTANGLES)
        for row, expected in zip(rows, sorted(RECTANGLES), strict=True):
            assert row == pytest.approx(expected, abs=5 if expected[2] - expected[0] > 64 else 0.01)


def test_tiles_agree_with_a_slow_obvious_tiling() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((64, 65), (150, 300), (200, 70)):
        corners = rng.integers(0, (width - 5, height - 5), (12, 2))
        sides = rng.integers(6, 60, (12, 2))
        rectangles = [
            (*low, *(low + side), label % 2)
            for label, (low, side) in enumerate(zip(corners, sides, strict=True))
        ]
        image = make_image(height, width, *rectangles)
        plain = Predictor(RectangleFinder(), CONFIG, NAMES, conf=0.1)
        parts, cut = [plain(image)], [False] * len(plain(image))
        for x1, y1, x2, y2 in tile_grid((height, width), (64, 64), 0.25):
            found = plain(image[y1:y2, x1:x2].copy())
            for box in found.boxes.tolist():
                near = [
                    box[0] < 0.64,
                    box[1] < (y2 - y1) / 100,
                    box[2] > x2 - x1 - 0.64,
                    box[3] > (y2 - y1) * 0.99,
                ]
                inner = [x1 > 0, y1 > 0, x2 < width, y2 < height]
                cut.append(any(one and other for one, other in zip(near, inner, strict=True)))
            parts.append(Detections(found.boxes + torch.tensor([x1, y1, x1, y1]), found.scores, found.labels))
        joined = Detections(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("boxes", "scores", "labels"))
        )
        expected = slow_merge(joined, cut, 0.2, 0.5, 100)
        found = Predictor(RectangleFinder(), CONFIG, NAMES, conf=0.2, tile=64, tile_overlap=0.25)(image)
        assert len(expected) > 3
        assert found.class_names == NAMES
        assert found.scores.tolist() == pytest.approx([score for score, _, _ in expected])
        np.testing.assert_allclose(sorted(found.boxes.tolist()), sorted(box for _, _, box in expected), 1e-5)


def test_a_small_image_costs_nothing_and_a_large_one_bounded_batches() -> None:
    small, panorama = (
        make_image(64, 50, RECTANGLES[0]),
        make_image(64, 3000, RECTANGLES[0], (2900, 9, 2910, 19, 1)),
    )
    predictor = Predictor(RectangleFinder(), CONFIG, NAMES, tile=0)
    assert as_rows(predictor(small)) == as_rows(Predictor(RectangleFinder(), CONFIG, NAMES)(small))
    assert predictor.model.batches == [1]
    assert not predictor.prepare(small).tiles
    found = predictor([small, panorama])
    assert [len(one) for one in found] == [1, 2]
    assert max(predictor.model.batches) == 8
    tiles = predictor.prepare(panorama).tiles
    assert sum(predictor.model.batches) == 1 + 2 + len(tiles)
    assert all(np.shares_memory(pixels, panorama) or pixels.base is not None for _, pixels in tiles)


def test_a_mirrored_box_mirrored_again_is_itself() -> None:
    boxes = torch.tensor([[3.0, 4, 10, 12], [0, 0, 64, 64]])
    assert mirror(boxes, 64).tolist() == [[54, 4, 61, 12], [0, 0, 64, 64]]
    assert torch.equal(mirror(mirror(boxes, 64), 64), boxes)


def test_flip_test_finds_what_only_the_mirrored_image_shows() -> None:
    image = make_image(64, 64, (4, 4, 14, 14, 0), (40, 30, 50, 40, 1))
    half_blind = RectangleFinder(slice(0, 32))
    assert len(Predictor(half_blind, CONFIG, NAMES)(image)) == 1
    found = Predictor(half_blind, CONFIG, NAMES, flip_test=True)(image)
    assert as_rows(found) == [(4, 4, 14, 14, 0), (40, 30, 50, 40, 1)]
    limited = Predictor(half_blind, CONFIG, NAMES, flip_test=True, max_det=1).limited_to([1])
    assert as_rows(limited(image)) == [(40, 30, 50, 40, 1)]


def test_flip_test_of_a_network_sees_an_image_and_its_mirror_alike() -> None:
    torch.manual_seed(0)
    predictor = Predictor(YoloBody(CONFIG), CONFIG, NAMES, conf=1e-6, max_det=50, flip_test=True)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    found, mirrored = predictor(image), predictor(np.ascontiguousarray(image[:, ::-1]))
    torch.testing.assert_close(found.scores, mirrored.scores)
    torch.testing.assert_close(found.boxes, mirror(mirrored.boxes, 64), atol=1e-3, rtol=0)
    once = Predictor(YoloBody(CONFIG), CONFIG, NAMES, conf=1e-6, max_det=50)
    assert not torch.equal(once(image).boxes, found.boxes)


@pytest.mark.parametrize(
    "knobs", [{"tile": 20}, {"tile": -1}, {"tile": "416"}, {"tile": 64, "tile_overlap": 1.0}]
)
def test_nonsense_is_named(knobs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str([*knobs][-1])):
        Predictor(RectangleFinder(), CONFIG, NAMES, **knobs)


def test_a_tile_of_its_own_size_is_scaled_to_the_input() -> None:
    predictor = Predictor(RectangleFinder(), CONFIG, NAMES, tile=128)
    assert predictor.tile_size == (128, 128)
    found = predictor(make_image(128, 256, (100, 40, 120, 60, 0)))
    assert as_rows(found) == [(100, 40, 120, 60, 0)]
