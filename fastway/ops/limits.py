"""The verb `limits`: what is allowed while the gateway runs, changed and shown.

Rule: values are read as those of the options are, all of them before any is used; whoever offers
the verb gives names and values and gets rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from fastway.config.table import BY_NAME, Option
from fastway.config.values import quoted, show_allowances, show_rate
from fastway.errors import CommandError
from fastway.gateway.limits import LimitValues
from fastway.networks import Networks

if TYPE_CHECKING:
    from fastway.gateway import RouterService


def _option(field: str) -> Option:
    name = field.replace("_", "-")
    return BY_NAME.get(f"limit-{name}") or BY_NAME[name]


OPTIONS = {_option(item.name).name: item.name for item in fields(LimitValues)}
"""The name of each option -> its field in LimitValues."""

FIXED = ("limit-ipv6-prefix",)
"""Read at the start only: other addresses would be one."""


def words(text: str) -> Iterator[tuple[str, str]]:
    """The names and values of `NAME=VALUE ...`; no value has a space in it.

    Raises:
        CommandError: a word is not so.
    """
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise _unknown(word)
        yield name, value


def change_limits(service: RouterService, changes: Iterable[tuple[str, str]]) -> list[str]:
    """Use values from now on, and tell all that are in use.

    Args:
        changes: Names as those of options, also without their `limit-`, and values as texts.

    Raises:
        CommandError: a name or a value cannot be used; nothing has changed.
    """
    changed: dict[str, Any] = {}
    values = service.gate.values
    for name, text in changes:
        option = _named(name)
        if option is None:
            raise _unknown(f"{name}={text}")
        try:
            value = option.parse(text)
        except ValueError as error:
            raise CommandError(f"{option.name}: {error}") from None
        field = OPTIONS[option.name]
        if option.name not in FIXED:
            changed[field] = value
        elif value != getattr(values, field):
            raise CommandError(f"{option.name} is read at the start only")
    if changed:
        service.set_limits(replace(values, **changed))
    return limit_rows(service.gate.values)


def _unknown(word: str) -> CommandError:
    names = ", ".join(name for name in OPTIONS if name not in FIXED)
    return CommandError(f"{quoted(word)}: give NAME=VALUE with one of {names}")


def _named(name: str) -> Option | None:
    name = name.lower().replace("_", "-")
    for full in (name, f"limit-{name}"):
        if full in OPTIONS:
            return BY_NAME[full]
    return None


def limit_rows(values: LimitValues) -> list[str]:
    """`limit-rate=200`, one row for each; so they can be given again."""
    return [f"{name}={text}" for name, text in shown_limits(values).items()]


def shown_limits(values: LimitValues) -> dict[str, str]:
    """The name of each option, and its value as it would be written."""
    return {name: _show(getattr(values, field)) for name, field in OPTIONS.items()}


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Networks):
        return ",".join(map(str, value))
    if isinstance(value, tuple):
        return show_allowances(value)
    return show_rate(value) if isinstance(value, float) else str(value)
