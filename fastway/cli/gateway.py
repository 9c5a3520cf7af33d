"""`fastway run`, `demo` and `check`: a whole gateway in this process, or what it would be.

Rule: a gateway is made by `service` alone; here it is only run, accompanied or described.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import fastway
from fastway.address import parse_address
from fastway.cli.interrupts import stops
from fastway.cli.table import CLIENT_ADDR, CheckOptions, DemoOptions, RunOptions
from fastway.config import Settings
from fastway.config.settings import DirectPortSettings, WebSocketPortSettings
from fastway.config.sources import exposed
from fastway.config.values import show_duration, show_size
from fastway.errors import ConfigError, LocalError, StartError

if TYPE_CHECKING:
    from fastway.demo_page import DemoPage
    from fastway.ops.adminport import AdminPorts
    from fastway.service import GatewayService


def run(options: RunOptions) -> int:
    """`fastway run`: until a signal stops it."""
    return run_gateway(
        options.settings, options.title, reread=options.reread if options.file else None
    )


def run_gateway(
    settings: Settings,
    title: str,
    check: Callable[[GatewayService], None] | None = None,
    prepare: Callable[[GatewayService], None] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Run a gateway until a signal stops it; returns the exit status.

    Args:
        title: What error lines begin with.
        check: Called before anything starts; may raise a LocalError.
        prepare: Called once the gateway runs.
        reread: Reads the options anew; None: there is no file that could change.

    Raises:
        LocalError: it cannot be started.
    """
    from twisted.internet import reactor

    from fastway.inherited import inherited
    from fastway.ops import logs
    from fastway.ops.notify import of_environment
    from fastway.ops.process import own_process
    from fastway.ops.signals import shield
    from fastway.service import GatewayService

    shield()
    inherited()
    errors: list[str] = []

    def failed(error: LocalError) -> None:
        errors.append(str(error))
        reactor.stop()

    service = GatewayService(settings, reactor)
    service.failed = failed
    service.notify = of_environment()
    service.reread = reread
    if check is not None:
        check(service)
    service.check()
    logs.begin(None if settings.log.file else logs.console(settings.log.format))
    stops(reactor)
    own_process(reactor)
    service.privilegedStartService()
    service.startService()
    if prepare is not None:
        prepare(service)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    for line in errors:
        sys.stderr.write(f"{title}: {line}\n")  # one write, as in `say`
    return 1 if errors else 0


# The demo.


def demo(options: DemoOptions) -> int:
    """`fastway demo`: a gateway and, behind it over TCP, the demo game server; and its page."""
    from twisted.internet import reactor

    from fastway.demo import SERVER_ID, DemoServer

    page = bind_page(options)
    settings = options.settings if page is None else allow_page(options.settings, page)

    def check(service: GatewayService) -> None:
        if service.addresses["server"].host is None:
            raise ConfigError(
                settings.server.where("address"),
                "the demo server speaks plain TCP: give host:port",
            )
        if settings.server.snet is not None:
            raise ConfigError(
                settings.server.snet.where("enable"),
                "the demo server speaks plain TCP: leave snet to the client port",
            )

    def prepare(service: GatewayService) -> None:
        host, port = near(service.ports["server"].getHost())
        server = DemoServer(reactor, host, port, settings.server.key)
        server.startService()
        reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
        clients = place(service, "client")
        chat = ""
        if page is not None:
            web = settings.websockets[0]
            page.serve(reactor, near(service.ports[web.name].getHost())[1], web.path)
            chat = f"chat with it in a browser, in two windows: {page.url}\n"
        if service.admin is not None:
            chat += see_it(service.admin)
        text = (
            f"\nfastway gateway: clients connect to {clients}, "
            f"game servers to {place(service, 'server')}\n"
            f"demo game server: id {SERVER_ID}, echo and a small chat room\n"
            f"{chat}"
            f"talk to it from another terminal: {how_to_play(service, clients)}\n"
            "Ctrl-C stops it\n"
        )
        # Not before the reactor catches signals: Ctrl-C would not be a clean stop.
        reactor.callWhenRunning(partial(print, text, flush=True))

    try:
        return run_gateway(settings, options.title, check, prepare)
    finally:
        if page is not None:
            page.close()


def bind_page(options: DemoOptions) -> DemoPage | None:
    """The demo's page, where there is to be one; it is not served yet.

    Raises:
        ConfigError, StartError: not at that address.
    """
    from fastway.demo_page import DemoPage

    text = options["page-addr"].strip()
    webs = options.settings.websockets
    if not text or not webs or webs[0].tls or parse_address("", webs[0].address).host is None:
        return None
    where = options.given["page-addr"].where if "page-addr" in options.given else "--page-addr"
    address = parse_address(where, text)
    if address.host is None:
        raise ConfigError(where, "the page is served over plain HTTP: give host:port")
    return DemoPage(address)


def allow_page(settings: Settings, page: DemoPage) -> Settings:
    """The same, and the page may connect. That `same` may is only the default: no page has the
    port of the gateway."""
    webs = [
        replace(web, allowed=(*(one for one in web.allowed if one != "same"), *page.origins))
        for web in settings.websockets
    ]
    return replace(settings, websockets=tuple(webs))


def see_it(admin: AdminPorts) -> str:
    """Where the admin page is, as a row for whoever starts the demo; empty: only on a socket."""
    for port in admin.ports:
        if port.address is not None and port.listening is not None:
            host, number = near(port.listening.getHost())
            host = f"[{host}]" if ":" in host else host
            return f"see it work in a browser: http://{host}:{number}/#token={admin.token}\n"
    return ""


def near(address: Any) -> tuple[str, int]:
    """The host and port by which this machine reaches a TCP port of its own."""
    host = ipaddress.ip_address(address.host)
    return ("127.0.0.1" if host.is_unspecified else str(host)), address.port


def place(service: GatewayService, side: str) -> str:
    """Where to connect to a port that is open, from this machine."""
    address = service.addresses[side]
    if address.host is None:
        return address.text
    host, port = near(service.ports[side].getHost())
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def how_to_play(service: GatewayService, clients: str) -> str:
    """The command line that talks to the demo server.

    Args:
        clients: Where clients connect.
    """
    from twisted.internet.endpoints import quoteStringArgument

    snet = service.settings.client.snet
    if clients == CLIENT_ADDR and snet is None:
        return "make play" if in_checkout() else f"{this_command()} play"
    if service.addresses["client"].host is None:
        clients = "ENDPOINT"  # what a client calls it cannot be told
    elif snet is not None:
        host, _, number = clients.rpartition(":")
        inner = f"tcp:{quoteStringArgument(host.strip('[]'))}:{number}"
        more = ":encrypt=true" if snet.encrypt else ""
        clients = f"'snet:{quoteStringArgument(inner)}{more}'"
    return f"{this_command()} play --gateway {clients}"


def in_checkout() -> bool:
    """Where this runs there is a Makefile, and it is fastway's."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(fastway.__file__)))
    here = os.path.realpath(os.curdir) == os.path.realpath(top)
    return here and os.path.exists(os.path.join(top, "Makefile"))


def this_command() -> str:
    """How this program was started, as one would type it."""
    typed = sys.argv[0]
    if os.path.basename(typed) != "fastway":
        return "python -m fastway"
    found = shutil.which("fastway")
    if found is not None and os.path.realpath(found) == os.path.realpath(typed):
        return "fastway"
    return typed


# The check.


def check(options: CheckOptions) -> int:
    """`fastway check [FILE]`: what a gateway would do with these options."""
    from twisted.internet import reactor

    from fastway.service import GatewayService

    service = GatewayService(options.settings, reactor)
    now = []
    for problem in service.problems():
        if not isinstance(problem, StartError):
            raise problem
        # What is in the way today, a gateway that runs with it for one, is no fault of the file.
        now.append(("now", f"it would not start: {problem}"))
    now += [("beware", problem) for problem in exposed(options.settings.values)]
    for name, text in [*describe(service), *now]:
        print(f"{name:<10}{text}")
    print(f"{'fine':<10}{options.file or 'these options'} can be used")
    return 0


def _limits(service: GatewayService) -> str:
    """What limits who connects, where it is not the default."""
    from fastway.gateway.limits import LimitValues
    from fastway.ops.limits import limit_rows

    values = service.router_service.gate.values
    given = [row for row in limit_rows(values) if row not in limit_rows(LimitValues())]
    return ", ".join(row.removeprefix("limit-") for row in given)


def describe(service: GatewayService) -> list[tuple[str, str]]:
    """What a gateway would do, in rows of a name and a text."""
    settings = service.settings
    rows = []
    for port in settings.ports:
        text = port.address
        if text.rpartition(":")[2] == "0" and service.addresses[port.name].host is not None:
            text += " (any free port)"
        if port.snet is not None:
            text += ", with snet" + (", encrypted" if port.snet.encrypt else "")
        text += f"; {count(port.max_links, 'connections')}"
        if port is settings.server:
            text += "; they prove a key" if settings.server.key else "; without a key"
        name, packets = f"{port.side}s", f"{port.queue_packets} packets and "
        if isinstance(port, WebSocketPortSettings):
            pages = ("the same host" if word == "same" else word for word in port.allowed)
            text += f"; WebSocket, path {port.path}, for pages of {', '.join(pages)}"
            name = "web pages"
        if isinstance(port, DirectPortSettings):
            text += f"; {port.direct.name}, to server {port.direct.server_id}"
            name, packets = "direct", ""
        rows.append((name, text))
        rows.append(
            (
                "",
                f"each idle for {time(port.idle_timeout)}; {packets}"
                f"{show_size(port.queue_bytes)} may wait for each",
            )
        )
        if port.proxy_from:
            listed = ", ".join(map(str, port.proxy_from))
            others = "others come direct" if port.proxy_others == "direct" else "others may not"
            rows.append(("", f"they come by {listed}, with a PROXY header; {others}"))
        rows += [("", f"TLS: {terms}") for terms in tls_terms(service, port.name)]
    limits = settings.limits
    rows.append(
        (
            "packets",
            f"up to {show_size(settings.client.max_packet)}; those of host:port addresses take "
            f"the path of {service.path}",
        )
    )
    memory = f"{limits.memory_limit / 2**20:.0f} MiB" if limits.memory_limit else "no limit"
    if limits.memory_share is not None:
        memory += f" ({limits.memory_share:.0%} of the memory)"
    rows.append(("memory", f"{memory} of what waits for all links together"))
    allowed = _limits(service)
    if allowed:
        rows.append(("limits", allowed))
    metrics = settings.metrics
    if metrics.address:
        text = metrics.address
        if text.rpartition(":")[2] == "0" and ":" in text:
            text += " (any free port)"
        text += "; /metrics, /live and /ready by HTTP"
        text += ", which says no without a game server" if metrics.needs_server else ""
        rows.append(("metrics", text))
    if settings.admin.addresses:
        token = "; a token by TCP" if settings.admin.token or settings.admin.token_file else ""
        rows.append(("admin", f"{', '.join(settings.admin.addresses)}{token}"))
    ops = settings.ops
    names = [path for path in (ops.pid_path, ops.command_path) if path]
    rows.append(("files", f"reports in {os.path.abspath(ops.run_dir)}; {', '.join(names) or '-'}"))
    log = settings.log
    where = os.path.abspath(log.file) if log.file else "standard error"
    rows.append(("log", f"{where}, {log.format}, from {log.level} on"))
    if log.access:
        rows.append(
            ("", f"ends of connections: {os.path.abspath(log.access)}, {log.access_format}")
        )
    drain, text = settings.drain, "at once, for everybody"
    if drain.timeout:
        whole, delay, begins = map(
            show_duration, (drain.timeout, drain.delay, drain.delay + drain.grace)
        )
        text = f"drained, in {whole} at most: ports are closed after {delay}, clients lost from "
        text += f"{begins} on"
    rows.append(("SIGTERM", text))
    return rows


def tls_terms(service: GatewayService, name: str) -> list[str]:
    """The terms of a port's TLS, if its options make it speak it."""
    return [
        layered.figures().terms
        for port in service.router_service.ports
        for layer, layered in zip(port.layers, port.wrapped, strict=True)
        if port.name == name and layer.name == "tls"
    ]


def count(number: int, what: str) -> str:
    return f"at most {number} {what}" if number else f"as many {what} as files may be open"


def time(seconds: float) -> str:
    return f"{show_duration(seconds)} at most" if seconds else "ever"
