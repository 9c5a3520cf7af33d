"""The verb `limits`: what is allowed while the gateway runs, changed and shown.

Rule: values are read as those of the options are, all of them before any is used; whoever offers
the verb gives its text and gets rows.
"""

from __future__ import annotations

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


def change_limits(service: RouterService, text: str) -> list[str]:
    """Use values from now on, and tell all that are in use.

    Args:
        text: `NAME=VALUE ...`, names as those of options, also without their `limit-`; no value
            has a space in it. Empty: only tell.

    Raises:
        CommandError: a name or a value cannot be used; nothing has changed.
    """
    changed: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        option = _named(name)
        if option is None or not equals:
            raise CommandError(f"{quoted(word)}: give NAME=VALUE with one of {', '.join(OPTIONS)}")
        if option.name in FIXED:
            raise CommandError(f"{option.name} is read at the start only")
        try:
            changed[OPTIONS[option.name]] = option.parse(value)
        except ValueError as error:
            raise CommandError(f"{option.name}: {error}") from None
    if changed:
        service.set_limits(replace(service.gate.values, **changed))
    return limit_rows(service.gate.values)


def _named(name: str) -> Option | None:
    name = name.lower().replace("_", "-")
    for full in (name, f"limit-{name}"):
        if full in OPTIONS:
            return BY_NAME[full]
    return None


def limit_rows(values: LimitValues) -> list[str]:
    """`limit-rate=200`, one row for each; so they can be given again."""
    return [f"{name}={_show(getattr(values, field))}" for name, field in OPTIONS.items()]


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Networks):
        return ",".join(map(str, value))
    if isinstance(value, tuple):
        return show_allowances(value)
    return show_rate(value) if isinstance(value, float) else str(value)
