# SPDX-License-Identifier: MIT
"""permessage-deflate with real clients: python3-websockets offers it as a user's program would."""

import zlib

from harness import *
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Offer

SETTINGS = {"echo_path": "/echo"}
WORDS = "the same words over and over, " * 200


def agreed(client):
    """What the server's answer says, of the client that offered."""
    return client.socket.response_headers.get("Sec-WebSocket-Extensions")


async def deflating(daemon, path="/", offer=None, **options):
    """A client that offers permessage-deflate as it is, or with these parameters."""
    if offer:
        return await Client.connect(daemon, path, compression=None, extensions=[offer], **options)
    return await Client.connect(daemon, path, compression="deflate", **options)


def operation(daemon, name, which):
    return daemon.metric(f"websocket_compression_{which}_bytes_total", operation=name)


async def test_what_python_offers_is_agreed_to(daemon):
    c = await deflating(daemon)
    assert agreed(c) == ("permessage-deflate; server_no_context_takeover; "
                         "client_no_context_takeover"), agreed(c)
    await c.close()


async def test_window_of_the_answer(daemon):
    for asked, bits in ((15, 15), (14, 12), (12, 12), (11, 9), (9, 9)):
        c = await deflating(daemon, offer=Offer(server_max_window_bits=asked))
        assert f"server_max_window_bits={bits}" in agreed(c), agreed(c)
        await c.close()


async def test_broadcast_reaches_those_with_and_without_it(daemon):
    path = f"/{uuid.uuid4()}"
    members = [await deflating(daemon, path), await Client.connect(daemon, path),
               await deflating(daemon, path, Offer(server_max_window_bits=9)),
               await deflating(daemon, path, Offer(server_max_window_bits=12)),
               await Client.connect(daemon, path, capabilities=["zstd"])]
    before = operation(daemon, "deflate", "input")
    for sender in members:
        for size in (10, 1000, 1100, 5000, 200000, 300000):
            content = (WORDS * (size // len(WORDS) + 1))[:size]
            await sender.send_chat(content)
            for c in members:
                if c is not sender:
                    await c.expect_chat(content)
    deflated = operation(daemon, "deflate", "input") - before
    # Every message of 1100 to 200000 bytes, for each window: each is there in all but one round.
    assert deflated > (1100 + 5000 + 200000) * 10, deflated
    assert deflated < (1100 + 5000 + 200000) * 16, deflated
    await close_all(members)


async def test_text_is_relayed_deflated():
    with Daemon(text_messages="relay", compression_threshold=100) as d:
        a, b = await deflating(d), await deflating(d)
        await a.send(WORDS)
        assert await b.recv() == WORDS
        await d.wait_metric("websocket_compression_input_bytes_total", len(WORDS),
                            operation="deflate")
        assert operation(d, "inflate", "output") == len(WORDS)
        await close_all(a, b)


async def test_echo(daemon):
    c = await deflating(daemon, "/echo", greeted=False)
    for message in ("", b"", "x", WORDS, os.urandom(5000), b"ab" * 100000, b"\0" * (4 << 20)):
        await c.send(message)
        assert await c.recv_raw() == message
    await c.close()


async def test_switched_off_and_on_by_reload():
    with Daemon(permessage_deflate="no") as d:
        before = await deflating(d)
        assert agreed(before) is None
        assert d.reload(permessage_deflate="yes").status == 200
        after = await deflating(d)
        assert agreed(after) is not None
        await before.send_chat(WORDS)
        await after.expect_chat(WORDS)
        assert d.reload(permessage_deflate="no").status == 200
        await before.send_chat(WORDS)  # what was agreed to stays
        await after.expect_chat(WORDS)
        await after.send_chat(WORDS)
        await before.expect_chat(WORDS)
        await close_all(before, after)


# What may not come


def deflate(p):
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (z.compress(p) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}
RSV1 = 4


async def test_bomb_is_stopped_and_nobody_notices():
    """16 KiB that inflate to 16 MiB: closed at max_message_size, and no more was inflated."""
    with Daemon(max_message_size="1M", max_frame_size="64K") as d:
        a, b = await Client.connect(d), await Client.connect(d)
        await a.expect_chat(await b.send_chat())
        bomb = deflate(bytes(16 << 20))
        for i in range(20):
            with RawClient(d, headers=OFFER) as c:
                c.send(frame(BINARY, bomb, rsv=RSV1))
                await a.expect_chat(await b.send_chat())
                c.expect_close(1009)
        d.wait_log("max_message_size")
        assert d.metric("websocket_closes_total", code="1009") == 20
        assert d.metric("websocket_compression_errors_total") == 20
        assert operation(d, "inflate", "output") == 20 * ((1 << 20) + 1)
        await close_all(a, b)


def test_what_is_no_deflate_stream():
    with Daemon() as d:
        whole = deflate(b"some words, some words")
        for payload in (b"\x07", whole[:-3], b"\x00\x05\x00", whole + b"\x06"):
            with RawClient(d, headers=OFFER) as c:
                c.send(frame(BINARY, payload, rsv=RSV1))
                c.expect_close(1007)
        d.wait_log("compressed message is not valid")
        assert d.metric("websocket_closes_total", code="1007") == 4


def test_rsv1_without_agreement():
    with Daemon(permessage_deflate="no") as d:
        with RawClient(d, headers=OFFER) as c:
            c.send(frame(BINARY, deflate(b"hello"), rsv=RSV1))
            c.expect_close(1002)
    with Daemon() as d, RawClient(d) as c:
        c.send(frame(BINARY, deflate(b"hello"), rsv=RSV1))
        c.expect_close(1002)

