"""Runs blocks of Python one after the other as if they were typed into one program.

    python -m tests.support.chain FILE [beside:FILE] ...

Rule: they share one namespace, and may `await` as in an `async def` that the reactor runs; what
runs `beside` is not waited for, and may not fail while the others run.
"""

from __future__ import annotations

import ast
import sys
from types import CodeType
from typing import Any


def main(files: list[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    codes: list[tuple[bool, CodeType]] = []
    for given in files:
        path = given.removeprefix("beside:")
        with open(path, encoding="utf-8") as file:
            tree = compile(
                file.read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
        codes.append((given != path, tree))
    if not any(code.co_flags & 0x80 for _, code in codes):  # none is a coroutine
        for _, code in codes:
            exec(code, names)
        return

    # Not before the blocks that choose a reactor.
    from twisted.internet.defer import ensureDeferred
    from twisted.internet.task import react

    problems: list[Any] = []

    async def run(reactor: object) -> None:
        for beside, code in codes:
            running = eval(code, names)
            if running is None:
                continue
            if beside:
                ensureDeferred(running).addErrback(problems.append)
            else:
                await running
        for problem in problems:
            problem.raiseException()

    react(run)


if __name__ == "__main__":
    main(sys.argv[1:])
