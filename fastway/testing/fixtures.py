"""Fixtures for pytest: `local_gateway` and `memory_gateway`.

    pytest_plugins = ["fastway.testing.fixtures"]  # in the conftest.py at the top

Rule: the one module here that knows pytest. `@pytest.mark.gateway(key=..., snet=True)` has the
arguments of a test's gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastway.testing.beside import LocalGatewayProcess
from fastway.testing.memory import MemoryGateway


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        "gateway(**options): what local_gateway or memory_gateway is told; see fastway.testing",
    )


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the marks of a test say, the nearest last."""
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("gateway"))):
        options.update(mark.kwargs)
    return options


@pytest.fixture
def local_gateway(request: pytest.FixtureRequest) -> Iterator[LocalGatewayProcess]:
    """A real gateway in a process of its own, for any kind of test; gone after it."""
    with LocalGatewayProcess(**_options(request)) as gateway:
        yield gateway


@pytest.fixture
def memory_gateway(request: pytest.FixtureRequest) -> Iterator[MemoryGateway]:
    """A gateway without sockets on a clock of its own, gone after the test."""
    with MemoryGateway(**_options(request)) as gateway:
        yield gateway


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show the gateway's log where a test failed."""
    gateway = getattr(item, "funcargs", {}).get("local_gateway")
    if call.when == "call" and call.excinfo is not None and gateway is not None:
        item.add_report_section("call", "log of the gateway", gateway.log)
