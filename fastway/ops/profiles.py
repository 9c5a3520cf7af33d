"""The commands that look into the running process: cpuprof, and the lookups.

Rule: a look costs the gateway no long turn where that can be helped, and says what it cost where
it cannot. What was begun ends by itself, at its own command, or with the gateway.
"""

from __future__ import annotations

import cProfile
import gc
import marshal
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fastway.errors import CommandError
from fastway.ops.garbage import all_objects
from fastway.ops.rundir import Report, RunDir
from fastway.ops.snapshot import Slices, Source, in_slices
from fastway.ops.status import counts
from fastway.ops.watch import ThreadWatch, Timed, TurnWatch

ROWS = 25
"""Rows of a report when the command gives no detail level."""

OBJECTS = 2000
"""Objects that are counted between two yields."""

TURNS_WATCHED = 60.0
"""Seconds for which `lookup block` watches the reactor's turns."""

THREADS_WATCHED = 600.0
"""Seconds for which `lookup threadcreate` watches where threads are made."""

_LOOKUPS = {
    "block": f" [ROWS]: where the reactor spends long turns, into fastway.block.prof; "
    f"watched for {TURNS_WATCHED:.0f} s after each",
    "gc": ": garbage collector and memory, to the log",
    "goroutine": " [ROWS]: thread stacks, pending calls, sockets, links, "
    "into fastway.goroutine.prof",
    "heap": " [ROWS]: what holds memory, into fastway.heap.prof; "
    "the first starts the tracing, lookup heap 0 ends it",
    "threadcreate": " [ROWS]: threads, and where they are made, into fastway.threadcreate.prof; "
    f"watched for {THREADS_WATCHED:.0f} s after each",
}
"""Each lookup, a method of Profiles -> how its description goes on."""

Register = Callable[[str, str, Callable[..., "str | Slices[str] | None"]], None]


class Profiles:
    """What can be looked into.

    Args:
        reactor: Whose calls and sockets are listed, and whose turns are watched.
        files: Where reports go.
        source: The gateway.
    """

    def __init__(self, reactor: Any, files: RunDir, source: Source) -> None:
        self._reactor = reactor
        self._files = files
        self._source = source
        self._profile: cProfile.Profile | None = None
        self.turns = TurnWatch(reactor)
        self.threads = ThreadWatch()
        self._turns_on = Timed(reactor, self.turns, TURNS_WATCHED)
        self._threads_on = Timed(reactor, self.threads, THREADS_WATCHED)

    def register(self, register: Register) -> None:
        """Add the commands."""
        register(
            r"cpuprof (start|stop)",
            "cpuprof start, cpuprof stop: CPU profile, into fastway.cpu.prof "
            "(python -m pstats opens it)",
            self.cpuprof,
        )
        for name, description in _LOOKUPS.items():
            register(
                rf"lookup {name}(?: (\d{{1,4}}))?",
                f"lookup {name}{description}",
                partial(self._lookup_row, name),
            )

    def lookup(self, name: str, rows: int | None = None) -> str | Slices[str]:
        """One of the lookups.

        Args:
            rows: Of the report; None: as many as it has by itself.

        Raises:
            CommandError: there is no such lookup, or it failed.
        """
        if name not in _LOOKUPS:
            raise CommandError(f"no lookup {name!r}; there are {', '.join(_LOOKUPS)}")
        look: Callable[[int | None], str | Slices[str]] = getattr(self, name)
        return look(rows)

    def _lookup_row(self, name: str, rows: str | None) -> str | Slices[str]:
        return self.lookup(name, None if rows is None else int(rows))

    def stop(self) -> None:
        """End what was begun: the watches, a profile, memory tracing."""
        self._turns_on.stop()
        self._threads_on.stop()
        if self._profile is not None:
            self._profile.disable()
            self._profile = None
        if tracemalloc.is_tracing():
            tracemalloc.stop()

    # The commands.

    def cpuprof(self, verb: str) -> str:
        if verb == "start":
            if self._profile is not None:
                raise CommandError("a profile is being taken already")
            started = cProfile.Profile()
            started.enable()
            self._profile = started
            return "profiling; cpuprof stop writes the profile"
        profile, self._profile = self._profile, None
        if profile is None:
            raise CommandError("no profile is being taken; cpuprof start begins one")
        profile.disable()
        profile.create_stats()
        stats = getattr(profile, "stats")  # noqa: B009 - mypy does not know it
        return f"written to {self._files.write('cpu.prof', marshal.dumps(stats))}"

    def block(self, level: int | None) -> str:
        path = self._files.write("block.prof", self.turns.report(_rows(level)))
        return f"{self.turns.long_turns} long turns, written to {path}; {self._turns_on.ask()}"

    def gc(self, level: int | None) -> Slices[str]:
        tracked = 0
        held = 0.0
        for generation in range(len(gc.get_threshold())):
            began = time.perf_counter()
            tracked += len(gc.get_objects(generation=generation))
            held = max(held, time.perf_counter() - began)
            yield
        rows = [
            f"enabled: {gc.isenabled()}, thresholds: {gc.get_threshold()}, "
            f"allocations since: {gc.get_count()}, uncollectable: {len(gc.garbage)}",
            f"tracked objects: {tracked}, counted in a turn of {held * 1000:.0f} ms, "
            f"frozen: {gc.get_freeze_count()}",
            f"memory: {self._source.memory() // 1024} KiB resident",
        ]
        for generation, stats in enumerate(gc.get_stats()):
            figures = ", ".join(f"{name} {count}" for name, count in stats.items())
            rows.append(f"generation {generation}: {figures}")
        return "\n".join(rows)

    def goroutine(self, level: int | None) -> Slices[str]:
        rows = _rows(level)
        with self._files.report("goroutine.prof") as out:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            frames = sys._current_frames()
            stacks = {ident: traceback.format_stack(frame) for ident, frame in frames.items()}
            del frames  # not kept while others run
            out.write(f"threads: {len(stacks)}\n")
            for ident, stack in stacks.items():
                out.write(f"\n{names.get(ident, '?')} ({ident})\n")
                out.write("".join(stack))
                yield
            calls = sorted(self._reactor.getDelayedCalls(), key=lambda call: call.getTime())
            out.write(f"\npending calls: {len(calls)}\n")
            now = self._reactor.seconds()
            for call in calls[:rows]:
                name = _name(getattr(call, "func", call))
                out.write(f"in {call.getTime() - now:.3f} s: {name}\n")
            yield
            yield from _selectables(out, "readers", self._reactor.getReaders(), rows)
            yield from _selectables(out, "writers", self._reactor.getWriters(), rows)
            links = yield from self._source.links()
            found = 0
            for pause, link in in_slices(links):
                found += 1
                row = self._source.row(link) if found <= rows else None
                if row is not None:
                    out.write(f"{row.side} {row.link_id or '?'} {row.addr}\n")
                if pause:
                    yield
            out.write(f"\nlinks: {found}\n")
        return f"{len(stacks)} threads, {found} links, written to {out.path}"

    def heap(self, level: int | None) -> Slices[str]:
        rows = _rows(level)
        if level is not None and rows == 0:
            tracemalloc.stop()
            return "memory is not traced any more"
        note = ""
        with self._files.report("heap.prof") as out:
            out.write(f"resident: {self._source.memory()} bytes\n")
            began = time.perf_counter()
            things = all_objects()
            held = time.perf_counter() - began
            tracked = len(things)
            kinds: Counter[str] = Counter()
            while things:
                kinds.update(type(thing).__qualname__ for thing in things[-OBJECTS:])
                del things[-OBJECTS:]
                yield
            out.write(f"\ntracked objects: {tracked}\n")
            for kind, count in kinds.most_common(rows):
                out.write(f"{count}\t{kind}\n")
            if tracemalloc.is_tracing():
                began = time.perf_counter()
                traces = tracemalloc.take_snapshot().traces
                held = max(held, time.perf_counter() - began)
                current, peak = tracemalloc.get_traced_memory()
                out.write(f"\nallocated since the tracing began: {current} bytes, peak {peak}\n")
                yield
                yield from _allocations(out, traces, rows)
            else:
                tracemalloc.start()
                note = (
                    "; allocations are traced from now on and make the gateway slower: "
                    "lookup heap again lists them, lookup heap 0 ends it"
                )
                out.write(f"\nallocations by line: not traced until now{note}\n")
        return f"written to {out.path}; it took a turn of {held * 1000:.0f} ms{note}"

    def threadcreate(self, level: int | None) -> str:
        rows = _rows(level)
        threads = threading.enumerate()
        with self._files.report("threadcreate.prof") as out:
            out.write(f"live threads: {len(threads)}\n")
            for thread in threads[:rows]:
                kind = "daemon" if thread.daemon else "not daemon"
                out.write(f"{thread.name} ({thread.native_id}, {kind})\n")
            out.write("\n" + self.threads.report(rows))
        return f"{len(threads)} threads, written to {out.path}; {self._threads_on.ask()}"


def _selectables(out: Report, what: str, selectables: list[Any], rows: int) -> Slices[None]:
    kinds: Counter[str] = Counter()
    for pause, selectable in in_slices(selectables):
        kinds[type(selectable).__name__] += 1
        if pause:
            yield
    out.write(f"\n{what}: {len(selectables)}{counts(kinds)}\n")
    for selectable in selectables[:rows]:
        out.write(f"{selectable!r}\n")
    yield


def _allocations(out: Report, traces: Iterable[tracemalloc.Trace], rows: int) -> Slices[None]:
    """The lines that hold most, counted in slices: tracemalloc's own count is one long turn."""
    sizes: Counter[tuple[str, int]] = Counter()
    numbers: Counter[tuple[str, int]] = Counter()
    for pause, trace in in_slices(traces):
        frame = trace.traceback[-1]
        if frame.filename != tracemalloc.__file__:
            place = frame.filename, frame.lineno
            sizes[place] += trace.size
            numbers[place] += 1
        if pause:
            yield
    for (filename, line), size in sizes.most_common(rows):
        count = numbers[filename, line]
        out.write(f"{filename}:{line}: size={size} B, count={count}, average={size // count} B\n")


def _rows(level: int | None) -> int:
    return ROWS if level is None else level


def _name(call: Any) -> str:
    return str(getattr(call, "__qualname__", None) or repr(call))
