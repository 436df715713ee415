"""The Label tab of the page: layout and events; what they do is in label_session.py."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio_image_annotation import image_annotator

from utils.app.editor import describe_classes, hex_colors
from utils.app.label import LOWEST_SCORE
from utils.app.label_session import Labeling, LabelSession
from utils.cli.errors import UserError
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
_TOOLS = {
    "Accept (a)": "a",
    "Difficult (f)": "f",
    "Delete": "Delete",
    "Draw (c)": "c",
    "Drag (d)": "d",
}


def build_label_tab(page: gr.Blocks, labeling: Labeling) -> None:
    """Add the components and events of the tab to the page."""
    state = gr.State(None, delete_callback=lambda session: session and session.close())
    with gr.Row():
        images = gr.Dropdown(
            list(labeling.folder.images), label="Image", interactive=True, scale=3, elem_id="label-image"
        )
        conf = gr.Slider(
            LOWEST_SCORE,
            1,
            PredictConfig.conf,
            step=0.01,
            label="Suggestions from score",
            elem_id="label-conf",
        )
        progress = gr.Markdown(labeling.folder.describe_progress(), elem_id="progress")
    editor = image_annotator(
        None,
        label_list=labeling.class_names,
        label_colors=hex_colors(labeling.class_names),
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
        accept_all = gr.Button("Accept all (A)", size="sm", min_width=60, elem_id="accept-all")
        reload = gr.Button("Reload from disk", size="sm", min_width=60, elem_id="reload")
    with gr.Row():
        previous = gr.Button("Previous (p)", size="md", min_width=60, elem_id="previous")
        save = gr.Button("Save (s)", size="md", min_width=60, elem_id="save")
        following = gr.Button("Next (n)", variant="primary", size="md", min_width=60, elem_id="next")
    about = gr.HTML(elem_id="about")
    with gr.Row():
        classes = gr.HTML(describe_classes(labeling.class_names))
        name = gr.Textbox(label="New class", max_lines=1, scale=0, min_width=160, elem_id="new-class")
        add = gr.Button("Add", scale=0, min_width=60, elem_id="add-class")
    gr.Markdown(_KEYS)
    with gr.Accordion("Train on these", open=False):
        gr.Code(_describe_training(labeling), language="shell", show_label=False)

    outputs = [state, editor, images, progress, about, classes]

    def show(session: LabelSession) -> list[Any]:
        boxes, file = session.editor_boxes(), session.image_file
        names = labeling.class_names
        shown = image_annotator(
            {"image": str(file), "boxes": boxes} if file else None,
            label_list=list(names),
            label_colors=hex_colors(names),
            width=session.editor_width(),
        )
        key = session.opened.key if session.opened else None
        lines = "<br>".join(map(html.escape, filter(None, [session.describe(), session.message])))
        progress = labeling.folder.describe_progress()
        return [session, shown, gr.Dropdown(value=key), progress, lines, describe_classes(names)]

    # By elem_id of the component. One event for all: the page sends none while it waits for the last one, so
    # that the boxes it sends are always those that it was given last.
    actions: dict[str, Callable[[LabelSession, Any, float, str, str], None]] = {
        "next": lambda session, value, conf, key, name: session.move(1, value, conf),
        "previous": lambda session, value, conf, key, name: session.move(-1, value, conf),
        "label-image": lambda session, value, conf, key, name: session.jump(key, value, conf),
        "save": lambda session, value, conf, key, name: session.save(value),
        "reload": lambda session, value, conf, key, name: session.reload(conf),
        "accept-all": lambda session, value, conf, key, name: session.accept_all(value),
        "label-conf": lambda session, value, conf, key, name: session.suggest(value, conf),
        "add-class": lambda session, value, conf, key, name: session.add_class(name, value),
        "new-class": lambda session, value, conf, key, name: session.add_class(name, value),
    }

    def handle(
        session: LabelSession, value: Any, conf: float, key: str, name: str, event: gr.EventData
    ) -> list[Any]:
        before = session.shown
        try:
            actions[event.target.elem_id](session, value, conf, key, name)
        except UserError as error:
            gr.Warning(html.escape(str(error)))
            if session.shown is before:  # the editor stays as it is
                opened = gr.Dropdown(value=session.opened.key if session.opened else None)
                return [session, gr.skip(), opened, *(gr.skip() for _ in outputs[3:])]
        return show(session)

    def start(conf: float) -> list[Any]:
        session = LabelSession(labeling)
        session.move(1, None, conf)
        return show(session)

    buttons = (following, previous, save, reload, accept_all, add)
    triggers = [*(one.click for one in buttons), conf.release, images.input, name.submit]
    for done in (
        page.load(start, conf, outputs, **_EVENT),
        gr.on(triggers, handle, [state, editor, conf, images, name], outputs, trigger_mode="once", **_EVENT),
    ):
        done.then(None, js="() => labelKeys.deselect()")


def _describe_training(labeling: Labeling) -> str:
    folder = shlex.quote(str(labeling.folder.root))
    return f"python data.py check --data {folder}\npython train.py --data {folder} --epochs 50"
