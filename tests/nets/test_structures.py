from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nets.structures import Detections

FOUND = Detections(
    torch.tensor([[1.5, 2.0, 30.0, 40.25], [0.0, 0.0, 5.0, 5.0]]),
    torch.tensor([0.75, 0.5]),
    torch.tensor([1, 0]),
)


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name whose class keeps what it is given, as the real one does."""
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))


def test_nothing_found_for_supervision(supervision: None) -> None:
    given = Detections.empty().to_supervision(("cat",))
    assert given.xyxy.shape == (0, 4)
    assert (len(given.confidence), len(given.class_id)) == (0, 0)
    assert given.data["class_name"].shape == (0,)


def test_detections_for_supervision(supervision: None) -> None:
    given = FOUND.to_supervision()
    assert given.xyxy.tolist() == [[1.5, 2.0, 30.0, 40.25], [0.0, 0.0, 5.0, 5.0]]
    assert given.confidence.tolist() == [0.75, 0.5]
    assert given.class_id.tolist() == [1, 0]
    assert given.class_id.dtype == np.int64
    assert given.data == {}
    chosen = FOUND.to_supervision(("cat", "dog")).data["class_name"] == "dog"  # as its users select
    assert chosen.tolist() == [True, False]
    named = dataclasses.replace(FOUND, class_names=("cat", "dog"))
    assert named.to_supervision().data["class_name"].tolist() == ["dog", "cat"]
    assert named[named.scores > 0.6].to_supervision().data["class_name"].tolist() == ["dog"]


def test_without_supervision_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        FOUND.to_supervision()
