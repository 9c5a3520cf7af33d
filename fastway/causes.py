"""Why a connection could not be made, or was lost: one line for a person.

Rule: it tells and decides nothing, never fails itself, and imports neither Twisted nor OpenSSL nor
ssl: an error of theirs can only come from where they are loaded.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

from fastway.errors import FastwayError
from fastway.strings import DIALS, LISTENS, meaning

MOST_NAMES = 4
"""Names of a certificate that a line gives."""

TRUST = "trustRoots=DIRECTORY trusts the .pem files in it"
TRUST_CONTEXT = "SSLContext.load_verify_locations(FILE) trusts what is in it"
SHOW = "certificate=FILE:privateKey=FILE shows one"
NO_TLS = "the other side does not talk TLS: is that the port for it?"
NOT_PEM = "the file is not PEM, or lacks the certificate or the key that it should have"

_ERRNOS = {
    errno.ECONNREFUSED: "connection refused; is one there?",
    errno.ETIMEDOUT: "no answer in time; is the address right, and does a firewall let it pass?",
    errno.ECONNRESET: "reset by the other side or the network",
    errno.EPIPE: "reset by the other side or the network",
    errno.ENETUNREACH: "no route there; is the network up, and the address right?",
    errno.EHOSTUNREACH: "no route there; is the network up, and the address right?",
    errno.ENETDOWN: "no route there; is the network up, and the address right?",
}

_TLS_REASONS = [
    # (what OpenSSL's reason matches, what it means), the first that does.
    (r"certificate required", f"the other side wants a certificate; {SHOW}"),
    (r"did not return a certificate", "the other side showed no certificate"),
    (r"alert unknown ca", "the other side does not trust the certificate that it was shown"),
    (r"alert certificate expired", "the certificate that the other side was shown has expired"),
    (
        r"alert (bad certificate|certificate \w+|unsupported certificate|access denied)",
        "the other side refuses the certificate that it was shown ({0})",
    ),
    (
        r"protocol version|unsupported protocol|no protocols available|version too low",
        "no version of TLS that both sides speak",
    ),
    (r"no shared cipher|insufficient security", "no cipher that both sides have"),
    (
        r"alert handshake failure",
        f"no cipher that both sides have; or the other side wants a certificate: {SHOW}",
    ),
    (
        r"wrong version number|unknown protocol|http request|https proxy request|packet length"
        r"|record layer failure|bad record type|unexpected message",
        NO_TLS,
    ),
    (r"key values mismatch", "the private key is not that of the certificate"),
    (r"pem lib|no start line|certificate or crl found|^unsupported$|bad base64", NOT_PEM),
    (r"eof", "the connection ended within TLS"),
]


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, as far as it matters here.

    Attributes:
        names: The hosts that it is for.
        subject: Whom it is about; of several names the last.
        issuer: Who signed it.
        own: It signed itself.
    """

    names: list[str]
    subject: str
    issuer: str
    own: bool
    begins: datetime
    ends: datetime


def cause_of(error: BaseException, transport: Any = None) -> str:
    """Why a connection could not be made, or was lost, in one line without an end.

    Args:
        error: Twisted's, asyncio's, OpenSSL's, service_identity's, the system's, or one of this
            package, whose text has its cause already.
        transport: That of the connection, if it is being lost right now: over Twisted's TLS it
            still knows the other side's certificate.
    """
    if isinstance(error, FastwayError):
        return one_line(error)
    tls = _tls_cause(error, transport)
    if tls:
        return f"TLS: {tls}"
    inner = getattr(error, "originalException", None)  # of Twisted's UnlistableError
    if isinstance(inner, BaseException) and inner is not error:
        return cause_of(inner)
    if isinstance(error, ImportError) or _left_out(error):
        return not_installed(error, str(error))
    return _system_cause(error) or f"{type(error).__name__}: {one_line(error)}".rstrip(": ")


def one_line(error: BaseException) -> str:
    """An error's text, in one line without an end."""
    return " ".join(str(error).split()).rstrip(".")


def _left_out(error: BaseException) -> bool:
    """Twisted lacks a name because it could not import OpenSSL, and has not said so."""
    return isinstance(error, NameError) and re.search("TLS|Certificate", str(error)) is not None


def not_installed(error: BaseException, text: str) -> str:
    """What lacks, and what installs it.

    Args:
        text: The endpoint string that needs it, or what the error says.
    """
    lacks = "" if _left_out(error) else f": {one_line(error)}"
    inside = re.search(r"(?i)\b(tls|ssl)\\*:|openssl|TLS|Certificate|service_identity", text)
    extra = "tls" if inside or not re.search("snet|cryptography", text) else "snet"
    how = f"pip install 'fastway[{extra}]', or '.[{extra}]' in a checkout"
    return f"not all of it is installed{lacks}; {how}"


def string_problem(text: str, error: BaseException, forms: Mapping[str, str] = DIALS) -> str:
    """Why an endpoint string cannot be used, in one line.

    Args:
        error: What its parser raised.
        forms: How it is written: `fastway.strings.LISTENS` or DIALS.
    """
    if isinstance(error, ImportError) or _left_out(error):
        return f"{text!r}: {not_installed(error, text)}"
    problem = cause_of(error).removeprefix("TLS: ")
    if isinstance(getattr(error, "originalException", error), OSError) or problem == NOT_PEM:
        form = forms.get(text.partition(":")[0], "")
        lacks = forms is LISTENS and "privateKey" in form and "privateKey" not in text
        mend = f"; write {form}" if lacks else ""
        return f"{text!r}: {_guilty_file(text) or problem}{mend}"
    raised = re.sub(r"^[\w.]+\(\) ", "", one_line(error)) or type(error).__name__
    return meaning(text, raised, forms)


def _guilty_file(text: str) -> str:
    """Which file of an endpoint string cannot be used, and why; "" if all look well."""
    paths = re.findall(r"\b(\w+)\\*=([^:\\]*)", text)
    given = {name for name, _ in paths}
    for name, path in paths:
        wanted = {
            "privateKey": "PRIVATE KEY",
            "certKey": "CERTIFICATE",
            "extraCertChain": "CERTIFICATE",
            "certificate": "CERTIFICATE",
            "trustRoots": "",
            "caCertsDir": "",
        }.get(name)
        if wanted is None:
            continue
        try:
            if not wanted:
                os.listdir(path)
                continue
            with open(path, "rb") as file:
                data = file.read(1 << 20).decode("latin-1")
        except OSError as error:
            return f"{name}={path}: {_system_cause(error)}"
        if f"{wanted}-----" not in data:
            return f"{name}={path}: it has no {wanted.lower()} in PEM"
        alone = name in ("certificate", "certKey") and "privateKey" not in given
        if alone and "PRIVATE KEY-----" not in data:
            return f"{name}={path}: it has no private key, and privateKey=FILE gives none"
    return ""


# The system, and Twisted and asyncio where they say what it said.


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module, if somebody imported it: for isinstance."""
    there = sys.modules.get(module)
    found = (getattr(there, name, None) for name in names)
    return tuple(one for one in found if isinstance(one, type))


def _system_cause(error: BaseException) -> str:
    """What went wrong with a connection, or a file; "" if that is not known."""
    told = " ".join(error.args[0].split()) if error.args and isinstance(error.args[0], str) else ""
    lookups = _loaded("socket", "gaierror") + _loaded(
        "twisted.internet.error", "DNSLookupError", "UnknownHostError"
    )
    if isinstance(error, lookups):
        detail = told or getattr(error, "strerror", None) or "nobody knows it"
        return f"the host's name cannot be looked up: {detail}; is it right?"
    timeouts = _loaded("twisted.internet.error", "TimeoutError") + _loaded(
        "asyncio.exceptions", "TimeoutError"
    )
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if number is None:  # asyncio's, of several addresses
        numbers = re.findall(r"\[Errno (\d+)\]", told)
        number = int(numbers[-1]) if numbers else None
    if number in _ERRNOS:
        return _ERRNOS[cast(int, number)]
    if isinstance(error, (*timeouts, TimeoutError)):
        return told or "no answer in time"
    for kind, text in (
        ("ConnectionRefusedError", _ERRNOS[errno.ECONNREFUSED]),
        ("ConnectionAborted", "given up here"),
        ("ConnectionDone", "closed by the other side"),
        ("ConnectionLost", _ERRNOS[errno.ECONNRESET]),
    ):
        if isinstance(error, _loaded("twisted.internet.error", kind)):
            return text
    if isinstance(error, ConnectionError) and not number:
        return _ERRNOS[errno.ECONNRESET]
    if isinstance(error, _loaded("twisted.internet.error", "ConnectError")):
        return told or one_line(error)
    if not isinstance(error, OSError):
        return ""
    if not number:
        return told
    name = f": {error.filename}" if error.filename else ""
    text = {
        errno.ENOENT: "there is no such file",
        errno.EACCES: "it may not be read by this user",
        errno.EPERM: "it may not be read by this user",
        errno.ENOTDIR: "it is a file, and must be a directory with .pem files",
        errno.EISDIR: "it is a directory, and must be a file",
    }.get(number, error.strerror or os.strerror(number))
    return f"{text}{name}"


# TLS.


def _tls_cause(error: BaseException, transport: Any) -> str:
    """What went wrong with TLS; "" if it was something else."""
    link = _tls_link(error, transport)
    plain = _loaded("twisted.internet.error", "ConnectionLost", "ConnectionDone")
    if isinstance(error, (*plain, ConnectionError)):
        # An end within the handshake. Before its first answer nothing was agreed on.
        silent = link is not None and _agreed(link) is None
        return f"closed within the handshake; {NO_TLS}" if silent else ""
    if isinstance(error, _loaded("service_identity", "VerificationError")):
        asked = [_asked(mismatch.mismatched_id) for mismatch in cast(Any, error).errors]
        return _other_name(_certificates(link), " or ".join(asked))
    if isinstance(error, _loaded("service_identity", "CertificateError")):
        return f"its certificate cannot be used: {one_line(error)}"
    if isinstance(error, _loaded("ssl", "SSLCertVerificationError")):
        verify = cast(Any, error)
        asked_for = re.search(r"not valid for '(.*)'", verify.verify_message)
        if asked_for is not None:
            return _other_name(_certificates(link), asked_for[1])
        return _not_trusted(_certificates(link), TRUST_CONTEXT, verify.verify_message)
    reasons = list(_reasons(error))
    for reason in reasons:
        if "verify failed" in reason:
            return _not_trusted(_certificates(link), TRUST, "")
        for pattern, text in _TLS_REASONS:
            found = re.search(pattern, reason)
            if found is not None:
                return text.format(*found.groups())
    return ", ".join(reasons)


def _asked(wanted: Any) -> str:
    """The host that one of service_identity's patterns wants."""
    name = getattr(wanted, "hostname", None) or getattr(wanted, "ip", wanted)
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)


def _reasons(error: BaseException) -> Iterator[str]:
    """What OpenSSL says, in small letters; nothing if the error is not OpenSSL's."""
    if isinstance(error, _loaded("ssl", "SSLError")):
        reason = getattr(error, "reason", None) or str(error.args[-1] if error.args else "")
        yield re.sub(r"^\[\w+\] | \(_ssl.*\)$", "", reason).replace("_", " ").lower()
    elif isinstance(
        error, (*_loaded("OpenSSL.SSL", "Error"), *_loaded("OpenSSL.crypto", "Error"))
    ):
        rows = error.args[0] if error.args else None
        said = [str(row[-1]) for row in rows if row] if isinstance(rows, list) else []
        yield from [reason.lower() for reason in said] or ["the handshake failed"]


def _not_trusted(chain: list[Certificate], hint: str, said: str) -> str:
    """Why a chain of certificates was not taken.

    Args:
        said: What ssl said of it; "": OpenSSL only said that it was not.
    """
    now = datetime.now(timezone.utc)
    for one in chain if not said or "expired" in said or "not yet" in said else []:
        whose = "its certificate" if one is chain[0] else f"the certificate of {one.subject}"
        if one.ends < now:
            return f"{whose} expired on {one.ends:%Y-%m-%d %H:%M} UTC"
        if one.begins > now:
            begins = f"{one.begins:%Y-%m-%d %H:%M} UTC"
            return f"{whose} is not valid before {begins}; is this machine's clock right?"
    if said and not re.search("self.signed|issuer|verify the first", said):
        return f"its certificate is not taken: {said}"
    if [one.own for one in chain] == [True] or (not chain and "self" in said):
        return f"its certificate is self-signed, and not among those that are trusted; {hint}"
    issuer = f" ({chain[-1].issuer})" if chain else ""
    return f"nobody who is trusted signed its certificate{issuer}; {hint}"


def _other_name(chain: list[Certificate], asked: str) -> str:
    if not chain:
        return f"its certificate is not for {asked}"
    names = chain[0].names[:MOST_NAMES]
    more = len(chain[0].names) - len(names)
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    return f"its certificate is for {listed or 'no host at all'}, not for {asked}"


def _tls_link(error: BaseException, transport: Any) -> Any:
    """The OpenSSL connection, or ssl's object, that an error came from; None if there is none.

    asyncio gives no transport to who could not connect; but the error has passed through ssl. (In
    Python 3.10 not always: a reset is then only that.)
    """
    link = None
    with suppress(AttributeError):  # of another transport, whose socket is gone
        link = transport.getHandle()
    if isinstance(link, _loaded("OpenSSL.SSL", "Connection")):
        return link
    place = error.__traceback__
    found = None
    while place is not None:
        for value in place.tb_frame.f_locals.values():
            if isinstance(value, _loaded("ssl", "SSLObject", "SSLSocket")):
                found = value
        place = place.tb_next
    return found


def _agreed(link: Any) -> Any:
    """The cipher that both ends have agreed on, or None."""
    return link.get_cipher_name() if hasattr(link, "get_cipher_name") else link.cipher()


def _certificates(link: Any) -> list[Certificate]:
    """The chain that the other side showed, its own certificate first; empty if nobody knows."""
    try:
        if link is None:
            return []
        if hasattr(link, "get_peer_cert_chain"):
            return [_of_openssl(one) for one in link.get_peer_cert_chain() or ()]
        # Public since Python 3.13 only, and without what the certificates say.
        return [_of_ssl(one.get_info()) for one in link._sslobj.get_unverified_chain() or ()]
    except Exception:  # a certificate may hold anything, and the line is right without
        return []


def _of_openssl(one: Any) -> Certificate:
    from cryptography import x509

    certificate = one.to_cryptography()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        hosts = []
    return Certificate(
        names=hosts,
        subject=_last([attribute.value for attribute in certificate.subject]),
        issuer=_last([attribute.value for attribute in certificate.issuer]),
        own=certificate.subject == certificate.issuer,
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _of_ssl(info: dict[str, Any]) -> Certificate:
    from ssl import cert_time_to_seconds

    def moment(text: str) -> datetime:
        return datetime.fromtimestamp(cert_time_to_seconds(text), timezone.utc)

    subject, issuer = (
        [value for row in info.get(kind, ()) for _, value in row] for kind in ("subject", "issuer")
    )
    return Certificate(
        names=[value for _, value in info.get("subjectAltName", ())],
        subject=_last(subject),
        issuer=_last(issuer),
        own=subject == issuer,
        begins=moment(info["notBefore"]),
        ends=moment(info["notAfter"]),
    )


def _last(names: list[Any]) -> str:
    return str(names[-1]) if names else "nobody"
