"""The console command: `fastway [options]` runs a gateway in the foreground.

    fastway [options]         a gateway, until Ctrl-C
    fastway demo [options]    a gateway on loopback with a demo game server behind it
    fastway client [options]  type lines to a game server through a gateway; also `fastway play`
    fastway ping [options]    round trips to a gateway
    fastway serve-echo        a game server that sends everything back

Rule: what an operator did wrong is one line on standard error and exit status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastway.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from fastway.service import GatewayService


def run_gateway(
    arguments: Sequence[str],
    *,
    check: Callable[[GatewayService], None] | None = None,
    prepare: Callable[[GatewayService], None] | None = None,
    name: str = "fastway",
) -> int:
    """Run a gateway until a signal stops it; returns the exit status.

    Args:
        check: Called before anything starts; may raise a LocalError.
        prepare: Called once the gateway runs.
    """
    from twisted.internet import reactor

    from fastway import logs
    from fastway.options import GatewayOptions
    from fastway.service import GatewayService

    errors: list[str] = []

    def failed(error: LocalError) -> None:
        errors.append(str(error))
        reactor.stop()

    try:
        options = GatewayOptions()
        options.parseOptions(list(arguments))
        service = GatewayService(options, reactor)
        service.failed = failed
        if check is not None:
            check(service)
        service.check()
        logs.begin(None if options["logfile"] else logs.console(options["log-format"]))
        service.privilegedStartService()
        service.startService()
        if prepare is not None:
            prepare(service)
    except LocalError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    for line in errors:
        print(f"{name}: {line}", file=sys.stderr)
    return 1 if errors else 0


def demo(arguments: Sequence[str]) -> int:
    """`fastway demo`: a gateway and, behind it over TCP, the demo game server."""
    from twisted.internet import reactor

    from fastway.address import address_name
    from fastway.cli import CLIENT_ADDR, SERVER_ADDR
    from fastway.demo import SERVER_ID, DemoServer

    def check(service: GatewayService) -> None:
        if service.addresses["server"].host is None:
            raise ConfigError("--server-addr", "the demo server speaks plain TCP: give host:port")

    def prepare(service: GatewayService) -> None:
        key = service.options["server-auth-password"].encode("utf-8", "surrogateescape")
        server_port: Any = service.ports["server"].getHost()
        server = DemoServer(reactor, "127.0.0.1", server_port.port, key)
        server.startService()
        reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
        client_addr = address_name(service.ports["client"].getHost())
        print(
            f"\nfastway gateway: clients connect to {client_addr}, "
            f"game servers to {address_name(server_port)}\n"
            f"demo game server: id {SERVER_ID}, echo and a small chat room\n"
            f"talk to it from another terminal: make play, "
            f"or: fastway play --gateway {client_addr}\n"
            "Ctrl-C stops it\n",
            flush=True,
        )

    defaults = [
        *("--client-addr", CLIENT_ADDR),
        *("--server-addr", SERVER_ADDR),
    ]
    return run_gateway([*defaults, *arguments], check=check, prepare=prepare, name="fastway demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "demo":
        return demo(arguments[1:])
    if arguments and arguments[0] in ("client", "play", "ping", "serve-echo"):
        from fastway import cli

        return cli.main(arguments[0], arguments[1:])
    return run_gateway(arguments)


if __name__ == "__main__":
    sys.exit(main())
