"""Players: peers of an App in a test, without a socket, a reactor or a wire.

    ann = Player(app)
    assert ann.request("room.join", Join("ann"), into=Joined).members == ["ann"]
    assert bob.heard[-1] == ("onMessage", {"name": "ann", "content": "hi"})

Rule: a message goes through the format both ways, as it does over a wire, so that what would not
encode or decode there fails here, and so does what the App has declared otherwise; handlers,
hooks, groups and strands are those of the App.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from fastway.app.app import App
from fastway.app.handlers import Answering
from fastway.app.handling import BUSY
from fastway.app.messages import BadBody, decode, encode
from fastway.app.session import Lane, NotReady, SessionEnded
from fastway.dialect import BodyFormat, Hello, Message, Meta, Refused
from fastway.errors import LocalError, RequestTimeout
from fastway.formats import Json


class NotAnswered(LocalError):
    """A handler has not answered yet: it waits for something; `ask` gives what can be awaited."""


class NotAsDeclared(LocalError):
    """An App tells what is not of the type that it declared (`App.sends`). One line."""


@dataclass(slots=True)
class _Asked:
    """A request of the player that waits for its answer, or who waits for what it says."""

    done: Deferred[Any]
    into: Any

    heard: list[tuple[str, str]] | None = None

    def answer(self, body: bytes, form: BodyFormat, meta: Meta = ()) -> None:
        """The answer is there."""
        if self.done.called:
            return
        if self.heard is not None:
            self.heard += meta
        try:
            answer = decode(body, form, self.into)
        except Refused:
            self.done.errback()
        else:
            self.done.callback(answer)


class Player:
    """A peer.

    Args:
        app: Whose; one that has no clock is given a `task.Clock` of its own.
        user: What it says of itself at the handshake.
        format: What messages are written in.
        address: Where it seems to come from.

    Attributes:
        heard: What it was told: routes and messages, as plain values.
        answers: Route -> what it answers when the App asks it: called with the message; what it
            returns is the answer, and a Refused that it raises is one too. Other routes it leaves
            unanswered.
        session: The App's side of it.
        welcome: What the handshake told it.
        kicked: Why it was kicked; None: it was not.

    Raises:
        Refused: it is not let in.
        SessionEnded: it was closed at its handshake.
    """

    def __init__(
        self,
        app: App,
        user: Any = None,
        *,
        format: BodyFormat | None = None,
        address: str = "player",
    ) -> None:
        if app.is_clockless:
            app.use_clock(Clock())
        app.start()
        self.app = app
        self.heard: list[tuple[str, Any]] = []
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.kicked: Any = None
        self.format: BodyFormat = Json(Any) if format is None else format
        self._carrier = _Carrier(self, address)
        self.session = app.new_session(self._carrier)
        try:
            problem = app.refuses(self.session)
            if problem:
                raise Refused(BUSY, problem)
            asked = app.hello(self.session, Hello(user, b""))
            self.welcome = None if asked is None else _now(asked, "the handshake")
            if self.session.ended is not None:
                raise SessionEnded(str(self.session.ended))
        except BaseException:
            self.leave()
            raise
        self._carrier.ready = True
        app.open(self.session)

    def send(self, route: str, message: Any = None, *, meta: Meta = ()) -> None:
        """Say something to the App."""
        self._carrier.say(route, message, None, meta)

    def request(
        self,
        route: str,
        message: Any = None,
        *,
        into: Any = Any,
        meta: Meta = (),
        answer_meta: list[tuple[str, str]] | None = None,
    ) -> Any:
        """Ask the App something that it answers at once; as `Session.request`.

        Raises:
            Refused: it says no.
            NotAnswered: it has not answered; `ask` waits.
        """
        asked = self.ask(route, message, into=into, meta=meta, answer_meta=answer_meta)
        return _now(asked, route)

    def ask(
        self,
        route: str,
        message: Any = None,
        *,
        into: Any = Any,
        meta: Meta = (),
        answer_meta: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        """Ask the App something: fires with the answer, or fails with Refused."""
        return self._carrier.ask(route, message, into, meta, answer_meta)

    def leave(self) -> None:
        """Be gone, as when the network breaks."""
        self._carrier.end(SessionEnded("the peer closed"))

    def told(self, route: str) -> list[Any]:
        """All that it was told of a route."""
        return [message for heard, message in self.heard if heard == route]


class _Carrier(Answering):
    """What carries a player's session."""

    dialect = "player"
    lane: Lane | None = None

    def __init__(self, player: Player, address: str) -> None:
        self.address = address
        self._player = player
        self._keys = count(1)
        self._asked: dict[int, _Asked] = {}
        self._nexts: dict[str, list[_Asked]] = {}
        self._unanswered: list[_Asked] = []
        self.ready = False

    # From the player to the App.

    def ask(
        self,
        route: str,
        message: Any,
        into: Any,
        meta: Meta,
        heard: list[tuple[str, str]] | None,
    ) -> Deferred[Any]:
        key = next(self._keys)
        done: Deferred[Any] = Deferred()
        self._asked[key] = _Asked(done, into, heard)
        self.say(route, message, key, meta)
        return done

    def say(self, route: str, message: Any, key: int | None, meta: Meta) -> None:
        player = self._player
        app, session, form = player.app, player.session, player.format
        if session.ended is not None:
            raise SessionEnded(str(session.ended))
        event = Message(route, encode(message, form), form, key, None, meta)
        app.counts.messages += 1
        if self._nexts.get(route) and key is None:
            self._nexts[route][0].answer(event.body, form)
            return
        app.counts.requests += event.token is not None
        app.counts.pending += event.token is not None
        session.strand.run(lambda: app.handle(session, event, self))

    # From the App to the player.

    @property
    def shape(self) -> Hashable:
        return "player", id(self._player.format)

    def pack(self, route: str, message: Any, meta: Meta = ()) -> tuple[str, bytes]:
        return route, self._declared(route, encode(message, self._player.format))

    def _declared(self, route: str, body: bytes) -> bytes:
        """A body, which is of the type that the App has declared of its route, if it has."""
        player = self._player
        sent = player.app.sent.get(route)
        if sent is not None:
            try:
                decode(body, player.format, sent.kind)
                if sent.kind is None and body != encode(None, player.format):
                    raise BadBody("it has no message")
            except BadBody as error:
                name = getattr(sent.kind, "__name__", sent.kind)
                raise NotAsDeclared(
                    f"{route} is declared as {name}, and this is none: {error.detail}"
                ) from None
        return body

    def tell(self, packet: tuple[str, bytes]) -> None:
        player = self._player
        if player.session.ended is None:
            player.app.counts.sent += 1
            route, body = packet
            player.heard.append((route, player.format.decode(body)))

    def room(self) -> Deferred[None] | None:
        return None

    def reply(self, event: Message, result: Any, meta: Meta = ()) -> None:
        if event.token is None:
            return
        body = encode(result, event.format)
        self._player.app.counts.pending -= 1
        asked = self._asked.pop(event.token, None)
        if asked is not None:
            asked.answer(body, event.format, meta)

    def refuse(self, event: Message, refused: Refused) -> None:
        asked = self._asked.pop(event.token, None)
        if event.token is not None:
            self._player.app.counts.refused += 1
            self._player.app.counts.pending -= 1
        if asked is not None and not asked.done.called:
            asked.done.errback(refused)

    def request(
        self,
        route: str,
        message: Any,
        into: Any,
        timeout: float | None,
        meta: Meta,
        heard: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        if not self.ready:
            return fail(NotReady())
        form = self._player.format
        body = self._declared(route, encode(message, form))
        answer = self._player.answers.get(route)
        if answer is None:
            return self._wait(self._unanswered, route, into, timeout)
        try:
            result = encode(answer(form.decode(body)), form)
            return succeed(decode(result, form, into))
        except Refused:
            return fail()

    def next(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]:
        if not self.ready:
            return fail(NotReady())
        return self._wait(self._nexts.setdefault(route, []), route, into, timeout)

    def _wait(
        self, waiting: list[_Asked], route: str, into: Any, timeout: float | None
    ) -> Deferred[Any]:
        asked = _Asked(Deferred(), into)
        waiting.append(asked)
        if timeout is not None:
            self._add_timeout(asked.done, route, timeout)

        def over(result: Any) -> Any:
            waiting.remove(asked)
            return result

        return asked.done.addBoth(over)

    def _add_timeout(self, done: Deferred[Any], route: str, timeout: float) -> None:
        clock = self._player.app.clock
        done.addTimeout(timeout, clock, lambda _, seconds: fail(RequestTimeout(route, seconds)))

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        self.end(SessionEnded("closed here"))

    def kick(self, reason: Any) -> None:
        self._player.kicked = True if reason is None else reason
        self.end(SessionEnded("kicked"))

    def end(self, why: SessionEnded) -> None:
        player = self._player
        if player.session.ended is not None:
            return
        player.app.close(player.session, why)
        asked, self._asked = self._asked, {}
        waiting = [one for nexts in self._nexts.values() for one in nexts]
        waiting += self._unanswered
        for one in (*asked.values(), *waiting):
            if not one.done.called:
                one.done.errback(SessionEnded(str(why)))


def _now(asked: Deferred[Any], what: str) -> Any:
    """The result of what has fired.

    Raises:
        whatever it failed with.
        NotAnswered: it has not fired.
    """
    results: list[Any] = []
    asked.addBoth(results.append)
    if not results:
        raise NotAnswered(f"{what} is not answered yet; await ask(...), or turn the clock")
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result
