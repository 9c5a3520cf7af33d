"""The certificates of a TLS port without a connection: files, names, renewal, expiry."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway import certificates
from fastway.certificates import CertificateStore, Loaded, Places
from fastway.errors import ConfigError
from fastway.watched import EVERY, Watcher, read_bounded
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.logs import LogLines
from tests.support.tls import HOUR, Made, make

DAY = timedelta(days=1)
NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


class Contexts:
    """Makes contexts that are what they were made of."""

    files: tuple[str, ...] = ()
    problem = ""

    def refresh(self) -> None:
        if self.problem:
            raise ConfigError("--ca", self.problem)

    def make(self, loaded: Loaded) -> Any:
        return loaded


class StoreTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        self.now = NOW
        self.clock = Clock()
        self.contexts = Contexts()
        self.writes = 0

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def made(self, *hosts: str, **more: Any) -> Made:
        return make(hosts[0], hosts, **{"begins": NOW - DAY, "ends": NOW + 90 * DAY, **more})

    def write(self, made: Made, cert: str, key: str = "") -> None:
        """Write a pair; its files are newer than all before, whatever the file system's clock."""
        for path in (self.path(cert), self.path(key)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        made.write(self.path(cert), self.path(key) if key else "")
        self.touch(cert, *([key] if key else []))

    def touch(self, *names: str) -> None:
        self.writes += 1
        for name in names:
            os.utime(self.path(name), ns=(self.writes, self.writes))

    def flat(self, name: str, *hosts: str, **more: Any) -> Made:
        made = self.made(*(hosts or (name,)), **more)
        self.write(made, f"{name}.pem", f"{name}.key")
        return made

    def store(self, cert: str = "", key: str = "", directory: bool = False) -> CertificateStore:
        places = Places(
            self.path(cert) if cert else "",
            self.path(key) if key else "",
            self.directory if directory else "",
            "--cert",
            "--dir",
            "--key",
        )
        return CertificateStore("client", places, self.contexts, now=lambda: self.now)

    def problem(self, *args: Any, **kw: Any) -> str:
        text = str(raised(ConfigError, self.store, *args, **kw))
        self.assertNotIn("\n", text)
        return text.replace(f"{self.directory}/", "")

    def shown(self, store: CertificateStore, host: str) -> str:
        """The first name of the certificate that is shown to who asks for a host."""
        return cast(Loaded, store.choose(host)).hosts[0]


class StartTests(StoreTestCase):
    """What the files must be."""

    def test_one(self) -> None:
        """A certificate and its key; both may be in one file."""
        made = self.flat("a.example")
        store = self.store("a.example.pem", "a.example.key")
        loaded = cast(Loaded, store.default)
        self.assertEqual(loaded.chain, (made.certificate,))
        self.assertEqual(loaded.hosts, ("a.example",))
        self.write(made, "both.pem")
        self.assertEqual(cast(Loaded, self.store("both.pem").default).hosts, ("a.example",))

    def test_chain(self) -> None:
        """What follows the host's own certificate leads to the authority."""
        ca = self.made("authority")
        made = self.made("a.example", signer=ca)
        with open(self.path("full.pem"), "wb") as file:
            file.write(made.pem + ca.pem + made.key_pem)
        loaded = cast(Loaded, self.store("full.pem").default)
        self.assertEqual(loaded.chain, (made.certificate, ca.certificate))

    def test_what_is_wrong(self) -> None:
        """Each is one line that names the option, the file, and what mends it."""
        good = self.flat("good")
        self.flat("other")
        self.flat("old", ends=NOW - HOUR)
        self.flat("young", begins=NOW + HOUR)
        with open(self.path("locked.key"), "wb") as file:
            file.write(
                good.key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )
        with open(self.path("junk"), "wb") as file:
            file.write(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        for cert, key, expected in (
            ("none.pem", "good.key", "--cert: cannot read none.pem: No such file or directory"),
            ("good.pem", "none.key", "--key: cannot read none.key: No such file or directory"),
            ("junk", "good.key", "--cert: junk has no certificate in PEM; give a file that has"),
            ("good.key", "good.key", "--cert: good.key has no certificate in PEM"),
            ("good.pem", "", "--cert: good.pem has no private key in PEM; -tls-key names"),
            ("good.pem", "junk", "--key: junk has no private key in PEM; give a file that has"),
            ("good.pem", "locked.key", "--key: the key locked.key is encrypted; give one without"),
            ("good.pem", "other.key", "--cert: the key other.key is not that of the certificate"),
            ("old.pem", "old.key", "--cert: old.pem expired on 2026-05-01 11:00 UTC; renew it"),
            ("young.pem", "young.key", "--cert: young.pem is not valid before 2026-05-01 13:00"),
        ):
            with self.subTest(expected=expected):
                self.assertTrue(self.problem(cert, key).startswith(expected))

    def test_not_readable(self) -> None:
        """A file that this user may not read, a directory, and a pipe to which nobody writes."""
        self.flat("good")
        os.mkdir(self.path("directory"))
        os.mkfifo(self.path("pipe"))
        self.assertIn("Is a directory", self.problem("directory", "good.key"))
        self.assertIn("has no certificate in PEM", self.problem("pipe", "good.key"))
        if os.getuid() == 0:
            return  # who may read everything
        os.chmod(self.path("good.key"), 0)
        self.assertIn("Permission denied", self.problem("good.pem", "good.key"))

    def test_too_large(self) -> None:
        """A file has an end, and so has a chain."""
        with open(self.path("large"), "wb") as file:
            file.write(b"x" * 11)
        error = raised(ConfigError, read_bounded, self.path("large"), 10, "--cert")
        self.assertIn("has over 10 bytes", str(error))
        self.assertEqual(read_bounded(self.path("large"), 11, "--cert"), b"x" * 11)
        made = self.made("a.example")
        with open(self.path("long.pem"), "wb") as file:
            file.write(made.pem * 11 + made.key_pem)
        self.assertIn("has 11 certificates, over 10", self.problem("long.pem"))

    def test_openssl_does_not_want_it(self) -> None:
        """What OpenSSL refuses is one line too."""

        def refuse(_: Loaded) -> Any:
            raise ValueError("ee key too small")

        self.flat("good")
        self.patch(self.contexts, "make", refuse)
        problem = self.problem("good.pem", "good.key")
        self.assertIn("--cert: good.pem cannot be used: ValueError: ee key too small", problem)


class NameTests(StoreTestCase):
    """Which certificate is shown."""

    def test_directory(self) -> None:
        """certbot's way and flat pairs side by side; what is no pair is left out."""
        self.write(self.made("a.example"), "a.example/fullchain.pem", "a.example/privkey.pem")
        self.flat("b.example")
        self.write(self.made("c.example"), "c.example.crt", "c.example.key")
        self.write(self.made("d.example"), "d.example.pem", "elsewhere.txt")
        self.write(self.made("e.example"), ".e.example.pem", ".e.example.key")
        with open(self.path("README"), "w") as file:
            file.write("certbot writes one")
        store = self.store(directory=True)
        names = [one.pair.name for one in store.used]
        self.assertEqual(names, ["a.example", "b.example", "c.example"])
        for name in names:
            self.assertEqual(self.shown(store, name), name)

    def test_exact_wildcard_default(self) -> None:
        """The very name, then a wildcard for its first part, then the default."""
        self.flat("first", "default.example")
        self.flat("one", "a.example", "b.example")
        self.flat("wild", "*.example", "*.deep.example")
        store = self.store(directory=True)
        for asked, expected in (
            ("a.example", "a.example"),
            ("B.Example.", "a.example"),
            ("c.example", "*.example"),
            ("x.deep.example", "*.example"),
            ("x.y.deep.example", "default.example"),
            ("example", "default.example"),
            ("*.example", "*.example"),
            ("", "default.example"),
            (".", "default.example"),
            ("a" * 255, "default.example"),
            ("\x00\ufffd", "default.example"),
        ):
            with self.subTest(asked=asked):
                self.assertEqual(self.shown(store, asked), expected)

    def test_default(self) -> None:
        """The default is the pair so called, or the one of --cert; the first of two with one name
        is shown."""
        self.flat("a", "same.example", "a.example")
        self.flat("default", "d.example")
        self.flat("z", "same.example")
        store = self.store(directory=True)
        self.assertEqual(self.shown(store, "?"), "d.example")
        self.assertEqual(store.choose("same.example"), store.choose("a.example"))
        store = self.store("z.pem", "z.key", directory=True)
        self.assertEqual(store.used[0].pair.name, "z")
        self.assertEqual(self.shown(store, "?"), "same.example")

    def test_common_name(self) -> None:
        """A certificate without other names is for its common name."""
        self.write(make("Old.Example", begins=NOW - DAY, ends=NOW + DAY), "old.pem", "old.key")
        self.assertEqual(self.shown(self.store("old.pem", "old.key"), "?"), "old.example")

    def test_nothing_there(self) -> None:
        """A directory must be there, and have a pair, and not too many."""
        self.assertIn("--dir: ", self.problem(directory=True))
        self.assertIn("put a pair there", self.problem(directory=True))
        self.flat("a")
        self.flat("b")
        self.patch(certificates, "MAX_PAIRS", 1)
        self.assertIn("has 2 certificates, over 1", self.problem(directory=True))
        self.patch(certificates, "MAX_ENTRIES", 3)
        self.assertIn("has over 3 files", self.problem(directory=True))
        self.directory = self.path("none")
        self.assertIn("cannot read", self.problem(directory=True))

    def test_half_a_pair(self) -> None:
        """A directory of certbot's with one file of two is an error that names the other."""
        self.write(self.made("a.example"), "a.example/fullchain.pem", "a.example/privkey.pem")
        os.remove(self.path("a.example", "privkey.pem"))
        problem = self.problem(directory=True)
        self.assertIn("--dir: cannot read a.example/privkey.pem: No such file", problem)


class RenewalTests(StoreTestCase):
    """Files that change while the gateway runs."""

    def watch(self, store: CertificateStore) -> Watcher:
        watcher = Watcher(self.clock, store)
        watcher.start()
        self.addCleanup(watcher.stop)
        return watcher

    def turn(self, looks: int) -> None:
        """So many looks, and what they begin."""
        for _ in range(looks):
            self.clock.advance(EVERY)
            self.clock.pump([0.001] * 10)

    def used(self, store: CertificateStore) -> set[Any]:
        return {cast(Loaded, one.context).chain[0] for one in store.used}

    def test_renewed(self) -> None:
        """A change is read once two looks saw the same; new connections get the new one."""
        old = self.flat("a")
        store = self.store("a.pem", "a.key")
        self.watch(store)
        self.turn(3)
        self.assertEqual((store.rereads, store.failures), (0, 0))
        new = self.flat("a")
        self.turn(1)
        self.assertEqual(self.used(store), {old.certificate})
        with LogLines() as log:
            self.turn(1)
        self.assertEqual(self.used(store), {new.certificate})
        self.assertEqual(
            log.lines,
            ["client port: the certificate a is in use, until 2026-07-30 12:00 UTC"],
        )
        self.turn(3)
        self.assertEqual((store.rereads, store.failures), (1, 0))

    def test_one_file_after_the_other(self) -> None:
        """A renewal that is half written when it is looked at is no failure."""
        self.flat("a")
        store = self.store("a.pem", "a.key")
        self.watch(store)
        new = self.made("a")
        self.write(new, "a.pem", "elsewhere")
        self.turn(1)
        self.write(new, "a.pem", "a.key")
        with LogLines() as log:
            self.turn(2)
        self.assertEqual(self.used(store), {new.certificate})
        self.assertEqual((len(log.lines), store.failures), (1, 0))

    def test_at_once(self) -> None:
        """Who asks does not wait for two looks."""
        self.flat("a")
        store = self.store("a.pem", "a.key")
        watcher = self.watch(store)
        new = self.flat("a")
        watcher.refresh()
        self.clock.pump([0.001] * 3)
        self.assertEqual(self.used(store), {new.certificate})
        self.turn(3)
        self.assertEqual(store.rereads, 1)

    def test_bad(self) -> None:
        """What is bad leaves the old in use, and one line says why; what is mended is taken."""
        cases: list[tuple[Callable[[], object], str]] = [
            (lambda: self.flat("a", ends=NOW - HOUR), "cert: a.pem expired on 2026-05-01"),
            (lambda: self.write(self.made("a"), "a.pem", "b.key"), "cert: the key a.key is not"),
            (lambda: os.remove(self.path("a.pem")), "cert: cannot read a.pem: No such file"),
            (lambda: os.truncate(self.path("a.key"), 20), "key: a.key has no private key"),
        ]
        for spoil, expected in cases:
            with self.subTest(expected=expected):
                good = self.flat("a")
                store = self.store("a.pem", "a.key")
                watcher = self.watch(store)
                spoil()
                with LogLines() as log:
                    self.turn(5)
                (line,) = log.lines
                line = line.replace(f"{self.directory}/", "")
                told = f"client port: the old certificate a stays: --{expected}"
                self.assertTrue(line.startswith(told), line)
                self.assertEqual(self.used(store), {good.certificate})
                self.assertEqual((store.rereads, store.failures), (0, 1))
                mended = self.flat("a")
                self.turn(2)
                self.assertEqual(self.used(store), {mended.certificate})
                watcher.stop()

    def test_directory(self) -> None:
        """Pairs come and go, a bad new one keeps no other out; each pair is one turn's work."""
        self.flat("a")
        self.flat("gone")
        store = self.store(directory=True)
        watcher = self.watch(store)
        before = store.choose("a")
        self.flat("b")
        self.flat("bad", ends=NOW - HOUR)
        self.flat("c")
        os.remove(self.path("gone.pem"))
        watcher.refresh()
        self.assertEqual(len(store.used), 2)  # all at the end
        with LogLines() as log:
            self.clock.pump([0.001] * 10)
        self.assertEqual([one.pair.name for one in store.used], ["a", "b", "c"])
        self.assertIs(store.choose("a"), before)
        self.assertEqual(self.shown(store, "gone"), "a")
        self.assertIn("what was in use stays so: --dir: ", log.lines[0])
        self.assertEqual(len(log.lines), 4)

    def test_nothing_left(self) -> None:
        """A directory that is empty, or gone, leaves all that was in use."""
        made = self.flat("a")
        store = self.store(directory=True)
        self.watch(store)
        os.remove(self.path("a.key"))
        with LogLines() as log:
            self.turn(4)
        self.assertEqual(self.used(store), {made.certificate})
        (line,) = log.lines
        self.assertIn("client port: what was in use stays so: --dir: ", line)

    def test_bad_authorities(self) -> None:
        """While other files that the contexts need are bad nothing new is taken."""
        old = self.flat("a")
        store = self.store("a.pem", "a.key")
        self.watch(store)
        self.flat("a")
        self.contexts.problem = "it has none"
        with LogLines() as log:
            self.turn(2)
        self.assertEqual(self.used(store), {old.certificate})
        self.assertEqual(log.lines, ["client port: what was in use stays so: --ca: it has none"])

    def test_stopped(self) -> None:
        """Who is stopped leaves nothing behind, in the middle of reading too."""
        self.flat("a")
        self.flat("b")
        store = self.store(directory=True)
        watcher = self.watch(store)
        self.flat("a")
        self.flat("b")
        watcher.refresh()
        watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(store.rereads, 0)
        watcher.start()
        self.clock.pump([0.001] * 5)
        self.assertEqual(store.rereads, 1)  # what changed while nobody looked
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_expires(self) -> None:
        """Below 14 days one line says so, and one when it is over; it stays in use."""
        self.flat("a", ends=NOW + 15 * DAY)
        store = self.store("a.pem", "a.key")
        with LogLines() as log:
            self.watch(store)
            self.turn(2)
            self.assertEqual(log.lines, [])
            self.assertEqual([str(one) for one in store.expiries()], ["a: 15 days left"])
            self.now = NOW + 2 * DAY
            self.turn(3)
            self.now = NOW + 16 * DAY
            self.turn(3)
        self.assertEqual(
            log.lines,
            [
                "client port: the certificate a expires on 2026-05-16 12:00 UTC; renew it",
                "client port: the certificate a expired on 2026-05-16 12:00 UTC; renew it",
            ],
        )
        self.assertEqual(
            [str(one) for one in store.expiries()], ["a expired on 2026-05-16 12:00 UTC"]
        )
