"""Requests to stop by a signal, as on a preempted node. The training loop reads them between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A request to stop by a signal. It is true after a signal was received.

    Attributes:
        signal: the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}" if self.signal else "stopped by a signal to another process"

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record the first SIGTERM or Ctrl-C instead of acting on it. A second signal has its usual effect at once.

    Only the main thread receives signals. In another thread, nothing is recorded.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
