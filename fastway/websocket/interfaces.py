"""What a transport of bytes inside a WebSocket offers besides.

Rule: interfaces only, so that whoever asks `providedBy` imports nothing that connects.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IWebSocketTransport(Interface):
    """A transport whose bytes are the messages of a WebSocket."""

    below = Attribute("The transport of its frames.")

    def ends_with(code: int, text: str) -> None:
        """Say that in the Close when it is closed here, in place of 1000."""
