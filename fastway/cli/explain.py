"""Why a tool cannot go on, in a line for who typed the command.

Rule: no name of a class reaches the operator but that of a bug.
"""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint

from fastway.address import install_hint
from fastway.errors import ConfigError, FastwayError


class ToolError(Exception):
    """A tool cannot go on. The text is one line."""


def gateway_endpoint(reactor: Any, option: str, text: str) -> IStreamClientEndpoint:
    """The client endpoint of a gateway: `host:port` or a Twisted endpoint string.

    Args:
        option: As the operator wrote it.

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and int(port) <= 65535 and (":" not in host or host[:1] == "["):
        host = (host.strip("[]") or "127.0.0.1").replace(":", r"\:")
        endpoint = f"tcp:{host}:{port}"
    else:
        endpoint = text
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, endpoint))
    except (ImportError, NameError) as error:
        # Twisted leaves out the names of what it could not import.
        raise ConfigError(option, f"{text!r}: {error}; {install_hint(text)}") from None
    except Exception as error:  # each endpoint parser raises what it likes
        problem = str(error) or str(getattr(error, "originalException", "")) or repr(error)
        problem = re.sub(r"^[\w.]+\(\) ", "", " ".join(problem.split()))
        raise ConfigError(
            option, f"{text!r} is neither host:port nor an endpoint string: {problem}"
        ) from None


def explain(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, DNSLookupError):
        return f"cannot reach the gateway: {text}; is its name right?"
    if isinstance(error, ConnectError):
        return f"cannot reach the gateway: {text}; is one there?"
    if isinstance(error, FastwayError):
        cause = getattr(error, "cause", None)
        while cause is not None and cause is not error:
            why = explain_cause(cause)
            text = text if why in text else f"{text}: {why}"
            error, cause = cause, getattr(cause, "cause", None)
        return text
    if isinstance(error, ToolError):
        return text
    return f"{type(error).__name__}: {text}"


def explain_cause(cause: BaseException) -> str:
    """Why a connection broke; of TLS what the other side's certificate lacks."""
    mismatches = getattr(cause, "errors", None)
    if mismatches is not None:  # service_identity's VerificationError
        return "TLS: the certificate is for another name than the address has"
    rows = cause.args[0] if cause.args else None
    if isinstance(rows, list):  # OpenSSL's errors: (library, function, reason)
        reasons = ", ".join(str(row[-1]) for row in rows if row) or "the handshake failed"
        hint = "; trustRoots=DIRECTORY names whom to trust" if "verify failed" in reasons else ""
        return f"TLS: {reasons}{hint}"
    return " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
