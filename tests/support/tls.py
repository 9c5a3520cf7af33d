"""Certificates for this machine.

Rule: they are made anew for each run; a signer's own certificate is its authority.
"""

from __future__ import annotations

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
