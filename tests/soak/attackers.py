# SPDX-License-Identifier: MIT
"""
Visitors of a soak who mean no good, or have bad luck: each a small dose of what bench/hostile.py
measures at full strength. They want work, memory or places that nobody counts, again and again; what
is left of that is seen at the next rest.
"""

import asyncio
import os
import zlib

from codecs_of_others import gzip_pack, zstd_pack
from proto import CONNECT, GZIP, SUBSCRIBE, UNSUBSCRIBE, ZSTD, Message, chat, control, data, new_id
from raw import BINARY, CONTINUATION, frame, request
from tlspeer import TlsPeer
from visitors import CHANNELS, DEFLATED, OFFER, Raw

MIB = 1 << 20
MAX_MESSAGE = 4 * MIB
MAX_FRAME = 1 * MIB
KEPT = ["kept/1", "kept/2", "kept/3"]


def packed(m):
    return frame(BINARY, m.SerializeToString())


def names(town, n):
    return [f"room/{town.random.randrange(1 << 30):x}" for _ in range(n)]


async def unpack_past_the_limit(town):
    """What a plain member would need unpacked, one byte more than a message may have."""
    c = await Raw.connect(town, town.any(["/a", "/b", "/busy"]))
    bomb = packed(data(gzip_pack(bytes(MAX_MESSAGE + 1)), compression=GZIP))
    await c.send(bomb * town.random.randrange(1, 5))
    await c.read_on(2)
    c.go(town)
    c.close()


async def send_blocks_without_data(town):
    """Deflate that says nothing, as a gzip and as permessage-deflate."""
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    z.compress(b"")
    empty = z.flush(zlib.Z_FULL_FLUSH) * 50000
    c = await Raw.connect(town, "/a", headers=OFFER)
    if town.random.random() < 0.5:
        await c.send(frame(BINARY, empty + z.compress(b"x") + z.flush(zlib.Z_SYNC_FLUSH)[:-4],
                           rsv=DEFLATED))
    else:
        await c.send(packed(data(b"\x1f\x8b\x08" + bytes(7) + empty, compression=GZIP)))
    await c.read_on(2)
    c.close()


async def unpack_for_others(town):
    """Little zstd that is much to everybody who doesn't read it."""
    c = await Raw.connect(town, "/busy")
    await c.send(packed(data(zstd_pack(bytes(MAX_MESSAGE - 100)), compression=ZSTD)) * 6)
    await c.read_on(2)
    c.go(town)
    c.close()


def change_keys(town):
    with TlsPeer(town.daemon, "/a") as peer:
        for _ in range(town.random.randrange(40)):
            peer.update_keys(town.random.randrange(80))
            peer.write(frame(BINARY, b"\x08\x04"))
            peer.send()


async def change_keys_of_tls(town):
    await asyncio.get_running_loop().run_in_executor(None, change_keys, town)


async def begin_tls(town):
    """Half of them: nothing comes behind what they said first."""
    c = await Raw.connect(town, handshake=False, port=town.tls_port)
    await c.send(town.any([b"\x16\x03\x01\x02\x00\x01", town.hello, town.hello[:100]]))
    await c.read_on(town.any([0, 0.5, 4]))
    c.go(town)
    c.close()


async def publish_and_never_read(town):
    """What it has said itself waits for nobody, but is counted past."""
    c = await Raw.connect(town, "/busy", rcvbuf=4096)
    c.writer.transport.pause_reading()
    for _ in range(town.random.randrange(20)):
        await c.send(packed(chat("and I" * town.random.randrange(500))))
        await asyncio.sleep(0.1)
    c.go(town)
    c.close()


async def pin_notices(town):
    """Reads nothing where others come and go."""
    c = await Raw.connect(town, "/a", rcvbuf=4096)
    await c.send(packed(control(SUBSCRIBE, channels=[n for n in CHANNELS if n != "a"])))
    c.writer.transport.pause_reading()
    await asyncio.sleep(town.random.uniform(1, 5))
    c.go(town)
    c.close()


async def come_and_go_in_channels(town):
    c = await Raw.connect(town, "/b")
    there = CHANNELS[2:] + names(town, 50)
    for _ in range(town.random.randrange(1, 40)):
        await c.send(packed(control(SUBSCRIBE, channels=there)),
                     packed(control(UNSUBSCRIBE, channels=there)))
    await c.read_on(0.5)
    c.go(town)
    c.close()


async def make_many_channels(town):
    c = await Raw.connect(town, "/b")
    await c.send(packed(control(SUBSCRIBE, channels=names(town, 60))))
    await c.read_on(town.random.uniform(0, 1))
    c.go(town)
    c.close()


async def name_one_channel_often(town):
    c = await Raw.connect(town, "/b")
    await c.send(packed(control(SUBSCRIBE, channels=["n"] * 100000)))
    await c.read_on(1)
    c.close()


async def come_by_the_unix_socket(town):
    reader, writer = await asyncio.open_unix_connection(str(town.unix_socket), limit=1 << 16)
    c = Raw(reader, writer)
    await c.send(request("/a"))
    await c.reader.readuntil(b"\r\n\r\n")
    await c.send(packed(chat("by another way", request_id=new_id())))
    await c.read_on(0.3)
    c.close()


async def fill_the_spool(town):
    """Bombs, many small files, transfers that begin and never end."""
    c = await Raw.connect(town, "/files")
    what = town.random.randrange(3)
    if what == 0:
        bomb = zstd_pack(bytes(MAX_MESSAGE - 100))
        await c.send(*(packed(data(bomb, compression=ZSTD, sequence=i, is_last=i == 3,
                                   request_id=new_id())) for i in range(4)))
    elif what == 1:
        await c.send(*(packed(data(b"small", sequence=0, is_last=True, request_id=new_id()))
                       for _ in range(100)))
    else:
        await c.send(packed(data(os.urandom(16384), sequence=0, request_id=new_id())))
        await asyncio.sleep(town.random.uniform(0, 3))
    await c.read_on(0.5)
    c.go(town)
    c.close()


async def announce_and_wait(town):
    """A head that says how much will come, and a byte of it, by several."""
    crowd = [await Raw.connect(town, "/b") for _ in range(town.random.randrange(1, 20))]
    for c in crowd:
        await c.send(town.any([frame(BINARY, b"\x08", length=MAX_FRAME),
                               frame(BINARY, b"\x08", fin=False) +
                               frame(CONTINUATION, b"\x04", fin=False)]))
    await crowd[0].read_on(town.any([0.2, 4]))
    for c in crowd:
        c.go(town)
        c.close()


async def ask_for_half_a_page(town):
    """The port of the metrics: requests that never end, or come without a pause."""
    c = await Raw.connect(town, handshake=False, port=town.daemon.metrics_port)
    await c.send(town.any([b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                           b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20,
                           b"GET /clients HTTP/1.1\r\nHost: h\r\n\r\n", b"\x00" * 500]))
    await c.read_on(town.any([0, 1, 3]))
    c.go(town)
    c.close()


async def call_itself_names(town):
    c = await Raw.connect(town, "/%22%5c%01" + "%e2%82%ac" * 50)
    await c.send(packed(control(CONNECT, session_id="\x01\"\\" * 20)),
                 packed(control(SUBSCRIBE, channels=["\"\\\x7f" * 60 + str(i) for i in range(20)])))
    await c.read_on(town.random.uniform(0, 1))
    c.go(town)
    c.close()


async def come_back_from_anywhere(town):
    """Positions that are right, old, of the future or of another epoch."""
    kept = town.any(KEPT)
    since = town.any(["1.0", f"{town.random.getrandbits(64)}.{town.random.getrandbits(20)}", "x.y",
                      *town.positions])
    c = await Raw.connect(town, town.any([f"/{kept}?since={since}", f"/{kept}?rewind=50"]),
                          rcvbuf=town.any([None, 4096]))
    epoch, _, sequence = since.partition(".")
    if sequence.isdigit():
        m = control(SUBSCRIBE)
        m.control.positions.add(channel=town.any(KEPT), epoch=int(epoch), sequence=int(sequence))
        await c.send(packed(m))
    for _ in range(town.random.randrange(20)):
        await c.send(packed(chat("kept " * town.random.randrange(400), channel=kept)))
    town.positions = [*town.positions, *await positions_in(c)][-10:]
    await c.read_on(town.random.uniform(0, 1))
    c.go(town)
    c.close()


async def positions_in(c):
    """Of what comes first, in frames that are whole: where the channel stands."""
    found = []
    try:
        while len(found) < 3:
            first, n = await asyncio.wait_for(c.reader.readexactly(2), 0.3)
            if n > 125:
                n = int.from_bytes(await c.reader.readexactly(2 if n == 126 else 8), "big")
            p = await c.reader.readexactly(n)
            if first == 0x82:
                found += [f"{pos.epoch}.{pos.sequence}"
                          for pos in Message.FromString(p).control.positions if pos.epoch]
    except (asyncio.TimeoutError, asyncio.IncompleteReadError):
        pass
    return found


ATTACKERS = [(3, unpack_past_the_limit), (2, send_blocks_without_data), (2, unpack_for_others),
             (1, change_keys_of_tls), (4, begin_tls), (4, publish_and_never_read), (4, pin_notices),
             (3, come_and_go_in_channels), (4, make_many_channels), (2, name_one_channel_often),
             (4, come_by_the_unix_socket), (2, fill_the_spool), (3, announce_and_wait),
             (4, ask_for_half_a_page), (2, call_itself_names), (8, come_back_from_anywhere)]
