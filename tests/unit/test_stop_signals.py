"""A signal stops a process whatever its main thread is doing."""

import signal

import pytest

from infra.app.stop_signals import stop_at


@pytest.mark.timeout(20)
def test_a_signal_that_comes_inside_a_wait_for_the_stop_is_no_deadlock() -> None:
    """`Event.wait` holds the event's lock for moments; here it is held when the signal comes."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        stop = stop_at(signal.SIGUSR1)
        with stop._cond:  # type: ignore[attr-defined]  # of the standard library's class
            signal.raise_signal(signal.SIGUSR1)
            assert not stop.is_set()
        assert stop.wait(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
