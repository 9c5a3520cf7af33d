"""What setup.cfg has no key for: the native relay, which is optional, and README without links.

Without a compiler, elsewhere than on Linux, or with FASTWAY_PURE=1 the package installs without
it, and all packets take the Python path.
"""

import os
import re
import runpy
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = os.path.dirname(os.path.abspath(__file__))

RELAY = os.path.join(HERE, "fastway", "relay")
DIGEST: str = runpy.run_path(os.path.join(RELAY, "sources.py"))["digest"](RELAY)

relay = Extension(
    "fastway.relay._core",
    sources=sorted(glob("fastway/relay/*.c")),
    depends=sorted(glob("fastway/relay/*.h")),
    define_macros=[("RELAY_SOURCES", f'"{DIGEST}"')],
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"],
    extra_link_args=["-pthread"],
    py_limited_api=True,
    optional=True,
)
native = sys.platform == "linux" and os.environ.get("FASTWAY_PURE", "") in ("", "0")


class BuildOfTheseSources(build_ext):
    """The relay is built anew also where only the dates of files say that it need not be."""

    def build_extension(self, ext: Extension) -> None:
        path = self.get_ext_fullpath(ext.name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                self.force = self.force or DIGEST.encode() not in file.read()
        super().build_extension(ext)


class WheelOfWhatWasBuilt(bdist_wheel):
    """A wheel whose name says whether the relay is in it.

    Otherwise one from a machine without a compiler would be called cp310-abi3-linux, and kept and
    handed on as if it had the native path.
    """

    def run(self) -> None:
        self.run_command("build")
        build: build_ext = self.get_finalized_command("build_ext")
        if not any(os.path.exists(build.get_ext_fullpath(one.name)) for one in build.extensions):
            self.distribution.ext_modules = []
            self.root_is_pure = True
            self.skip_build = True
        super().run()


def long_description() -> str:
    """README with names of files in place of links to them: a package page has no files."""

    def name(link: re.Match[str]) -> str:
        text, path = link.groups()
        return text if text == path else f"{text} ({path})"

    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        return re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*)\)", name, file.read())


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=[relay] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if native else {},
    cmdclass={"bdist_wheel": WheelOfWhatWasBuilt, "build_ext": BuildOfTheseSources},
)
