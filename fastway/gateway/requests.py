"""What a game server asks of the gateway over its control connection, and the answers.

Rule: messages in; answers, and calls of what the gateway can do, out. No transport, clock or
router. A message that cannot be understood raises BadControl, which ends the control connection;
all else is answered. (spec control.md)

A request that takes long is cut into steps: `receive` returns what is left of it, and nothing more
is given in before that is done.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastway.control import (
    MAX_COUNT,
    MAX_HEAD,
    VERSION,
    Code,
    Verb,
    Want,
    encode,
    parse,
    read_flag,
    read_ids,
    read_int,
    read_name,
    read_text,
)
from fastway.errors import BadControl
from fastway.gateway.groups import Groups

SLICE = 512
"""Members that a step of a push is written to, at most,"""

SLICE_BYTES = 1 << 20
"""and bytes that it writes, unless it is one message;"""

IDS = 4096
"""ids that a step of a join or a leave looks at."""

KICKED = 4000
"""The close code of who is kicked, if the server says none."""

UNSENDABLE = frozenset((1004, 1005, 1006, 1015))
"""Close codes that no WebSocket sends."""

SERVER_VERBS = frozenset(Verb)
CLIENT_VERBS = frozenset((Verb.HELLO, Verb.TIME))
SERVER_WANTS = frozenset(Want)
CLIENT_WANTS = frozenset((Want.DRAIN,))

FEATURES = ("groups",)
"""What this gateway can do for servers beyond what every gateway can."""


class World(Protocol):
    """What can be done, and looked at, by whom asks."""

    def say(self, message: bytes) -> None:
        """Send a message."""

    def greeted(self) -> None:
        """hello is answered."""

    def unix(self) -> float:
        """Seconds since 1970."""

    def conns(self) -> Mapping[int, Any]:
        """Its virtual connections, by id; it changes with them."""

    def client(self, conn_id: int) -> int:
        """Who is at the far end of one of these."""

    def facts(self, client: int) -> bytes | None:
        """The facts of a client as a JSON object; None: there is none."""

    def may_kick(self, client: int) -> bool:
        """It is allowed to."""

    def kick(self, client: int, code: int, text: str) -> None:
        """End a client's link."""

    def name(self, client: int, user: str) -> None:
        """Name a player."""

    def multicast(self, conn_ids: array[int], message: bytes) -> Iterable[int]:
        """Send a message over some of its connections; returns the ids that are none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the gateway says of itself, and its bounds.

    Attributes:
        gateway: Its name.
        version: Its program's.
        max_packet: The largest length field of the link.
        groups: Groups that a server may have.
        group_members: Members that one may have.
    """

    gateway: str = "fastway"
    version: str = ""
    max_packet: int = 512 * 1024
    groups: int = 10_000
    group_members: int = 100_000


class _Denied(Exception):
    """The answer is no."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


Result = dict[str, Any] | bytes
Work = Generator[None, None, Result]


class Requests:
    """One control connection's.

    Args:
        world: What can be done.
        terms: What holds.
        verbs: What may be asked.
        wants: What may be wished.

    Attributes:
        want: What hello asked for; None before.
        groups: The server's.
        over: It is over: what is left of a request is not done.
    """

    def __init__(
        self,
        world: World,
        terms: Terms,
        verbs: Container[Verb] = SERVER_VERBS,
        wants: frozenset[Want] = SERVER_WANTS,
    ) -> None:
        self.want: frozenset[Want] | None = None
        self.groups = Groups(terms.groups, terms.group_members)
        self.over = False
        self._world = world
        self._terms = terms
        self._verbs = verbs
        self._wants = wants

    def receive(self, message: bytes) -> Iterator[None] | None:
        """A message came: carry it out.

        Returns:
            What is left of it: to be gone through before the next one. None: it is done.

        Raises:
            BadControl: it cannot be understood.
        """
        fields, payload = parse(message)
        number = read_int(fields, "id", 0, MAX_COUNT) if "id" in fields else None
        op = read_text(fields, "op")
        job = self._carry_out(number, op, fields, payload)
        return job if next(job, job) is not job else None

    def _carry_out(
        self, number: int | None, op: str, fields: dict[str, Any], payload: memoryview | None
    ) -> Iterator[None]:
        try:
            verb = _VERBS.get(op)
            if verb is None or verb not in self._verbs:
                raise _Denied(Code.UNKNOWN, "no such verb")
            if (verb is Verb.HELLO) is not (self.want is None):
                raise _Denied(Code.INVALID, "hello comes first, and once")
            if payload and verb is not Verb.PUSH:
                raise _Denied(Code.INVALID, "bytes follow a request that has none")
            result = yield from _HANDLERS[verb](self, fields, payload)
        except BadControl as error:
            self._answer(number, False, {"error": Code.INVALID.value, "text": str(error)})
        except _Denied as error:
            self._answer(number, False, {"error": error.code.value, "text": str(error)})
        else:
            self._answer(number, True, result)
            if verb is Verb.HELLO:
                self._world.greeted()

    def _answer(self, number: int | None, ok: bool, result: Result) -> None:
        if number is None or self.over:
            return
        if isinstance(result, bytes):
            self._world.say(b'{"id":%d,"ok":true,%s' % (number, result[1:]))
        else:
            self._world.say(encode({"id": number, "ok": ok, **result}))

    # The verbs: each returns the fields of its answer.

    def _hello(self, fields: dict[str, Any], _: Any) -> Work:
        yield from ()
        if read_int(fields, "v", 0, MAX_COUNT) != VERSION:
            raise BadControl(f"v is not {VERSION}")
        wanted = fields.get("want", [])
        if type(wanted) is not list:
            raise BadControl("want is no list")
        self.want = frozenset(one for one in self._wants if one.value in wanted)
        terms = self._terms
        return {
            "v": VERSION,
            "gateway": terms.gateway,
            "version": terms.version,
            "features": list(FEATURES if Verb.PUSH in self._verbs else ()),
            "max_packet": terms.max_packet,
        }

    def _own(self, fields: dict[str, Any]) -> int:
        """The client at the far end of a connection that is named."""
        conn_id = read_int(fields, "conn", 1)
        if conn_id not in self._world.conns():
            raise _Denied(Code.GONE, "no such connection")
        return self._world.client(conn_id)

    def _who(self, fields: dict[str, Any], _: Any) -> Work:
        yield from ()
        client = self._own(fields) if "conn" in fields else read_int(fields, "client", 1)
        facts = self._world.facts(client)
        if facts is None:
            raise _Denied(Code.GONE, "no such client")
        return facts

    def _kick(self, fields: dict[str, Any], _: Any) -> Work:
        yield from ()
        client = read_int(fields, "client", 1)
        code = read_int(fields, "code", 1000, 4999) if "code" in fields else KICKED
        if code in UNSENDABLE:
            raise BadControl(f"code {code} is never sent")
        text = read_text(fields, "text", "")
        if not self._world.may_kick(client):
            raise _Denied(Code.DENIED, "it has no connection with this server")
        if self._world.facts(client) is None:
            raise _Denied(Code.GONE, "no such client")
        self._world.kick(client, code, text)
        return {}

    def _user(self, fields: dict[str, Any], _: Any) -> Work:
        yield from ()
        user = read_name(fields, "user")
        self._world.name(self._own(fields), user)
        return {}

    def _join(self, fields: dict[str, Any], _: Any) -> Work:
        name, wanted = read_name(fields, "group"), read_ids(fields, "conns")
        own, groups = self._world.conns(), self.groups
        group = groups.get(name)
        members = {} if group is None else group.members
        fresh: dict[int, None] = {}
        for some, more in _slices(wanted, IDS):
            fresh.update((one, None) for one in some if one in own and one not in members)
            if more:
                yield
        problem = groups.problem(name, len(fresh))
        if problem:
            raise _Denied(Code.FULL, problem)
        for some, more in _slices(list(fresh), IDS):
            if self.over:
                break
            groups.add(name, (one for one in some if one in own))
            if more:
                yield
        return {"members": groups.size(name)}

    def _leave(self, fields: dict[str, Any], _: Any) -> Work:
        name, wanted = read_name(fields, "group"), read_ids(fields, "conns")
        if self.groups.get(name) is None:
            raise _Denied(Code.GONE, "no such group")
        for some, more in _slices(wanted, IDS):
            self.groups.remove(name, some)
            if more:
                yield
        return {"members": self.groups.size(name)}

    def _push(self, fields: dict[str, Any], payload: memoryview | None) -> Work:
        if payload is None:
            raise BadControl("no newline and no message follow it")
        ids = self._wanted(fields)
        but = read_ids(fields, "but", ())
        if but:
            left_out = frozenset(but)
            ids = array("I", [one for one in ids if one not in left_out])
        message = bytes(payload)
        missing: list[int] = []
        for some, more in _slices(ids, max(1, min(SLICE, SLICE_BYTES // (len(message) + 1)))):
            if self.over:
                break
            missing += self._world.multicast(some, message)
            if more:
                yield
        sent = len(ids) - len(missing)
        # The answer has to fit a message; 100 bytes are for the rest, 11 for an id and its comma.
        del missing[(MAX_HEAD - 100) // 11 :]
        return {"sent": sent, "missing": missing}

    def _wanted(self, fields: dict[str, Any]) -> array[int]:
        everyone = read_flag(fields, "all", False)
        if ("group" in fields) + ("conns" in fields) + everyone != 1:
            raise BadControl("push wants a group, or conns, or all")
        if everyone:
            return array("I", self._world.conns())
        if "conns" in fields:
            return array("I", dict.fromkeys(read_ids(fields, "conns")))
        group = self.groups.get(read_name(fields, "group"))
        if group is None:
            raise _Denied(Code.GONE, "no such group")
        return group.ids

    def _time(self, fields: dict[str, Any], _: Any) -> Work:
        yield from ()
        return {"unix": self._world.unix()}


def _slices(items: Any, size: int) -> Iterator[tuple[Any, bool]]:
    """Pieces of a sequence, and whether more follow: that is another step's."""
    return ((items[at : at + size], at + size < len(items)) for at in range(0, len(items), size))


_VERBS = {verb.value: verb for verb in Verb}

_HANDLERS: dict[Verb, Callable[[Requests, dict[str, Any], memoryview | None], Work]] = {
    Verb.HELLO: Requests._hello,
    Verb.WHO: Requests._who,
    Verb.KICK: Requests._kick,
    Verb.USER: Requests._user,
    Verb.JOIN: Requests._join,
    Verb.LEAVE: Requests._leave,
    Verb.PUSH: Requests._push,
    Verb.TIME: Requests._time,
}
