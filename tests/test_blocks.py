"""The programs and commands of the pages, run as they are but for the ports."""

from __future__ import annotations

import os
import re
import shutil

from twisted.trial.unittest import SynchronousTestCase

from tests.support.blocks import RUN, Story, Wrong, blocks
from tests.support.errors import raised
from tests.support.files import CHECKOUT

PAGES = (
    "README.md",
    "docs/app-tutorial.md",
    "docs/app.md",
    "docs/asyncio.md",
    "docs/cluster.md",
    "docs/control.md",
    "docs/endpoint.md",
    "docs/from-go.md",
    "docs/from-nano.md",
    "docs/game-server.md",
    "docs/hotpot.md",
    "docs/messages.md",
    "docs/snet.md",
    "docs/teleport.md",
    "docs/testing.md",
    "docs/tutorial.md",
    "docs/wire.md",
    "examples/README.md",
)
TRANSLATED = ("README", "docs/tutorial", "docs/from-go")
"""Pages whose Chinese version has the same blocks."""

COMMANDS = re.compile(r"^\s*(\$ |fastway |python |pip |make |twistd |export FASTWAY)", re.M)


def read(page: str) -> str:
    with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
        return file.read()


class PageTests(SynchronousTestCase):
    def check(self, page: str) -> None:
        """Every block does what the page says."""
        text = read(page)
        if re.search(r"^\$ curl ", text, re.M) and shutil.which("curl") is None:
            raise self.skipTest("there is no curl")
        try:
            Story(text).run()
        except Wrong as error:
            self.fail(f"{page}, {error}")

    def test_all(self) -> None:
        """No command hides in a block that is not run."""
        for page in PAGES:
            for block in blocks(read(page)):
                if block.language not in RUN:
                    self.assertIsNone(COMMANDS.search(block.text), f"{page}, line {block.line}")

    def test_translations(self) -> None:
        """The Chinese pages have the same blocks, but for remarks."""
        for name in TRANSLATED:
            found = [
                [
                    (block.language, re.sub(r" +# .*", "", block.text), block.marks)
                    for block in blocks(read(name + end))
                    if block.language in RUN
                ]
                for end in (".md", ".zh-CN.md")
            ]
            self.assertTrue(found[0])
            self.assertEqual(found[1], found[0], name)


def add_page(page: str) -> None:
    def test(self: PageTests) -> None:
        self.check(page)

    name = re.sub(r"\W", "_", page.removesuffix(".md")).lower()
    test.__name__ = f"test_{name}"
    test.__doc__ = f"Every block of {page} does what the page says."
    setattr(PageTests, test.__name__, test)


for _page in PAGES:
    add_page(_page)


class BlockTests(SynchronousTestCase):
    """The machinery: what is wrong with a page is found."""

    def wrong(self, *page: str) -> str:
        return str(raised(Wrong, Story("\n".join(page), patience=60).run))

    def test_marks(self) -> None:
        """A comment that nobody knows, with a reason of its own, or above no block is refused."""
        fence = ["```sh", "true", "```"]
        for lines in (
            ["<!-- run: sometimes -->", *fence],
            ["<!-- run: no time -->", *fence],
            ["<!-- run: stays -->", "", "A text.", "", *fence],
        ):
            raised(ValueError, blocks, "\n".join(lines))

    def test_parse(self) -> None:
        """Fences in lists, comments over empty lines, and indented blocks."""
        found = blocks(
            "a\n\n    picture\n    of two\n\n1. b\n\n   <!-- run: stays up -->\n\n"
            "   ```sh\n   if x\n     y\n   ```\n"
        )
        self.assertEqual([block.language for block in found], ["indented", "sh"])
        self.assertEqual([block.text for block in found], ["picture\nof two\n", "if x\n  y\n"])
        self.assertEqual([block.marks for block in found], [{}, {"stays": "up"}])
        self.assertEqual([block.line for block in found], [3, 10])

    def test_told(self) -> None:
        """What is shown is what is said: no other line, none less, none more."""
        for shown, wrong in (
            ("one", "says more than is shown: ['two']"),
            ("one\nthree", "shows 'three'; it says 'two'"),
            ("one\ntwo\nthree", "shows 'three'; it says None"),
        ):
            told = self.wrong("```console", "$ printf 'one\\ntwo\\n'", shown, "```")
            self.assertTrue(told.startswith("line 1: "), told)
            self.assertIn(wrong, told)

    def test_right(self) -> None:
        """A story that is as told: files, programs that go on, typing, other numbers."""
        page = """
```python
# one.py
text = "of one"
```

```python
import one
from one import text

print(text)
```

```text
of one
```

<!-- run: continues -->
```python
from twisted.internet import reactor
from twisted.internet.task import deferLater

await deferLater(reactor, 0)
```

<!-- run: beside -->
```python
while True:
    await deferLater(reactor, 0)
```

<!-- run: continues -->
```python
print(text, 9010)
```

```text
of one 9010
```

<!-- run: typed hello -->
```console
$ cd .
$ echo ready; read word; echo "$word, 0.25 s"; read word
ready
hello
hello, 7.125 s
```

```console
$ echo fastway ping: no; exit 1
fastway ping: ...
```
"""
        Story(page, patience=60).run()

    def test_used(self) -> None:
        """A file is used by who imports it, names it, or runs it, or what is in it."""
        file = ["```python", "# a.py", "print(1)", "```"]
        for use in ("python a.py", "python -m a", "ls; cat a.py", "echo a:app"):
            Story("\n".join([*file, "```sh", use, "```"]), patience=60).run()
        for use in ("ls", "python -m site", "echo aa.py"):
            self.assertIn("no block uses", self.wrong(*file, "```sh", use, "```"))

    def test_failures(self) -> None:
        """A command or a program that fails, one that goes on, a file that nobody uses."""
        self.assertIn("status 3", self.wrong("```sh", "exit 3", "```"))
        self.assertIn("status 1", self.wrong("```python", "1 / 0", "```"))
        self.assertIn(
            "status 0", self.wrong("```console", "$ echo fastway x: y", "fastway x: y", "```")
        )
        self.assertIn("no block uses", self.wrong("```python", "# a.py", "```"))
        self.assertIn("never says", self.wrong("<!-- run: stays x -->", "```sh", "echo y", "```"))
        page = "```console\n$ sleep 60\n```"
        self.assertIn("goes on", str(raised(Wrong, Story(page, patience=0.5).run)))
        beside = ["<!-- run: beside -->", "```python", "raise KeyError", "await None", "```"]
        told = self.wrong("```python", "pass", "```", *beside)
        self.assertIn("KeyError", told)
