"""What setup.cfg has no key for: the native relay, which is optional.

Without a compiler, elsewhere than on Linux, or with FASTWAY_PURE=1 the package installs without
it, and all packets take the Python path.
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

relay = Extension(
    "fastway.relay._core",
    sources=sorted(glob("fastway/relay/*.c")),
    depends=sorted(glob("fastway/relay/*.h")),
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
    py_limited_api=True,
    optional=True,
)
native = sys.platform == "linux" and os.environ.get("FASTWAY_PURE", "") in ("", "0")

setup(
    ext_modules=[relay] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if native else {},
)
