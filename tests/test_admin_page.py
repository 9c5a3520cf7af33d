"""The admin page in a browser: beside a gateway, and beside one that is played.

Rule: as in the tests of the demo's page. There is one browser for all, and nothing is timed: what
must stay small is counted.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import time
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.support import forks
from tests.support.admin import PAGE, TOKEN, AdminDouble, Played, link
from tests.support.browser import Browser, Page, chromium
from tests.support.files import scratch
from tests.support.processes import environment

BROWSERS: list[Browser] = []
"""The one that runs, if any."""

KEY = "the key of game servers"

HOSTILE = '<img src=x onerror="document.title=`owned`">\'"&amp;</td></table><script>'

LIVE = "document.body?.dataset.phase === 'live'"


def the_browser() -> Browser:
    """The one of this module; it ends with the process."""
    if not BROWSERS:
        # Not in setUpClass, which trial does not call.
        place = TemporaryDirectory()
        BROWSERS.append(Browser(place.name))
        atexit.register(place.cleanup)
        atexit.register(BROWSERS[0].close)
    return BROWSERS[0]


def end(number: int, **more: object) -> dict[str, object]:
    """A link's end as the API tells it."""
    about = {name: link(number)[name] for name in ("side", "addr", "via", "transport", "port")}
    counts = dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out"), 5)
    why = {"reason": "peer_closed", "text": "closed by the peer", "detail": "", "identity": ""}
    return (
        {"time": time.time(), "id": number, "user": "", "seconds": 9.0}
        | about
        | counts
        | why
        | more
    )


class SourceTests(SynchronousTestCase):
    def test_no_markup_of_strings(self) -> None:
        """No script makes markup or code of a string; nothing is inline or from elsewhere."""
        for name in sorted(os.listdir(PAGE)):
            with open(os.path.join(PAGE, name), encoding="utf-8") as file:
                text = file.read().replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(
                text,
                r"(inner|outer)HTML|insertAdjacent|document\.write|\beval\b|\bFunction\(|"
                r"createContextualFragment|DOMParser|javascript:",
                name,
            )
            self.assertNotRegex(text, r"https?://|url\(|@import", name)
            if name.endswith(".html"):
                self.assertNotRegex(text, r"<script>|<style|\sstyle=|\son\w+=", name)


class PageTestCase(SynchronousTestCase):
    """Tests with a page in the browser."""

    def setUp(self) -> None:
        if chromium() is None and os.environ.get("BROWSER_TESTS") != "must":
            raise self.skipTest("there is no chromium")

    def open(self, url: str) -> Page:
        page = the_browser().open(url)
        page.resize(1280, 900)
        self.addCleanup(page.close)
        return page

    def text(self, page: Page, selector: str) -> str:
        found: str = page.value(f"document.querySelector({selector!r})?.textContent ?? ''")
        return found

    def press(self, page: Page, selector: str) -> None:
        """Click the one that is there."""
        page.until(f"document.querySelector({selector!r})?.checkVisibility()")
        page.value(f"document.querySelector({selector!r}).click()")

    def write(self, page: Page, field: str, text: str) -> None:
        """Put text in a field, in place of what is there."""
        page.value(f"(document.getElementById({field!r}).select(), 0)")
        page.value(f"(document.getElementById({field!r}).focus(), 0)")
        page.type(text)

    def rows(self, page: Page, table: str, column: int) -> list[str]:
        found: list[str] = page.value(
            f"[...document.querySelectorAll('#{table} tbody tr')]"
            f".map(row => row.children[{column}].textContent)"
        )
        return found


class PlayedTests(PageTestCase):
    """Beside a gateway that is played: one that has much, and hostile names."""

    def setUp(self) -> None:
        super().setUp()
        self.double = AdminDouble()
        self.addCleanup(lambda: self.double.close())
        self.played = self.double.played

    def test_many_links(self) -> None:
        """10 000 links are a page of rows; what does not change is not touched."""
        self.played.links = [link(number) for number in range(1, 10_001)]
        page = self.open(f"{self.double.url}#token={TOKEN}")
        page.until(LIVE)
        self.assertEqual(page.value("location.href"), f"{self.double.url}#overview")
        self.assertEqual(self.text(page, "#figures dd"), "10,000")
        page.value("location.hash = 'links'")
        page.until("document.querySelectorAll('#links-table tbody tr').length === 100")
        self.assertEqual(self.text(page, "#links-found"), "10,000 links")
        self.assertEqual(self.rows(page, "links-table", 1), [str(n) for n in range(1, 101)])
        self.assertLess(page.value("document.querySelectorAll('*').length"), 2500)
        page.value(
            "window.touched = 0; new MutationObserver(some => { touched += some.length; })"
            ".observe(document.getElementById('links-table'),"
            "{ subtree: true, childList: true, characterData: true, attributes: true }); 0"
        )
        page.value("location.hash = 'ends'")
        page.until("document.getElementById('view-links').hidden")
        page.value("location.hash = 'links'")
        page.until(
            "performance.getEntriesByType('resource').filter(one => /v1.links/.test(one.name))"
            ".length >= 2"
        )
        self.assertEqual(page.value("touched"), 0)
        self.press(page, "#links-next")
        page.until(
            "document.querySelector('#links-table tbody td:nth-child(2)').textContent === '101'"
        )
        self.assertEqual(self.text(page, "#links-page"), "101 \u2013 200")
        self.press(page, "#links-back")
        page.until(
            "document.querySelector('#links-table tbody td:nth-child(2)').textContent === '1'"
        )
        self.press(page, "#links-table th:nth-child(2) button")
        page.until(
            "document.querySelector('#links-table tbody td:nth-child(2)').textContent === '10000'"
        )
        self.assertEqual(
            page.value("document.querySelector('[aria-sort]').getAttribute('aria-sort')"),
            "descending",
        )
        self.write(page, "links-search", "player 77")
        page.until("document.getElementById('links-found').textContent === '89 of 10,000 links'")
        self.assertEqual(
            page.value("document.querySelectorAll('#links-table tbody tr').length"), 89
        )
        self.assertEqual(page.complaints, [])

    def test_hostile_names(self) -> None:
        """Whatever a player, a host or a line of the log is called, it is text."""
        names = ("addr", "user", "via", "sni", "identity", "tls", "transport", "port", "sha256")
        self.played.links = [link(1, **dict.fromkeys(names, HOSTILE))]
        self.played.closed = [end(2, user=HOSTILE, addr=HOSTILE, text=HOSTILE, detail=HOSTILE)]
        self.played.lines = [
            {"time": 1.0, "level": "warn", "system": HOSTILE, "text": f"{HOSTILE}\n{HOSTILE}"}
        ]
        self.played.addresses = [{"address": HOSTILE, "count": 1, "refused": 1}]
        page = self.open(f"{self.double.url}#token={TOKEN}")
        page.until(LIVE)
        page.until("document.querySelector('#brief-log p')?.textContent")
        self.assertEqual(self.text(page, "#brief-log p"), f"{HOSTILE}\n{HOSTILE}")
        self.assertEqual(self.text(page, "#reasons span"), HOSTILE)
        page.value("location.hash = 'links/client/1'")
        page.until("document.querySelectorAll('#panel-links dd').length > 5")
        shown = page.value(
            "[...document.querySelectorAll('#panel-links dd')].map(e => e.textContent)"
        )
        self.assertEqual(shown.count(HOSTILE), len(names))
        self.assertEqual(self.rows(page, "links-table", 2), [HOSTILE])
        self.played.missed = 70
        self.played.lines.append({**self.played.lines[0], "text": "the last"})
        page.value("location.hash = 'log'")
        page.until("document.querySelectorAll('#log-lines p').length === 3")
        told = page.value("document.querySelectorAll('#log-lines p')[1].textContent")
        self.assertEqual(told.split()[:2], ["70", "lines"])
        for view, selector in (
            ("ends", "#ends-table td:nth-child(4)"),
            ("addresses", "#addresses-count td"),
            ("log", "#log-lines p"),
        ):
            page.value(f"location.hash = {view!r}")
            page.until(f"document.querySelector({selector!r})?.textContent.includes('onerror')")
        self.assertEqual(
            page.value("document.querySelectorAll('[onerror], script:not([src])').length"), 0
        )
        self.assertNotIn("owned", page.value("document.title"))
        self.assertEqual(page.complaints, [])

    def test_door(self) -> None:
        """The token is asked for, a wrong one is not taken, and it is nowhere but in memory."""
        page = self.open(self.double.url)
        page.until("document.activeElement?.id === 'token'")
        page.type("wrong")
        page.enter()
        page.until("document.getElementById('token-problem').textContent.includes('not taken')")
        self.assertIs(page.value("document.getElementById('view-overview').hidden"), True)
        page.until("document.activeElement?.id === 'token'")
        page.type(TOKEN)
        page.enter()
        page.until(LIVE)
        page.until("document.getElementById('view-overview').checkVisibility()")
        kept = page.value(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        )
        self.assertNotIn(TOKEN, kept + page.value("location.href"))
        # The browser itself complains of what is refused.
        self.assertTrue(all("401" in one for one in page.complaints), page.complaints)

    def test_away_and_back(self) -> None:
        """A gateway that stops is told of, its figures fade, and the page comes back by itself."""
        page = self.open(f"{self.double.url}#token={TOKEN}")
        page.until(LIVE)
        self.double.close()
        page.until("document.body.dataset.phase === 'lost'")
        page.until("document.getElementById('lost').textContent.includes('Trying again in')")
        self.assertIn("✕", page.value("document.title"))
        self.double = AdminDouble(Played(links=[link(1)]), self.double.port)
        page.until(LIVE)
        self.assertIs(page.value("document.getElementById('lost').hidden"), True)
        page.until("document.querySelector('#figures dd').textContent === '1'")
        others = [one for one in page.complaints if not re.search("net::ERR_|404", one)]
        self.assertEqual(others, [])

    def test_too_many_watch(self) -> None:
        """Where no stream is to be had the page asks now and then, and says so."""
        self.played.full = True
        page = self.open(f"{self.double.url}#token={TOKEN}")
        page.until("document.getElementById('state-text').textContent.includes('too many')")
        self.played.links = [link(1)]
        page.until("document.querySelector('#figures dd').textContent === '1'")
        self.assertTrue(all("503" in one for one in page.complaints), page.complaints)

    def test_fits(self) -> None:
        """On three screens nothing sticks out of any view, in the dark and in the light."""
        self.played.links = [link(number) for number in range(1, 300)]
        self.played.closed = [end(number) for number in range(20)]
        page = self.open(f"{self.double.url}#token={TOKEN}")
        page.until(LIVE)
        for width, height, dark in ((390, 844, True), (1024, 768, False), (1600, 1000, True)):
            page.resize(width, height, dark)
            page.until(f"innerWidth === {width}")
            for view in (
                "overview",
                "links",
                "ends",
                "addresses",
                "limits",
                "drain",
                "log",
                "config",
            ):
                page.value(f"location.hash = {view!r}")
                page.until(f"document.getElementById('view-{view}').checkVisibility()")
                place = f"{view} at {width}"
                self.assertEqual(page.value("document.documentElement.scrollWidth"), width, place)
                wide = page.value(
                    "[...document.querySelectorAll('table')].filter(one => one.checkVisibility()"
                    " && one.scrollWidth > one.parentElement.clientWidth).map(one => one.id)"
                )
                self.assertEqual(wide, [], place)
            ground = page.value("getComputedStyle(document.body).backgroundColor")
            self.assertIs(sum(map(int, re.findall(r"\d+", ground))) > 382, not dark)
        page.value("document.getElementById('theme').click()")
        self.assertEqual(page.value("document.documentElement.dataset.theme"), "light")
        ground = page.value("getComputedStyle(document.body).backgroundColor")
        self.assertGreater(sum(map(int, re.findall(r"\d+", ground))), 382)
        self.assertEqual(page.complaints, [])


class DemoTests(PageTestCase):
    """Beside a gateway: that of `fastway demo`, which says where its page is."""

    def setUp(self) -> None:
        super().setUp()
        self.process = subprocess.Popen(
            [
                *(*forks.python(), "-m", "fastway", "demo", "--pid-file=", "--command-file="),
                *("--client-addr=127.0.0.1:0", "--server-addr=127.0.0.1:0", "--client-ws-addr="),
                *(
                    "--admin-addr=127.0.0.1:0",
                    "--drain-delay=60s",
                    f"--server-auth-password={KEY}",
                ),
            ],
            cwd=scratch(self),
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(self.stop)
        assert self.process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = self.process.stdout.readline()
            self.assertTrue(line, said)
            said += line
        self.url = self.found(r"in a browser: (http://127\.0\.0\.1:\d+/#token=\w+)\n", said)
        self.port = int(self.found(r"clients connect to 127\.0\.0\.1:(\d+)", said))

    def found(self, pattern: str, text: str) -> str:
        found = re.search(pattern, text)
        assert found is not None, text
        return found[1]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def connect(self) -> socket.socket:
        """A client."""
        client = socket.create_connection(("127.0.0.1", self.port))
        self.addCleanup(client.close)
        return client

    def twice(self, page: Page, place: str, verb: str) -> None:
        """Answer both questions in that place."""
        said = f"document.querySelector('#{place} p').textContent"
        button = f"#{place} .yes"
        self.assertEqual(page.value(said), "")
        self.press(page, button)
        page.until(f"{said}.endsWith('?')")
        self.press(page, f"#{place} .no")
        page.until(f"{said} === ''")
        self.press(page, button)
        first = page.value(said)
        self.press(page, button)
        self.assertNotEqual(page.value(said), first)
        self.assertEqual(self.text(page, button), f"Yes, {verb.lower()}")
        self.press(page, button)

    def test_operator(self) -> None:
        """Links are found and kicked, limits changed, the gateway drained and taken back."""
        clients = [self.connect() for _ in range(3)]
        names = ["{}:{}".format(*one.getsockname()) for one in clients]
        page = self.open(self.url)
        page.until(LIVE)
        self.assertNotIn("token", page.value("location.href"))
        page.until("document.querySelector('#figures dd').textContent === '3'")
        page.until("document.querySelector('.chart .value').textContent !== '\\u2013'")
        page.until("document.querySelector('.plot .line').getAttribute('d').includes('L')")
        page.value("location.hash = 'links'")
        page.until("document.querySelectorAll('#links-table tbody tr').length === 4")
        self.press(page, "#links-side label:nth-of-type(3) input")
        page.until("document.getElementById('links-found').textContent === '1 of 4 links'")
        self.press(page, "#links-side label:nth-of-type(1) input")
        self.write(page, "links-search", names[1])
        page.until(
            "[...document.querySelectorAll('#links-table td:nth-child(3)')]"
            f".map(one => one.textContent).join() === '{names[1]}'"
        )
        number = self.rows(page, "links-table", 1)[0]

        self.press(page, "#links-table tbody tr")
        page.until(f"document.getElementById('panel-title').textContent === 'Client {number}'")
        page.until(f"document.getElementById('panel-links').textContent.includes('{names[1]}')")
        self.twice(page, "panel-kick", "Kick")
        page.until(
            "document.getElementById('panel-links').textContent.includes('kicked by the op')"
        )
        clients[1].settimeout(60)
        self.assertEqual(clients[1].recv(1), b"")
        self.assertIs(page.value("document.querySelector('#panel-kick .yes').disabled"), True)
        page.value("location.hash = 'ends'")
        page.until("document.querySelectorAll('#ends-table tbody tr').length === 1")
        self.assertEqual(self.rows(page, "ends-table", 3), [names[1]])
        self.assertIn("kicked by the operator", self.text(page, "#ends-reasons"))

        page.value("location.hash = 'limits'")
        self.press(page, "[name=limit-address-rate]")
        self.write(page, "set-limit-address-rate", "many")
        self.press(page, "#limits-apply")
        page.until("document.getElementById('limits-said').classList.contains('problem')")
        self.assertIn("limit-address-rate", self.text(page, "#limits-said"))
        self.write(page, "set-limit-address-rate", "7")
        self.press(page, "#limits-apply")
        page.until("document.getElementById('limits-said').textContent.startsWith('In use')")
        self.assertEqual(
            page.value("document.getElementById('set-limit-address-rate').value"), "7"
        )
        page.value("location.hash = 'config'")
        self.press(page, "#config-given")
        page.until(
            "document.getElementById('config-table').textContent.includes('the command limits')"
        )
        self.assertIn("(hidden)", self.text(page, "#config-table"))
        self.assertNotIn(KEY, self.text(page, "#config-table"))

        page.value("location.hash = 'drain'")
        self.twice(page, "drain-begin", "Drain")
        page.until("document.getElementById('draining-text').textContent.includes('step 1 of 5')")
        self.assertEqual(page.value("document.body.dataset.phase"), "warn")
        self.twice(page, "drain-undo", "Undrain")
        page.until(LIVE)
        page.until("document.getElementById('draining').hidden")
        page.value("location.hash = 'log'")
        page.until("document.getElementById('log-lines').textContent.includes('taken back')")
        self.write(page, "log-search", "drain")
        page.until(
            "[...document.querySelectorAll('#log-lines p')]"
            ".every(one => one.textContent.includes('drain'))"
        )
        # The browser itself complains of what is refused, and of a link that is gone.
        others = [one for one in page.complaints if not re.search(r"status of 40[04]", one)]
        self.assertEqual(others, [])
