"""The console command: its subcommands, help, `check`, the demo, and completion."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import fastway
from fastway.__main__ import main
from fastway.cli import completion
from fastway.cli.console import overview
from fastway.cli.table import BY_COMMAND, COMMANDS, SERVER_ADDR
from fastway.config.table import OPTIONS
from tests.support import forks
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch
from tests.support.options import LOOPBACK, settings
from tests.support.processes import PATIENCE, environment


class ConsoleTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        for variable in [name for name in os.environ if name.startswith("FASTWAY_")]:
            self.addCleanup(os.environ.__setitem__, variable, os.environ.pop(variable))

    def says(self, *arguments: str, status: int = 0) -> str:
        """What a command prints: on standard output if it went well, else its one error line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                found: Any = main(arguments)
            except SystemExit as end:
                found = end.code
        self.assertEqual(found, status, err.getvalue())
        if status:
            self.assertEqual(len(err.getvalue().splitlines()), 1, err.getvalue())
        else:
            self.assertEqual(err.getvalue(), "")
        return (err if status else out).getvalue().strip()

    def run_command(
        self, *arguments: str, switches: tuple[str, ...] = (), **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """A whole process."""
        return self.run_python(*switches, "-m", "fastway", *arguments, **settings)

    def run_python(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


class HelpTests(ConsoleTestCase):
    def test_overview(self) -> None:
        """--help, -h and help list every command with a few words, and no options."""
        for way in ("--help", "-h", "help"):
            self.assertEqual(self.says(way), overview())
        for command in COMMANDS:
            self.assertRegex(overview(), rf"(?m)^  {command.name} .*")
            self.assertIn(command.words.split()[-1], overview())
        self.assertNotIn("--client-addr", overview())
        self.assertLess(len(overview().splitlines()), 45)

    def test_every_command(self) -> None:
        """`help COMMAND`, `COMMAND --help` and `COMMAND -h` are the same, with all its options."""
        for command in COMMANDS:
            text = self.says("help", command.name)
            for way in ("--help", "-h"):
                self.assertEqual(self.says(command.name, way), text)
            self.assertTrue(text.startswith(f"Usage: fastway {command.name}"), text)
            for option in command.options.table:
                self.assertIn(f"--{option.name}", text)
            self.assertNotIn("\n:\n", text)  # options under no heading
            if any(name in ("MODULE:APP", "PEER", "[FILE]") for name in command.operands.split()):
                self.assertRegex(text, rf"\b{command.operands.strip('[]').rpartition(':')[2]} is ")

    def test_topics(self) -> None:
        """A gateway's options stand under their topics, in the table's order."""
        text = self.says("help", "run")
        for topic in {option.topic for option in OPTIONS}:
            self.assertEqual(text.count(f"\n{topic}:\n"), 1)
        names = re.findall(r"^  --([a-z0-9-]+)", text, re.MULTILINE)
        self.assertEqual([name for name in names if name != "config"], [o.name for o in OPTIONS])

    def test_demo_defaults(self) -> None:
        """The demo's help has the demo's addresses, not the gateway's."""
        text = " ".join(self.says("demo", "--help").split())
        self.assertIn("where game servers connect; port 0 = any free port [127.0.0.1:9020]", text)
        self.assertIn("[:0]", " ".join(self.says("run", "--help").split()))

    def test_after_options(self) -> None:
        """Help is given behind other options too, and -V is the version everywhere."""
        self.assertIn("--client-addr", self.says("--reuse-port", "--help"))
        for arguments in (
            ["-V"],
            ["--version"],
            ["version"],
            ["ping", "-V"],
            ["--reuse-port", "-V"],
        ):
            self.assertEqual(self.says(*arguments), f"fastway {fastway.__version__}")

    def test_typos(self) -> None:
        """A command that is none suggests the nearest, and ends with status 1."""
        for arguments in (["pin"], ["help", "pin"]):
            self.assertIn("no command 'pin' (did you mean ping?)", self.says(*arguments, status=1))
        self.assertIn("fastway --help lists them", self.says("xyzzy", status=1))

    def test_stray(self) -> None:
        """More words than a command takes, or fewer than it needs, are refused."""
        self.assertIn("'more' is not an option", self.says("check", "a", "more", status=1))
        self.assertIn("client|server: it is missing", self.says("kick", status=1))
        self.assertIn("ID: it is missing", self.says("kick", "client", status=1))
        self.assertIn("'fish' is neither bash nor zsh", self.says("completion", "fish", status=1))

    def test_bare(self) -> None:
        """Options without a command are those of a gateway; errors name what was typed."""
        for arguments in (["--client-adr=:1"], ["-ClientAdr=:1"]):
            line = self.says(*arguments, status=1)
            self.assertTrue(line.startswith(f"fastway: {arguments[0].partition('=')[0]}: "), line)
            line = self.says("run", *arguments, status=1)
            self.assertTrue(line.startswith("fastway run: "), line)

    def test_optimized(self) -> None:
        """It is the same without assertions and docstrings."""
        for switch in ("-O", "-OO"):
            done = self.run_command("help", "run", switches=(switch,))
            self.assertEqual(done.stdout.strip(), self.says("help", "run"))
            done = self.run_command("check", "--max-packet=1", switches=(switch,))
            self.assertIn("--max-packet: '1' is too small", done.stderr)

    def test_closed_pipe(self) -> None:
        """Whoever reads only the first line of a long help causes no noise."""
        script = f"{sys.executable} -m fastway help run | head -1"
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.stderr, "")


class CheckTests(ConsoleTestCase):
    def write(self, text: str) -> str:
        path = os.path.join(self.directory, "a.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'run-dir = "{self.directory}"\n{text}')
        return path

    def test_fine(self) -> None:
        """It says the ports, the path of packets, limits and files, and leaves no trace."""
        path = self.write(
            'memory-limit = "64M"\nlogfile = "gate.log"\npid-file = "gate.pid"\nrelay = "off"\n'
            '[client]\naddr = "127.0.0.1:0"\n'
            '[server]\naddr = "127.0.0.1:0"\nauth-key = "geheim"\n'
        )
        for arguments in ([path], ["--config", path], ["-c", path]):
            text = self.says("check", *arguments)
            for words in (
                "clients   127.0.0.1:0 (any free port)",
                "they prove a key",
                "the path of Python: --relay off",
                "64 MiB of what waits",
                os.path.join(self.directory, "gate.pid"),
                os.path.abspath("gate.log"),
                f"{path} can be used",
            ):
                self.assertIn(words, text)
            self.assertNotIn("geheim", text)
            self.assertNotIn("would not start", text)
        self.assertEqual(os.listdir(self.directory), ["a.toml"])

    def test_stop(self) -> None:
        """How a stop goes, and where the ends of connections are told."""
        path = self.write('client-addr = "127.0.0.1:0"\nserver-addr = "127.0.0.1:0"\n')
        self.assertIn("SIGTERM   at once, for everybody\n", self.says("check", path))
        text = self.says("check", path, "--drain-timeout=1m", "--access-log=/tmp/a.log")
        wanted = "drained, in 1m at most: ports are closed after 5s, clients lost from 15s on\n"
        self.assertIn(wanted, text)
        self.assertIn("ends of connections: /tmp/a.log, text\n", text)

    def test_secrets(self) -> None:
        """A key or a token in a file that everybody can read is told."""
        path = self.write('client-addr = "127.0.0.1:0"\n[server]\naddr = "127.0.0.1:0"\n')
        os.chmod(path, 0o644)
        self.assertNotIn("beware", self.says("check", path, "--server-auth-password=geheim"))
        with open(path, "a", encoding="utf-8") as file:
            file.write('auth_password = "geheim"\n')
        wrong = f"beware    everybody on this machine can read {path}, which has the server-auth-"
        self.assertIn(wrong, self.says("check", path))
        self.assertNotIn("beware", self.says("check", path, "--server-auth-password=another"))
        os.chmod(path, 0o640)
        self.assertNotIn("beware", self.says("check", path))
        token = os.path.join(self.directory, "token")
        with open(token, "w", encoding="ascii") as file:
            file.write("0123456789abcdef\n")
        admin = ("--admin-addr=127.0.0.1:0", f"--admin-token-file={token}")
        os.chmod(token, 0o604)
        wrong = f"{token}, which has the admin-token: chmod o-r {token}"
        self.assertIn(wrong, self.says("check", path, *admin))
        os.chmod(token, 0o600)
        self.assertNotIn("beware", self.says("check", path, *admin))

    def test_options_win(self) -> None:
        """Options beside the file are taken into account, as `run` would."""
        path = self.write('[client]\naddr = "127.0.0.1:7"\n[server]\naddr = "127.0.0.1:0"\n')
        self.assertIn("127.0.0.1:0 (any", self.says("check", path, "--client-addr=127.0.0.1:0"))
        text = self.says(
            "check", path, "--client-ws-addr=:0", "--client-ws-origins=same,https://a"
        )
        self.assertIn("web pages :0 (any free port); as many connections", text)
        self.assertIn("WebSocket, path /, for pages of the same host, https://a", text)

    def test_limits(self) -> None:
        """What limits who connects, where something does."""
        path = self.write('[client]\naddr = "127.0.0.1:0"\n[server]\naddr = "127.0.0.1:0"\n')
        self.assertNotIn("limits", self.says("check", path))
        text = self.says("check", path, "--limit-address-rate=10", "--limit-exempt=10.0.0.0/8,::1")
        self.assertIn("limits    address-rate=10, exempt=10.0.0.0/8,::1/128\n", text)

    def test_bad(self) -> None:
        """What `run` would refuse is refused by the place where it stands, with status 1."""
        for text, words in (
            ("[client]\nadr = 1", "client-adr: no such option (did you mean client-addr?)"),
            ('[server]\naddr = ":0"', "--server-auth-password: it is empty"),
            ('[client]\naddr = "nonsense"', "client-addr: 'nonsense' is not an address"),
            ('[client]\naddr = "nope:1:x"', "client-addr: 'nope:1:x'"),
            ('logfile = "missing/a.log"', "missing is not a directory"),
        ):
            if "[server]" not in text:
                text += '\n[server]\naddr = "127.0.0.1:0"'
            path = self.write(text)
            line = self.says("check", path, status=1)
            self.assertIn(words, line)
            self.assertTrue(line.startswith("fastway check: "), line)
        self.assertIn("cannot read nothing.toml", self.says("check", "nothing.toml", status=1))

    def test_taken_now(self) -> None:
        """A port that is in use now, by a gateway with that very file say, is only a note."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            busy = f"127.0.0.1:{sock.getsockname()[1]}"
            path = self.write(f'[client]\naddr = "{busy}"\n[server]\naddr = "127.0.0.1:0"\n')
            text = self.says("check", path)
        self.assertIn(f"it would not start: {path}: client-addr: cannot listen on {busy}", text)
        self.assertIn("can be used", text)


class DemoTests(ConsoleTestCase):
    def test_hint(self) -> None:
        """It says how to talk to it: with the port that it got, on loopback, and no make."""
        for address in ("127.0.0.1:0", ":0"):
            process = subprocess.Popen(
                [
                    *(*forks.python(), "-m", "fastway", "demo", "--pid-file="),
                    *(f"--client-addr={address}", "--server-addr=127.0.0.1:0"),
                    *("--client-ws-addr=127.0.0.1:0", "--page-addr=127.0.0.1:0"),
                    "--admin-addr=127.0.0.1:0",
                ],
                cwd=self.directory,
                env=environment({}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            with process.stdout:
                lines = [process.stdout.readline() for _ in range(7)]
                found = re.search(r"clients connect to (127\.0\.0\.1:[1-9]\d*),", lines[1])
                self.assertTrue(found, lines)
                assert found is not None
                self.assertRegex(lines[3], r"in a browser.*: http://127\.0\.0\.1:[1-9]\d*/\n")
                self.assertRegex(lines[4], r": http://127\.0\.0\.1:[1-9]\d*/#token=[0-9a-f]{32}\n")
                self.assertTrue(lines[5].endswith(f" play --gateway {found[1]}\n"), lines)
                self.assertNotIn("make", lines[5])
                played = subprocess.run(
                    [*forks.python(), "-m", "fastway", "play", "--gateway", found[1]],
                    cwd=self.directory,
                    env=environment({}),
                    input="/who\n/quit\n",
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                self.assertEqual(played.returncode, 0, played.stderr)
                self.assertIn("* in the room: nobody", played.stdout)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(PATIENCE), 0)

    def test_sources(self) -> None:
        """The demo's addresses are only defaults: the environment and the file win over them."""
        options = BY_COMMAND["demo"].make_options()
        os.environ["FASTWAY_CLIENT_ADDR"] = "127.0.0.1:7"
        self.addCleanup(os.environ.pop, "FASTWAY_CLIENT_ADDR")
        options.parseOptions([])
        self.assertEqual(options["client-addr"], "127.0.0.1:7")
        self.assertEqual(options["server-addr"], SERVER_ADDR)

    def test_refusals(self) -> None:
        """A server port that the demo server cannot reach over plain TCP is refused by name."""
        for arguments in (["--server-addr=tcp:0:interface=127.0.0.1"], ["--server-snet-enable"]):
            more = [f"--run-dir={self.directory}", "--client-addr=127.0.0.1:0"]
            more += ["--client-ws-addr=127.0.0.1:0", "--page-addr=127.0.0.1:0"]
            more += ["--admin-addr=127.0.0.1:0"]
            line = self.says("demo", *more, *arguments, status=1)
            option = arguments[0].partition("=")[0]
            self.assertTrue(line.startswith(f"fastway demo: {option}: the demo server"), line)

    def test_page_refusals(self) -> None:
        """An address that the page cannot have is one line, with the option's name."""
        ports = [f"--{name}-addr=127.0.0.1:0" for name in ("client", "server", "client-ws")]
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            busy = f"127.0.0.1:{sock.getsockname()[1]}"
            for address, problem in (
                (busy, f"cannot listen on {busy}"),
                ("tcp:0", "give host:port"),
                ("127.0.0.1:99999", "127.0.0.1:99999"),
            ):
                line = self.says("demo", *ports, f"--page-addr={address}", status=1)
                self.assertTrue(line.startswith("fastway demo: --page-addr: "), line)
                self.assertIn(problem, line)


class InterruptTests(ConsoleTestCase):
    """Ctrl-C before the reactor runs."""

    BEFORE = """
import runpy, signal, sys
_, when, way, *arguments = sys.argv

class Finder:
    def find_spec(name, *_):
        if name == when:
            signal.raise_signal(signal.SIGINT)

sys.argv = ["fastway", *arguments]
sys.meta_path.insert(0, Finder)
if way == "-m":
    runpy.run_module("fastway", run_name="__main__", alter_sys=True)
else:
    from fastway.__main__ import main
    sys.exit(main())
"""

    def test_while_it_loads(self) -> None:
        """It is one line and status 1, whatever is being imported, and both ways to start it."""
        for when, way, *arguments in (
            ("fastway.cli.interrupts", "-m", "run"),
            ("fastway.cli.table", "-m", "status", "--pid=1"),
            ("fastway.config.settings", "script", "--help"),
            ("twisted.internet.defer", "script", "serve", "chat:app"),
            ("fastway.service", "-m", "check"),
            ("fastway.router", "script"),
        ):
            done = self.run_python("-c", self.BEFORE, when, way, *arguments)
            command = [one for one in arguments[:1] if one[0] != "-"]
            self.assertEqual(done.stderr, f"{' '.join(['fastway', *command])}: interrupted\n")
            self.assertEqual((done.returncode, done.stdout), (1, ""))

    def test_not_to_be_swallowed(self) -> None:
        """Also where an import passes over all exceptions, as Python itself does in callbacks."""
        module = os.path.join(self.directory, "deaf.py")
        with open(module, "w") as file:
            file.write("import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\n")
            file.write("except BaseException:\n    pass\n")
        done = self.run_command("describe", "deaf:app")
        self.assertEqual(done.stderr, "fastway describe: interrupted\n")
        self.assertEqual(done.returncode, 1)

    def test_while_a_gateway_starts(self) -> None:
        """It stops as soon as it runs: nothing of its start can lose that."""
        deaf = """
import gc, signal, sys
from fastway.__main__ import main

def collected(phase, _):
    if len(gc.callbacks) > 1:
        gc.callbacks.remove(collected)
        signal.raise_signal(signal.SIGINT)

gc.callbacks.append(collected)
sys.exit(main())
"""
        arguments = [f"--{side}-addr=127.0.0.1:0" for side in ("client", "server")]
        done = self.run_python("-c", deaf, *arguments, "--log-level=warn")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_in_process(self) -> None:
        """What calls `main` has its own handler of SIGINT back, and keeps one of another kind."""
        before = signal.getsignal(signal.SIGINT)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        for handler in (signal.default_int_handler, signal.SIG_IGN):
            signal.signal(signal.SIGINT, handler)
            self.says("version")
            self.assertIs(signal.getsignal(signal.SIGINT), handler)


class CompletionTests(ConsoleTestCase):
    def complete(self, *words: str) -> list[str]:
        """What bash offers for the last of these words."""
        script = (
            f"{completion.bash()}\n"
            f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}\n"
            '_fastway; printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash(self) -> None:
        """bash offers commands, options, the words that a value may be, and files."""
        with open(os.path.join(self.directory, "gate.toml"), "wb"):
            pass
        for words, offered in (
            (["fastway", "pi"], ["ping"]),
            (["fastway", ""], [command.name for command in COMMANDS]),
            (["fastway", "--client-ad"], ["--client-addr"]),
            (["fastway", "run", "--reuse-port", "--client-ad"], ["--client-addr"]),
            (["fastway", "run", "--log-level", "de"], ["debug"]),
            (["fastway", "run", "--log-level", "=", "de"], ["debug"]),
            (["fastway", "run", "--relay", "="], ["auto", "on", "off"]),
            (["fastway", "run", "--config", "ga"], ["gate.toml"]),
            (["fastway", "check", "ga"], ["gate.toml"]),
            (["fastway", "check", "--client-addr", ""], []),
            (["fastway", "kick", "s"], ["server"]),
            (["fastway", "help", "se"], ["serve-echo", "serve"]),
            (["fastway", "ping", "--c"], ["--count"]),
            (["fastway", "completion", ""], ["bash", "zsh"]),
            (["fastway", "nonsense", "-"], []),
        ):
            self.assertEqual(self.complete(*words), offered, words)

    def test_every_option(self) -> None:
        """Both scripts have every option of every command."""
        for script in (self.says("completion", "bash"), self.says("completion", "zsh")):
            for command in COMMANDS:
                case = script.partition(f"\n        {command.name})\n")[2].partition(";;\n    ")[0]
                self.assertTrue(case, command.name)
                for option in command.options.table:
                    self.assertIn(f"--{option.name}", script)

    def test_zsh(self) -> None:
        """zsh takes its script without a complaint, and completes with it."""
        script = (
            "autoload -U compinit; compinit -u -d dump\n"
            f"source <({sys.executable} -m fastway completion zsh)\n"
            "_describe() { print -l -- ${(P)4} }; _arguments() { print -l -- $@ }\n"
            "offer() { words=($@); CURRENT=$#; PREFIX=$@[-1]; _fastway }\n"
            "offer fastway p; echo %%%; offer fastway ping --c; echo %%%; offer fastway --cl\n"
        )
        done = subprocess.run(
            ["zsh", "-f", "-c", script],
            cwd=self.directory,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        commands, ping, run = done.stdout.split("%%%\n")
        self.assertIn("ping:measure round trips to a gateway", commands.splitlines())
        self.assertIn("--count=[how many; 0 = until Ctrl-C]:number: ", ping.splitlines())
        self.assertIn("--relay=", run)
        self.assertNotIn("--relay=", ping)

    if shutil.which("zsh") is None:
        test_zsh.skip = "there is no zsh"  # type: ignore[attr-defined]


class CheckoutTests(ConsoleTestCase):
    def test_make_play(self) -> None:
        """`make play` is suggested in the checkout only."""
        from fastway.cli.gateway import in_checkout

        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(CHECKOUT)
        self.assertIs(in_checkout(), os.path.exists("Makefile"))
        os.chdir(self.directory)
        self.assertIs(in_checkout(), False)

    def test_how_to_play(self) -> None:
        """The suggestion fits the client port: its address, and snet if it speaks that."""
        from twisted.internet.task import Clock

        from fastway.cli.gateway import how_to_play
        from fastway.cli.tools import gateway_endpoint
        from fastway.service import GatewayService

        self.patch(sys, "argv", ["__main__.py"])
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        play = "python -m fastway play"
        for clients, arguments, expected in (
            ("127.0.0.1:9010", (), play),
            ("127.0.0.1:7", (), f"{play} --gateway 127.0.0.1:7"),
            (
                "127.0.0.1:9010",
                ("--client-snet-enable",),
                rf"{play} --gateway 'snet:tcp\:127.0.0.1\:9010'",
            ),
            (
                "[::1]:7",
                ("--client-snet-enable", "--client-snet-encrypt"),
                rf"{play} --gateway 'snet:tcp\:\\\:\\\:1\:7:encrypt=true'",
            ),
            ("tcp:7", ("--client-addr=tcp:7",), f"{play} --gateway ENDPOINT"),
        ):
            service = GatewayService(settings(*LOOPBACK, "--pid-file=", *arguments), Clock())
            self.assertEqual(how_to_play(service, clients), expected)
            _, given, endpoint = expected.partition(" --gateway ")
            if given and endpoint != "ENDPOINT":
                gateway_endpoint(Clock(), "--gateway", endpoint.strip("'"))

    def test_this_command(self) -> None:
        """A command that is not on PATH is suggested by its path."""
        from fastway.cli.gateway import this_command

        path = os.path.join(self.directory, "fastway")
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o755)
        self.patch(os, "environ", {**os.environ, "PATH": "/nonexistent"})
        self.patch(sys, "argv", [path])
        self.assertEqual(this_command(), path)
        os.environ["PATH"] = self.directory
        self.assertEqual(this_command(), "fastway")
        self.patch(sys, "argv", ["/x/__main__.py"])
        self.assertEqual(this_command(), "python -m fastway")
        raised(SystemExit, main, ["--version"])
