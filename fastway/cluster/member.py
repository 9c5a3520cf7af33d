"""A node of nano's cluster that serves what gates hand on.

    member = NanoMember(app, "10.0.0.7:34571", master="10.0.0.1:34570")
    await member.join()

Rule: what is said in the cluster changes what is known here, and no peer can hold what is done for
another: each call has a deadline, each session its own order. (spec nano.md 5)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.task import deferLater

from fastway.address import parse_address
from fastway.app.app import App, Component
from fastway.app.bounds import State
from fastway.app.session import Session, SessionEnded
from fastway.app.turn import shared
from fastway.cluster import messages as on
from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.http2 import Turn
from fastway.cluster.members import (
    MemberInfo,
    is_routable,
    member_info,
    parsed,
    services_of,
)
from fastway.cluster.messages import NOTHING, message_class
from fastway.cluster.mirror import NOT_FOUND, Mirror
from fastway.cluster.roads import Chooses, Lines, Roads
from fastway.cluster.sequence import Sequence
from fastway.cluster.server import Method, Served, Server
from fastway.dialect import BodyFormat, Message
from fastway.dialect.pomelo import PomeloJson
from fastway.errors import ConfigError, LocalError
from fastway.logs import escaped, make_logger

log = make_logger("fastway.cluster")

SILENCE = 4
"""Heartbeats without which a member is taken for dead."""

_Register: Any = message_class("RegisterRequest")
_Heartbeat: Any = message_class("HeartbeatRequest")
_Unregister: Any = message_class("UnregisterRequest")


class NanoMember(Roads):
    """A node that serves: a backend.

    Args:
        app: Who handles what comes; what its routes have before their last dots is what the node
            offers.
        listen: Where it takes calls: host:port, or an endpoint.
        master: The address of the master.
        advertise: Where others reach it; None: as `listen` says.
        label: A word for operators of the cluster.
        format: How bodies are written; None: JSON. All nodes have to agree, gates aside.
        heartbeat: Seconds between signs of life, as all nodes of the cluster have it.
        deadline: Seconds until a call has failed.
        retry: Seconds between attempts to register.
        refusals: What becomes of a request that is refused: "silent", as nano, or "reply":
            an answer {"code": …, "msg": …}, in JSON.
        route: Chooses who serves a session, when nobody does yet; None: by chance.
        dial: Address -> endpoint, to reach others by.

    Raises:
        ConfigError: others could not reach it, or a setting makes no sense.

    Attributes:
        address: Where others reach it; known once it has joined, if the port was 0.
        counts: What it did: calls by their kind, and what became of them.
    """

    def __init__(
        self,
        app: App,
        listen: str | IStreamServerEndpoint,
        *,
        master: str,
        advertise: str | None = None,
        label: str = "",
        format: BodyFormat | None = None,
        heartbeat: float = 30.0,
        deadline: float = 5.0,
        retry: float = 3.0,
        refusals: str = "silent",
        route: Chooses | None = None,
        dial: Callable[[str], IStreamClientEndpoint] | None = None,
    ) -> None:
        for name, seconds in (("heartbeat", heartbeat), ("deadline", deadline), ("retry", retry)):
            if not 0 < seconds <= 3600:
                raise ConfigError(name, f"{seconds!r} s; give more than 0, and an hour at most")
        if refusals not in ("silent", "reply"):
            raise ConfigError("refusals", f"silent or reply, not {refusals!r}")
        super().__init__(app, PomeloJson() if format is None else format, deadline, route, dial)
        self.replies = refusals == "reply"
        self.counts: Counter[str] = Counter()
        if advertise is not None:
            self.address = _routable("advertise", advertise)
        self._listen = listen
        if isinstance(listen, str):
            where = parse_address("listen", listen)
            if advertise is None and where.host is not None:
                address = f"{_bracketed(where.host)}:{where.port or 1}"
                _routable("listen", address, listen)
                self.address = address if where.port else ""  # others are told the real one
        self._master = "" if not master else _routable("master", master)
        self._label = label
        self._heartbeat = float(heartbeat)
        self._retry = float(retry)
        self._mirrors: dict[str, dict[int, Mirror]] = {}
        """Gate -> number there -> mirror."""
        self._closing: dict[tuple[str, int], None] = {}
        """Sessions whose clients were asked to go, and may not know it yet."""
        self._joined = False
        self._leaving: Deferred[None] | None = None
        self._server: Server | None = None
        self._port: Any = None
        self._timer: Any = None
        self._pause: Deferred[Any] | None = None
        self._beaten = 0.0
        self._problem = ""
        self._anew = False
        """It may have been taken for dead, and is to register again."""
        app.include(_Life(self))

    @property
    def info(self) -> MemberInfo:
        """What it says of itself."""
        return MemberInfo(self._label, self.address, services_of(self.app.routes))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    # Coming and going.

    def join(self) -> Deferred[None]:
        """Listen, then be registered: fires when the master has taken it, however long that takes.

        Fails as the endpoint does, with a ConfigError or StartError for text, and with a
        LocalError: it has joined before, or left meanwhile.
        """
        return ensureDeferred(self._join())

    async def _join(self) -> None:
        if self._server is not None or self._leaving is not None:
            raise LocalError("a node joins once; make another")
        app = self.app
        app.start()
        both = shared(app)
        self._turn = Turn(both.wheel, both.writes, app.quiet)
        self._server = Server(self._methods(), self._turn)
        if isinstance(self._listen, str):
            address = parse_address("listen", self._listen)
            self._port = await address.listen(app.clock, self._server, False)
        else:
            self._port = await self._listen.listen(self._server)
        if self._leaving is not None:
            self._port.stopListening()
            raise LocalError("it left before it had joined")
        self._announce()
        log.info("{address} takes calls of nano's cluster", address=self.address)
        await self._enter()
        self._joined = True

    def _announce(self) -> None:
        """Settle the address, now that the port is known."""
        host = self._port.getHost()
        if not self.address:
            self.address = _routable("listen", f"{_bracketed(host.host)}:{host.port}")

    async def _enter(self) -> None:
        """Become a member."""
        while True:
            problem = await self._forget_me() or await self._register()
            if self._leaving is not None:
                raise LocalError("it left before it had joined")
            if not problem:
                break
            if problem != self._problem:
                self._problem = problem
                log.warn(
                    "{master} does not register {address}, which asks again: {problem}",
                    master=self._master,
                    address=self.address,
                    problem=escaped(problem),
                )
            self._pause = deferLater(self.app.clock, self._retry)
            try:
                await self._pause
            except CancelledError:
                if self._leaving is None:  # who waits for this gives it up
                    raise
                raise LocalError("it left before it had joined") from None
        self._problem = ""
        self._beaten = self.app.clock.seconds()
        log.info("{address} is a member of {master}", address=self.address, master=self._master)
        self._timer = self.app.clock.callLater(self._heartbeat, self._beat)

    async def _forget_me(self) -> str:
        """Who crashed and comes again is still known: Go's master would have him served twice.
        Why the master cannot be asked; empty: he is forgotten."""
        request = _Unregister(serviceAddr=self.address).SerializeToString()
        try:
            await self.channel(self._master).call(on.UNREGISTER, request)
        except CallFailed as error:
            return "" if error.heard else error.text
        return ""

    async def _register(self) -> str:
        """Why it is not registered; empty: it is."""
        request = _Register(memberInfo=self.info.message())
        try:
            reply = await self.channel(self._master).call(on.REGISTER, request.SerializeToString())
            members = parsed("RegisterResponse", reply).members
        except CallFailed as error:
            return error.text
        for message in members:
            try:
                info = member_info(message)
            except CallFailed as error:  # one that nobody can reach is nobody's loss
                log.warn("a member is left out: {problem}", problem=escaped(error.text))
                continue
            if info.address != self.address:
                self._others.put(info)
        return ""

    def _beat(self) -> None:
        """A sign of life. Who did nothing for so long that he is taken for dead comes anew; not so
        when it was the master that did nothing: that finds him again."""
        clock = self.app.clock
        self._timer = clock.callLater(self._heartbeat, self._beat)
        self.tidy()
        now = clock.seconds()
        if now - self._beaten > SILENCE * self._heartbeat:
            self._anew = True
        self._beaten = now
        request = _Heartbeat(memberInfo=self.info.message()).SerializeToString()
        self.channel(self._master).start(on.HEARTBEAT, request, self._heard_beat)

    def _heard_beat(self, result: bytes | CallFailed) -> None:
        self._was_heard(result.text if isinstance(result, CallFailed) else "")
        if self._anew and not self._problem and self._leaving is None:
            self._anew = False
            ensureDeferred(self._come_anew())

    async def _come_anew(self) -> None:
        problem = await self._forget_me() or await self._register()
        if problem:
            self._anew = True
            self._was_heard(problem)

    def _was_heard(self, problem: str) -> None:
        if self._leaving is not None or bool(problem) == bool(self._problem):
            return
        self._problem = problem
        if problem:
            log.warn(
                "{master} does not hear {address}: {problem}",
                master=self._master,
                address=self.address,
                problem=escaped(problem),
            )
        else:
            log.info("{master} hears {address} again", master=self._master, address=self.address)

    def leave(self) -> Deferred[None]:
        """Leave the cluster and close; fires when it is done, a few deadlines later at most."""
        if self._leaving is None:
            self._leaving = Deferred()
            ensureDeferred(self._leave()).addBoth(lambda _: self._left())
        done: Deferred[None] = Deferred()
        self._leaving.addBoth(lambda _: done.callback(None))
        return done

    def _left(self) -> None:
        log.info("{address} has left nano's cluster", address=self.address)
        assert self._leaving is not None
        self._leaving.callback(None)

    async def _leave(self) -> None:
        clock = self.app.clock
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._pause is not None:
            self._pause.cancel()
        if self._server is None:
            return
        await self._withdraw()
        self._say_goodbye()
        until = clock.seconds() + self._deadline
        while clock.seconds() < until and not all(one.is_idle for one in self._channels.values()):
            await deferLater(clock, 0.02)
        for channel in self._channels.values():
            channel.close()
        if self._port is not None:
            await self._port.stopListening()
        self._server.close()

    def _say_goodbye(self) -> None:
        """Sessions that others have a part in end."""
        for mirror in list(self._all_mirrors()):
            mirror.end(SessionEnded("this node leaves its cluster"))

    async def _withdraw(self) -> None:
        """Be a member no more."""
        if not self._joined:
            return
        self._joined = False
        request = _Unregister(serviceAddr=self.address).SerializeToString()
        try:
            await self.channel(self._master).call(on.UNREGISTER, request)
        except CallFailed as error:
            log.warn("it cannot unregister: {problem}", problem=escaped(error.text))

    @property
    def keeps_clients(self) -> bool:
        """Who closes a session closes its client's connection; a node that stops does not."""
        return self._leaving is None and self.app.state is not State.STOPPED

    # What is called here.

    def _methods(self) -> dict[bytes, Method]:
        return {
            on.REQUEST: self._request_came,
            on.NOTIFY: self._notify_came,
            on.PUSH: self._push_came,
            on.RESPONSE: self._response_came,
            on.NEW_MEMBER: self._new_member_came,
            on.DEL_MEMBER: self._del_member_came,
            on.SESSION_CLOSED: self._session_closed_came,
            on.CLOSE_SESSION: self._close_session_came,
        }

    def _request_came(self, data: bytes, served: Served) -> bytes | Deferred[bytes]:
        message = parsed("RequestMessage", data)
        served.knows = message.gateAddr
        event = Message(message.route, message.data, self.format, message.id or None)
        return self._came(message.gateAddr, message.sessionId, event)

    def _notify_came(self, data: bytes, served: Served) -> bytes | Deferred[bytes]:
        message = parsed("NotifyMessage", data)
        event = Message(message.route, message.data, self.format)
        return self._came(message.gateAddr, message.sessionId, event)

    def _came(self, gate: str, session_id: int, event: Message) -> bytes | Deferred[bytes]:
        self.counts["messages"] += 1
        if not self.app.handles(event.route):
            self.app.counts.unknown += 1
            said = f"service not found in current node: {event.route}"
            raise CallFailed(Status.UNKNOWN, said)
        if gate == self.address:
            return self._came_home(session_id, event)
        gates = self._mirrors.get(gate)
        mirror = None if gates is None else gates.get(session_id)
        if mirror is None:
            mirror = self._new_mirror(gate, session_id)
        return mirror.take(event)

    def _came_home(self, session_id: int, event: Message) -> bytes:
        """Another node says something for a client of this one."""
        raise CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {session_id}")

    def _new_mirror(self, gate: str, session_id: int) -> Mirror:
        app = self.app
        if (gate, session_id) in self._closing:
            raise CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {session_id}")
        if app.state is not State.RUNNING or self._leaving is not None:
            raise CallFailed(Status.UNAVAILABLE, "this node is going")
        if app.is_full:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "this node is full")
        mirror = Mirror(
            self, gate, session_id, Sequence(self.channel(gate), self.app.clock.callLater)
        )
        self._mirrors.setdefault(gate, {})[session_id] = mirror
        app.open(mirror.session)
        return mirror

    def _push_came(self, data: bytes, served: Served) -> bytes:
        message = parsed("PushMessage", data)
        raise CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {message.sessionId}")

    def _response_came(self, data: bytes, served: Served) -> bytes:
        message = parsed("ResponseMessage", data)
        raise CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {message.sessionId}")

    def _close_session_came(self, data: bytes, served: Served) -> bytes:
        parsed("CloseSessionRequest", data)
        return NOTHING

    def _session_closed_came(self, data: bytes, served: Served) -> bytes:
        """A client has left its gate. Which gate is not said: where two have such a session, it
        is that which asked over this connection."""
        session_id = parsed("SessionClosedRequest", data).sessionId
        gates = [gate for gate, there in self._mirrors.items() if session_id in there]
        if served.knows in gates:
            gates = [served.knows]
        for gate in gates:
            self._mirrors[gate][session_id].left("the client has left its gate")
        for key in [key for key in self._closing if key[1] == session_id]:
            self._closing.pop(key, None)
        return NOTHING

    def _new_member_came(self, data: bytes, served: Served) -> bytes:
        info = member_info(parsed("NewMemberRequest", data).memberInfo)
        self.member_came(info)
        return NOTHING

    def _del_member_came(self, data: bytes, served: Served) -> bytes:
        self.member_left(parsed("DelMemberRequest", data).serviceAddr)
        return NOTHING

    # Who else is there.

    def member_came(self, info: MemberInfo) -> None:
        """A member is new, or has started anew: then its clients are not those that it had."""
        if info.address == self.address:
            return
        if info.address in self._others.known:
            self._gate_over(info.address, "its gate has started anew")
        if not self._others.put(info):
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many members")
        channel = self._channels.get(info.address)
        if channel is not None:
            channel.reset()
        log.info("{address} knows member {other}", address=self.address, other=info.address)

    def member_left(self, address: str) -> None:
        """A member is gone: nobody is sent there, and its clients are gone with it."""
        if address == self.address or not self._others.remove(address):
            return
        for lines in self._all_lines():
            for service in [one for one, where in lines.sticky.items() if where == address]:
                del lines.sticky[service]
            lines.sequences.pop(address, None)
        self._gate_over(address, "its gate has left the cluster")
        if address != self._master:
            channel = self._channels.pop(address, None)
            if channel is not None:
                channel.close()
        log.info("{address} has lost member {other}", address=self.address, other=address)

    def _gate_over(self, gate: str, why: str) -> None:
        for mirror in list(self._mirrors.get(gate, {}).values()):
            mirror.left(why)
        for key in [key for key in self._closing if key[0] == gate]:
            del self._closing[key]

    def _all_mirrors(self) -> Iterator[Mirror]:
        for there in self._mirrors.values():
            yield from there.values()

    def _all_lines(self) -> Iterator[Lines]:
        """What sessions have to do with other nodes."""
        return self._all_mirrors()

    def tidy(self) -> None:
        """Forget how to reach whom nobody needs."""
        gates = {gate for gate, _ in self._closing}
        self.sweep({self._master, *gates, *self._mirrors})

    def lines(self, session: Session) -> tuple[Lines, str, int]:
        carrier = session.carrier
        if isinstance(carrier, Mirror) and carrier.home is self:
            return carrier, carrier.gate, carrier.id
        return super().lines(session)

    # Of mirrors.

    def mirror_ended(self, mirror: Mirror, closing: bool) -> None:
        there = self._mirrors.get(mirror.gate)
        if there is not None and there.get(mirror.id) is mirror:
            del there[mirror.id]
            if not there:
                del self._mirrors[mirror.gate]
        if closing:
            self._closing[mirror.gate, mirror.id] = None

    def mirror_closed(self, mirror: Mirror) -> None:
        """What its client had sent before it went may still come, for a while."""
        key = mirror.gate, mirror.id
        if key in self._closing:
            self.app.clock.callLater(self._deadline, self._closing.pop, key, None)


class _Life(Component):
    """A node goes when its App does."""

    def __init__(self, node: NanoMember) -> None:
        self._node = node

    def drain(self) -> None:
        ensureDeferred(self._node._withdraw())

    def stop(self) -> None:
        self._node.leave()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _routable(option: str, address: str, said: str = "") -> str:
    """An address that others can use.

    Args:
        said: What the operator has written, if not that.

    Raises:
        ConfigError: it is none.
    """
    if is_routable(address):
        return address
    said = said or address
    if option == "master":
        raise ConfigError(option, f"nobody can reach {said!r}; give the master's host:port")
    give = "advertise=host:port" if option == "listen" else "host:port"
    give += ", as they see it"
    if option == "advertise" and said.endswith(":0"):
        give += "; 0 is a free port for listen alone"
    raise ConfigError(option, f"others cannot reach {said!r}; give {give}")
