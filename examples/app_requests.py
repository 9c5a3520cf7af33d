"""Requests and answers of `fastway.app`: typed messages, refusals, timeouts, and a slow handler.

python examples/app_requests.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from fastway.app import App, NotInDialect, Refused, Request, Session
from fastway.app.testing import Player
from fastway.dialect.pomelo import Pomelo
from fastway.errors import RequestTimeout

POMELO = Pomelo(profile="pitaya")  # nano's wire, and refusals are seen as such


def calculator() -> App:
    app = App()
    app.sends("pick", str, answer=int)  # these two are for `fastway describe`
    app.refusal(1001, "too many numbers", "math.add")

    @app.handler("math.add")
    def add(numbers: list[int]) -> int:
        if len(numbers) > 100:
            raise Refused(1001, "too many numbers")
        return sum(numbers)

    @app.handler("math.power")
    async def power(pair: tuple[int, int]) -> str:
        digits = await deferToThread(lambda: str(pow(*pair)))  # others are heard meanwhile
        return f"{len(digits)} digits"

    @app.handler("math.later")
    async def later(seconds: float) -> str:
        await deferLater(app.clock, seconds)
        return f"after {seconds} s"

    @app.handler("math.guess")
    async def guess(session: Session) -> str:
        try:
            number = await session.request("pick", "a number", into=int, timeout=5)
        except NotInDialect as error:  # pomelo's clients answer nothing; a Player does
            raise Refused(1002, str(error)) from None
        return f"you picked {number}"

    @app.middleware
    async def fewer(request: Request, call_next: Any) -> Any:
        session = request.session
        session.state = (session.state or 0) + 1
        if session.state > 1000:
            raise Refused(429, "that is enough for today")
        return await call_next(request)

    return app


async def main(reactor: Any) -> None:
    app = calculator()
    port = await app.listen("tcp:0:interface=127.0.0.1", POMELO)
    server = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    session = await App().connect(server, POMELO)

    print("the sum is", await session.request("math.add", [1, 2, 3], into=int))
    print("2 ** 5000 has", await session.request("math.power", [2, 5000], into=str))
    several = [session.request("math.add", [number, number]) for number in range(5)]
    print("doubled:", await gatherResults(several))

    for route, message in (
        ("math.add", ["one"]),
        ("math.add", list(range(101))),
        ("math.divide", [1, 2]),
        ("math.guess", None),
    ):
        try:
            print(f"{route}: {await session.request(route, message)}")
        except Refused as error:
            print(f"{route}: {error}")
    try:
        await session.request("math.later", 60.0, timeout=0.1)
    except RequestTimeout as error:
        print(error)

    # Where a dialect can ask both ways, as a Player can, the server's question is answered.
    player = Player(app)
    player.answers["pick"] = lambda _: 7
    print(player.request("math.guess"))
    await app.drain(seconds=0)  # the slow one is not waited for
    await session.when_ended()


if __name__ == "__main__":
    react(main)
