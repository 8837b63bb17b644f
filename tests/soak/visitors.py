# SPDX-License-Identifier: MIT
"""
Who comes by in a soak: each visitor is a coroutine that connects, does one thing, well or badly,
and is gone within seconds. What a visitor gets back is not judged here, the daemon is: by its
regular guests, its gauges, its memory.
"""

import asyncio
import os
import socket
import struct
import zlib

import old_websockets
from codecs_of_others import gzip_pack, lz4_pack, zstd_pack
from proto import (ACKNOWLEDGE, CONNECT, DISCONNECT, GZIP, HEARTBEAT, LZ4, NONE, SUBSCRIBE,
                   UNSUBSCRIBE, ZSTD, Message, chat, control, data, new_id)
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, request

PATHS = ["/", "/a", "/b", "/room/7", "/%C3%BC", "/echo"]
CHANNELS = ["", "a", "b", "room/7", "ü", "c/1", "c/2"]
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
DEFLATED = 4  # RSV1
LINGER_RESET = struct.pack("ii", 1, 0)


def deflate(p):
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (z.compress(p) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Raw:
    """A plain connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, town, path=None, headers=(), handshake=True, rcvbuf=None, port=None):
        s = socket.socket()
        s.setblocking(False)
        if rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        await asyncio.get_running_loop().sock_connect(s, (town.host, port or town.port))
        self = cls(*await asyncio.open_connection(sock=s, limit=1 << 16))
        if handshake:
            await self.send(request(path or town.any(PATHS), headers=headers))
            await self.reader.readuntil(b"\r\n\r\n")
        return self

    async def send(self, *pieces):
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def read_on(self, timeout):
        """Reads and throws away, to the end or for so long."""
        try:
            while await asyncio.wait_for(self.reader.read(1 << 16), timeout):
                pass
        except asyncio.TimeoutError:
            pass

    def end_writing(self):
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def reset(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                        LINGER_RESET)
        self.writer.transport.abort()

    def close(self):
        self.writer.close()

    def go(self, town):
        """One of the ways to end a connection without a Close."""
        town.any([self.reset, self.close, self.end_writing])()


def payload(town, most):
    """Compressible or not, of any size up to a bound; small ones more often."""
    n = int(most ** town.random.random())
    if town.random.random() < 0.3:
        return os.urandom(n)
    return (b"%d words, again and again, " % n * (n // 20 + 1))[:n]


def any_message(town):
    kind = town.random.randrange(8)
    channel = town.any([None, None, *CHANNELS])
    if kind < 3:
        return chat(payload(town, 20000).decode("latin-1"), channel=channel, request_id=new_id())
    if kind < 6:
        compression = town.any([NONE, NONE, GZIP, ZSTD, LZ4])
        p = payload(town, 100000)
        pack = {NONE: bytes, GZIP: gzip_pack, ZSTD: zstd_pack, LZ4: lz4_pack}[compression]
        return data(pack(p), compression=compression, channel=channel,
                    sequence=town.random.randrange(3), is_last=town.any([True, False]))
    if kind == 6:
        return Message(type=HEARTBEAT)
    return control(town.any([CONNECT, SUBSCRIBE, UNSUBSCRIBE, ACKNOWLEDGE]),
                   channels=[town.any(CHANNELS)], request_id=new_id(),
                   capabilities=town.any([[], ["zstd"], ["gzip", "lz4"], ["ack", "zstd"]]))


async def polite(town):
    """A user's program: joins, talks, listens, says goodbye."""
    async with old_websockets.connect(f"ws://{town.host}:{town.port}{town.any(PATHS)}",
                                      compression=town.any([None, "deflate"]), max_size=None,
                                      ping_interval=None, close_timeout=5) as c:
        await c.send(control(CONNECT, request_id=new_id(), capabilities=town.any(
            [[], ["zstd"], ["gzip"], ["ack"]])).SerializeToString())
        for _ in range(town.random.randrange(12)):
            await c.send(any_message(town).SerializeToString())
            try:
                await asyncio.wait_for(c.recv(), 0.05)
            except asyncio.TimeoutError:
                pass
        if town.random.random() < 0.2:
            await c.send(control(DISCONNECT).SerializeToString())


async def goes_without_a_word(town):
    c = await Raw.connect(town, headers=town.any([{}, OFFER]))
    for _ in range(town.random.randrange(8)):
        await c.send(frame(BINARY, any_message(town).SerializeToString()))
    c.go(town)
    if not c.writer.is_closing():
        await c.read_on(1)
        c.close()


async def vanishes_in_the_middle(town):
    """Of a handshake, a frame, a fragmented message."""
    head = request(town.any(PATHS), headers=OFFER)
    c = await Raw.connect(town, handshake=False)
    whole = head + frame(BINARY, os.urandom(5000), fin=town.any([True, False]))
    whole += frame(CONTINUATION, b"more", fin=False)
    await c.send(whole[:town.random.randrange(len(whole))])
    if town.random.random() < 0.2:
        await c.read_on(4)  # until a timeout of the daemon's ends it
    c.go(town)
    if not c.writer.is_closing():
        await c.read_on(4)
        c.close()


async def is_refused(town):
    good = request("/a")
    c = await Raw.connect(town, handshake=False)
    await c.send(town.any([
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"POST / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00",
        good.replace(b": 13", b": 8"), good.replace(b"/a", b"/%ff"), good.replace(b"\r\n", b"\n"),
        good.replace(b"Host", b"Host: x\r\nHost"), b"x" * 10000, os.urandom(200),
        good.replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 70 + b"\r\n")]))
    await c.read_on(3)
    c.close()


async def breaks_the_protocol(town):
    c = await Raw.connect(town, headers=town.any([{}, OFFER]))
    await c.send(town.any([
        frame(TEXT, b"\xff\xfe"), frame(CONTINUATION, b"x"), frame(3, b""), frame(11, b""),
        frame(BINARY, b"x", rsv=2), frame(BINARY, b"x", mask=False), frame(PING, b"x" * 126),
        frame(PING, b"", fin=False), frame(CLOSE, b"x"), frame(CLOSE, b"\x03\xed"),
        frame(CLOSE, b"\x03\xe8\xff"), frame(BINARY, b"", length=1 << 62),
        frame(BINARY, b"", length=8 << 20), frame(BINARY, b"\x07", rsv=DEFLATED),
        frame(BINARY, deflate(b"words" * 99)[:-2], rsv=DEFLATED), os.urandom(300),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y")]))
    await c.read_on(3)
    c.close()


async def says_nonsense(town):
    """Whole messages that mean nothing, or something that isn't allowed."""
    c = await Raw.connect(town, town.any(["/a", "/b"]))
    for _ in range(town.random.randrange(1, 6)):
        await c.send(frame(BINARY, town.any([
            b"", Message(type=99).SerializeToString(), Message(type=1).SerializeToString(),
            data(b"x", checksum="0bad").SerializeToString(),
            data(b"no gzip", compression=GZIP).SerializeToString(),
            chat("I am the system", user_id="system").SerializeToString(),
            chat("elsewhere", channel="never joined").SerializeToString(),
            control(SUBSCRIBE, channels=["x" * 300]).SerializeToString(),
            control(CONNECT, session_id="s" * 65).SerializeToString(),
            control(SUBSCRIBE, channels=[f"many/{i}" for i in range(100)]).SerializeToString()])))
    if town.random.random() < 0.5:
        await c.send(frame(BINARY, town.any([b"\x00", b"\xff" * 40, b"\x1a\x02\x0a\xff"])))
    await c.read_on(1)
    c.close()


async def bombs(town):
    c = await Raw.connect(town, town.any(["/a", "/echo"]), headers=OFFER)
    if town.random.random() < 0.5:
        await c.send(frame(BINARY, town.bomb, rsv=DEFLATED))
    else:
        await c.send(frame(BINARY, data(zstd_pack(bytes(20 << 20)),
                                        compression=ZSTD).SerializeToString()))
    await c.read_on(3)
    c.close()


async def reads_slowly(town):
    """Sits in a busy channel with a small window, reads nothing, then a little, then goes."""
    c = await Raw.connect(town, "/busy", rcvbuf=4096, headers=town.any([{}, OFFER]))
    c.writer.transport.pause_reading()
    await asyncio.sleep(town.random.uniform(0.5, 4))
    c.writer.transport.resume_reading()
    await c.read_on(town.any([0, 0.2, 1]))
    c.go(town)
    c.close()


async def floods(town):
    c = await Raw.connect(town, town.any(["/busy", "/echo", "/a"]))
    small = chat("x" * town.random.randrange(600)).SerializeToString()
    await c.send(frame(BINARY, small) * 1500, frame(PING, b"p") * 50, frame(PONG) * 50)
    await c.read_on(town.random.uniform(0.1, 1.5))
    c.go(town)
    c.close()


async def sends_large(town):
    """One message of up to 2 MiB in frames of any size, deflated or not."""
    is_deflated = town.random.random() < 0.5
    c = await Raw.connect(town, town.any(["/echo", "/a"]), headers=OFFER if is_deflated else {})
    p = b"large " * town.random.randrange(350000)
    p = deflate(p) if is_deflated else p
    size = town.random.randrange(100, 300000)
    pieces = [p[i:i + size] for i in range(0, len(p), size)][:400] or [b""]
    for i, piece in enumerate(pieces):
        await c.send(frame(CONTINUATION if i else TEXT, piece, fin=i == len(pieces) - 1,
                           rsv=DEFLATED if is_deflated and i == 0 else 0))
    await c.read_on(1)
    c.close()


async def transfers(town):
    """To the spool: whole, with a gap, or broken off."""
    c = await Raw.connect(town, "/files")
    how = town.random.randrange(3)
    chunks = town.random.randrange(2, 12)
    for i in range(chunks):
        if how == 1 and i == 1:
            continue
        await c.send(frame(BINARY, data(os.urandom(16384), sequence=i, is_last=i == chunks - 1,
                                        request_id=new_id()).SerializeToString()))
        if how == 2 and i == chunks // 2:
            break
    await c.read_on(0.3)
    c.go(town)
    c.close()


async def stays_silent(town):
    """Answers no Ping: the heartbeat ends it."""
    c = await Raw.connect(town, "/b")
    await c.read_on(8)
    c.close()


VISITORS = [(30, polite), (20, goes_without_a_word), (12, vanishes_in_the_middle), (8, is_refused),
            (10, breaks_the_protocol), (8, says_nonsense), (2, bombs), (5, reads_slowly),
            (2, floods), (3, sends_large), (3, transfers), (3, stays_silent)]
