"""A dialect for tests: lines of words, with all that the seam has, both ways.

    hi USER / welcome USER / no 0 CODE TEXT     the handshake
    say ROUTE BODY, ask KEY ROUTE BODY          messages
    ok KEY BODY, no KEY CODE TEXT               answers
    beat, bye REASON

Bodies are JSON. `Words(greets=False)` has no handshake.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from fastway.dialect import (
    Answer,
    BadFrame,
    BodyFormat,
    Event,
    FrameRefused,
    Hello,
    Kicked,
    Message,
    Meta,
    NotInDialect,
    Ready,
    Refused,
    WebSocketRules,
)
from fastway.errors import RemoteError
from fastway.formats import Json

FORMAT: BodyFormat = Json(Any)


class Words:
    """The dialect.

    Args:
        beats: Seconds between beats; who is silent for two and a half is lost. 0: none.
    """

    name = "words"
    websocket: WebSocketRules | None = WebSocketRules(text=True, whole=False)

    def __init__(
        self,
        *,
        greets: bool = True,
        beats: float = 0.0,
        concurrent: int = 1,
        max_frame: int = 1000,
        user: Any = None,
    ) -> None:
        self.greets = greets
        self.beats = beats
        self.concurrent = concurrent
        self.max_frame = max_frame
        self.user = user

    def server(self, *, whole: bool = False) -> WordsWire:
        return WordsWire(self, True)

    def client(self, *, whole: bool = False) -> WordsWire:
        return WordsWire(self, False)

    def wire_name(self, route: str) -> str:
        return route.lower()

    def app_name(self, name: str) -> str:
        return name


class WordsWire:
    """One connection."""

    def __init__(self, settings: Words, is_server: bool) -> None:
        self.ready = False
        self.error: RemoteError | None = None
        self.deadline: float | None = None
        self.shape: Hashable = ("words", settings.max_frame)
        self.format = FORMAT
        self._settings = settings
        self._is_server = is_server
        self._rest = b""
        self._asking = False
        self._out: list[bytes] = []
        self._heard = 0.0
        self._key = 0
        self._events: list[Event] = []

    def begin(self, now: float) -> None:
        self._heard = now
        if self._settings.beats:
            self.deadline = now + self._settings.beats
        if not self._settings.greets:
            self.ready = True
            self._events.append(Ready())
        elif not self._is_server:
            self._out.append(self._line("hi", json.dumps(self._settings.user)))

    def receive(self, data: bytes, now: float) -> list[Event]:
        self._rest += data
        if data:
            self._heard = now
        events, self._events = self._events, []
        while self.error is None and not self._asking:
            line, newline, rest = self._rest.partition(b"\n")
            if len(line) > self._settings.max_frame:
                self.error = BadFrame(f"a line of over {self._settings.max_frame} bytes")
                break
            if not newline:
                break
            self._rest = rest
            try:
                self._line_came(line.decode(), events)
            except (ValueError, KeyError, UnicodeDecodeError):
                self.error = BadFrame("a line that says nothing")
        return events

    def _line_came(self, line: str, events: list[Event]) -> None:
        verb, _, rest = line.partition(" ")
        if verb == "beat":
            return
        if verb == "bye":
            events.append(Kicked(json.loads(rest)))
        elif not self.ready:
            if self._is_server and verb == "hi":
                self._asking = True
                events.append(Hello(json.loads(rest), rest.encode()))
            elif not self._is_server and verb == "welcome":
                self.ready = True
                events.append(Ready(json.loads(rest)))
            elif not self._is_server and verb == "no":
                _, code, text = rest.split(" ", 2)
                events.append(Kicked(f"{code} {text}"))
            else:
                raise ValueError(verb)
        elif verb == "say":
            route, body = rest.split(" ", 1)
            events.append(Message(route, body.encode(), FORMAT))
        elif verb == "ask":
            key, route, body = rest.split(" ", 2)
            events.append(Message(route, body.encode(), FORMAT, int(key)))
        elif verb == "ok":
            key, body = rest.split(" ", 1)
            events.append(Answer(int(key), body.encode(), FORMAT))
        elif verb == "no":
            key, code, text = rest.split(" ", 2)
            events.append(Answer(int(key), b"", FORMAT, Refused(int(code), text)))
        else:
            raise ValueError(verb)

    def accept(self, user: Any = None) -> None:
        self._asking = False
        self.ready = True
        self._out.append(self._line("welcome", json.dumps(user)))
        self._events.append(Ready())

    def reject(self, refused: Refused) -> None:
        self._out.append(self._line("no 0", f"{refused.code} {refused.text}"))

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        if meta:
            raise NotInDialect("words have nothing beside them")
        return self._line(f"say {route}", body.decode())

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        self._key += 1
        return self._key, self._line(f"ask {self._key} {route}", body.decode())

    def forget(self, key: int) -> None:
        pass

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        return self._line(f"ok {token}", body.decode())

    def refuse(self, token: Any, refused: Refused) -> bytes:
        return self._line(f"no {token}", f"{refused.code} {refused.text}")

    def kick(self, reason: Any = None) -> bytes:
        return self._line("bye", json.dumps(reason))

    def tick(self, now: float, deaf: bool = False) -> None:
        if deaf:
            self._heard = now
        if now - self._heard >= 2.5 * self._settings.beats:
            self.error = BadFrame("it gives no sign of life")
            return
        self._out.append(b"beat\n")
        self.deadline = now + self._settings.beats

    def data_to_send(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def _line(self, verb: str, rest: str) -> bytes:
        line = f"{verb} {rest}\n".encode()
        if len(line) > self._settings.max_frame + 1:
            raise FrameRefused(f"a line of {len(line)} bytes is over {self._settings.max_frame}")
        return line
