"""The script that stands for a gateway's control connection, and the gateway itself, pass the same
checks.

Rule: a check that one of them does not pass is a mistake in it, or in the script of it.
"""

from __future__ import annotations

from fastway.relay import missing
from tests.support import control_checks
from tests.support.beds import Bed, InMemory, OnSockets, Scripted


class ScriptedTests(control_checks.ControlChecks):
    """The script of all other tests."""

    async def open(self, group_members: int = 1000) -> Bed:
        return Scripted(group_members)


class MemoryTests(control_checks.ControlChecks):
    """The real gateway in memory."""

    async def open(self, group_members: int = 1000) -> Bed:
        bed = await InMemory(group_members).begin()
        self.addCleanup(bed.gateway.stop)
        return bed


class StreamTests(control_checks.ControlChecks):
    """On sockets, the Python lane."""

    relay = False

    async def open(self, group_members: int = 1000) -> Bed:
        bed = await OnSockets(self.relay, group_members).begin()
        self.addCleanup(bed.stop_all)
        return bed


class NativeTests(StreamTests):
    """On sockets, the native lane."""

    relay = True
    skip = missing() or None
