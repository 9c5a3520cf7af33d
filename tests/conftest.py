"""What pytest does for all tests.

Rule: it makes them no slower and changes nothing that they see.
"""

from __future__ import annotations

import gc

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The thousands of tests are no garbage: no later collection looks at them again."""
    gc.collect()
    gc.freeze()
