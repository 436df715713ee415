"""The server of the page: for this computer only, without a request to any other."""

from __future__ import annotations

import os
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio import routes
from gradio_client.utils import is_file_obj_with_meta, traverse
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from utils.app.label import LabelFolder
from utils.app.label_tab import RESTARTED, build_label_tab
from utils.app.look_tab import build_look_tab
from utils.app.offer import Offer
from utils.cli.app_config import HOST, AppConfig
from utils.cli.console import log
from utils.cli.errors import Interrupted, UserError

if TYPE_CHECKING:  # it needs torch, which is imported when the page is up
    from utils.inference.predictor import Predictor

_TITLE = "YOLOv4-tiny"
_CSS = """
#classes span { margin-right: 1em; white-space: nowrap; }
#classes i { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.3em; }
#editor button[aria-label^="Rotate"] { display: none; }
footer { display: none !important; }
"""
_OFF = "share", "run_history", "enable_monitoring", "mcp_server", "ssr_mode", "pwa"
# A page of another site whose name is made to lead to this computer (DNS rebinding) is refused.
_HOSTS_ONLY = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
_DAY = 24 * 3600  # seconds until a file is removed: each move of a slider adds a few
_SCRIPT = Path(__file__).with_name("keys.js")

routes.print = lambda *_: None  # it prints a line for each file of the editor's code


class _OwnPagesOnly:
    """Refuses what a page of another site sends: a browser asks nobody before it posts an upload."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if "headers" in scope else {}
        if headers.get("origin") in (None, f"http://{headers.get('host')}"):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not for other sites", 403)(scope, receive, send)


class _Page(gr.Blocks):
    """Blocks that take no file but uploads: gradio would fetch a URL in the place of a path."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> Any:
        traverse(inputs, _check_upload, is_file_obj_with_meta)
        return await super().process_api(block_fn, inputs, *more, **options)


def _check_upload(file: dict[str, Any]) -> None:
    if not Path(os.path.realpath(file["path"])).is_relative_to(os.environ["GRADIO_TEMP_DIR"]):
        raise gr.Error(RESTARTED, print_exception=False)  # the path is of an earlier server


def serve(config: AppConfig, import_look: Callable[[], ModuleType]) -> int:
    """Serve the page until a signal; `import_look` imports look.py, when the page is up.

    Raises:
        UserError: a folder has no images.
        Interrupted: the signal.
    """

    def load() -> Predictor:
        return import_look().load_predictor(config, config.weights[0])

    offer, label_folder = Offer(config), LabelFolder(config.label, load) if config.label else None
    stopped = threading.Event()

    def prepare() -> None:
        with suppress(UserError):  # shown when the weights are used
            load()
        if label_folder is not None:
            label_folder.rank(stopped.is_set)

    # Uploads, and images as the browser gets them, are in GRADIO_TEMP_DIR, which app.py removes at the end.
    page = _Page(title=_TITLE, analytics_enabled=False, delete_cache=(3600, _DAY), fill_width=True)
    with page, gr.Tabs(selected="look" if label_folder is None else "label"):
        with gr.Tab("Look", id="look"):
            build_look_tab(offer, import_look)
        if label_folder is not None:
            with gr.Tab("Label", id="label"):
                build_label_tab(page, label_folder)
    page.launch(
        server_name=HOST,
        server_port=config.port,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        max_file_size="100mb",
        css=_CSS,
        show_error=True,
        app_kwargs={"middleware": [_HOSTS_ONLY, Middleware(_OwnPagesOnly)]},
        head=f"<script>{_SCRIPT.read_text(encoding='utf-8')}</script>",
        **dict.fromkeys(_OFF, False),
    )
    address = f"http://{HOST}:{config.port}"
    print(f"page: {address}", flush=True)
    log("Ctrl-C stops it")
    worker = threading.Thread(target=prepare)
    try:
        worker.start()
        if config.browser:
            webbrowser.open(address)
        while True:
            time.sleep(1)
    except Interrupted as stop:
        raise Interrupted(stop.number, "the page is closed") from None
    finally:
        stopped.set()
        page.close(verbose=False)
        if worker.is_alive():
            worker.join()
