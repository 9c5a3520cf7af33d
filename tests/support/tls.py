"""Certificates for this machine.

Rule: they are made anew for each run; a signer's own certificate is its authority.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import ssl

UTC = datetime.timezone.utc
HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @cached_property
    def private(self) -> ssl.PrivateCertificate:
        """The same for Twisted."""
        return cast(
            ssl.PrivateCertificate, ssl.PrivateCertificate.loadPEM(self.pem + self.key_pem)
        )

    def write(self, cert: str, key: str = "") -> None:
        """Write the certificate, and the key, there; both into one file where there is one."""
        with open(cert, "wb") as file:
            file.write(self.pem + (b"" if key else self.key_pem))
        if key:
            with open(key, "wb") as file:
                file.write(self.key_pem)

    def save(self, directory: str, name: str = "cert.pem") -> str:
        """Save the certificate in a directory of its own, as `trustRoots` wants it; its path."""
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, name)
        with open(path, "wb") as file:
            file.write(self.pem)
        return path


def make(
    name: str,
    hosts: Sequence[str] = (),
    *,
    signer: Made | None = None,
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
    uri: str = "",
) -> Made:
    """A certificate for hosts.

    Args:
        name: Whom it is about.
        hosts: DNS names and addresses.
        signer: Who signs it; None: itself, and it may sign others.
        begins: When it becomes valid; None: five minutes ago.
        ends: None: an hour after that.
        uri: Another name, as SPIFFE has them.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begins = begins or datetime.datetime.now(UTC) - HOUR / 12
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    if uri:
        names.append(x509.UniformResourceIdentifier(uri))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends or begins + HOUR)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Made(builder.sign(key if signer is None else signer.key, hashes.SHA256()), key)


def make_certificate(now: datetime.datetime | None = None) -> ssl.PrivateCertificate:
    """A certificate for `localhost` and its key, valid for an hour from shortly before `now`,
    that is its own authority."""
    begins = None if now is None else now - HOUR / 12
    return make("localhost", ["localhost"], begins=begins).private


class KeyChanger:
    """A client of TLS 1.3, in memory, that changes its keys whenever it is told to, by the
    system's OpenSSL: Python's ssl cannot.

    Raises:
        OSError: there is no such OpenSSL.
    """

    def __init__(self) -> None:
        library = self._library = ctypes.CDLL(ctypes.util.find_library("ssl") or "no libssl")
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new"):
            getattr(library, name).restype = ctypes.c_void_p
        method = ctypes.c_void_p(library.TLS_client_method())
        self._context = ctypes.c_void_p(library.SSL_CTX_new(method))
        self._ssl = ctypes.c_void_p(library.SSL_new(self._context))
        memory = ctypes.c_void_p(library.BIO_s_mem())
        self._into = ctypes.c_void_p(library.BIO_new(memory))
        self._out = ctypes.c_void_p(library.BIO_new(memory))
        library.SSL_set_bio(self._ssl, self._into, self._out)  # they are its own from now on
        library.SSL_set_connect_state(self._ssl)

    def free(self) -> None:
        self._library.SSL_free(self._ssl)
        self._library.SSL_CTX_free(self._context)

    def shake(self, came: bytes = b"") -> tuple[bool, bytes]:
        """Go on with the handshake: whether it is over, and what is to be sent."""
        if came:
            self._library.BIO_write(self._into, came, len(came))
        done = self._library.SSL_do_handshake(self._ssl) == 1
        return done, self._sealed()

    def change(self, times: int) -> bytes:
        """What is to be sent for so many new keys."""
        for _ in range(times):
            assert self._library.SSL_key_update(self._ssl, 0) == 1
            assert self._library.SSL_do_handshake(self._ssl) == 1
        return self._sealed()

    def seal(self, data: bytes) -> bytes:
        assert self._library.SSL_write(self._ssl, data, len(data)) == len(data)
        return self._sealed()

    def _sealed(self) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 16)
        size = self._library.BIO_read(self._out, buffer, len(buffer))
        return buffer.raw[: max(0, size)]
