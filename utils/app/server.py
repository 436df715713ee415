"""The server of the page: for this computer only, without a request to any other."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import webbrowser
from pathlib import Path

import gradio as gr
from gradio import routes

from utils.app.label import LOWEST_SCORE, LabelFolder
from utils.app.label_session import Labeling
from utils.app.label_tab import build_label_tab
from utils.app.look_session import Looking
from utils.app.look_tab import build_look_tab
from utils.cli.app_config import HOST, AppConfig
from utils.cli.console import log
from utils.cli.errors import Interrupted
from utils.inference.predictor import Predictor

_TITLE = "YOLOv4-tiny"
_CSS = """
#classes span { margin-right: 1em; white-space: nowrap; }
#classes i { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.3em; }
#editor button[aria-label^="Rotate"] { display: none; }
footer { display: none !important; }
"""
_SCRIPT = Path(__file__).with_name("keys.js")

routes.print = lambda *_: None  # it prints a line for each file of the editor's code


def serve(config: AppConfig) -> int:
    """Serve the page until a signal.

    Raises:
        UserError: a folder has no images or none of the layouts.
        Interrupted: the signal.
    """
    with tempfile.TemporaryDirectory(prefix="page-") as temporary:
        os.environ["GRADIO_TEMP_DIR"] = temporary  # uploads, and images as the browser gets them
        looking, labeling = Looking(config, Path(temporary)), None
        if config.label is not None:
            labeling = Labeling(LabelFolder(config.label), lambda: _load(config), Path(temporary))
        stopped = threading.Event()
        page = build_page(config, looking, labeling)
        page.launch(
            server_name=HOST,
            server_port=config.port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            max_file_size="100mb",
            css=_CSS,
            head=f"<script>{_SCRIPT.read_text(encoding='utf-8')}</script>",
        )
        address = f"http://{HOST}:{config.port}"
        print(f"page: {address}", flush=True)
        log("Ctrl-C stops it")
        ranking = threading.Thread(target=labeling.rank, args=(stopped.is_set,)) if labeling else None
        try:
            if ranking:
                ranking.start()
            if config.browser:
                webbrowser.open(address)
            while True:
                time.sleep(1)
        except Interrupted as stop:
            raise Interrupted(stop.number, "the page is closed") from None
        finally:
            stopped.set()
            page.close(verbose=False)
            if ranking:
                ranking.join()


def build_page(config: AppConfig, looking: Looking, labeling: Labeling | None) -> gr.Blocks:
    """Lay out the page; the Label tab, if there is one, is open."""
    page = gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(300, 3600), fill_width=True)
    with page, gr.Tabs(selected="look" if labeling is None else "label"):
        with gr.Tab("Look", id="look"):
            build_look_tab(looking, config)
        if labeling is not None:
            with gr.Tab("Label", id="label"):
                build_label_tab(page, labeling)
    return page


def _load(config: AppConfig) -> Predictor:
    return Predictor.from_checkpoint(
        config.weights[0], device=config.device, input_size=config.imgsz, conf=LOWEST_SCORE
    )
