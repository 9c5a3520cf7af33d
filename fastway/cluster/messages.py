"""The messages of nano's cluster, package `clusterpb`. (spec nano.md 5.2)

Rule: the table is the definition; protobuf's own library makes classes of it, so that no file has
to be generated and nothing is read by hand. What a peer sent is checked by that library: it is the
message, or a DecodeError.
"""

from __future__ import annotations

from typing import Any

from fastway.errors import NotInstalled

try:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import DecodeError
    from google.protobuf.message_factory import GetMessageClass
except ImportError:
    raise NotInstalled("fastway.cluster", "protobuf", "cluster") from None

__all__ = [
    "CLOSE_SESSION",
    "DEL_MEMBER",
    "HEARTBEAT",
    "NEW_MEMBER",
    "NOTHING",
    "NOTIFY",
    "PUSH",
    "REGISTER",
    "REQUEST",
    "RESPONSE",
    "SESSION_CLOSED",
    "UNREGISTER",
    "DecodeError",
    "message_class",
]

_TABLE = {
    "MemberInfo": "label string, serviceAddr string, services *string",
    "RegisterRequest": "memberInfo MemberInfo",
    "RegisterResponse": "members *MemberInfo",
    "UnregisterRequest": "serviceAddr string",
    "HeartbeatRequest": "memberInfo MemberInfo",
    "NewMemberRequest": "memberInfo MemberInfo",
    "DelMemberRequest": "serviceAddr string",
    "RequestMessage": "gateAddr string, sessionId int64, id uint64, route string, data bytes",
    "NotifyMessage": "gateAddr string, sessionId int64, route string, data bytes",
    "ResponseMessage": "sessionId int64, id uint64, data bytes",
    "PushMessage": "sessionId int64, route string, data bytes",
    "SessionClosedRequest": "sessionId int64",
    "CloseSessionRequest": "sessionId int64",
}
"""Message -> its fields, numbered from 1 in this order; a `*` repeats. All other replies are
empty."""

_KINDS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="fastway/cluster.proto", package="clusterpb", syntax="proto3")
    for name, fields in _TABLE.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields.split(", "), 1):
            field_name, kind = field.split()
            made = message.field.add(name=field_name, number=number)
            repeats = kind.startswith("*")
            made.label = made.LABEL_REPEATED if repeats else made.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _KINDS:
                made.type = _KINDS[kind]
            else:
                made.type, made.type_name = made.TYPE_MESSAGE, f".clusterpb.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(f"clusterpb.{name}")) for name in _TABLE
    }


_CLASSES = _classes()


def message_class(name: str) -> Any:
    """The class of a message: `SerializeToString`, `FromString`."""
    return _CLASSES[name]


NOTHING = b""
"""A reply that says no more than that it is one."""

_MASTER, _MEMBER = "/clusterpb.Master/", "/clusterpb.Member/"

REGISTER = (_MASTER + "Register").encode()
UNREGISTER = (_MASTER + "Unregister").encode()
HEARTBEAT = (_MASTER + "Heartbeat").encode()

REQUEST = (_MEMBER + "HandleRequest").encode()
NOTIFY = (_MEMBER + "HandleNotify").encode()
PUSH = (_MEMBER + "HandlePush").encode()
RESPONSE = (_MEMBER + "HandleResponse").encode()
NEW_MEMBER = (_MEMBER + "NewMember").encode()
DEL_MEMBER = (_MEMBER + "DelMember").encode()
SESSION_CLOSED = (_MEMBER + "SessionClosed").encode()
CLOSE_SESSION = (_MEMBER + "CloseSession").encode()
