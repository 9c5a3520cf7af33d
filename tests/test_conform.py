"""Every behaviour of spec/fastway.md over every transport, on every lane that takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.conform import checks_of
from tests.support.transports import TRANSPORTS, why_not


def _not_offered(why: str) -> Callable[[SynchronousTestCase], None]:
    def test_why(_: SynchronousTestCase) -> None:
        raise SkipTest(why)

    return test_why


def _bodies() -> Iterator[tuple[str, type]]:
    """A test case for each body of checks, transport and lane."""
    for transport in TRANSPORTS:
        for relay in (False, True):
            way = f"{transport.name}_{'relay' if relay else 'python'}"
            more: dict[str, object] = {"__module__": __name__}
            if why := why_not(transport, relay):
                more["test_why"] = _not_offered(why)
                yield f"NotOffered_{way}", type(way, (SynchronousTestCase,), more)
                continue
            more |= {"transport": transport, "relay": relay}
            for body in checks_of(transport):
                name = f"{body.__name__}_{way}"
                yield name, type(name, (body,), dict(more))


globals().update(_bodies())
