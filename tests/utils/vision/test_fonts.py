from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import ImageFont

from nets.structures import Detections
from utils.vision import draw

FOUND = Detections(torch.tensor([[10.0, 60.0, 90.0, 90.0]]), torch.tensor([0.9]), torch.tensor([0]))


@pytest.fixture
def poor_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no font but those that our dependencies bring."""
    monkeypatch.setattr(draw, "_WIDER_FONTS", ("no-such-font.ttf",))
    draw._find_font.cache_clear()
    draw._warn_about_letters.cache_clear()


def test_no_text() -> None:
    assert draw.has_letters("")
    assert isinstance(draw.load_font(12), ImageFont.FreeTypeFont)


@pytest.mark.parametrize("text", ["cat 0.90", "café", "собака", "Ω"])
def test_letters_that_our_dependencies_have(poor_machine: None, text: str) -> None:
    assert draw.has_letters(text)
    assert draw.load_font(20, text).getbbox(text)[2] > 10


def test_a_missing_letter_is_seen(poor_machine: None) -> None:
    assert not draw.has_letters("猫")
    assert not draw.has_letters("a猫b")
    assert draw.load_font(20, "猫").getname() == draw.load_font(20).getname()  # something to draw with


def test_a_font_of_the_machine_is_taken(monkeypatch: pytest.MonkeyPatch, poor_machine: None) -> None:
    path = Path(matplotlib.get_data_path(), "fonts/ttf/STIXGeneral.ttf")
    monkeypatch.setattr(draw, "_WIDER_FONTS", (str(path),))
    monkeypatch.setattr(draw, "_fonts_of_matplotlib", list)
    assert draw.load_font(20, "∮").getname()[0] == "STIXGeneral"


def test_a_name_that_cannot_be_drawn_becomes_its_number(
    poor_machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    drawn = [draw.draw_detections(image, FOUND, (name,)) for name in ("猫", "class 0", "猫")]
    assert np.array_equal(drawn[0], drawn[1])
    assert capsys.readouterr().err.count("warning: no font has the letters of 猫") == 1
