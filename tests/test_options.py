"""Every option, its units, and the places it comes from."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import ConfigError
from fastway.options import (
    BY_NAME,
    OPTIONS,
    GatewayOptions,
    at_least,
    closest,
    from_environment,
    kebab,
    normalise,
    one_of,
    parse_bool,
    parse_duration,
    parse_int,
    parse_size,
    resolve_name,
)
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.options import parsed

# Spec sections 5 and 8, and what the project adds beyond them: name -> value without any setting.
ORIGINAL: dict[str, tuple[str, Any]] = {
    "ReusePort": ("reuse-port", False),
    "MaxPacket": ("max-packet", 512 * 1024),
    "MemPoolType": ("mem-pool-type", "atom"),
    "MemPoolFactor": ("mem-pool-factor", 2),
    "MemPoolMinChunk": ("mem-pool-min-chunk", 64),
    "MemPoolMaxChunk": ("mem-pool-max-chunk", 64 * 1024),
    "MemPoolPageSize": ("mem-pool-page-size", 1024 * 1024),
    "ClientAddr": ("client-addr", ":0"),
    "ServerAddr": ("server-addr", ":0"),
    "ClientMaxConn": ("client-max-conn", 16),
    "ClientBufferSize": ("client-buffer-size", 2 * 1024),
    "ServerBufferSize": ("server-buffer-size", 64 * 1024),
    "ClientIdleTimeout": ("client-idle-timeout", 30.0),
    "ServerIdleTimeout": ("server-idle-timeout", 30.0),
    "ClientSendChanSize": ("client-send-chan-size", 1000),
    "ServerSendChanSize": ("server-send-chan-size", 100_000),
    "ClientSnetEnable": ("client-snet-enable", False),
    "ServerSnetEnable": ("server-snet-enable", False),
    "ClientSnetEncrypt": ("client-snet-encrypt", False),
    "ServerSnetEncrypt": ("server-snet-encrypt", False),
    "ClientSnetBuffer": ("client-snet-buffer", 32 * 1024),
    "ServerSnetBuffer": ("server-snet-buffer", 1024 * 1024),
    "ClientSnetInitTimeout": ("client-snet-init-timeout", 10.0),
    "ServerSnetInitTimeout": ("server-snet-init-timeout", 10.0),
    "ClientSnetWaitTimeout": ("client-snet-wait-timeout", 60.0),
    "ServerSnetWaitTimeout": ("server-snet-wait-timeout", 60.0),
    "ServerAuthPassword": ("server-auth-password", ""),
}
ADDED: dict[str, Any] = {
    "client-send-buffer": 4 * 1024 * 1024,
    "server-send-buffer": 64 * 1024 * 1024,
    "write-timeout": 30.0,
    "server-id-conflict": "replace",
    "allow-empty-key": False,
    "pid-file": "fastway.pid",
    "command-file": "fastway.cmd",
    "run-dir": ".",
}


class SizeTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A size is bytes, or a number with K, M or G, each 1024 of the one before."""
        for text, size in (
            ("0", 0),
            ("64", 64),
            ("64B", 64),
            ("512K", 524288),
            ("512k", 524288),
            ("1M", 1048576),
            ("1 MiB", 1048576),
            ("2G", 2147483648),
            (" 7KB ", 7168),
        ):
            self.assertEqual(parse_size(text), size, text)

    def test_bad(self) -> None:
        """What is no size is refused with its text and what would be right."""
        for text in ("", "K", "-1", "1.5M", "1T", "1K1", "1 2", "0x10", "ten", "9" * 5000):
            raised(ValueError, parse_size, text)
        problem = str(raised(ValueError, parse_size, "ten"))
        self.assertIn("'ten'", problem)
        self.assertIn("K, M or G", problem)

    @given(st.integers(0, 2**40), st.sampled_from([("", 0), ("K", 10), ("M", 20), ("G", 30)]))
    def test_round_trip(self, number: int, unit: tuple[str, int]) -> None:
        """Every number with every unit is understood as that many bytes."""
        name, shift = unit
        self.assertEqual(parse_size(f"{number}{name}"), number << shift)

    @given(st.text(max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a size of at least 0 or a ValueError."""
        with contextlib.suppress(ValueError):
            self.assertGreaterEqual(parse_size(text), 0)


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A duration is seconds, or a chain of numbers with h, m, s, ms and us."""
        for text, seconds in (
            ("0", 0.0),
            ("30", 30.0),
            ("2.5", 2.5),
            (".5", 0.5),
            ("30s", 30.0),
            ("1m30s", 90.0),
            ("1h1m1s", 3661.0),
            ("500ms", 0.5),
            ("1.5s", 1.5),
            ("250us", 0.00025),
            (" 10s ", 10.0),
        ):
            self.assertAlmostEqual(parse_duration(text), seconds, msg=text)

    def test_bad(self) -> None:
        """What is no duration is refused with its text and what would be right."""
        for text in ("", "s", "-1", "-1s", "30x", "30 s", "s30", "1m30", "1e3", "inf", "nan"):
            raised(ValueError, parse_duration, text)
        problem = str(raised(ValueError, parse_duration, "soon"))
        self.assertIn("'soon'", problem)
        self.assertIn("1m30s", problem)

    def test_finite(self) -> None:
        """A number too large to be a time is refused, not taken for infinity."""
        for text in ("9" * 400, "9" * 400 + "s"):
            raised(ValueError, parse_duration, text)

    @given(st.integers(0, 999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
    def test_round_trip(self, hours: int, minutes: int, seconds: int, millis: int) -> None:
        """What is written with all units is understood as their sum."""
        self.assertAlmostEqual(
            parse_duration(f"{hours}h{minutes}m{seconds}s{millis}ms"),
            hours * 3600 + minutes * 60 + seconds + millis / 1000,
        )

    @given(st.text(alphabet="0123456789.hmsu ", max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a duration of at least 0 or a ValueError."""
        with contextlib.suppress(ValueError):
            self.assertGreaterEqual(parse_duration(text), 0)


class OtherUnitTests(SynchronousTestCase):
    def test_flags(self) -> None:
        """true, yes, on, 1 and their opposites, in any case; nothing else."""
        for text in ("true", "Yes", "ON", "1", " true "):
            self.assertIs(parse_bool(text), True)
        for text in ("false", "No", "OFF", "0"):
            self.assertIs(parse_bool(text), False)
        for text in ("", "2", "maybe", "tru"):
            raised(ValueError, parse_bool, text)

    def test_numbers(self) -> None:
        """A whole number, and nothing else."""
        self.assertEqual(parse_int("100000"), 100_000)
        for text in ("", "1.5", "many", "1K"):
            self.assertIn("whole number", str(raised(ValueError, parse_int, text)))

    def test_at_least(self) -> None:
        """The bound itself is accepted, one less is not, and 0 only where it has a meaning."""
        bounded = at_least(parse_int, 5)
        self.assertIn("at least 5", str(raised(ValueError, bounded, "4")))
        self.assertEqual([bounded("5"), bounded("6")], [5, 6])
        raised(ValueError, bounded, "0")
        with_zero = at_least(parse_int, 5, "never")
        self.assertEqual(with_zero("0"), 0)
        self.assertIn("0 for never", str(raised(ValueError, with_zero, "4")))

    def test_one_of(self) -> None:
        """One of the words; the refusal lists them."""
        choose = one_of("replace", "evict")
        self.assertEqual(choose("evict"), "evict")
        problem = str(raised(ValueError, choose, "Evict"))
        self.assertIn("'Evict'", problem)
        self.assertIn("replace, evict", problem)


class TableTests(SynchronousTestCase):
    def test_spec_options(self) -> None:
        """Every option of the original is there in kebab-case, with the original's default."""
        options = parsed()
        for original, (name, default) in ORIGINAL.items():
            self.assertEqual(kebab(original), name)
            self.assertEqual(options[name], default, name)
            self.assertIs(type(options[name]), type(default), name)

    def test_added_options(self) -> None:
        """Every option that this project adds is there with its default."""
        options = parsed()
        for name, default in ADDED.items():
            self.assertEqual(options[name], default, name)
            self.assertIs(type(options[name]), type(default), name)

    def test_project_options(self) -> None:
        """The options of process and log default to text at info on the console, without bounds
        on connections beyond the spec's."""
        options = parsed()
        expected = {
            "client-max-total": 1024,
            "client-snet-max-waiting": 10_000,
            "server-snet-max-waiting": 1000,
            "client-snet-max-handshakes": 1000,
            "server-snet-max-handshakes": 1000,
            "max-clients": 0,
            "max-servers": 0,
            "commands-module": "",
            "logfile": "",
            "log-format": "text",
            "log-level": "info",
            "relay": "auto",
            "mem-pool-limit": 0,
        }
        for name, default in expected.items():
            self.assertEqual(options[name], default, name)
        known = {name for name, _ in ORIGINAL.values()} | set(ADDED) | set(expected)
        self.assertEqual({option.name for option in OPTIONS}, known)

    def test_help_names_everything(self) -> None:
        """--help lists every option with its default and its unit, and --config."""
        text = " ".join(str(GatewayOptions()).split())
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", text)
            if not option.is_flag:
                self.assertIn(option.default or "empty", text)
        self.assertIn("--config", text)
        self.assertIn("--server-auth-key", text)
        self.assertEqual(len(BY_NAME), len(OPTIONS))

    def test_limits(self) -> None:
        """The least legal value of each bounded option is accepted, one less is refused."""
        for name, low, below in (
            ("max-packet", "16", "15"),
            ("client-buffer-size", "64", "63"),
            ("server-buffer-size", "64", "63"),
            ("client-send-chan-size", "1", "0"),
            ("server-send-chan-size", "1", "0"),
            ("client-send-buffer", "1", "0"),
            ("server-send-buffer", "1", "0"),
            ("client-idle-timeout", "100ms", "99ms"),
            ("server-idle-timeout", "100ms", "99ms"),
            ("write-timeout", "0.1", "0.09"),
            ("client-max-conn", "0", "-1"),
            ("client-max-total", "0", "-1"),
            ("max-clients", "0", "-1"),
            ("max-servers", "0", "-1"),
        ):
            parsed(f"--{name}={low}")
            error = raised(ConfigError, parsed, f"--{name}={below}")
            self.assertEqual(error.option, f"--{name}")
            self.assertIn("too small", error.problem)

    def test_zero_timeouts(self) -> None:
        """0 turns a timeout off."""
        for name in ("client-idle-timeout", "server-idle-timeout", "write-timeout"):
            self.assertEqual(parsed(f"--{name}=0")[name], 0.0)

    def test_words(self) -> None:
        """Each word of a choice is accepted, another is refused with the list."""
        for name, words in (
            ("server-id-conflict", ("replace", "evict", "reject")),
            ("log-format", ("text", "json")),
            ("log-level", ("debug", "info", "warn", "error", "critical")),
        ):
            for word in words:
                self.assertEqual(parsed(f"--{name}", word)[name], word)
            error = raised(ConfigError, parsed, f"--{name}", "other")
            self.assertIn(", ".join(words), error.problem)


class CommandLineTests(SynchronousTestCase):
    def refused(self, *arguments: str) -> ConfigError:
        """The refusal of a command line: one line that says what option it is about."""
        error = raised(ConfigError, parsed, *arguments)
        self.assertNotIn("\n", str(error))
        self.assertTrue(str(error).startswith(f"{error.option}: "), str(error))
        return error

    def test_values(self) -> None:
        """`--name value` and `--name=value` are the same, and units are understood."""
        for arguments in (
            ("--client-idle-timeout", "1m30s", "--max-packet", "1M"),
            ("--client-idle-timeout=1m30s", "--max-packet=1M"),
        ):
            options = parsed(*arguments)
            self.assertEqual(options["client-idle-timeout"], 90.0)
            self.assertEqual(options["max-packet"], 1048576)

    def test_last_wins(self) -> None:
        """Of the same option given twice the last counts."""
        self.assertEqual(parsed("--max-packet=1K", "--max-packet=2K")["max-packet"], 2048)

    def test_key_alias(self) -> None:
        """--server-auth-key is another name of --server-auth-password, everywhere."""
        self.assertEqual(parsed("--server-auth-key", "k")["server-auth-password"], "k")
        self.assertEqual(parsed("--server-auth-key=k")["server-auth-password"], "k")
        self.assertEqual(parsed("-ServerAuthKey=k")["server-auth-password"], "k")
        self.assertEqual(parsed("-ServerAuthPassword=k")["server-auth-password"], "k")
        options = parsed(environment={"FASTWAY_SERVER_AUTH_KEY": "k"})
        self.assertEqual(options["server-auth-password"], "k")

    def test_logfile_alias(self) -> None:
        """--log-file is another name of --logfile, on the command line as in the environment."""
        options = parsed(environment={"FASTWAY_LOG_FILE": "a.log"})
        self.assertEqual(options["logfile"], "a.log")
        self.assertEqual(parsed("--log-file", "a.log")["logfile"], "a.log")

    def test_flags(self) -> None:
        """A flag is on when named, and takes =true and =false."""
        for arguments, value in (
            ((), False),
            (("--reuse-port",), True),
            (("--reuse-port=true",), True),
            (("--reuse-port=yes",), True),
            (("--reuse-port=false",), False),
            (("--reuse-port=0",), False),
            (("--reuse-port=false", "--reuse-port=true"), True),
            (("--reuse-port=false", "--reuse-port"), True),
            (("--reuse-port=true", "--reuse-port=false"), False),
            (("--reuse-port", "--reuse-port=false"), False),
        ):
            self.assertIs(parsed(*arguments)["reuse-port"], value, str(arguments))
        self.assertEqual(self.refused("--reuse-port=maybe").option, "--reuse-port")

    def test_original_spelling(self) -> None:
        """A command line of the original works as it is."""
        options = parsed(
            "-ClientAddr=:9000",
            "--ServerAddr=127.0.0.1:9001",
            "-ClientMaxConn=8",
            "-ServerAuthPassword=a=b",
            "-ReusePort=true",
            "-ClientIdleTimeout",
            "1m",
        )
        self.assertEqual(options["client-addr"], ":9000")
        self.assertEqual(options["server-addr"], "127.0.0.1:9001")
        self.assertEqual(options["client-max-conn"], 8)
        self.assertEqual(options["server-auth-password"], "a=b")
        self.assertIs(options["reuse-port"], True)
        self.assertEqual(options["client-idle-timeout"], 60.0)
        self.assertIs(parsed("-ReusePort")["reuse-port"], True)
        self.assertIs(parsed("-ReusePort=false")["reuse-port"], False)

    def test_every_original_name(self) -> None:
        """Each of the original's names is rewritten to ours, with its value untouched."""
        for original, (name, default) in ORIGINAL.items():
            if default is False:
                continue
            rewritten, off = normalise([f"-{original}=A b=c"])
            self.assertEqual((rewritten, off), ([f"--{name}=A b=c"], set()))

    def test_unknown_original(self) -> None:
        """A misspelt option in the original's spelling is refused by the name that was typed."""
        error = self.refused("-ClientAdr=:9000")
        self.assertIn("ClientAdr", error.option)

    def test_value_is_no_option(self) -> None:
        """A value that looks like an option is left alone, with `=` and without."""
        for arguments in (
            ("--server-auth-key=-ReusePort=true",),
            ("--server-auth-key", "-ReusePort=true"),
            ("-ServerAuthKey", "-ReusePort=true"),
        ):
            self.assertEqual(parsed(*arguments)["server-auth-password"], "-ReusePort=true")
        self.assertEqual(
            parsed("--server-auth-password", "-Secret")["server-auth-password"], "-Secret"
        )

    def test_unknown(self) -> None:
        """An unknown option is refused by name, with the nearest that exists."""
        error = self.refused("--client-adr", ":9000")
        self.assertEqual(error.option, "--client-adr")
        self.assertIn("did you mean --client-addr?", error.problem)
        self.assertNotIn("did you mean", self.refused("--xyzzy").problem)
        self.assertEqual(self.refused("-z").option, "-z")

    def test_suggestion_works(self) -> None:
        """What a refusal suggests is accepted when it is typed."""
        for typo in ("--client-addrr", "--log-fle", "--logfil", "--server-auth-kei", "--confg"):
            error: Exception | None = None
            try:
                parsed(typo, "x")
            except ConfigError as refused:
                error = refused
            if error is None:
                continue  # an abbreviation
            near = str(error).partition("did you mean ")[2].partition("?")[0]
            with self.subTest(suggested=near):
                try:
                    parsed(near, "x")
                except ConfigError as refused:
                    self.assertNotIn("no such option", str(refused))

    def test_missing_value(self) -> None:
        """An option at the end without its value is refused by name."""
        error = self.refused("--client-addr")
        self.assertEqual((error.option, error.problem), ("--client-addr", "needs a value"))

    def test_stray_argument(self) -> None:
        """A word that is no option is refused."""
        self.assertIn("'start'", str(self.refused("start")))

    def test_ambiguous(self) -> None:
        """An abbreviation of several options is refused."""
        self.assertIn("client-max", str(self.refused("--client-max", "1")))

    def test_bad_value(self) -> None:
        """A value that cannot be used is refused by the option's name and with the value."""
        for name, text in (
            ("max-packet", "big"),
            ("client-idle-timeout", "soon"),
            ("client-max-conn", "many"),
        ):
            error = self.refused(f"--{name}", text)
            self.assertEqual(error.option, f"--{name}")
            self.assertIn(repr(text), error.problem)

    def test_given(self) -> None:
        """`given` holds what was set, and where."""
        options = parsed("--client-addr=:1", environment={"FASTWAY_SERVER_ADDR": ":2"})
        self.assertEqual(
            options.given,
            {"client-addr": ("--client-addr", ":1"), "server-addr": ("FASTWAY_SERVER_ADDR", ":2")},
        )

    def test_argv(self) -> None:
        """Without arguments it reads the process's."""
        self.patch(sys, "argv", ["fastway", "--max-packet=1K"])
        options = GatewayOptions()
        options.environment = {}
        options.parseOptions()
        self.assertEqual(options["max-packet"], 1024)


class PoolTests(SynchronousTestCase):
    def test_bad_values(self) -> None:
        """A value that cannot be is refused by name."""
        for name, bad in (("mem-pool-type", "slab"), ("mem-pool-factor", "1")):
            error = raised(ConfigError, parsed, f"--{name}={bad}")
            self.assertEqual(error.option, f"--{name}")


class SnetTests(SynchronousTestCase):
    def test_bad_values(self) -> None:
        """A value that cannot be is refused by name."""
        for name, bad in (
            ("client-snet-buffer", "0"),
            ("client-snet-max-waiting", "0"),
            ("server-snet-init-timeout", "soon"),
            ("server-snet-wait-timeout", "0"),
            ("server-snet-enable", "maybe"),
        ):
            error = raised(ConfigError, parsed, f"--{name}={bad}")
            self.assertEqual(error.option, f"--{name}")

    def test_on(self) -> None:
        """The original's spelling of all ten is understood."""
        options = parsed(
            "-ClientSnetEnable",
            "-ClientSnetEncrypt=true",
            "-ClientSnetBuffer=64K",
            "-ClientSnetInitTimeout=5s",
            "-ClientSnetWaitTimeout=2m",
        )
        names = ("enable", "encrypt", "buffer", "init-timeout", "wait-timeout")
        values = [options[f"client-snet-{name}"] for name in names]
        self.assertEqual(values, [True, True, 65536, 5.0, 120.0])

    def test_off_is_accepted(self) -> None:
        """Saying that snet is off is accepted in every spelling and place."""
        for side in ("client", "server"):
            for what in ("enable", "encrypt"):
                name = f"{side}-snet-{what}"
                original = f"-{side.title()}Snet{what.title()}=false"
                variable = f"FASTWAY_{name.replace('-', '_').upper()}"
                for options in (
                    parsed(f"--{name}=false"),
                    parsed(original),
                    parsed(environment={variable: "false"}),
                ):
                    self.assertIs(options[name], False)


class EnvironmentTests(SynchronousTestCase):
    def test_every_option(self) -> None:
        """Every option has a FASTWAY_ variable."""
        environment = {f"FASTWAY_{name.replace('-', '_').upper()}": "x" for name in BY_NAME}
        self.assertEqual(set(from_environment(environment)), set(BY_NAME))

    def test_values(self) -> None:
        """A variable sets its option; other variables are none of ours."""
        options = parsed(
            environment={
                "FASTWAY_CLIENT_ADDR": ":9000",
                "FASTWAY_REUSE_PORT": "yes",
                "FASTWAYS": "1",
                "PATH": "/bin",
            }
        )
        self.assertEqual(options["client-addr"], ":9000")
        self.assertIs(options["reuse-port"], True)

    def test_unknown(self) -> None:
        """An unknown FASTWAY_ variable is refused by name, with the nearest that exists."""
        error = raised(ConfigError, parsed, environment={"FASTWAY_CLIENT_ADR": ":9000"})
        self.assertEqual(error.option, "FASTWAY_CLIENT_ADR")
        self.assertIn("did you mean FASTWAY_CLIENT_ADDR?", error.problem)

    def test_bad_value(self) -> None:
        """A bad value is refused by the variable's name."""
        for variable in ("FASTWAY_MAX_PACKET", "FASTWAY_REUSE_PORT"):
            error = raised(ConfigError, parsed, environment={variable: "big"})
            self.assertEqual(error.option, variable)

    def test_process_environment(self) -> None:
        """Unless told otherwise, the environment is the process's."""
        self.assertIs(GatewayOptions.environment, os.environ)


class FileTests(SynchronousTestCase):
    def write(self, text: str) -> str:
        """A TOML file with `text`; its path."""
        path = os.path.join(scratch(self), "fastway.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def of(self, text: str) -> GatewayOptions:
        """Options of a file with `text`."""
        return parsed("--config", self.write(text))

    def refused(self, text: str) -> ConfigError:
        """The refusal of a file with `text`: one line that names the file."""
        path = self.write(text)
        error = raised(ConfigError, parsed, "--config", path)
        self.assertIn(path, str(error))
        self.assertNotIn("\n", str(error))
        return error

    def test_spellings(self) -> None:
        """kebab-case, snake_case and tables name the same options."""
        for text in (
            'client-addr = ":9000"\nclient-max-conn = 8\nclient-snet-enable = false\n',
            'client_addr = ":9000"\nclient_max_conn = 8\nclient_snet_enable = false\n',
            '[client]\naddr = ":9000"\nmax-conn = 8\n[client.snet]\nenable = false\n',
            'client.addr = ":9000"\nclient.max_conn = "8"\nclient.snet.enable = "off"\n',
        ):
            options = self.of(text)
            self.assertEqual(options["client-addr"], ":9000")
            self.assertEqual(options["client-max-conn"], 8)
            self.assertIs(options["client-snet-enable"], False)

    def test_types(self) -> None:
        """Strings, numbers and booleans are all understood."""
        options = self.of(
            'max-packet = "1M"\nserver-buffer-size = 4096\nwrite-timeout = 2.5\n'
            "reuse-port = true\nserver-auth-key = 12345\n"
        )
        self.assertEqual(options["max-packet"], 1048576)
        self.assertEqual(options["server-buffer-size"], 4096)
        self.assertEqual(options["write-timeout"], 2.5)
        self.assertIs(options["reuse-port"], True)
        self.assertEqual(options["server-auth-password"], "12345")

    def test_unknown(self) -> None:
        """An unknown name is refused with the nearest that exists, in tables too."""
        self.assertIn("client-adr: no such option", str(self.refused('client-adr = ":9000"')))
        self.assertIn("did you mean client-addr?", str(self.refused('client-adr = ":9000"')))
        self.assertIn("did you mean client-addr?", str(self.refused('[client]\nadr = ":9000"')))

    def test_not_one_value(self) -> None:
        """A list or a date is refused by the option's name."""
        for text in ("max-packet = [1, 2]", "max-packet = 2026-01-01"):
            error = self.refused(text)
            self.assertIn("max-packet", error.option)
            self.assertIn("must be one value", error.problem)

    def test_bad_value(self) -> None:
        """A bad value is refused by file and name."""
        self.assertIn("client-max-conn: 'true'", str(self.refused("client-max-conn = true")))
        self.assertIn("max-packet: '1.5' is not a size", str(self.refused("max-packet = 1.5")))

    def test_not_toml(self) -> None:
        """A file that is not TOML is refused as that, with the place."""
        error = self.refused("client-addr: 9000")
        self.assertEqual(error.option, "--config")
        self.assertIn("is not TOML", error.problem)
        self.assertIn("line 1", error.problem)

    def test_not_text(self) -> None:
        """A file that is not UTF-8 is refused as not TOML."""
        path = os.path.join(scratch(self), "fastway.toml")
        with open(path, "wb") as file:
            file.write(b'client-addr = "\xff"\n')
        self.assertIn("is not TOML", str(raised(ConfigError, parsed, "-c", path)))

    def test_unreadable(self) -> None:
        """A missing file and a directory are refused by path with the system's reason."""
        missing = os.path.join(scratch(self), "fastway.toml")
        directory = os.path.join(scratch(self), "fastway.toml")
        os.mkdir(directory)
        for path, why in ((missing, "No such file"), (directory, "Is a directory")):
            error = raised(ConfigError, parsed, "--config", path)
            self.assertEqual(error.option, "--config")
            self.assertIn(f"cannot read {path}: {why}", error.problem)

    def test_forbidden(self) -> None:
        """A file that this user may not read is refused with the system's reason."""
        path = self.write("")
        os.chmod(path, 0)
        error = raised(ConfigError, parsed, "--config", path)
        self.assertIn("Permission denied", error.problem)

    if os.geteuid() == 0:
        test_forbidden.skip = "root may read everything"  # type: ignore[attr-defined]

    def test_from_the_environment(self) -> None:
        """FASTWAY_CONFIG names a file; --config wins over it."""
        one, other = self.write("max-packet = 1000"), self.write("max-packet = 2000")
        environment = {"FASTWAY_CONFIG": one}
        self.assertEqual(parsed(environment=environment)["max-packet"], 1000)
        options = parsed("--config", other, environment=environment)
        self.assertEqual(options["max-packet"], 2000)


class PrecedenceTests(SynchronousTestCase):
    def check(self, name: str, texts: tuple[str, str, str], value: Callable[[str], Any]) -> None:
        """The command line wins over the environment, that over the file."""
        path = os.path.join(scratch(self), "fastway.toml")
        in_file, in_environment, on_line = texts
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'{name} = "{in_file}"\n')
        environment = {f"FASTWAY_{name.replace('-', '_').upper()}": in_environment}
        self.assertEqual(parsed("-c", path)[name], value(in_file))
        self.assertEqual(parsed("-c", path, environment=environment)[name], value(in_environment))
        self.assertEqual(
            parsed("-c", path, f"--{name}={on_line}", environment=environment)[name],
            value(on_line),
        )

    def test_value(self) -> None:
        """A number from all three places: the line wins, then the environment."""
        self.check("client-max-conn", ("1", "2", "3"), int)

    def test_flag(self) -> None:
        """A flag can be turned off again by a stronger place."""
        self.check("reuse-port", ("true", "false", "true"), parse_bool)
        self.check("reuse-port", ("false", "true", "false"), parse_bool)

    def test_empty(self) -> None:
        """An empty text on the command line is a setting: it turns the pid file off."""
        self.check("pid-file", ("a.pid", "b.pid", ""), str)

    def test_alias(self) -> None:
        """An alias in one place meets the real name in another."""
        options = parsed("--server-auth-key=a", environment={"FASTWAY_SERVER_AUTH_PASSWORD": "b"})
        self.assertEqual(options["server-auth-password"], "a")

    def test_weaker_is_still_checked_for_names_only(self) -> None:
        """A bad value that a stronger place replaces harms nothing."""
        options = parsed("--max-packet=1K", environment={"FASTWAY_MAX_PACKET": "big"})
        self.assertEqual(options["max-packet"], 1024)


class NameTests(SynchronousTestCase):
    def test_resolve(self) -> None:
        """kebab-case, snake_case, any case and aliases find the option."""
        for name in ("client-addr", "client_addr", "CLIENT_ADDR", " client-addr "):
            option = resolve_name(name)
            self.assertEqual(option and option.name, "client-addr")
        self.assertIsNone(resolve_name("nope"))
        self.assertIsNone(resolve_name(""))

    def test_closest(self) -> None:
        """The nearest name is suggested, or nothing."""
        self.assertEqual(closest("ab", ["abc", "xyz"]), " (did you mean abc?)")
        self.assertEqual(closest("q", ["abc"]), "")
