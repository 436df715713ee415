"""Working ahead: the next pictures are read while the network looks at this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 2, ahead: int = 16
) -> Iterator[Result]:
    """Yield function(item) in the order of the items, computed in threads a little ahead of the caller.

    Args:
        function: what to do; an exception is raised where its result would have been yielded.
        items: taken one by one, never more than `ahead` before their results are wanted.
        workers: number of threads; what decodes and resizes pictures lets them run side by side.
        ahead: most results that wait, which bounds the memory.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, ahead))
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
