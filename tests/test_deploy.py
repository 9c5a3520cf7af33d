"""The files of deploy/ for systemd, Docker and Kubernetes, beside what the gateway understands.

Rule: what a file and code can tell is checked here, and by the programs that read these files
where they are installed; that they do what they should is for hands (deploy/README.md says whose).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from fastway.config import Settings
from fastway.config.values import parse_duration
from fastway.service import GOODBYES
from tests.support.files import CHECKOUT, scratch
from tests.support.options import settings

ANALYZE = shutil.which("systemd-analyze")


def read(*path: str) -> str:
    with open(os.path.join(CHECKOUT, "deploy", *path), encoding="utf-8") as file:
        return file.read()


def fields(text: str, name: str) -> list[str]:
    """What a unit's setting of that name is set to, each time."""
    return re.findall(rf"^{name}=(.*)$", text, re.M)


class SystemdTests(SynchronousTestCase):
    UNITS = ("fastway.service", "fastway-clients.socket", "fastway-servers.socket")

    def test_command(self) -> None:
        """The unit's command is one, and the paths that it names are the unit's own."""
        text = read("fastway.service")
        (command,) = fields(text, "ExecStart")
        _, *arguments = shlex.split(command)
        config = os.path.join(CHECKOUT, "deploy", "fastway.toml")
        given = [config if word.endswith(".toml") else word for word in arguments]
        told = settings(*given)
        (logs,) = fields(text, "LogsDirectory")
        self.assertTrue(told.log.file.startswith(f"/var/log/{logs}/"))
        (run,) = fields(text, "RuntimeDirectory")
        self.assertEqual(fields(text, "WorkingDirectory"), [f"/run/{run}"])

    def test_sockets(self) -> None:
        """The units of sockets are of that service, and named as an address can name them."""
        for name in ("clients", "servers"):
            text = read(f"fastway-{name}.socket")
            self.assertEqual(fields(text, "Service"), ["fastway.service"])
            (called,) = fields(text, "FileDescriptorName")
            self.assertEqual(called, name)
            self.assertIn(f"systemd:{called}", text)
            self.assertEqual(fields(text, "Accept"), [])

    def verify(self, service: str) -> str:
        """What systemd itself finds wrong with the units."""
        directory = scratch(self)
        paths = []
        for name in self.UNITS:
            text = service if name == "fastway.service" else read(name)
            text = text.replace("/opt/fastway/bin/fastway", sys.executable)
            paths.append(os.path.join(directory, name))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(text)
        assert ANALYZE is not None
        done = subprocess.run(
            [ANALYZE, "verify", "--man=no", *paths],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stderr

    def test_verify(self) -> None:
        """systemd finds nothing wrong, also with what older ones have instead."""
        if ANALYZE is None:
            self.skipTest("no systemd")
        text = read("fastway.service")
        older = re.findall(r"^#   (Type=notify|ExecReload=.*)$", text, re.M)
        self.assertEqual(len(older), 2)
        self.assertEqual(self.verify(text.replace("Type=notify-reload", "\n".join(older))), "")
        shown = subprocess.run([ANALYZE, "--version"], capture_output=True, text=True, check=True)
        if int(shown.stdout.split()[1]) >= 253:
            self.assertEqual(self.verify(text), "")


def arguments(text: str) -> list[str]:
    """A container's: the lines of its list that are options."""
    return re.findall(r"^ +- (--\S+)", text, re.M)


class ContainerTests(SynchronousTestCase):
    def fits(self, told: Settings, seconds: str) -> None:
        """Whoever stops it waits until it has drained."""
        self.assertTrue(told.drain.timeout)
        self.assertGreaterEqual(parse_duration(seconds), told.drain.timeout + GOODBYES)

    def test_compose(self) -> None:
        """The gateway of the compose file is the one that HAProxy and Prometheus know, and each
        file that is mounted is there."""
        text = read("compose.yml")
        gateway, _, others = text.partition("  haproxy:\n")
        told = settings(*arguments(gateway), "--metrics-addr=127.0.0.1:9030")
        (comment,) = re.findall(r"^#   fastway (.*)$", read("haproxy.cfg"), re.M)
        known = settings(*shlex.split(comment))
        self.assertEqual(
            [(port.address, port.proxy_from) for port in told.ports],
            [(port.address, port.proxy_from) for port in known.ports],
        )
        (metrics,) = re.findall(r"FASTWAY_METRICS_ADDR: (\S+)", gateway)
        self.assertIn(f'["{metrics}"]', read("prometheus.yml"))
        (first,) = re.findall(r"stop_grace_period: (\w+)", gateway)
        self.fits(told, first)
        # HAProxy has to outlast the drain.
        (second,) = re.findall(r"stop_grace_period: (\w+)", others)
        self.assertGreater(parse_duration(second), parse_duration(first))
        mounted = re.findall(r"- \./(\S+?):", others)
        self.assertGreater(len(mounted), 5)
        for path in set(mounted) - {"certs"}:
            self.assertTrue(os.path.isfile(os.path.join(CHECKOUT, "deploy", path)), path)
        self.assertIn("url: http://127.0.0.1:9090", read("grafana", "datasource.yml"))
        (place,) = re.findall(r"path: (\S+)", read("grafana", "dashboards.yml"))
        self.assertIn(f"grafana.json:{place}/", others)

    def test_image(self) -> None:
        """The user and the run directory are the same wherever the image is used."""
        (user,) = re.findall(r"^USER (\d+):\1$", read("Dockerfile"), re.M)
        self.assertIn(f"/run/fastway:uid={user},gid={user}", read("compose.yml"))
        self.assertIn(f"runAsUser: {user}\n", read("kubernetes.yaml"))
        self.assertIn("readOnlyRootFilesystem: true", read("kubernetes.yaml"))
        self.assertIn("enableServiceLinks: false", read("kubernetes.yaml"))

    def test_kubernetes(self) -> None:
        """A pod's time to stop is enough for its drain, and whoever scrapes it finds its port."""
        text = read("kubernetes.yaml")
        told = settings(*arguments(text), "--server-auth-password=x")
        (seconds,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", text)
        self.fits(told, seconds)
        (port,) = re.findall(r"port: (\w+)", read("podmonitor.yaml"))
        self.assertIn(f"{{name: {port}, containerPort: 9030}}", text)
        self.assertIn('prometheus.io/port: "9030"', text)
        labels = re.findall(r"matchLabels: (\{.*\})", text + read("podmonitor.yaml"))
        self.assertEqual(set(labels), {"{app: fastway}"})
