"""The whole gateway in this process, gone at the end of the test.

Rule: it listens on 127.0.0.1 only, and writes to a directory of its own.
"""

from __future__ import annotations

import os

from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from fastway import logs
from fastway.service import GatewayService
from tests.support.files import scratch
from tests.support.options import LOOPBACK, settings
from tests.support.waits import reactor


class ServiceTestCase(TestCase):
    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.patch(logs.addresses, "kept", "full")
        self.directory = scratch(self)

    def make(self, *arguments: str) -> GatewayService:
        """A gateway on loopback with its run directory in a scratch directory."""
        told = settings(*LOOPBACK, f"--run-dir={self.directory}", *arguments)
        service = GatewayService(told, reactor)
        self.addCleanup(self.stop, service)
        return service

    def start(self, *arguments: str) -> GatewayService:
        """A gateway that was started as Twisted does it."""
        service = self.make(*arguments)
        service.check()
        service.privilegedStartService()
        service.startService()
        return service

    async def stop(self, service: GatewayService) -> None:
        if service.running:
            await service.stopService()

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))
