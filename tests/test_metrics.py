"""The page of metrics: its text, and that its numbers are those of the gateway."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from fastway import usage
from fastway.address import Address
from fastway.errors import Reason
from fastway.gateway import Layer, Port
from fastway.gateway.tally import LASTED
from fastway.histogram import Distribution, Histogram
from fastway.ops.health import problem
from fastway.ops.metrics import METRICS
from fastway.ops.snapshot import PortTotals, RelayTotals, Snapshot, Source, finish
from fastway.prometheus import Metric, page
from fastway.router import IdConflict
from fastway.snet.listen import SnetFactory
from tests.support.ends import Harness
from tests.support.files import CHECKOUT, scratch
from tests.support.golden import PING, dial, packet
from tests.support.metrics import Samples, names, read, total

PROMTOOL = shutil.which("promtool")


def written(*metrics: Metric) -> str:
    """The page of a table that needs no snapshot."""
    return page(cast(Snapshot, None), metrics).decode()


class WriterTests(SynchronousTestCase):
    """The text alone."""

    def test_plain(self) -> None:
        """Head, then a line for each sample, in their order."""
        text = written(
            Metric("a_total", "counter", "What.", (), lambda _: [((), 7)]),
            Metric(
                "b", "gauge", "Where.", ("x", "y"), lambda _: [(("1", ""), 0.5), (("", ""), -1)]
            ),
        )
        self.assertEqual(
            text,
            "# HELP a_total What.\n# TYPE a_total counter\na_total 7\n"
            '# HELP b Where.\n# TYPE b gauge\nb{x="1",y=""} 0.5\nb{x="",y=""} -1\n',
        )

    def test_none(self) -> None:
        """A metric without samples is not there at all."""
        nothing = Metric("a", "gauge", "What.", (), lambda _: [])
        self.assertEqual(written(nothing), "")

    def test_histogram(self) -> None:
        """Classes add up; the last has no end."""
        told = Histogram((0.1, 1, 10))
        for value in (0, 0.1, 0.2, 1, 100):
            told.add(value)
        text = written(
            Metric("h", "histogram", "W.", ("s",), lambda _: [(("c",), told.figures())])
        )
        self.assertEqual(
            text.splitlines()[2:],
            [
                'h_bucket{s="c",le="0.1"} 2',
                'h_bucket{s="c",le="1"} 4',
                'h_bucket{s="c",le="10"} 4',
                'h_bucket{s="c",le="+Inf"} 5',
                'h_sum{s="c"} 101.3',
                'h_count{s="c"} 5',
            ],
        )

    @given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
    def test_escapes(self, value: str, other: str) -> None:
        """Whatever is in a label comes out again."""
        metric = Metric("m", "gauge", "W.", ("a", "b"), lambda _: [((value, other), 1)])
        text = written(metric)
        self.assertEqual(text.count("\n"), 3)
        if "\r" in value + other:
            return  # the parser reads lines as Python does, Prometheus does not
        if len((value + other).splitlines()) > 1 and "\n" not in value + other:
            return
        (family,) = text_string_to_metric_families(text)
        (sample,) = family.samples
        self.assertEqual(sample.labels, {"a": value, "b": other})

    def test_help(self) -> None:
        """So does what is in a help text; surrogates of odd paths break nothing."""
        text = written(Metric("m", "gauge", "a\\b\nc", (), lambda _: [((), 1)]))
        self.assertIn("# HELP m a\\\\b\\nc\n", text)
        metric = Metric("m", "gauge", "W.", ("a",), lambda _: [(("\udc80",), 1)])
        self.assertIn('m{a="?"} 1', written(metric))

    @given(st.one_of(st.integers(), st.floats()))
    def test_numbers(self, value: float) -> None:
        """Numbers come out as they were, however large or small."""
        text = written(Metric("m", "gauge", "W.", (), lambda _: [((), value)]))
        (family,) = text_string_to_metric_families(text)
        found = family.samples[0].value
        self.assertTrue(
            found == value
            or (math.isnan(found) and math.isnan(value))
            or abs(found) == float(abs(value))
        )

    @given(st.lists(st.floats(0, 1e6)))
    def test_classes(self, values: list[float]) -> None:
        """A histogram has each value once, in the class that it belongs to."""
        told = Histogram(LASTED)
        for value in values:
            told.add(value)
        figures = told.figures()
        self.assertEqual(sum(figures.counts), len(values))
        for place, bound in enumerate(LASTED):
            within = sum(value <= bound for value in values)
            self.assertEqual(sum(figures.counts[: place + 1]), within)


class TableTests(SynchronousTestCase):
    """The table, and what is made of it elsewhere."""

    def test_rules(self) -> None:
        """Names as Prometheus wants them; no label of an id or an address."""
        self.assertEqual(len({metric.name for metric in METRICS}), len(METRICS))
        for metric in METRICS:
            self.assertTrue(re.fullmatch(r"(fastway|process)_[a-z_]+", metric.name), metric.name)
            self.assertEqual(metric.kind == "counter", metric.name.endswith("_total"), metric.name)
            self.assertTrue(metric.help.endswith("."), metric.name)
            for label in metric.labels:
                self.assertNotIn(label, ("id", "addr", "address", "ip", "le", "instance", "job"))

    def test_page(self) -> None:
        """docs/metrics.md has the table, row by row."""
        with open(os.path.join(CHECKOUT, "docs", "metrics.md"), encoding="utf-8") as file:
            found = re.findall(
                r"^\| `((?:fastway|process)_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", file.read(), re.M
            )
        wanted = [
            (one.name, one.kind, " ".join(f"`{label}`" for label in one.labels), one.help)
            for one in METRICS
        ]
        self.assertEqual(found, wanted)

    def known(self) -> dict[str, set[str]]:
        """The name of each sample -> the labels that it may have."""
        known = {}
        for metric in METRICS:
            ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
            for end in ends:
                known[metric.name + end] = {*metric.labels, *(["le"] if end == "_bucket" else [])}
        return known

    def check_queries(self, queries: list[str]) -> set[str]:
        """Each names metrics that there are, and asks for labels that these have."""
        known = self.known()
        used = set()
        for query in queries:
            found = re.findall(r"\b((?:fastway|process)_\w+)(?:\{([^}]*)\})?", query)
            if "up{" not in query:
                self.assertTrue(found, query)
            labels = {"job", "instance"}
            for name, asked in found:
                self.assertIn(name, known, query)
                used.add(name)
                labels |= known[name]
                for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", asked):
                    self.assertIn(label, known[name] | {"job", "instance"}, query)
            for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
                self.assertLessEqual(set(re.findall(r"\w+", group)), labels, query)
        return used

    def test_alerts(self) -> None:
        """The alerts ask for what there is; docs/metrics.md tells of each."""
        with open(os.path.join(CHECKOUT, "deploy", "fastway.rules.yml"), encoding="utf-8") as file:
            text = re.sub(r">-\n\s+(.*\n)(?:\s+(>.*\n))?", r"\1 \2", file.read())
        alerts = re.findall(r"- alert: (\w+)\n\s+expr: +(.*(?:\n +>.*)?)", text)
        self.assertGreater(len(alerts), 15)
        self.assertEqual(text.count("- alert:"), len(alerts))
        self.check_queries([query for _, query in alerts])
        with open(os.path.join(CHECKOUT, "docs", "metrics.md"), encoding="utf-8") as file:
            told = re.findall(r"\bFastway\w+", file.read())
        self.assertEqual(sorted(told), sorted(name for name, _ in alerts))
        # What they wait for the first time of is there before it happened.
        samples = read(page(finish(Source(Harness().service).snapshot(brief=True)), METRICS))
        for metric, reasons in re.findall(r'(\w+_total)\{[^}]*reason=~?"([^"]*)"', text):
            for reason in reasons.split("|"):
                for side in ("client", "server"):
                    self.assertIn((metric, f"side={side}", f"reason={reason}"), samples)

    def test_dashboard(self) -> None:
        """The dashboard asks for what there is, and leaves nothing out."""
        with open(os.path.join(CHECKOUT, "deploy", "grafana.json"), encoding="utf-8") as file:
            board = json.load(file)
        queries = [
            target["expr"] for panel in board["panels"] for target in panel.get("targets", ())
        ]
        used = self.check_queries(queries)
        self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
        told = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
        unused = {metric.name for metric in METRICS} - told
        others = {
            "build_info",
            "pings_total",
            "server_ids",
            "reloads_total",
            "snet_replayed_bytes_total",
        }
        self.assertEqual(unused, {f"fastway_{name}" for name in others})

    def test_promtool(self) -> None:
        """Prometheus takes the files."""
        if PROMTOOL is None:
            self.skipTest("there is no promtool")
        for what, name in (("rules", "fastway.rules.yml"), ("config", "prometheus.yml")):
            path = os.path.join(CHECKOUT, "deploy", name)
            done = subprocess.run([PROMTOOL, "check", what, path], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        text = page(finish(Source(Harness().service).snapshot()), METRICS)
        done_too = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True)
        self.assertEqual(done_too.returncode, 0, done_too.stderr)

    def test_drain(self) -> None:
        """A drain, in which ports are shut and servers go, calls nobody; the same without one
        does."""
        if PROMTOOL is None:
            self.skipTest("there is no promtool")
        path = os.path.join(CHECKOUT, "deploy", "fastway.rules.yml")
        series = {"ready": "0+0x30", "server_ids": "0+0x30", 'port_open{port="client"}': "0+0x30"}
        expected = {"NotReady": "", "NoServer": "", "PortShut": "port: client, "}
        told = [f"rule_files: [{path}]", "evaluation_interval: 1m", "tests:"]
        for draining in (0, 1):
            told += ["  - interval: 1m", "    input_series:"]
            for name, values in {**series, "draining": f"{draining}+0x30"}.items():
                name, _, more = name.partition("{")
                labels = ", ".join(filter(None, ('job="fastway"', 'instance="a"', more[:-1])))
                told.append(f"      - series: 'fastway_{name}{{{labels}}}'")
                told.append(f"        values: '{values}'")
            told.append("    alert_rule_test:")
            for name, labels in expected.items():
                told.append(f"      - {{eval_time: 10m, alertname: Fastway{name}, exp_alerts: [")
                if not draining:
                    told.append(
                        f"          {{exp_labels: {{job: fastway, instance: a, {labels}"
                        "severity: page}, exp_annotations: {summary: SUMMARY}}"
                    )
                told.append("        ]}")
        directory = scratch(self)
        text = "\n".join(told)
        for name in expected:
            with open(path, encoding="utf-8") as file:
                rule = file.read().partition(f"alert: Fastway{name}\n")[2]
            (summary,) = re.findall(r'summary: ("[^"]*")', rule)[:1]
            for label, value in (("instance", "a"), ("port", "client")):
                summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
            text = text.replace("SUMMARY", summary, 1)
        test = os.path.join(directory, "test.yml")
        with open(test, "w", encoding="utf-8") as file:
            file.write(text)
        done = subprocess.run([PROMTOOL, "test", "rules", test], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class DayTests(SynchronousTestCase):
    """What happened is what the page says."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.source = Source(self.harness.service)

    def read(self) -> Samples:
        return read(page(finish(self.source.snapshot(brief=True)), METRICS))

    def check_books(self, samples: Samples) -> None:
        """The sums are the router's."""
        router = self.harness.router
        stats = router.stats
        for side, live in (
            ("client", len(router.clients)),
            ("server", sum(map(len, router.servers.values()))),
        ):
            label = f"side={side}"
            self.assertEqual(total(samples, "fastway_connections", label), live)
            came = total(samples, "fastway_connections_total", label)
            went = total(samples, "fastway_disconnects_total", label)
            self.assertEqual(came, live + went)
            lasted = total(samples, "fastway_connection_duration_seconds_count", label)
            self.assertEqual(lasted, went)
        refused = total(samples, "fastway_connections_refused_total")
        self.assertEqual(refused, sum(stats.turned_away.values()))
        self.assertEqual(total(samples, "fastway_disconnects_total"), sum(stats.lost.values()))
        dials = total(samples, "fastway_dials_total")
        self.assertEqual(dials, stats.dials - router.dials_waiting)
        self.assertEqual(total(samples, "fastway_packets_total"), stats.packets)
        self.assertEqual(total(samples, "fastway_bytes_total"), stats.bytes)

    def test_day(self) -> None:
        """A few connections, dials, packets and ends."""
        harness = self.harness
        clients = [harness.client() for _ in range(4)]
        servers = [harness.server(5), harness.server(5), harness.server(6)]
        stranger, liar = harness.stranger(), harness.stranger()
        conn_id = harness.pair(clients[0], servers[2])
        harness.pair(servers[0], clients[1])
        clients[0].send(packet(conn_id, b"hello"))
        clients[0].send(packet(conn_id, b"hello")[:9])
        clients[0].send(packet(conn_id, b"hello")[9:])
        clients[2].send(dial(99) + PING + packet(77, b"stray"))
        servers[0].send(dial(99))
        liar.send(bytes(20))
        harness.pass_time(2)
        clients[1].gone()
        harness.router.lose(clients[3].link, Reason.SLOW_READER)
        harness.pass_time(16)
        servers[1].gone()
        samples = self.read()
        self.check_books(samples)
        for value, name, *labels in (
            (2, "connections", "side=client", "transport=other"),
            (4, "connections_total", "side=client", "transport=other"),
            (2, "connections", "side=server", "transport=other"),
            (3, "connections_total", "side=server", "transport=other"),
            (1, "disconnects_total", "side=client", "reason=peer_closed"),
            (1, "disconnects_total", "side=client", "reason=slow_reader"),
            (1, "disconnects_total", "side=server", "reason=peer_closed"),
            (0, "disconnects_total", "side=server", "reason=no_memory"),
            (1, "connections_refused_total", "side=server", "reason=auth_failed"),
            (1, "connections_refused_total", "side=server", "reason=handshake_timeout"),
            (1, "handshake_failures_total", "side=server", "kind=auth", "reason=auth_failed"),
            (2, "connection_duration_seconds_count", "side=client"),
            (0, "connection_duration_seconds_bucket", "side=client", "le=1"),
            (2, "connection_duration_seconds_bucket", "side=client", "le=10"),
            (4, "connection_duration_seconds_sum", "side=client"),
            (18, "connection_duration_seconds_sum", "side=server"),
            (1, "dials_total", "side=client", "result=accepted"),
            (1, "dials_total", "side=server", "result=accepted"),
            (1, "dials_total", "side=client", "result=unknown"),
            (1, "dials_total", "side=server", "result=unknown"),
            (0, "dials_total", "side=server", "result=busy"),
            (2, "packets_total"),
            (26, "bytes_total"),
            (1, "pings_total"),
            (1, "strays_total"),
            (1, "virtual_connections"),
            (2, "server_ids"),
            (0, "waiting_bytes", "side=client", "direction=out"),
        ):
            key = (f"fastway_{name}", *labels)
            self.assertEqual(samples[key], value, key)
        self.assertEqual(stranger.lost, Reason.HANDSHAKE_TIMEOUT)

    def test_conflict(self) -> None:
        """A server whose id is in use came and went in one."""
        for conflict in IdConflict:
            self.harness = harness = Harness()
            harness.router.limits.server_id_conflict = conflict
            self.source = Source(harness.service)
            for _ in range(3):
                harness.server(5)
            self.check_books(self.read())

    def test_reloads(self) -> None:
        """What was read anew, and could not be used."""
        harness = self.harness
        address = Address("--server-addr", "127.0.0.1:0", "127.0.0.1", 0, "tcp:0")
        harness.service.ports = [Port("server", address, harness.servers)]
        harness.servers.identities = cast(Any, SimpleNamespace(rereads=2, failures=1))
        self.source.options = lambda: (4, 3)
        samples = self.read()
        for what, result, count in (
            ("identities", "done", 2),
            ("identities", "failed", 1),
            ("options", "done", 4),
            ("options", "failed", 3),
        ):
            told = "fastway_reloads_total", f"what={what}", f"result={result}"
            self.assertEqual(samples[told], count)
        self.assertEqual(total(samples, "fastway_reloads_total"), 10)

    def test_no_id(self) -> None:
        """A client for whom there is no id was never there."""
        self.harness.router.client_range = cast(Any, SimpleNamespace(take=lambda _: 0))
        self.harness.client()
        samples = self.read()
        self.check_books(samples)
        key = "fastway_connections_refused_total", "side=client", "reason=no_id"
        self.assertEqual(samples[key], 1)

    def test_waiting(self) -> None:
        """What waits, on its way out and in, and who is held."""
        harness = self.harness
        harness.service.memory_limit = 1 << 20
        client, server = harness.client(), harness.server(5)
        conn_id = harness.pair(client, server)
        server.transport.fill()
        client.send(packet(conn_id, b"hello"))
        client.send(packet(conn_id, bytes(100))[:30])
        samples = self.read()
        name = "fastway_waiting_bytes"
        self.assertEqual(samples[name, "side=server", "direction=out"], 13)
        self.assertEqual(samples[name, "side=client", "direction=out"], 0)
        self.assertEqual(samples[name, "side=client", "direction=in"], 30)
        self.assertEqual(samples[name, "side=server", "direction=in"], 0)
        self.assertEqual(samples["fastway_waiting_packets", "side=server"], 1)
        self.assertEqual(samples["fastway_waiting_packets", "side=client"], 0)
        self.assertEqual(samples["fastway_waiting_limit_bytes",], 1 << 20)

    def test_missing(self) -> None:
        """What this gateway has not is not there."""
        samples = self.read()
        for word in ("pool", "tls", "snet", "limit_bytes", "reloads", "reactor"):
            self.assertFalse([name for name in names(samples) if word in name], word)
        self.source.turns = lambda: Distribution((1.0,), (2, 1), 7.5)
        self.assertEqual(self.read()["fastway_reactor_turn_seconds_sum",], 7.5)

    def test_process(self) -> None:
        """What everybody has of a process."""
        self.source.memory = lambda: 4096
        samples = self.read()
        self.assertGreater(samples["process_cpu_seconds_total",], 0)
        self.assertEqual(samples["process_resident_memory_bytes",], 4096)
        self.assertEqual(samples["process_max_fds",], usage.max_files())
        if usage.open_files():
            before = usage.open_files()
            read_end, write_end = os.pipe()
            self.assertEqual(usage.open_files(), before + 2)
            os.close(read_end)
            os.close(write_end)

    def test_brief(self) -> None:
        """The page looks at no stream and no link, however many there are."""
        harness = self.harness

        class Unseen(SnetFactory):
            def figures(self) -> Any:
                raise AssertionError("it looks at each stream")

        snet = Layer("snet", lambda factory: Unseen(factory, harness.clock))
        address = Address("--client-addr", "127.0.0.1:9010", "127.0.0.1", 9010)
        port = Port("client", address, harness.clients, [snet])
        harness.service.ports.append(port)
        port.layer("snet").stats.resumed = 5
        port.layer("snet").stats.taken_over = 2
        samples = self.read()
        self.assertEqual(samples["fastway_snet_cut", "side=client"], 0)
        resumes = "fastway_snet_resumes_total", "side=client"
        key = (*resumes, "result=resumed")
        self.assertEqual(samples[key], 3)
        key = (*resumes, "result=taken_over")
        self.assertEqual(samples[key], 2)
        self.assertEqual(samples["fastway_port_open", "port=client"], 0)


class HealthTests(SynchronousTestCase):
    """Each reason not to send anybody."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.source = Source(self.harness.service)

    def shot(self, **changes: Any) -> Snapshot:
        return dataclasses.replace(finish(self.source.snapshot()), **changes)

    def test_states(self) -> None:
        """Before and after it runs."""
        self.assertEqual(problem(self.shot()), "")
        service = self.harness.service
        service.running = 0
        self.assertEqual(problem(self.shot()), "the gateway is starting")
        service.running = 1
        service.stopping = True
        self.assertEqual(problem(self.shot()), "the gateway is stopping")
        self.assertEqual(problem(self.shot(state="draining")), "the gateway is draining")

    def test_ports(self) -> None:
        """A port that does not listen."""
        names = tuple(f"direct {number}" for number in range(7))
        self.assertEqual(problem(self.shot(shut=names[:1])), "ports that are not open: direct 0")
        self.assertTrue(problem(self.shot(shut=names)).endswith("direct 4, ..."))

    def test_full(self) -> None:
        """Over nine tenths of a bound; no bound is never full."""
        shot = self.shot()
        queues = dataclasses.replace(shot.queues, bytes=800, input=100, limit=1000)
        self.assertEqual(problem(self.shot(queues=queues)), "")
        queues = dataclasses.replace(queues, input=101)
        said = problem(self.shot(queues=queues))
        self.assertEqual(said, "901 bytes wait for all links, over 90% of 1000")
        self.assertEqual(problem(self.shot(queues=dataclasses.replace(queues, limit=0))), "")
        relay = RelayTotals(0, 0, 0, "atom", 901, 1000, 0, 0, ())
        self.assertIn("901 bytes of the memory pool", problem(self.shot(relay=relay)))
        relay = dataclasses.replace(relay, limit=0)
        self.assertEqual(problem(self.shot(relay=relay)), "")
        process = dataclasses.replace(shot.process, files=901, max_files=1000)
        self.assertEqual(
            problem(self.shot(process=process)), "901 files are open, over 90% of 1000"
        )
        process = dataclasses.replace(process, files=900)
        self.assertEqual(problem(self.shot(process=process)), "")

    def test_files_untold(self) -> None:
        """Where the system does not tell what is open, connections count."""
        shot = self.shot()
        process = dataclasses.replace(shot.process, files=0, max_files=1000)
        ports = tuple(PortTotals("a", "client", "x", links, 0, ()) for links in (500, 401))
        said = problem(self.shot(process=process, ports=ports))
        self.assertEqual(said, "901 files are open, over 90% of 1000")
        self.assertEqual(problem(self.shot(process=process, ports=ports[:1])), "")

    def test_server(self) -> None:
        """No game server, if one is needed."""
        self.source.needs_server = True
        self.assertEqual(problem(self.shot()), "no game server is connected")
        server = self.harness.server(5)
        self.assertEqual(problem(self.shot()), "")
        server.gone()
        self.assertEqual(problem(self.shot()), "no game server is connected")
        self.source.needs_server = False
        self.assertEqual(problem(self.shot()), "")
