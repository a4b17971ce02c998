"""Server-side WebSocket frames, built once and written to every subscriber.

Server frames are not masked (RFC 6455 5.1), so the same bytes serve all connections.
"""

from __future__ import annotations

import struct

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", opcode, 126, size) + payload
    return struct.pack("!BBQ", opcode, 127, size) + payload


def text_frame(payload: bytes) -> bytes:
    return _frame(_TEXT, payload)


def ping_frame(payload: bytes) -> bytes:
    return _frame(_PING, payload)


def pong_frame(payload: bytes) -> bytes:
    return _frame(_PONG, payload)


def close_frame(code: int, reason: str) -> bytes:
    return _frame(_CLOSE, struct.pack("!H", code) + reason.encode()[:123])
