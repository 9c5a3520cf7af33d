"""Tools on `fastway.app`: `fastway serve`, which runs an application, `fastway talk`, which is a
peer of one by hand, and `fastway describe`, which tells other languages of its messages.

Rule: answers go to standard output, everything else to standard error; what is wrong with the
command is one line, before anything runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from fastway.address import Address, address_name, parse_address
from fastway.app.app import App
from fastway.app.handlers import Request
from fastway.app.http import push_site
from fastway.app.metrics import metrics_site
from fastway.app.session import SessionEnded
from fastway.causes import cause_of, one_line
from fastway.cli.table import DescribeOptions, ServeOptions, TalkOptions
from fastway.cli.tools import QUIET, Lines, ToolError, gateway_endpoint, run_tool, say
from fastway.dialect import NotInDialect, Refused, Traits
from fastway.errors import ConfigError, FastwayError, LocalError, RequestTimeout
from fastway.logs import escaped

DIALECTS = {
    "pomelo": "fastway.dialect.pomelo:Pomelo",
    "hotpot": "fastway.dialect.hotpot:Hotpot",
    "teleport": "fastway.dialect.teleport:Teleport",
    "teleport2": "fastway.dialect.teleport2:Teleport2",
}
"""Name -> where it is."""

ENDPOINTS = ("tcp", "ssl", "ws", "wss", "snet", "fastway", "haproxy")
"""What begins an address: `ws:3251:path=/nano` lacks its dialect."""


_SAID = object()
"""In place of an answer, where there are none."""


def find(option: str, place: str) -> Any:
    """What `MODULE:NAME` is; modules in the working directory count.

    Raises:
        ConfigError: there is none.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ConfigError(option, f"{place!r} is not MODULE:NAME")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (
            module == error.name or module.startswith(f"{error.name}.")
        ):
            meant = module.removesuffix(".py").replace("/", ".")
            hint = f"; write {meant}:{name}" if meant != module else ""
            raise ConfigError(option, f"there is no module {module!r} here{hint}") from None
        problem = f"{module} imports {error.name!r}, which is not installed"
        if error.name in ("google", "google.protobuf"):  # its package has another name
            problem += "; pip install 'fastway[protobuf]', or '.[protobuf]' in a checkout"
        raise ConfigError(option, problem) from None
    except Exception as error:  # it is the user's: what it raises says most
        problem = f"{module} cannot be imported: {_told(error)}"
        raise ConfigError(option, problem) from None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(option, f"{module} has no {name}") from None
    return found


def _told(error: Exception) -> str:
    """What their code raised, in one line, and its last line in the working directory."""
    told = f"{type(error).__name__}: {one_line(error)}"
    here = os.path.join(os.getcwd(), "")
    ours = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
    places = [
        f"{frame.filename.removeprefix(here)}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(here)
        and not frame.filename.startswith(ours)
        and "site-packages" not in frame.filename
    ]
    return f"{told} ({places[-1]})" if places else told


def dialect_at(option: str, text: str) -> tuple[Any, str]:
    """The dialect and the address in `DIALECT=ADDRESS`.

    Raises:
        ConfigError: there is no such dialect.
    """
    name, equals, address = text.partition("=")
    if not (equals and address) or name.partition(":")[0] in ENDPOINTS:
        raise ConfigError(option, f"{text!r} is not DIALECT=ADDRESS, such as pomelo=:3250")
    return dialect_of(option, name), address


def dialect_of(option: str, name: str) -> Any:
    """The dialect of that name, or at MODULE:NAME.

    Raises:
        ConfigError: there is no such dialect.
    """
    if ":" in name:
        return _of_theirs(option, name)
    if name not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise ConfigError(
            option, f"no dialect {name!r}; there is {known}, and one of yours as MODULE:NAME"
        )
    return find(option, DIALECTS[name])()


def app_at(operands: Sequence[str]) -> App:
    """The application that a command is about: MODULE:APP, or MODULE:NAME() that makes it.

    Raises:
        ConfigError: there is none.
    """
    if not operands:
        raise ConfigError("APP", "give MODULE:APP, such as chat:app")
    place = operands[0]
    app = find("APP", place.removesuffix("()"))
    if place.endswith("()"):
        try:
            app = app()
        except Exception as error:  # it is the user's: what it raises says most
            raise ConfigError("APP", f"{place} cannot be made: {_told(error)}") from None
    if not isinstance(app, App):
        mend = f"; what it makes is {place}()" if callable(app) else ""
        raise ConfigError("APP", f"{place} is no App of fastway.app{mend}")
    return app


def _of_theirs(option: str, place: str) -> Any:
    """A dialect that a module has, or the class of one."""
    made = find(option, place)
    if isinstance(made, type):
        try:
            made = made()
        except Exception as error:  # it is the user's: what it raises says most
            raise ConfigError(option, f"{place} cannot be made: {_told(error)}") from None
    if not (hasattr(made, "server") and hasattr(made, "wire_name")):
        raise ConfigError(option, f"{place} is no dialect, such as Pomelo()")
    return made


async def serve_app(reactor: Any, options: ServeOptions) -> int:
    """`fastway serve`: until a signal ends it."""
    app = app_at(options.operands)
    listens = [text for text in options["listen"] if text]
    node = _node(options["cluster"], app)
    if not (listens or node):
        raise ConfigError("--listen", "give it, such as --listen pomelo=:3250")
    wanted = [dialect_at("--listen", text) for text in listens]
    sites = _sites(options, app)
    # What is wrong is said before any of them listens.
    for _, address in wanted:
        parse_address("--listen", address).check(reactor, False, messages=True)
    for where, _, _ in sites:
        where.check(reactor, False)
    if app.is_clockless:
        app.use_clock(reactor)
    try:
        if node is not None:
            await _listening(node.join(), options["cluster"])
            say(f"{node.address} is in the cluster")
        beside = await _open_ports(reactor, app, wanted, sites)
    except BaseException:
        if node is not None:
            await node.leave()
        raise
    ended: Deferred[None] = Deferred()
    try:
        await ended
    finally:
        await app.drain(options["drain"])
        for port in beside:
            await maybeDeferred(port.stopListening)
        if node is not None:
            await node.leave()
    return 0


async def _open_ports(
    reactor: Any,
    app: App,
    wanted: list[tuple[Any, str]],
    sites: list[tuple[Address, Any, str]],
) -> list[IListeningPort]:
    """Open them all; returns those that are not the application's own."""
    for dialect, address in wanted:
        port = await _listening(app.listen(address, dialect), address)
        say(f"{dialect.name} listens on {address_name(port.getHost())}")
    opened = []
    for where, site, words in sites:
        port = await _listening(where.listen(reactor, site, False), where.text)
        say(f"{words} on {address_name(port.getHost())}")
        opened.append(port)
    return opened


def _sites(options: ServeOptions, app: App) -> list[tuple[Address, Any, str]]:
    """What is served by HTTP: where, what, and how that is said.

    Raises:
        ConfigError: it cannot be.
    """
    sites: list[tuple[Address, Any, str]] = []
    push, metrics = options["push-addr"], options["metrics-addr"]
    if push:
        token = options["push-token"] or os.environ.get("FASTWAY_PUSH_TOKEN", "")
        if not token:
            raise ConfigError(
                "--push-token",
                "it is empty, so anybody could push; set FASTWAY_PUSH_TOKEN, or give it",
            )
        where = parse_address("--push-addr", push)
        sites.append((where, push_site(app, token), "pushes are taken"))
    if metrics:
        where = parse_address("--metrics-addr", metrics)
        sites.append((where, metrics_site(app), "metrics are told"))
    return sites


def _node(place: str, app: App) -> Any:
    """The node of a cluster that a module has; None: there is to be none."""
    if not place:
        return None
    node = find("--cluster", place)
    if not hasattr(node, "join") or not hasattr(node, "leave"):
        raise ConfigError("--cluster", f"{place} is no node, such as a NanoMember")
    if node.app is not app:
        raise ConfigError("--cluster", f"{place} is a node of another App")
    return node


async def _listening(listening: Deferred[Any], address: str) -> IListeningPort:
    try:
        return cast(IListeningPort, await listening)
    except (LocalError, CancelledError):
        raise
    except CannotListenError as error:
        problem = getattr(error.socketError, "strerror", None) or str(error.socketError)
    except Exception as error:  # what the endpoint likes to fail with
        problem = cause_of(error)
    raise ToolError(f"cannot listen on {address}: {problem}")


def _told_answer(result: Any) -> str:
    """An answer in JSON, or as it comes where its format has more than that."""
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError):
        return result.decode("utf-8", "backslashreplace") if type(result) is bytes else str(result)


def _told_message(request: Request) -> str:
    """A message as it came where that is text; else as an answer is told."""
    try:
        return request.body.decode()
    except UnicodeDecodeError:
        pass
    try:
        return _told_answer(request.decode())
    except Refused:  # it is no message of the port's format
        return request.body.decode("utf-8", "backslashreplace")


class Talk:
    """`fastway talk` between standard input and one session."""

    def __init__(self, reactor: Any, options: TalkOptions) -> None:
        self._reactor = reactor
        self._options = options
        self._done: Deferred[str] = Deferred()
        self._lines = Lines(self._line, self._input_over)
        self._session: Any = None
        self._asked = 0
        self._over = False
        self._quiet: Any = None
        self._doubt = ""
        """What may be wrong while nothing that the peer said was of its dialect; "" then."""
        self._waits = False
        """Something was typed that may be answered."""

    async def run(self) -> int:
        options = self._options
        if len(options.operands) != 1:
            raise ConfigError("PEER", "give DIALECT=ADDRESS, such as pomelo=127.0.0.1:3250")
        dialect, address = dialect_at("PEER", options.operands[0])
        if options["user"]:
            try:
                user = json.loads(options["user"])
            except ValueError as error:
                raise ConfigError("--user", f"it is no JSON: {error}") from None
            if not hasattr(dialect, "with_user"):
                raise ConfigError("--user", f"{dialect.name} has no place for it")
            dialect = dialect.with_user(user)
        self._doubt = f"; does {address} speak {dialect.name}, and let this client in?"
        app = App(clock=self._reactor)

        @app.unknown
        def heard(request: Request) -> None:
            self._doubt = ""
            self._print(f"< {request.route}", _told_message(request))

        endpoint = gateway_endpoint(self._reactor, "PEER", address)
        try:
            session = await app.connect(endpoint, dialect, options["timeout"])
        except (SessionEnded, RequestTimeout) as error:
            raise ToolError(f"{error}{self._doubt}") from None
        except (FastwayError, CancelledError):
            raise
        except Exception as error:  # what the endpoint likes to fail with
            raise ToolError(f"cannot reach {address}: {cause_of(error)}") from None
        self._session = session
        if getattr(dialect, "traits", Traits()).handshake is not None:
            self._doubt = ""
        say(f"connected to {address}; ROUTE JSON asks, !ROUTE JSON only says")
        session.when_ended().addCallback(self._closed)
        StandardIO(self._lines, reactor=self._reactor)
        try:
            problem = await self._done
        finally:
            app.stop()
        await self._lines.finish()
        if problem:
            raise ToolError(problem)
        return 0

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return
        asks = not text.startswith("!")
        self._waits = self._waits or asks
        route, _, body = text.removeprefix("!").partition(" ")
        try:
            message = json.loads(body) if body.strip() else None
        except ValueError as error:
            say(f"that is no JSON: {error}")
            return
        try:
            if asks:
                asked = self._session.request(route, message, timeout=self._options["timeout"])
                self._asked += 1
                asked.addErrback(self._only_says, route, message)
                asked.addBoth(self._answered, route)
            else:
                self._session.send(route, message)
        except Exception as error:  # also what the format says to what is no message of its
            say(cause_of(error))
        self._rest()

    def _only_says(self, failure: Failure, route: str, message: Any) -> Any:
        """Where nothing can be asked, it is said: what comes back is a message."""
        failure.trap(NotInDialect)
        self._session.send(route, message)
        return _SAID

    def _answered(self, result: Any, route: str) -> None:
        self._asked -= 1
        if result is _SAID:
            pass
        elif isinstance(result, Failure):
            if result.check(Refused):
                self._doubt = ""
            problem = result.getErrorMessage().removeprefix(f"{route}: ")
            say(f"! {route}: {problem}")
        else:
            self._doubt = ""
            self._print(f"= {route}", _told_answer(result))
        self._rest()

    def _print(self, what: str, text: str) -> None:
        """One line, in which a terminal finds nothing to obey."""
        line = f"{escaped(f'{what} {text}')}\n".encode("utf-8", "backslashreplace")
        with suppress(Exception):  # the output has gone, which it says itself
            cast(Any, self._lines.transport).write(line)
        self._rest()

    def _closed(self, _: object) -> None:
        if not self._done.called:
            problem = f"{self._session.ended}{self._doubt}"
            orderly = self._over and self._asked == 0
            if orderly and self._waits and self._doubt:
                say(problem)
            self._done.callback("" if orderly else problem)

    def _input_over(self, problem: str) -> None:
        self._over = True
        if problem and not self._done.called:
            self._done.callback(problem)
        self._rest()

    def _rest(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self._over and not self._asked and not self._done.called:
            self._quiet = deferLater(self._reactor, QUIET)
            self._quiet.addCallbacks(self._silence, lambda _: None)

    def _silence(self, _: object) -> None:
        if not self._done.called:
            if self._waits and self._doubt:
                say(f"nothing came back{self._doubt}")
            self._done.callback("")


def serve(options: ServeOptions) -> int:
    from fastway.ops.process import raise_file_limit

    if options["asyncio"]:  # before anything of Twisted's asks for another
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    raise_file_limit()
    return run_tool(
        options.title, lambda reactor: serve_app(reactor, options), options["log-level"]
    )


def talk(options: TalkOptions) -> int:
    return run_tool(options.title, lambda reactor: Talk(reactor, options).run(), "warn")


def describe(options: DescribeOptions) -> int:
    """`fastway describe`: nothing runs."""
    from fastway.app.describe import asyncapi, schema

    app = app_at(options.operands)
    name = options["dialect"]
    dialect = dialect_of("--dialect", name) if name else None
    title = options["title"] or options.operands[0]
    whole = asyncapi(app, dialect, title=title, version=options["api-version"])
    told = schema(app, dialect) if options["types"] else whole
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    for route, why in whole.get("x-left-out", {}).items():
        say(f"{route} is left out: {why}")
    if not options["output"]:
        sys.stdout.write(text)
        return 0
    try:
        with open(options["output"], "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError("--output", f"{options['output']}: {error.strerror}") from None
    actions = [one["action"] for one in whole["operations"].values()]
    taken, sent = actions.count("receive"), actions.count("send")
    say(f"{options['output']} has messages: {taken} taken, {sent} sent")
    return 0
