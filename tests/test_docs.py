"""The documentation says what the program is: its tables and links are compared with it.

Rule: what a page claims and code can tell is checked here; how it is said is its writer's.
"""

from __future__ import annotations

import inspect
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway import app, errors
from fastway.app import Bounds
from fastway.config.table import OPTIONS
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.endpoint import EndpointConfig, Overflow
from fastway.errors import Reason
from tests.support.files import CHECKOUT

DOCS = os.path.join(CHECKOUT, "docs")
CHINESE = ".zh-CN.md"
HAS_CAUSES = hasattr(errors, "Cause")


def pages() -> list[str]:
    """The paths of all pages, from the top of the checkout."""
    found = [name for name in os.listdir(CHECKOUT) if name.endswith(".md")]
    for place in ("docs", "deploy", "examples", "clients/js"):
        names = os.listdir(os.path.join(CHECKOUT, place))
        found += [os.path.join(place, name) for name in names if name.endswith(".md")]
    return sorted(found)


def read(page: str) -> str:
    with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
        return file.read()


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
    text = re.sub(r"^```.*?^```|^    [^\n]*$", "", text, flags=re.S | re.M)
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
            setting = re.match(r"(#?)([a-z0-9-]+) = (\"[^\"]*\"|\S+)", line)
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
        self.assertEqual(named - {"relay", "dialect"}, modules - {"snet.transport"})


class LibraryPage(SynchronousTestCase):
    """docs/endpoint.md, beside the library."""

    def test_bounds(self) -> None:
        """Every bound of a configuration stands there, in its order, with its default."""
        section = (
            read("docs/endpoint.md").partition("\n## Bounds\n")[2].partition("\nArguments")[0]
        )
        found = {code(row[0]): row[1] for row in rows(section)}
        config = EndpointConfig()
        units = {"KiB": 1024, "MiB": 1024 * 1024, "bytes": 1, "s": 1}
        for name, told in found.items():
            value = getattr(config, name)
            if isinstance(value, Overflow):
                self.assertEqual(code(told), value.name)
            else:
                number, _, unit = told.partition(" ")
                self.assertEqual(float(number) * units.get(unit, 1), value, name)
        others = {"message_format", "timeout_callback", "network_callback", "control"}
        self.assertEqual(set(found), {field.name for field in fields(EndpointConfig)} - others)

    def test_old_names(self) -> None:
        """No page but those that tell of them has a name that is only an alias."""
        old = re.compile(
            r"\bEndpointFactory\b|\bEndpoint\(|\.when_closed\(|\.when_ready\(|conn\.endpoint\b"
        )
        for page in pages():
            text = read(page)
            if page == "docs/endpoint.md":
                text = text.replace(text[text.index("The older names") :].partition("\n\n")[0], "")
            if page != "CHANGES.md":
                self.assertEqual(old.findall(text), [], page)


class FrameworkPage(SynchronousTestCase):
    """docs/app.md, beside the framework."""

    def section(self, heading: str) -> str:
        return read("docs/app.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]

    def test_bounds(self) -> None:
        """Every bound stands there, in its order, with its default."""
        units = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024 * 1024}
        found = []
        for row in rows(self.section("Bounds")):
            number, _, unit = row[1].partition(" ")
            found.append((code(row[0]), float(number) * units[unit]))
        self.assertEqual(found, [(one.name, one.default) for one in fields(Bounds)])

    def test_vocabulary(self) -> None:
        """Every name that the package exports stands there, and all that an App has."""
        found = rows(self.section("Vocabulary"))
        named = {name for row in found for name in re.findall("`(.*?)`", row[0])}
        self.assertEqual(set(app.__all__) - named, set())
        self.assertIn("`App`", found[0][0])
        verbs = set(re.findall("`(.*?)`", found[0][2]))
        has = {name for name in dir(app.App) if not name.startswith("_")}
        has |= set(app.App(clock=Clock()).__dict__)
        self.assertEqual(verbs - has, set())

    def test_pomelo(self) -> None:
        """Every setting of the dialect stands there, but for what a client says that it is."""
        table = self.section("The pomelo dialect").partition("\n### ")[0]
        found = {code(row[0]) for row in rows(table)}
        settings = set(inspect.signature(Pomelo).parameters)
        self.assertEqual(settings - found, {"client_type", "client_version", "epoch"})
        self.assertEqual(found - settings, set())

    def test_hotpot(self) -> None:
        """Every setting of that dialect stands on its page, with its default."""
        table = read("docs/hotpot.md").partition("\n## Settings\n")[2].partition("\n## ")[0]
        found = {code(row[0]): row[1].strip("`") for row in rows(table)}
        settings = inspect.signature(Hotpot).parameters
        self.assertEqual(list(found), list(settings))
        for name, parameter in settings.items():
            default = parameter.default
            said = {None: "none", (5.0, 12.0): "(5, 12)"}.get(default, str(default))
            self.assertEqual(found[name], f'"{default}"' if type(default) is str else said)


class TeleportPage(SynchronousTestCase):
    def test_settings(self) -> None:
        """Every setting of the dialect stands there, in its order."""
        page = read("docs/teleport.md").partition("\n## Settings\n")[2].partition("\n## ")[0]
        found = [code(row[0]) for row in rows(page)]
        self.assertEqual(found, list(inspect.signature(Teleport).parameters))


class FigureTests(SynchronousTestCase):
    def test_speed(self) -> None:
        """The front pages' figures are those of the page on performance."""
        told = read("docs/performance.md").partition("<!-- figures: end")[0]
        figures = [row for row in rows(told) if "a forward" in row[1]]
        for page in ("README.md", "README.zh-CN.md"):
            found = [row for row in rows(read(page)) if " x " in row[0]]
            self.assertEqual(len(found), 3)
            for case, *costs in found:
                wanted = [[row[3], row[5]] for row in figures if row[0] == case]
                self.assertEqual([costs], wanted, f"{page}: {case}")


class ChineseTests(SynchronousTestCase):
    def test_headings(self) -> None:
        """A Chinese page has the sections of the English one."""
        for name in ("tutorial", "from-go", "options"):
            levels = [
                [len(marks) for marks in re.findall(r"^(#+) ", read(page), re.M)]
                for page in (f"docs/{name}.md", f"docs/{name}{CHINESE}")
            ]
            self.assertEqual(levels[0], levels[1])
