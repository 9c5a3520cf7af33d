"""Settings become a RouterService with its ports and its native core.

Rule: wiring only, nothing runs yet. A new kind of layer is one line in `LAYERS`; a new port is one
more entry in `RouterService.ports`.
"""

from __future__ import annotations

import os
import socket
from dataclasses import fields
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from fastway import relay
from fastway.address import Address, parse_address
from fastway.causes import not_installed
from fastway.config import Settings
from fastway.config.settings import (
    DirectPortSettings,
    PortSettings,
    ServerPortSettings,
    WebSocketPortSettings,
)
from fastway.config.values import Ids
from fastway.errors import ConfigError, StartError
from fastway.gateway import (
    ClientFactory,
    GatewayFactory,
    Layer,
    Port,
    PortConfig,
    RouterService,
    ServerFactory,
    WebSocketConfig,
    WebSocketFactory,
)
from fastway.gateway.control import ControlConfig
from fastway.gateway.identities import Identities
from fastway.gateway.introduce import Introductions
from fastway.gateway.limits import LimitValues
from fastway.gateway.ports import those_of
from fastway.gateway.proxied import Proxies, ProxyFactory
from fastway.gateway.weblayer import WebLayer
from fastway.logs import make_logger
from fastway.relay import openssl
from fastway.router import IdConflict, Limits
from fastway.snet.config import SnetConfig
from fastway.snet.listen import SnetFactory
from fastway.watched import Readable, Watcher
from fastway.websocket import HTTP, Policy

log = make_logger("fastway.gateway")


def make_router_service(settings: Settings, reactor: Any) -> RouterService:
    """A gateway's inside, its ports not open yet.

    Raises:
        ConfigError, StartError: it cannot be like this.
    """
    limits = settings.limits
    service = RouterService(
        reactor,
        Limits(
            client_max_conn=limits.client_max_conn,
            client_max_total=limits.client_max_total,
            server_id_conflict=IdConflict(limits.server_id_conflict),
        ),
        memory_limit=limits.memory_limit,
        keep_files=limits.keep_files,
    )
    control = settings.control
    service.control.config = ControlConfig(
        gateway=socket.gethostname() or "fastway",
        queue=control.queue,
        groups=control.groups,
        group_members=control.group_members,
        kick_servers=control.kick_servers,
    )
    service.router.client_service_id = control.client_service_id
    if control.proxy_to_servers != Ids():
        introductions = Introductions(control.proxy_to_servers, service.control.config.gateway)
        service.router.introduce = introductions.message
    for port in settings.ports:
        factory = _factory(port, service)
        factory.door.proxies = port.proxy_from
        if isinstance(port, WebSocketPortSettings):
            factory.door.tellers = port.proxies
        if isinstance(port, DirectPortSettings) and isinstance(factory, ClientFactory):
            factory.leads_to(port.direct.name, port.direct.server_id)
        address = parse_address(port.where("address"), port.address)
        layers = [made for layer in LAYERS if (made := layer(port, factory)) is not None]
        if port.proxy_from:
            layers.append(_proxied(port, factory))
        watched: list[Readable] = [layer.watched for layer in layers if layer.watched is not None]
        if isinstance(factory, ServerFactory) and factory.identities is not None:
            watched.append(factory.identities)
        service.watchers += [Watcher(reactor, one) for one in watched]
        service.ports.append(Port(port.name, address, factory, layers, port.reuse_port))
    _check_addresses(settings, service)
    values = {item.name: getattr(settings.door, item.name) for item in fields(LimitValues)}
    service.set_limits(LimitValues(**values))
    service.path = _make_native(settings, service, reactor)
    return service


def _server_factory(
    service: RouterService, port: ServerPortSettings, config: PortConfig
) -> ServerFactory:
    factory = ServerFactory(service, port.key, config)
    if port.identities:
        where = port.where("identities")
        factory.identities = Identities(os.path.abspath(port.identities), where)
        factory.identities.changed = factory.recheck
    return factory


def _port_config(port: PortSettings) -> PortConfig:
    config = PortConfig(
        max_links=port.max_links,
        max_packet=port.max_packet,
        read_size=port.read_size,
        idle_timeout=port.idle_timeout,
        queue_packets=port.queue_packets,
        queue_bytes=port.queue_bytes,
        write_timeout=port.write_timeout,
    )
    if isinstance(port, ServerPortSettings):
        config.max_handshakes = port.max_handshakes
    return config


def _factory(port: PortSettings, service: RouterService) -> GatewayFactory:
    config = _port_config(port)
    if isinstance(port, ServerPortSettings):
        return _server_factory(service, port, config)
    if isinstance(port, WebSocketPortSettings) and port.snet is None:
        return WebSocketFactory(service, config, websocket_config(port))
    return ClientFactory(service, config)


def websocket_config(port: WebSocketPortSettings) -> WebSocketConfig:
    """What a port for web pages answers to."""
    return WebSocketConfig(Policy(port.path, port.allowed), port.proxies, port.header)


def _websocket(port: PortSettings, factory: GatewayFactory) -> Layer | None:
    """WebSocket, if that port speaks it: its factory does so itself, but below snet."""
    if not isinstance(port, WebSocketPortSettings):
        return None
    given = port.where("address")
    if port.snet is None:
        return Layer("ws", None, given)
    config = websocket_config(port)
    return Layer("ws", lambda inner: WebLayer(inner, factory, config), given)


def _snet(port: PortSettings, factory: GatewayFactory) -> Layer | None:
    """snet, if that port speaks it.

    Raises:
        ConfigError: it is to encrypt, and what that needs is not here.
    """
    snet = port.snet
    if snet is None:
        return None
    try:
        config = SnetConfig(
            encrypt=snet.encrypt,
            buffer=snet.buffer,
            init_timeout=snet.init_timeout,
            wait_timeout=snet.wait_timeout,
            max_waiting=snet.max_waiting,
            max_handshakes=snet.max_handshakes,
            dead_after=snet.dead_after,
        )
    except ValueError as error:  # the numbers have been checked
        raise ConfigError(snet.where("encrypt"), str(error)) from None
    reactor = factory.service.clock
    return Layer("snet", lambda inner: SnetFactory(inner, reactor, config), snet.where("enable"))


def _tls(port: PortSettings, factory: GatewayFactory) -> Layer | None:
    """TLS, if that port has certificates.

    Raises:
        ConfigError: they cannot be used, or what that needs is not here.
    """
    tls = port.tls
    if tls is None:
        return None
    given = tls.where("cert" if tls.cert else "directory")
    try:
        from fastway.certificates import CertificateStore, Places
        from fastway.gateway.tls import Contexts, TlsFactory
    except ImportError as error:
        raise ConfigError(given, not_installed(error, "tls:")) from None
    if port.address.strip().startswith(("ssl:", "tls:", "snet:")):
        kind = port.address.strip().partition(":")[0]
        raise ConfigError(
            port.where("address"),
            f"{kind}: does not go with {given}; give host:port, "
            + (
                f"and --{port.side}-snet-enable"
                if kind == "snet"
                else f"or {kind}: without {given}"
            ),
        )

    def absolute(path: str) -> str:
        return os.path.abspath(path) if path else ""

    # Absolute, because twistd changes to another directory later.
    contexts = Contexts(
        tls.min_version,
        tls.client_auth,
        absolute(tls.client_ca),
        tls.where("client_ca"),
        (HTTP,) if isinstance(port, WebSocketPortSettings) else tls.protocols,
    )
    places = Places(
        absolute(tls.cert),
        absolute(tls.key),
        absolute(tls.directory),
        tls.where("cert"),
        tls.where("directory"),
        tls.where("key"),
    )
    store = CertificateStore(port.name, places, contexts)
    reactor = factory.service.clock
    return Layer(
        "tls",
        lambda inner: TlsFactory(inner, reactor, contexts, store),
        given,
        store,
        native=not (relay.missing() or openssl.problem()),
    )


def _proxied(port: PortSettings, factory: GatewayFactory) -> Layer:
    """PROXY headers, before all that the port speaks.

    Raises:
        ConfigError: its address has something in it that would come before them.
    """
    given = port.where("proxy_from")
    kind, colon, _ = port.address.strip().partition(":")
    if colon and kind in ("ssl", "tls", "snet", "haproxy"):
        instead = {
            "haproxy": "give what is behind it",
            "snet": f"give host:port, and --{port.side}-snet-enable",
        }.get(kind, f"give host:port, and --{port.side}-tls-cert")
        raise ConfigError(port.where("address"), f"{kind}: does not go with {given}; {instead}")
    proxies = Proxies(port.proxy_from, port.proxy_others == "direct", given)
    factory.proxies = proxies
    wrap = None
    if port.snet is not None or port.tls is not None:

        def wrap(inner: IProtocolFactory) -> Any:
            return ProxyFactory(inner, factory, proxies)

    return Layer("proxy", wrap, given, native=True, figured=proxies)


LAYERS = (_snet, _websocket, _tls)
"""What may stand between the connections of a port and its links, the innermost first."""


def _check_addresses(settings: Settings, service: RouterService) -> None:
    """See that all addresses can be what the other settings make of them.

    Raises:
        ConfigError: they cannot.
    """
    addresses = [port.address for port in service.ports]
    for number, later in enumerate(addresses):
        for first in addresses[:number]:
            if later.is_that_of(first):
                # With reuse-port the kernel would deal connections to either.
                name = first.option.lstrip("-").replace(": ", " port ")
                problem = f"{later.text} is the address of {name} too; give another"
                raise ConfigError(later.option, problem)
    check_key(settings, addresses[1])


def check_key(settings: Settings, server: Address) -> None:
    """See that not anybody can be a server.

    Args:
        server: Where the server port listens.

    Raises:
        ConfigError: anybody could.
    """
    wanted = settings.server
    proved = wanted.tls is not None and wanted.tls.client_auth == "require"
    if not (wanted.key or wanted.allow_empty_key or server.loopback or proved):
        raise ConfigError(
            wanted.where("key"),
            "it is empty, so anybody who reaches the server port could be a server; set it, "
            "or listen on loopback only (--server-addr 127.0.0.1:PORT), "
            "or say --allow-empty-key",
        )


def _make_native(settings: Settings, service: RouterService, reactor: Any) -> str:
    """Make the native core if it is wanted and can be had; returns the path of packets."""
    wanted = settings.relay
    problem = "--relay off" if wanted.mode == "off" else relay.missing()
    if wanted.mode == "on":
        _check_native_ports(settings, service)
    if problem:
        if wanted.mode == "on":
            raise ConfigError(wanted.where("mode"), f"{problem}; auto goes without it")
        return f"Python: {problem}"
    from fastway.gateway.native import NativeCore

    pool = settings.pool
    try:
        service.native = NativeCore(
            reactor,
            service,
            relay.PoolConfig(
                type=pool.type,
                factor=pool.factor,
                min_chunk=pool.min_chunk,
                max_chunk=pool.max_chunk,
                page_size=pool.page_size,
                limit=pool.limit,
            ),
        )
    except OSError as error:
        raise StartError(f"the native relay cannot be made: {error.strerror}") from None
    if openssl.problem() and any(port.layer("tls") for port in service.ports):
        log.warn(
            "packets of ports with TLS take the Python path: {problem}", problem=openssl.problem()
        )
    return f"the native relay; its memory pool is {pool.type}"


def _check_native_ports(settings: Settings, service: RouterService) -> None:
    """See that the native core, which is insisted on, would carry the links of all ports.

    Raises:
        ConfigError: one's packets would take the path of Python.
    """
    for port in service.ports:
        if port.plain:
            continue
        if not port.address.is_tcp:
            problem = f"{port.address.text} is no host:port address"
        else:
            layer = next(one for one in port.layers if one.wrap and not one.native)
            problem = f"{layer.given} makes the {port.name} port speak {layer.name}"
            if layer.name == "tls":
                problem += f", and {relay.missing() or openssl.problem()}"
        raise ConfigError(
            settings.relay.where("mode"),
            f"packets of {those_of(port.name)} would not take the native path, because {problem}; "
            "change that, or give auto",
        )
