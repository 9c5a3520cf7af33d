"""The node of nano's cluster that knows who is in it, and tells all others.

    master = NanoMaster(app, "10.0.0.1:34570")
    await master.join()

Rule: what it knows is true at once; others are told as they can be: each by itself, in order, with
deadlines, and anew at its next heartbeat where that failed. So members that are dead or frozen
keep nobody from coming or going. (spec nano.md 5.3, 5.6 and 5.7)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastway.app.app import App
from fastway.cluster import messages as on
from fastway.cluster.gate import NanoGate
from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.member import SILENCE
from fastway.cluster.members import (
    INVALID,
    MAX_MEMBERS,
    MemberInfo,
    is_routable,
    member_info,
    parsed,
)
from fastway.cluster.messages import NOTHING, message_class
from fastway.cluster.server import Method, Served
from fastway.logs import escaped, make_logger

log = make_logger("fastway.cluster")

_Registered: Any = message_class("RegisterResponse")
_New: Any = message_class("NewMemberRequest")
_Del: Any = message_class("DelMemberRequest")


class _Record:
    """A member, as its master has it.

    Attributes:
        info: What it says of itself.
        heard: When it last gave a sign of life.
        fresh: It registered here; False: it was found again, when it knew others already.
        view: What it knows of others, as far as that is known here; None: it may know something,
            and is to be told anew.
        busy: It is being told something.
    """

    __slots__ = ("busy", "fresh", "heard", "info", "view")

    def __init__(self, info: MemberInfo, heard: float, fresh: bool) -> None:
        self.info = info
        self.heard = heard
        self.fresh = fresh
        self.view: dict[str, MemberInfo | None] = {}
        self.busy = False


class NanoMaster(NanoGate):
    """The master; a gate and a backend too, as far as its App has ports and handlers.

    Args:
        left: Called with each member that has left, or was taken for dead.

    All others are those of NanoGate.
    """

    def __init__(
        self,
        app: App,
        listen: Any,
        *,
        left: Callable[[MemberInfo], object] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(app, listen, master="", **settings)
        self._told_left = left
        self._records: dict[str, _Record] = {}
        self._gone: dict[str, None] = {}
        """Who was a member, and whom others may still know."""
        self._watch = _Watch(self)

    def _methods(self) -> dict[bytes, Method]:
        return {
            **super()._methods(),
            on.REGISTER: self._register_came,
            on.UNREGISTER: self._unregister_came,
            on.HEARTBEAT: self._heartbeat_came,
        }

    async def _enter(self) -> None:
        """It is one already: who watches the others begins."""
        wheel = self._turn.wheel
        wheel.watch(self._watch, wheel.seconds() + self._heartbeat)

    async def _withdraw(self) -> None:
        self._joined = False
        self._turn.wheel.forget(self._watch)

    # What members say.

    def _register_came(self, data: bytes, served: Served) -> bytes:
        message = parsed("RegisterRequest", data)
        if not message.HasField("memberInfo"):
            raise CallFailed(Status.UNKNOWN, INVALID)
        info = self._welcome(member_info(message.memberInfo))
        known = self._records.pop(info.address, None)
        if known is not None:  # it crashed, and comes anew: others are to forget what it was
            for record in self._records.values():
                if info.address in record.view:
                    record.view[info.address] = None
        record = _Record(info, self._turn.wheel.seconds(), True)
        others = [one.info for one in self._records.values()]
        if known is None:
            record.view = {other.address: other for other in others}
        else:  # what it was told of them meanwhile is uncertain; it may not even hear this
            record.view = dict.fromkeys(other.address for other in others)
        self._records[info.address] = record
        self._gone.pop(info.address, None)
        log.info("{address} has registered", address=escaped(info.address))
        self.member_came(info)
        self._tell_all()
        members = [self.info, *others]
        reply = _Registered(members=[one.message() for one in members])
        said: bytes = reply.SerializeToString()
        return said

    def _heartbeat_came(self, data: bytes, served: Served) -> bytes:
        info = self._welcome(member_info(parsed("HeartbeatRequest", data).memberInfo))
        now = self._turn.wheel.seconds()
        record = self._records.get(info.address)
        if record is None:
            self._found_again(info, now)
            return NOTHING
        record.heard = now
        if record.info != info:
            record.info = info
            self.member_came(info)
            self._tell_all()
        else:
            self._tell(record)
        return NOTHING

    def _found_again(self, info: MemberInfo, now: float) -> None:
        """A member that is alive and not known: this master is new, or took it for dead.

        It knows those who were members before this master, and they know it, unless they were
        told otherwise.
        """
        record = _Record(info, now, False)
        was_told = info.address in self._gone
        for other in self._records.values():
            if not other.fresh:
                record.view[other.info.address] = other.info
                if not was_told:
                    other.view[info.address] = info
        record.view.update(dict.fromkeys(self._gone))
        record.view.pop(info.address, None)
        self._gone.pop(info.address, None)
        self._records[info.address] = record
        log.info("{address} is found again", address=escaped(info.address))
        self.member_came(info)
        self._tell_all()

    def _unregister_came(self, data: bytes, served: Served) -> bytes:
        address = parsed("UnregisterRequest", data).serviceAddr
        if not address:
            raise CallFailed(Status.UNKNOWN, INVALID)
        if address not in self._records:
            raise CallFailed(Status.UNKNOWN, f"address {address} has not registered")
        self._strike(address, "has left")
        self._tell_all()
        return NOTHING

    def _welcome(self, info: MemberInfo) -> MemberInfo:
        """Raises CallFailed: it cannot be a member."""
        if not is_routable(info.address):
            said = f"others cannot reach {info.address!r}: listen on, or advertise, host:port"
            raise CallFailed(Status.UNKNOWN, said)
        if info.address == self.address:
            raise CallFailed(Status.UNKNOWN, "that is the address of the master")
        if info.address not in self._records and len(self._records) >= MAX_MEMBERS:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many members")
        return info

    def _strike(self, address: str, what: str) -> None:
        """It is a member no more."""
        record = self._records.pop(address)
        self._gone[address] = None
        if len(self._gone) > MAX_MEMBERS:
            del self._gone[next(iter(self._gone))]
        log.info("{address} {what}", address=escaped(address), what=what)
        self.member_left(address)
        if self._told_left is not None:
            try:
                self._told_left(record.info)
            except Exception:
                log.failure("what hears who has left the cluster failed")

    def look(self, now: float) -> float:
        """Strike all who are silent, then tell the others."""
        patience = SILENCE * self._heartbeat
        silent = [a for a, record in self._records.items() if now - record.heard > patience]
        for address in silent:
            self._strike(
                address, f"was silent for more than {patience:g} s, and is taken for dead"
            )
        if silent:
            self._tell_all()
        self.tidy()
        return now + self._heartbeat

    # What members are told.

    def _tell_all(self) -> None:
        for record in tuple(self._records.values()):
            self._tell(record)

    def _tell(self, record: _Record) -> None:
        """Tell a member the first thing that it does not know; then the next."""
        if record.busy or self._leaving is not None:
            return
        told = self._news(record)
        if told is None:
            return
        path, request, address, info = told
        record.busy = True
        place = record.info.address

        def heard(result: bytes | CallFailed) -> None:
            record.busy = False
            if self._records.get(place) is not record:
                return
            if not isinstance(result, CallFailed):
                if info is None:
                    record.view.pop(address, None)
                else:
                    record.view[address] = info
                self._tell(record)
                return
            if info is not None and not result.heard:
                record.view[address] = None  # it may have heard it
            log.warn(
                "{member} cannot be told of {address}: {problem}",
                member=escaped(place),
                address=escaped(address),
                problem=escaped(result.text),
            )

        try:
            channel = self.channel(place)
        except CallFailed as error:  # there are too many nodes; that is not the fault of who calls
            heard(error)
        else:
            channel.start(path, request, heard)

    def _news(self, record: _Record) -> tuple[bytes, bytes, str, MemberInfo | None] | None:
        """What a member does not know: a call, its message, and whom it is about."""
        records, view, own = self._records, record.view, record.info.address
        for address, known in view.items():
            other = records.get(address)
            if other is None or known != other.info:
                return on.DEL_MEMBER, _Del(serviceAddr=address).SerializeToString(), address, None
        for address, other in records.items():
            if address != own and address not in view:
                info = other.info
                request = _New(memberInfo=info.message()).SerializeToString()
                return on.NEW_MEMBER, request, address, info
        return None


class _Watch:
    """When a master looks who is silent: on the wheel, whose time stands still while nobody could
    be heard."""

    def __init__(self, master: NanoMaster) -> None:
        self.slot = -1
        self._master = master

    def check(self, now: float) -> float | None:
        return self._master.look(now)
