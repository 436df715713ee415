from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.file_size_limit import file_size_limit
from utils.cli.errors import UserError
from utils.vision.contact_sheet import save_sheet
from utils.vision.image_writer import write_image
from utils.vision.plots.figure import save_figure

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)  # compresses badly


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_image(NOISE, path.with_suffix(".jpg")),
        lambda path: write_image(NOISE, path.with_suffix(".png")),
        lambda path: save_sheet(path.with_suffix(".jpg"), [NOISE], columns=1),
        lambda path: save_figure(Figure(), path.with_suffix(".png"), dpi=300),
    ],
    ids=["jpeg", "png", "sheet", "figure"],
)
def test_a_picture_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path: Path, write) -> None:
    with file_size_limit(3_000), pytest.raises(UserError, match="cannot write: File too large"):
        write(tmp_path / "x")
    assert not list(tmp_path.iterdir())
