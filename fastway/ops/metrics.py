"""The table of all metrics.

Rule: a row of `METRICS` is all there is of one: its name, kind, meaning, labels, and how it is
read from a snapshot. What a gateway has not (no relay, no limit, no TLS) is left out. No label
has an id or an address: what it can be is bounded by the program and its options.

A counter of reasons has those that something happened for. The few that alerts ask for are there
from the start, at 0: Prometheus does not see a counter's first step if it begins with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from fastway.errors import Reason
from fastway.ops.health import problem
from fastway.ops.snapshot import LayerTotals, Snapshot
from fastway.prometheus import Metric, Samples, Value
from fastway.router import Refusal, Side


def _one(read: Callable[[Snapshot], Value | None]) -> Callable[[Snapshot], Samples]:
    """Of a metric without labels; None: it is not there."""

    def samples(shot: Snapshot) -> Samples:
        value = read(shot)
        return () if value is None else (((), value),)

    return samples


def _reasons(
    counts: Callable[[Snapshot], Mapping[tuple[Side, Reason], int]], *asked: Reason
) -> Callable[[Snapshot], Samples]:
    """Of a metric with a side and a reason; those that alerts ask for are there from the start."""
    none = {(side.value, reason.code): 0 for side in Side for reason in asked}

    def samples(shot: Snapshot) -> Samples:
        told = dict(none)
        for (side, reason), count in counts(shot).items():
            told[side.value, reason.code] = count
        return told.items()

    return samples


_AUTH = (Reason.AUTH_FAILED, Reason.NOT_ALLOWED)


def _layers(shot: Snapshot, name: str) -> Iterator[LayerTotals]:
    return (layer for layer in shot.layers if layer.name == name)


def _build(shot: Snapshot) -> Samples:
    path = "python" if shot.relay is None else "native"
    return (((shot.version, path), 1),)


def _port_open(shot: Snapshot) -> Samples:
    yield from (((port.name,), 1) for port in shot.ports)
    yield from (((name,), 0) for name in shot.shut)


def _handshakes(shot: Snapshot) -> Samples:
    under_way: Counter[tuple[str, ...]] = Counter()
    for port in shot.ports:
        under_way[port.side, "link"] += port.handshakes
    for layer in _layers(shot, "tls"):
        under_way[layer.side, "tls"] += layer.figures.under_way
    for layer in _layers(shot, "snet"):
        under_way[layer.side, "snet"] += layer.figures.handshakes
    return under_way.items()


def _handshake_failures(shot: Snapshot) -> Samples:
    failed: Counter[tuple[str, ...]] = Counter()
    for (side, reason), count in shot.links.strangers.items():
        if reason in _AUTH:
            failed[side.value, "auth", reason.code] = count
        elif reason.code.startswith("proxy_"):
            failed[side.value, "proxy", reason.code] = count
    for layer in shot.layers:
        if layer.name == "tls":
            for why, count in layer.figures.failed.items():
                failed[layer.side, "tls", why] += count
        elif layer.name == "ws":
            for status, count in layer.figures.refused.items():
                failed[layer.side, "ws", str(status)] += count
        elif layer.name == "snet":
            for fault, count in layer.figures.refused.items():
                failed[layer.side, "snet", fault.name.lower()] += count
    return failed.items()


def _tls_handshakes(shot: Snapshot) -> Samples:
    done: Counter[tuple[str, ...]] = Counter()
    for layer in _layers(shot, "tls"):
        for version, count in layer.figures.done.items():
            done[layer.side, version] += count
    return done.items()


def _certificates(shot: Snapshot) -> Samples:
    ends: dict[tuple[str, ...], float] = {}
    for layer in _layers(shot, "tls"):
        for one in layer.figures.certificates:
            end = one.ends.timestamp()
            ends[one.name,] = min(end, ends.get((one.name,), end))
    return ends.items()


def _reloads(shot: Snapshot) -> Samples:
    told = dict(shot.reloads)
    if layers := [layer.figures for layer in _layers(shot, "tls")]:
        told["certificates"] = (
            sum(figures.rereads for figures in layers),
            sum(figures.failures for figures in layers),
        )
    for what, (done, failed) in told.items():
        yield (what, "done"), done
        yield (what, "failed"), failed


def _dials(shot: Snapshot) -> Samples:
    told = {(side.value, why.code): 0 for side in Side for why in Refusal}
    for (side, refusal), count in shot.router.answers.items():
        told[side.value, "accepted" if refusal is None else refusal.code] = count
    return told.items()


def _snet(figure: str) -> Callable[[Snapshot], Samples]:
    """One of the figures of snet (`SnetFigures`), by side."""

    def read(shot: Snapshot) -> Samples:
        sums: Counter[tuple[str, ...]] = Counter()
        for layer in _layers(shot, "snet"):
            sums[layer.side,] += getattr(layer.figures, figure)
        return sums.items()

    return read


def _snet_resumes(shot: Snapshot) -> Samples:
    resumed: Counter[tuple[str, ...]] = Counter()
    for layer in _layers(shot, "snet"):
        figures = layer.figures
        resumed[layer.side, "resumed"] += figures.resumed - figures.taken_over
        resumed[layer.side, "taken_over"] += figures.taken_over
    return resumed.items()


def _waiting_packets(shot: Snapshot) -> Samples:
    queues = shot.queues
    yield (Side.CLIENT.value,), queues.packets - queues.server_packets
    yield (Side.SERVER.value,), queues.server_packets


def _waiting_bytes(shot: Snapshot) -> Samples:
    queues = shot.queues
    yield (Side.CLIENT.value, "out"), queues.bytes - queues.server_bytes
    yield (Side.CLIENT.value, "in"), queues.input - queues.server_input
    yield (Side.SERVER.value, "out"), queues.server_bytes
    yield (Side.SERVER.value, "in"), queues.server_input


def _dry(shot: Snapshot) -> Samples:
    gate = shot.limits.gate
    if not (gate.dry_run or gate.dry):
        return ()
    return (((reason.code,), count) for reason, count in gate.dry.items())


METRICS: tuple[Metric, ...] = (
    Metric(
        "fastway_build_info",
        "gauge",
        "Always 1: the version, and whether packets take the native path or that of Python.",
        ("version", "path"),
        _build,
    ),
    Metric(
        "fastway_ready",
        "gauge",
        "1 while /ready says yes, else 0.",
        (),
        _one(lambda shot: 0 if problem(shot) else 1),
    ),
    Metric(
        "fastway_draining",
        "gauge",
        "1 while it drains or stops, else 0.",
        (),
        _one(lambda shot: int(shot.state in ("draining", "stopping"))),
    ),
    Metric(
        "fastway_port_open",
        "gauge",
        "1 for each port that listens, 0 for one that does not.",
        ("port",),
        _port_open,
    ),
    Metric(
        "fastway_connections",
        "gauge",
        "Clients and game servers that are logged in, by what carries them.",
        ("side", "transport"),
        lambda shot: shot.links.connected.items(),
    ),
    Metric(
        "fastway_connections_total",
        "counter",
        "Those that ever were.",
        ("side", "transport"),
        lambda shot: shot.links.since_start.items(),
    ),
    Metric(
        "fastway_connections_refused_total",
        "counter",
        "Connections that ended before they were logged in: at the door or in a handshake.",
        ("side", "reason"),
        _reasons(
            lambda shot: shot.links.strangers,
            Reason.NO_DESCRIPTOR,
            Reason.TOO_MANY_LINKS,
            Reason.TOO_MANY_HANDSHAKES,
            Reason.AUTH_FAILED,
        ),
    ),
    Metric(
        "fastway_disconnects_total",
        "counter",
        "Clients and game servers that were lost.",
        ("side", "reason"),
        _reasons(
            lambda shot: shot.links.lost,
            Reason.PEER_CLOSED,
            Reason.NO_MEMORY,
            Reason.SLOW_READER,
            Reason.WRITE_TIMEOUT,
        ),
    ),
    Metric(
        "fastway_connection_duration_seconds",
        "histogram",
        "How long those were connected.",
        ("side",),
        lambda shot: (((side,), told) for side, told in shot.links.lasted.items()),
    ),
    Metric(
        "fastway_handshakes",
        "gauge",
        "Connections that are not logged in yet (kind link); of these, or before these, in "
        "handshakes of TLS and of snet.",
        ("side", "kind"),
        _handshakes,
    ),
    Metric(
        "fastway_handshake_failures_total",
        "counter",
        "Handshakes that failed, as what speaks them names it (kind proxy, tls, ws, snet, auth).",
        ("side", "kind", "reason"),
        _handshake_failures,
    ),
    Metric(
        "fastway_tls_handshakes_total",
        "counter",
        "TLS handshakes that were completed.",
        ("side", "version"),
        _tls_handshakes,
    ),
    Metric(
        "fastway_tls_certificate_not_after_timestamp_seconds",
        "gauge",
        "When a certificate in use expires; of each port the first 16 to do so.",
        ("name",),
        _certificates,
    ),
    Metric(
        "fastway_reloads_total",
        "counter",
        "Times that what was read anew came into use, or could not: changed certificates and "
        "identities, and the options with the admin token.",
        ("what", "result"),
        _reloads,
    ),
    Metric(
        "fastway_server_ids",
        "gauge",
        "Different ids that the connected game servers have.",
        (),
        _one(lambda shot: shot.server_ids),
    ),
    Metric(
        "fastway_virtual_connections",
        "gauge",
        "Virtual connections that are open.",
        (),
        _one(lambda shot: shot.router.open),
    ),
    Metric(
        "fastway_dials_total",
        "counter",
        "Dials that were answered, by who dialled: accepted, or why they were refused.",
        ("side", "result"),
        _dials,
    ),
    Metric(
        "fastway_packets_total",
        "counter",
        "Packets forwarded over virtual connections.",
        (),
        _one(lambda shot: shot.router.packets),
    ),
    Metric(
        "fastway_bytes_total",
        "counter",
        "Their bytes, heads included.",
        (),
        _one(lambda shot: shot.router.bytes),
    ),
    Metric(
        "fastway_pings_total",
        "counter",
        "Pings that were answered.",
        (),
        _one(lambda shot: shot.router.pings),
    ),
    Metric(
        "fastway_waiting_packets",
        "gauge",
        "Packets that wait for all links of a side together.",
        ("side",),
        _waiting_packets,
    ),
    Metric(
        "fastway_waiting_bytes",
        "gauge",
        "Bytes that count for memory-limit: direction out waits for links of that side, in came "
        "from them and is not handled.",
        ("side", "direction"),
        _waiting_bytes,
    ),
    Metric(
        "fastway_waiting_limit_bytes",
        "gauge",
        "memory-limit; not there without one.",
        (),
        _one(lambda shot: shot.queues.limit or None),
    ),
    Metric(
        "fastway_held_connections",
        "gauge",
        "Links that are not read from now, because somebody whom they send to is slow.",
        (),
        _one(lambda shot: shot.queues.held),
    ),
    Metric(
        "fastway_holds_total",
        "counter",
        "How often that began.",
        (),
        _one(lambda shot: shot.queues.holds),
    ),
    Metric(
        "fastway_slowed_connections",
        "gauge",
        "Clients that are not read from now, because they sent more than their rates allow.",
        (),
        _one(lambda shot: shot.limits.slowed),
    ),
    Metric(
        "fastway_slows_total",
        "counter",
        "How often that began.",
        (),
        _one(lambda shot: shot.limits.slows),
    ),
    Metric(
        "fastway_address_table_entries",
        "gauge",
        "Addresses and sites that limits tell apart.",
        (),
        _one(lambda shot: shot.limits.gate.entries),
    ),
    Metric(
        "fastway_address_table_limit",
        "gauge",
        "How many there may be (limit-table); past that all others share one entry.",
        (),
        _one(lambda shot: shot.limits.gate.table),
    ),
    Metric(
        "fastway_address_table_overflows_total",
        "counter",
        "Connections that found no room among them.",
        (),
        _one(lambda shot: shot.limits.gate.overflowed),
    ),
    Metric(
        "fastway_accept_rests_total",
        "counter",
        "How often a port let those wait who came, by the rates for all together.",
        (),
        _one(lambda shot: shot.limits.gate.rests),
    ),
    Metric(
        "fastway_dry_refusals_total",
        "counter",
        "Connections that limits would have refused, with limit-dry-run.",
        ("reason",),
        _dry,
    ),
    Metric(
        "fastway_strays_total",
        "counter",
        "Packets on connection ids that are not in use.",
        (),
        _one(lambda shot: shot.router.strays),
    ),
    Metric(
        "fastway_foreign_closes_total",
        "counter",
        "Closes of somebody else's virtual connection: a bug of the sender, or an attack.",
        (),
        _one(lambda shot: shot.router.foreign_closes),
    ),
    Metric(
        "fastway_snet_cut",
        "gauge",
        "Streams that are cut and may come back.",
        ("side",),
        _snet("waiting"),
    ),
    Metric(
        "fastway_snet_resumes_total",
        "counter",
        "Streams that came back: resumed after a cut, or taken_over while the old connection "
        "looked alive.",
        ("side", "result"),
        _snet_resumes,
    ),
    Metric(
        "fastway_snet_replayed_bytes_total",
        "counter",
        "Bytes sent again to streams that came back.",
        ("side",),
        _snet("replayed"),
    ),
    Metric(
        "fastway_pool_bytes",
        "gauge",
        "Bytes of chunks that the relay's memory pool has handed out.",
        (),
        _one(lambda shot: None if shot.relay is None else shot.relay.used),
    ),
    Metric(
        "fastway_pool_limit_bytes",
        "gauge",
        "mem-pool-limit; not there without one.",
        (),
        _one(lambda shot: None if shot.relay is None else shot.relay.limit or None),
    ),
    Metric(
        "fastway_pool_failures_total",
        "counter",
        "Requests for memory that the pool had no room for.",
        (),
        _one(lambda shot: None if shot.relay is None else shot.relay.failed),
    ),
    Metric(
        "fastway_log_lines_dropped_total",
        "counter",
        "Lines of the log that could not be written.",
        (),
        _one(lambda shot: shot.log_dropped),
    ),
    Metric(
        "fastway_access_log_lines_dropped_total",
        "counter",
        "The same of the access log.",
        (),
        _one(lambda shot: shot.access_dropped),
    ),
    Metric(
        "fastway_reactor_turn_seconds",
        "histogram",
        "How long turns of the reactor took: everything waits for the longest.",
        (),
        _one(lambda shot: shot.turns),
    ),
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "Processor time of all threads, of user and system.",
        (),
        _one(lambda shot: shot.process.cpu),
    ),
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "Memory that the process occupies.",
        (),
        _one(lambda shot: shot.process.memory or None),
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "When the process began, since 1970.",
        (),
        _one(lambda shot: shot.process.started),
    ),
    Metric(
        "process_open_fds",
        "gauge",
        "Descriptors that are open; not there before Linux 6.2.",
        (),
        _one(lambda shot: shot.process.files or None),
    ),
    Metric(
        "process_max_fds",
        "gauge",
        "Descriptors that may be open.",
        (),
        _one(lambda shot: shot.process.max_files or None),
    ),
)
