"""What the console command does with a command line.

Rule: what an operator did wrong is one line on standard error and exit status 1; see
`fastway.cli` for the statuses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fastway.cli.table import BY_COMMAND, COMMANDS, Command
from fastway.config.manual import row, terminal_width
from fastway.config.sources import closest, print_version
from fastway.errors import LocalError

INTRO = """\
fastway, a game gateway: clients and game servers dial each other by id.

Usage: fastway COMMAND [options]
       fastway [options]           the same as fastway run"""

OUTRO = """\
fastway COMMAND --help shows the options of a command, fastway help run those of a gateway.
The exit status is 0 when it went as asked, and 1 when it did not; one line then says why."""


def overview() -> str:
    """What `fastway --help` prints: every command with a few words."""
    width = terminal_width()
    parts = [INTRO]
    for topic in dict.fromkeys(command.topic for command in COMMANDS):
        rows = [
            row(f"{command.name} {command.operands}".strip(), command.words, width)
            for command in COMMANDS
            if command.topic == topic
        ]
        parts.append("\n".join([f"{topic}:", *rows]))
    return "\n\n".join([*parts, OUTRO])


def show_help(names: Sequence[str]) -> int:
    """`fastway help [COMMAND]`."""
    print(_find(names[0]).make_options() if names else overview())
    return 0


def _find(name: str) -> Command:
    command = BY_COMMAND.get(name)
    if command is None:
        near = closest(name, BY_COMMAND)
        raise LocalError(f"no command {name!r}{near}; fastway --help lists them")
    return command


def call(arguments: Sequence[str]) -> int:
    """Do what a command line says; returns the exit status.

    Raises:
        SystemExit: it asked for help, which is printed.
    """
    first = arguments[0] if arguments else ""
    title = "fastway"
    """What a line about a problem begins with."""
    try:
        if first in ("-h", "--help"):
            return show_help([])
        if not first or first.startswith("-"):
            command, rest = BY_COMMAND["run"], arguments
        else:
            command, rest = _find(first), arguments[1:]
            title = command.title
        options = command.make_options()
        options.title = title
        options.parseOptions(list(rest))
        if command.name == "help":
            return show_help(options.operands)
        if command.name == "version":
            print_version()
            return 0
        return command.load()(options)
    except LocalError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    sys.stderr.write(f"{title}: {problem}\n")  # one write, also where nothing is buffered
    return 1


def main(arguments: Sequence[str]) -> int:
    """Do what a command line says, whoever reads; returns the exit status."""
    try:
        try:
            return call(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough; nor may the interpreter stumble over it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
