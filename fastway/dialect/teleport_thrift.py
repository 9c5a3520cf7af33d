"""Thrift as a codec of teleport: what `thrift --gen py` makes, in the binary protocol.

    Teleport(codecs={"t": Thrift()})

    @app.handler("math.add")
    def add(message: Pair) -> Sum: ...

Rule: as that of `teleport_codecs`. What a peer sends is read within its own length, and no deeper
than the library skips.
"""

from __future__ import annotations

from typing import Any

try:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TTransport import TMemoryBuffer
except ModuleNotFoundError:
    from fastway.errors import NotInstalled

    raise NotInstalled("fastway.dialect.teleport_thrift", "thrift", "thrift") from None

__all__ = ["Thrift"]

NOTHING = b"\0"
"""A struct without fields, which is what Go sends for nil."""


class Thrift:
    """Messages of generated classes; where no class is wanted, bytes: `fastway[thrift]`."""

    codec = "t"

    def encode(self, message: Any) -> bytes:
        if message is None:
            return NOTHING
        if not hasattr(message, "write"):
            raise TypeError(f"{type(message).__name__} is no class that thrift has made")
        out = TMemoryBuffer()
        message.write(TBinaryProtocol(out))
        data: bytes = out.getvalue()
        return data

    def decode(self, data: bytes, into: Any = None) -> Any:
        if into is None or into is Any:
            return data
        if not hasattr(into, "read"):
            raise TypeError(f"{getattr(into, '__name__', into)} is no class that thrift has made")
        message, size = into(), len(data)
        if data:
            come = TMemoryBuffer(data)
            limits = {"string_length_limit": size, "container_length_limit": size}
            message.read(TBinaryProtocol(come, **limits))
            if come.cstringio_buf.tell() != size:
                raise ValueError("more behind a message of thrift")
        return message
