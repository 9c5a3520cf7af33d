"""Option tables as text: what `--help` prints.

Rule: options stand under their topics, in the order of their table, each with its default.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence

from fastway.config.table import Option

COLUMN = 32
"""Where the meanings begin."""

MAX_WIDTH = 100

WORDS = {"python module": "MODULE", "size or share": "SIZE|SHARE"}


def terminal_width() -> int:
    """Columns of the terminal, no more than are good to read."""
    return min(shutil.get_terminal_size().columns, MAX_WIDTH)


def row(name: str, text: str, width: int) -> str:
    """A name and its meaning, which has a line of its own if the name is long."""
    space = " " * COLUMN
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=space,
        subsequent_indent=space,
        break_on_hyphens=False,
        break_long_words=False,
    )
    head = f"  {name}"
    if len(head) + 2 <= COLUMN and lines:
        lines[0] = head + lines[0][len(head) :]
        return "\n".join(lines)
    return "\n".join([head, *lines])


def value_name(option: Option) -> str:
    """What stands for an option's value: SIZE, or the words themselves where they are few."""
    if option.words:
        words = "|".join(option.words)
        return words if len(words) <= 16 else "WORD"
    return WORDS.get(option.unit, option.unit.upper())


def option_row(option: Option, default: str, width: int) -> str:
    """`--client-addr ADDRESS  where clients connect [:0]`."""
    name = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
    if not option.is_flag:
        name = f"{name} {value_name(option)}"
    text = option.help
    if option.words and value_name(option) == "WORD":
        text = f"{option.unit}: {text}"
    if not option.is_flag or default != "false":
        text = f"{text} [{default or 'empty'}]"
    return row(name, text, width)


def describe(
    intro: str,
    table: Sequence[Option],
    default: Callable[[Option], str],
    width: int | None = None,
) -> str:
    """What a command is and its options, by topic.

    Args:
        default: What an option is without being given.
        width: Columns; None: the terminal's.
    """
    width = width or terminal_width()
    parts = []
    if intro:
        parts.append(textwrap.fill(intro, width, break_on_hyphens=False, break_long_words=False))
    for topic in dict.fromkeys(option.topic for option in table):
        rows = [
            option_row(option, default(option), width) for option in table if option.topic == topic
        ]
        parts.append("\n".join([f"{topic}:", *rows]))
    parts.append(
        "\n".join(
            [
                "Help:",
                row("-h, --help", "print this", width),
                row("-V, --version", "print the version", width),
            ]
        )
    )
    return "\n" + "\n\n".join(parts)
