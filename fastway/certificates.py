"""The certificates of a TLS port: found in files, checked, chosen by name, read again on change.

Rule: what is in use was checked as a whole before. What cannot be used is an error at the start;
later the old stays in use, and one line says why. Nothing here knows a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from fastway.causes import cause_of
from fastway.errors import ConfigError
from fastway.logs import LevelLogger, make_logger
from fastway.watched import Stamp, read_bounded, stamp_of

log = make_logger(__name__)

MAX_PAIRS = 256
"""Certificates of one port."""

MAX_ENTRIES = 4 * MAX_PAIRS
"""Names that are looked at in a directory of certificates."""

MAX_FILE = 1024 * 1024
"""Bytes of a file with certificates or a key."""

MAX_CHAIN = 10
"""Certificates that one file may have, the host's own included."""

WARN = timedelta(days=14)
"""A certificate that expires within this is worth a line."""

DEFAULT = "default"
"""The pair in a directory that is shown to who asks for no name that is known."""


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files.

    Attributes:
        name: What operators call it.
        cert: The path of the certificate, and of those that lead to its authority.
        key: The path of the key; it may be the same file.
        where: The option that gave it.
        key_where: The option that gave the key, if that is another one.
    """

    name: str
    cert: str
    key: str
    where: str
    key_where: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files of a pair have: they fit each other, and are valid now.

    Attributes:
        chain: Its own certificate, then those that lead to the authority.
        key: Its private key.
        hosts: Names that it is for, in small letters; `*.` may begin one.
    """

    chain: tuple[x509.Certificate, ...]
    key: Any
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A certificate in use.

    Attributes:
        stamp: What its files were when they were read.
        context: OpenSSL's, which shows it.
    """

    pair: Pair
    stamp: Stamp
    hosts: tuple[str, ...]
    ends: datetime
    context: SSL.Context


@dataclass(frozen=True, slots=True)
class Places:
    """Where the certificates of a port are; all paths are absolute.

    Attributes:
        cert: A file with one; empty: none. It is the default.
        key: Its key; empty: in the same file.
        directory: A directory with pairs; empty: none.
        cert_option: The option that gave `cert`,
        directory_option: `directory`,
        key_option: and `key`.
    """

    cert: str = ""
    key: str = ""
    directory: str = ""
    cert_option: str = ""
    directory_option: str = ""
    key_option: str = ""

    def pairs(self) -> list[Pair]:
        """All pairs, the default first.

        Raises:
            ConfigError: the directory cannot be read, or has none, or too many.
        """
        found = []
        if self.cert:
            name = os.path.splitext(os.path.basename(self.cert))[0]
            key, where = (self.key, self.key_option) if self.key else (self.cert, "")
            found.append(Pair(name, self.cert, key, self.cert_option, where))
        if self.directory:
            found += self._pairs_within()
        return found

    def _pairs_within(self) -> list[Pair]:
        where, directory = self.directory_option, self.directory
        names = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > MAX_ENTRIES:
                        raise ConfigError(where, f"{directory} has over {MAX_ENTRIES} files")
        except OSError as error:
            raise ConfigError(where, f"cannot read {directory}: {error.strerror}") from None
        pairs: dict[str, Pair] = {}
        for name in sorted(names):
            pair = _pair_of(os.path.join(directory, name), where)
            if pair is not None:
                pairs.setdefault(pair.name, pair)
        if not pairs:
            raise ConfigError(
                where,
                f"{directory} has neither NAME/fullchain.pem with NAME/privkey.pem, "
                "nor NAME.pem or NAME.crt with NAME.key; put a pair there",
            )
        if len(pairs) > MAX_PAIRS:
            raise ConfigError(
                where, f"{directory} has {len(pairs)} certificates, over {MAX_PAIRS}"
            )
        return sorted(pairs.values(), key=lambda pair: (pair.name != DEFAULT, pair.name))


def _pair_of(path: str, where: str) -> Pair | None:
    """The pair that a name in a directory begins, or None."""
    stem, end = os.path.splitext(path)
    name = os.path.basename(stem)
    if name.startswith("."):
        return None
    if end in (".pem", ".crt"):
        key = f"{stem}.key"
        return Pair(name, path, key, where) if os.path.exists(key) else None
    cert, key = os.path.join(path, "fullchain.pem"), os.path.join(path, "privkey.pem")
    if not (os.path.exists(cert) or os.path.exists(key)):
        return None
    return Pair(os.path.basename(path), cert, key, where)


def read_certificates(path: str, where: str) -> list[x509.Certificate]:
    """All certificates of a PEM file.

    Raises:
        ConfigError: it cannot be read, or has none.
    """
    data = read_bounded(path, MAX_FILE, where)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        found = []
    if not found:
        raise ConfigError(where, f"{path} has no certificate in PEM; give a file that has")
    return found


def load(pair: Pair, now: datetime) -> Loaded:
    """Read and check a pair.

    Raises:
        ConfigError: it cannot be used; the text says what would mend it.
    """
    where = pair.where
    chain = read_certificates(pair.cert, where)
    if len(chain) > MAX_CHAIN:
        raise ConfigError(where, f"{pair.cert} has {len(chain)} certificates, over {MAX_CHAIN}")
    key = _read_key(pair)
    own = chain[0]
    try:
        fits = _public(key.public_key()) == _public(own.public_key())
        hosts = _hosts(own)
    except Exception as error:  # a kind of key or name that nobody knows
        raise ConfigError(where, f"{pair.cert} cannot be used: {cause_of(error)}") from None
    if not fits:
        raise ConfigError(
            where,
            f"the key {pair.key} is not that of the certificate {pair.cert}; "
            "give two that were made together, the host's own certificate first",
        )
    if own.not_valid_after_utc < now:
        ended = date(own.not_valid_after_utc)
        raise ConfigError(where, f"{pair.cert} expired on {ended}; renew it")
    if own.not_valid_before_utc > now:
        begins = date(own.not_valid_before_utc)
        raise ConfigError(
            where, f"{pair.cert} is not valid before {begins}; is this machine's clock right?"
        )
    return Loaded(tuple(chain), key, hosts)


def _read_key(pair: Pair) -> Any:
    path, where = pair.key, pair.key_where or pair.where
    data = read_bounded(path, MAX_FILE, where)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(
            where,
            f"the key {path} is encrypted; give one without a password: "
            f"openssl pkey -in {path} -out FILE",
        ) from None
    except Exception:  # several kinds of errors of what is no key
        mend = "-tls-key names its file" if path == pair.cert else "give a file that has"
        raise ConfigError(where, f"{path} has no private key in PEM; {mend}") from None


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that a certificate is for; the common name where it has no others."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(name.value).lower() for name in common)
    return tuple(name.lower() for name in names.value.get_values_for_type(x509.DNSName))


@dataclass(frozen=True, slots=True)
class Expiry:
    """A certificate in use, and how long it is valid.

    Attributes:
        days: Whole days left; below 0: it has expired.
    """

    name: str
    ends: datetime
    days: int

    def __str__(self) -> str:
        if self.days < 0:
            return f"{self.name} expired on {date(self.ends)}"
        return f"{self.name}: {self.days} days left"


class Maker(Protocol):
    """What makes contexts.

    Attributes:
        files: Files that they are made of besides their certificates.
    """

    files: tuple[str, ...]

    def refresh(self) -> None:
        """Read these files.

        Raises:
            ConfigError: one cannot be used; the old stays.
        """

    def make(self, loaded: Loaded) -> SSL.Context:
        """A context that shows a certificate."""


class CertificateStore:
    """The certificates of one port.

    Args:
        port: What operators call the port.
        places: Where they are.
        maker: Makes the contexts.
        now: The time by which they are valid.

    Attributes:
        used: Those in use, the default first.
        rereads: Times that something new was taken into use.
        failures: Times that something new could not be.

    Raises:
        ConfigError: one cannot be used.
    """

    def __init__(
        self,
        port: str,
        places: Places,
        maker: Maker,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.port = port
        self.places = places
        self.rereads = 0
        self.failures = 0
        self._maker = maker
        self._now = now
        self._warned: set[tuple[str, bool]] = set()
        self.used: tuple[Certificate, ...] = ()
        maker.refresh()
        self._install([self._read(pair) for pair in places.pairs()])

    @property
    def default(self) -> SSL.Context:
        """What is shown to who names nobody, or somebody unknown."""
        return self.used[0].context

    def choose(self, host: str) -> SSL.Context:
        """The context for a name that a client asks for: exact, by wildcard, or the default."""
        host = host.lower().rstrip(".")
        found = self._exact.get(host)
        if found is None:
            found = self._wild.get(host.partition(".")[2])
        return self.default if found is None else found

    def expiries(self, most: int = MAX_PAIRS) -> tuple[Expiry, ...]:
        """Those in use by when they end, the first to end first."""
        now = self._now()
        days = timedelta(days=1)
        return tuple(
            Expiry(one.pair.name, one.ends, (one.ends - now) // days)
            for one in sorted(self.used, key=lambda one: one.ends)[:most]
        )

    # What a watcher calls.

    def look(self) -> Stamp:
        """What the files are; it changes when one of them does."""
        try:
            pairs = self.places.pairs()
        except ConfigError as error:
            return (str(error),)
        return tuple(self._stamp(pair) for pair in pairs)

    def reread(self) -> Iterator[None]:
        """Read what changed, a certificate in each step; at the end all is taken into use."""
        try:
            pairs = self.places.pairs()
            self._maker.refresh()
        except ConfigError as error:
            self._keep(str(error))
            return
        known = {one.pair: one for one in self.used}
        taken: list[Certificate] = []
        fresh = []
        for pair in pairs:
            old = known.get(pair)
            if old is not None and old.stamp == self._stamp(pair):
                taken.append(old)
                continue
            try:
                new = self._read(pair)
            except ConfigError as error:
                self._keep(str(error), "" if old is None else pair.name)
                if old is not None:
                    taken.append(old)
            else:
                taken.append(new)
                fresh.append(new)
            yield
        left = {one.pair for one in taken}
        gone = [pair for pair in known if pair not in left]
        if not taken or not (fresh or gone):
            return
        self._install(taken)
        self.rereads += 1
        for new in fresh:
            log.info(
                "{port} port: the certificate {name} is in use, until {ends}",
                port=self.port,
                name=new.pair.name,
                ends=date(new.ends),
            )
        for pair in gone:
            log.info("{port} port: the certificate {name} is gone", port=self.port, name=pair.name)

    def age(self) -> None:
        """Say once of each certificate that it expires soon, and that it has expired."""
        warned = set()
        for expiry in self.expiries():
            if expiry.days >= WARN.days:
                continue
            mark = f"{expiry.name} {expiry.ends}", expiry.days < 0
            warned.add(mark)
            if mark not in self._warned:
                over = expiry.days < 0
                say: Callable[..., None] = log.error if over else log.warn
                say(
                    "{port} port: the certificate {name} "
                    + ("expired" if over else "expires")
                    + " on {ends}; renew it",
                    port=self.port,
                    name=expiry.name,
                    ends=date(expiry.ends),
                )
        self._warned = warned

    # The inside.

    def _stamp(self, pair: Pair) -> Stamp:
        return tuple(stamp_of(path) for path in (pair.cert, pair.key, *self._maker.files))

    def _read(self, pair: Pair) -> Certificate:
        stamp = self._stamp(pair)  # before: what changes meanwhile is read again
        loaded = load(pair, self._now())
        try:
            context = self._maker.make(loaded)
        except Exception as error:  # OpenSSL's, and cryptography's
            raise ConfigError(
                pair.where, f"{pair.cert} cannot be used: {cause_of(error)}"
            ) from None
        return Certificate(pair, stamp, loaded.hosts, loaded.chain[0].not_valid_after_utc, context)

    def _install(self, taken: Iterable[Certificate]) -> None:
        self.used = tuple(taken)
        self._exact: dict[str, SSL.Context] = {}
        self._wild: dict[str, SSL.Context] = {}
        for one in self.used:
            for host in one.hosts:
                if host.startswith("*."):
                    self._wild.setdefault(host[2:], one.context)
                else:
                    self._exact.setdefault(host, one.context)

    def _keep(self, problem: str, name: str = "") -> None:
        self.failures += 1
        what = f"the old certificate {name} stays" if name else "what was in use stays so"
        complain(log, self.port, what, problem)


def complain(log: LevelLogger, port: str, what: str, problem: str) -> None:
    """One line about what could not be taken into use."""
    log.error("{port} port: {what}: {problem}", port=port, what=what, problem=problem)
