"""The Label tab of the page: layout and events; what they do is in label_session.py."""

from __future__ import annotations

import io
import os
import shlex
from copy import copy
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio_image_annotation import image_annotator
from PIL import Image

from utils.app.editor import describe_classes, hex_colors, to_html
from utils.app.label import LabelFolder
from utils.app.label_session import LabelSession
from utils.cli.app_config import LOWEST_SCORE
from utils.cli.errors import UserError
from utils.cli.files import as_utf8
from utils.cli.predict_config import PredictConfig

# The editor would decode and save the image again at each event; only its boxes are read.
image_annotator.preprocess_image = lambda self, image: None

_KEYS = (
    "Keys: <kbd>a</kbd> accept, <kbd>A</kbd> accept all, <kbd>1</kbd> to <kbd>9</kbd> class, "
    "<kbd>f</kbd> difficult, <kbd>Delete</kbd> delete, <kbd>c</kbd> draw, <kbd>d</kbd> drag, "
    "<kbd>e</kbd> edit, <kbd>s</kbd> save, <kbd>n</kbd> or <kbd>→</kbd> next, <kbd>p</kbd> or <kbd>←</kbd> "
    "previous. The wheel zooms, a double click edits. Next and previous save what was changed."
)
_EVENT = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "label"}
RESTARTED = "the server does not know this page (was it restarted?); reload the page"
_STALE = "the page does not show the boxes that it got last; nothing is saved: reload from disk"
_TOOLS = {"Accept (a)": "a", "Difficult (f)": "f", "Delete": "Delete", "Draw (c)": "c", "Drag (d)": "d"}


def build_label_tab(page: gr.Blocks, folder: LabelFolder) -> None:
    """Add the components and events of the tab to the page."""
    state = gr.State(None)
    with gr.Row():
        images = gr.Dropdown(
            list(folder.images), label="Image", interactive=True, scale=3, elem_id="label-image"
        )
        about_conf = {"label": "Suggestions from score", "elem_id": "label-conf"}
        conf = gr.Slider(LOWEST_SCORE, 1, PredictConfig.conf, step=0.01, **about_conf)
        progress = gr.Markdown(folder.describe_progress(), elem_id="progress")
    editor = image_annotator(
        None,
        boxes_alpha=0.15,
        box_min_size=2,
        sources=[],
        show_label=False,
        show_clear_button=False,
        show_download_button=False,
        show_remove_button=True,
        elem_id="editor",
    )
    with gr.Row():
        for text, key in _TOOLS.items():
            gr.Button(text, size="sm", min_width=60).click(None, js=f"() => labelKeys.act('{key}')")
        buttons = [
            gr.Button(text, size="sm", min_width=60, elem_id=action)
            for text, action in (("Accept all (A)", "accept-all"), ("Reload from disk", "reload"))
        ]
    with gr.Row():
        for text, action in (("Previous (p)", "previous"), ("Save (s)", "save"), ("Next (n)", "next")):
            variant = "primary" if action == "next" else "secondary"
            buttons.append(gr.Button(text, variant=variant, size="md", min_width=60, elem_id=action))
    about = gr.HTML(elem_id="about")
    with gr.Row():
        classes = gr.HTML(describe_classes(folder.class_names))
        name = gr.Textbox(label="New class", max_lines=1, scale=0, min_width=160, elem_id="new-class")
        buttons.append(gr.Button("Add", scale=0, min_width=60, elem_id="add-class"))
    gr.Markdown(_KEYS)
    with gr.Accordion("Train on these", open=False):
        data = f"--data {shlex.quote(as_utf8(folder.root))}"
        commands = f"python data.py check {data}\npython train.py {data} --epochs 50"
        gr.Code(commands, language="shell", show_label=False)

    view = gr.Textbox(visible=False)  # of the boxes in the editor
    outputs = [editor, images, progress, about, classes, view, state]  # set in this order, the session last

    def show(session: LabelSession) -> list[Any]:
        names, key, value = folder.class_names, None, None
        if session.opened and session.image:
            key, value = session.opened.key, {"image": _write(session.image), "boxes": session.editor_boxes()}
        shown = image_annotator(
            value, label_list=list(names), label_colors=hex_colors(names), width=session.editor_width()
        )
        image, progress = gr.Dropdown(value=key), folder.describe_progress()
        return [shown, image, progress, say(session), describe_classes(names), str(session.view), session]

    def say(session: LabelSession) -> str:
        return "<br>".join(map(to_html, filter(None, [session.describe(), session.message])))

    # One event for all: the page sends none while it waits for the last one. If the answer is lost, or cannot
    # be made, the page shows something else than the session has.
    def handle(
        held: LabelSession | None,
        value: Any,
        conf: float,
        key: str,
        name: str,
        shown: str,
        event: gr.EventData,
    ) -> list[Any]:
        action = event.target.elem_id
        if held is None:
            raise gr.Error(RESTARTED, print_exception=False)
        if shown != str(held.view) and action != "reload":
            raise gr.Error(_STALE, print_exception=False)
        session = copy(held)  # which stays as it is until the answer is made
        actions = {
            "next": lambda: session.move(1, value, conf),
            "previous": lambda: session.move(-1, value, conf),
            "label-image": lambda: session.jump(key, value, conf),
            "save": lambda: session.save(value),
            "reload": lambda: session.reload(conf),
            "accept-all": lambda: session.accept_all(value),
            "label-conf": lambda: session.suggest(value, conf),
            "add-class": lambda: session.add_class(name, value),
            "new-class": lambda: session.add_class(name, value),
        }
        session.message = ""
        try:
            actions[action]()
        except UserError as error:
            gr.Warning(to_html(str(error)))
            if session.view == held.view:  # the editor stays as it is
                opened = gr.Dropdown(value=session.opened.key if session.opened else None)
                return [gr.skip(), opened, gr.skip(), say(session), gr.skip(), gr.skip(), session]
        return show(session)

    def start(conf: float) -> list[Any]:
        session = LabelSession(folder)
        session.move(1, None, conf)
        return show(session)

    inputs = [state, editor, conf, images, name, view]
    triggers = [*(one.click for one in buttons), conf.release, images.input, name.submit]
    gr.on(triggers, None, js="() => labelKeys.freeze(true)")
    for done in (
        page.load(start, conf, outputs, **_EVENT),
        gr.on(triggers, handle, inputs, outputs, trigger_mode="once", **_EVENT),
    ):
        done.then(None, js="() => { labelKeys.freeze(false); labelKeys.deselect(); }")
        done.failure(None, js="() => labelKeys.freeze(false)")


def _write(image: Image.Image) -> str:
    """Write an image where the browser gets it; the server removes it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return save_bytes_to_cache(data.getvalue(), "image.jpg", os.environ["GRADIO_TEMP_DIR"])
