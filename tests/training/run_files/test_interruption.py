"""The first signal is recorded; the second one acts."""

import os
import signal
import threading

import pytest

from c2l_models.training.run_files.interruption import stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_acts(number):
    before = signal.getsignal(number)
    came = []
    signal.signal(number, lambda *_: came.append(number))
    try:
        with stop_requests() as request:
            assert not request
            os.kill(os.getpid(), number)
            assert request
            assert not came
            assert str(request) == f"stopped by {signal.Signals(number).name}"
            os.kill(os.getpid(), number)
            assert came == [number]
        assert signal.getsignal(number) is not before  # the handler before the context is restored
        os.kill(os.getpid(), number)
        assert came == [number, number]
    finally:
        signal.signal(number, before)


def test_nothing_is_left_behind():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop_requests():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_another_thread_runs_without():
    """Outside the main thread, as in a notebook's worker, no signal arrives."""
    seen = []

    def work():
        with stop_requests() as request:
            seen.append(bool(request))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
