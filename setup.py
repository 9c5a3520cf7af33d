"""What setup.cfg has no key for: the native relay, which is optional.

Without a compiler, elsewhere than on Linux, or with FASTWAY_PURE=1 the package installs without
it, and all packets take the Python path.
"""

import os
import sys

from setuptools import Extension, setup

relay = Extension(
    "fastway.relay._core",
    sources=["fastway/relay/_core.c", "fastway/relay/relay.c", "fastway/relay/pool.c"],
    depends=["fastway/relay/relay.h", "fastway/relay/pool.h"],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
    py_limited_api=True,
    optional=True,
)
native = sys.platform == "linux" and os.environ.get("FASTWAY_PURE", "") in ("", "0")

setup(
    ext_modules=[relay] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if native else {},
)
