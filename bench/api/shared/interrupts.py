"""What ends a command from outside: Ctrl-C, and SIGTERM from a scheduler or a container."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within, SIGTERM does what Ctrl-C does, unless it has been given another meaning."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    with _handling(signal.SIGTERM, signal.default_int_handler):
        yield


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Afterwards SIGTERM does what it did before, whatever a library has done to it within."""
    before = signal.getsignal(signal.SIGTERM)
    if not _is_main_thread() or before is None:  # it was not set by Python
        yield
        return
    with _handling(signal.SIGTERM, before):
        yield


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Within, processes are started that no Ctrl-C reaches: who started them ends them."""
    if not _is_main_thread():
        yield
        return
    with _handling(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _handling(number: signal.Signals, handler: "signal._HANDLER") -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()  # no other may set handlers
