"""`fastway top`: what a gateway does, live in the terminal.

Rule: a picture is made of two looks at the gateway and is lines of text; where they go, and when
the next one is due, is the loop's business. What is changed of the terminal is put back.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastway.cli.remote import look
from fastway.cli.table import TopOptions
from fastway.logs import escaped

ROWS = 10
"""Links in a picture that goes to no terminal."""

HOME, CLEAR, HIDE, SHOW = "\x1b[H", "\x1b[J", "\x1b[?25l", "\x1b[?25h"
OTHER, BACK, END = "\x1b[?1049h", "\x1b[?1049l", "\x1b[K"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"

Look = dict[str, Any]


def top(options: TopOptions) -> int:
    """`fastway top`."""
    if options["once"] or not sys.stdout.isatty():
        before = glance(options)
        time.sleep(min(options["interval"], 1.0))
        print("\n".join(picture(before, glance(options), ROWS)))
        return 0
    before = glance(options)
    with screen():
        wait = 0.2  # the first rates soon
        while not asked_to_stop(wait):
            now = glance(options)
            show(picture(before, now, shutil.get_terminal_size().lines - 14))
            before, wait = now, options["interval"]
    return 0


def glance(options: TopOptions) -> Look:
    """One look: the status, and the links that sent or got the most."""
    status: Look = look(options, "/v1/status")
    links: dict[tuple[Any, ...], Look] = {}
    for way in ("in", "out"):
        found = look(options, f"/v1/links?sort=bytes_{way}&limit=100")["links"]
        links.update((key(link), link) for link in found)
    status["links"] = list(links.values())
    return status


def picture(before: Look, now: Look, rows: int) -> list[str]:
    """The lines of one picture.

    Args:
        before: A look,
        now: and a later one.
        rows: Links that there is room for.
    """
    seconds: float = max(now["time"] - before["time"], 0.001)
    if now["pid"] != before["pid"]:
        before = now  # another process

    def rate(read: Callable[[Look], float]) -> float:
        return float(read(now) - read(before)) / seconds

    router = now["router"]
    queues, process, relay = now["queues"], now["process"], now["relay"]
    drain = now["drain"]
    state = now["state"] if drain is None else f"{now['state']} ({drain['state']})"
    if drain is not None:
        state += f", {drain['left']} clients left, {drain['seconds']:.0f} s"
    elif not now["ready"]["ok"]:
        state += f", not ready: {now['ready']['why']}"
    cpu = rate(lambda look: look["process"]["cpu"])
    lines = [
        f"fastway {now['version']}  process {now['pid']}  up {span(now['uptime'])}  {state}",
        "  ".join(f"{port['name']} {port['addr']} ({port['links']})" for port in now["ports"]),
        "",
        f"clients {now['clients']['connected']:>9}   "
        f"+{rate(lambda look: look['clients']['since_start']):.1f}/s   "
        f"lost {rate(lost):.1f}/s   turned away {rate(lambda look: look['turned_away']):.1f}/s",
        f"servers {now['servers']['connected']:>9}   {now['server_ids']} ids",
        f"virtual {router['open']:>9}   "
        f"dials {rate(lambda look: look['router']['dials']):.1f}/s   "
        f"pings {rate(lambda look: look['router']['pings']):.1f}/s",
        f"forwarded {short(rate(lambda look: look['router']['packets'])):>7} packets/s   "
        f"{short(rate(lambda look: look['router']['bytes']), 1024)}B/s",
        f"waiting {short(queues['bytes'] + queues['input'], 1024):>9}B  "
        f"in {queues['packets']} packets; {queues['held']} links not read from",
        f"process {100 * cpu:>8.0f}%  memory {short(process['memory'], 1024)}B   "
        f"files {process['files']} of {process['max_files']}"
        + ("" if relay is None else f"   pool {short(relay['used'], 1024)}B"),
        "",
        f"{'':1}{'SIDE':<7}{'ID':>10} {'ADDRESS':<28}{'CONNS':>6}{'IN/s':>9}{'OUT/s':>9}"
        f"{'WAITS':>8}{'TIME':>9}  USER",
    ]
    lines += list(busiest(before, now, seconds, max(rows, 1)))
    return [escaped(line) for line in lines]


def busiest(before: Look, now: Look, seconds: float, rows: int) -> Iterator[str]:
    """Rows of the links with the highest rates."""
    earlier = {key(link): link for link in before["links"]}

    def speed(link: Look, field: str) -> float:
        old = earlier.get(key(link))
        return 0.0 if old is None else max(0.0, (link[field] - old[field]) / seconds)

    links = sorted(
        now["links"],
        key=lambda link: (-speed(link, "bytes_in") - speed(link, "bytes_out"), key(link)),
    )
    for link in links[:rows]:
        mark = "-" if link["lost"] else "~" if link["cut"] is not None else " "
        yield (
            f"{mark}{link['side']:<7}{link['link_id'] or '?':>10} {link['addr'][:27]:<28}"
            f"{link['conns']:>6}{short(speed(link, 'bytes_in'), 1024):>9}"
            f"{short(speed(link, 'bytes_out'), 1024):>9}{short(link['waiting_bytes'], 1024):>8}"
            f"{span(link['seconds']):>9}  {link['user']}".rstrip()
        )


def key(link: Look) -> tuple[Any, ...]:
    """What tells links apart."""
    return link["side"], link["link_id"], link["addr"]


def lost(told: Look) -> int:
    """Links lost since the start."""
    return sum(int(row["count"]) for row in told["lost"])


def short(number: float, step: int = 1000) -> str:
    """`1.2M`."""
    for unit in ("", "K", "M", "G", "T"):
        if abs(number) < step or unit == "T":
            break
        number /= step
    return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"


def span(seconds: float) -> str:
    """`3h12m`."""
    whole = int(seconds)
    for size, large, small in ((86400, "d", "h"), (3600, "h", "m"), (60, "m", "s")):
        if whole >= size:
            part = {"h": 3600, "m": 60, "s": 1}[small]
            return f"{whole // size}{large}{whole % size // part:02}{small}"
    return f"{whole}s"


# The terminal.


@contextmanager
def screen() -> Iterator[None]:
    """A terminal of its own, which gives each key at once; all as before afterwards."""
    import termios
    import tty

    keys = sys.stdin.fileno() if sys.stdin.isatty() else -1
    old = termios.tcgetattr(keys) if keys >= 0 else None
    try:
        if old is not None:
            tty.setcbreak(keys)
        print(OTHER + HIDE, end="", flush=True)
        yield
    except KeyboardInterrupt:
        pass
    finally:
        print(SHOW + BACK, end="", flush=True)
        if old is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, old)


def show(lines: list[str]) -> None:
    """Put a picture where the last one was."""
    size = shutil.get_terminal_size()
    cut = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
    heads = (0, 10)
    rows = [f"{BOLD}{line}{PLAIN}" if at in heads else line for at, line in enumerate(cut)]
    print(HOME + "".join(f"{row}{END}\n" for row in rows) + CLEAR, end="", flush=True)


def asked_to_stop(seconds: float) -> bool:
    """Wait; whether q was typed meanwhile."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or b"q" in typed.lower():
                return True
    return False
