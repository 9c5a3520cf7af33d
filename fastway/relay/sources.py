"""Of which sources the core is: setup.py writes it into the core, a checkout compares.

Rule: it imports nothing of fastway, for setup.py runs it.
"""

import hashlib
import os


def digest(directory: str) -> str:
    """What tells the C sources in a directory from others; empty: there are none, as where
    fastway is installed and no checkout."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith((".c", ".h")))
        told = hashlib.sha256()
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                data = file.read()
            told.update(f"{name} {len(data)}\n".encode() + data)
    except OSError:
        return ""
    return told.hexdigest()[:32] if names else ""
