from __future__ import annotations

import threading

import pytest

from utils.inference.prefetch import batched, prefetch


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert list(prefetch(lambda n: n * n, range(count), depth=4)) == [n * n for n in range(count)]


def test_no_more_items_are_taken_than_depth() -> None:
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = prefetch(lambda n: n, items(), depth=5)
    assert next(results) == 0
    assert len(taken) <= 6
    results.close()


def test_an_exception_comes_where_its_result_would() -> None:
    results = prefetch(lambda n: 1 // n, [1, 0, 1], depth=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_it_works_in_other_threads() -> None:
    names = set(prefetch(lambda _: threading.current_thread().name, range(10), depth=4))
    assert threading.current_thread().name not in names


@pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [[0, 1]]), (5, [[0, 1], [2, 3], [4]])])
def test_batched(count: int, expected: list[list[int]]) -> None:
    assert list(batched(range(count), 2)) == expected
