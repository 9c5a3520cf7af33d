"""What is in the packages built from a checkout, who imports whom, and what tests may import."""

from __future__ import annotations

import ast
import configparser
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from fastway.relay.sources import digest
from tests.support.files import CHECKOUT, scratch

IN_CHECKOUT = os.path.exists(os.path.join(CHECKOUT, "setup.cfg"))
LEFT_OUT = shutil.ignore_patterns(
    ".*",
    "_trial_temp*",
    "*.egg-info",
    "build",
    "dist",
    "node_modules",
    "run",
    "__pycache__",
    "dropin.cache",
)


def has_setuptools() -> bool:
    """setuptools is here, and so new (70.1) that it makes wheels by itself."""
    if find_spec("setuptools") is None:
        return False
    return find_spec("setuptools.command.bdist_wheel") is not None


def imported_tests(path: str) -> list[str]:
    """The test modules, or parts of them, that a file imports, wherever in it that stands."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read(), path)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return [name for name in names if re.search(r"\btest_", name)]


def lone_tests(path: str) -> list[str]:
    """The tests of a module that no TestCase has."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read(), path)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [one.name for one in tree.body if isinstance(one, kinds) and one.name[:5] == "test_"]


class ImportTests(SynchronousTestCase):
    def test_no_test_imports_another(self) -> None:
        """No file of the tests imports a test module: what they share is in tests/support."""
        found = {}
        for place, _, files in os.walk(os.path.dirname(os.path.abspath(__file__))):
            for file in files:
                path = os.path.join(place, file)
                if file.endswith(".py") and (names := imported_tests(path)):
                    found[path] = names
        self.assertEqual(found, {})

    def test_all_tests_are_methods(self) -> None:
        """One that is a function runs in pytest-twisted's loop: the next test's sockets die."""
        found = {}
        place = os.path.dirname(os.path.abspath(__file__))
        for file in sorted(os.listdir(place)):
            if file.startswith("test_") and (names := lone_tests(os.path.join(place, file))):
                found[file] = names
        self.assertEqual(found, {})


class PackageTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Build in a copy: the checkout stays as it is."""
        self.directory = scratch(self)
        self.tree = os.path.join(self.directory, "tree")
        shutil.copytree(CHECKOUT, self.tree, ignore=LEFT_OUT)

    def run_python(self, *arguments: str, **variables: str) -> str:
        """What a Python in the copy, with these environment variables, says."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.tree,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout.strip()

    def check(self, names: set[str]) -> None:
        """An installation has these files and not those."""
        self.assertIn("fastway/py.typed", names)
        self.assertIn("twisted/plugins/fastway_plugin.py", names)
        for place, _, files in os.walk(os.path.join(CHECKOUT, "fastway")):
            for file in files:
                if file.endswith(".py"):
                    self.assertIn(os.path.relpath(os.path.join(place, file), CHECKOUT), names)
        # Either would hide Twisted itself, or its plugins.
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        tops = {name.partition("/")[0] for name in names}
        self.assertEqual({top for top in tops if ".dist-info" not in top}, {"fastway", "twisted"})

    def check_entry_points(self, text: str) -> None:
        """The console command is there."""
        points = configparser.ConfigParser()
        points.read_string(text)
        self.assertEqual(points["console_scripts"]["fastway"], "fastway.__main__:main")

    def test_build(self) -> None:
        """What setup.py installs is the package, its types, and the plugin, with the command."""
        self.run_python("setup.py", "-q", "build", "--build-lib", "../lib")
        lib = os.path.join(self.directory, "lib")
        self.check(
            {
                os.path.relpath(os.path.join(place, file), lib)
                for place, _, files in os.walk(lib)
                for file in files
            }
        )
        for path in glob.glob(os.path.join(lib, "fastway/relay/_core*.so")):
            with open(path, "rb") as relay:
                self.assertIn(
                    digest(os.path.join(self.tree, "fastway/relay")).encode(), relay.read()
                )
        self.run_python("setup.py", "-q", "egg_info", "--egg-base", "..")
        path = os.path.join(self.directory, "fastway.egg-info", "entry_points.txt")
        with open(path, encoding="utf-8") as file:
            self.check_entry_points(file.read())

    def test_wheel(self) -> None:
        """A wheel has the package, its types, the plugin, the command and the licence."""
        script = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
        name = self.run_python("-c", script).splitlines()[-1]
        with zipfile.ZipFile(os.path.join(self.directory, name)) as wheel:
            names = set(wheel.namelist())
            self.check(names)
            (points,) = [name for name in names if name.endswith("entry_points.txt")]
            self.check_entry_points(wheel.read(points).decode())
            self.assertTrue(any(name.endswith("LICENSE") for name in names))
            (about,) = [name for name in names if name.endswith("METADATA")]
            self.check_links(wheel.read(about).decode())

    def check_links(self, about: str) -> None:
        """The description has no link that leads nowhere outside of a checkout."""
        targets = re.findall(r"\]\(([^)]*)\)", about)
        self.assertEqual([target for target in targets if not target.startswith("http")], [])
        self.assertIn("docs/options.md", about)

    def test_wheel_without_relay(self) -> None:
        """A wheel that was made without a compiler does not pass for one with the native path."""
        script = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
        name = self.run_python("-c", script, CC="/bin/false").splitlines()[-1]
        self.assertTrue(name.endswith("-py3-none-any.whl"), name)
        with zipfile.ZipFile(os.path.join(self.directory, name)) as wheel:
            names = set(wheel.namelist())
        self.check(names)
        self.assertEqual([name for name in names if name.endswith(".so")], [])

    def test_source(self) -> None:
        """A source distribution has what a checkout has: the tac file, README, tests, Makefile."""
        script = "from setuptools.build_meta import build_sdist; print(build_sdist('..'))"
        name = self.run_python("-c", script).splitlines()[-1]
        with tarfile.open(os.path.join(self.directory, name)) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for wanted in (
            "README.md",
            "LICENSE",
            "Makefile",
            "fastway.tac",
            "setup.py",
            "setup.cfg",
            "pyproject.toml",
            "fastway/py.typed",
            "twisted/plugins/fastway_plugin.py",
            "tests/__init__.py",
            "tests/support/golden.py",
            "tests/test_package.py",
        ):
            self.assertIn(wanted, names)
        dirt = [name for name in names if name.endswith((".pyc", ".log", ".pid", "dropin.cache"))]
        self.assertEqual(dirt, [])

    if not os.path.exists(os.path.join(CHECKOUT, "MANIFEST.in")):
        test_source.skip = "there is no MANIFEST.in"  # type: ignore[attr-defined]


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module's source imports when it is loaded or its types are checked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue  # imported when it is called
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        else:
            yield from imports(node)


def import_graph(package: str) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, by name; a package is its __init__."""
    sources = {}
    for place, _, files in os.walk(package):
        for file in files:
            if file.endswith(".py"):
                name = os.path.relpath(os.path.join(place, file), os.path.dirname(package))
                name = name[: -len(".py")].replace(os.sep, ".").removesuffix(".__init__")
                with open(os.path.join(place, file), encoding="utf-8") as source:
                    sources[name] = ast.parse(source.read())
    return {
        # `from a.b import c`: the module a.b.c, or something in a.b.
        name: {
            wanted if wanted in sources else wanted.rpartition(".")[0] for wanted in imports(tree)
        }
        & sources.keys()
        for name, tree in sources.items()
    }


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that all reach one another, smallest first."""
    reached: dict[str, set[str]] = {}
    for name in graph:
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            for module in graph[ahead.pop()] - seen:
                seen.add(module)
                ahead.append(module)
        reached[name] = seen
    groups = {
        frozenset(other for other in seen if name in reached[other])
        for name, seen in reached.items()
        if name in seen
    }
    return sorted(map(set, groups), key=lambda group: (len(group), sorted(group)))


class CycleTests(SynchronousTestCase):
    def test_no_cycles(self) -> None:
        """No module imports, even through others or for its types only, who imports it."""
        self.assertEqual(cycles(import_graph(os.path.join(CHECKOUT, "fastway"))), [])

    def test_found(self) -> None:
        """A cycle is found through other modules, and among those that are in none."""
        graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
        self.assertEqual(cycles(graph), [{"e"}, {"b", "c"}])

    def test_imports(self) -> None:
        """Imports for types count, those within functions do not."""
        source = (
            "import a.b\n"
            "from c import d\n"
            "if TYPE_CHECKING:\n    from e import f as g, h\n"
            "def i():\n    import j\n"
            "class K:\n    import k\n    def l(self):\n        import m\n"
        )
        self.assertEqual(list(imports(ast.parse(source))), ["a.b", "c.d", "e.f", "e.h", "k"])


if not IN_CHECKOUT:
    PackageTests.skip = "not in a checkout"
elif not has_setuptools():
    PackageTests.skip = "there is no setuptools 70.1 or later"
