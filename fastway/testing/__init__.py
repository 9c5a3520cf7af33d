"""Gateways for the tests of game servers and clients.

    from fastway.testing import LocalGateway, LocalGatewayProcess, MemoryGateway

`LocalGateway` is a real one on 127.0.0.1, on the test's reactor; `LocalGatewayProcess` is one in a
process of its own, for tests without Twisted; `MemoryGateway` has no sockets, and its time is a
clock that the test turns. `fastway.testing.fixtures` has fixtures for pytest.

Rule: what is tested against is the gateway itself, assembled as in production; nothing here
decides what one does.
"""

from fastway.errors import GatewayDied
from fastway.testing.beside import LocalGatewayProcess
from fastway.testing.local import LocalGateway
from fastway.testing.memory import MemoryGateway
from fastway.testing.network import MemoryEndpoint, MemoryLink

__all__ = [
    "GatewayDied",
    "LocalGateway",
    "LocalGatewayProcess",
    "MemoryEndpoint",
    "MemoryGateway",
    "MemoryLink",
]
