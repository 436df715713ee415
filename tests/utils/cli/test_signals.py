from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from utils.cli.errors import Interrupted
from utils.cli.signals import StopSignals

NUMBERS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[int, object]]:
    """Give the handlers from before, and hold that a test leaves them."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield before
    left = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert left == before


def send(stop: StopSignals, *numbers: int, check: bool = False) -> None:
    """Send ourselves signals one after the other, deferred if they are to be checked in the end."""
    with stop.deferred() if check else nullcontext():
        for number in numbers:
            signal.raise_signal(number)
        if check:
            stop.check()


def test_without_a_signal_nothing_happens() -> None:
    with StopSignals() as stop:
        with stop.deferred(), stop.at_once():
            stop.check()
        stop.check()
    assert stop.requested is None


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_raised_where_it_comes(number: int) -> None:
    with StopSignals() as stop, pytest.raises(Interrupted) as caught:
        signal.raise_signal(number)
    assert caught.value.number == stop.requested == number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_deferred_signal_is_raised_by_check(number: int) -> None:
    with StopSignals() as stop, stop.deferred():
        signal.raise_signal(number)
        assert stop.requested == number
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.number == number


def test_inside_deferred_a_part_may_be_cut_anywhere() -> None:
    done = []

    def work(stop: StopSignals) -> None:
        with stop.deferred():
            with stop.at_once():
                done.append("evaluated")
            signal.raise_signal(signal.SIGTERM)
            done.append("deferred again")
            with stop.at_once():
                done.append("too late: what came before is raised on entering")

    with StopSignals() as stop, pytest.raises(Interrupted):
        work(stop)
    assert done == ["evaluated", "deferred again"]


def test_in_a_part_that_may_be_cut_a_signal_raises() -> None:
    with StopSignals() as stop, stop.deferred(), pytest.raises(Interrupted), stop.at_once():
        signal.raise_signal(signal.SIGTERM)


def test_an_error_inside_ends_deferring() -> None:
    with StopSignals() as stop:
        with pytest.raises(ValueError, match="ours"), stop.deferred(), stop.at_once():
            raise ValueError("ours")
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_check_takes_the_signal_of_another_process() -> None:
    with StopSignals() as stop:
        stop.check(0)
        with pytest.raises(Interrupted) as caught:
            stop.check(signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            stop.check(0)  # from then on it is this process's own


@pytest.mark.parametrize("deferred", [True, False])
def test_a_second_signal_ends_the_program(deferred: bool) -> None:
    with StopSignals() as stop:
        if not deferred:
            with pytest.raises(Interrupted):
                send(stop, signal.SIGINT)
        with pytest.raises(SystemExit) as caught:
            send(stop, *([signal.SIGINT] if deferred else []), signal.SIGTERM, check=deferred)
    assert caught.value.code == 128 + signal.SIGTERM
    assert stop.requested == signal.SIGINT


def test_where_signals_come_twice_the_second_is_no_end() -> None:
    with StopSignals(repeats_end=False) as stop:
        with pytest.raises(Interrupted) as caught:
            send(stop, signal.SIGINT, signal.SIGTERM, check=True)
        signal.raise_signal(signal.SIGTERM)  # while the run is saved
    assert caught.value.number == signal.SIGINT


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_what_was_ignored_stays_ignored(handlers: dict[int, object]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == stop._handle
    assert stop.requested is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, handlers[signal.SIGHUP])


def test_the_handlers_from_before_come_back_after_an_error(handlers: dict[int, object]) -> None:
    with pytest.raises(ValueError, match="ours"), StopSignals():
        raise ValueError("ours")
    with StopSignals():
        assert all(signal.getsignal(number) != handler for number, handler in handlers.items())
    assert {number: signal.getsignal(number) for number in NUMBERS} == handlers


def test_in_a_thread_there_are_no_handlers_but_no_error_either(handlers: dict[int, object]) -> None:
    seen = []

    def work() -> None:
        with StopSignals() as stop, stop.deferred():
            stop.check()
            seen.append({number: signal.getsignal(number) for number in NUMBERS})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handlers]


def test_interruptible_gives_what_there_is() -> None:
    with StopSignals() as stop, stop.deferred():
        assert list(stop.interruptible([])) == []
        assert list(stop.interruptible("abc")) == ["a", "b", "c"]


def test_the_work_on_an_item_is_finished_before_a_signal_ends_it() -> None:
    done = []

    def work(stop: StopSignals) -> None:
        for item in stop.interruptible("abc"):
            signal.raise_signal(signal.SIGTERM)
            done.append(item)

    with StopSignals() as stop, stop.deferred(), pytest.raises(Interrupted):
        work(stop)
    assert done == ["a"]


def test_waiting_for_an_item_is_ended_at_once() -> None:
    done = []

    def items() -> Iterator[str]:
        yield "a"
        signal.raise_signal(signal.SIGTERM)
        yield "b"

    with StopSignals() as stop, stop.deferred(), pytest.raises(Interrupted):
        done += stop.interruptible(items())
    assert done == ["a"]
