from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.data.conftest import write_voc
from utils.data.voc_xml import VocObject

CAT, DOG = VocObject("cat", (2, 3, 10, 12)), VocObject("dog", (0, 0, 40, 30), True)
SLIP = VocObject("cat", (9, 9, 10, 10))


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with `voc`: six images to train on, two to select on, nothing wrong with them."""
    monkeypatch.chdir(tmp_path)
    train = {f"{n:02}": [CAT, DOG] for n in range(6)}
    return write_voc(Path("voc"), {"train": train, "val": {"10": [CAT], "11": []}})
