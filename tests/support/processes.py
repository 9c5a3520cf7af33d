"""What the tests that start processes share.

Rule: a process gets the settings that its test names, and none of the developer's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tests.support.files import CHECKOUT

PATIENCE = 20.0
"""Seconds for what takes well under one on an idle machine."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with FASTWAY_ `settings` and none but those."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("FASTWAY_")}
    return {**plain, "PYTHONPATH": CHECKOUT, **settings}
