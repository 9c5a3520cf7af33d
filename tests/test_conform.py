"""Every behaviour of spec/fastway.md over every transport, on every lane that takes it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.conform import checks_of
from tests.support.transports import TRANSPORTS, why_not


def _bodies() -> Iterator[tuple[str, type]]:
    """A test case for each body of checks, transport and lane."""
    for transport in TRANSPORTS:
        for relay in (False, True):
            lane = "relay" if relay else "python"
            more = {"transport": transport, "relay": relay, "__module__": __name__}
            if why := why_not(transport, relay):
                more["skip"] = why
            for body in checks_of(transport):
                name = f"{body.__name__}_{transport.name}_{lane}"
                yield name, type(name, (body,), dict(more))


globals().update(_bodies())
