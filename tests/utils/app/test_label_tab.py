"""The events of the Label tab, without a browser: needs requirements-app.txt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.utils.app.test_label import folder, load_none  # noqa: F401 (a fixture)
from utils.app.label import LabelFolder
from utils.data.voc_xml import read_annotation

gr = pytest.importorskip("gradio")
pytest.importorskip("gradio_image_annotation")

NEW = {"label": "cow", "color": (0, 0, 0), "xmin": 1, "ymin": 2, "xmax": 40, "ymax": 30}


class Page:
    """What a browser has: the number of the view, and the boxes in the editor."""

    def __init__(self, folder: Path) -> None:  # noqa: F811
        from utils.app.label_tab import build_label_tab

        with gr.Blocks() as blocks:
            build_label_tab(blocks, LabelFolder(folder, load_none))
        self.events: dict[str, Callable] = {one.name: one.fn for one in blocks.fns.values() if one.fn}
        self.receive(self.events["start"](1.0))

    def receive(self, answer: list[Any]) -> None:
        *_, self.view, self.session = answer
        self.boxes = self.session.editor_boxes()

    def send(self, action: str, key: str = "") -> list[Any]:
        value = {"boxes": self.boxes, "orientation": 0}
        event = SimpleNamespace(target=SimpleNamespace(elem_id=action))
        return self.events["handle"](self.session, value, 1.0, key, "", self.view, event)


@pytest.fixture
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Page:  # noqa: F811
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("temporary")))
    return Page(folder)


def test_a_session_goes_on_only_if_its_image_can_be_shown(page: Page, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    first = page.session.opened.key
    with monkeypatch.context() as full:
        full.setattr("utils.app.label_tab.save_bytes_to_cache", fail)
        with pytest.raises(OSError, match="No space left"):
            page.send("next")
    page.boxes.append(NEW)
    page.receive(page.send("save"))
    assert page.session.opened.key == first
    assert [item.name for item in read_annotation(page.session.opened.xml_path).objects] == ["cow"]
    page.receive(page.send("next"))
    page.receive(page.send("previous"))
    assert page.session.opened.key == first


@pytest.mark.parametrize("lost", ["next", "label-image", "save", "accept-all"])
def test_boxes_are_not_saved_if_the_answer_before_was_lost(page: Page, folder: Path, lost: str):  # noqa: F811
    before = sorted(folder.glob("*.xml"))
    page.session = page.send(lost, key="c")[-1]
    after = {path: path.read_bytes() for path in folder.glob("*.xml")}
    assert len(after) == len(before) + (lost == "save")
    page.boxes.append(NEW)
    for action in ("save", "next", "label-image", "accept-all"):
        with pytest.raises(gr.Error, match="reload from disk"):
            page.send(action, key="a")
    assert {path: path.read_bytes() for path in folder.glob("*.xml")} == after
    page.receive(page.send("reload"))
    page.receive(page.send("save"))


def test_a_page_that_the_server_does_not_know_says_so(page: Page):
    page.session = None
    with pytest.raises(gr.Error, match="reload the page"):
        page.send("save")
