"""Tests of fastway.errors: the table of reasons, and that the manuals list it."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Cause, Reason

ROOT = Path(__file__).resolve().parent.parent

ROW = re.compile(r"\| (?P<text>[^|]+) \| `(?P<code>\w+)` \| (?P<meaning>[^|]+) \|")
"""A row of the table "Why a link is lost"."""

CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
"""What an end may send of RFC 6455 and IANA's registry, and what fits a reason of ours."""


class ReasonTests(SynchronousTestCase):
    def test_rows(self) -> None:
        """Each reason has a text of its own, a cause, and a close code that may be sent."""
        self.assertEqual(len({reason.value for reason in Reason}), len(Reason))
        for reason in Reason:
            with self.subTest(reason=reason):
                self.assertRegex(reason.value, r"^[a-z][ -~]+[a-z]$")
                self.assertIsInstance(reason.cause, Cause)
                self.assertTrue(
                    reason.close_code in CLOSE_CODES or 4000 <= reason.close_code <= 4999
                )
                self.assertEqual(reason.code, reason.name.lower())

    def test_value(self) -> None:
        """A reason's value is its text, and a copy of a reason is the reason itself."""
        self.assertEqual(Reason.KICKED.value, "kicked by the operator")
        for reason in Reason:
            self.assertIs(copy.deepcopy(reason), reason)
            self.assertIs(pickle.loads(pickle.dumps(reason)), reason)

    def test_ours(self) -> None:
        """Who goes because the gateway wants it, and may still be told, is known."""
        self.assertEqual(
            {reason for reason in Reason if reason.ours},
            {
                Reason.TOO_MANY_LINKS,
                Reason.ADDRESS_CONNECTIONS,
                Reason.ADDRESS_RATE,
                Reason.EVICTED,
                Reason.ID_IN_USE,
                Reason.KICKED,
                Reason.KICKED_BY_SERVER,
                Reason.SHUTDOWN,
                Reason.DRAIN,
                Reason.SERVER_CLOSED,
            },
        )

    def test_aborts(self) -> None:
        """Who took too little gets nothing more, nor does who is not or no longer let in."""
        self.assertEqual(
            {reason for reason in Reason if reason.aborts},
            {
                Reason.SLOW_READER,
                Reason.WRITE_TIMEOUT,
                Reason.HANDSHAKE_TIMEOUT,
                Reason.NO_MEMORY,
                Reason.NO_DESCRIPTOR,
                Reason.NO_ID,
                Reason.TOO_MANY_HANDSHAKES,
                Reason.CROWDED_OUT,
                Reason.PROXY_TIMEOUT,
                Reason.PROXY_TRUNCATED,
                Reason.PROXY_NOT_HEADER,
                Reason.PROXY_BAD_HEADER,
                Reason.PROXY_UNTRUSTED,
                Reason.SERVER_LOST,
                Reason.NO_SERVER,
            },
        )

    def test_close_codes(self) -> None:
        """The close codes that a peer acts on: come again later, stay away, or mend yourself."""
        for reason, code in (
            (Reason.PEER_CLOSED, 1000),
            (Reason.SHUTDOWN, 1001),
            (Reason.BAD_COMMAND, 1002),
            (Reason.FRAME_TOO_SHORT, 1002),
            (Reason.BAD_FRAME, 1002),
            (Reason.NOT_BINARY, 1003),
            (Reason.NOT_UTF8, 1007),
            (Reason.NOT_OWNER, 1008),
            (Reason.FRAME_TOO_LARGE, 1009),
            (Reason.NO_MEMORY, 1013),
            (Reason.TOO_MANY_LINKS, 1013),
            (Reason.AUTH_FAILED, 4401),
            (Reason.KICKED, 4403),
            (Reason.IDLE_TIMEOUT, 4408),
            (Reason.ADDRESS_CONNECTIONS, 4429),
            (Reason.ADDRESS_RATE, 4429),
            (Reason.EVICTED, 4409),
        ):
            self.assertEqual(reason.close_code, code)
