"""What Twisted's TLS does not see to: a certificate that names nobody.

Rule: it only ever refuses. Whoever asks for a server by its name must not be given one whose
certificate has no name: Twisted (26.10) logs the error that the check of names meets there, and
goes on as if the name had been right.
"""

from __future__ import annotations

from typing import Any


def names_nobody(transport: Any) -> bool:
    """A TLS transport whose handshake is done verifies its peer, and the peer's certificate has
    no name to verify."""
    from cryptography.x509 import ExtensionNotFound, SubjectAlternativeName
    from OpenSSL.SSL import VERIFY_PEER

    connection = transport.getHandle()
    if not connection.get_verify_mode() & VERIFY_PEER:
        return False
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return False
    try:
        certificate.to_cryptography().extensions.get_extension_for_class(SubjectAlternativeName)
    except ExtensionNotFound:
        return True
    return False
