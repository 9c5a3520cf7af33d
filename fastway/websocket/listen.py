"""A port for WebSockets, over any endpoint.

    MessageEndpoint(any_endpoint, Policy("/nano")).listen(factory)

Rule: only for factories that take whole messages, as those of `fastway.app`: they know by
`over_websocket` what to make of a policy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from fastway.errors import LocalError
from fastway.websocket.forwarded import Trusted
from fastway.websocket.request import Policy


@runtime_checkable
class TakesMessages(Protocol):
    """A factory of protocols that speak WebSocket themselves."""

    def over_websocket(self, policy: Policy, trusted: Trusted) -> IProtocolFactory:
        """The factory of a port of WebSockets."""


class NoMessages(LocalError):
    """A factory has no use for the messages of a WebSocket."""

    def __init__(self, factory: object) -> None:
        super().__init__(
            f"{type(factory).__name__} takes a stream of bytes; listen by ws: with an App of "
            "fastway.app, or have a gateway in front (client-ws-addr)"
        )


@implementer(IStreamServerEndpoint)
class MessageEndpoint:
    """Where WebSockets are listened to.

    Args:
        endpoint: What is below: TCP, TLS, a unix socket.
        policy: What a request must ask for; a dialect agrees to subprotocols of its own.
        trusted: The HTTP proxies that are believed whom a request is from.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, policy: Policy, trusted: Trusted | None = None
    ) -> None:
        self._endpoint = endpoint
        self._policy = replace(policy, subprotocol="")
        self._trusted = trusted or Trusted()

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As any; fails with NoMessages."""
        if not isinstance(factory, TakesMessages):
            return fail(NoMessages(factory))
        try:
            made: Any = factory.over_websocket(self._policy, self._trusted)
        except LocalError:
            return fail()
        return self._endpoint.listen(made)
