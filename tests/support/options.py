"""Options as they come from a command line of a test's own.

Rule: what the test's own environment says has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastway.config import Settings
from fastway.config.sources import GatewayOptions

LOOPBACK = ("--client-addr=127.0.0.1:0", "--server-addr=127.0.0.1:0")
"""Arguments that have both ports opened on 127.0.0.1, wherever there is room."""


def parsed(*arguments: str, environment: Mapping[str, str] | None = None) -> GatewayOptions:
    """Options of a command line and an environment of their own."""
    options = GatewayOptions()
    options.environment = environment or {}
    options.parseOptions(arguments)
    return options


def settings(*arguments: str, environment: Mapping[str, str] | None = None) -> Settings:
    """Their settings."""
    return parsed(*arguments, environment=environment).settings
