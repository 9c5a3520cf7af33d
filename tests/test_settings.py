"""The tree of settings: every option in one field, with its type and where it was given."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from twisted.trial.unittest import SynchronousTestCase

from fastway.config import Settings, read
from fastway.config import settings as module
from fastway.config.memory import memory_size
from fastway.config.settings import Section, SnetSettings, WebSocketPortSettings
from fastway.config.table import BY_NAME
from fastway.errors import ConfigError
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch
from tests.support.options import settings

SNET = ("--client-snet-enable", "--server-snet-enable")
TLS = tuple(
    f"--{side}-tls-{rest}"
    for side in ("client", "server")
    for rest in ("cert=x", "client-ca=y", "client-auth=require")
)
WEB = (
    "--client-ws-addr=:0",
    "--client-wss-addr=:0",
    "--client-tls-cert=x",
    "--client-ws-origins=same,https://a",
    "--trusted-proxies=10.0.0.0/8 ::1 unix",
)
PROXY = ("--client-proxy-from=10.0.0.0/8, unix", "--client-proxy-others=direct")
DIRECT = ("--direct=a=:0->7", "--direct=b=wss+:0->8", "--client-tls-cert=x")
GIB = 2**30


def sections(told: Settings) -> Iterator[tuple[Section, str]]:
    """Every section with the side that it is of."""
    for item in dataclasses.fields(told):
        if item.name == "values":
            continue  # of which the sections are made
        found = getattr(told, item.name)
        for section in found if isinstance(found, tuple) else (found,):
            side = getattr(section, "side", "")
            yield section, side
            if getattr(section, "snet", None) is not None:
                yield section.snet, side
            if getattr(section, "tls", None) is not None:
                yield section.tls, side


def options_of(section: Section, side: str) -> dict[str, str]:
    """Field -> the option that makes it."""
    return {
        item.name: item.metadata["option"].format(side=side)
        for item in dataclasses.fields(section)
        if "option" in item.metadata
    }


def fits(value: object, kind: Any) -> bool:
    """The value is of the annotated type, exactly."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is type(None):
        return value is None
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(fits(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) in (Union, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    return type(value) is kind


class TreeTests(SynchronousTestCase):
    def test_every_option(self) -> None:
        """Every option makes at least one field, and no field names an option that is none."""
        made = set()
        for section, side in sections(settings(*SNET, *TLS, *WEB, *DIRECT)):
            made |= set(options_of(section, side).values())
        self.assertEqual(made, set(BY_NAME))

    def test_types(self) -> None:
        """Every field has the type that it says, whatever the operator wrote."""
        more = ("--memory-limit=1G", "--write-timeout=0")
        for arguments in ((), SNET, TLS, WEB, PROXY, DIRECT, more):
            for section, side in sections(settings(*arguments)):
                hints = get_type_hints(type(section), vars(module))
                for name in options_of(section, side):
                    self.assertTrue(fits(getattr(section, name), hints[name]), name)

    def test_values_arrive(self) -> None:
        """Each option reaches its own field, and where it was given comes with it."""
        texts = {
            "address": "127.0.0.1:9",
            "bool": "true",
            "flag": "true",
            "number": "77",
            "duration": "77s",
            "size": "77K",
            "size or share": "77M",
            "path": "some/where",
            "python module": "some",
            "text": "some",
            "path of a URL": "/some",
            "list of addresses": ":77",
            "list of origins": "https://some",
            "list of networks": "10.0.0.0/8",
            "list of networks with values": "10.0.0.0/8=1:2:3",
            "rate": "77",
            "list of ids": "7, 100-199",
            "id": "77",
            "list of ports": "some=:77->7",
            "list of hosts": "some",
            "list of protocols": "some",
        }
        for name, option in BY_NAME.items():
            text = option.words[-1] if option.words else texts[option.unit]
            more = {}
            for argument in (*SNET, *TLS):
                known, _, value = argument.removeprefix("--").partition("=")
                more[f"FASTWAY_{known.replace('-', '_').upper()}"] = value or "1"
            more["FASTWAY_CLIENT_WS_ADDR"] = ":0"
            more["FASTWAY_CLIENT_WSS_ADDR"] = ":0"
            more["FASTWAY_CLIENT_PROXY_FROM"] = more["FASTWAY_SERVER_PROXY_FROM"] = "::1"
            more["FASTWAY_DIRECT"] = "some=:0->1"
            more["FASTWAY_METRICS_ADDR"] = more["FASTWAY_ADMIN_ADDR"] = ":0"
            more["FASTWAY_ACCESS_LOG"] = "access.log"
            more["FASTWAY_TRUSTED_PROXIES"] = "::1"
            if name == "mem-pool-min-chunk":
                text = "64"
            environment = {**more, f"FASTWAY_{name.replace('-', '_').upper()}": text}
            expected = option.parse(text)
            found = 0
            for section, side in sections(settings(environment=environment)):
                for field, made_of in options_of(section, side).items():
                    if made_of == name:
                        made = getattr(section, field)
                        if made != expected and (made,) == expected:
                            made = expected  # each of several sections has one of them
                        self.assertEqual(
                            made, b"some" if name == "server-auth-password" else expected, name
                        )
                        where = f"FASTWAY_{name.replace('-', '_').upper()}"
                        self.assertEqual(section.where(field), where)
                        found += 1
            self.assertTrue(found, name)

    def test_where(self) -> None:
        """An option that was not given is spelled as on a command line; no field, no place."""
        told = settings("-ClientAddr=:1", "--log-file", "x")
        self.assertEqual(told.client.where("address"), "-ClientAddr")
        self.assertEqual(told.server.where("address"), "--server-addr")
        self.assertEqual(told.log.where("file"), "--log-file")
        raised(KeyError, told.log.where, "logfile")

    def test_frozen(self) -> None:
        """Nobody changes what the operator said."""
        told = settings()
        raised(dataclasses.FrozenInstanceError, setattr, told.client, "address", ":1")
        raised(dataclasses.FrozenInstanceError, setattr, told, "client", told.server)

    def test_key_is_not_shown(self) -> None:
        """The key does not show where settings are printed."""
        told = settings("--server-auth-key=geheim ü")
        self.assertEqual(told.server.key, "geheim ü".encode())
        self.assertNotIn("geheim", repr(told))

    def test_snet(self) -> None:
        """A port has snet's settings if it speaks snet, and its idle clients are cut in time."""
        self.assertIsNone(settings().client.snet)
        snet = settings("--client-snet-enable", "--client-snet-buffer=5K").client.snet
        assert snet is not None
        self.assertEqual((snet.buffer, snet.dead_after), (5120, 20.0))
        for idle, dead_after in (("15s", 10.0), ("0", 20.0), ("1h", 20.0)):
            snet = settings("--client-snet-enable", f"--client-idle-timeout={idle}").client.snet
            assert isinstance(snet, SnetSettings)
            self.assertEqual(snet.dead_after, dead_after)

    def test_paths(self) -> None:
        """Files are relative to the run directory, or there are none."""
        ops = settings("--run-dir=run/x", "--pid-file=/a/b.pid", "--command-file=").ops
        self.assertEqual((ops.pid_path, ops.command_path), ("/a/b.pid", ""))
        self.assertEqual(ops.answer_path, "run/x/fastway.answer")
        self.assertEqual(settings("--run-dir=run").ops.pid_path, "run/fastway.pid")

    def test_read(self) -> None:
        """`read` gives the settings of a command line and an environment."""
        told = read(["--max-packet=1K"], {"FASTWAY_MAX_CLIENTS": "3"})
        self.assertEqual((told.client.max_packet, told.client.max_links), (1024, 3))


class TogetherTests(SynchronousTestCase):
    """Options that are fine each, and do not go together."""

    def refused(self, *arguments: str) -> ConfigError:
        error = raised(ConfigError, settings, *arguments)
        self.assertNotIn("\n", str(error))
        return error

    def test_drain(self) -> None:
        """The steps of a drain fit into its time, that of a command too."""
        told = settings().drain
        self.assertEqual((told.timeout, told.limit, told.delay, told.grace), (0, 120, 5, 10))
        self.assertEqual(settings("--drain-timeout=15s").drain.limit, 15)
        for arguments, mend in (
            (("--drain-timeout=14s",), "are 15s together, and it is 14s; give more"),
            (("--drain-spread=2m",), "are 135s together, and it is 2m; give that more than"),
            (("--drain-timeout=1m", "--drain-grace=56s"), "are 61s together, and it is 1m"),
        ):
            error = self.refused(*arguments)
            self.assertEqual(error.option, "--drain-timeout")
            self.assertIn(f"drain-delay, drain-grace and drain-spread {mend}", str(error))

    def test_pool(self) -> None:
        """The pool's sizes fit into each other, with equal ones as the last that do."""
        for fits, too_much, option in (
            ("--mem-pool-min-chunk=64K", "--mem-pool-min-chunk=65K", "min-chunk"),
            ("--mem-pool-page-size=64K", "--mem-pool-page-size=63K", "page-size"),
            ("--mem-pool-limit=64K", "--mem-pool-limit=63K", "limit"),
        ):
            settings(fits)
            self.assertEqual(self.refused(too_much).option, f"--mem-pool-{option}")

    def test_plain(self) -> None:
        """The client port can be without TLS beside others that have it, and beside nothing."""
        given = "--client-addr=plain+127.0.0.1:9010", "--client-tls-cert=x"
        for other in ("--client-wss-addr=:0", "--direct=b=tls+:0->8", "--direct=b=wss+:0->8"):
            told = settings(*given, other)
            self.assertEqual(told.client.address, "127.0.0.1:9010")
            self.assertIsNone(told.client.tls)
            self.assertIsNotNone((*told.websockets, *told.direct)[0].tls)
        for others in ((), ("--client-ws-addr=:0",), ("--direct=b=:0->8",)):
            error = self.refused(*given, *others)
            self.assertEqual(error.option, "--client-addr")
            self.assertIn("nothing that speaks TLS", error.problem)
        self.assertEqual(settings(given[0]).client.address, "127.0.0.1:9010")

    def test_web_alone(self) -> None:
        """What only a port for web pages does is refused without one, unless it is the default."""
        settings("--client-ws-path=/", "--client-ws-origins=same", "--trusted-proxies=")
        for given in (
            "--client-ws-path=/x",
            "--client-ws-origins=*",
            "--trusted-proxies=10.0.0.0/8",
        ):
            error = self.refused(given)
            self.assertEqual(error.option, given.partition("=")[0])
            self.assertIn("--client-ws-addr", error.problem)
            settings(given, "--client-ws-addr=:0")

    def test_web_values(self) -> None:
        """Origins, paths and networks that are none are refused; those that are have one form."""
        for given in (
            "--client-ws-origins=",
            "--client-ws-origins=game.example",
            "--client-ws-origins=https://game.example/",
            "--client-ws-path=game",
            "--client-ws-path=",
            "--client-ws-path=/a?b",
            "--client-ws-path=/a b",
            "--client-ws-path=/a#b",
            "--trusted-proxies=10.0.0.1/8",
            "--trusted-proxies=localhost",
            "--trusted-proxies-header=x-real-ip",
            "--trusted-proxies-header=forwarded",
        ):
            self.assertEqual(self.refused(given, *WEB[:1]).option, given.partition("=")[0])
        told, _ = settings(*WEB, "--client-ws-path=/a%20b;c").websockets
        self.assertEqual((told.path, told.allowed), ("/a%20b;c", ("same", "https://a")))
        self.assertEqual([str(one) for one in told.proxies], ["10.0.0.0/8", "::1/128", "unix"])
        self.assertEqual(told.header, "x-forwarded-for")
        (told, _) = settings(*WEB, "--trusted-proxies-header=forwarded").websockets
        self.assertEqual(told.header, "forwarded")
        (wide,) = settings(WEB[0], "--client-ws-origins=HTTPS://A.b:443 null,*").websockets
        self.assertEqual(wide.allowed, ("https://a.b", "null", "*"))

    def test_proxies(self) -> None:
        """All ports of a side have its proxies; a list that is none, or others of none, is
        refused."""
        told = settings(*PROXY, *WEB)
        for port in (told.client, *told.websockets):
            self.assertEqual([str(one) for one in port.proxy_from], ["10.0.0.0/8", "unix"])
            self.assertEqual(port.proxy_others, "direct")
        self.assertEqual(
            (bool(told.server.proxy_from), told.server.proxy_others), (False, "refuse")
        )
        for side in ("client", "server"):
            for given in (
                f"--{side}-proxy-from=haproxy.example",
                f"--{side}-proxy-from=10.0.0.1/8",
                f"--{side}-proxy-from=10.0.0.0/33",
                f"--{side}-proxy-others=allow",
                f"--{side}-proxy-others=direct",
            ):
                self.assertEqual(self.refused(given).option, given.partition("=")[0])
            self.assertIn(
                "--server-proxy-from", self.refused("--server-proxy-others=direct").problem
            )
            settings(f"--{side}-proxy-from=", f"--{side}-proxy-others=refuse")

    def test_web_ports(self) -> None:
        """There are any number of ports for web pages; those inside TLS need a certificate."""
        told = settings(
            "--client-ws-addr=:80, :81", "--client-wss-addr=:443", "--client-tls-cert=x"
        )
        self.assertEqual(
            [(port.name, port.address, port.tls is not None) for port in told.websockets],
            [
                ("web client", ":80", False),
                ("web client 2", ":81", False),
                ("web client 3", ":443", True),
            ],
        )
        self.assertEqual(told.websockets[2].where("address"), "--client-wss-addr")
        error = self.refused("--client-wss-addr=:443")
        self.assertEqual(error.option, "--client-wss-addr")
        self.assertIn("--client-tls-cert", error.problem)

    def test_snet_inside(self) -> None:
        """Streams survive inside WebSocket on the ports that say so, with the client port's
        numbers, whether that speaks snet or not."""
        tls = "--client-tls-cert=x"
        told = settings("--client-ws-addr=:80 snet+:81", "--client-wss-addr=snet+:443", tls)
        self.assertEqual(
            [(port.address, port.snet is not None) for port in told.websockets],
            [(":80", False), (":81", True), (":443", True)],
        )
        self.assertIsNone(told.client.snet)
        inside = told.websockets[2].snet
        assert inside is not None
        self.assertEqual(inside.where("enable"), "--client-wss-addr snet+:443")
        self.assertEqual((inside.buffer, inside.dead_after), (32 * 1024, 20.0))
        for client in ("--client-addr=:9", "--client-addr=snet:tcp\\:9", "--client-snet-enable"):
            told = settings(
                "--client-ws-addr=snet+:81",
                client,
                "--client-snet-encrypt",
                "--client-snet-buffer=5K",
                "--client-idle-timeout=3s",
            )
            inside = told.websockets[0].snet
            assert inside is not None
            self.assertEqual((inside.encrypt, inside.buffer, inside.dead_after), (True, 5120, 2.0))
        error = self.refused("--client-ws-addr=snet+snet:tcp\\:81")
        self.assertEqual(error.option, "--client-ws-addr")
        self.assertIn("inside and outside", error.problem)
        error = self.refused(
            "--client-addr=snet:tcp\\:9", "--client-snet-enable", "--client-ws-addr=snet+:81"
        )
        self.assertEqual(error.option, "--client-snet-enable")
        # No web ports: as ever.
        self.assertIn("--client-snet-enable", self.refused("--client-snet-encrypt").problem)
        self.refused("--client-snet-encrypt", "--client-ws-addr=:80")

    def test_direct(self) -> None:
        """Direct ports from one text, an option given several times, or a file's array."""
        wanted = [
            ("direct web", ":80", 7, False, False),
            ("direct a-b_1", "[::1]:81", 0, True, False),
            ("direct c", "unix:/run/c", 2**32 - 1, False, True),
            ("direct d", "127.0.0.1:0", 8, True, True),
        ]
        texts = [
            "web=:80->7",
            "a-b_1=tls+[::1]:81->0",
            " c = ws+unix:/run/c -> 4294967295 ",
            "d=wss+127.0.0.1:0->8",
        ]
        path = os.path.join(scratch(self), "fastway.toml")
        with open(path, "w") as file:
            file.write(f"direct = {texts}\n")
        for arguments in (
            [f"--direct={','.join(texts)}"],
            [f"--direct={text}" for text in texts],
            ["--direct", ", ".join(texts[:2]), "-Direct", ",".join(texts[2:])],
            ["--config", path],
        ):
            told = settings("--client-tls-cert=x", *arguments)
            self.assertEqual(
                [
                    (
                        port.name,
                        port.address,
                        port.direct.server_id,
                        port.tls is not None,
                        isinstance(port, WebSocketPortSettings),
                    )
                    for port in told.direct
                ],
                wanted,
            )
            self.assertEqual(told.ports[2:], told.direct)
        self.assertEqual(settings().direct, ())
        self.assertEqual(
            settings("--direct=web=:80->7", environment={"FASTWAY_DIRECT": "b=:81->7"}).direct[0],
            settings("--direct=web=:80->7").direct[0],
        )
        (port,) = settings("--direct=a=:1->2", "--direct-send-buffer=3M").direct
        self.assertEqual((port.queue_bytes, port.queue_packets), (3 * 2**20, 2**31))
        self.assertEqual(port.where("address"), "--direct: a")

    def test_wrong_direct(self) -> None:
        """What is no direct port is one line, which says what would be."""
        for text, problem in (
            ("web", "NAME=ADDRESS->SERVER_ID"),
            ("web=:80", "NAME=ADDRESS->SERVER_ID"),
            (":80->7", "NAME=ADDRESS->SERVER_ID"),
            ("=:80->7", "no name of a port"),
            ("we b=:80->7", "no name of a port"),
            ("-web=:80->7", "no name of a port"),
            ("w" * 33 + "=:80->7", "no name of a port"),
            ("web=:80->", "web: '' is no server id"),
            ("web=:80->x", "web: 'x' is no server id"),
            ("web=:80->-1", "web: '-1' is no server id"),
            ("web=:80->4294967296", "is no server id: it is a number from 0 to 4294967295"),
            ("web=snet+:80->7", "web: 'snet' is nothing that a direct port speaks"),
            ("web=:80->7,web=:81->7", "two ports are called web"),
            (",".join(f"p{n}=:0->1" for n in range(201)), "up to 200"),
            ("web=tls+:80->7", "--client-tls-cert"),
            ("web=wss+:80->7", "--client-tls-dir"),
        ):
            with self.subTest(text=text):
                error = self.refused(f"--direct={text}")
                self.assertTrue(error.option.startswith("--direct"))
                self.assertIn(problem, error.problem)
        self.assertIn("called a", self.refused("--direct=a=:1->1", "--direct=a=:2->1").problem)

    def test_encrypt_alone(self) -> None:
        """Encryption that would not happen is refused, by the name that was given."""
        error = self.refused("-ServerSnetEncrypt")
        self.assertEqual(error.option, "-ServerSnetEncrypt")
        self.assertIn("--server-snet-enable", error.problem)
        settings("--server-snet-encrypt=false")

    def test_snet_twice(self) -> None:
        """Where the address has snet's settings no option may have others; the other port may."""
        address = "--client-addr=snet:tcp\\:0"
        self.assertIn("give it there", self.refused(address, "--client-snet-buffer=1K").problem)
        told = settings(address, "--server-snet-enable")
        self.assertIsNone(told.client.snet)
        self.assertIsNotNone(told.server.snet)


class LightTests(SynchronousTestCase):
    def test_imports(self) -> None:
        """Options and help load nothing of the gateway, and no reactor; -OO changes nothing."""
        script = (
            "import sys\n"
            "from fastway.cli.table import COMMANDS\n"
            "for command in COMMANDS: str(command.make_options())\n"
            "from fastway.config import read\n"
            "read(['--client-addr=:1'], {})\n"
            "loaded = [name for name in sys.modules if name.startswith('fastway')]\n"
            "print(' '.join(loaded), 'twisted.internet.reactor' in sys.modules)\n"
        )
        for switch in ("-B", "-OO"):
            done = subprocess.run(
                [sys.executable, switch, "-c", script],
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            *loaded, reactor = done.stdout.split()
            self.assertEqual(reactor, "False")
            heavy = ("service", "gateway", "router", "relay", "commands", "endpoint", "snet")
            tops = {name.split(".")[1] for name in loaded if "." in name}
            self.assertEqual(tops & set(heavy), set())


class MemoryLimitTests(SynchronousTestCase):
    def limit(self, *arguments: str, memory: int = 8 * GIB) -> tuple[int, float | None]:
        self.patch(module, "memory_size", lambda: memory)
        limits = settings(*arguments).limits
        return limits.memory_limit, limits.memory_share

    def test_default(self) -> None:
        """Without being told, a quarter of the memory; no limit where that is not known."""
        self.assertEqual(self.limit(), (2 * GIB, 0.25))
        self.assertEqual(self.limit(memory=0)[0], 0)

    def test_given(self) -> None:
        """A share is of the memory, a size is itself, 0 is no limit."""
        self.assertEqual(self.limit("--memory-limit=50%"), (4 * GIB, 0.5))
        self.assertEqual(self.limit("--memory-limit=100M"), (100 * 2**20, None))
        self.assertEqual(self.limit("--memory-limit=0"), (0, None))

    def test_unknown(self) -> None:
        """A share that was asked for is refused where the memory is not known."""
        error = raised(ConfigError, self.limit, "--memory-limit=50%", memory=0)
        self.assertEqual(error.option, "--memory-limit")
        self.assertIn("give a size", error.problem)


class MemoryTests(SynchronousTestCase):
    def size(self, files: Mapping[str, str]) -> int:
        """What is found in a file system with these files."""
        root = scratch(self)
        for path, text in files.items():
            place = os.path.join(root, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "w", encoding="utf-8") as file:
                file.write(text)
        return memory_size(root)

    def test_machine(self) -> None:
        """Without control groups it is the machine's memory."""
        self.assertEqual(self.size({}), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        self.assertGreater(memory_size(), 2**20)

    def test_version_2(self) -> None:
        """The least of the group's limit and of those above it; max is none."""
        group = {"proc/self/cgroup": "0::/kube/pod\n"}
        base = "sys/fs/cgroup"
        limited = {**group, f"{base}/kube/memory.max": "3000\n"}
        self.assertEqual(self.size({**limited, f"{base}/kube/pod/memory.max": "max\n"}), 3000)
        self.assertEqual(self.size({**limited, f"{base}/kube/pod/memory.max": "2000\n"}), 2000)
        self.assertEqual(self.size({**limited, f"{base}/memory.max": "1000\n"}), 1000)
        self.assertEqual(
            self.size({**group, f"{base}/kube/pod/memory.max": "max\n"}), self.size({})
        )

    def test_container(self) -> None:
        """In a container its own group is the top, whatever path the host calls it by."""
        for path in ("/", "/docker/0123", "/../../x"):
            self.assertEqual(
                self.size({"proc/self/cgroup": f"0::{path}\n", "sys/fs/cgroup/memory.max": "5"}), 5
            )

    def test_version_1(self) -> None:
        """The memory controller's limit, not another's; the kernel's "no limit" is none."""
        text = "12:cpu,cpuacct:/a\n9:memory:/a/b\n0::/\n"
        base = "sys/fs/cgroup/memory/a"
        self.assertEqual(
            self.size({"proc/self/cgroup": text, f"{base}/b/memory.limit_in_bytes": "4096\n"}),
            4096,
        )
        huge = "9223372036854771712\n"
        self.assertEqual(
            self.size({"proc/self/cgroup": text, f"{base}/memory.limit_in_bytes": huge}),
            self.size({}),
        )

    def test_nothing_told(self) -> None:
        """Where the system has no word for it the size is 0, which is unknown."""

        def unknown(name: str) -> int:
            raise ValueError(name)

        self.patch(os, "sysconf", unknown)
        self.assertEqual(self.size({}), 0)

    def test_garbage(self) -> None:
        """What cannot be understood counts for nothing."""
        for text in ("", "x", "0::", ":::", "1:memory"):
            files = {"proc/self/cgroup": text, "sys/fs/cgroup/memory.max": "-5\n"}
            self.assertEqual(self.size(files), self.size({}))
