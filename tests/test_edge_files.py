"""The configurations of proxies in deploy/, beside the gateway that they name.

Rule: what a file and code can tell is checked here; that they do what they should is for hands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from fastway.config import Settings
from fastway.config.values import parse_duration
from tests.support.files import CHECKOUT, scratch
from tests.support.options import settings
from tests.support.tls import make

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


def read(*path: str) -> str:
    with open(os.path.join(CHECKOUT, *path), encoding="utf-8") as file:
        return file.read()


def command(text: str) -> list[str]:
    """The arguments of the gateway that a file is for."""
    (found,) = re.findall(r"^#   fastway (.*)$", text, re.M)
    return shlex.split(found)


def page_commands() -> list[list[str]]:
    """The arguments of the gateways on the page that tells of these files."""
    text = read("docs", "edge.md").replace("\\\n", "")
    return [shlex.split(found) for found in re.findall(r"^    fastway (--.*)$", text, re.M)]


def seconds(text: str, name: str) -> set[float]:
    return {parse_duration(found) for found in re.findall(rf"^\s*{name}\s+(\w+)", text, re.M)}


class FileTests(SynchronousTestCase):
    """Each file names the ports of the gateway that is to run beside it."""

    def load(self, name: str) -> tuple[str, Settings]:
        text = read("deploy", name)
        arguments = command(text)
        self.assertIn(arguments, page_commands(), name)
        return text, settings(*arguments)

    def patient(self, told: Settings, found: set[float]) -> None:
        """An end that may be silent is not cut off before the gateway does."""
        idle = max(port.idle_timeout for port in told.ports)
        self.assertTrue(found)
        self.assertGreater(min(found), idle)

    def test_haproxy(self) -> None:
        """HAProxy reaches all ports, with a header, which is read of it."""
        text, told = self.load("haproxy.cfg")
        found = set(re.findall(r"^\s+server \S+ (\S+)$", text, re.M))
        self.assertEqual(found, {port.address for port in told.ports})
        self.assertEqual(len(told.ports), 3)
        for port in told.ports:
            self.assertIn("127.0.0.1", port.proxy_from)
        (default,) = re.findall(r"^\s+default-server (.*)$", text, re.M)
        self.assertIn("send-proxy-v2", default.split())
        self.patient(told, seconds(text, "timeout client") | seconds(text, "timeout server"))

    def test_nginx_stream(self) -> None:
        """nginx as a TCP proxy does, in version 1."""
        text, told = self.load("nginx-stream.conf")
        self.assertEqual(set(re.findall(r"proxy_pass (\S+);", text)), {told.client.address})
        self.assertIn("127.0.0.1", told.client.proxy_from)
        self.assertEqual(re.findall(r"proxy_protocol +(\w+);", text), ["on"])
        self.patient(told, seconds(text, "proxy_timeout"))

    def test_nginx_ws(self) -> None:
        """nginx as an HTTP proxy asks for the path, and is believed."""
        text, told = self.load("nginx-ws.conf")
        (web,) = told.websockets
        self.assertEqual(re.findall(r"proxy_pass http://(\S+);", text), [web.address])
        self.assertEqual(re.findall(r"location (\S+) ", text), [web.path])
        self.assertIn("127.0.0.1", web.proxies)
        self.assertIn("proxy_set_header X-Forwarded-For $remote_addr;", text)
        self.patient(told, seconds(text, "proxy_read_timeout"))

    def with_certificates(self, name: str, place: str) -> str:
        """A copy of a file that finds certificates; its path."""
        directory = scratch(self)
        ca = make("authority")
        own = make("localhost", ["localhost"], signer=ca)
        own.write(os.path.join(directory, "gateway.pem"))
        own.write(os.path.join(directory, "unused.pem"), os.path.join(directory, "gateway.key"))
        ca.save(directory, "servers-ca.pem")
        path = os.path.join(directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(read("deploy", name).replace(place, directory))
        return path

    def accepted(self, *arguments: str) -> None:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_haproxy_accepts(self) -> None:
        """HAProxy itself finds nothing wrong with its file."""
        path = self.with_certificates("haproxy.cfg", "/etc/haproxy/certs")
        assert HAPROXY is not None
        self.accepted(HAPROXY, "-c", "-q", "-f", path)

    def test_nginx_accepts(self) -> None:
        """nginx neither with its own."""
        assert NGINX is not None
        for name in ("nginx-stream.conf", "nginx-ws.conf"):
            path = self.with_certificates(name, "/etc/nginx/certs")
            pid = f"pid {os.path.dirname(path)}/nginx.pid;"
            self.accepted(NGINX, "-t", "-q", "-c", path, "-g", pid)

    if HAPROXY is None:
        test_haproxy_accepts.skip = "no haproxy"  # type: ignore[attr-defined]
    if NGINX is None or not os.path.exists(STREAM):
        test_nginx_accepts.skip = "no nginx with its module stream"  # type: ignore[attr-defined]
