"""The access log: which connections have a line, what stands in it, how it looks, its file."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import time
from collections import Counter
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.errors import ConfigError
from fastway.gateway import PortConfig
from fastway.gateway.ends import End
from fastway.ops import logs as writing
from fastway.ops.access import AccessLog, fields, json_row, text_row
from fastway.ops.logs import ACCESS, dropped
from fastway.router import Limits, Pending
from tests.support.core import DETERMINISTIC
from tests.support.ends import Harness
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.golden import PING, dial, packet
from tests.support.logs import LogLines, documented_fields
from tests.support.options import settings
from tests.support.processes import PATIENCE
from tests.support.proxied import Bed
from tests.support.proxy import block
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.waits import reactor, turns, until

NOW = 1_700_000_000.25


class Rows:
    """What would be in an access log, in place of one."""

    logs = True

    def __init__(self) -> None:
        self.rows: list[End] = []

    def ended(self, end: End) -> None:
        self.rows.append(end)


def rows_of(harness: Harness) -> list[End]:
    """The lines of an access log of that gateway, from now on."""
    rows = Rows()
    harness.service.enders.append(rows)
    return rows.rows


class LineTests(SynchronousTestCase):
    """Which connections have a line, and what it says."""

    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)

    def test_a_clients_life(self) -> None:
        """A line has all that there was of a connection."""
        harness = Harness(limits=Limits(client_max_conn=1))
        rows = rows_of(harness)
        harness.server(1)
        client = harness.client()
        client.send(PING + dial(1) + dial(1) + dial(9))
        harness.clock.advance(0.5)
        client.link.user = "Anna"
        client.gone(ConnectionLost())
        (row,) = rows
        self.assertEqual(
            row,
            replace(ROW, time=row.time, transport="other"),
        )

    def test_a_server(self) -> None:
        """A server has one too; its dials are its own."""
        harness = Harness()
        rows = rows_of(harness)
        harness.client()
        server = harness.server(7)
        server.send(dial(1) * 2 + dial(2) + b"\1\0\0\0")
        self.assertEqual(
            [(row.side, row.id, row.dials, row.refused_dials, row.reason) for row in rows],
            [("server", 7, 3, 1, "frame_too_short")],
        )
        self.assertEqual(rows[0].detail, "length 1 is below 4")

    def test_what_waited(self) -> None:
        """The most that waited for a slow one is there when it has taken all."""
        harness = Harness()
        rows = rows_of(harness)
        client, server = harness.client(), harness.server(1)
        conn_id = harness.pair(client, server)
        client.transport.fill()
        for _ in range(3):
            server.send(packet(conn_id, bytes(1000)))
        client.transport.drain()
        client.send(PING)
        client.gone()
        self.assertEqual(rows[0].most_waiting, 3 * 1008)
        self.assertEqual(rows[0].bytes_out, 13 + 3 * 1008 + 9 + 4)

    def test_dials_that_wait(self) -> None:
        """Dials whose answer it did not live to see count as refused; many are one too many."""
        harness = Harness(limits=Limits(client_max_dials=2))
        rows = rows_of(harness)
        harness.router.look_up = lambda *_: Pending()
        client, other = harness.client(), harness.client()
        client.send(dial(1) * 2)
        client.gone()
        other.send(dial(1) * 3)
        self.assertEqual([(row.dials, row.refused_dials) for row in rows], [(2, 2), (3, 3)], rows)
        self.assertEqual(sum(harness.router.stats.refusals.values()), 5)

    def test_nothing_of_nobody(self) -> None:
        """Who went without a byte, who proved nothing, and who was turned away have no line; the
        log has its lines of them as before."""
        harness = Harness(client=PortConfig(max_links=1))
        rows = rows_of(harness)
        with LogLines() as log:
            harness.client().gone()
            stranger = harness.stranger()
            stranger.send(bytes(20))
            stranger.gone()
            harness.client()
            harness.clients.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
        self.assertEqual(rows, [])
        said = [event for event in log.events if event["log_level"] is not LogLevel.debug]
        self.assertEqual(
            [event.get("reason_code") for event in said], ["auth_failed", "too_many_links"]
        )

    def test_a_proxys_own(self) -> None:
        """Health checks have none, whatever they say; who is behind the proxy has."""
        bed = Bed(False)
        rows = rows_of(bed.harness)
        check = bed.comer()
        check.send(block(b"", family=0, command=0x20) + PING)
        check.end()
        comer = bed.comer()
        comer.send(block(bytes([203, 0, 113, 9, 10, 0, 0, 2, 0, 80, 35, 40])) + PING)
        comer.end()
        self.assertEqual(
            [(row.addr, row.via) for row in rows], [("203.0.113.9:80", "10.0.0.2:40002")]
        )

    def test_addresses(self) -> None:
        """Players' addresses are as log-address has them; servers' are whole."""
        for kept, shown in (("full", "192.0.2.1:50001"), ("prefix", "192.0.2.0/24"), ("none", "")):
            self.patch(logs.addresses, "kept", kept)
            harness = Harness()
            rows = rows_of(harness)
            client, server = harness.client(), harness.server(1)
            client.send(PING)
            client.gone()
            server.gone()
            self.assertEqual([fields(row)["addr"] for row in rows], [shown, "192.0.2.1:50002"])
            self.assertIn(f" addr={shown or '-'} ", text_row(fields(rows[0])))

    def test_who_only_listened(self) -> None:
        """Who said nothing and was told something has one."""
        harness = Harness()
        rows = rows_of(harness)
        client = harness.client()
        harness.server(1).send(dial(1))
        client.gone()
        self.assertEqual([(row.bytes_in, row.packets_out) for row in rows], [(0, 1)])

    def test_levels(self) -> None:
        """With an access log `connected` and `lost` are at debug; a login stays at info. Its lines
        do not ask for the level."""
        for level in (LogLevel.debug, LogLevel.info, LogLevel.critical):
            logs.threshold.level = level
            harness = Harness()
            rows = rows_of(harness)
            with LogLines() as log:
                server, client = harness.server(1), harness.client()
                client.send(dial(1))
                client.gone()
                server.gone()
            self.assertEqual([row.side for row in rows], ["client", "server"])
            said = [event["log_level"].name for event in log.events]
            wanted = {"debug": ["debug", "info", "debug", "debug", "debug"], "info": ["info"]}
            self.assertEqual(said, wanted.get(level.name, []), log.lines)

    def test_every_end(self) -> None:
        """A stop is the end of each of them."""
        harness = Harness()
        rows = rows_of(harness)
        for _ in range(3):
            harness.client().send(PING)
        harness.service.stopService()
        self.assertEqual([row.reason for row in rows], ["shutdown"] * 3)


ROW = End(
    time=NOW,
    side="client",
    id=1,
    addr="192.0.2.1:50002",
    via="",
    transport="tcp",
    port="",
    user="Anna",
    identity="",
    tls="",
    sni="",
    seconds=0.5,
    reason="connection_lost",
    text="the connection broke",
    detail="",
    packets_in=4,
    bytes_in=48,
    packets_out=4,
    bytes_out=52,
    most_waiting=0,
    dials=3,
    refused_dials=2,
    resumes=0,
)


def read_text(line: str) -> dict[str, str]:
    """A line of text as others would read it: name=value, quoted as JSON does."""
    assert line.endswith("\n")
    found = {}
    rest = line[:-1]
    while rest:
        name, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:]
            assert rest[:1] in ("", " ")
            rest = rest[1:]
        else:
            shown, _, rest = rest.partition(" ")
            value = "" if shown == "-" else shown
        found[name] = value
    return found


class FormatTests(SynchronousTestCase):
    """How a line looks."""

    def test_text(self) -> None:
        """A line of text, letter by letter."""
        self.assertEqual(
            text_row(fields(replace(ROW, user="Anna B", identity='a"b', sni="-"))),
            "time=2023-11-14T22:13:20.250+00:00 start=2023-11-14T22:13:19.750+00:00 seconds=0.5 "
            "side=client id=1 addr=192.0.2.1:50002 via=- transport=tcp port=- packets_in=4 "
            "bytes_in=48 packets_out=4 bytes_out=52 most_waiting=0 dials=3 refused_dials=2 "
            'resumes=0 reason_code=connection_lost tls=- sni="-" identity="a\\"b" user="Anna B" '
            "detail=-\n",
        )

    def test_json(self) -> None:
        """A line of JSON has the same fields; numbers are numbers."""
        line = fields(ROW)
        self.assertEqual(list(json.loads(json_row(line)).items()), list(line.items()))

    def test_documented(self) -> None:
        """The fields that docs/logs.md names are those of a line, in its order."""
        self.assertEqual(documented_fields("The access log"), list(fields(ROW)))

    @DETERMINISTIC
    @given(st.text(), st.text(st.characters()))
    def test_anything(self, user: str, detail: str) -> None:
        """Whatever a peer makes up, a line is one line, moves no cursor, and is read back."""
        row = fields(replace(ROW, user=user, detail=detail))
        for line in (text_row(row), json_row(row)):
            self.assertEqual(logs.escaped(line[:-1]), line[:-1])
            self.assertTrue(line.endswith("\n"))
        found = json.loads(json_row(row))
        self.assertEqual((found["user"], found["detail"]), (user, detail))
        text = read_text(text_row(row))
        self.assertEqual(list(text), list(row))
        self.assertEqual((text["user"], text["detail"]), (user, detail))


class FullSink:
    """A disk that is full until it is not."""

    def __init__(self) -> None:
        self.data = b""
        self.full = True

    def write(self, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.data += data
        return len(data)

    def close(self) -> None:
        """Nothing to do."""


class NearlyFullSink(FullSink):
    """A disk that has room for a piece of the first line."""

    def write(self, data: bytes) -> int:
        if self.data:
            return super().write(data)
        self.data = data[:10]
        return len(self.data)


def lines_of(path: str, count: int) -> list[str]:
    """The lines of a file that a thread may still be writing to."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if text.count("\n") >= count or time.monotonic() > deadline:
            return text.splitlines()
        time.sleep(0.005)  # threads have no events of ours


class FileTests(SynchronousTestCase):
    """Its file."""

    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.patch(writing, "_dropped_before", Counter())
        self.path = os.path.join(scratch(self), "access.log")
        self.harness = Harness()

    def open(self, kind: Any = "text") -> AccessLog:
        made = AccessLog(self.path, kind)
        self.addCleanup(made.close)
        self.harness.service.enders[:] = [made]
        return made

    def end_one(self) -> None:
        client = self.harness.client()
        client.send(PING)
        client.gone()

    def read(self, path: str = "") -> str:
        with open(path or self.path, encoding="utf-8") as file:
            return file.read()

    def test_append(self) -> None:
        """Lines are appended, mode 0640."""
        for kind in ("text", "json"):
            made = self.open(kind)
            self.end_one()
            self.assertTrue(made.close(20))
        first, second = self.read().splitlines()
        self.assertEqual(read_text(first + "\n")["id"], "1")
        self.assertEqual(json.loads(second)["id"], 2)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_reopen(self) -> None:
        """What comes after a reopening is in the new file; if there can be none, in the old."""
        made = self.open()
        self.end_one()
        os.rename(self.path, self.path + ".1")
        with LogLines() as log:
            made.reopen()
            self.end_one()
            made.path = os.path.join(self.path, "not", "here")
            made.reopen()
            self.end_one()
        self.assertTrue(made.close(20))
        for path, wanted in ((self.path + ".1", ["id=1"]), (self.path, ["id=2", "id=3"])):
            found = [line.split()[4] for line in lines_of(path, len(wanted))]
            self.assertEqual(found, wanted)
        self.assertEqual(log.lines[0], "access log reopened")
        self.assertIn("the old access log stays open: --access-log: cannot write", log.lines[1])

    def test_moved_while_full(self) -> None:
        """What finds no room in the old file is in the new one, each line whole, and nothing is
        dropped; a file that nobody moved stays open."""
        self.patch(writing, "RETRY", 20)
        made = self.open("json")
        made.reopen()
        full, before = NearlyFullSink(), dropped(ACCESS)
        writer = made._writer
        self.patch(writer, "_sink", full)
        for _ in range(5):
            self.end_one()
        deadline = time.monotonic() + PATIENCE
        while not writer._fault and time.monotonic() < deadline:
            time.sleep(0.002)
        made.reopen()
        self.assertIs(made._writer, writer)
        os.rename(self.path, self.path + ".1")
        made.reopen()
        self.end_one()
        writer._thread.join(20)  # type: ignore[union-attr]
        self.assertTrue(made.close(20))
        told = [json.loads(line)["id"] for line in lines_of(self.path, 6)]
        self.assertEqual(sorted(told), [1, 2, 3, 4, 5, 6])
        self.assertEqual(dropped(ACCESS), before)

    def test_full(self) -> None:
        """What finds no room is dropped and counted, apart from the log's own lines; the file says
        so once it can be written."""
        for kind in ("text", "json"):
            made = self.open(kind)
            sink = FullSink()
            self.patch(made._writer, "_sink", sink)
            self.patch(writing, "RETRY", 0.01)
            self.patch(made._writer, "_bound", 2000)
            before = dropped(ACCESS), dropped()
            self.end_one()
            deadline = time.monotonic() + PATIENCE
            while not made._writer._fault and time.monotonic() < deadline:
                time.sleep(0.002)  # threads have no events of ours
            for _ in range(19):
                self.end_one()
            lost = dropped(ACCESS) - before[0]
            self.assertGreater(lost, 5)
            self.assertEqual(dropped(), before[1])
            sink.full = False
            self.assertTrue(made._writer.flush(20))
            lines = sink.data.decode().splitlines()
            self.assertEqual(len(lines), 20 - lost + 1)
            last = json.loads(lines[-1]) if kind == "json" else read_text(lines[-1] + "\n")
            self.assertEqual(list(last), ["time", "dropped", "problem"])
            self.assertEqual(str(last["dropped"]), str(lost))
            self.assertEqual(last["problem"], os.strerror(errno.ENOSPC))
            made.close()
            self.assertEqual(dropped(ACCESS) - before[0], lost)

    def test_a_crowd(self) -> None:
        """All of 10 000 that end at once find room, while nothing is written."""
        made = self.open("json")
        sink = FullSink()
        self.patch(made._writer, "_sink", sink)
        before = dropped(ACCESS)
        for _ in range(10_000):
            made.ended(replace(ROW, detail="x" * 100))
        self.assertEqual(dropped(ACCESS), before)
        made.close(0)

    def test_no_file(self) -> None:
        """A file that cannot be written is one line about the option."""
        error = raised(ConfigError, AccessLog, os.path.dirname(self.path), "text")
        self.assertEqual(error.option, "--access-log")


class OptionTests(SynchronousTestCase):
    def test_together(self) -> None:
        """A format without a log, and two logs in one file, are refused."""
        error = raised(ConfigError, settings, "--access-log-format=json")
        self.assertIn("there is no access log without --access-log", str(error))
        error = raised(ConfigError, settings, "--access-log=./a.log", "--logfile=a.log")
        self.assertEqual(error.option, "--access-log")
        self.assertIn("is the file of --logfile too", str(error))


class GatewayTests(ServiceTestCase):
    """Of a whole gateway."""

    async def test_all(self) -> None:
        """Lines of a gateway on sockets, on either path: renewed by SIGHUP, whole at the end."""
        for relay in ("off", "auto"):
            path = os.path.join(self.directory, f"access-{relay}.log")
            service = self.start(
                f"--access-log={path}",
                "--access-log-format=json",
                "--log-address=prefix",
                f"--relay={relay}",
            )
            port = cast(Any, service.ports["client"].getHost()).port
            for number in (1, 2):
                endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
                peer = cast(Peer, await endpoint.connect(Factory.forProtocol(Peer)))
                peer.send(PING)
                await peer.expect(PING)
                if number == 2:
                    break
                peer.end()
                connected = service.router_service.connected
                await until("its end", lambda: not connected)  # noqa: B023
                os.rename(path, f"{path}.1")
                os.kill(os.getpid(), signal.SIGHUP)
                while not os.path.exists(path):
                    await turns(1)
            await service.stopService()
            found: list[dict[str, Any]] = []
            for name in (f"{path}.1", path):
                found += map(json.loads, lines_of(name, 1))
            self.assertEqual(
                [(row["id"], row["addr"], row["bytes_in"], row["reason_code"]) for row in found],
                [(1, "127.0.0.0/24", 9, "peer_closed"), (2, "127.0.0.0/24", 9, "shutdown")],
            )

    async def test_refused(self) -> None:
        """A gateway whose access log cannot be written does not start, and says which option."""
        service = self.make(f"--access-log={self.directory}/missing/a.log")
        error = raised(ConfigError, service.check)
        self.assertEqual(error.option, "--access-log")
        self.assertIn("missing is not a directory", str(error))
