"""OpenSSL for the core: what is looked at before it is used."""

from __future__ import annotations

from typing import Any
from unittest import skipIf

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from fastway.causes import cause_of
from fastway.relay import missing, openssl
from tests.support.errors import raised


@skipIf(missing(), missing())
class TrialTests(SynchronousTestCase):
    def test_here(self) -> None:
        """With the versions that are tested it can be used."""
        self.assertEqual(openssl.problem(), "")

    def test_other_functions(self) -> None:
        """One that is not there, or of another type, is a reason not to."""
        for name, kind in (("SSL_read", "int(*)(SSL *)"), ("SSL_gone", "int(*)(SSL *)")):
            self.patch(openssl, "FUNCTIONS", {name: kind})
            error = raised(openssl.Unusable, openssl.library)
            self.assertEqual(str(error), f"OpenSSL's {name} is not to be had")

    def test_another_binding(self) -> None:
        """So is a `cryptography` that has no such thing."""
        self.patch(openssl, "_binding", lambda: object())
        self.assertIn("its trial failed: AttributeError", openssl.problem.__wrapped__())

    def test_another_answer(self) -> None:
        """So is one that brings something else than was said."""
        whole = openssl.HIDDEN

        class Liar(bytes):
            def __ne__(self, other: Any) -> bool:
                return True

        self.patch(openssl, "HIDDEN", Liar(whole))
        self.assertEqual(
            openssl.problem.__wrapped__(),
            "the trial of OpenSSL brought something else than was said",
        )

    def test_own_error(self) -> None:
        """The core's own code has a text too."""
        error = openssl.error_of([openssl.BARREN])
        self.assertIn("too many records without data", cause_of(error))

    def test_errors(self) -> None:
        """What OpenSSL tells the core is what pyOpenSSL would raise."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)
        connection.set_accept_state()
        connection.bio_write(b"GET / HTTP/1.1\r\n\r\n")
        error = raised(SSL.Error, connection.do_handshake)
        lib = openssl._binding().lib
        connection = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)
        connection.set_accept_state()
        connection.bio_write(b"GET / HTTP/1.1\r\n\r\n")
        lib.SSL_do_handshake(connection._ssl)
        codes = iter(lib.ERR_get_error, 0)
        same = openssl.error_of(codes)
        self.assertEqual(same.args, error.args)
        self.assertEqual(cause_of(same), cause_of(error))
