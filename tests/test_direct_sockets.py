"""Both lanes pass the checks of `tests.support.direct`."""

from __future__ import annotations

from fastway.relay import missing
from tests.support import direct


class StreamTests(direct.DirectChecks):
    """The Python lane."""


class NativeTests(direct.DirectChecks):
    """The native lane."""

    relay = True
    skip = missing() or None
