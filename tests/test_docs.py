"""The documentation says what the program is: its tables, links and programs are compared with it.

Rule: what a page claims and code can tell is checked here; how it is said is its writer's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from fastway import errors
from fastway.config.table import OPTIONS
from fastway.demo import DemoServer
from fastway.errors import Reason
from tests.support.files import CHECKOUT, scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import FIRST, KEY
from tests.support.processes import PATIENCE, environment
from tests.support.sockets import Sockets
from tests.support.waits import reactor

DOCS = os.path.join(CHECKOUT, "docs")
CHINESE = ".zh-CN.md"
HAS_CAUSES = hasattr(errors, "Cause")


def pages() -> list[str]:
    """The paths of all pages, from the top of the checkout."""
    found = [name for name in os.listdir(CHECKOUT) if name.endswith(".md")]
    for place in ("docs", "deploy", "examples"):
        names = os.listdir(os.path.join(CHECKOUT, place))
        found += [os.path.join(place, name) for name in names if name.endswith(".md")]
    return sorted(found)


def read(page: str) -> str:
    with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
        return file.read()


def blocks(text: str) -> list[str]:
    """The fenced and the indented blocks of code of a page, in order."""
    found: list[str] = []
    lines = iter([*text.split("\n"), ""])
    before = ""
    for line in lines:
        block = []
        if line.startswith("```"):
            for inner in lines:
                if inner.startswith("```"):
                    break
                block.append(inner)
        elif not before:
            while line.startswith("    "):
                block.append(line[4:])
                line = next(lines)
        if block:
            found.append("\n".join(block))
        before = line
    return found


def programs(page: str) -> dict[str, str]:
    """The Python blocks of a page that begin with a file's name, by that name."""
    found = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```", read(page), re.S | re.M)
    return {name: text for text, name in found}


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, as their cells; neither heads nor lines below them."""
    found = []
    lines = text.split("\n")
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not line.startswith("| ---") and not after.startswith("| ---"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def code(cell: str) -> str:
    """What stands between a cell's backquotes."""
    return cell.strip("`")


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    kept = [
        letter
        for letter in text
        if letter in "-_ " or unicodedata.category(letter)[0] in ("L", "N", "M")
    ]
    return "".join(kept).replace(" ", "-")


def anchors(text: str) -> set[str]:
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def links(text: str) -> Iterator[str]:
    """The targets of a page's links to other pages and places."""
    text = re.sub(r"^```.*?^```|^    .*$", "", text, flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:")):
            yield target


class LinkTests(SynchronousTestCase):
    def test_links(self) -> None:
        """Every relative link leads to a file, and to a heading in it if it names one."""
        broken = []
        for page in pages():
            text = read(page)
            for target in links(text):
                path, _, anchor = target.partition("#")
                there = os.path.normpath(os.path.join(os.path.dirname(page), path or "."))
                there = there if path else page
                if not os.path.exists(os.path.join(CHECKOUT, there)) or (
                    anchor and anchor not in anchors(read(there))
                ):
                    broken.append(f"{page}: {target}")
        self.assertEqual(broken, [])

    def test_slug(self) -> None:
        """Anchors are those of GitHub."""
        for heading, anchor in (
            ("The key", "the-key"),
            ("The relay's memory pool", "the-relays-memory-pool"),
            ("cpuprof start, cpuprof stop", "cpuprof-start-cpuprof-stop"),
            ("替换正在运行的网关", "替换正在运行的网关"),
            ("`a` and [b](c.md#d)", "a-and-b"),
        ):
            self.assertEqual(slug(heading), anchor)


class OptionPages(SynchronousTestCase):
    """docs/options.md and its Chinese version, beside the option table."""

    def rows(self, page: str) -> list[list[str]]:
        return [row for row in rows(read(page)) if len(row) == 5]

    def check_page(self, page: str, empty: str) -> None:
        found = [(code(row[0]), row[1]) for row in self.rows(page)]
        wanted = [
            (option.name, f"`{option.default}`" if option.default else empty) for option in OPTIONS
        ]
        self.assertEqual(found, wanted)

    def test_english(self) -> None:
        """Every option stands there once, in the table's order, with its default."""
        self.check_page("docs/options.md", "empty")

    def test_chinese(self) -> None:
        """The same in Chinese."""
        self.check_page("docs/options.zh-CN.md", "空")

    def test_ends(self) -> None:
        """The least and the most that the pages name are taken, and nothing beyond them."""
        options = {option.name: option for option in OPTIONS}
        for page in ("docs/options.md", "docs/options.zh-CN.md"):
            for row in self.rows(page):
                option = options[code(row[0])]
                if not row[3]:
                    self.assertNotIn(option.unit, ("size", "duration", "number"), option.name)
                    continue
                ends = [text.replace("2^31", str(2**31)) for text in re.findall("`(.*?)`", row[3])]
                *also, least, most = [option.parse(text) for text in ends]
                step = 0.01 if option.unit == "duration" else 1
                for value in (least - step, most + step, 0):
                    try:
                        option.parse(f"{value}")
                    except ValueError:
                        self.assertNotIn(value, (*also, least), option.name)
                    else:
                        self.assertIn(value, (*also, least), option.name)

    def test_words(self) -> None:
        """The words that an option may be are its unit."""
        found = {code(row[0]): row[2] for row in self.rows("docs/options.md")}
        for option in OPTIONS:
            words = re.findall("`(.*?)`", found[option.name])
            self.assertEqual(words, list(option.words), option.name)

    def test_topics(self) -> None:
        """The page has the topics of the help, in that order."""
        headings = re.findall(r"^## (.*)$", read("docs/options.md"), re.M)
        topics = list(dict.fromkeys(option.topic.partition(":")[0] for option in OPTIONS))
        self.assertEqual(headings[-len(topics) :], topics)

    def test_example(self) -> None:
        """deploy/fastway.toml has every option, with its default where it is commented out."""
        text = read("deploy/fastway.toml")
        found = {}
        prefix = ""
        for line in text.splitlines():
            section = re.fullmatch(r"\[([a-z-]+)\]", line)
            if section is not None:
                prefix = f"{section[1]}-"
            setting = re.match(r"(#?)([a-z-]+) = (\"[^\"]*\"|\S+)", line)
            if setting is not None:
                found[prefix + setting[2]] = (setting[1], setting[3].strip('"'))
        self.assertEqual(sorted(found), sorted(option.name for option in OPTIONS))
        for option in OPTIONS:
            commented, default = found[option.name]
            if commented:
                self.assertEqual(default, option.default, option.name)


class ReasonPages(SynchronousTestCase):
    """docs/reasons.md and the Chinese table, beside the program's."""

    if not HAS_CAUSES:
        skip = "reasons have no cause yet"

    def check_page(self, page: str, causes: dict[str, str]) -> None:
        texts = {reason.value for reason in Reason}
        found = [
            (row[0], code(row[1]), causes[row[2]])
            for row in rows(read(page))
            if len(row) == 4 and row[2] in causes
        ]
        wanted: list[Any] = [(reason.value, reason.code, reason.cause.value) for reason in Reason]
        self.assertEqual(len(texts), len(wanted))
        self.assertEqual(found, wanted)

    def test_english(self) -> None:
        """Every reason stands there once, in the program's order, with its code and cause."""
        self.check_page(
            "docs/reasons.md", {cause: cause for cause in ("peer", "gateway", "network")}
        )

    def test_chinese(self) -> None:
        """The same in Chinese."""
        causes = {"对端": "peer", "网关": "gateway", "网络": "network"}
        self.check_page("docs/operations.zh-CN.md", causes)


class HousePage(SynchronousTestCase):
    """The table of modules in docs/architecture.md, beside the modules."""

    package = os.path.join(CHECKOUT, "fastway")
    if not os.path.isdir(os.path.join(package, "ops")):
        skip = "the house is not built yet"

    def test_modules(self) -> None:
        """Every module stands there, and nothing that is none."""
        modules = set()
        for place, _, files in os.walk(self.package):
            for file in files:
                path = os.path.relpath(os.path.join(place, file), self.package)
                if file.endswith(".py") and not file.startswith("__"):
                    modules.add(path[: -len(".py")].replace(os.sep, "."))
        text = read("docs/architecture.md").partition("\n### ")[0]
        named = {name for row in rows(text) for name in re.findall("`(.*?)`", row[0])}
        self.assertEqual(named - {"relay"}, modules - {"snet.transport"})


class FigureTests(SynchronousTestCase):
    def test_speed(self) -> None:
        """The front pages' figures are those of the page on performance."""
        figures = [row for row in rows(read("docs/performance.md")) if "a forward" in row[1]]
        for page in ("README.md", "README.zh-CN.md"):
            found = [row for row in rows(read(page)) if " x " in row[0]]
            self.assertEqual(len(found), 3)
            for case, *costs in found:
                wanted = [[row[3], row[5]] for row in figures if row[0] == case]
                self.assertEqual([costs], wanted, f"{page}: {case}")


class ChineseTests(SynchronousTestCase):
    def test_blocks(self) -> None:
        """The code of a Chinese page is that of the English one."""
        for name in ("tutorial", "from-go"):
            english = blocks(read(f"docs/{name}.md"))
            self.assertTrue(english)
            self.assertEqual(blocks(read(f"docs/{name}{CHINESE}")), english)
        self.assertEqual(programs("README.zh-CN.md"), programs("README.md"))

    def test_headings(self) -> None:
        """It has the same sections, too."""
        for name in ("tutorial", "from-go", "options"):
            levels = [
                [len(marks) for marks in re.findall(r"^(#+) ", read(page), re.M)]
                for page in (f"docs/{name}.md", f"docs/{name}{CHINESE}")
            ]
            self.assertEqual(levels[0], levels[1])


class ProgramTests(GatewayTestCase):
    """The programs of the pages, run as they are but for the ports."""

    timeout = 60

    def save(self, texts: dict[str, str], sockets: Sockets) -> str:
        """Save programs by their names, with the gateway's ports; returns the directory."""
        directory = scratch(self)
        ports = {"9010": sockets.client_port, "9020": sockets.server_port}
        for name, text in texts.items():
            for written, port in ports.items():
                text = re.sub(rf"\b{written}\b", str(port.getHost().port), text)
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        return directory

    def start(self, directory: str, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=directory,
            env=environment({"FASTWAY_SERVER_AUTH_PASSWORD": KEY.decode()}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()

    async def says(self, process: subprocess.Popen[str], line: str) -> None:
        """That is the next line that it prints."""
        assert process.stdout is not None
        reading: Deferred[str] = deferToThread(process.stdout.readline)
        self.assertEqual(await reading.addTimeout(PATIENCE, reactor), f"{line}\n")

    def tell(self, process: subprocess.Popen[str], line: str) -> None:
        """Type a line to it."""
        assert process.stdin is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()

    async def test_front_page(self) -> None:
        """The client of README says hello, and the server's answer is what it prints."""
        sockets = self.gateway()
        sockets.servers.key = b""
        directory = self.save(programs("README.md"), sockets)
        await self.says(self.start(directory, "server.py"), "the server is there")
        client = self.start(directory, "client.py")
        await self.says(client, "b'you said hello'")
        self.assertEqual(await deferToThread(client.wait, PATIENCE), 0)

    async def test_tutorial(self) -> None:
        """The tutorial's room, client and bell do what it says."""
        sockets = self.gateway()
        directory = self.save(programs("docs/tutorial.md"), sockets)
        await self.says(self.start(directory, "server.py"), "the room is open")
        ann = self.start(directory, "client.py", "Ann")
        await self.says(ann, "* Ann is here, client 1")
        self.tell(ann, "hello?")
        await self.says(ann, "<Ann> hello?")
        bell = self.start(directory, "bell.py", "1")
        await self.says(bell, "thank you")
        await self.says(ann, "server 2 says: ding")
        assert ann.stdin is not None
        ann.stdin.close()
        await self.says(ann, "the end: closed here")
        self.assertEqual(await deferToThread(ann.wait, PATIENCE), 0)

    async def test_wire(self) -> None:
        """The client of the page on the wire talks to the demo server, and prints what it says."""
        sockets = self.gateway()
        demo = DemoServer(reactor, "127.0.0.1", sockets.server_port.getHost().port, KEY)
        demo.startService()
        self.addCleanup(lambda: maybeDeferred(demo.stopService))
        await demo.pool.when_up()
        found = blocks(read("docs/wire.md"))
        place = next(at for at, text in enumerate(found) if text.startswith("import socket"))
        client = self.start(self.save({"client.py": found[place]}, sockets), "client.py")
        out, _ = await deferToThread(client.communicate, None, PATIENCE)
        # The first virtual connection is 1 there, and FIRST here.
        close = str(b"\4" + FIRST.to_bytes(4, "little"))
        text = found[place + 1].replace("(1, ", f"({FIRST}, ").replace(str(b"\4\1\0\0\0"), close)
        self.assertRegex(out, "^" + re.escape(text).replace(re.escape("..."), ".*") + "\n$")

    async def test_asyncio(self) -> None:
        """Each program of the page on asyncio prints what stands behind it, and ends well."""
        sockets = self.gateway()
        sockets.servers.key = b""
        demo = DemoServer(reactor, "127.0.0.1", sockets.server_port.getHost().port, b"")
        demo.startService()
        self.addCleanup(lambda: maybeDeferred(demo.stopService))
        await demo.pool.when_up()
        text = read("docs/asyncio.md")
        pairs = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, re.S | re.M)
        self.assertEqual(len(pairs), text.count("```python"))
        for program, printed in pairs:
            directory = self.save({"program.py": program}, sockets)
            process = self.start(directory, "-X", "dev", "program.py")
            out, _ = await deferToThread(process.communicate, None, PATIENCE)
            pattern = re.escape(printed).replace(re.escape("..."), ".*")
            self.assertRegex(out, f"^{pattern}$", program)
            self.assertEqual(process.returncode, 0)
