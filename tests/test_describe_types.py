"""What others make of a description: TypeScript that compiles, and AsyncAPI's own schemas.

Rule: the generator, the compiler and the schemas are npm's (tests/types), as docs/messages.md has
them; without npm there is nothing here to be run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonschema import Draft7Validator
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App
from fastway.app.describe import asyncapi, schema
from fastway.dialect import Dialect
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from tests.support.blocks import blocks
from tests.support.described import everything
from tests.support.files import CHECKOUT, scratch

TYPES = Path(CHECKOUT, "tests", "types")
MODULES = TYPES / "node_modules"
PAGE = Path(CHECKOUT, "docs", "messages.md")
EXAMPLES = Path(CHECKOUT, "examples")

PATIENCE = 120
"""Seconds for one program of node."""


def installed() -> str:
    """Why there is nothing to be run; empty: there is."""
    if shutil.which("node") is None:
        return "there is no node"
    return "" if (MODULES / ".installed").exists() else "tests/types is not installed: make check"


def node(script: str, *arguments: str) -> tuple[int, str]:
    """What a program of npm says, and its status."""
    done = subprocess.run(
        ["node", str(MODULES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def generate(told: dict[str, Any], path: Path) -> None:
    """TypeScript of a schema, as the page has it."""
    source = path.with_suffix(".json")
    source.write_text(json.dumps(told), encoding="utf-8")
    status, said = node(
        "json-schema-to-typescript/dist/src/cli.js",
        *("--input", str(source), "--output", str(path), "--additionalProperties=false"),
    )
    assert status == 0, said


def page_blocks(language: str) -> list[str]:
    return [
        one.text for one in blocks(PAGE.read_text(encoding="utf-8")) if one.language == language
    ]


def page_app() -> App:
    """The application of the page."""
    [text] = [one for one in page_blocks("python") if one.startswith("# chat.py")]
    chat = ModuleType("chat")
    exec(compile(text, "chat.py", "exec", dont_inherit=True), vars(chat))
    app: App = chat.app
    return app


class TypeScriptTests(SynchronousTestCase):
    def setUp(self) -> None:
        if installed():
            raise self.skipTest(installed())

    def test_compiles(self) -> None:
        """Programs with the right types compile, those of the page too; of others each line that
        is wrong is found, and no other."""
        directory = Path(scratch(self))
        generate(schema(everything()), directory / "routes.ts")
        generate(schema(page_app()), directory / "chat.ts")
        for name in ("right.ts", "wrong.ts"):
            shutil.copy(TYPES / name, directory)
        [program] = page_blocks("ts")
        (directory / "client.ts").write_text(program, encoding="utf-8")
        (directory / "tsconfig.json").write_text(
            json.dumps(
                {
                    "compilerOptions": {
                        "strict": True,
                        "noEmit": True,
                        "target": "es2022",
                        "module": "nodenext",
                        "types": [],
                        "noUncheckedIndexedAccess": True,
                    }
                }
            ),
            encoding="utf-8",
        )
        (directory / "package.json").write_text('{"type": "module"}', encoding="utf-8")
        status, said = node("typescript/bin/tsc", "-p", str(directory))
        lines = (TYPES / "wrong.ts").read_text(encoding="utf-8").splitlines()
        wrong = [number for number, line in enumerate(lines, 1) if line.endswith("// wrong")]
        found = [(file, int(line)) for file, line in re.findall(r"(\w+\.ts)\((\d+),", said)]
        self.assertEqual(found, [("wrong.ts", number) for number in wrong], said)
        self.assertNotEqual(status, 0)


class AsyncApiTests(SynchronousTestCase):
    """Documents beside AsyncAPI's own JSON Schema of such."""

    def setUp(self) -> None:
        if installed():
            raise self.skipTest(installed())
        place = MODULES / "@asyncapi" / "specs" / "schemas" / "3.0.0-without-$id.json"
        self.validator = Draft7Validator(json.loads(place.read_text(encoding="utf-8")))

    def check(self, app: App, dialect: Dialect | None = None) -> dict[str, Any]:
        told = asyncapi(app, dialect, title="a test", version="1")
        faults = [f"{one.json_path}: {one.message}" for one in self.validator.iter_errors(told)]
        self.assertEqual(faults, [])
        return told

    def test_dialects(self) -> None:
        """Each is a document of AsyncAPI, which has no place for what is none."""
        dialects = (None, Pomelo(refusals="reply", dictionary={"onJoin": 1}))
        for dialect in (*dialects, Teleport(auth=True), Teleport2(), Hotpot()):
            told = self.check(everything(), dialect)
            told["operations"]["receive.room.join"]["action"] = "take"
            self.assertFalse(self.validator.is_valid(told))
        self.check(App())
        self.check(page_app())
        app = everything()
        app.unknown(lambda message: message)
        self.check(app, Hotpot())

    def test_examples(self) -> None:
        """So are those of the examples."""
        self.patch(sys, "path", [str(EXAMPLES), *sys.path])
        for path in sorted(EXAMPLES.glob("app_*.py")):
            module = __import__(path.stem)
            self.addCleanup(sys.modules.pop, path.stem)
            made = [
                call()
                for call in vars(module).values()
                if getattr(call, "__annotations__", {}).get("return") == "App"
            ]
            self.assertTrue(made, path)
            for app in made:
                self.assertTrue(self.check(app)["operations"])


class LockTests(SynchronousTestCase):
    def test_lock(self) -> None:
        """What is installed is pinned, and from no particular registry."""
        told = json.loads((TYPES / "package.json").read_text(encoding="utf-8"))
        lock = json.loads((TYPES / "package-lock.json").read_text(encoding="utf-8"))
        packages = {
            name.removeprefix("node_modules/"): row for name, row in lock["packages"].items()
        }
        for name, version in told["devDependencies"].items():
            self.assertEqual(packages[name]["version"], version)
        for name, row in packages.items():
            if name:
                self.assertNotIn("resolved", row)
                self.assertTrue(row["integrity"].startswith("sha512-"), name)
