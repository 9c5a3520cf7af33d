"""What pytest does for all tests.

Rule: it makes them no slower and changes nothing that they see.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata

import pytest


def pytest_configure() -> None:
    """Read Twisted's version once.

    pytest asks the disk for it at each test, and at each failure: that a test failed which had
    taken all descriptors was lost with the failure of this.
    """
    version = functools.cache(importlib.metadata.version)
    pytest.MonkeyPatch().setattr(importlib.metadata, "version", version)
    version("twisted")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The thousands of tests are no garbage: no later collection looks at them again."""
    gc.collect()
    gc.freeze()
