"""The page in a browser, as a user sees it: needs requirements-app.txt, Playwright and Chromium."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch

import data
import train
from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.app.editor import SUGGESTION
from utils.data.demo import draw_sample
from utils.data.voc_xml import VocObject, read_annotation, write_annotation
from utils.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("gradio", "gradio_image_annotation", "playwright")
MISSING = [name for name in NEEDED if find_spec(name) is None]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium installed"),
]
WAIT = 120_000  # milliseconds, for a machine with much to do
# Imported by the server's Python at its start: it notes and refuses what would leave this computer.
BLOCK = """
import socket
connect, find = socket.socket.connect, socket.getaddrinfo
def refuse(host):
    if str(host) not in ("127.0.0.1", "localhost", "::1", "None", "b'127.0.0.1'"):
        open("requests.txt", "a").write(f"{host}\\n")
        raise OSError(f"{host} is outside")
def checked_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        refuse(address[0])
    return connect(self, address)
def checked_find(host, *more, **options):
    refuse(host)
    return find(host, *more, **options)
socket.socket.connect, socket.getaddrinfo = checked_connect, checked_find
"""
CAR = (46, 255, 166, 297)  # what the bundled weights find in the first image, about
CAR_EDGE, NEW_EDGE = (46, 270), (300, 100)  # pixels of the left edges of two boxes


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images to label, one of them broken, weights with attention, and the blocked sockets."""
    room = tmp_path_factory.mktemp("page")
    (room / "images").mkdir()
    for name, index in (("a", 4), ("b", 10)):
        image, _ = draw_sample(0, "test", index)
        cv2.imwrite(str(room / f"images/{name}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_annotation(room / "images/b.xml", "b.jpg", 327, 251, [VocObject("balloon", (5, 5, 60, 60))])
    (room / "images/broken.jpg").write_bytes(b"no image")
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, phi="cbam", input_size=(64, 64)))
    save_checkpoint(room / "cbam.pth", Checkpoint(model.config, ("car", "dog"), model.state_dict()))
    (room / "block").mkdir()
    (room / "temporary").mkdir()
    (room / "block/sitecustomize.py").write_text(BLOCK)
    return room


@pytest.fixture(scope="module")
def address(room: Path) -> Iterator[str]:
    """The address of the page, served as a user would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = "--label images --data images --weights voc cbam.pth --no-browser --device cpu --port"
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), *flags.split(), str(port)],
        cwd=room,
        env=os.environ
        | {"PYTHONPATH": str(room / "block"), "OMP_NUM_THREADS": "1", "TMPDIR": str(room / "temporary")}
        | {"http_proxy": "http://127.0.0.1:9"},  # nobody is there
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    yield line.removeprefix("page: ").strip()
    server.terminate()
    assert server.wait(WAIT / 1000) == 143
    assert server.stdout.read() == ""
    assert [path.name for path in (room / "temporary").iterdir() if path.suffix != ".lock"] == []
    assert not (room / "requests.txt").exists(), (room / "requests.txt").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address: str) -> Iterator[Callable]:
    """Open the page in a new tab; all that the tab asks for comes from the server."""
    requests, errors, pages = [], [], []

    def open_one():
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    hosts = {urlsplit(url).netloc for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}
    assert errors == []


def has_text(page, where: str, text: str) -> None:
    page.wait_for_function(
        "([where, text]) => document.querySelector(where)?.innerText.includes(text)", arg=[where, text]
    )


def point(page, x: float, y: float) -> tuple[float, float]:
    """Return where a pixel of the first image is on the page: 444 wide, and shown twice as large."""
    canvas = page.locator("#editor canvas").bounding_box()
    return canvas["x"] + (canvas["width"] - 888) / 2 + 2 * x, canvas["y"] + 2 * y


def press(page, key: str) -> None:
    """Press a key, and wait until the dialog that it may use is closed."""
    page.keyboard.press(key)
    page.locator("#model-box-edit").wait_for(state="detached")


def wait_for_edge(page, edge: tuple[int, int], name: str, is_there: bool = True, timeout: int = WAIT) -> None:
    """Wait until a box's left edge has the color of a class, or of a suggestion, at a pixel, or has not."""
    page.wait_for_function(
        """([[x, y], name, suggestion, is_there]) => {
            const canvas = document.querySelector("#editor canvas");
            if (!canvas?.width) return false;
            const { names, colors } = JSON.parse(document.getElementById("classes").dataset.classes);
            const color = colors[names.indexOf(name)];
            const wanted = color ? [1, 3, 5].map((at) => parseInt(color.substr(at, 2), 16)) : suggestion;
            const left = (canvas.width - 888) / 2 + 2 * x - 4;
            const pixels = canvas.getContext("2d").getImageData(left, 2 * y, 9, 1).data;
            const found = [...pixels.keys()].some((at) =>
                at % 4 === 0 && wanted.every((part, index) => Math.abs(part - pixels[at + index]) < 50));
            return found === is_there;
        }""",
        arg=[edge, name, SUGGESTION, is_there],
        timeout=timeout,
    )


def change_box(page, inside: tuple[int, int], key: str, edge: tuple[int, int], name: str, is_there: bool):
    """Select a box and press a key until its edge shows it: the end of an event selects no box, unseen."""
    from playwright.sync_api import TimeoutError as NotYet

    for _ in range(30):
        page.mouse.click(*point(page, *inside))
        press(page, key)
        with suppress(NotYet):
            return wait_for_edge(page, edge, name, is_there, timeout=WAIT // 30)
    raise AssertionError(f"{key} changes nothing")


def test_look(open_page, room: Path):
    page = open_page()
    page.get_by_role("tab", name="Look").click()
    page.locator("#drop input[type=file]").set_input_files([str(room / "images/a.jpg")])
    has_text(page, "#found-0", "1 car")
    has_text(page, "#found-1", "nothing found")
    has_text(page, "#table", "only voc")
    page.wait_for_function("document.querySelector('#boxes-0 img').naturalWidth === 444")
    before = page.locator("#boxes-0 img").get_attribute("src")
    number = page.locator("#look-conf input[type=number]")
    number.fill("1")
    number.press("Enter")
    has_text(page, "#found-0", "nothing found")
    assert page.locator("#boxes-0 img").get_attribute("src") != before
    number.fill("0.5")
    number.press("Enter")
    has_text(page, "#found-0", "1 car")
    weights = page.locator("#look-weights input")
    weights.fill("./cbam.pth")
    weights.press("Enter")
    has_text(page, "#found-2", "./cbam.pth")
    weights.fill("/etc/passwd")
    weights.press("Enter")
    has_text(page, "#look-message", "/etc/passwd: not below the working folder")
    with page.expect_download() as download:
        page.locator("#look-json").click()
    assert download.value.suggested_filename == "detections.jsonl"
    found = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [(one["weights"], one["path"]) for one in found] == [
        (name, "a.jpg") for name in ("voc", "cbam.pth", "./cbam.pth")
    ]
    page.get_by_label("Attention maps").check()
    page.locator("#gates-1 img").wait_for()
    has_text(page, "#no-map-0", "no attention maps: weights without attention")
    name = page.locator("#look-image input")
    name.fill("b")
    name.press("Enter")
    has_text(page, "#found-0", "0 right, 1 false alarm, 0 missed")  # no balloon is known
    name.fill("broken")
    name.press("Enter")
    has_text(page, "#look-message", "broken.jpg: not an image")


def test_label(open_page, room: Path, monkeypatch: pytest.MonkeyPatch):
    page = open_page()
    has_text(page, "#about", "a.jpg")
    has_text(page, "#progress", "1 of 3 images labelled")
    number = page.locator("#label-conf input[type=number]")
    for score in ("1", "0.25"):
        wait_for_edge(page, CAR_EDGE, "suggestion", score == "1")
        number.fill(score)
        number.press("Enter")
        number.blur()
    wait_for_edge(page, CAR_EDGE, "suggestion")
    change_box(page, (100, 280), "a", CAR_EDGE, "suggestion", False)
    page.wait_for_function("!document.getElementById('editor').inert")
    page.keyboard.press("c")
    page.mouse.move(*point(page, 300, 40))
    page.mouse.down()
    page.mouse.move(*point(page, 340, 70))
    page.mouse.move(*point(page, 400, 120))
    page.mouse.up()
    page.locator("#model-box-edit").wait_for()
    press(page, "1")
    held: list = []
    for answer in (lambda route: route.fulfill(status=500), lambda route: route.continue_()):
        page.route("**/queue/join*", lambda route: held.append(route))
        page.keyboard.press("s")
        page.wait_for_function("document.getElementById('editor').inert")  # a change would be lost
        while not held:
            page.wait_for_timeout(50)
        answer(held.pop())
        page.unroute("**/queue/join*")
        page.wait_for_function("!document.getElementById('editor').inert")
    has_text(page, "#about", "saved 2 objects")
    car, balloon = read_annotation(room / "images/a.xml").objects
    assert (car.name, balloon) == ("car", VocObject("balloon", (300, 40, 400, 120)))
    np.testing.assert_allclose(car.box, CAR, atol=2)
    has_text(page, "#progress", "2 of 3 images labelled")

    page.keyboard.press("d")
    change_box(page, (350, 80), "2", NEW_EDGE, "car", True)
    press(page, "f")
    page.keyboard.press("n")
    has_text(page, "#about", "b.jpg")
    assert read_annotation(room / "images/a.xml").objects == (car, VocObject("car", balloon.box, True))

    name = page.locator("#label-image input")
    name.fill("broken")
    name.press("Enter")
    page.get_by_text("broken.jpg: not an image").first.wait_for()
    page.wait_for_function("document.querySelector('#label-image input').value === 'b'")
    name.fill("a")
    name.press("Enter")
    has_text(page, "#about", "a.jpg")
    wait_for_edge(page, NEW_EDGE, "car")
    change_box(page, (350, 80), "Delete", NEW_EDGE, "car", False)
    write_annotation(room / "images/a.xml", "a.jpg", 444, 297, [car])  # by another program
    page.keyboard.press("s")
    page.get_by_text("changed on disk since it was opened").first.wait_for()
    assert read_annotation(room / "images/a.xml").objects == (car,)
    page.get_by_role("button", name="Reload from disk").click()
    has_text(page, "#about", "reloaded from disk")
    page.keyboard.press("s")
    has_text(page, "#about", "saved 1 object")
    saved = (room / "images/a.xml").read_bytes()
    (room / "images/a.xml").write_text("<annotation>")
    page.get_by_role("button", name="Reload from disk").click()
    page.get_by_text("a.xml: not well-formed XML").first.wait_for()
    page.wait_for_function("!document.querySelector('#about').innerText.includes('saved')")
    (room / "images/a.xml").write_bytes(saved)

    page.get_by_label("New class").fill("kite")
    page.get_by_label("New class").press("Enter")
    has_text(page, "#classes", "kite")

    (room / "images/broken.jpg").unlink()
    monkeypatch.chdir(room)
    assert data.main(["check", "--data", "images"]) == 0
    short = ["--epochs", "1", "--imgsz", "64", "--weights", "none", "--val", "none", "--workers", "0"]
    assert train.main(["--data", "images", "--device", "cpu", "--batch-size", "2", *short]) == 0


def test_files_outside_are_not_served(address: str, room: Path):
    from urllib.error import HTTPError
    from urllib.request import urlopen

    for path in ("/etc/passwd", ROOT / "README.md", room / "cbam.pth", room / "images/a.jpg"):
        with pytest.raises(HTTPError, match=r"40[34]"):
            urlopen(f"{address}/gradio_api/file={path}")


def test_another_site_that_leads_to_this_computer_is_refused(address: str):
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    with urlopen(Request(f"{address}/config", headers={"Host": "localhost:1"})) as answer:
        assert answer.status == 200
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(f"{address}/config", headers={"Host": "other.example:1"}))
