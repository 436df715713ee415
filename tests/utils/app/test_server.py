"""What the server refuses, without a browser: needs requirements-app.txt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio")
pytest.importorskip("gradio_image_annotation")

OWN = "http://127.0.0.1:7860"


@pytest.mark.parametrize("path", ["https://example.com/x.jpg", "/etc/passwd", "{}/../x.jpg"])
def test_a_file_that_is_no_upload_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from utils.app.server import _Page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with _Page() as page:
        gr.File().upload(len, gr.File(file_count="multiple"), gr.Textbox())
    file = {"path": path.format(tmp_path), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gr.Error, match="reload the page"):
        asyncio.run(page.process_api(0, [[file]]))


@pytest.mark.parametrize(
    ("origin", "is_answered"),
    [
        (None, True),
        (OWN, True),
        ("https://other.example", False),
        ("http://localhost:3000", False),
        ("null", False),
    ],
)
def test_another_site_is_refused(origin: str | None, is_answered: bool):
    from utils.app.server import _OwnPagesOnly

    async def answer(scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    sent: list[dict] = []
    headers = {"host": "127.0.0.1:7860"} | ({"origin": origin} if origin else {})
    scope = {"type": "http", "headers": [(a.encode(), b.encode()) for a, b in headers.items()]}
    asyncio.run(_OwnPagesOnly(answer)(scope, None, send))
    assert sent[0]["status"] == (200 if is_answered else 403)


@pytest.mark.parametrize("before", ["", "corp.example"])
def test_a_proxy_is_not_asked_for_the_page(before: str, monkeypatch: pytest.MonkeyPatch):
    import importlib
    import urllib.request

    import utils.app

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before if name == "NO_PROXY" else "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    importlib.reload(utils.app)
    assert urllib.request.proxy_bypass("127.0.0.1:7860")
    assert not before or urllib.request.proxy_bypass(before)
    assert not urllib.request.proxy_bypass("example.com")
