"""The chat of examples/browser_chat: its server in a process, its page in a browser, and clients
of other dialects in its room.

Rule: as tests/test_demo_page.py: where there is no chromium these tests are skipped, unless
BROWSER_TESTS=must.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.blocks import blocks
from tests.support.browser import PATIENCE, Browser, Page, chromium
from tests.support.files import CHECKOUT, scratch
from tests.support.processes import environment, free_ports

EXAMPLES = os.path.join(CHECKOUT, "examples")
SERVER = os.path.join(EXAMPLES, "browser_chat", "server.py")


class Chat:
    """The server, on ports of its own.

    Attributes:
        said: What it said before the line that names its page.
    """

    def __init__(
        self, case: SynchronousTestCase, page: int, *ports: int, program: str = SERVER
    ) -> None:
        self.url = f"http://127.0.0.1:{page}/"
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, program, *map(str, (page, *ports))],
            cwd=scratch(case),
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        case.addCleanup(self.kill)
        while self.url not in (line := self.line()):
            assert line, self.said
            self.said.append(line)

    def line(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def kill(self) -> str:
        """End it as a crash would."""
        return self._end(signal.SIGKILL)

    def stop(self) -> str:
        """End it as Ctrl-C would; what it said meanwhile."""
        return self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> str:
        if self._process.returncode is not None:
            return ""
        self._process.send_signal(how)
        return self._process.communicate(timeout=PATIENCE)[0]


class BrowserChatTests(SynchronousTestCase):
    def test_server(self) -> None:
        """It has the page and where the chat is, and nothing else of its directory."""
        page, port = free_ports(2)
        chat = Chat(self, page, port)
        statuses = {}
        for path in ("/", "/chat.js", "/pomelo.js", "/chat.css", "/where.json", "/server.py"):
            connection = http.client.HTTPConnection("127.0.0.1", page, timeout=PATIENCE)
            connection.request("GET", path)
            answer = connection.getresponse()
            statuses[path] = answer.status
            body = answer.read()
            if path == "/where.json":
                self.assertEqual(json.loads(body), {"port": port})
            connection.close()
        self.assertEqual(statuses.pop("/server.py"), 404)
        self.assertEqual(set(statuses.values()), {200})
        self.assertEqual(chat.stop(), "")

    def test_chat(self) -> None:
        """Two windows talk, are refused, and come back to a server that was killed."""
        if chromium() is None and os.environ.get("BROWSER_TESTS") != "must":
            raise self.skipTest("there is no chromium")
        page, port = free_ports(2)
        chat = Chat(self, page, port)
        browser = Browser(scratch(self))
        self.addCleanup(browser.close)
        ann, bob = browser.open(chat.url), browser.open(chat.url)
        self.enter(ann, "Ann")
        self.enter(bob, "Ann", joins=False)
        bob.until("document.getElementById('problem').textContent === 'that name is taken'")
        bob.value("document.getElementById('name').value = ''")
        self.enter(bob, "Bob Ü")
        ann.until("document.getElementById('people').innerText.includes('Bob Ü')")
        for text in ("hello", "Grüße, 世界 😀 <b>&amp;</b>", "x" * 2000):
            self.say(ann, text)
            self.hears(bob, "Ann", text)
            self.say(bob, text[::-1])
            self.hears(ann, "Bob Ü", text[::-1])
        foreign = browser.open("data:text/html,<title>foreign</title>")
        foreign.until("document.title === 'foreign'")
        asked = f"""new Promise(resolve => {{
            const socket = new WebSocket("ws://127.0.0.1:{port}/");
            socket.onopen = () => resolve("open");
            socket.onclose = ({{ code }}) => resolve(code);
        }})"""
        self.assertEqual(foreign.value(asked), 1006)
        self.assertEqual(ann.complaints + bob.complaints, [])

        chat.kill()
        for window in (ann, bob):
            window.until("document.body.dataset.state === 'down'")
        chat = Chat(self, page, port)
        for window in (ann, bob):
            window.until("document.getElementById('people').children.length === 2")
        self.say(bob, "back again")
        self.hears(ann, "Bob Ü", "back again")
        self.assertEqual(chat.stop(), "")
        ann.until("document.body.dataset.state === 'down'")

    def test_three_dialects(self) -> None:
        """A page is in one room with clients of nano, of teleport and of hotpot."""
        if chromium() is None and os.environ.get("BROWSER_TESTS") != "must":
            raise self.skipTest("there is no chromium")
        [port] = free_ports(1)
        chat = Chat(self, port, program=os.path.join(EXAMPLES, "app_dialects.py"))
        browser = Browser(scratch(self))
        self.addCleanup(browser.close)
        page = browser.open(chat.url)
        self.enter(page, "Page")
        page.until("document.getElementById('people').innerText === 'Ann\\nBob\\nEve\\nPage'")
        hearing = [
            f"{name} hears by {dialect}"
            for name, dialect in (("Ann", "pomelo"), ("Bob", "teleport"), ("Eve", "hotpot"))
        ]
        for text in ("hello", "Grüße, 世界 😀 <b>&amp;</b>"):
            self.say(page, text)
            self.hears(page, "Page", text)
            self.assertEqual(
                sorted(chat.line() for _ in range(3)),
                [f"{who}: <Page> {text}\n" for who in hearing],
            )
        self.assertEqual(page.complaints, [])
        self.assertNotIn("Traceback", chat.stop())
        page.until("document.body.dataset.state === 'down'")

    def test_tutorial(self) -> None:
        """The tutorial's page joins its chat, says something, and hears a push."""
        if chromium() is None and os.environ.get("BROWSER_TESTS") != "must":
            raise self.skipTest("there is no chromium")
        with open(os.path.join(CHECKOUT, "docs", "app-tutorial.md"), encoding="utf-8") as file:
            story = blocks(file.read())
        web, chat, http_port = free_ports(3)
        ports = {"8080": web, "3251": chat, "8280": http_port}
        place = scratch(self)
        texts = {block.name or block.language: block.text for block in reversed(story)}
        for name, text in (("chat.py", texts["chat.py"]), ("index.html", texts["html"])):
            for told, port in ports.items():
                text = text.replace(told, str(port))
            with open(os.path.join(place, name), "w", encoding="utf-8") as file:
                file.write(text)
        os.symlink(
            os.path.join(EXAMPLES, "browser_chat", "pomelo.js"),
            os.path.join(place, "pomelo.js"),
        )
        origin = rf"http\://127.0.0.1\:{web}"
        serve = (
            *("-m", "fastway", "serve", "chat:app", "--push-token=secret"),
            *("--listen", f"chat:pomelo=ws:{chat}:interface=127.0.0.1:origins={origin}"),
            *("--push-addr", f"127.0.0.1:{http_port}"),
        )
        pages = ("-m", "http.server", str(web), "--bind", "127.0.0.1")
        for command, ready in ((serve, "pushes are taken"), (pages, "Serving HTTP")):
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=place,
                env={**environment({}), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            while ready not in (line := process.stdout.readline()):
                self.assertNotEqual(line, "", command)
        browser = Browser(scratch(self))
        self.addCleanup(browser.close)
        page = browser.open(f"http://127.0.0.1:{web}/")
        page.until("document.getElementById('state')?.textContent === 'here are Page'")
        page.value("document.getElementById('text').focus()")
        self.say(page, "hello <b>")
        page.until("document.getElementById('log').innerText.includes('<Page> hello <b>')")
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=PATIENCE)
        head = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        notice = {"group": "lobby", "route": "onNotice", "message": {"text": "at 9"}}
        connection.request("POST", "/", json.dumps(notice), head)
        self.assertEqual(json.loads(connection.getresponse().read()), {"sent": 1})
        connection.close()
        page.until("document.getElementById('log').innerText.includes('! at 9')")
        self.assertEqual([one for one in page.complaints if "favicon" not in one], [])

    def enter(self, page: Page, name: str, joins: bool = True) -> None:
        page.until("document.body?.dataset.state === 'up'")
        page.value("document.getElementById('name').focus()")
        page.type(name)
        page.enter()
        if joins:
            page.until("document.activeElement.id === 'text'")

    def say(self, page: Page, text: str) -> None:
        page.value("document.getElementById('text').focus()")
        page.type(text)
        page.enter()

    def hears(self, page: Page, name: str, text: str) -> None:
        """That line comes to be the last."""
        page.until(
            f"document.querySelector('#log li:last-child')?.textContent === {name + text!r}"
        )
