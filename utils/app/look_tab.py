"""The Look tab of the page: layout and events; what they do is in look_session.py."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from utils.app.look_session import Looking, LookSession
from utils.cli.app_config import MOST_WEIGHTS, AppConfig
from utils.cli.errors import UserError
from utils.cli.predict_config import PredictConfig
from utils.data.folder_walk import IMAGE_SUFFIXES

_ALL = "all classes"
_EVENT = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "look"}
_LEGEND = "White: the objects. Green: right, orange: a false alarm, red: missed, gray: does not count."


def build_look_tab(looking: Looking, config: AppConfig) -> None:
    """Add the components and events of the tab to the page that is laid out."""
    state = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            drop = gr.File(
                file_count="multiple",
                file_types=list(IMAGE_SUFFIXES),
                label="Drop images",
                height=120,
                elem_id="drop",
            )
            with gr.Accordion("Webcam or clipboard", open=False):
                camera = gr.Image(sources=["webcam", "clipboard"], type="filepath", image_mode=None)
            images = gr.Dropdown(list(looking.samples), value=None, label="Image", elem_id="look-image")
            weights = gr.Dropdown(
                list(looking.weights),
                value=list(config.weights),
                multiselect=True,
                max_choices=MOST_WEIGHTS,
                allow_custom_value=True,
                label=f"Weights (up to {MOST_WEIGHTS})",
                info="or type the path of a file, and Enter",
                elem_id="look-weights",
            )
            conf = gr.Slider(0.01, 1, PredictConfig.conf, step=0.01, label="Score from", elem_id="look-conf")
            nms_iou = gr.Slider(0, 1, PredictConfig.nms_iou, step=0.01, label="Overlap (NMS IoU) up to")
            truth = gr.Checkbox(True, label="Ground truth", info=_LEGEND, visible=config.data is not None)
            attention = gr.Checkbox(False, label="Attention maps", elem_id="attention")
            heat = gr.Checkbox(False, label="Heat map of what raises the scores", elem_id="heat")
            heat_class = gr.Dropdown(
                [_ALL], value=_ALL, label="Heat map of the class", allow_custom_value=True
            )
            download = gr.DownloadButton("JSON", size="sm", elem_id="look-json")
        with gr.Column(scale=4):
            message = gr.HTML(elem_id="look-message")
            panels = []
            with gr.Row():
                for number in range(MOST_WEIGHTS):
                    with gr.Column(visible=False, min_width=280) as column:
                        # Its own label would hide a corner of the image.
                        picture = {"format": "jpeg", "interactive": False, "show_label": False}
                        picture["buttons"] = ["download", "fullscreen"]  # none to share
                        boxes = gr.Image(elem_id=f"boxes-{number}", **picture)
                        about = gr.HTML(elem_id=f"found-{number}")
                        gates = gr.Image(visible=False, elem_id=f"gates-{number}", **picture)
                        warmth = gr.Image(visible=False, elem_id=f"heat-{number}", **picture)
                    panels.append((column, boxes, about, gates, warmth))
            table = gr.Dataframe(interactive=False, label="What they found", elem_id="table", wrap=True)

    boxes_out = [part for panel in panels for part in panel[:3]]
    maps_out = [part for panel in panels for part in panel[3:]]

    def show_boxes(session: LookSession | None, conf: float, nms_iou: float, truth: bool) -> list[Any]:
        """Return what the thresholds change: boxes, lines, table and JSON."""
        if session is None:
            return [gr.skip()] * (len(boxes_out) + 2)
        values: list[Any] = []
        for one in session.looks:
            drawn, line = session.panel(one, conf, nms_iou, truth)
            text = f"<b>{html.escape(one.name)}</b><br>{html.escape(line)}"
            values += [gr.Column(visible=True), drawn, text]
        values += [gr.Column(visible=False), None, ""] * (MOST_WEIGHTS - len(session.looks))
        headers, rows = session.table(conf, nms_iou)
        return [*values, {"headers": headers, "data": rows}, session.write_json(conf, nms_iou)]

    def show_maps(
        session: LookSession | None, conf: float, nms_iou: float, attention: bool, heat: bool, name: str
    ) -> list[Any]:
        """Return the attention maps and heat maps that are asked for."""
        values: list[Any] = []
        for one in session.looks if session else ():
            found: list[Any] = [None, None]
            try:
                if session and attention:
                    found[0] = session.gates(one)
                if session and heat:
                    found[1] = session.heat(one, conf, nms_iou, None if name == _ALL else name)
            except UserError as error:
                gr.Warning(html.escape(f"{one.name}: {error}"))
            values += [gr.Image(image, visible=image is not None) for image in found]
        return [*values, *[gr.Image(None, visible=False)] * (len(maps_out) - len(values))]

    def opening(choose: Callable[..., str | None]) -> Callable[..., list[Any]]:
        """Return a handler that opens the image that `choose` names and runs the weights on it."""

        def handle(session: LookSession | None, chosen: list[str], given: Any) -> list[Any]:
            session = session or LookSession(looking)
            try:
                if (name := choose(session, given)) is not None:
                    session.open(name)
                session.run(chosen)
            except UserError as error:
                session.problems = [str(error)]
            classes = list(dict.fromkeys(n for one in session.looks for n in one.predictor.class_names))
            lines = "<br>".join(map(html.escape, session.problems))
            image = gr.Dropdown(session.names(), value=session.name or None)
            return [session, image, lines, gr.Dropdown([_ALL, *classes])]

        return handle

    def add_files(session: LookSession, paths: list[str] | str | None) -> str | None:
        for path in [paths] if isinstance(paths, str) else paths or []:
            session.dropped[Path(path).name] = Path(path)
        return next(reversed(session.dropped), None) if paths else None

    thresholds, maps = [conf, nms_iou], [attention, heat, heat_class]
    for trigger, choose, given in (
        (drop.upload, add_files, drop),
        (camera.input, add_files, camera),
        (images.input, lambda session, name: name, images),
        (weights.change, lambda session, _: None, weights),
    ):
        done = trigger(
            opening(choose), [state, weights, given], [state, images, message, heat_class], **_EVENT
        )
        shown = done.then(show_boxes, [state, *thresholds, truth], [*boxes_out, table, download], **_EVENT)
        shown.then(show_maps, [state, *thresholds, *maps], maps_out, **_EVENT)
    for slider in (conf.input, nms_iou.input, truth.input):
        slider(
            show_boxes,
            [state, *thresholds, truth],
            [*boxes_out, table, download],
            trigger_mode="always_last",
            **_EVENT,
        )
    for change in (conf.release, nms_iou.release, attention.input, heat.input, heat_class.input):
        change(show_maps, [state, *thresholds, *maps], maps_out, trigger_mode="always_last", **_EVENT)
