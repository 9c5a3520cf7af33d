"""How a steady, honest pair fares beside who attacks a gateway's door: WebSocket, TLS, PROXY
headers, limits; quiet first, then with the attack.

    python -m bench.siege [--only 1,3,slow] [--quick] [--runs N] [--seconds S] [--options "..."]
                          [--lanes relay,python] [--key KEY] [--tsv FILE] [--build DIRECTORY]

As `bench.attack`, with `knock.c` as who attacks. Clients speak what the scenario is about, the
pair too; what a checkout does not offer is left out with one line. When it is over the gateway is
asked for its counters: the reasons that a scenario expects must be among them, and nobody may be
left but the pair.

Law: figures are compared within one run only.
"""

from __future__ import annotations

import argparse
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.attack import Scenario, attack_all, choose, common_arguments
from bench.edge import LANES, lane_gateways, listed, make_certificate
from bench.gateways import ROOT, Gateway, build, compiler, openssl, run
from bench.table import Result

ROWS = re.compile(
    r"(?:links lost: .*|turned away at the door: .*|\w+ (?:of|by|for) [\w ]+s: .*|limit.*: .*)"
)
"""Lines of `status` that count those who were not let in, or not let stay."""
OPEN = re.compile(r"client(?: \d+)? port: .*; (\d+) connections, (\d+) at their handshakes")


@dataclass(frozen=True)
class Siege(Scenario):
    """An attack at the door.

    Attributes:
        speaks: What the port speaks.
        expects: What the counters must name afterwards.
    """

    speaks: str = "ws"
    expects: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        return True

    def look(self, said: str) -> Result:
        rows = " | ".join(ROWS.findall(said))
        wrong = [f"no {one}" for one in self.expects if one not in rows]
        left = sum(int(count) for count, _ in OPEN.findall(said))
        if left != 1:
            wrong.append(f"{left} connections left")
        return {"said": rows, **({"wrong": "; ".join(wrong)} if wrong else {})}


ONE, TWO, THREE = (f"127.0.0.{number}" for number in (1, 2, 3))
"""The pair's address, and two of attackers."""
CROWDED = "too many handshakes are under way"
PROXIES = ("--client-proxy-from", f"{ONE},{TWO}")


def sieges() -> list[Siege]:
    """All, in their order."""
    refused = "its WebSocket handshake was refused"
    return [
        Siege(
            1, "3000 slow requests (ws)", "slow -c 3000", expects=(CROWDED,), longer=3, quick=True
        ),
        Siege(1, "3000 who say nothing (ws)", "silence -c 3000", expects=(CROWDED,), longer=3),
        Siege(1, "garbage (ws)", "garbage", expects=(refused,), quick=True),
        Siege(1, "requests without an end (ws)", "head", expects=(refused,), quick=True),
        Siege(2, "fragments without an end (ws)", "fragments", quick=True),
        Siege(
            2,
            "the same, 100K a second of each (ws)",
            "fragments",
            options=("--client-byte-rate", "100K"),
            quick=True,
        ),
        Siege(2, "the same without fragments (tcp)", "fragments", speaks="tcp"),
        Siege(2, "floods of Pings (ws)", "pings", quick=True),
        Siege(2, "floods of Pings, answers unread (ws)", "deaf"),
        Siege(3, "3000 slow hellos (tls)", "slow -c 3000", speaks="tls", longer=3, quick=True),
        Siege(3, "half handshakes (tls)", "half -c 300 -r 300", speaks="tls", quick=True),
        Siege(3, "garbage (tls)", "garbage", speaks="tls", quick=True),
        Siege(3, "hellos without an end (tls)", "head", speaks="tls", quick=True),
        Siege(3, "handshakes again (tls)", "renew -c 10 -r 100", speaks="tls", quick=True),
        Siege(3, "new keys (tls)", "keys -c 10 -r 100", speaks="tls", quick=True),
        *(
            Siege(
                3,
                f"{name} (tls)",
                "rush -c 2000 -r 100000",
                options=options,
                speaks="tls",
                longer=4,
            )
            for name, options in (
                ("2000 come at once", ()),
                ("the same, limit-tls-rate 1000", ("--limit-tls-rate", "1000")),
                ("the same, without limit-tls-rate", ("--limit-tls-rate", "0")),
            )
        ),
        Siege(3, "3000 slow hellos (wss)", "slow -c 3000", speaks="wss", longer=3),
        Siege(3, "half handshakes (wss)", "half -c 300 -r 300", speaks="wss"),
        Siege(
            4, "3000 slow headers", f"slow -c 3000 -a {TWO}", "", PROXIES, 0, 3, True, "proxy-tcp"
        ),
        Siege(4, "cut headers", f"cut -a {TWO}", "", PROXIES, 0, 1, True, "proxy-tcp"),
        Siege(
            4, "garbage for a header", f"garbage -a {TWO}", "", PROXIES, 0, 1, True, "proxy-tcp"
        ),
        Siege(4, "claimed addresses", f"spoof -a {THREE}", "", PROXIES, 0, 1, True, "proxy-tcp"),
        *(
            Siege(
                5,
                f"5000 of one address ({speaks})",
                f"crowd -c 5000 -r 2000 -a {TWO}",
                expects=("its address has as many connections as one may have",),
                options=("--limit-address-connections", "50"),
                speaks=speaks,
                longer=2,
                quick=speaks == "tcp",
            )
            for speaks in ("tcp", "ws", "tls")
        ),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    known = list(LANES)
    parser.add_argument("--lanes", default=",".join(known), type=lambda text: listed(text, known))
    return parser.parse_args()


def offered(
    chosen: list[Siege], arguments: argparse.Namespace, directory: Path
) -> Iterator[tuple[Siege, list[Gateway]]]:
    """Each with those that it can be tried on."""
    options = shlex.split(arguments.options)
    if arguments.key:
        options += ["--server-auth-password", arguments.key]
    found: dict[tuple[str, tuple[str, ...]], list[Gateway]] = {}
    for siege in chosen:
        key = siege.speaks, siege.options
        if key not in found:
            more = [*options, *siege.options]
            found[key] = list(lane_gateways(ROOT, siege.speaks, arguments.lanes, more, directory))
        yield siege, found[key]


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """Measure, and print the table."""
    chosen = choose(sieges(), arguments.only, arguments.quick)
    if not openssl(compiler() or ""):
        print("# no TLS: the programs were built without OpenSSL (libssl-dev)")
        chosen = [one for one in chosen if one.speaks not in ("tls", "wss")]
    if any(one.speaks in ("tls", "wss") for one in chosen):
        make_certificate(directory)
    programs = build(arguments.build, "-O2", names=("pair", "knock"))
    attack_all(programs, dict(offered(chosen, arguments, directory)), arguments)


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as directory:
        run(lambda: compare(arguments, Path(directory)))


if __name__ == "__main__":
    main()
