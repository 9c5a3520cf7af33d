"""What an application tells a monitor: Prometheus's page, and whether it lives and is ready.

    await endpoint.listen(metrics_site(app))  # /metrics, /live, /ready

Rule: it only reads. Names are the gateway's where they mean the same; no label has a route, a
user or an address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from fastway import __version__, usage
from fastway.app.app import App
from fastway.app.bounds import State
from fastway.prometheus import Metric, Samples, Value, page
from fastway.web import BoundedSite, MonitorPages


def _one(read: Callable[[App], Value]) -> Callable[[App], Samples]:
    return lambda app: (((), read(app)),)


def _metric(
    name: str,
    kind: Literal["counter", "gauge"],
    text: str,
    read: Callable[[App], Value],
) -> Metric:
    return Metric(name, kind, text, (), _one(read))


def _results(app: App) -> Samples:
    counts = app.counts
    done = counts.requests - counts.refused - counts.pending
    return ((("answered",), done), (("refused",), counts.refused))


METRICS = (
    Metric(
        "fastway_build_info",
        "gauge",
        "1, with the version.",
        ("version", "path"),
        lambda _: (((__version__, "app"), 1),),
    ),
    _metric(
        "fastway_ready", "gauge", "1 if players may be sent here.", lambda app: +(not problem(app))
    ),
    _metric(
        "fastway_draining",
        "gauge",
        "1 while it takes nobody new.",
        lambda app: +(app.state is State.DRAINING),
    ),
    Metric(
        "fastway_connections",
        "gauge",
        "Sessions that are open, by the dialect.",
        ("side", "transport"),
        lambda app: [(("client", name), number) for name, number in app.counts.here.items()],
    ),
    Metric(
        "fastway_connections_total",
        "counter",
        "Sessions that were opened, by the dialect.",
        ("side", "transport"),
        lambda app: [(("client", name), number) for name, number in app.counts.came.items()],
    ),
    Metric(
        "fastway_disconnects_total",
        "counter",
        "Connections that the application lost for a reason of its own.",
        ("side", "reason"),
        lambda app: [(("client", code), number) for code, number in app.counts.lost.items()],
    ),
    _metric(
        "fastway_messages_total",
        "counter",
        "Messages that came, requests among them.",
        lambda app: app.counts.messages,
    ),
    Metric(
        "fastway_requests_total",
        "counter",
        "Requests that are over, by what became of them.",
        ("result",),
        _results,
    ),
    _metric(
        "fastway_requests_pending",
        "gauge",
        "Requests that are not answered yet.",
        lambda app: app.counts.pending,
    ),
    _metric(
        "fastway_sent_total",
        "counter",
        "Messages that were sent to sessions, answers not among them.",
        lambda app: app.counts.sent,
    ),
    _metric(
        "fastway_handler_failures_total",
        "counter",
        "Messages whose handler raised something that it should not.",
        lambda app: app.counts.failed,
    ),
    _metric(
        "fastway_unknown_routes_total",
        "counter",
        "Messages to routes that have no handler.",
        lambda app: app.counts.unknown,
    ),
    _metric(
        "fastway_bad_messages_total",
        "counter",
        "Messages whose body was not what the handler wants.",
        lambda app: app.counts.bad,
    ),
    _metric(
        "fastway_handlers_running",
        "gauge",
        "Handlers that wait for something.",
        lambda app: app.running,
    ),
    _metric("fastway_groups", "gauge", "Groups with a name.", lambda app: len(app.groups)),
    _metric(
        "process_cpu_seconds_total",
        "counter",
        "CPU time of all threads.",
        lambda _: time.process_time(),
    ),
    _metric(
        "process_start_time_seconds",
        "gauge",
        "When the process began, since 1970.",
        lambda _: usage.started(),
    ),
    _metric(
        "process_open_fds", "gauge", "Descriptors that are open.", lambda _: usage.open_files()
    ),
    _metric("process_max_fds", "gauge", "Descriptors that may be.", lambda _: usage.max_files()),
)


def problem(app: App) -> str:
    """Why no players should be sent here; empty: they may come."""
    if app.is_full:
        return "it is full"
    return "" if app.state is State.RUNNING else f"it is {app.state.value}"


def metrics_site(app: App) -> BoundedSite:
    """A web server of these pages alone, that bears whoever comes."""
    pages = MonitorPages(lambda: page(app, METRICS), lambda: problem(app))
    return BoundedSite(pages, app.clock)
