"""Prefetching in threads, and batching."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], *, depth: int) -> Iterator[Result]:
    """Yield function(item) in the order of the items, computed in two threads ahead of the caller.

    At most `depth` items are taken ahead, which bounds the memory. An exception is raised where the result
    would have been yielded.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(2)  # decoding and resizing images release the GIL
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
