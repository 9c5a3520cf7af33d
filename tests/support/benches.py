"""The C programs of the bench, built with sanitizers, once for all tests.

Rule: without Linux, a C compiler or its sanitizers the test that asks is skipped.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from bench.gateways import Gateway, build, compiler, openssl

SANITIZED = ["-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KEY = "secret"
QUICK = ["-u", "0.01", "-d", "0.03", "-k", KEY]
DIRECTORY = tempfile.TemporaryDirectory()


@functools.cache
def programs() -> tuple[Path, ...]:
    """load, floor, pair, attack and knock."""
    if sys.platform != "linux":
        raise SkipTest("the programs of the bench are made for Linux")
    found = compiler()
    if found is None:
        raise SkipTest("there is no C compiler")
    empty = [found, *SANITIZED, "-x", "c", "-", "-o", os.devnull]
    if subprocess.run(empty, input=b"int main(void){return 0;}", check=False).returncode:
        raise SkipTest("the C compiler has no sanitizers")
    return build(
        Path(DIRECTORY.name), *SANITIZED, names=("load", "floor", "pair", "attack", "knock")
    )


def floor_gateway() -> Gateway:
    return Gateway("floor", [str(programs()[1]), "{client}", "{server}"])


def with_tls() -> None:
    """Skip a test where the programs speak no TLS."""
    programs()
    if not openssl(compiler() or ""):
        raise SkipTest("there is no OpenSSL to build with")
