"""The error that a call, or a wait, must end with.

Rule: no error, like an error of another kind, fails the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

AnyError = TypeVar("AnyError", bound=BaseException)


def raised(
    kind: type[AnyError], function: Callable[..., object], *args: Any, **kw: Any
) -> AnyError:
    """The error of this kind that a call raises.

    Raises:
        AssertionError: it raises none.
    """
    try:
        result = function(*args, **kw)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} for {args}: {result!r}")


async def failure_of(kind: type[AnyError], waiting: Any) -> AnyError:
    """The error of that kind with which a Deferred fails."""
    try:
        result = await waiting
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {result!r}")
