from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.structures import Detections
from utils.vision.heatmap import GateMaps, color_range, draw_attention_maps, draw_heatmap


def make_gates(positions: np.ndarray | None, channels: np.ndarray | None, name: str = "Block") -> GateMaps:
    return GateMaps("c4", name, (256, 26, 26), positions, channels)


def spread(panel: np.ndarray) -> int:
    """Return how far the colors of a panel's map, at its place, lie apart."""
    pixels = panel[120:300, 100:300].reshape(-1, 3).astype(int)
    return int((pixels.max(axis=0) - pixels.min(axis=0)).max())


def test_gates_that_nearly_agree_keep_the_colors_apart() -> None:
    assert color_range(np.array([0.2, 0.7])) == (0.2, 0.7)
    assert color_range(np.array([0.5, 0.5])) == pytest.approx((0.45, 0.55))
    assert color_range(np.array([0.50, 0.54])) == pytest.approx((0.47, 0.57))


def test_nearly_constant_gates_look_flat_and_decided_ones_do_not() -> None:
    image = np.full((60, 60, 3), 100, dtype=np.uint8)
    ramp = np.linspace(0, 1, 32, dtype=np.float32)[None].repeat(32, axis=0)
    flat = draw_attention_maps(image, [make_gates(0.5 + ramp / 1000, None)])
    strong = draw_attention_maps(image, [make_gates(ramp, None)])
    assert spread(flat) < 10
    assert spread(strong) > 30


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (30, 90), (1080, 1920)])
def test_any_size_gives_a_picture_of_bounded_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    positions = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    values = np.array([1.7, 0.0, -0.5, 0.2], dtype=np.float32)
    places = [make_gates(positions, values, "Long" * 40), make_gates(None, values), make_gates(None, None)]
    drawn = draw_attention_maps(image, places)
    assert drawn.dtype == np.uint8
    assert 100 < drawn.shape[0] < 2500
    assert 380 < drawn.shape[1] < 2500
    assert (drawn[:, -1] == 255).all()  # nothing runs over the margin


def test_wide_pictures_stand_below_each_other() -> None:
    places = [make_gates(np.zeros((4, 4), dtype=np.float32), None)] * 3
    tall = draw_attention_maps(np.zeros((90, 60, 3), dtype=np.uint8), places).shape
    wide = draw_attention_maps(np.zeros((30, 90, 3), dtype=np.uint8), places).shape
    assert tall[1] > tall[0]
    assert wide[0] > wide[1] / 2


def test_heat_is_laid_over_its_place() -> None:
    image = np.full((40, 80, 3), 90, dtype=np.uint8)
    heat = np.zeros((4, 8), dtype=np.float32)
    cold = draw_heatmap(image, heat, Detections.empty(), ())
    heat[:2, :2] = 1
    hot = draw_heatmap(image, heat, Detections.empty(), ())
    assert hot.shape == image.shape
    assert (image == 90).all()
    changed = (hot != cold).any(axis=2)
    assert changed[:15, :15].all()
    assert not changed[26:].any()
    assert not changed[:, 26:].any()
    box = Detections(torch.tensor([[50.0, 20.0, 70.0, 36.0]]), torch.tensor([0.5]), torch.tensor([0]))
    assert not np.array_equal(draw_heatmap(image, heat, box, ("cat",)), hot)
