"""The C programs of the bench, built with sanitizers, once for all tests and for later runs.

Rule: without Linux, a C compiler or its sanitizers the test that asks is skipped.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from bench.gateways import ROOT, Gateway, build, compiler, openssl

SANITIZED = ["-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KEY = "secret"
QUICK = ["-u", "0.01", "-d", "0.03", "-k", KEY]
DIRECTORY = tempfile.TemporaryDirectory()
KEPT = ROOT / "build" / "bench"
NAMES = ("load", "floor", "pair", "attack", "knock", "app")


@functools.cache
def programs() -> tuple[Path, ...]:
    """load, floor, pair, attack, knock and app."""
    if sys.platform != "linux":
        raise SkipTest("the programs of the bench are made for Linux")
    found = compiler()
    if found is None:
        raise SkipTest("there is no C compiler")
    empty = [found, *SANITIZED, "-x", "c", "-", "-o", os.devnull]
    if subprocess.run(empty, input=b"int main(void){return 0;}", check=False).returncode:
        raise SkipTest("the C compiler has no sanitizers")
    sources = [*sorted((ROOT / "bench").glob("*.[ch]")), Path(__file__)]
    made_by = " ".join([found, *openssl(found)]).encode()
    digest = hashlib.sha256(made_by + b"".join(one.read_bytes() for one in sources))
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / "of", "a+", encoding="ascii") as of:
        fcntl.flock(of, fcntl.LOCK_EX)  # by whoever runs tests beside us
        of.seek(0)
        if of.read() != digest.hexdigest():
            of.truncate(0)
            build(KEPT, *SANITIZED, names=NAMES)
            of.write(digest.hexdigest())
    return tuple(KEPT / name for name in NAMES)


def floor_gateway() -> Gateway:
    return Gateway("floor", [str(programs()[1]), "{client}", "{server}"])


def with_tls() -> None:
    """Skip a test where the programs speak no TLS."""
    programs()
    if not openssl(compiler() or ""):
        raise SkipTest("there is no OpenSSL to build with")
