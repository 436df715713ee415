"""Sources opened one after the other: pictures that follow each other together, each video by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from utils.cli.errors import UserError
from utils.inference.frames import Failures, Pictures
from utils.inference.live import Live
from utils.inference.sources import Source
from utils.inference.video import Video

Stream = Pictures | Video | Live


def open_streams(sources: Sequence[Source], failures: Failures) -> Iterator[Stream]:
    """Yield what gives frames, in the order of the sources, each open until the next is asked for.

    Args:
        sources: what to look at.
        failures: takes what cannot be opened.
    """
    for is_image, group in groupby(sources, key=lambda source: source.kind == "image"):
        if is_image:
            yield Pictures([source.path for source in group], failures)
            continue
        for source in group:
            try:
                opened = Video(source) if source.kind == "video" else Live(source)
            except UserError as error:
                failures.add(error)
                continue
            with opened:
                yield opened
