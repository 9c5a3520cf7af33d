"""The blocks of code of the pages, and how they are run.

A page is a story. Its blocks are run from the first to the last, in a directory and with ports of
their own, as a reader would who starts each block in a terminal of its own:

* `python` with a first line `# name.py` is saved under that name; a later block must use it. Any
  other `python` block is a program, which must end by itself, without an error.
* `console` has commands behind `$ `, and below each exactly what it prints. `...` stands for
  anything, and a number with a fraction for any such number. A command must succeed, unless the
  last line shown begins with `fastway NAME: `, as our tools' errors do.
* `sh` has commands without what they print; it is run as one script, which must succeed.
* `text` is what the Python block before it prints.

Indented blocks are pictures, and so are other languages; neither is run. What a page cannot say to
its readers stands above the block in a comment, which nobody sees, `<!-- run: WORD -->`:

    continues       Python: goes on in the program of the Python block before it; it may await
    beside          the same, but the blocks after it do not wait for it: it may serve for ever
    stays [TEXT]    the (last) command goes on while the next blocks are run, as soon as it has
                    printed what is shown, or a line that contains TEXT
    typed A | B     a command that stays: these of the lines shown are typed, the others its answer
    from COMMAND    text: what that command, which stayed, has printed since
    check           the command lines of a gateway are only given to `fastway check`
    no REASON       not run; REASON is one of REASONS
    gateway [snet]  for the whole page, at its top: a gateway runs on 9010 and 9020; with snet
                    another on 9011 and 9021, whose client port speaks that. The key is `secret`

Rule: the ports of the pages become free ones of 127.0.0.1, and come back in what is printed.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support import forks
from tests.support.files import CHECKOUT
from tests.support.processes import environment, free_ports

REASONS = {
    "installs": "it needs the network",
    "elsewhere": "it is about machines, files or names that are not here",
    "long": "it takes long, and another test runs it",
}
"""Why a block may be left out."""

WORDS = ("continues", "beside", "stays", "typed", "from", "check", "no", "gateway")
RUN = ("python", "console", "sh", "text")

PORTS = (
    *("9010", "9011", "9020", "9021", "9080", "9081", "9110", "9120", "9130", "9140"),
    *("3250", "3251", "3260", "3270", "8080", "8280", "34570", "34571"),
)
"""The ports that the pages speak of."""

KEY, KEY_SETTING = "secret", "FASTWAY_SERVER_AUTH_PASSWORD"

PYTHON = """
case "$1 $2" in "-m pytest") ;; -m\\ *|*.py\\ *) exec {forked} "$@";; esac
exec {python} "$@"
"""
"""A `python` that begins quickly where it does not matter to the program."""

DEFAULTS = """
run="{forked} -m fastway" name=$1
case " $* " in *" --gateway"*|*" --client-addr"*|*" -ClientAddr"*) exec $run "$@";; esac
case $name in
    client|play|ping) shift; exec $run $name --gateway {clients} "$@";;
    serve-echo) shift; exec $run $name --gateway {servers} "$@";;
    demo) shift; exec $run $name --client-addr {clients} --server-addr {servers} \
        --client-ws-addr {web} --page-addr {page} --admin-addr unix:fastway.admin "$@";;
esac
exec $run "$@"
"""
"""A `fastway` whose ports, where none are given, are the story's."""

PATIENCE = 120.0
"""Seconds for a whole page."""


@dataclass
class Block:
    """A block of code.

    Attributes:
        line: Where it begins in its page, from 1.
        language: What stands behind the fence; "" for none; "indented".
        marks: What the comments above it say: words and what stands behind them.
    """

    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file that it is; "" if it is none."""
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found is not None and self.language == "python" else ""


def blocks(page: str) -> list[Block]:
    """The blocks of a page's text, fenced and indented, in order.

    Raises:
        ValueError: a comment says what is not known, or stands above no block.
    """
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = iter(enumerate([*page.split("\n"), ""], 1))
    before = ""
    for number, line in lines:
        mark = re.fullmatch(r"\s*<!-- run: (\w+) ?(.*?) -->", line)
        fence = re.match(r"( *)```(\w*)", line)
        inner: list[str] = []
        if mark is not None:
            check_mark(number, mark[1], mark[2])
            marks[mark[1]] = mark[2]
        elif fence is not None:
            for _, row in lines:
                if row.strip() == "```":
                    break
                inner.append(row.removeprefix(fence[1]))
            found.append(Block(number, fence[2], "\n".join(inner) + "\n", marks))
            marks = {}
        elif line.startswith("    ") and not before:
            while line.startswith("    "):
                inner.append(line[4:])
                _, line = next(lines)
            found.append(Block(number, "indented", "\n".join(inner) + "\n"))
        elif line and "gateway" not in marks and marks:
            raise ValueError(f"line {number}: a comment stands above no block")
        before = line
    return found


def check_mark(line: int, word: str, rest: str) -> None:
    """See that a comment says something.

    Raises:
        ValueError: it does not.
    """
    if word not in WORDS:
        raise ValueError(f"line {line}: {word!r} is none of {', '.join(WORDS)}")
    if word == "no" and rest not in REASONS:
        raise ValueError(f"line {line}: {rest!r} is no reason that is listed")


class Wrong(Exception):
    """A block does not do what its page says."""


def pattern(shown: str) -> str:
    """What a line may be where a page shows another run's."""
    text = re.escape(shown.rstrip()).replace(r"\.\.\.", ".*")
    return re.sub(r"\d+\\\.\d+(?!\\?\.?\d)", r"\\d+\\.\\d+", text)


class Terminal:
    """A command that runs, line by line.

    Attributes:
        said: All that it has printed so far, as far as somebody looked.
    """

    def __init__(self, story: Story, command: str, typing: bool) -> None:
        self._story = story
        self.command = command
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            ["bash", "-ec", story.with_ports(command)],
            cwd=story.directory,
            env=story.environment,
            stdin=subprocess.PIPE if typing else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._lines.put(self._story.without_ports(line.rstrip("\n")))
        self._lines.put(None)

    def next_line(self) -> str | None:
        """What it prints next; None when it is over.

        Raises:
            Wrong: nothing comes.
        """
        left = self._story.deadline - time.monotonic()
        try:
            line = self._lines.get(timeout=max(0.01, left))
        except queue.Empty:
            raise Wrong(
                f"{self.command!r} goes on, and says nothing more after {self.said}"
            ) from None
        if line is not None:
            self.said.append(line)
        return line

    def expect(self, shown: str) -> None:
        """That is the next line.

        Raises:
            Wrong: it is not.
        """
        line = self.next_line()
        if line is None or re.fullmatch(pattern(shown), line.rstrip()) is None:
            rest = self._rest() if line is not None and "Traceback" in line else []
            raise Wrong("\n".join([f"{self.command!r} shows {shown!r}; it says {line!r}", *rest]))

    def _rest(self) -> list[str]:
        rest = []
        while (line := self.next_line()) is not None:
            rest.append(line)
        return rest

    def until(self, text: str) -> None:
        """Until a line with that comes.

        Raises:
            Wrong: it ends before.
        """
        while (line := self.next_line()) is not None:
            if text in line:
                return
        raise Wrong(f"{self.command!r} never says {text!r}, but {self.said}")

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def over(self, fails: bool, quiet: bool) -> None:
        """It ends, as it should.

        Args:
            fails: With an error.
            quiet: Without another line.

        Raises:
            Wrong: it does not.
        """
        rest = self._rest()
        status = self._process.wait()
        if (status != 0) is not fails:
            raise Wrong("\n".join([f"{self.command!r} ends with status {status}", *self.said]))
        if rest and quiet:
            raise Wrong(f"{self.command!r} says more than is shown: {rest}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


class Story:
    """A page that is run.

    Args:
        page: Its text.
        patience: Seconds for all of it.
    """

    def __init__(self, page: str, patience: float = PATIENCE) -> None:
        self.blocks = blocks(page)
        self.deadline = time.monotonic() + patience
        self.directory = tempfile.mkdtemp(prefix="fastway-page-")
        self._ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self._terminals: list[Terminal] = []
        self._programs = 0
        self._alone: list[tuple[Block, Terminal]] = []
        """Programs that talk to nobody: nothing waits for them but the end."""
        self.environment = environment({"PYTHONUNBUFFERED": "1"})

    def run(self) -> None:
        """Run all blocks.

        Raises:
            Wrong: one does not do what the page says.
        """
        try:
            self._prepare()
            for place, block in enumerate(self.blocks):
                if block.language in RUN and "no" not in block.marks:
                    try:
                        self._run(place, block)
                    except Wrong as error:
                        raise Wrong(f"line {block.line}: {error}") from None
            for block, terminal in self._alone:
                try:
                    terminal.over(fails=False, quiet=False)
                except Wrong as error:
                    raise Wrong(f"line {block.line}: {error}") from None
            self._all_used()
        finally:
            for terminal in self._terminals:
                terminal.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    def with_ports(self, text: str) -> str:
        """A text with this story's ports; where that means all addresses, on loopback."""
        text = re.sub(r"(?<=[= '\"]):([389]\d{3})\b", r"127.0.0.1:\1", text)
        for written, port in self._ports.items():
            text = re.sub(rf"\b{written}\b", port, text)
        return text

    def without_ports(self, text: str) -> str:
        for written, port in self._ports.items():
            text = re.sub(rf"\b{port}\b", written, text)
        return text

    # Before the first block.

    def _prepare(self) -> None:
        """Commands that are this checkout's, with the defaults of this story's ports."""
        commands = os.path.join(self.directory, ".bin")
        os.mkdir(commands)
        python, forked = sys.executable, " ".join(forks.python())
        ports = {"clients": "9010", "servers": "9020", "web": "9080", "page": "9081"}
        places = {name: f"127.0.0.1:{self._ports[port]}" for name, port in ports.items()}
        scripts = {
            "python": PYTHON.format(python=python, forked=forked),
            "twistd": f'exec {python} -c "from twisted.scripts.twistd import run; run()" "$@"',
            "fastway": DEFAULTS.format(forked=forked, **places),
        }
        for name, script in scripts.items():
            path = os.path.join(commands, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\n{script}\n")
            os.chmod(path, 0o755)
        self.environment["PATH"] = f"{commands}:{self.environment['PATH']}"
        os.symlink(os.path.join(CHECKOUT, "examples"), os.path.join(self.directory, "examples"))
        for block in self.blocks:
            if "gateway" in block.marks:
                self._start_gateways("snet" in block.marks["gateway"])

    def _start_gateways(self, snet: bool) -> None:
        self.environment[KEY_SETTING] = KEY
        rows = [("9010", "9020", ""), ("9011", "9021", "--client-snet-enable")]
        started = []
        for clients, servers, more in rows if snet else rows[:1]:
            place = os.path.join(self.directory, f".gateway{more}")
            os.mkdir(place)
            addresses = f"--client-addr 127.0.0.1:{clients} --server-addr 127.0.0.1:{servers}"
            started.append(self._start(f"fastway {addresses} --run-dir {place} {more}"))
        for terminal in started:
            terminal.until("server port listens")

    # A block.

    def _run(self, place: int, block: Block) -> None:
        if block.language == "sh":
            self._script(block)
        elif block.language == "console":
            self._commands(block)
        elif block.language == "text":
            self._more(block, self.blocks[place - 1])
        elif block.name:
            self._save(block.name, block.text)
        elif not block.marks.keys() & {"continues", "beside"}:
            self._program(self.blocks[place:])

    def _start(self, command: str, typing: bool = False) -> Terminal:
        terminal = Terminal(self, command, typing)
        self._terminals.append(terminal)
        return terminal

    def _save(self, name: str, text: str) -> None:
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(self.with_ports(text))

    def _script(self, block: Block) -> None:
        if "check" in block.marks:
            for command in block.text.replace("\\\n", " ").splitlines():
                if command.startswith("fastway "):
                    options = command.removeprefix("fastway ").removesuffix("...")
                    self._start(f"{KEY_SETTING}={KEY} fastway check {options}").over(
                        fails=False, quiet=False
                    )
            return
        terminal = self._start(block.text)
        if "stays" in block.marks:
            terminal.until(block.marks["stays"])
        else:
            terminal.over(fails=False, quiet=False)

    def _commands(self, block: Block) -> None:
        parts = re.split(r"^\$ ", block.text, flags=re.M)[1:]
        before = ""
        typed = [line.strip() for line in block.marks.get("typed", "").split("|") if line.strip()]
        for place, part in enumerate(parts):
            command, _, shown = part.partition("\n")
            lines = shown.splitlines()
            if re.match("(export|cd) ", command):
                before += f"{command}\n"
                continue
            stays = place + 1 == len(parts) and bool(block.marks.keys() & {"stays", "typed"})
            terminal = self._start(before + command, stays)
            for line in lines:
                if typed and line == typed[0]:
                    terminal.type(typed.pop(0))
                else:
                    terminal.expect(line)
            if stays:
                if block.marks.get("stays"):
                    terminal.until(block.marks["stays"])
                continue
            failing = bool(lines) and re.match(r"fastway [\w-]+: ", lines[-1]) is not None
            terminal.over(fails=failing, quiet=True)

    def _more(self, block: Block, before: Block) -> None:
        """What a command that stayed has printed since; `...` between lines is any number."""
        command = block.marks.get("from")
        if command is None:
            if before.language != "python" or before.name or "no" in before.marks:
                raise Wrong("nothing that is run has printed it")
            return  # it was compared when that program was run
        for terminal in self._terminals:
            if terminal.command.splitlines()[-1] == command:
                lines = block.text.splitlines()
                for place, line in enumerate(lines):
                    if lines[place - 1 : place] == ["..."]:
                        terminal.until(line)
                    elif line != "..." or place + 1 == len(lines):
                        terminal.expect(line)
                return
        raise Wrong(f"{command!r} does not run")

    def _program(self, rest: Sequence[Block]) -> None:
        """A Python block and those that continue it, and what they print."""
        files, shown, texts = [], [], ""
        for at, block in enumerate(rest):
            if block.language == "text" and "from" not in block.marks:
                shown += block.text.splitlines()
            if block.language != "python" or block.name or "no" in block.marks:
                continue
            if at and not block.marks.keys() & {"continues", "beside"}:
                break
            self._programs += 1
            name = f"block_{self._programs}_line_{block.line}.py"
            self._save(name, block.text)
            texts += block.text
            files.append(("beside:" if "beside" in block.marks else "") + name)
        terminal = self._start(f"python -m tests.support.chain {' '.join(files)}")
        if not shown and not re.search(r"^(await |async for |.* = await )", texts, re.M):
            self._alone.append((rest[0], terminal))
            return
        for line in shown:
            terminal.expect(line)
        terminal.over(fails=False, quiet=bool(shown))

    def _all_used(self) -> None:
        """Nothing is saved in vain."""
        for block in self.blocks:
            if not block.name or "no" in block.marks:
                continue
            module = block.name.removesuffix(".py")
            uses = rf"\b{re.escape(block.name)}\b| -m .*\b{module}\b| {module}:\w"
            if module == "conftest":
                uses = " -m pytest "
            used = any(
                re.search(
                    uses if other.language in ("console", "sh") else rf"^(from|import) {module}\b",
                    other.text,
                    re.M,
                )
                for other in self.blocks
                if other is not block and other.language in RUN
            )
            if not used:
                raise Wrong(f"line {block.line}: no block uses {block.name}")
