"""The checkout, and directories that are gone after the test.

Rule: no test leaves anything in the checkout.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def scratch(case: SynchronousTestCase) -> str:
    """A directory of its own for a test, outside the checkout, that goes with it."""
    path = tempfile.mkdtemp(prefix="fastway-test-")
    case.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path
