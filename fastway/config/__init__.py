"""What an operator wrote, as values with types: sizes, the option table, its sources, `Settings`.

    settings = read(["--client-addr=:9010", "--config=fastway.toml"])

Rule: the only place that knows how an option is spelled. Nothing of the gateway is imported here:
`twistd --help` and every `--help` of the command read it.
"""

from __future__ import annotations

from fastway.config.settings import Settings
from fastway.config.sources import read

__all__ = ["Settings", "read"]
