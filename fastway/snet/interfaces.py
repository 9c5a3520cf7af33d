"""What a transport that survives broken connections offers, and what its protocol may hear.

Rule: interfaces only, so that whoever asks `providedBy` imports nothing of snet.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IResumableTransport(Interface):
    """A transport that goes on after its connection broke."""

    cut_since = Attribute(
        "When its connection broke, in its clock's seconds; None while it has one."
    )
    acked = Attribute("Bytes that the peer's host has; None where nobody tells.")
    replayable = Attribute("Bytes kept to be sent again.")
    pending = Attribute("Bytes that wait for a connection, or for room in it.")
    unread = Attribute("Bytes that came and wait for the protocol to read on.")

    def resume_now() -> None:
        """Give up the connection in use, which may be dead, and get a new one at once.

        While it is cut, an attempt that hangs is given up for a new one. However often it is
        called, that makes one attempt a second. Only the dialling side can; the other one waits
        to be come back to.
        """


class IBounded(Interface):
    """A factory that takes only so many protocols at a time, and a newcomer rather than one whose
    stream is cut.

    It is asked before each new stream. When it is full, the stream that was cut longest is lost:
    its protocol's connectionLost is called, then the newcomer's buildProtocol.
    """

    full = Attribute("Whether it would turn the next one away.")


class IResumableProtocol(Interface):
    """A protocol that wants to know what happens to its resumable transport."""

    def stream_cut() -> None:
        """The connection broke. What is written from now on waits; nothing comes."""

    def stream_resumed(seconds: float, replayed: int) -> None:
        """There is a new connection; `transport.getPeer()` is its other end.

        Args:
            seconds: How long there was none.
            replayed: Bytes that were sent again.
        """
