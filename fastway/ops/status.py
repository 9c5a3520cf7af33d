"""What an operator reads of a snapshot: the rows of `status`, and a link's row of `links`.

Rule: figures come from `fastway.ops.snapshot`; here is only how they look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from fastway.gateway.ports import those_of
from fastway.ops.drain import DrainFigures, State
from fastway.ops.snapshot import LimitTotals, LinkRow, RelayTotals, Snapshot


def status_rows(shot: Snapshot) -> list[str]:
    """The answer to `status`, the version first."""
    router, queues = shot.router, shot.queues
    rows = [
        f"version: {shot.version}, process {shot.pid}",
        f"path: {shot.path or '?'}",
        f"uptime: {shot.uptime:.0f} s",
        *([] if shot.drain is None else [drain_row(shot.drain)]),
        *(
            f"{port.name} port: {port.addr}"
            + "".join(f", with {layer}" for layer in port.layers)
            + f"; {port.links} connections, {port.handshakes} at their handshakes"
            for port in shot.ports
        ),
        f"clients: {shot.clients.connected} connected, {shot.clients.since_start} since start",
        f"servers: {shot.servers.connected} connected with {shot.server_ids} ids, "
        f"{shot.servers.since_start} since start",
        f"virtual connections: {router.open} open, {router.accepted} since start",
        f"forwarded: {router.packets} packets, {router.bytes} bytes",
        f"dials: {router.dials}, refused: {sum(router.refused.values())}"
        + counts({why.value: count for why, count in router.refused.items()}),
        f"strays answered by a Close: {router.strays}, "
        f"closes of others' connections ignored: {router.foreign_closes}, pings: {router.pings}",
        f"waiting: {queues.packets} packets, {queues.bytes} bytes, "
        f"and {queues.input} bytes that came"
        + (f", of {queues.limit} bytes; " if queues.limit else "; ")
        + f"not read from now: {queues.held}, holds: {queues.holds}",
        f"turned away at the door: {shot.turned_away}",
        *(f"{layer.name} of {those_of(layer.port)}: {layer.figures}" for layer in shot.layers),
        *limit_figures(shot.limits),
        f"links lost: {sum(shot.lost.values())}"
        + counts({reason.value: count for reason, count in shot.lost.items()}),
        f"log lines dropped: {shot.log_dropped}"
        + (f", of the access log: {shot.access_dropped}" if shot.access_dropped else ""),
        f"memory: {shot.memory // 1024} KiB resident",
    ]
    if shot.relay is not None:
        rows += _relay_rows(shot.relay)
    return rows


def link_row(link: LinkRow) -> str:
    """One row of `links`, fields separated by tabs."""
    return (
        f"{link.side}\t{link.link_id or '?'}\t{link.addr}\t"
        f"{link.conns} conns\t{link.seconds:.0f} s\t"
        f"in {link.packets_in} packets {link.bytes_in} bytes\t"
        f"out {link.packets_out} packets {link.bytes_out} bytes\t"
        f"waiting {link.waiting_packets} packets {link.waiting_bytes} bytes"
        + _way(link)
        + _player(link)
        + _state(link)
        + _secured(link)
    )


_STEPS = {
    State.DELAY: "ports are still open",
    State.GRACE: "ports are closed",
    State.SPREAD: "clients are lost one by one",
    State.SERVERS: "servers are lost",
    State.DONE: "over",
}


def drain_row(drain: DrainFigures) -> str:
    """How far a drain is, as a row of `status`."""
    until = datetime.fromtimestamp(drain.until, timezone.utc)
    return (
        f"drain: {drain.state.value}, {_STEPS.get(drain.state, '')}; "
        f"{drain.left} of {drain.clients} clients left; "
        f"over within {drain.seconds:.0f} s, at {until:%H:%M:%S} UTC"
    )


def limit_figures(totals: LimitTotals) -> list[str]:
    """What the limits did, as rows of `status`."""
    gate = totals.gate
    refused = counts({reason.value: count for reason, count in gate.refused.items()})
    rows = [
        f"limits: {gate.connections} connections counted, "
        f"{gate.entries} addresses of {gate.table} told apart"
        + (f", {gate.overflowed} found no room" if gate.overflowed else "")
        + f"; refused: {sum(gate.refused.values())}{refused}, "
        + f"times that a port waited: {gate.rests}",
        f"held for their rates now: {totals.slowed}, in all: {totals.slows}",
    ]
    if gate.dry_run or gate.dry or gate.dry_rests:
        dry = counts({reason.value: count for reason, count in gate.dry.items()})
        rows.append(
            f"dry run of limits is {'on' if gate.dry_run else 'off'}; would have been refused: "
            f"{sum(gate.dry.values())}{dry}, would have waited: {gate.dry_rests}"
        )
    return rows


def counts(numbers: Mapping[str, int]) -> str:
    """` (3 a, 1 b)`, the most first, or nothing."""
    rows = sorted(numbers.items(), key=lambda row: (-row[1], row[0]))
    return f" ({', '.join(f'{count} {name}' for name, count in rows)})" if rows else ""


def _way(link: LinkRow) -> str:
    via = f" of {link.port}" if link.port else ""
    via += f" via {link.via}" if link.via else ""
    return "" if link.transport == "tcp" and not via else f"\tover {link.transport}{via}"


def _player(link: LinkRow) -> str:
    return f"\tplayer {link.user}" if link.user else ""


def _state(link: LinkRow) -> str:
    if link.lost:
        return "\tlost"
    if link.cut is not None:
        return f"\tcut {link.cut:.0f} s"
    return "\tnot read from" if link.held else ""


def _secured(link: LinkRow) -> str:
    """`	TLSv1.3 for HOST, as IDENTITY`, or nothing."""
    if not link.tls:
        return ""
    sni = f" for {link.sni}" if link.sni else ""
    who = link.identity or (f"sha256:{link.sha256}" if link.sha256 else "")
    return f"\t{link.tls}{sni}" + (f", as {who}" if who else "")


def _relay_rows(relay: RelayTotals) -> Iterable[str]:
    limit = f" of {relay.limit}" if relay.limit else ""
    yield (
        f"relay: {relay.links} links, {relay.pairs} virtual connections in native code"
        + (f"; {relay.shed} lost for memory" if relay.shed else "")
    )
    yield (
        f"memory pool: {relay.pool}, {relay.used}{limit} bytes of chunks used, "
        f"{relay.plain} chunks outside of pages, {relay.failed} requests failed"
    )
    for chunk in relay.chunks:
        if chunk.pages or chunk.used or chunk.free:
            yield (
                f"chunks of {chunk.size}: {chunk.pages} pages, "
                f"{chunk.used} used, {chunk.free} free"
            )
