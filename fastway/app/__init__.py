"""A framework for game servers: one application, and clients of several wires at once.

    from fastway.app import App, Refused, Session
    from fastway.dialect.pomelo import Pomelo

    app = App()

    @app.handler("math.add")
    async def add(numbers: list[int]) -> int:
        if len(numbers) > 100:
            raise Refused(1001, "too many numbers")
        return sum(numbers)

`docs/app.md` is its guide. It needs `pip install 'fastway[app]'`.

Rule: `app` stands on transports and on the seam of `fastway.dialect`; it knows no single dialect.
"""

from __future__ import annotations

try:
    import msgspec  # noqa: F401  so that whoever lacks it is told at once
except ModuleNotFoundError:
    from fastway.errors import NotInstalled

    raise NotInstalled("fastway.app", "msgspec", "app") from None

from fastway.app.app import App, Component, handles
from fastway.app.bounds import Bounds, State, Users
from fastway.app.group import Group
from fastway.app.handlers import Outgoing, Request
from fastway.app.messages import BadBody, BadHandler
from fastway.app.session import NotReady, Session, SessionEnded
from fastway.app.strand import Strand
from fastway.dialect import Body, FrameRefused, NotInDialect, Refused

__all__ = [
    "App",
    "BadBody",
    "BadHandler",
    "Body",
    "Bounds",
    "Component",
    "FrameRefused",
    "Group",
    "NotInDialect",
    "NotReady",
    "Outgoing",
    "Refused",
    "Request",
    "Session",
    "SessionEnded",
    "State",
    "Strand",
    "Users",
    "handles",
]
