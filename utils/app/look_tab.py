"""The Look tab of the page: layout and events; what they do is in look.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from utils.app.editor import to_html
from utils.app.offer import Offer
from utils.cli.app_config import MOST_WEIGHTS
from utils.cli.errors import UserError
from utils.cli.files import as_utf8
from utils.cli.predict_config import PredictConfig
from utils.data.folder_walk import IMAGE_SUFFIXES

_ALL = "all classes"
_EVENT = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "look"}
_LEGEND = "White: the objects. Green: right, orange: a false alarm, red: missed, gray: does not count."
# Its own label would hide a corner of the image. No button to share.
_PICTURE = dict(format="jpeg", interactive=False, show_label=False, buttons=["download", "fullscreen"])


def build_look_tab(offer: Offer, import_look: Callable[[], ModuleType]) -> None:
    """Add the components and events of the tab to the page that is laid out; see `serve`."""
    state = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            types = list(IMAGE_SUFFIXES)
            drop = gr.File(
                file_count="multiple", file_types=types, label="Drop images", height=120, elem_id="drop"
            )
            with gr.Accordion("Webcam or clipboard", open=False):
                camera = gr.Image(
                    sources=["webcam", "clipboard"], type="filepath", image_mode=None, elem_id="camera"
                )
            images = gr.Dropdown(list(offer.samples), value=None, label="Image", elem_id="look-image")
            weights = gr.Dropdown(
                list(offer.weights),
                value=[*map(as_utf8, offer.config.weights)],
                multiselect=True,
                allow_custom_value=True,
                label=f"Weights (up to {MOST_WEIGHTS})",
                info="or type the path of a file, and Enter",
                elem_id="look-weights",
            )
            conf = gr.Slider(0.01, 1, PredictConfig.conf, step=0.01, label="Score from", elem_id="look-conf")
            nms_iou = gr.Slider(0, 1, PredictConfig.nms_iou, step=0.01, label="Overlap (NMS IoU) up to")
            truth = gr.Checkbox(True, label="Ground truth", info=_LEGEND, visible=bool(offer.samples))
            attention = gr.Checkbox(False, label="Attention maps", elem_id="attention")
            heat = gr.Checkbox(False, label="Heat map of what raises the scores", elem_id="heat")
            heat_class = gr.Dropdown(
                [_ALL], value=_ALL, label="Heat map of the class", allow_custom_value=True
            )
            download = gr.DownloadButton("JSON", size="sm", elem_id="look-json")
        with gr.Column(scale=4):
            message = gr.HTML(elem_id="look-message")
            boxes_out: list[Any] = []
            maps_out: list[Any] = []
            with gr.Row():
                for number in range(MOST_WEIGHTS):
                    with gr.Column(visible=False, min_width=280) as column:
                        drawn = gr.Image(elem_id=f"boxes-{number}", **_PICTURE)
                        boxes_out += [column, drawn, gr.HTML(elem_id=f"found-{number}")]
                        maps_out += [
                            gr.Image(visible=False, elem_id=f"{kind}-{number}", **_PICTURE)
                            for kind in ("gates", "heat")
                        ]
                        maps_out.append(gr.HTML(visible=False, elem_id=f"no-map-{number}"))
            table = gr.Dataframe(interactive=False, label="What they found", elem_id="table", wrap=True)

    def open_image(
        session: Any, files: Any, photo: Any, name: Any, chosen: list[str], event: gr.EventData
    ) -> list[Any]:
        """Open what was dropped or chosen, if anything, and run the weights on it."""
        session = session or import_look().LookSession(offer)
        dropped = {"drop": files or [], "camera": [photo] if photo else []}.get(event.target.elem_id, [])
        for path in map(Path, dropped):
            name = session.drop(path)
        if name and (dropped or event.target.elem_id == "look-image"):
            session.open(name)
        session.run(chosen)
        classes = dict.fromkeys(own for one in session.looks for own in one.predictor.class_names)
        shown = gr.Dropdown(session.names(), value=session.name or None)
        lines = "<br>".join(map(to_html, session.faults + session.problems))
        return [session, shown, lines, gr.Dropdown([_ALL, *classes])]

    def show_boxes(session: Any, conf: float, nms_iou: float, truth: bool) -> list[Any]:
        """Return what the thresholds change: boxes, lines, table and JSON."""
        if session is None:
            return [gr.skip()] * (len(boxes_out) + 2)
        found = [one.detections(conf, nms_iou) for one in session.looks]
        values: list[Any] = []
        for one, detections in zip(session.looks, found, strict=True):
            drawn, line = session.draw(one, detections, truth)
            text = f"<b>{to_html(one.name)}</b><br>{to_html(line)}"
            values += [gr.Column(visible=True), drawn, text]
        values += [gr.Column(visible=False), None, ""] * (MOST_WEIGHTS - len(found))
        names = [one.name for one in session.looks]
        rows = import_look().compare_detections(names, found)
        data = session.write_json(found).encode("utf-8")
        file = save_bytes_to_cache(data, "detections.jsonl", os.environ["GRADIO_TEMP_DIR"])
        return [*values, {"headers": ["difference", "lowest IoU", *names], "data": rows}, file]

    def show_maps(
        session: Any, conf: float, nms_iou: float, attention: bool, heat: bool, name: str
    ) -> list[Any]:
        """Return the attention maps and heat maps that are asked for, and why there are none."""
        values: list[Any] = []
        for one in session.looks if session else ():
            found, reasons = one.detections(conf, nms_iou), []
            draw_heat = partial(one.heat_map, found, None if name == _ALL else name)
            for is_wanted, draw in ((attention, one.attention_maps), (heat, draw_heat)):
                image = None
                try:
                    image = draw() if is_wanted else None
                except UserError as error:
                    reasons.append(to_html(str(error)))
                values.append(gr.Image(image, visible=image is not None))
            values.append(gr.HTML("<br>".join(reasons), visible=bool(reasons)))
        nothing = [gr.Image(None, visible=False)] * 2 + [gr.HTML(visible=False)]
        return values + nothing * ((len(maps_out) - len(values)) // len(nothing))

    boxes = show_boxes, [state, conf, nms_iou, truth], [*boxes_out, table, download]
    maps = show_maps, [state, conf, nms_iou, attention, heat, heat_class], maps_out
    opened = gr.on(
        [drop.upload, camera.input, images.input, weights.change],
        open_image,
        [state, drop, camera, images, weights],
        [state, images, message, heat_class],
        **_EVENT,
    )
    opened.then(*boxes, **_EVENT).then(*maps, **_EVENT)
    moved, chosen = [conf.input, nms_iou.input, truth.input], [attention.input, heat.input, heat_class.input]
    gr.on(moved, *boxes, trigger_mode="always_last", **_EVENT)
    gr.on([conf.release, nms_iou.release, *chosen], *maps, trigger_mode="always_last", **_EVENT)
