"""Images behind http and https URLs: which URLs are images or videos, and the download of images."""

from __future__ import annotations

import atexit
import base64
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from email.message import Message
from functools import cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from utils.cli.errors import UserError
from utils.data.folder_walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_TIMEOUT = 10.0  # seconds without a byte
_LONGEST = 60.0  # seconds for a download, from the connection to the last byte
MAX_BYTES = 100_000_000
_LIVE_SUFFIXES = (".mjpeg", ".ts")  # of what cameras and television send without end
_ERRORS = (OSError, HTTPException, ValueError)  # ValueError: not a URL
Kind = Literal["image", "video", "live"]
Result = TypeVar("Result")


def probe_url(address: str) -> tuple[Kind, Path | None]:
    """Tell what is behind a URL: by its suffix, else by the header of the server's answer.

    A video has a length, and comes by http or https; all else that is no image is live. An image that was
    asked for is downloaded at once, as a link may work only once; the second value is its temporary copy.

    Raises:
        UserError: it is no URL.
    """
    if not address.lower().startswith(("http://", "https://")):
        return "live", None
    try:
        suffix = PurePosixPath(urlsplit(address).path).suffix.lower()
    except ValueError as error:
        raise UserError(f"{address}: not a URL: {error}") from None
    if suffix in IMAGE_SUFFIXES:
        return "image", None
    if suffix in VIDEO_SUFFIXES:
        return "live" if suffix in _LIVE_SUFFIXES else "video", None
    kind: Kind = "live"

    def is_image(headers: Message) -> bool:
        nonlocal kind
        main = headers.get_content_maintype()
        is_video = main == "video" and "Content-Length" in headers
        kind = "image" if main == "image" else "video" if is_video else "live"
        return main == "image"

    with suppress(UserError, OSError):  # downloading it again says what is wrong
        if data := _fetch(address, address, is_image):
            with tempfile.NamedTemporaryFile(dir=_copies().name, delete=False) as file:
                file.write(data)
            return kind, Path(file.name)
    return kind, None


def download_image(address: str, name: str) -> bytes:
    """Download an image of at most 100 MB in at most 60 seconds; `name` is what an error calls it.

    Raises:
        UserError: it cannot be downloaded, or not within these limits.
    """
    return _fetch(address, name, lambda _: True)


def explain_no_frame(address: str, name: str) -> str:
    """Ask for an http or https URL of which no frame came; return the server's error, or what it sends."""
    types: list[str] = []

    def is_wanted(headers: Message) -> bool:
        types.append(headers.get_content_type())
        return False

    try:
        _fetch(address, name, is_wanted)
    except UserError as error:
        return str(error)
    return f"{name}: no frame came, the server sends {types[0]}; if it is a file, download it first"


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Make the folder of temporary copies, which disappears with the process."""
    folder = tempfile.TemporaryDirectory(prefix="predict-")
    atexit.register(folder.cleanup)
    return folder


def _fetch(address: str, name: str, is_wanted: Callable[[Message], bool]) -> bytes:
    """Return what is behind a URL, nothing if it is not wanted by its header; raises as `download_image`."""
    deadline = time.monotonic() + _LONGEST

    def read() -> bytes:
        data = bytearray()
        with _open(address) as response:
            if not is_wanted(response.headers):
                return b""
            while chunk := response.read1(1 << 16):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise UserError(f"{name}: more than {MAX_BYTES / 1e6:g} MB")
                if time.monotonic() > deadline:
                    raise _too_slow()
        return bytes(data)

    try:
        return _within_limit(read)
    except _ERRORS as error:
        reason = error.reason if isinstance(error, URLError) else error
        code = f"{error.code} " if hasattr(error, "code") else ""
        raise UserError(f"{name}: cannot be downloaded: {code}{reason}") from None


def _within_limit(exchange: Callable[[], Result]) -> Result:
    """Return what an exchange with a server returns; a TimeoutError if it takes over `_LONGEST` seconds.

    The timeout of a socket starts anew with each byte, so the exchange runs in a thread that can be left
    behind.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(exchange())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([future], timeout=_LONGEST).done:
        raise _too_slow()
    return future.result()


def _too_slow() -> TimeoutError:
    return TimeoutError(f"not complete within {_LONGEST:g} seconds")


def _open(address: str) -> HTTPResponse:
    """Request a URL, with the user and password in it."""
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    path, query = (quote(part, safe="/%:;,=&+$!*'()~@?[]") for part in (parts.path, parts.query))
    request = Request(urlunsplit((parts.scheme, host, path, query, "")), headers={"User-Agent": "predict.py"})
    if user:  # not sent to another server that this one redirects to
        secret = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return urlopen(request, timeout=_TIMEOUT)
