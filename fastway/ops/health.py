"""Whether players should be sent here: what `/ready` says, and the gauge of that name.

Rule: one sentence for the first reason why not, made of a snapshot alone.
"""

from __future__ import annotations

from fastway.ops.snapshot import Snapshot

FULL = 0.9
"""The part of a bound over which nobody else should be sent here."""


def problem(shot: Snapshot) -> str:
    """Why nobody should be sent here now; empty: they may come."""
    if shot.state != "running":
        return f"the gateway is {shot.state}"
    if shot.shut:
        names = ", ".join(shot.shut[:5]) + (", ..." if len(shot.shut) > 5 else "")
        return f"ports that are not open: {names}"
    queues, relay, process = shot.queues, shot.relay, shot.process
    # Where the system does not tell what is open, connections are nearly all of it.
    files = process.files or sum(port.links for port in shot.ports)
    for what, used, limit in (
        ("bytes wait for all links", queues.bytes + queues.input, queues.limit),
        ("bytes of the memory pool are used", relay.used, relay.limit) if relay else _NOTHING,
        ("files are open", files, process.max_files),
    ):
        if limit > 0 and used > FULL * limit:
            return f"{used} {what}, over {FULL:.0%} of {limit}"
    if shot.needs_server and not shot.servers.connected:
        return "no game server is connected"
    return ""


_NOTHING = "", 0, 0
