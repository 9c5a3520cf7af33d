"""OpenSSL for the core: the functions that pyOpenSSL uses itself, found, compared and tried out.

Rule: nothing is linked, and there is one OpenSSL in the process. The names are private to
`cryptography` and to pyOpenSSL: what is not exactly as expected is a reason not to use it, and the
Python lane speaks TLS then.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any, NamedTuple, cast

FUNCTIONS = {
    "SSL_read": "int(*)(SSL *, void *, int)",
    "SSL_write": "int(*)(SSL *, void *, int)",
    "SSL_get_error": "int(*)(SSL *, int)",
    "SSL_shutdown": "int(*)(SSL *)",
    "SSL_do_handshake": "int(*)(SSL *)",
    "BIO_read": "int(*)(BIO *, void *, int)",
    "BIO_write": "int(*)(BIO *, void *, int)",
    "BIO_get_mem_data": "long(*)(BIO *, char * *)",
    "BIO_new": "BIO *(*)(BIO_METHOD *)",
    "BIO_s_mem": "BIO_METHOD *(*)()",
    "SSL_set_bio": "void(*)(SSL *, BIO *, BIO *)",
    "ERR_get_error": "unsigned long(*)()",
    "ERR_clear_error": "void(*)()",
}
"""What the core calls, in the order in which it is told."""

BARREN = 2**32 - 1
"""The core's own code (RELAY_TLS_BARREN): a peer only changed its keys, again and again."""

HIDDEN = b"what went through the core"
TURNS = 100
TRIAL_SECONDS = 10.0


class Unusable(Exception):
    """The core cannot drive OpenSSL here; the text says why."""


class Objects(NamedTuple):
    """OpenSSL's objects of a connection, as addresses."""

    ssl: int
    into: int
    out: int


def hand_over(connection: Any) -> Objects:
    """Make a pyOpenSSL connection over memory, whose handshake is over, the core's: what that is
    made of, which lives as long as `kept` of it does. Nothing else may be done with it then."""
    lib = _binding().lib
    lib.SSL_clear_mode(connection._ssl, lib.SSL_MODE_AUTO_RETRY)
    return objects_of(connection)


def stop_at_choice(connection: Any) -> None:
    """Its handshake stops where the certificate is chosen, but not on the thread of a Shaker."""
    from fastway.relay import _core

    _set_choice(connection, _core.CHOICE)


def pass_choice(connection: Any) -> None:
    """It does not any more."""
    _set_choice(connection, 0)


def _set_choice(connection: Any, address: int) -> None:
    binding = _binding()
    binding.lib.SSL_set_cert_cb(connection._ssl, _chooser(address), binding.ffi.NULL)


@cache
def _chooser(address: int) -> Any:
    return _binding().ffi.cast("int(*)(SSL *, void *)", address)


def objects_of(connection: Any) -> Objects:
    """What a pyOpenSSL connection over memory is made of."""
    cast_to = _binding().ffi.cast
    parts = (connection._ssl, connection._into_ssl, connection._from_ssl)
    return Objects(*(int(cast_to("uintptr_t", part)) for part in parts))


def kept(connection: Any) -> Any:
    """What of a connection has to live for the core: half a KB less than all of it."""
    return connection._ssl


def library() -> tuple[int, ...]:
    """The addresses of `FUNCTIONS`.

    Raises:
        Unusable: one is not there, or not as it was.
    """
    binding = _binding()
    found = []
    for name, wanted in FUNCTIONS.items():
        kind = binding.ffi.typeof(getattr(binding.lib, name, None) or "void *")
        if kind.cname != wanted:
            raise Unusable(f"OpenSSL's {name} is not to be had")
        found.append(int(binding.ffi.cast("uintptr_t", binding.ffi.addressof(binding.lib, name))))
    return tuple(found)


def error_of(codes: Iterable[int]) -> Exception:
    """OpenSSL's errors, as pyOpenSSL raises them."""
    from OpenSSL import SSL

    codes = list(codes)
    if codes == [BARREN]:
        return SSL.Error([("", "", "too many records without data")])
    binding = _binding()
    ffi, lib = binding.ffi, binding.lib

    def text(pointer: Any) -> str:
        said = b"" if pointer == ffi.NULL else ffi.string(pointer)
        return cast(bytes, said).decode("utf-8", "replace")

    strings = lib.ERR_lib_error_string, lib.ERR_func_error_string, lib.ERR_reason_error_string
    return SSL.Error([tuple(text(string(code)) for string in strings) for code in codes])


@cache
def _binding() -> Any:
    try:
        from cryptography.hazmat.bindings._rust import _openssl
    except ImportError:
        raise Unusable("OpenSSL's functions are not to be had") from None
    return _openssl


@cache
def problem() -> str:
    """Why the core cannot drive OpenSSL here; empty: it can. It is tried out once."""
    try:
        try_out()
    except Exception as error:  # whatever these names are now
        return str(error) if isinstance(error, Unusable) else f"its trial failed: {error!r}"
    return ""


def try_out() -> None:
    """Have a core shake hands with a client in memory, and echo what that says.

    Raises:
        Unusable: that did not work.
    """
    from OpenSSL import SSL

    from fastway.relay import _core

    core = _core.Core(
        pool_type=0,
        factor=2,
        min_chunk=64,
        max_chunk=4096,
        page_size=4096,
        limit=0,
        commands_each=1,
        commands_turn=1,
        events_turn=1,
        openings_turn=1,
        share_least=1,
        share_most=1,
        shares=1,
        turn_seconds=1.0,
    )
    core.port(
        max_packet=64,
        read_size=4096,
        idle_timeout=0.0,
        queue_packets=100,
        queue_bytes=4096,
        write_timeout=0.0,
        holds=False,
        frame_limit=0,
    )
    core.library(*library())

    # As the contexts of ports are: twisted's ciphers need no trial.
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    certificate, key = _certificate()
    context.use_certificate(certificate)
    context.use_privatekey(key)
    server, client = SSL.Connection(context, None), SSL.Connection(_client_context(), None)
    server.set_accept_state()
    client.set_connect_state()
    stop_at_choice(server)
    if _shake(client):
        raise Unusable("a handshake was over at once")
    _carry(client, server)
    try:
        server.do_handshake()
    except SSL.WantX509LookupError:
        client.bio_write(_shake_elsewhere(server))
    else:
        raise Unusable("a handshake cannot be given to another thread")
    while not (_shake(client) & _shake(server)):
        _carry(client, server)
        _carry(server, client)
    near, far = socket.socketpair()
    with far:
        near.setblocking(False)
        far.settimeout(1.0)
        client.send(HIDDEN[:9])
        handle = core.adopt(near.detach(), 0, 0.0)
        core.own(handle, client)  # whom events are about
        # The first part came with the handshake, the other comes by the socket.
        if not core.tls(handle, *hand_over(server), client.bio_read(1 << 16)):
            raise Unusable("the core did not take a connection")
        client.send(HIDDEN[9:])
        far.sendall(client.bio_read(1 << 16))
        came = b""
        for _ in range(TURNS):
            for _kind, _owner, payload in core.run(0.0) or ():
                if isinstance(payload, bytes):
                    came += payload
                    core.send(handle, payload, 0)
            core.go_on(0.0)
            if len(came) >= len(HIDDEN):
                break
        core.close(handle, 1)
        core.run(0.0)
        core.run(0.0)
        core.release(handle)
        sealed = b""
        while piece := far.recv(1 << 16):
            sealed += piece
    client.bio_write(sealed)
    echo = b""
    with suppress(SSL.ZeroReturnError):
        while True:
            echo += client.recv(1 << 16)
    if came != HIDDEN or echo != HIDDEN or HIDDEN in sealed:
        raise Unusable("the trial of OpenSSL brought something else than was said")


def _shake_elsewhere(server: Any) -> bytes:
    """The first step of a server's handshake, on a thread; returns what it says."""
    from fastway.relay import _core

    shaker = _core.Shaker(*library())
    shaker.give(server, *objects_of(server), b"")
    select.select([shaker.fileno()], [], [], TRIAL_SECONDS)
    taken = shaker.take()
    shaker.stop()
    if taken is None or taken[1] != _core.WANTS or not taken[3]:
        raise Unusable("a handshake on another thread did not go on")
    return taken[3]


def _shake(end: Any) -> bool:
    from OpenSSL import SSL

    try:
        end.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _carry(giver: Any, taker: Any) -> None:
    from OpenSSL import SSL

    with suppress(SSL.WantReadError):  # it said nothing
        taker.bio_write(giver.bio_read(1 << 16))


def _client_context() -> Any:
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _certificate() -> tuple[Any, Any]:
    """One for the trial."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trial")])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, SHA256()), key
