"""Ctrl-C: an orderly end where the reactor runs, else one line, or none; never a traceback.

Rule: what does not have Python's own handler of SIGINT keeps what it has.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, MethodType
from typing import Any, NoReturn

IMPORTING = "<frozen importlib"
"""The file of what imports."""

_title = "fastway"


@contextmanager
def caught(title: str, ends: bool) -> Iterator[None]:
    """Within it Ctrl-C is a KeyboardInterrupt; but while something is imported the process ends
    at once: an import may swallow that, and Python then prints it.

    Args:
        title: What the line begins with.
        ends: The process is to end behind it; Ctrl-C is silent then.
    """
    global _title
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _title = title
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupted:
            last = signal.SIG_DFL if ends else signal.default_int_handler
            signal.signal(signal.SIGINT, last)


def stops(reactor: Any) -> None:
    """From now on the first Ctrl-C stops the reactor, also one that does not run yet; another
    ends the process at once.

    What starts in a Deferred, or in the reactor's start, would swallow a KeyboardInterrupt.
    """
    asked = False

    def stop(reactor: Any, number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            _end()
        asked = True
        reactor.callFromThread(reactor.sigInt, number)

    if signal.getsignal(signal.SIGINT) is _interrupted:
        # Its own, as `fastway.ops.signals` sees it.
        signal.signal(signal.SIGINT, MethodType(stop, reactor))


def _interrupted(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> NoReturn:
    os.write(2, f"{_title}: interrupted\n".encode("ascii", "replace"))
    os._exit(1)
