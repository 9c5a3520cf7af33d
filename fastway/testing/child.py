"""The process of a `LocalGatewayProcess`: a whole gateway that ends with its parent.

Rule: its first line on standard output is its ports, as JSON; when its standard input ends, it
does. What it logs goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

from fastway.cli.gateway import run_gateway
from fastway.config.sources import GatewayOptions
from fastway.errors import LocalError

if TYPE_CHECKING:
    from fastway.service import GatewayService


def tell_ports(service: GatewayService) -> None:
    """It listens, and its reactor runs: say where, and end when nobody is left to ask."""
    ports = {
        name: getattr(cast(Any, port.getHost()), "port", 0)  # one of web pages may have none
        for name, port in service.ports.items()
    }
    print(json.dumps(ports), flush=True)
    threading.Thread(target=_wait_for_the_end, args=(service.reactor,), daemon=True).start()


def _wait_for_the_end(reactor: Any) -> None:
    while os.read(0, 1024):
        pass
    reactor.callFromThread(reactor.stop)


def _tell_when_it_runs(service: GatewayService) -> None:
    service.reactor.callWhenRunning(tell_ports, service)  # from then on it catches signals


def main() -> int:
    """Run a gateway with the options of the command line; returns the exit status."""
    options = GatewayOptions()
    try:
        options.parseOptions(sys.argv[1:])
        return run_gateway(options.settings, "fastway", prepare=_tell_when_it_runs)
    except LocalError as error:
        print(f"fastway: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
