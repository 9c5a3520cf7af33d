"""Running a test case over both of the gateway's data paths.

Rule: the tests are the same on either path; only the case's `relay` tells which one it is.
"""

from __future__ import annotations

import sys
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from fastway.relay import missing

TestClass = TypeVar("TestClass", bound=type[SynchronousTestCase])


def on_both_paths(cls: TestClass) -> TestClass:
    """Have a test case run a second time, as `...Relay`, with its `relay` True."""
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "relay": True}
    if missing():
        names["skip"] = missing()
    twin = type(f"{cls.__name__}Relay", (cls,), names)
    setattr(sys.modules[cls.__module__], twin.__name__, twin)
    return cls
