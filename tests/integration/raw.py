# SPDX-License-Identifier: MIT
"""A client on a plain socket, for what a well-behaved library would not do."""

import base64
import os
import socket
import struct
from typing import NamedTuple

from daemon import DEADLINE
from proto import Message, describe

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """A frame as it came."""
    opcode: int
    payload: bytes
    fin: bool
    rsv: int


def request(path="/", host="127.0.0.1", headers=(), drop=(), method="GET", version="HTTP/1.1"):
    """A handshake; headers add or replace, drop leaves out."""
    fields = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
              "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
              "Sec-WebSocket-Version": "13", **dict(headers)}
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(opcode, payload=b"", fin=True, rsv=0, mask=True, length=None):
    """The bytes of a frame; length may lie about the payload."""
    n = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if n < 126:
        head += bytes([masked | n])
    elif n < 65536:
        head += struct.pack(">BH", masked | 126, n)
    else:
        head += struct.pack(">BQ", masked | 127, n)
    if not mask:
        return head + payload
    key = os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[:len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + key + mixed.to_bytes(len(payload), "big")


class RawClient:
    """A TCP connection to the daemon, past the handshake and the greeting unless told otherwise."""

    def __init__(self, daemon, path="/", handshake=True, greeted=True, headers=(), rcvbuf=None,
                 source=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((daemon.host, daemon.port))
        self.buffer = b""
        self.id = None
        if handshake:
            self.send(request(path, headers=headers))
            status, self.headers, _ = self.recv_head()
            assert status == 101, status
            if greeted:
                self.recv_message()
                self.id = Message.FromString(self.recv_message()).control.session_id

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, *pieces):
        """Bytes as they are, or Messages as one frame each."""
        self.socket.sendall(b"".join(
            frame(BINARY, p.SerializeToString()) if isinstance(p, Message) else p for p in pieces))

    def _fill(self):
        try:
            more = self.socket.recv(1 << 20)
        except socket.timeout:
            raise AssertionError(f"nothing came within {DEADLINE:g} s") from None
        except ConnectionResetError:
            more = b""
        self.buffer += more
        return bool(more)

    def _take(self, n):
        while len(self.buffer) < n:
            if not self._fill():
                raise EOFError(f"the connection ended; {len(self.buffer)} bytes are left")
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def recv_head(self):
        """An HTTP answer: status, headers with lower-case names, body if it has a length."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._fill():
                raise EOFError("the connection ended before an answer")
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        body = self._take(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    def recv_frame(self):
        first, second = self._take(2)
        assert not second & 0x80, "a server must not mask"
        n = second & 0x7f
        if n == 126:
            n, = struct.unpack(">H", self._take(2))
        elif n == 127:
            n, = struct.unpack(">Q", self._take(8))
        return Frame(first & 0x0f, self._take(n), bool(first & 0x80), first >> 4 & 7)

    def recv_message(self):
        """The payload of the next data message, put together; control frames are passed over."""
        parts = []
        while True:
            f = self.recv_frame()
            assert f.opcode != CLOSE, f"closed: {f.payload!r}"
            if f.opcode < CLOSE:
                parts.append(f.payload)
                if f.fin:
                    return b"".join(parts)

    def recv(self):
        """The next message, decoded."""
        return Message.FromString(self.recv_message())

    def expect_frame(self, opcode, payload=None):
        f = self.recv_frame()
        assert f.opcode == opcode, f
        assert payload is None or f.payload == payload, f
        return f

    def expect_close(self, code, reason=None):
        """Reads to the Close frame, answers it, reads to the end; returns the frames before."""
        before = []
        while (f := self.recv_frame()).opcode != CLOSE:
            before.append(f)
        got = struct.unpack(">H", f.payload[:2])[0] if f.payload else 1005
        assert got == code, f"closed with {got} {f.payload[2:]!r}, expected {code}"
        assert reason is None or reason in f.payload[2:].decode(), f.payload
        try:
            self.send(frame(CLOSE, f.payload[:2]))
        except OSError:
            pass  # after a Close of our own it may be gone already
        self.expect_end()
        return before

    def recv_all(self):
        """Every byte up to the end."""
        while self._fill():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def expect_end(self):
        """The connection ends without another byte."""
        while self._fill():
            pass
        assert not self.buffer, f"{self.buffer[:200]!r} before the end"


def messages(frames):
    """The messages among frames, decoded, fragments put together."""
    out, parts = [], []
    for f in frames:
        if f.opcode < CLOSE:
            parts.append(f.payload)
            if f.fin:
                out.append(Message.FromString(b"".join(parts)))
                parts = []
    assert not parts, describe(out[-1] if out else "nothing but a part")
    return out
