"""nano's cluster: nodes in Python among nodes in Go, in any role.

    member = NanoMember(app, "10.0.0.7:34571", master="10.0.0.1:34570")
    await member.join()

Rule: a session whose client is at another node is a session like all others; handlers, groups and
middleware do not know. It stands on h2 and on protobuf: the extra `cluster`.
"""

from __future__ import annotations

from fastway.errors import NotInstalled

try:
    import google.protobuf  # noqa: F401
    import h2  # noqa: F401
except ImportError as error:
    lacks = "h2" if error.name == "h2" else "protobuf"
    raise NotInstalled("fastway.cluster", lacks, "cluster") from None

from fastway.cluster.gate import NanoGate
from fastway.cluster.grpc import CallFailed
from fastway.cluster.master import NanoMaster
from fastway.cluster.member import NanoMember
from fastway.cluster.members import MemberInfo
from fastway.cluster.roads import NoService

__all__ = ["CallFailed", "MemberInfo", "NanoGate", "NanoMaster", "NanoMember", "NoService"]
