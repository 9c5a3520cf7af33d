"""The bench of drains: everybody gets to the other gateway, and a wrong or missing answer is seen.

Rule: nothing here asks how fast anything is.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.drain import ROWS, Bed, Player, Server, check, measure, parse_arguments
from bench.gateways import Failure
from bench.table import Result
from tests.support.errors import raised
from tests.support.waits import reactor

if sys.platform != "linux":
    __test__ = False

QUICK = ["--clients", "24", "--pause", "0.02", "--window", "2"]
OPTIONS = ["--options", "--drain-delay 0.1 --drain-grace 0.1 --drain-spread 0.5"]


class DrainBenchTests(TestCase):
    async def told(self, speaks: str, *more: str) -> Result:
        arguments = parse_arguments([*QUICK, *OPTIONS, *more])
        result = await measure(reactor, speaks, arguments)
        self.assertEqual(result["clients"], 24)
        self.assertGreaterEqual(result["answers"], 24)
        self.assertLessEqual(result["repeated"], result["lost"])
        self.assertLess(result["closed"], result["ended"])
        self.assertLessEqual(result["first"], result["last"])
        return result

    async def test_drain(self) -> None:
        """To its end: every row has a figure."""
        result = await self.told("tcp")
        self.assertEqual(set(result), set(ROWS))
        self.assertLessEqual(result["servers"], result["over"])

    async def test_kill(self) -> None:
        """In the middle of it: the rest come to the other gateway too."""
        result = await self.told("ws", "--kill")
        self.assertNotIn("over", result)


class Asked:
    """What a player has dialled, with these answers to whatever is said."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def on_end(self, _: object) -> None:
        pass

    def send(self, _: bytes) -> Deferred[None]:
        return succeed(None)

    def receive(self) -> Deferred[bytes]:
        return succeed(self.answers.pop(0))


class WrongTests(SynchronousTestCase):
    def hear(self, *answers: bytes) -> str:
        """What is said of a client that asks two questions at once and is told that."""
        failures: list[Failure] = []
        bed = SimpleNamespace(over=False, window=2, fail=failures.append)

        def rest(_: object) -> Deferred[None]:
            bed.over = True
            return succeed(None)

        bed.rest = rest
        client = SimpleNamespace(dial=lambda _: succeed(Asked(*answers)))
        player = Player(7, cast(Any, client), cast(Bed, bed))
        self.successResultOf(ensureDeferred(player.play()))
        return " ".join(map(str, failures))

    def test_answers(self) -> None:
        """One that comes twice, one that is left out, and somebody else's."""
        self.assertEqual(self.hear(b"7 1 0", b"7 1 1"), "")
        self.assertIn("came twice", self.hear(b"7 1 0", b"7 1 0"))
        self.assertIn("came before another", self.hear(b"7 1 1"))
        self.assertIn("to somebody else", self.hear(b"8 1 0"))

    def test_ends(self) -> None:
        """Who moved though nobody asked, who did not, and who lacks what had arrived."""

        def told(there: int, *reached: list[int], kill: bool = False, owed: int = 0) -> None:
            players = [SimpleNamespace(reached=one) for one in reached]
            server = SimpleNamespace(owed={(0, 1): owed})
            check(cast(list[Player], players), cast(Server, server), there, kill)

        told(1, [3], [], owed=3)
        told(1, [3], [], owed=4, kill=True)
        self.assertIn("had 3 answers, and 4", str(raised(Failure, told, 1, [3], [], owed=4)))
        some: list[list[list[int]]] = [[[3], [2]], [[], []], [[3, 4], []]]
        for reached in some:
            self.assertIn("moved", str(raised(Failure, told, 1, *reached)))
