"""What any stream transport must do, as checks that run over a pair of connected transports.

    await check_transport(case, make_pair)

Rule: a check knows nothing but Twisted's interfaces, so that plain TCP passes the same list.
`make_pair` is given two protocols and connects one to the other; a check uses a pair of its own.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Collection
from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.protocols.basic import FileSender
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.support.errors import raised
from tests.support.tapes import Pull, Push, Tape, arrival, ends, noise
from tests.support.waits import SECONDS, later, reactor, turns, until

MakePair = Callable[[Protocol, Protocol], Awaitable[None]]
Check = Callable[[TestCase, Tape, Tape], Awaitable[None]]


async def interfaces(case: TestCase, one: Tape, two: Tape) -> None:
    """The transport is what it says: ITransport, IConsumer, IPushProducer."""
    for wire in (one.wire, two.wire):
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, wire)


async def addresses(case: TestCase, one: Tape, two: Tape) -> None:
    """Both ends have addresses, which do not change."""
    for wire in (one.wire, two.wire):
        for address in (wire.getPeer(), wire.getHost()):
            verifyObject(IAddress, address)
        case.assertEqual(wire.getPeer(), wire.getPeer())
        case.assertEqual(wire.getHost(), wire.getHost())


async def write_sizes(case: TestCase, one: Tape, two: Tape) -> None:
    """Whatever the sizes of the writes, 1 byte to 1 MB, the bytes arrive in order."""
    sizes = [*[1] * 200, 2, 3, 255, 4096, 65535, 65536, 65537, 500_000, 0, 1]
    sent = bytearray()
    for number, size in enumerate(sizes):
        piece = noise(size + number)[:size]
        sent += piece
        one.within("write", piece)
    await arrival(two, bytes(sent))
    one.within("write", noise(1 << 20))
    sent += noise(1 << 20)
    await arrival(two, bytes(sent))


async def both_ways(case: TestCase, one: Tape, two: Tape) -> None:
    """Both ends write at once."""
    for _ in range(10):
        one.within("write", noise(30_000))
        two.within("write", noise(20_000))
    await arrival(two, noise(30_000) * 10)
    await arrival(one, noise(20_000) * 10)


async def write_sequence(case: TestCase, one: Tape, two: Tape) -> None:
    """writeSequence writes the pieces, of whatever iterable, one after the other."""
    pieces = [noise(size) for size in (1, 0, 70_000, 5)]
    one.within("writeSequence", pieces)
    one.within("writeSequence", tuple(pieces))
    one.within("writeSequence", [])
    await arrival(two, b"".join(pieces) * 2)


async def only_bytes(case: TestCase, one: Tape, two: Tape) -> None:
    """Text is no bytes: TypeError, and the connection goes on."""
    raised(TypeError, one.wire.write, "text")
    one.within("write", b"bytes")
    await arrival(two, b"bytes")


async def echo_from_data(case: TestCase, one: Tape, two: Tape) -> None:
    """What is written within dataReceived arrives."""
    two.on_data = two.wire.write
    one.within("write", noise(200_000))
    await arrival(one, noise(200_000))


async def lose_delivers(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection delivers all that was written; both ends are told, once."""
    one.within("write", noise(1 << 20))
    one.within("loseConnection")
    await ends(one, two)
    await arrival(two, noise(1 << 20))
    await turns()
    case.assertEqual([loss.type for loss in one.losses], [ConnectionDone])
    case.assertEqual([loss.type for loss in two.losses], [two.told])


async def lose_twice(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection from both ends, twice each, is one loss each."""
    for tape in (one, two, one, two):
        tape.within("loseConnection")
    await ends(one, two)
    await turns()
    case.assertEqual([len(one.losses), len(two.losses)], [1, 1])


async def lose_in_data(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection within dataReceived ends it, and what was written before is delivered."""

    def bye(data: bytes) -> None:
        two.wire.write(b"bye")
        two.wire.loseConnection()

    two.on_data = bye
    one.within("write", b"hello")
    await ends(one, two)
    await arrival(one, b"bye")
    case.assertEqual(two.reads, 1)


async def answer_to_a_goodbye(case: TestCase, one: Tape, two: Tape) -> None:
    """Who answers a peer that has closed already hears of the close, and no error is raised."""

    def answer(data: bytes) -> None:
        two.wire.write(b"answer")

    two.on_data = answer
    one.within("write", b"last words")
    one.within("loseConnection")
    await ends(one, two)
    await arrival(two, b"last words")
    case.assertEqual(len(two.losses), 1)
    case.assertFalse(two.losses[0].check(ConnectionAborted), two.losses)


async def abort(case: TestCase, one: Tape, two: Tape) -> None:
    """abortConnection is ConnectionAborted here, a loss there, each once."""
    one.within("write", b"x")
    one.within("abortConnection")
    one.within("abortConnection")
    await ends(one, two)
    await turns()
    case.assertEqual([loss.type for loss in one.losses], [ConnectionAborted])
    case.assertEqual(len(two.losses), 1)
    case.assertTrue(two.losses[0].check(ConnectionDone, ConnectionLost))


async def abort_while_paused(case: TestCase, one: Tape, two: Tape) -> None:
    """abortConnection of a paused transport tells its protocol all the same."""
    two.within("pauseProducing")
    one.within("write", b"unread")
    await turns()
    two.within("abortConnection")
    await ends(one, two)
    case.assertEqual([loss.type for loss in two.losses], [ConnectionAborted])
    case.assertEqual(two.received, b"")


async def lose_while_paused(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection of a paused transport with unread bytes tells its protocol all the same."""
    two.within("pauseProducing")
    one.within("write", b"unread")
    await turns()
    two.within("loseConnection")
    await ends(one, two)
    case.assertEqual(two.received, b"")


async def after_the_loss(case: TestCase, one: Tape, two: Tape) -> None:
    """After the loss every call is silent, and a producer is told to stop."""
    one.within("loseConnection")
    await ends(one, two)
    for tape in (one, two):
        tape.within("write", b"late")
        tape.within("writeSequence", [b"late", b"later"])
        tape.within("loseConnection")
        tape.within("abortConnection")
        tape.within("pauseProducing")
        producer = Push(tape.wire, [])
        tape.within("registerProducer", producer, True)
        case.assertEqual(producer.stopped, 1)
        tape.within("unregisterProducer")
    await turns()
    case.assertEqual([len(one.losses), len(two.losses)], [1, 1])
    case.assertEqual([one.received, two.received], [b"", b""])


async def push_producer(case: TestCase, one: Tape, two: Tape) -> None:
    """All that a push producer writes arrives; it is paused meanwhile, and never stopped."""
    producer = Push(one.wire, [noise(1_000_000), *[noise(100_000)] * 20])
    producer.start()
    await arrival(two, noise(1_000_000) + noise(100_000) * 20)
    case.assertGreater(producer.pauses, 0)
    case.assertEqual(producer.stopped, 0)


async def pull_producer(case: TestCase, one: Tape, two: Tape) -> None:
    """A pull producer is asked until it is done; Twisted's FileSender is one."""
    one.within("registerProducer", Pull(one.wire, [b"a", b"b", noise(99_999)]), False)
    await arrival(two, b"ab" + noise(99_999))
    two.received.clear()
    sending = FileSender().beginFileTransfer(io.BytesIO(noise(1 << 20)), cast(Any, one.wire))
    await sending
    await arrival(two, noise(1 << 20))


async def pull_producers_in_turn(case: TestCase, one: Tape, two: Tape) -> None:
    """One pull producer after another, each alone, is asked for all it has."""
    for piece in (b"a", b"b", b"c", b"d"):
        producer = Pull(one.wire, [piece] * 3)
        one.within("registerProducer", producer, False)
        await until("the producer's end", producer.is_done, SECONDS)
        await turns(3)
    await arrival(two, b"aaabbbcccddd")


async def one_producer(case: TestCase, one: Tape, two: Tape) -> None:
    """A second producer is refused with RuntimeError; after unregisterProducer it is not."""
    first, second = Push(one.wire, []), Push(one.wire, [])
    one.within("registerProducer", first, True)
    raised(RuntimeError, one.wire.registerProducer, second, True)
    raised(RuntimeError, one.wire.registerProducer, second, False)
    one.within("unregisterProducer")
    one.within("registerProducer", second, True)
    one.within("unregisterProducer")
    case.assertEqual([first.stopped, second.stopped], [0, 0])


async def stop_producing(case: TestCase, one: Tape, two: Tape) -> None:
    """A loss stops the producers, once, push and pull, whoever ended it."""
    producers = [Push(one.wire, []), Push(two.wire, [])]
    one.within("registerProducer", producers[0], True)
    two.within("registerProducer", producers[1], True)
    one.within("abortConnection")
    await ends(one, two)
    await turns()
    case.assertEqual([producer.stopped for producer in producers], [1, 1])


async def lose_waits_for_push(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection waits until the push producer is done."""
    producer = Push(one.wire, [noise(50_000)] * 10)
    producer.start()
    one.within("loseConnection")
    await ends(one, two)
    await arrival(two, noise(50_000) * 10)
    case.assertEqual(
        [loss.type for loss in (*one.losses, *two.losses)], [ConnectionDone, two.told]
    )
    case.assertEqual(producer.stopped, 0)


async def lose_waits_for_pull(case: TestCase, one: Tape, two: Tape) -> None:
    """loseConnection waits until the pull producer is done."""
    one.within("registerProducer", Pull(one.wire, [noise(50_000)] * 10), False)
    one.within("loseConnection")
    await ends(one, two)
    await arrival(two, noise(50_000) * 10)


async def deaf_after_lose(case: TestCase, one: Tape, two: Tape) -> None:
    """After loseConnection nothing is delivered, even while it waits for the producer."""
    producer = Push(two.wire, [])
    two.within("registerProducer", producer, True)
    two.within("loseConnection")
    one.within("write", b"late")
    await turns()
    case.assertEqual([two.received, two.losses], [b"", []])
    producer.finish()
    await ends(two, one)
    case.assertEqual(two.received, b"")


async def pause_and_resume(case: TestCase, one: Tape, two: Tape) -> None:
    """pauseProducing stops delivery; resumeProducing resumes it in order, nothing lost."""
    one.within("write", b"first")
    await arrival(two, b"first")
    sent = b"first"
    for number in range(5):
        two.within("pauseProducing")
        before = bytes(two.received)
        for size in (1, 1000, 70_000):
            one.within("write", noise(size + number))
            sent += noise(size + number)
        await turns()
        case.assertEqual(bytes(two.received), before)
        two.within("resumeProducing")
        if number % 2:
            await arrival(two, sent)
    await arrival(two, sent)


async def pause_in_data(case: TestCase, one: Tape, two: Tape) -> None:
    """A protocol that pauses with each piece and resumes later gets all, a piece at a time."""

    def rest(data: bytes) -> None:
        two.wire.pauseProducing()
        reactor.callLater(0, two.within, "resumeProducing")

    two.on_data = rest
    for number in range(30):
        one.within("write", noise(1000 + number))
    await arrival(two, b"".join(noise(1000 + number) for number in range(30)))
    await turns(3)


async def resume_in_data(case: TestCase, one: Tape, two: Tape) -> None:
    """resumeProducing within dataReceived does not deliver within it."""

    def blink(data: bytes) -> None:
        two.within("pauseProducing")
        two.within("resumeProducing")

    two.on_data = blink
    two.within("pauseProducing")
    for number in range(30):
        one.within("write", noise(1000 + number))
        await later(0)
    two.within("resumeProducing")
    await arrival(two, b"".join(noise(1000 + number) for number in range(30)))


async def loss_behind_a_pause(case: TestCase, one: Tape, two: Tape) -> None:
    """What came before the peer's close is delivered after resumeProducing, then the loss."""
    two.within("pauseProducing")
    for _ in range(5):
        one.within("write", noise(10_000))
    one.within("loseConnection")
    await turns()
    case.assertEqual([two.received, two.losses], [b"", []])
    two.within("resumeProducing")
    await ends(one, two)
    await arrival(two, noise(10_000) * 5)
    case.assertEqual([loss.type for loss in two.losses], [two.told])


async def stop_producing_closes(case: TestCase, one: Tape, two: Tape) -> None:
    """stopProducing, called on the transport as a producer, ends the connection."""
    one.within("write", b"all")
    one.within("stopProducing")
    await ends(one, two)
    await arrival(two, b"all")


CHECKS: list[Check] = [
    interfaces,
    addresses,
    write_sizes,
    both_ways,
    write_sequence,
    only_bytes,
    echo_from_data,
    lose_delivers,
    lose_twice,
    lose_in_data,
    answer_to_a_goodbye,
    abort,
    abort_while_paused,
    lose_while_paused,
    after_the_loss,
    push_producer,
    pull_producer,
    pull_producers_in_turn,
    one_producer,
    stop_producing,
    lose_waits_for_push,
    lose_waits_for_pull,
    deaf_after_lose,
    pause_and_resume,
    pause_in_data,
    resume_in_data,
    loss_behind_a_pause,
    stop_producing_closes,
]
"""All that `check_transport` runs."""

BEYOND_TCP = (lose_waits_for_push, deaf_after_lose)
"""Promises of ITransport that Twisted's TCP breaks: it does not wait for a push producer that is
not paused."""

NOT_ON_ASYNCIO = (
    interfaces,
    addresses,
    write_sequence,
    only_bytes,
    push_producer,
    pull_producer,
    pull_producers_in_turn,
    one_producer,
    stop_producing,
    lose_waits_for_push,
    lose_waits_for_pull,
    deaf_after_lose,
    stop_producing_closes,
    after_the_loss,
)
"""Checks of what asyncio's transports do not have."""


async def check_transport(
    case: TestCase,
    make_pair: MakePair,
    without: Collection[Check] = (),
    told: type[Exception] = ConnectionDone,
) -> None:
    """Run every check over a pair of its own, and report all that fail.

    Args:
        make_pair: Connects two protocols to each other; done when both are connected.
        without: Checks to leave out.
        told: What the peer of one that closes is told.
    """
    problems = []
    for check in CHECKS:
        if check in without:
            continue
        one, two = Tape(told), Tape(told)
        await make_pair(one, two)
        try:
            await check(case, one, two)
        except Exception as error:
            problems.append(f"{cast(Any, check).__name__}: {type(error).__name__}: {error}")
        for tape in (one, two):
            if not tape.losses:
                tape.wire.abortConnection()
        await ends(one, two)
        for fault in dict.fromkeys([*one.faults, *two.faults]):
            problems.append(f"{cast(Any, check).__name__}: {fault}")
    if problems:
        raise AssertionError("\n".join(problems))
