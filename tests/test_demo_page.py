"""The demo's page: what its web server answers, and what a browser makes of it.

Rule: the browser is Debian's chromium, without a window; where there is none these tests are
skipped, unless BROWSER_TESTS=must.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import struct
import subprocess
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.support import forks
from tests.support.browser import PATIENCE, Browser, Page, chromium
from tests.support.files import CHECKOUT, scratch
from tests.support.processes import environment, free_ports

PAGE = os.path.join(CHECKOUT, "fastway", "demo_page")


class Demo:
    """`fastway demo` in a process of its own.

    Args:
        web: The gateway's port for web pages, of 127.0.0.1; None: it has none.
        page: The port of the page; None: there is none.
        more: Further options.
    """

    def __init__(
        self, case: SynchronousTestCase, web: int | None, page: int | None, *more: str
    ) -> None:
        self.page = page
        places = ["" if port is None else f"127.0.0.1:{port}" for port in (web, page)]
        self._process = subprocess.Popen(
            [
                *(*forks.python(), "-m", "fastway", "demo", "--pid-file="),
                *("--client-addr=127.0.0.1:0", "--server-addr=127.0.0.1:0"),
                *(f"--client-ws-addr={places[0]}", f"--page-addr={places[1]}"),
                *("--admin-addr=127.0.0.1:0", *more),
            ],
            cwd=scratch(case),
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        case.addCleanup(self.kill)

    def ready(self) -> Demo:
        """Wait until it says where the page is."""
        assert self._process.stdout is not None
        lines = [""]
        while "Ctrl-C" not in lines[-1]:
            lines.append(self._process.stdout.readline())
            if not lines[-1]:
                raise AssertionError(f"the demo does not start: {lines}")
        found = re.search(r"in a browser, in two windows: (\S+)\n", "".join(lines))
        self.url = "" if found is None else found[1]
        return self

    def get(
        self, path: str, method: str = "GET", body: bytes | None = None, host: str | None = None
    ) -> http.client.HTTPResponse:
        """What its web server answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.page, timeout=PATIENCE)
        try:
            headers = {} if host is None else {"Host": host}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            self.text = answer.read()
            return answer
        finally:
            connection.close()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """End it as Ctrl-C would; returns the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        status = self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status


class ServerTests(SynchronousTestCase):
    """The small web server."""

    def test_answers(self) -> None:
        """The page and its files, with what keeps others out; nothing else."""
        web, page = free_ports(2)
        demo = Demo(self, web, page, "--client-ws-path=/game").ready()
        self.assertEqual(demo.url, f"http://127.0.0.1:{page}/")
        answer = demo.get("/?query")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.getheader("Content-Type"), "text/html; charset=utf-8")
        self.assertIn(f'content="ws://127.0.0.1:{web}/game"'.encode(), demo.text)
        policy = answer.getheader("Content-Security-Policy") or ""
        self.assertIn("default-src 'none'; script-src 'self';", policy)
        self.assertIn(f"connect-src ws://127.0.0.1:{web};", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(answer.getheader("X-Content-Type-Options"), "nosniff")
        self.assertEqual(demo.get("/", host=f"LOCALHOST:{page}").status, 200)
        self.assertIn(f'content="ws://localhost:{web}/game"'.encode(), demo.text)
        self.assertEqual(demo.get("/", method="HEAD").status, 200)
        for place, _, names in os.walk(PAGE):
            for name in names:
                path = "/" + os.path.relpath(os.path.join(place, name), PAGE)
                served = name.endswith((".css", ".js", ".svg"))
                status = demo.get(path).status
                self.assertEqual(status, 200 if served else 404, path)
        for path in ("/client", "/client/", "/../demo.py", "//", "/%2e%2e/demo.py", "/page.js/"):
            self.assertEqual(demo.get(path).status, 404, path)
        for host in ('x"><script>', "a b", "", "evil.example; script-src *"):
            self.assertEqual(demo.get("/", host=host).status, 400, host)
        self.assertEqual(demo.get("/", method="POST", body=b"").status, 405)
        for kind in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", page), PATIENCE) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + kind + b"\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(sock.recv(1), b"", kind)
        self.assertEqual(demo.get("/").status, 200)
        self.assertEqual(demo.stop(), 0)

    def test_without(self) -> None:
        """Without a port for web pages, or an address for it, there is no page."""
        demos = [Demo(self, *ports) for ports in ((None, 0), (0, None), (None, None))]
        for demo in demos:
            self.assertEqual(demo.ready().url, "")
            self.assertEqual(demo.stop(), 0)


class BrowserTests(SynchronousTestCase):
    """The page in a browser."""

    sizes: ClassVar = [(390, 844, False), (820, 1180, True), (1440, 900, False)]

    def setUp(self) -> None:
        if chromium() is None and os.environ.get("BROWSER_TESTS") != "must":
            raise self.skipTest("there is no chromium")
        self.browser = Browser(scratch(self))
        self.addCleanup(self.browser.close)

    def enter(self, page: Page, name: str) -> None:
        """Join the room by the form."""
        page.until("document.body?.dataset.state === 'up'")
        page.until("document.activeElement.id === 'name'")
        page.type(name)
        page.enter()
        page.until("document.activeElement.id === 'text'")
        page.until(f"document.getElementById('people').innerText.includes('{name} (you)')")

    def say(self, page: Page, text: str) -> None:
        """Write a line and send it."""
        page.type(text)
        page.enter()
        page.until("document.getElementById('text').value === ''")

    def hears(self, page: Page, name: str, text: str, mine: bool = False) -> None:
        """That line comes to be the last, from that name."""
        last = "[...document.querySelectorAll('.said')].at(-1)"
        page.until(f"{last}?.dataset.who === '{name}'")
        page.until(f"{last}.querySelector('.words').textContent === {text!r}")
        self.assertIs(page.value(f"{last}.classList.contains('mine')"), mine)

    def test_chat(self) -> None:
        """Two windows talk, see who is there, and come back to a gateway that was killed."""
        web, port = free_ports(2)
        demo = Demo(self, web, port).ready()
        ann, bob = self.browser.open(demo.url), self.browser.open(demo.url)
        ann.until("document.body?.dataset.state === 'up'")
        ann.value("document.querySelector('details').open = true")
        for width, height, dark in self.sizes:
            self.fits(ann, width, height, dark)
        self.enter(ann, "Ann")
        self.enter(bob, "Bob Ü")
        ann.until("document.getElementById('people').children.length === 2")
        for text in (
            "hello",
            "Grüße, 世界 <b>&amp;</b>",
            "/ is a path",
            "x" * 100_000,
            "ü" * 50_000,
        ):
            self.say(ann, text)
            self.hears(bob, "Ann", text)
            self.hears(ann, "Ann", text, mine=True)
            self.say(bob, text[::-1])
            self.hears(ann, "Bob Ü", text[::-1])
        self.looks(ann)
        self.assertEqual(ann.complaints + bob.complaints, [])

        demo.kill()
        for page in (ann, bob):
            page.until("document.body.dataset.state === 'down'")
            page.until("document.querySelector('#say button').disabled")
        demo = Demo(self, web, port).ready()
        for page in (ann, bob):
            page.until("document.body.dataset.state === 'up'")
            page.until("document.getElementById('people').children.length === 2")
        self.say(bob, "back again")
        self.hears(ann, "Bob Ü", "back again")
        # The browser itself complains of each attempt at a gateway that is not there.
        others = [
            line
            for line in ann.complaints + bob.complaints
            if f"WebSocket connection to 'ws://127.0.0.1:{web}/' failed" not in line
        ]
        self.assertEqual(others, [])
        self.assertEqual(demo.stop(), 0)

    def fits(self, page: Page, width: int, height: int, dark: bool) -> None:
        """On that screen nothing sticks out."""
        page.resize(width, height, dark)
        page.until(f"innerWidth === {width}")
        self.assertEqual(page.value("document.documentElement.scrollWidth"), width)

    def looks(self, page: Page) -> None:
        """On three screens all fits, and the newest line and the form are in sight."""
        for width, height, dark in self.sizes:
            self.fits(page, width, height, dark)
            page.until("log.scrollHeight - log.scrollTop - log.clientHeight < 2")
            bottom = page.value("document.getElementById('say').getBoundingClientRect().bottom")
            self.assertAlmostEqual(bottom, height, delta=1)
            ground = page.value("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", ground))) > 382
            self.assertIs(light, not dark)
            picture = page.picture()
            self.assertEqual(struct.unpack(">II", picture[16:24]), (width, height))
            if keep := os.environ.get("BROWSER_PICTURES"):
                with open(os.path.join(keep, f"{width}.png"), "wb") as file:
                    file.write(picture)

    def test_foreign_page(self) -> None:
        """Only the page itself may connect to the demo's gateway, and to nothing else."""
        web, port = free_ports(2)
        demo = Demo(self, web, port).ready()
        asked = f"""new Promise(resolve => {{
            const socket = new WebSocket("ws://127.0.0.1:{web}/", "fastway");
            socket.onopen = () => resolve("open");
            socket.onclose = ({{ code }}) => resolve(code);
        }})"""
        own = self.browser.open(demo.url)
        own.until("document.body?.dataset.state === 'up'")
        self.assertEqual(own.value(asked), "open")
        foreign = self.browser.open("data:text/html,<title>foreign</title>")
        foreign.until("document.title === 'foreign'")
        self.assertEqual(foreign.value(asked), 1006)
        told = "import('/client/index.js').then(m => m.connect('ws://127.0.0.2:1/'))"
        self.assertEqual(own.value(f"{told}.catch(error => error.name)"), "ConnectFailed")
        self.assertIn("Content Security Policy", own.complaints[0])
