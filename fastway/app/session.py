"""One peer of an application: who it is, what it is told, what it is asked.

Rule: a session lives from its hello until its connection ends, and is told that once; whatever
ends it, it has left all groups before anybody hears of it. It knows no bytes: its carrier does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Hashable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from fastway.app.strand import Strand
from fastway.dialect import Meta, Refused
from fastway.errors import ConnectionEnded, LocalError


class SessionEnded(ConnectionEnded):
    """The session is over. Nothing was sent, or no answer will come.

    Attributes:
        cause: What went wrong; None: it was closed in order.
    """


class NotReady(LocalError):
    """A session is at its handshake: it can be asked nothing before it is let in."""

    def __init__(self) -> None:
        super().__init__("the session is not let in yet: ask it from @app.opened on")


class Home(Protocol):
    """What sessions and groups need of their App."""

    @property
    def tasks(self) -> bool:
        """Handlers are asyncio tasks."""

    @property
    def has_outgoing(self) -> bool:
        """Each message that is sent is looked at."""

    def outgoing_message(self, session: Session, route: str, message: Any, meta: Meta) -> Any:
        """A message as hooks leave it, with `route`, `message` and `meta`.

        Raises:
            Refused: it is not sent.
        """

    def bind(self, session: Session, user: Any) -> None:
        """See `Session.bind`."""

    def log_failure(self, what: str, text: str) -> None:
        """Log the exception that is being handled, unless there are too many of them."""


class Circle(Protocol):
    """What sessions can be members of."""

    def forget(self, session: Session) -> None:
        """It has ended."""

    def let_in(self) -> None:
        """One that was at its handshake is ready: from now on it may be told as others are."""


class Lane(Protocol):
    """What carries many sessions, and can give one thing to many of them in one call."""

    def multicast(self, carriers: list[Any], packet: Any, group: object) -> None:
        """Tell it to each, in order with all else that each is told.

        Args:
            carriers: The same list as long as nobody has come to the group or gone.
            group: Whose members they are; a lane may keep a copy of it where that saves work.
        """


class Carrier(Protocol):
    """What carries one session: a connection with its dialect, or a test's player.

    Attributes:
        address: Of the peer, as operators write it.
        dialect: The name of what it speaks.
        shape: Carriers of equal shapes may be told the same packet.
        lane: Who tells many at once; None: `tell` is called for each.
    """

    @property
    def address(self) -> str: ...

    @property
    def dialect(self) -> str: ...

    @property
    def shape(self) -> Hashable: ...

    @property
    def lane(self) -> Lane | None: ...

    def pack(self, route: str, message: Any, meta: Meta = ()) -> Any:
        """What `tell` takes. Raises what is wrong with the message."""

    def tell(self, packet: Any) -> None:
        """Send a packet, soon, if the carrier has not ended; once it is ready if it is not."""

    def room(self) -> Deferred[None] | None:
        """Fires when less waits than should; None: it is so."""

    def request(
        self,
        route: str,
        message: Any,
        into: Any,
        timeout: float | None,
        meta: Meta,
        heard: list[tuple[str, str]] | None,
    ) -> Deferred[Any]: ...

    def next(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]: ...

    def close(self) -> None:
        """End it behind what was told."""

    def abort(self) -> None:
        """End it now."""

    def kick(self, reason: Any) -> None:
        """As `close`, and say why before, where the dialect can."""


class Rooms:
    """Who waits until less does, in a carrier."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self) -> Deferred[None]:
        """One more."""
        room: Deferred[None] = Deferred()
        self._waiting.append(room)
        return room

    def fire(self) -> None:
        """There is room, or nothing will be told any more."""
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            if not room.called:
                room.callback(None)


class _Nothing:
    """What is awaited where there is nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


NOTHING = _Nothing()


class _ForTasks(Deferred[Any]):
    """A Deferred that an asyncio task can await too."""

    def __init__(self, wraps: Deferred[Any]) -> None:
        super().__init__(lambda _: wraps.cancel())
        wraps.addBoth(self._fired)

    def _fired(self, result: Any) -> None:
        if not self.called:
            self.callback(result)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs
            task = None
        if task is None:
            return super().__await__()
        return self.asFuture(task.get_loop()).__await__()


class Session:
    """One peer. Handlers get it; `send` and `request` go the other way.

    Attributes:
        app: Whose it is.
        session_id: A number that no other session of this process has; text in `str`.
        user: Whom `bind` named, also when it is over; None: nobody yet.
        state: The application's own.
        strand: What its messages run in: its own, unless the application gives it another.
        ended: Why it is over; None while it lives.
    """

    __slots__ = (
        "__weakref__",
        "_carrier",
        "_groups",
        "_waiters",
        "app",
        "ended",
        "session_id",
        "state",
        "strand",
        "user",
    )

    def __init__(self, app: Home, carrier: Carrier, session_id: int, strand: Strand) -> None:
        self.app = app
        self.session_id = session_id
        self.user: Any = None
        self.state: Any = None
        self.strand = strand
        self.ended: SessionEnded | None = None
        self._carrier = carrier
        self._groups: list[Circle] | None = None
        self._waiters: list[Deferred[SessionEnded]] | None = None

    @property
    def peer(self) -> str:
        """The address of the peer, as operators write it; of who is behind a proxy or a gateway
        that of the player, once it is told."""
        return self._carrier.address

    @property
    def dialect(self) -> str:
        """The name of what it speaks."""
        return self._carrier.dialect

    @property
    def carrier(self) -> Carrier:
        """What carries it."""
        return self._carrier

    def send(self, route: str, message: Any = None, *, meta: Meta = ()) -> Any:
        """Say something to the peer, in order with all else that it is told.

        At its handshake it is told behind the answer to that.

        Args:
            route: What it is about.
            message: In what the port's format can say; bytes and Encoded are bodies already.
            meta: What goes beside it, where the dialect has that.

        Returns:
            What may be awaited: it ends when less waits for the peer than should. Who sends much
            awaits it; who does not is held to the bound of the session, over which it is ended.

        Raises:
            SessionEnded: it is over.
            FrameRefused, NotInDialect: it cannot be sent.
        """
        if self.ended is not None:
            raise self._over()
        carrier = self._carrier
        try:
            out = self.app.outgoing_message(self, route, message, meta)
        except Refused:
            return NOTHING
        carrier.tell(carrier.pack(out.route, out.message, out.meta))
        room = carrier.room()
        return NOTHING if room is None else self._awaitable(room)

    def _awaitable(self, done: Deferred[Any]) -> Deferred[Any]:
        return _ForTasks(done) if self.app.tasks else done

    def request(
        self,
        route: str,
        message: Any = None,
        *,
        into: Any = Any,
        timeout: float | None = 30.0,
        meta: Meta = (),
        answer_meta: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        """Ask the peer something.

        Args:
            into: The type of the answer; Any: as it comes.
            timeout: Seconds; None: as long as the session lives.
            meta: What goes beside it, where the dialect has that.
            answer_meta: What comes beside the answer, a Refused as well, is added to it.

        Returns:
            The answer. Fails with Refused: the peer says no, or an `outgoing` hook does;
            RequestTimeout: it says nothing; SessionEnded: it is gone, and nobody knows whether it
            was done; BadBody: the answer is not of that type; NotInDialect: nothing can be asked
            here; NotReady: it is at its handshake. It is never sent twice.
        """
        if self.ended is not None:
            raise self._over()
        return self._awaitable(
            self._carrier.request(route, message, into, timeout, meta, answer_meta)
        )

    def next(self, route: str, *, into: Any = Any, timeout: float | None = 30.0) -> Deferred[Any]:
        """Wait for what the peer says of a route next, where nothing can be asked.

            session.send("Join", Join("ann"))
            joined = await session.next("Joined", into=Joined)

        That message goes to who waits for it, the longest first, and to no handler; like an answer
        it passes those that queue in the strand. What came before is not waited for.

        Args:
            into: The type of the message; Any: as it comes.
            timeout: Seconds; None: as long as the session lives.

        Returns:
            The message. Fails with Refused: the peer says that something is not done, and cannot
            say what, so that it is who waits longest; RequestTimeout, SessionEnded, BadBody,
            NotReady and RequestsFull: as `request`.
        """
        if self.ended is not None:
            raise self._over()
        return self._awaitable(self._carrier.next(route, into, timeout))

    def bind(self, user: Any) -> None:
        """Name the user that this is; None: nobody again.

        What becomes of other sessions of that user is a setting of the App.

        Raises:
            Refused: the App keeps the earlier session.
            SessionEnded: it is over.
        """
        if self.ended is not None:
            raise self._over()
        self.app.bind(self, user)

    def close(self) -> None:
        """End it behind what was told; a second time nothing happens."""
        if self.ended is None:
            self._carrier.close()

    def abort(self) -> None:
        """End it now: what waits is not sent."""
        if self.ended is None:
            self._carrier.abort()

    def kick(self, reason: Any = None) -> None:
        """End it behind what was told, and say why before, where the dialect can."""
        if self.ended is None:
            self._carrier.kick(reason)

    def when_ended(self) -> Deferred[SessionEnded]:
        """Fires with why it is over when it is; at once if it is."""
        done: Deferred[SessionEnded] = Deferred(self._forget_waiter)
        if self.ended is not None:
            done.callback(self._over())
        elif self._waiters is None:
            self._waiters = [done]
        else:
            self._waiters.append(done)
        return self._awaitable(done)

    def _forget_waiter(self, done: Deferred[SessionEnded]) -> None:
        if self._waiters is not None and done in self._waiters:
            self._waiters.remove(done)

    def _over(self) -> SessionEnded:
        """Each who is told has his own: a traceback grows."""
        ended = self.ended
        assert ended is not None
        return SessionEnded(str(ended), ended.cause)

    # Of groups, and of whoever carries it.

    def enter(self, group: Circle) -> None:
        """A group has it as a member, and is told when it ends."""
        if self._groups is None:
            self._groups = [group]  # a dict would cost more than all else of it
        else:
            self._groups.append(group)

    def leave(self, group: Circle) -> None:
        """That group has it no more."""
        if self._groups is not None and group in self._groups:
            self._groups.remove(group)

    def let_in(self) -> None:
        """It is ready: the carrier says so."""
        for group in self._groups or ():
            group.let_in()

    def end(self, ended: SessionEnded) -> None:
        """It is over: the carrier says so, once, before anybody else is told."""
        self.ended = ended
        groups, self._groups = self._groups, None
        for group in groups or ():
            group.forget(self)
        waiters, self._waiters = self._waiters, None
        for done in waiters or ():
            if not done.called:
                done.callback(self._over())

    def __repr__(self) -> str:
        who = "" if self.user is None else f" of {self.user!r}"
        return f"<Session {self.session_id}{who} {self.dialect} {self.peer}>"
