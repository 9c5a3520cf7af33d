"""Whom a certificate names, and which server ids he may bring."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import ConfigError
from fastway.gateway import identities
from fastway.gateway.identities import Identities, identity_of, secured
from fastway.watched import EVERY, Watcher
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.logs import LogLines
from tests.support.tls import make

SHA256 = "ab" * 32


class NameTests(SynchronousTestCase):
    """The one name of a certificate."""

    def test_order(self) -> None:
        """A URI, else a DNS name, else the common name of one that has no list of names."""
        for made, expected in (
            (make("cn", ["b.example", "a.example"], uri="spiffe://x/game"), "spiffe://x/game"),
            (make("cn", ["b.example", "a.example"]), "b.example"),
            (make("cn"), "cn"),
            (make("cn", ["127.0.0.1"]), ""),
            (make("spiffe://x/game"), ""),
            (make("two words"), ""),
            (make("bell\x07"), ""),
            (make("cn", ["x." * 127 + "example"]), ""),
        ):
            with self.subTest(expected=expected):
                self.assertEqual(identity_of(made.certificate), expected)

    def test_nonsense(self) -> None:
        """A certificate that cannot be understood names nobody."""
        self.assertEqual(identity_of(SimpleNamespace()), "")

    def test_no_tls(self) -> None:
        """A transport without TLS tells nothing."""
        self.assertEqual(secured(object()), {})
        self.assertEqual(secured(None), {})


class TableTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.path = os.path.join(scratch(self), "ids")
        self.writes = 0

    def write(self, text: str | bytes) -> None:
        self.writes += 1
        with open(self.path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.utime(self.path, ns=(self.writes, self.writes))

    def table(self, text: str | bytes) -> Identities:
        self.write(text)
        return Identities(self.path, "--server-identities")

    def allowed(self, table: Identities, identity: str, sha256: str = SHA256) -> list[int]:
        return [number for number in range(12) if not table.problem(identity, sha256, number)]

    def test_ids(self) -> None:
        """Ids, ranges, all; comments and empty lines; white space as one likes."""
        table = self.table(
            "# who   ids\n\nspiffe://x/a\t1\n  spiffe://x/b  2-4, 6 ,8-8\r\nall *\nthis#one 0"
        )
        self.assertEqual(self.allowed(table, "spiffe://x/a"), [1])
        self.assertEqual(self.allowed(table, "spiffe://x/b"), [2, 3, 4, 6, 8])
        self.assertEqual(self.allowed(table, "all"), list(range(12)))
        self.assertEqual(table.problem("all", SHA256, 2**32 - 1), "")
        self.assertEqual(self.allowed(table, "this#one"), [0])

    def test_refused(self) -> None:
        """Why somebody may not bring an id."""
        table = self.table(f"a 1\nsha256:{SHA256} 5")
        self.assertEqual(table.problem("", "", 1), "it showed no certificate")
        self.assertEqual(table.problem("a", "cd" * 32, 2), "a may not bring this id")
        self.assertEqual(table.problem("A", "cd" * 32, 1), "nobody knows A")
        unknown = "cd" * 32
        self.assertEqual(table.problem("", unknown, 1), f"nobody knows sha256:{unknown}")

    def test_fingerprint(self) -> None:
        """A certificate may be named by its fingerprint, as tools write it; both names count."""
        shown = ":".join(SHA256.upper()[place : place + 2] for place in range(0, 64, 2))
        table = self.table(f"SHA256:{shown} 5\na 1")
        self.assertEqual(self.allowed(table, "somebody"), [5])
        self.assertEqual(self.allowed(table, "a"), [1, 5])
        self.assertEqual(self.allowed(table, f"sha256:{SHA256}", "cd" * 32), [])

    @DETERMINISTIC
    @given(
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), min_size=1, max_size=8),
    )
    def test_ranges(self, pieces: list[tuple[int, int]]) -> None:
        """Ranges may overlap, in any order: each id in one of them is allowed, and no other."""
        text = ",".join(f"{low}-{low + size}" for low, size in pieces)
        table = self.table(f"a {text}")
        wanted = {number for low, size in pieces for number in range(low, low + size + 1)}
        found = {number for number in range(60) if not table.problem("a", SHA256, number)}
        self.assertEqual(found, wanted)

    def test_what_is_wrong(self) -> None:
        """Each is one line that names the option, the file and its line."""
        for text, expected in (
            ("", "names nobody"),
            ("# a 1\n", "names nobody"),
            ("a 1\nb\n", "line 2: no ids behind the identity"),
            ("a one", "line 1: 'one' is neither an id nor a range"),
            ("a 1,", "line 1: '' is neither"),
            ("a 4-2", "line 1: '4-2' is neither"),
            ("a 4294967296", "is neither"),
            ("a -1", "is neither"),
            ("a \u0661", "is neither"),
            ("a * 1", "is neither"),
            ("a 1\na 2", "line 2: a stands there twice"),
            (b"\xff 1", "is not UTF-8"),
        ):
            with self.subTest(text=text):
                problem = str(raised(ConfigError, self.table, text))
                self.assertTrue(problem.startswith(f"--server-identities: {self.path}"), problem)
                self.assertIn(expected, problem)
                self.assertNotIn("\n", problem)
        os.remove(self.path)
        error = raised(ConfigError, Identities, self.path, "--server-identities")
        self.assertIn("cannot read", str(error))

    def test_too_much(self) -> None:
        """The file and its ranges have an end."""
        self.patch(identities, "MAX_RANGES", 2)
        self.table("a 1,2")
        self.assertIn("over 2 ranges", str(raised(ConfigError, self.table, "a 1\nb 2,3")))
        self.patch(identities, "MAX_FILE", 5)
        self.assertIn("has over 5 bytes", str(raised(ConfigError, self.table, "a 1   ")))

    def test_changed(self) -> None:
        """A new file comes into use, and who cares is told; a bad one leaves the old."""
        table = self.table("a 1")
        told: list[Any] = []
        table.changed = lambda: told.append(self.allowed(table, "a"))
        clock = Clock()
        watcher = Watcher(clock, table)
        watcher.start()
        self.addCleanup(watcher.stop)

        def looks() -> None:
            for _ in range(3):
                clock.advance(EVERY)
                clock.pump([0.001] * 3)

        self.write("a 2")
        looks()
        self.assertEqual(told, [[2]])
        self.assertEqual((table.rereads, table.failures), (1, 0))
        self.write("nonsense")
        with LogLines() as log:
            looks()
        (line,) = log.lines
        self.assertIn("the old identities stay in use: --server-identities: ", line)
        self.assertEqual((table.rereads, table.failures), (1, 1))
        self.assertEqual((told, self.allowed(table, "a")), ([[2]], [2]))
        self.write("a 3")
        looks()
        watcher.refresh()
        self.assertEqual(told, [[2], [3]])
