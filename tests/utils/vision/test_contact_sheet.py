from __future__ import annotations

import numpy as np

from utils.vision.contact_sheet import draw_grid


def test_grid_arranges_cells_in_rows() -> None:
    cells = [np.full((16, 32, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    assert draw_grid(cells[:1], columns=2, gap=4).tolist() == cells[0].tolist()
    grid = draw_grid(cells, columns=2, gap=4)
    assert grid.shape == (16 + 4 + 16, 32 + 4 + 32, 3)
    assert (grid[:16, :32] == 10).all()
    assert (grid[:16, 36:] == 20).all()
    assert (grid[20:, :32] == 30).all()
    assert (grid[16:20] == 255).all()
    assert (grid[20:, 32:] == 255).all()
