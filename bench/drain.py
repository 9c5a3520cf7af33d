"""What clients notice of a drain: many of them on two gateways, and one of the two is drained
under load; or it is killed in the middle of that.

    python -m bench.drain [--clients N] [--pause S] [--window N] [--speak tcp,ws] [--kill]
                          [--options "..."]

Each client is a GatewayClient of both gateways, with the library's own backoff. It asks `window`
questions, pauses when it has the answers, and asks again over the next gateway, as soon as it has
one, what was not answered. The game server is a GatewayPool on both. It runs in this process, as
the clients do; the gateways share the first core.

It fails where an answer comes twice, or in the wrong order, or is left out; where a client does
not get to the other gateway, or hears nothing there; where an answer is lost that the drained
gateway must have had when it lost the client: the server pings it all the time, and what was
sent before a ping whose answer came before the end of the virtual connection had arrived. With
`--kill` that last one is not asked: what the gateway had is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater, react

from bench.edge import client_options
from bench.gateways import (
    CONSOLE,
    LAST_CORE,
    PATIENCE,
    ROOT,
    Failure,
    Gateway,
    Running,
    free_address,
    machine,
    running,
)
from bench.table import Result
from bench.watched import directory_of
from fastway.endpoint import GatewayClient, GatewayConnection, GatewayPool, VirtualConnection
from fastway.errors import FastwayError

SERVER_ID = 1
SPEAKS = ("tcp", "ws")
WAVE = 50
"""Clients that connect at once, before the next do."""
PING = 0.05
"""Seconds between two pings of the server."""
SOON = 0.01
"""Seconds after which who lost his connection asks for another."""
WARM = 3
"""Questions that each client has answers to before the drain."""
MOST = 600.0
"""Seconds after which a drain is given up."""
STEPS = {"closed": "drain: ports are closed", "servers": "servers are lost", "over": "drain: over"}
"""Of the gateway's log."""


class Player:
    """A client that asks, and asks again what was not answered.

    Attributes:
        visits: Virtual connections that it had; the last is open.
        answered: Questions that have an answer.
        reached: How many had when each of the earlier connections ended.
        lost: Questions whose connection ended before their answer.
        away: Seconds from the end of a connection to the first answer over the next.
        times: When it was told so, in seconds since 1970.
    """

    def __init__(self, number: int, client: GatewayClient, bed: Bed) -> None:
        self.client = client
        self.visits = self.answered = self.lost = 0
        self.reached: list[int] = []
        self.away: list[float] = []
        self.times: list[float] = []
        self._number = number
        self._bed = bed
        self._left = 0.0
        self._resting: Deferred[None] | None = None

    async def play(self) -> None:
        """Until the bed is over."""
        conn: VirtualConnection[bytes] | None = None
        asked = 0
        try:
            while not self._bed.over:
                try:
                    if conn is None:
                        conn = await self.client.dial(SERVER_ID)
                        conn.on_end(self._leave)
                        self.visits += 1
                        asked = self.answered
                    while asked < self.answered + self._bed.window:
                        text = f"{self._number} {self.visits} {asked}"
                        await conn.send(text.encode())
                        asked += 1
                    while self.answered < asked:
                        self._hear(await conn.receive())
                except FastwayError:
                    if conn is not None:
                        self.lost += asked - self.answered
                        self.reached.append(self.answered)
                    conn = None
                self._resting = self._bed.rest(SOON if conn is None else None)
                with suppress(CancelledError):
                    await self._resting
        except Failure as error:
            self._bed.fail(error)

    def _leave(self, _: object) -> None:
        self._left = time.time()
        if self._resting is not None:
            self._resting.cancel()

    def _hear(self, message: bytes) -> None:
        number, visit, question = map(int, message.split())
        if (number, visit, question) != (self._number, self.visits, self.answered):
            what = "twice" if question < self.answered else "before another, or to somebody else"
            raise Failure(f"an answer came {what}: {message!r}, and not {self.answered}")
        self.answered += 1
        if self._left:
            self.times.append(time.time())
            self.away.append(self.times[-1] - self._left)
            self._left = 0.0


class Server:
    """Answers all, and knows which answers a gateway must have had.

    Attributes:
        repeated: Questions that came again: they were done, and the answer was lost.
        owed: Player and visit -> how many questions were answered to the gateway's knowledge when
            that visit ended.
    """

    def __init__(self, reactor: Any, addresses: dict[str, str]) -> None:
        there = {
            name: clientFromString(reactor, f"tcp:{address}")
            for name, address in addresses.items()
        }
        self.pool = GatewayPool(there, SERVER_ID)
        self.repeated = 0
        self.owed: dict[tuple[int, int], int] = {}
        self._done: Counter[int] = Counter()
        self._sent: Counter[str] = Counter()
        self._arrived: Counter[str] = Counter()
        self.pool.serve(self.answer)
        self.pool.startService()

    async def answer(self, conn: VirtualConnection[bytes]) -> None:
        """A handler."""
        name = str(conn.gateway.name)
        flying: deque[tuple[int, int]] = deque()
        who: tuple[int, int] | None = None
        had = 0

        def land() -> None:
            nonlocal had
            while flying and flying[0][0] <= self._arrived[name]:
                had = flying.popleft()[1] + 1

        def ended(_: object) -> None:
            land()
            if who is not None:
                self.owed[who] = had

        conn.on_end(ended)
        async for message in conn:
            player, visit, question = map(int, message.split())
            who = (player, visit)
            if question < self._done[player]:
                self.repeated += 1
            self._done[player] = max(self._done[player], question + 1)
            await conn.send(message)
            self._sent[name] += 1
            flying.append((self._sent[name], question))
            land()

    async def ping(self, gateway: GatewayConnection) -> None:
        """Learn what has arrived at that gateway."""
        name, sent = str(gateway.name), self._sent[str(gateway.name)]
        try:
            await gateway.ping()
        except FastwayError:
            return
        self._arrived[name] = max(self._arrived[name], sent)


class Bed:
    """The clients, the server and both gateways, of which the first is drained."""

    def __init__(self, reactor: Any, arguments: argparse.Namespace) -> None:
        self.over = False
        self.window: int = arguments.window
        self._reactor = reactor
        self._pause: float = arguments.pause
        self._chance = Random()
        self._failure: Failure | None = None

    def fail(self, error: Failure) -> None:
        """Have `until` fail; the first counts."""
        self._failure = self._failure or error

    def rest(self, seconds: float | None = None) -> Deferred[None]:
        """Let the others go on, for a client's pause if nothing else is said."""
        if seconds is None:
            seconds = self._pause * (0.5 + self._chance.random())
        return deferLater(self._reactor, seconds, lambda: None)

    async def until(
        self, what: str, condition: Callable[[], bool], seconds: float = 3 * PATIENCE
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(Failure(f"not within {seconds:g} s: {what}"))
            if self._failure is not None:
                raise self._failure
            await self.rest(0.01)

    async def keep_pinging(self, server: Server) -> None:
        while not self.over:
            for gateway in server.pool.up.values():
                ensureDeferred(server.ping(gateway))
            await self.rest(PING)


def clients_of(metrics: str) -> int:
    """How many a gateway has, by its own figures."""
    with urlopen(f"http://{metrics}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    named = 'fastway_connections{side="client"'
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(named))


def ended(pid: int) -> int | None:
    """The exit status of a child, which stays to be waited for; None: it lives."""
    gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if gone is None:
        return None
    return gone.si_status if gone.si_code == os.CLD_EXITED else -gone.si_status


def steps(log: str) -> dict[str, float]:
    """When the steps of a drain began, in seconds since 1970, by the lines of a gateway's log."""
    found = {}
    for line in log.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            for name, words in STEPS.items():
                if words in told["text"]:
                    found[name] = seconds_of(told["time"])
    return found


def seconds_of(stamp: str) -> float:
    """Of a time such as 2026-11-22T01:10:31.402+00:00."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def gateway(name: str, speaks: str, *options: str) -> Gateway:
    command = [*CONSOLE, *client_options(speaks, Path()), "--server-addr", "{server}"]
    return Gateway(name, [*command, "--log-format", "json", *options], ROOT, speaks)


async def measure(reactor: Any, speaks: str, arguments: argparse.Namespace) -> Result:
    """Drain one of two gateways.

    Raises:
        Failure: see the module.
    """
    options, metrics = shlex.split(arguments.options), free_address()
    drained = gateway("the first gateway", speaks, "--drain-timeout", f"{MOST:g}", *options)
    stays = gateway("the second gateway", speaks, "--metrics-addr", metrics, *options)
    with ExitStack() as stack:
        first = stack.enter_context(running(drained, ends=True))
        second = stack.enter_context(running(stays))
        bed = Bed(reactor, arguments)
        server = Server(reactor, {"first": first.server, "second": second.server})
        scheme = {"tcp": "tcp:{}", "ws": "ws://{}/"}[speaks]
        ends: list[Any] = [scheme.format(one.client) for one in (first, second)]
        if speaks == "tcp":
            ends = [clientFromString(reactor, end) for end in ends]
        players = [Player(n, GatewayClient(ends), bed) for n in range(arguments.clients)]
        work = [ensureDeferred(bed.keep_pinging(server))]
        try:
            await server.pool.when_up(2)
            for at in range(0, len(players), WAVE):
                wave = players[at : at + WAVE]
                for player in wave:
                    player.client.startService()
                await gatherResults([player.client.when_up() for player in wave])
                work += [ensureDeferred(player.play()) for player in wave]
            return await drain(bed, players, server, first, metrics, arguments)
        finally:
            bed.over = True
            leaving = [player.client.stopService() for player in players]
            await gatherResults([*leaving, server.pool.stopService(), *work])


async def drain(
    bed: Bed,
    players: list[Player],
    server: Server,
    first: Running,
    metrics: str,
    arguments: argparse.Namespace,
) -> Result:
    """Drain the first gateway, and look where everybody is then."""
    answered = sum(player.answered for player in players)
    await bed.until("answers", lambda: all(player.answered >= WARM for player in players))
    there = len(players) - clients_of(metrics)
    if not 0 < there < len(players):
        raise Failure("all clients are on one gateway: take more of them")
    output = os.path.join(directory_of(first), "output")
    log = open(output, encoding="utf-8")  # noqa: SIM115  # its directory goes with the process
    with log:
        began, answered = time.time(), sum(player.answered for player in players)
        os.kill(first.pid, signal.SIGTERM)
        if arguments.kill:
            await bed.until("half", lambda: 2 * clients_moved(players) >= there, MOST)
            os.kill(first.pid, signal.SIGKILL)
        await bed.until("the end", lambda: ended(first.pid) is not None, MOST)
        over = time.time()
        status = ended(first.pid)
        if status != (-signal.SIGKILL if arguments.kill else 0):
            raise Failure(f"the first gateway ended with status {status}")
        told = steps(log.read())
    await bed.until("all on the other", lambda: clients_of(metrics) == len(players))
    before = [player.answered for player in players]
    await bed.until(
        "answers over the other",
        lambda: all(p.answered >= b + WARM for p, b in zip(players, before, strict=True)),
    )
    took, answers = time.time() - began, sum(player.answered for player in players) - answered
    check(players, server, there, kill=arguments.kill)
    away = sorted(seconds for player in players for seconds in player.away)
    times = sorted(moment for player in players for moment in player.times)
    return {
        "clients": len(players),
        "there": there,
        "answers": answers,
        "per_second": answers / took,
        "lost": sum(player.lost for player in players),
        "repeated": server.repeated,
        **{name: moment - began for name, moment in told.items()},
        "first": times[0] - began,
        "last": times[-1] - began,
        "ended": over - began,
        "away_p50": away[len(away) // 2],
        "away_p99": away[len(away) * 99 // 100],
        "away_max": away[-1],
    }


def clients_moved(players: list[Player]) -> int:
    return sum(bool(player.reached) for player in players)


def check(players: list[Player], server: Server, there: int, kill: bool) -> None:
    """
    Raises:
        Failure: somebody moved who need not, or not; or has lost what he should have got.
    """
    moved = Counter(len(player.reached) for player in players)
    if moved != {0: len(players) - there, 1: there}:
        raise Failure(f"of {there} who had to move so many moved so often: {dict(moved)}")
    for number, player in enumerate(players):
        for visit, had in enumerate(player.reached, 1):
            owed = server.owed.get((number, visit), 0)
            if had < owed and not kill:
                raise Failure(f"client {number} had {had} answers, and {owed} had arrived")


ROWS = {
    "clients": "clients",
    "there": "of them on the gateway that is drained",
    "answers": "answers from the order to drain until all talk over the other",
    "per_second": "answers a second",
    "lost": "questions whose connection ended before their answer, and that were asked again",
    "repeated": "of them that the server had answered",
    "closed": "ports closed, s after the order",
    "first": "first client with an answer over the other gateway, s",
    "last": "last client, s",
    "servers": "servers lost, s",
    "over": "drain over, by the log, s",
    "ended": "process gone, s",
    "away_p50": "a client without a gateway: median, s",
    "away_p99": "99 of 100 within, s",
    "away_max": "all within, s",
}


def tell(results: dict[str, Result]) -> None:
    """Print the table."""
    print("| | " + " | ".join(results) + " |")
    print("| --- |" + " --- |" * len(results))
    for name, text in ROWS.items():
        values = [result.get(name, "") for result in results.values()]
        texts = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in values]
        print(f"| {text} | " + " | ".join(texts) + " |")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    add = parser.add_argument
    add("--clients", type=int, default=2000, metavar="N")
    add("--pause", type=float, default=1.0, metavar="S", help="of a client, between questions")
    add("--window", type=int, default=1, metavar="N", help="questions that are asked at once")
    add("--speak", default="tcp", metavar="LIST", help=f"of {', '.join(SPEAKS)}")
    add("--kill", action="store_true", help="kill the gateway when half of its clients are gone")
    add("--options", default="", metavar="TEXT", help="more options for both gateways")
    return parser.parse_args(words)


async def compare(reactor: Any, arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    speaks = arguments.speak.split(",")
    if wrong := set(speaks) - set(SPEAKS):
        raise Failure(f"--speak is of {', '.join(SPEAKS)}, not {', '.join(sorted(wrong))}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < arguments.clients + 100:
        raise Failure(f"ulimit -n allows {most} open files, too few for so many clients")
    print(f"# {machine()}; a pause of {arguments.pause:g} s between questions", flush=True)
    tell({one: await measure(reactor, one, arguments) for one in speaks})


def main() -> None:
    arguments = parse_arguments()
    os.sched_setaffinity(0, {LAST_CORE})

    async def program(reactor: Any) -> None:
        try:
            await compare(reactor, arguments)
        except Failure as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from None

    react(lambda reactor: ensureDeferred(program(reactor)))


if __name__ == "__main__":
    main()
