"""Tests of fastway.dialect.teleport: who is let in, and who gives no sign of life."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import BadFrame, Hello, Message, NotLetIn, PeerSilent, Ready, Refused
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_fields import read_status
from fastway.dialect.teleport_frames import AUTH_CALL, AUTH_REPLY, CALL, PUSH, Frame
from fastway.dialect.teleport_wires import MAX_HELD
from tests.support.teleport import BYTES, client, read, server, written


class AuthTests(SynchronousTestCase):
    """Spec teleport.md 7, auth."""

    def test_let_in(self) -> None:
        near, far = Teleport(auth=True).server(), Teleport(user="tok").client()
        near.begin(0.0)
        far.begin(0.0)
        self.assertEqual(near.receive(b"", 0.0) + far.receive(b"", 0.0), [])
        (asked,) = far.data_to_send()
        self.assertEqual(asked, BYTES["A-1"])
        call = written(Frame(CALL, 2, b"/a", codec=106))
        self.assertEqual(near.receive(asked + call, 0.0), [Hello("tok", b"tok")])
        self.assertEqual(near.receive(call, 0.0), [])
        near.accept("pass")
        (answer,) = near.data_to_send()
        self.assertEqual(answer, BYTES["A-2"])
        events = near.receive(b"", 0.0)
        self.assertEqual([type(one) for one in events], [Ready, Message, Message])
        self.assertEqual(far.receive(answer, 0.0), [Ready("pass")])
        self.assertTrue(near.ready and far.ready)
        self.assertEqual(far.request("a", b"")[0], 2)

    def test_with_user(self) -> None:
        """A client of the same settings; who was copied says nothing, as before."""
        mute = Teleport(proto="pb", auth=True)
        said = mute.with_user("tok")
        near, far = mute.server(), said.client()
        near.begin(0.0)
        far.begin(0.0)
        (asked,) = far.data_to_send()
        self.assertEqual(near.receive(asked, 0.0), [Hello("tok", b"tok")])
        self.assertEqual((said.traits, mute._clients[0].user), (mute.traits, None))

    def test_refused(self) -> None:
        near, far = Teleport(auth=True).server(), Teleport(user=lambda: "tok").client()
        near.begin(0.0)
        far.begin(0.0)
        near.receive(far.data_to_send()[0], 0.0)
        near.reject(Refused(403, "auth fail", "detail"))
        (answer,) = near.data_to_send()
        self.assertEqual(answer, BYTES["A-3"])
        self.assertEqual(near.receive(BYTES["V6-1"], 0.0), [])
        self.assertEqual(far.receive(answer, 0.0), [])
        assert isinstance(far.error, NotLetIn)
        self.assertEqual((far.error.refused.code, far.error.refused.text), (403, "auth fail"))

    def test_something_else_first(self) -> None:
        for first in (BYTES["V6-1"], BYTES["V6-5"], BYTES["A-2"], BYTES["V6-6"]):
            near = Teleport(auth=True).server()
            near.begin(0.0)
            self.assertEqual(near.receive(first, 0.0), [])
            self.assertIsInstance(near.error, BadFrame)
            (said,) = near.data_to_send()
            status = read_status(read(said).status)
            assert status is not None
            self.assertEqual((read(said).mtype, status.code), (AUTH_REPLY, 401))
        far = Teleport(user="tok").client()
        far.begin(0.0)
        far.receive(BYTES["V6-6"], 0.0)
        self.assertIsInstance(far.error, BadFrame)

    def test_a_body_that_is_none(self) -> None:
        near = Teleport(auth=True).server()
        near.begin(0.0)
        self.assertEqual(near.receive(written(Frame(AUTH_CALL, 1, codec=106, body=b"{")), 0.0), [])
        self.assertIsInstance(near.error, BadFrame)

    def test_held_is_bounded(self) -> None:
        near = Teleport(auth=True, max_frame=1024).server()
        near.begin(0.0)
        near.receive(BYTES["A-1"], 0.0)
        near.receive(b"x" * MAX_HELD, 0.0)
        self.assertIsNone(near.error)
        near.receive(b"x" * 2000, 0.0)
        self.assertIn("too much", str(near.error))

    def test_messages_stay_apart(self) -> None:
        """Those of WebSocket that come behind an AUTH_CALL, while it is decided."""
        near = Teleport(proto="json", auth=True).server(whole=True)
        near.begin(0.0)
        call = written(Frame(AUTH_CALL, 1, codec=115, body=b"tok"), "json", message=True)
        self.assertEqual(len(near.receive(call, 0.0)), 1)
        for seq in (2, 3):
            said = written(Frame(PUSH, seq, b"/a", codec=106), "json", message=True)
            self.assertEqual(near.receive(said, 0.0), [])
        near.accept()
        events = near.receive(b"", 0.0)
        self.assertEqual([type(one) for one in events], [Ready, Message, Message])

    def test_json_user(self) -> None:
        near, far = Teleport(auth=True).server(), Teleport(user={"id": 7}).client()
        far.begin(0.0)
        near.begin(0.0)
        (hello,) = near.receive(far.data_to_send()[0], 0.0)
        assert isinstance(hello, Hello)
        self.assertEqual(hello.user, {"id": 7})
        near.accept({"level": 3})
        self.assertEqual(far.receive(near.data_to_send()[0], 0.0), [Ready({"level": 3})])


class HeartbeatTests(SynchronousTestCase):
    """Spec teleport.md 7, heartbeat."""

    def test_bytes(self) -> None:
        for asks, name in ((False, "H-1"), (True, "H-2")):
            wire = client(Teleport(heartbeat=3, heartbeat_call=asks))
            self.assertEqual(wire.deadline, 3.0)
            wire.tick(2.9)
            self.assertEqual(wire.data_to_send(), [])
            wire.tick(3.0)
            self.assertEqual(wire.data_to_send(), [BYTES[name]])
            self.assertEqual(wire.deadline, 6.0)
        near = server()
        self.assertEqual(near.receive(BYTES["H-2"], 0.0), [])
        self.assertEqual(near.data_to_send(), [BYTES["H-3"]])

    def test_who_stops(self) -> None:
        """Two intervals behind the last sign of life: a beat, a call, a push."""
        for sign in ("H-1", "H-2", "V6-1", "V6-5"):
            wire = server()
            self.assertIsNone(wire.deadline)
            wire.receive(BYTES["H-1"], 10.0)
            self.assertEqual(wire.deadline, 16.0)
            wire.receive(BYTES[sign], 15.0)
            wire.tick(16.0)
            self.assertIsNone(wire.error)
            self.assertEqual(wire.deadline, 21.0)
            wire.tick(21.0)
            self.assertIsInstance(wire.error, PeerSilent)

    def test_who_never_sent_one(self) -> None:
        wire = server()
        wire.receive(BYTES["V6-1"], 0.0)
        wire.tick(1e9)
        self.assertIsNone(wire.error)

    def test_lies(self) -> None:
        """No interval keeps a session for ever, and none that is no number ends one."""
        for rate, deadline in (
            (b"", None),
            (b"hb_=0", None),
            (b"hb_=-3", None),
            (b"hb_=1e9", None),
            (b"hb_=" + b"9" * 400, None),
            (b"hb_=%D9%A3", None),
            (b"hb_=999999999", 2 * 86400.0),
            (b"hb_=1", 2.0),
        ):
            for mtype in (PUSH, CALL):
                wire = server()
                beat = written(Frame(mtype, 1, b"/heartbeat", meta=rate, codec=106))
                self.assertEqual(wire.receive(beat, 0.0), [])
                self.assertEqual((wire.deadline, wire.error), (deadline, None), rate)
                said = [read_status(read(one).status) for one in wire.data_to_send()]
                bad = deadline is None and rate not in (b"", b"hb_=0")
                codes = [one and one.code for one in said]
                self.assertEqual(codes, [] if mtype == PUSH else [400 if bad else None])
        wire = server()
        wire.receive(BYTES["H-1"], 0.0)
        wire.receive(written(Frame(PUSH, 1, b"/heartbeat", codec=106)), 1.0)
        self.assertEqual(wire.deadline, 7.0)

    def test_as_messages(self) -> None:
        (event,) = server(Teleport(pong=False)).receive(BYTES["H-1"], 0.0)
        assert isinstance(event, Message)
        self.assertEqual((event.route, event.meta), ("heartbeat", [("hb_", "3")]))

    def test_beats_that_are_not_answered(self) -> None:
        wire = client(Teleport(heartbeat=3, heartbeat_call=True))
        for now in (3.0, 6.0):
            wire.tick(now)
        self.assertIsNone(wire.error)
        wire.receive(BYTES["H-3"], 6.5)
        for now in (9.0, 12.0):
            wire.tick(now)
            self.assertIsNone(wire.error)
        wire.tick(15.0)
        self.assertIsInstance(wire.error, PeerSilent)

    def test_a_peer_that_is_not_read_from(self) -> None:
        """It may have said something, and it may have answered."""
        wire = client(Teleport(heartbeat=3, heartbeat_call=True))
        wire.receive(BYTES["H-1"], 0.0)
        for at in range(3, 60, 3):
            wire.tick(float(at), True)
            self.assertIsNone(wire.error)
        for now in (60.0, 63.0, 66.0):
            wire.tick(now)
        self.assertIsInstance(wire.error, PeerSilent)

    def test_two_of_us(self) -> None:
        """Each beats, both live, for a thousand beats."""
        ends = server(Teleport(heartbeat=3)), client(Teleport(heartbeat=5, heartbeat_call=True))
        for _ in range(1000):
            now = min(one.deadline for one in ends if one.deadline is not None)
            for one, other in (ends, ends[::-1]):
                one.tick(now)
                for unit in one.data_to_send():
                    self.assertEqual(other.receive(unit, now), [])
        self.assertEqual([one.error for one in ends], [None, None])
