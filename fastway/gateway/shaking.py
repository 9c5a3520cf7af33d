"""Steps of TLS handshakes on the core's thread for them, so that who is in does not wait.

Rule: a connection that was given away is nobody else's until it is back. All that Python says and
counts of a handshake stays on the reactor's thread. The other begins with the first step, and ends
with the service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.gateway.tls import Shaken, TlsHandshake
from fastway.relay import _core, openssl

SHAKEN_TURN = 4
"""Steps that are taken back in one turn: a link that is let in costs some 50 µs."""


@implementer(IReadDescriptor)
class Shaking:
    """What `tls.Elsewhere` says. It is in the reactor while it has steps; of each handshake of a
    port there is one at most, and `max_handshakes` bounds those.

    Args:
        reactor: Any with readers.
        settle: Called when some were taken back: what they caused is written.
    """

    def __init__(self, reactor: Any, settle: Callable[[], object]) -> None:
        self._reactor = reactor
        self._settle = settle
        self._shaker = _core.Shaker(*openssl.library())
        self._steps = 0

    def begins(self, connection: Any) -> None:
        openssl.stop_at_choice(connection)

    def give(self, handshake: TlsHandshake, connection: Any, data: bytes) -> bool:
        if not self._shaker.give(handshake, *openssl.objects_of(connection), data):
            openssl.pass_choice(connection)
            return False
        self._steps += 1
        if self._steps == 1:
            self._reactor.addReader(self)
        return True

    def drop(self, handshake: TlsHandshake) -> None:
        if self._shaker.drop(handshake):
            self._is_less()

    def stop(self) -> None:
        """End the thread, after the step that is under way; with another one it begins anew."""
        self._shaker.stop()
        while self._take():
            pass

    # What the reactor calls.

    def fileno(self) -> int:
        return self._shaker.fileno()

    def logPrefix(self) -> str:
        return "fastway.relay"

    def doRead(self) -> None:
        for _ in range(SHAKEN_TURN):
            if not self._take():
                break
        self._settle()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; the links' own ends come first."""

    def _take(self) -> bool:
        taken = self._shaker.take()
        if taken is None:
            return False
        self._is_less()
        handshake, end, used, answer, errors = taken
        error = cast(SSL.Error, openssl.error_of(errors)) if end == _core.FAILED else None
        handshake.shaken(Shaken(end == _core.DONE, answer, error), used)
        return True

    def _is_less(self) -> None:
        self._steps -= 1
        if not self._steps:
            self._reactor.removeReader(self)
