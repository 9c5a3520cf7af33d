"""How a steady, honest pair fares beside attackers: quiet first, then with the attack, one run.

    python -m bench.attack [--only 1,3,storm] [--quick] [--runs N] [--seconds S] [--options "..."]
                           [--tree PATH]... [--peer "COMMAND {client} {server}"]... [--key KEY]
                           [--tsv FILE] [--build DIRECTORY]

`pair.c` is the pair: a client and its game server, 64 bytes every 2 ms, every message checked;
`attack.c` is who loads the gateway. Every measurement has a gateway process of its own, alone on
the first core; everything else is on the last, where the pair goes first. The gateways take turns,
scenario by scenario and run by run. Another checkout of fastway, its extension built in place, is
measured beside this one with `--tree`.

A ratio says what the attack did. Not all of it is the gateway's: `noise` says how much of its time
went to others on its core, and where the kernel dropped packets of a full loopback (`drops`), a
pause may be the 200 ms, or their doubles, after which it sends again.

Law: figures are compared within one run only. An attack takes a few seconds, needs nothing but
127.0.0.1, and ends early when the gateway has more than MOST_MEMORY.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench.ends import MOST_MEMORY, SETTLE, Ends, Watch, may_go_first, put_first
from bench.gateways import (
    ROOT,
    Failure,
    Gateway,
    Running,
    build,
    fastway_gateways,
    machine,
    peer_gateway,
    run,
    running,
    tree_path,
    write_row,
)
from bench.plot import digits
from bench.process import packets_dropped, resident
from bench.table import Result


@dataclass(frozen=True)
class Scenario:
    """An attack.

    Attributes:
        group: What `--only` chooses by number.
        attack: For `attack`.
        pair: More for `pair`.
        options: More for fastway; other gateways are then left out.
        longer: How often the seconds of the others it takes.
        reports: Reports asked for by SIGUSR1 in a second; other gateways are then left out.
        quick: Is in the short form.
    """

    group: int
    name: str
    attack: str
    pair: str = ""
    options: tuple[str, ...] = ()
    reports: int = 0
    longer: float = 1
    quick: bool = False

    @property
    def is_fastway_only(self) -> bool:
        return bool(self.options or self.reports)

    @property
    def asks(self) -> bool:
        """The gateway is asked for its status when it is over."""
        return False

    def look(self, said: str) -> Result:
        """What is to be seen in it."""
        return {}


AnyScenario = TypeVar("AnyScenario", bound=Scenario)

QUIET = 20.0
"""Seconds without the attack, at most."""

COUNTS = (1, 10, 100, 200)
QUICK_FLOODS = {"100 x mix (read)", "100 x mix (unread)", "100 x dials (read)"}


def command_floods() -> Iterator[Scenario]:
    """All kinds by all counts; in brackets whether the answers are read."""
    for kind in ("dials", "pings", "strays", "mix", "closes", "churn"):
        for rate, text in ((-1, "read"), (0, "unread")):
            if rate == 0 and kind in ("closes", "churn"):  # without answers; nothing without them
                continue
            for count in COUNTS:
                name = f"{count} x {kind} ({text})"
                yield Scenario(1, name, f"{kind} -c {count} -r {rate}", quick=name in QUICK_FLOODS)


def scenarios() -> list[Scenario]:
    """All, in their order."""
    return [
        *command_floods(),
        *(
            Scenario(
                2,
                f"{count} x messages (server reads {text})",
                f"messages -c {count} -r {rate}",
                quick=count == 100,
            )
            for rate, text in ((-1, "all"), (0, "nothing"))
            for count in (100, 1000)
        ),
        Scenario(
            3,
            "100 players and 1 flooder (server reads 2 MB/s)",
            "messages -c 1 -n 3",
            "-c 100 -i 0.1 -r 2000000 -n 3 -t 30",
            longer=2,
            quick=True,
        ),
        *(
            Scenario(
                4,
                f"1 x {kind}{pieces and ' in pieces'} (reads {text})",
                f"{kind} -c 1 -r {rate} {pieces}",
                longer=2,
                quick=kind == "strays" and bool(pieces),
            )
            for kind in ("strays", "pings")
            for pieces in ("", "-p 1024")
            for rate, text in ((0, "nothing"), (250_000, "a little"))
        ),
        Scenario(5, "storm of connections", "storm", quick=True),
        Scenario(6, "5000 clients reset", "reset -c 5000 -v 1", quick=True),
        Scenario(6, "a server of 50 000 dies", "server -c 3125 -v 16", quick=True),
        Scenario(
            6,
            "5000 clients idle out",
            "idle -c 5000 -i 3",
            options=("--client-idle-timeout", "3s"),
            quick=True,
        ),
        Scenario(
            7, "10 reports a second with 5000 clients", "crowd -c 5000", reports=10, quick=True
        ),
    ]


def measure(
    programs: Sequence[Path],
    scenario: Scenario,
    gateway: Running,
    seconds: float,
    key: str,
    settle: float = SETTLE,
) -> Result:
    """One attack on one gateway.

    Raises:
        Failure: The attackers could not be set up.
    """
    pair_program, attack_program = programs
    where = ["-k", key, *gateway.ports]
    arguments = [*scenario.attack.split(), "-d", str(seconds + 2)]
    result: Result = {"scenario": scenario.name, "group": scenario.group, "came": "all"}
    watch = Watch(gateway)
    with (
        Ends([str(pair_program), *scenario.pair.split(), *where], first=True) as pair,
        Ends([str(attack_program), *arguments, *where]) as attack,
    ):

        def phase(name: str) -> None:
            pair.say()
            figures = json.loads(pair.hear())
            result.update({f"{field}_{name}": figure for field, figure in figures.items()})

        for one in (pair, attack):
            one.hear()
        watch.pass_time(0.3)
        try:
            phase("none")
            result["cpu_quiet"], result["noise_quiet"] = watch.pass_time(min(seconds / 2, QUIET))
            phase("quiet")
            result["rss_before"] = resident(gateway.pid)
            log, dropped = watch.log_bytes(), packets_dropped()
            attack.say()
            attack.hear()
            phase("none")
            cpu, noise = watch.pass_time(seconds, scenario.reports)
            result["cpu_attack"], result["noise_attack"] = cpu, noise
            phase("attack")
            attack.say()
            done = json.loads(attack.hear())
            result["sent_per_second"] = done["done"] / done["seconds"] if done["seconds"] else 0
            result["lost"] = done["lost"]
            result |= {name: done[name] for name in ("half_in", "all_in") if done.get(name)}
            attack.end_input()
            attack.process.kill()
            watch.pass_time(settle)
            phase("after")
            if scenario.asks:
                result |= scenario.look(watch.status())
            result["drops"] = packets_dropped() - dropped
            result["rss_peak"], result["rss_after"] = watch.peak, resident(gateway.pid)
            result["log_bytes"] = watch.log_bytes() - log
            pair.end_input()
            pair.hear()
        except Failure as failure:
            result["came"] = str(failure)
        except OSError:
            result["came"] = "the gateway ended"
        if result.get("wrong"):
            result["came"] += f"; {result['wrong']}"
        if watch.stopped:
            result["came"] += f"; stopped at {MOST_MEMORY >> 30} GB"
    return result


COLUMNS = """
    run gateway group scenario p50_us_quiet p50_us_attack p99_us_quiet p99_us_attack
    longest_us_quiet longest_us_attack longest_us_after waiting_us_attack waiting_us_after
    cpu_quiet cpu_attack noise_quiet noise_attack drops rss_before rss_peak rss_after came
    sent_per_second lost half_in all_in log_bytes said
""".split()  # noqa: SIM905
"""Of the TSV. `waiting`: how long a message had waited that was still out; `noise`: the part of
the time for which something else had the gateway's core; `lost`: attackers cut off; `half_in`,
`all_in`: seconds until so many of a rush were served; `said`: what `status` says of them."""


def middle(results: Sequence[Result], field: str) -> float | None:
    known = [one[field] for one in results if one.get(field) is not None]
    return median(known) if known else None


def change(results: Sequence[Result], field: str) -> str:
    """Of the pair, in ms, quiet and attacked, and the median of the runs' ratios."""
    quiet, attack = middle(results, f"{field}_quiet"), middle(results, f"{field}_attack")
    if quiet is None or attack is None:
        return "-"
    ratios = [
        one[f"{field}_attack"] / one[f"{field}_quiet"]
        for one in results
        if one.get(f"{field}_attack") is not None and one[f"{field}_quiet"]
    ]
    ratio = f" ({digits(median(ratios))})" if ratios else ""
    least = "≥" if any(one.get("waiting_us_attack", 0) > attack for one in results) else ""
    return f"{digits(quiet / 1e3)} → {least}{digits(attack / 1e3)}{ratio}"


def several(results: Sequence[Result], scale: float, *fields: str) -> str:
    figures = [middle(results, field) for field in fields]
    return " → ".join("-" if one is None else digits(one / scale) for one in figures)


def count(results: Sequence[Result], field: str) -> str:
    figure = middle(results, field)
    return "-" if figure is None else f"{figure:.0f}"


HEAD = [
    "scenario",
    "gateway",
    "p50, ms",
    "p99, ms",
    "longest, ms: attack → after",
    "CPU, %",
    "noise, %",
    "drops",
    "RSS, MB: before → peak → after",
    "came",
    "sent/s",
    "cut off",
    "in, s: half → all",
    "log, KB",
]


def row(name: str, gateway: str, results: Sequence[Result]) -> list[str]:
    came = {str(one["came"]) for one in results} or {"-"}
    return [
        name,
        gateway,
        change(results, "p50_us"),
        change(results, "p99_us"),
        several(results, 1e3, "longest_us_attack", "longest_us_after"),
        several(results, 0.01, "cpu_quiet", "cpu_attack"),
        several(results, 0.01, "noise_quiet", "noise_attack"),
        count(results, "drops"),
        several(results, 1e6, "rss_before", "rss_peak", "rss_after"),
        "; ".join(sorted(came)),
        count(results, "sent_per_second"),
        count(results, "lost"),
        several(results, 1, "half_in", "all_in"),
        several(results, 1e3, "log_bytes"),
    ]


def lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Markdown, in columns."""
    rows = [HEAD, *rows]
    widths = [max(len(one[column]) for one in rows) for column in range(len(HEAD))]
    for number, one in enumerate(rows):
        yield f"| {' | '.join(map(str.ljust, one, widths))} |"
        if number == 0:
            yield f"| {' | '.join('-' * width for width in widths)} |"


def choose(known: Sequence[AnyScenario], only: str, quick: bool) -> list[AnyScenario]:
    """Those of the groups, or with the texts in their name, that `only` lists.

    Raises:
        Failure: There are none.
    """
    parts = [part.strip() for part in only.split(",")]
    chosen = [
        one
        for one in known
        if (one.quick or not quick)
        and any(str(one.group) == part if part.isdigit() else part in one.name for part in parts)
    ]
    if not chosen:
        raise Failure(f"no such scenario; there are: {', '.join(o.name for o in known)}")
    return chosen


def common_arguments(doc: str | None) -> argparse.ArgumentParser:
    """What every bench of attacks takes."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0] if doc else "")
    add = parser.add_argument
    add("--only", default="", metavar="LIST", help="numbers of groups, or texts of names")
    add("--quick", action="store_true", help="the short form")
    add("--runs", type=int, default=1, metavar="N")
    add("--seconds", type=float, metavar="S", help="of attack; half as long it is quiet before")
    add("--options", default="", metavar="TEXT", help="more options for fastway")
    add("--key", default="", help="the server key; a peer must be given it in its command")
    add("--settle", type=float, default=SETTLE, metavar="S", help="until memory is read after it")
    add("--alone", action="store_true", help="the gateway goes before others on its core")
    add("--tsv", metavar="FILE", help="every result of every run")
    add("--build", type=Path, default=ROOT / "build" / "bench", metavar="DIRECTORY")
    return parser


def parse_arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    add = parser.add_argument
    add("--tree", action="append", default=[], type=tree_path, metavar="PATH", help="a checkout")
    add("--others", action="store_true", help="measure the trees and peers, not this fastway")
    add("--peer", action="append", default=[], metavar="COMMAND", help="another gateway")
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    programs = build(arguments.build, "-O2", names=("pair", "attack"))
    options = shlex.split(arguments.options)
    if arguments.key:
        options += ["--server-auth-password", arguments.key]
    chosen = choose(scenarios(), arguments.only, arguments.quick)
    gateways: list[Gateway] = []
    for tree in [*([] if arguments.others else [ROOT]), *arguments.tree]:
        gateways += fastway_gateways(options, tree)
    gateways += map(peer_gateway, arguments.peer)
    if not gateways:
        raise Failure("no gateway to attack")

    def those(scenario: Scenario) -> list[Gateway]:
        return [one for one in gateways if one.tree is not None or not scenario.is_fastway_only]

    attack_all(programs, {scenario: those(scenario) for scenario in chosen}, arguments)


def attack_all(
    programs: Sequence[Path],
    chosen: Mapping[Scenario, Sequence[Gateway]],
    arguments: argparse.Namespace,
) -> None:
    """Carry out each scenario against its gateways, which take turns, and print the table."""
    seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    first = "" if may_go_first() else "; THE PAIR SHARES ITS CORE WITH THE ATTACKERS"
    head = f"# {machine()}; {arguments.runs} runs, {seconds:g} s of attack in each{first}"
    print(head, flush=True)
    found: dict[tuple[str, str], list[Result]] = {}
    with contextlib.ExitStack() as stack:
        file = arguments.tsv and stack.enter_context(open(arguments.tsv, "w", encoding="utf-8"))
        if file:
            file.write(f"{head}\n")
            write_row(file, COLUMNS, dict(zip(COLUMNS, COLUMNS, strict=True)))
        for run in range(arguments.runs):
            for scenario, gateways in chosen.items():
                turns = run % max(1, len(gateways))
                for gateway in [*gateways[turns:], *gateways[:turns]]:
                    command = [*gateway.command, *scenario.options]
                    length = seconds * scenario.longer
                    try:
                        with running(replace(gateway, command=command)) as process:
                            if arguments.alone:
                                put_first(process.pid)
                            result = measure(
                                programs,
                                scenario,
                                process,
                                length,
                                arguments.key,
                                arguments.settle,
                            )
                    except Failure as failure:
                        result = {"scenario": scenario.name, "came": str(failure)}
                    found.setdefault((scenario.name, gateway.name), []).append(result)
                    if file:
                        named = {"run": run + 1, "gateway": gateway.name}
                        write_row(file, COLUMNS, named | result)
    for line in lines([row(*key, found[key]) for key in found]):
        print(line)


def main() -> None:
    run(lambda: compare(parse_arguments()))


if __name__ == "__main__":
    main()
