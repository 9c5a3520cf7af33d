"""`fastway status`, `links`, `kick`, `drain`, ...: what is asked of a gateway that runs.

It goes over the gateway's admin port, where it has one. Else the command goes into the gateway's
command file as `#TOKEN command`, in one rename; then SIGUSR1. The gateway writes its answer to
`fastway.answer` in its run directory, in one rename too: a line `TOKEN PID`, then the answer's;
`error: ` before the first of them says that the command failed. A command file that the gateway
does not take has the answer `- PID`.

Rule: no process is signalled that does not wait for it: SIGUSR1 kills what does not catch it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from fastway.cli.asking import AdminClient, NoPort, find, printable
from fastway.cli.table import (
    MAX_ID,
    DrainOptions,
    KickOptions,
    LevelOptions,
    LimitsOptions,
    RemoteOptions,
    ShowOptions,
    operand,
)
from fastway.config.settings import OpsSettings
from fastway.config.values import number, quoted
from fastway.errors import CommandError, ConfigError, LocalError, Reason

if TYPE_CHECKING:
    from fastway.ops.snapshot import LinkRow

LOOK = 0.02
"""Seconds between one look for the answer and the next."""

PAGE = 1000
"""Links that are asked for at once."""

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that is read."""


def status(options: ShowOptions) -> int:
    """`fastway status`."""
    if options["json"]:
        print(json.dumps(look(options, "/v1/status")))
        return 0
    port = admin_port(options)
    try:
        text = None if port is None else port.get("/v1/status?format=text")
    except NoPort:
        text = None
    print(ask(options, "status") if text is None else text.rstrip("\n"))
    return 0


def links(options: ShowOptions) -> int:
    """`fastway links`: each link a row, or one object of JSON."""
    if options["json"]:
        for row in rows_of(partial(look, options)):
            print(json.dumps(row))
        return 0
    port = admin_port(options)
    if port is not None:
        from fastway.ops.status import link_row

        with suppress(NoPort):
            for row in rows_of(port.get):
                print(printable(link_row(read_row(row))))
            return 0
    answer = ask(options, "links")
    report = re.fullmatch(r"\d+ links written to (.+)", answer)
    if report is not None:
        answer = read_whole(options.settings.ops.path(os.path.basename(report[1]))).rstrip("\n")
    if answer:
        print(answer)
    return 0


def rows_of(get: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    """All links, by side and id."""
    query = f"/v1/links?limit={PAGE}"
    answer = get(query)
    yield from answer["links"]
    while answer["next"]:
        answer = get(f"{query}&after={answer['next']}")
        yield from answer["links"]


def read_row(row: dict[str, Any]) -> LinkRow:
    """A link's figures as the API tells them; a gateway of another version may tell more."""
    from fastway.ops.snapshot import LinkRow

    told = {field.name: row[field.name] for field in fields(LinkRow) if field.name in row}
    lost = told.get("lost")
    told["lost"] = Reason[lost.upper()] if lost else None
    return LinkRow(**told)


def kick(options: KickOptions) -> int:
    """`fastway kick client|server ID`."""
    side, text = operand(options, 0, "client|server"), operand(options, 1, "ID")
    if side not in ("client", "server"):
        raise ConfigError("kick", f"{side!r} is neither client nor server")
    try:
        link_id = number(0, MAX_ID)(text)
    except ValueError as error:
        raise ConfigError("ID", str(error)) from None
    body: dict[str, Any] = {"side": side, "id": link_id}
    more = {name: options[name] for name in ("code", "reason") if options[name]}
    if more:
        print(only(options, lambda port: port.post("/v1/kick", {**body, **more})))
    else:
        print(do(options, "kick", body, f"kick {side} {link_id}"))
    return 0


def drain(options: DrainOptions) -> int:
    """`fastway drain [again]`."""
    words = list(options.operands)
    if words not in ([], ["again"]):
        raise ConfigError("drain", f"{words[0]!r} is not again")
    body = {"again": True} if words else {}
    print(do(options, "drain", body, " ".join(["drain", *words])))
    return 0


def undrain(options: RemoteOptions) -> int:
    """`fastway undrain`."""
    print(do(options, "undrain", {}, "undrain"))
    return 0


def limits(options: LimitsOptions) -> int:
    """`fastway limits [NAME=VALUE ...]`."""
    words = [word.partition("=") for word in options.operands]
    changes = {name: value for name, _, value in words}
    if len(changes) < len(words):
        raise ConfigError("limits", "a name stands there twice")
    for name, equals, _ in words:
        if not equals:
            raise ConfigError("limits", f"{quoted(name)}: give NAME=VALUE")
    print(do(options, "limits", changes, " ".join(["limits", *options.operands])))
    return 0


def loglevel(options: LevelOptions) -> int:
    """`fastway loglevel LEVEL`."""
    level = operand(options, 0, "LEVEL")
    print(do(options, "loglevel", {"level": level}, f"loglevel {level}"))
    return 0


def reload(options: RemoteOptions) -> int:
    """`fastway reload`."""
    print(do(options, "reload", {}, "reload"))
    return 0


def admin_port(options: RemoteOptions) -> AdminClient | None:
    """The gateway's admin port; None: it has none that is known here, or a process was given."""
    return None if options["pid"] else find(options.settings, options["timeout"])


def needed(options: RemoteOptions) -> AdminClient:
    """The same, where there is no other way.

    Raises:
        LocalError: it has none.
    """
    port = admin_port(options)
    if port is None:
        raise LocalError(
            "that gateway has no admin port that is known here; this needs --admin-addr, "
            "of the gateway too"
        )
    return port


def do(options: RemoteOptions, verb: str, body: dict[str, Any], command: str) -> str:
    """Have a running gateway do something: by its admin port, or else by a command.

    Raises:
        LocalError: there is no gateway, it may not be told, or does not answer in time.
        CommandError: it failed.
    """
    port = admin_port(options)
    try:
        return ask(options, command) if port is None else port.post(f"/v1/{verb}", body)
    except NoPort:
        return ask(options, command)


def look(options: RemoteOptions, path: str) -> Any:
    """What the admin port answers to a GET, where there is no other way.

    Raises:
        LocalError: the gateway has none, or it cannot be reached or used.
    """
    return only(options, lambda port: port.get(path))


def only(options: RemoteOptions, call: Callable[[AdminClient], Any]) -> Any:
    """Ask the admin port, where there is no other way; see `look`."""
    try:
        return call(needed(options))
    except NoPort as error:
        raise LocalError(f"the admin port cannot be reached: {error}") from None


def ask(options: RemoteOptions, command: str) -> str:
    """Have a running gateway run a command; returns its answer.

    Raises:
        LocalError: there is no gateway, it may not be told, or does not answer in time.
        CommandError: the command failed.
    """
    ops = options.settings.ops
    if not ops.command_path:
        raise ConfigError(ops.where("command_file"), "it is empty: that gateway takes no commands")
    pid = options["pid"] or find_pid(ops)
    user = check_process(pid)
    deadline = time.monotonic() + options["timeout"]
    with alone(ops.run_dir, deadline):
        token = secrets.token_hex(8)
        with suppress(OSError):  # of a command that nobody waited for
            os.unlink(ops.answer_path)
        write_command(ops.command_path, f"#{token} {command}\n", user)
        try:
            os.kill(pid, signal.SIGUSR1)
            return wait_for_answer(ops, token, pid, deadline)
        finally:
            # Else the next SIGUSR1 that somebody sends would run it again.
            with suppress(OSError):
                if token in read_whole(ops.command_path):
                    os.unlink(ops.command_path)


def find_pid(ops: OpsSettings) -> int:
    """The process that the pid file names.

    Raises:
        LocalError: there is none.
    """
    mend = "say where it is with --run-dir or --config, or give its process with --pid"
    if not ops.pid_path:
        raise LocalError(f"that gateway has no pid file; {mend}")
    try:
        return int(read_whole(ops.pid_path))
    except FileNotFoundError:
        here = os.path.abspath(ops.pid_path)
        raise LocalError(f"no gateway runs here: there is no {here}; {mend}") from None
    except OSError as error:
        raise LocalError(f"cannot read {ops.pid_path}: {error.strerror}") from None
    except ValueError:
        raise LocalError(f"{ops.pid_path} holds no process id; {mend}") from None


def check_process(pid: int) -> int | None:
    """See that a process may be sent SIGUSR1; returns its user, where the system tells.

    Raises:
        LocalError: it is gone, belongs to somebody else, or does not catch it.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        raise LocalError(f"no gateway runs here: there is no process {pid}") from None
    except PermissionError:
        raise LocalError(
            f"process {pid} belongs to another user; run this as that user or as root"
        ) from None
    try:
        about = read_whole(f"/proc/{pid}/status")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in about.splitlines() if ":" in line)
    if not int(fields.get("SigCgt", "0"), 16) >> (signal.SIGUSR1 - 1) & 1:
        raise LocalError(
            f"process {pid} does not wait for commands: it is no gateway, "
            "has no --command-file, or is only starting"
        )
    return int(fields["Uid"].split()[1])


@contextmanager
def alone(directory: str, deadline: float) -> Iterator[None]:
    """One command at a time: a second would take the first one's file away.

    Raises:
        LocalError: the directory cannot be had, or others were busy with it to the end.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(f"cannot open {directory}: {error.strerror}") from None
    try:
        until(lambda: locked(descriptor), deadline, "another command is still being answered")
        yield
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_command(path: str, text: str, user: int | None) -> None:
    """Put a command into a command file, whole, so that only the gateway's user may read it.

    Raises:
        LocalError: it cannot be written there.
    """
    new = f"{path}.{os.getpid()}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o600)
                file.write(text)
                if user is not None and user != os.geteuid():
                    os.fchown(descriptor, user, -1)
            os.rename(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
    except OSError as error:
        hint = "; run this as the gateway's user or as root"
        denied = error.errno in (errno.EACCES, errno.EPERM)
        raise LocalError(
            f"cannot write {path}: {error.strerror}{hint if denied else ''}"
        ) from None


def wait_for_answer(ops: OpsSettings, token: str, pid: int, deadline: float) -> str:
    """The answer to the command with that token.

    Raises:
        LocalError: none came.
        CommandError: the command failed; the text is why.
    """
    found: list[str] = []

    def look() -> bool:
        with suppress(OSError):
            first, _, rest = read_whole(ops.answer_path).partition("\n")
            problem = rest.removeprefix("error: ").rstrip("\n")
            if first == f"{token} {pid}":
                if rest.startswith("error: "):
                    raise CommandError(problem)
                found.append(problem)
                return True
            if first == f"- {pid}" and problem.startswith("no command run"):
                raise CommandError(problem)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            raise LocalError(f"the gateway, process {pid}, ended without an answer") from None
        return False

    try:
        until(look, deadline, "the gateway did not answer in time; its log may say why")
    finally:
        with suppress(OSError):
            os.unlink(ops.answer_path)
    return found[0]


def until(condition: Callable[[], bool], deadline: float, problem: str) -> None:
    """Look until a condition holds.

    Raises:
        LocalError: it did not until `deadline`, on the monotonic clock; with `problem`.
    """
    while not condition():
        if time.monotonic() >= deadline:
            raise LocalError(problem)
        time.sleep(LOOK)


def read_whole(path: str) -> str:
    """A file's text, if it is a regular file.

    Raises:
        OSError: it cannot be read, or is something else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        return file.read(MAX_ANSWER).decode("utf-8", "replace")
