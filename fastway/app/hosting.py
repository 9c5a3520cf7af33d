"""Sessions of an application: who is let in, who is here, and the hooks that hear of it.

Rule: whoever ends has left everything before anybody is told. Hooks run in the session's strand,
one after the other; one that fails is logged, and the others run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from inspect import isawaitable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from fastway.app.bounds import Bounds, State, Users
from fastway.app.group import Group
from fastway.app.handlers import Outgoing
from fastway.app.handling import F, Handling, name_of
from fastway.app.messages import Wanted, check_call, convert, greeting
from fastway.app.session import Carrier, Session, SessionEnded
from fastway.app.strand import OwnStrand, Strand
from fastway.dialect import Hello, Meta, Refused
from fastway.logs import escaped

_session_ids = count(1)


class Hosting(Handling):
    """Sessions, their users and their hooks.

    Args:
        users, bounds, strand, tasks, clock: As `App` has them.

    Attributes:
        sessions: Those that are open, by their ids.
    """

    def __init__(
        self,
        users: Users,
        bounds: Bounds,
        strand: Strand | None,
        tasks: bool,
        clock: IReactorTime | None,
    ) -> None:
        super().__init__(tasks, clock)
        self.users = users
        self.bounds = bounds
        self.strand = strand
        self.state = State.NEW
        self.sessions: dict[int, Session] = {}
        self._users: dict[Any, Group] = {}
        self._handshake: Wanted | None = None
        self._opened: list[Callable[[Session], Any]] = []
        self._closed: list[Callable[[Session], Any]] = []
        self._outgoing: list[Callable[[Outgoing], object]] = []

    def handshake(self, call: F) -> F:
        """Decorates what lets peers in: `(session, user)`; `user` is what the peer says of itself.

        Where that is annotated with a type, it is one, or its peer is refused as a bad message.
        What it returns is told to the peer, where its dialect has a place. A Refused, or any other
        exception, ends the connection as the dialect has it. A second one takes its place.
        """
        self.check_open()
        check_call(call, "the session", "the user")
        self._handshake = greeting(call)
        return call

    def opened(self, call: F) -> F:
        """Decorates what is called with each new session, before its first message."""
        self.check_open()
        check_call(call, "the session")
        self._opened.append(call)
        return call

    def closed(self, call: F) -> F:
        """Decorates what is called with each session that has ended, behind its last message."""
        self.check_open()
        check_call(call, "the session")
        self._closed.append(call)
        return call

    def outgoing(self, call: F) -> F:
        """Decorates what sees each message before it is encoded: `(out: Outgoing)`.

        It may change it; a Refused that it raises keeps it from being sent. Groups then encode for
        each member.
        """
        self.check_open()
        check_call(call, "the message")
        self._outgoing.append(call)
        return call

    @property
    def greets(self) -> Wanted | None:
        """How the handshake hook is called; None: there is none."""
        return self._handshake

    # Of carriers: what happens to their sessions.

    def new_session(self, carrier: Carrier, concurrent: int = 1) -> Session:
        """A session that nobody knows yet."""
        strand = self.strand or OwnStrand(self.bounds.strand, concurrent)
        return Session(self, carrier, next(_session_ids), strand)

    @property
    def is_full(self) -> bool:
        """There are as many sessions as may be."""
        return 0 < self.bounds.sessions <= len(self.sessions)

    def refuses(self, session: Session) -> str:
        """Why a session is not let in now: a word; empty: it is."""
        if session.session_id in self.sessions:
            return ""
        if self.state in (State.DRAINING, State.STOPPED):
            return str(self.state.value)
        return "full" if self.is_full else ""

    def hello(self, session: Session, hello: Hello) -> Deferred[Any] | None:
        """Whether a peer is let in: fires with what it is told; fails: it is not.

        Returns:
            None: there is no handshake hook, it is.
        """
        if self._handshake is None:
            return None
        return self._as_deferred(self._greet, self._handshake, session, hello.user)

    def _greet(self, how: Wanted, session: Session, user: Any) -> Any:
        return how.call(session, user if how.kind is Any else convert(user, how.kind))

    def open(self, session: Session) -> None:
        """A session is ready: `opened` hooks run before its first message."""
        self.sessions[session.session_id] = session
        counts = self.counts
        counts.opened += 1
        counts.came[session.dialect] += 1
        counts.here[session.dialect] += 1
        if self._opened:
            self._run_hooks(session, self._opened)

    def close(self, session: Session, ended: SessionEnded) -> None:
        """A session is over: it leaves everything; then hooks run, if it was opened."""
        was_open = self.sessions.pop(session.session_id, None) is not None
        if was_open:
            self.counts.closed += 1
            self.counts.here[session.dialect] -= 1
        self._leave_user(session)
        session.end(ended)
        if was_open and self._closed:
            self._run_hooks(session, self._closed)

    def _run_hooks(self, session: Session, hooks: Iterable[Callable[[Session], Any]]) -> None:
        """In a wide strand nothing of the session runs beside them; one that all share goes on."""
        strand, job = session.strand, partial(self._hooks, session, hooks)
        if strand is self.strand:
            strand.run(job)
        else:
            strand.run_alone(job)

    def _hooks(
        self, session: Session, hooks: Iterable[Callable[[Session], Any]]
    ) -> Coroutine[Any, Any, None] | None:
        """Call them one after the other: a job for a strand."""
        left = iter(tuple(hooks))
        for hook in left:
            made = self._hook(session, hook)
            if made is not None:
                return self._await_hooks(session, hook, made, left)
        return None

    def _hook(self, session: Session, hook: Callable[[Session], Any]) -> Awaitable[Any] | None:
        """What of it is to be awaited."""
        try:
            made = hook(session)
            return self.in_task(made) if isawaitable(made) else None
        except BaseException:
            self._hook_failed(session, hook)
            return None

    def _hook_failed(self, session: Session, hook: Callable[[Session], Any]) -> None:
        who = escaped(repr(session))
        self.log_failure(f"the hook {name_of(hook)}", f"the hook {name_of(hook)} failed for {who}")

    async def _await_hooks(
        self,
        session: Session,
        hook: Callable[[Session], Any],
        made: Awaitable[Any] | None,
        left: Iterator[Callable[[Session], Any]],
    ) -> None:
        while True:
            try:
                if made is not None:
                    await made
            except GeneratorExit:  # it waited for what nobody can fire any more
                return
            except BaseException:
                self._hook_failed(session, hook)
            found = next(left, None)
            if found is None:
                return
            hook = found
            made = self._hook(session, hook)

    def bind(self, session: Session, user: Any) -> None:
        """`Session.bind`."""
        if user == session.user:
            return
        mine = self._users.get(user) if user is not None else None
        if mine and self.users is Users.REFUSE:
            raise Refused(409, "this user is here already")
        others = tuple(mine or ()) if self.users is Users.KICK else ()
        self._leave_user(session)
        session.user = user
        if user is None:
            return
        if mine is None:
            mine = self._users[user] = Group(self)
        mine.add(session)
        for other in others:
            mine.discard(other)
            other.kick({"reason": "replaced by a newer session"})

    def _leave_user(self, session: Session) -> None:
        """Its user has one session less."""
        mine = self._users.get(session.user) if session.user is not None else None
        if mine is not None:
            mine.discard(session)
            if not mine:
                del self._users[session.user]

    @property
    def has_outgoing(self) -> bool:
        """Each message that is sent is looked at."""
        return bool(self._outgoing)

    def outgoing_message(
        self, session: Session, route: str, message: Any, meta: Meta = ()
    ) -> Outgoing:
        """A message as hooks leave it.

        Raises:
            Refused: it is not sent.
        """
        out = Outgoing(session, route, message, meta)
        for hook in self._outgoing:
            hook(out)
        return out

    def _as_deferred(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        try:
            made = call(*args)
        except BaseException:
            return fail()
        if isawaitable(made):
            return ensureDeferred(self._awaited(made))
        return succeed(made)

    async def _awaited(self, made: Awaitable[Any]) -> Any:
        return await self.in_task(made)
