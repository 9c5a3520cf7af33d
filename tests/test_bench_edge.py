"""The load over WebSocket, TLS and both: every case passes, and what is no WebSocket is caught.

Rule: nothing here asks how fast anything is. The C programs run with sanitizers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

import bench.edge
import bench.gateways
from bench.edge import CASES, LANES, SPEAKS, lane_gateways, listed, make_certificate
from bench.ends import Ends
from bench.gateways import (
    ROOT,
    Failure,
    Gateway,
    Running,
    build,
    measure,
    running,
)
from tests.support.benches import DIRECTORY, KEY, QUICK, floor_gateway, programs, with_tls
from tests.support.websocket import ACCEPT

MORE = ["--server-auth-password", KEY, "--max-clients", "40"]


class LayerTests(SynchronousTestCase):
    """Every case of load over each transport, and one on each lane that is offered."""

    loads: ClassVar[dict[str, str]] = {
        "echo": "echo -c 5 -v 3 -w 4 -s 100",
        "the shortest message": "echo -c 2 -s 8",
        "frames of a long length": "echo -c 2 -w 3 -s 70001",
        "the longest message": "echo -c 1 -w 2 -s 524284",
        "fan-in": "fan-in -c 5 -v 2 -w 50",
        "fan-out": "fan-out -c 5 -v 2 -w 3",
        "dial": "dial -c 5",
        "connect": "connect -c 40 -w 8",
        "refuse": "refuse -c 40 -w 4",
    }

    def run_loads(self, speaks: str) -> None:
        load, _, pair, *_ = programs()
        with tempfile.TemporaryDirectory() as directory:
            make_certificate(Path(directory))
            with contextlib.redirect_stdout(io.StringIO()):
                gateways = list(lane_gateways(ROOT, speaks, list(LANES), MORE, Path(directory)))
            self.assertIn(f"python-{speaks}", [gateway.name for gateway in gateways])
            for number, gateway in enumerate(gateways):
                with running(gateway) as process:
                    for name, arguments in list(self.loads.items())[: None if number else 1]:
                        result = measure(load, [*arguments.split(), *QUICK], process)
                        self.assertGreater(result["count"], 0, (gateway.name, name))
                    self.run_pair(pair, process)

    def run_pair(self, pair: Path, gateway: Running) -> None:
        """The pair talks by it too."""
        with Ends([str(pair), "-c", "3", "-k", KEY, *gateway.ports]) as ends:
            self.assertEqual(ends.hear(), "ready")
            ends.say()
            self.assertGreaterEqual(json.loads(ends.hear())["count"], 0)
            ends.end_input()
            self.assertEqual(ends.hear(), "all")

    def test_ws(self) -> None:
        self.run_loads("ws")

    def test_tls(self) -> None:
        with_tls()
        self.run_loads("tls")

    def test_wss(self) -> None:
        with_tls()
        self.run_loads("wss")


SWITCHED = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


@contextlib.contextmanager
def saying(words: bytes) -> Iterator[str]:
    """The address of somebody who answers a request with these words."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                client.recv(4096)
                client.sendall(words)
                client.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


class WrongTests(SynchronousTestCase):
    """What a gateway may not do ends load with a line that says so."""

    def hear(self, speaks: str, words: bytes) -> str:
        load, *_ = programs()
        with running(floor_gateway()) as floor, saying(words) as address:
            try:
                return str(
                    measure(
                        load,
                        ["connect", "-t", "5"],
                        Running(floor.pid, address, floor.server, speaks),
                    )
                )
            except Failure as failure:
                return str(failure)

    def test_websocket(self) -> None:
        """Answers that are none, and frames that break the rules."""
        for words, expected in {
            b"HTTP/1.1 403 Forbidden\r\n\r\n": "no WebSocket: HTTP/1.1 403 Forbidden",
            SWITCHED.replace(b"s3pP", b"s3pQ"): "answered without a proof",
            bytes(5000): "an answer of more than",
            SWITCHED + b"\x82\x85abcd": "the gateway masks its frames",
            SWITCHED + b"\x81\x01x": "a WebSocket frame that begins with 81",
            SWITCHED + b"\xc2\x01x": "a WebSocket frame that begins with c2",
            SWITCHED + b"\x8a\x01x": "a Pong that nobody asked for",
            SWITCHED + b"\x88\x02\x03\xe8": "the gateway ended the connection of client 0",
            SWITCHED + b"\x82\x05" + bytes(5): "a packet of an impossible length, 0",
        }.items():
            self.assertIn(expected, self.hear("ws", words), words)

    def test_tls(self) -> None:
        with_tls()
        self.assertIn("TLS: ", self.hear("tls", b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    def test_taken_in(self) -> None:
        """Who is one too many and is spoken to all the same is no refusal."""
        load, *_ = programs()
        said = pytest.raises(Failure, match="nobody was refused for 0")
        with running(floor_gateway()) as floor, said:
            measure(load, ["refuse", "-t", "0.2"], floor)


class EdgeTests(SynchronousTestCase):
    """The command line, and what is left out."""

    def test_command(self) -> None:
        """A column for each transport that is offered; a line for what is not."""
        patched = ["edge", "--runs", "1", "--seconds", "0.03", "--only", "100 x 1 x 16"]
        self.patch(sys, "argv", [*patched, "--lanes", "python", "--speak", "tcp,ws"])
        self.patch(bench.edge, "build", lambda *_, **__: programs()[:2])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            bench.edge.main()
        table = [line for line in output.getvalue().splitlines() if line.startswith("|")]
        names = [cell.strip() for cell in table[0].strip("|").split("|")][2:]
        self.assertEqual(names, ["floor", "python", "python-ws"])

    def test_not_offered(self) -> None:
        """A lane that does not take a transport says why."""
        fastway = [sys.executable, "-c", "import sys; sys.exit('cannot')"]
        self.patch(bench.edge, "CONSOLE", fastway)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(list(lane_gateways(ROOT, "ws", ["relay"], [], Path())), [])
        self.assertIn("# no relay-ws: relay-ws does not start; its last", output.getvalue())

    def test_wrong(self) -> None:
        """What is not known is one line."""
        self.assertEqual(listed("ws, tls", SPEAKS), ["ws", "tls"])
        command = [sys.executable, "-m", "bench.edge", "--speak", "ws,quic"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("quic is none of tcp, ws, tls, wss", done.stderr)

    def test_cases(self) -> None:
        """load knows every case: it gets as far as looking for the gateway."""
        load, *_ = programs()
        nowhere = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:1")
        for case in CASES:
            with pytest.raises(Failure, match="cannot connect"):
                measure(load, case.load.split(), nowhere)

    def test_without_openssl(self) -> None:
        """Without OpenSSL the programs are built all the same, and TLS is a line."""
        programs()
        self.patch(bench.gateways, "openssl", lambda _: [])
        (load,) = build(Path(DIRECTORY.name) / "without", "-Werror", names=("load",))
        said = pytest.raises(Failure, match="this was built without OpenSSL")
        nobody = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:1", "tls")
        with said:
            measure(load, ["connect"], nobody)
        self.patch(bench.edge, "openssl", lambda _: [])
        self.patch(bench.edge, "lane_gateways", lambda *_: [])
        command = ["edge", "--speak", "tls,wss", "--no-floor"]
        self.patch(sys, "argv", command)
        self.patch(bench.edge, "build", lambda *_, **__: programs()[:2])
        with contextlib.redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit):
            bench.edge.main()
        self.assertIn("# no TLS: the load was built without OpenSSL", output.getvalue())

    def test_floor_has_no_options(self) -> None:
        """A case with options of fastway's leaves others out."""
        (case,) = (case for case in CASES if case.options)
        floor = Gateway("floor", ["/nowhere/floor"])
        self.assertEqual(bench.gateways.measure_one(Path(), case, floor, None), {})  # type: ignore[arg-type]
