"""What pytest does for all tests.

Rule: it makes them no slower and changes nothing that they see.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata

import pytest
from hypothesis import HealthCheck, settings

from fastway.relay import stale


def pytest_configure() -> None:
    """Read Twisted's version once, let Hypothesis draw the same in every run, and see that the
    relay is of the sources that are tested.

    pytest asks the disk for it at each test, and at each failure: that a test failed which had
    taken all descriptors was lost with the failure of this.
    """
    if stale():
        raise pytest.UsageError(stale())  # else what needs it would only be skipped
    version = functools.cache(importlib.metadata.version)
    pytest.MonkeyPatch().setattr(importlib.metadata, "version", version)
    version("twisted")
    # The same examples in every run, however slow the machine is; as tests.support.core has it.
    slow = [HealthCheck.too_slow]
    settings.register_profile(
        "steady", derandomize=True, deadline=None, database=None, suppress_health_check=slow
    )
    settings.load_profile("steady")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The thousands of tests are no garbage: no later collection looks at them again."""
    gc.collect()
    gc.freeze()
