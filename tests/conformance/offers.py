# SPDX-License-Identifier: MIT
"""13a to 13c, our own: what may be agreed to, where RSV1 may stand, which streams are whole."""

import zlib

from catalogue import case, cases
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

PLAIN = "permessage-deflate"
WORDS = b"words that come again and again, " * 100
RSV1 = 4


# 13a: offers. Whatever is agreed to is held against the offer by Peer itself.


@cases("13a.1",
       ("nothing but the name", PLAIN),
       ("all four parameters", f"{PLAIN}; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=12; client_max_window_bits=12"),
       ("the client's window without a value", f"{PLAIN}; client_max_window_bits"),
       *((f"the client's window {n}", f"{PLAIN}; client_max_window_bits={n}")
         for n in range(9, 16)),
       *((f"the server's window {n}", f"{PLAIN}; server_max_window_bits={n}")
         for n in range(9, 16)),
       ("a quoted value", f'{PLAIN}; server_max_window_bits="10"'),
       ("white space", f"{PLAIN}  ;\tserver_max_window_bits = 10 "),
       ("no white space", f"{PLAIN};server_max_window_bits=10;client_max_window_bits"),
       ("behind another extension", f"x-unknown; a=1; b=\"2\", {PLAIN}"),
       ("behind one that can't be accepted", f"{PLAIN}; unknown=1, {PLAIN}"),
       ("in capitals", "PERMESSAGE-DEFLATE; CLIENT_MAX_WINDOW_BITS"))
def good_offer(peer, offer):
    with peer.another(offer=offer) as p:
        for payload in (WORDS, b"short", b""):
            p.send(b"".join(p.deflated(TEXT, payload)))
            p.expect((TEXT, payload))


@cases("13a.2",
       ("unknown parameter", f"{PLAIN}; unknown"),
       ("unknown parameter with a value", f"{PLAIN}; client_max_window_bits; level=9"),
       ("the server's window without a value", f"{PLAIN}; server_max_window_bits"),
       *((f"the server's window {n}", f"{PLAIN}; server_max_window_bits={n}")
         for n in ("7", "16", "08", "0", "1", "012", "1000000000000", "x", "-9", "9.0")),
       *((f"the client's window {n}", f"{PLAIN}; client_max_window_bits={n}")
         for n in ("7", "16", "09", "0", "x")),
       ("server takeover with a value", f"{PLAIN}; server_no_context_takeover=1"),
       ("client takeover with a value", f"{PLAIN}; client_no_context_takeover=true"),
       *((f"twice {name}", f"{PLAIN}; {name}; {name}") for name in
         ("server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits")),
       ("twice server_max_window_bits",
        f"{PLAIN}; server_max_window_bits=10; server_max_window_bits=10"),
       ("another extension", "permessage-bzip2"),
       ("a longer name", f"{PLAIN}-2"))
def bad_offer(peer, offer):
    """Is declined; the connection is one without extensions."""
    with peer.another(offer=offer, wants_deflate=False) as p:
        if p.extensions:
            raise Failed(f"agreed to {p.extensions!r}")
        p.echo(TEXT, WORDS)


@case("13a.3", "the server's window 8: declined, or kept")
def smallest_window(peer):
    with peer.another(offer=f"{PLAIN}; server_max_window_bits=8", wants_deflate=False) as p:
        p.echo(TEXT, WORDS)


@cases("13a.4",
       ("empty parameter", f"{PLAIN};"),
       ("empty name", "=1"),
       ("empty value", f"{PLAIN}; a="),
       ("two words", "permessage deflate"),
       ("open quote", f'{PLAIN}; a="b'),
       ("quoted separator", f'{PLAIN}; a="b c"'))
def malformed(peer, offer):
    """RFC 6455 section 9.1 has the handshake fail; to decline is less strict."""
    try:
        with peer.another(offer=offer, wants_deflate=False) as p:
            if p.extensions:
                raise Failed(f"agreed to {p.extensions!r}")
            peer.note("takes a malformed Sec-WebSocket-Extensions")
    except Refused as e:
        if e.status != "400":
            peer.note(f"answers {e.status} where 400 is meant")


# 13b: RSV1


@case("13b.1", "RSV1 without an agreement")
def not_agreed(peer):
    peer.send(text(b"\x00", rsv=RSV1))
    peer.expect_failure(1002)


@cases("13b.2", ("Ping", PING), ("Pong", PONG), ("Close", CLOSE))
def on_control(peer, opcode):
    with peer.another(offer=PLAIN) as p:
        p.send(frame(opcode, b"", rsv=RSV1))
        p.expect_failure(1002)


@cases("13b.3", ("of a deflated message", RSV1), ("of a plain message", 0))
def on_continuation(peer, rsv):
    with peer.another(offer=PLAIN) as p:
        p.send(text(b"\x00", fin=False, rsv=rsv), more(b"\x00", fin=True, rsv=RSV1))
        p.expect_failure(1002)


@cases("13b.4", *((f"bits {rsv}", rsv) for rsv in (1, 2, 3, 5, 6, 7)))
def other_bits(peer, rsv):
    with peer.another(offer=PLAIN) as p:
        p.send(text(b"\x00", rsv=rsv))
        p.expect_failure(1002)


@case("13b.5", "plain and deflated messages, one after the other")
def mixed(peer):
    with peer.another(offer=PLAIN) as p:
        for i in range(6):
            pieces = p.deflated(BINARY, WORDS, 0) if i % 2 else [binary(WORDS)]
            p.echo(BINARY, WORDS, *pieces)


@case("13b.6", "deflated octet by octet, with Pings between fragments of one octet")
def tiny(peer):
    with peer.another(offer=PLAIN) as p:
        first, *others = p.deflated(TEXT, b"octet by octet", 1)
        p.send(first, chop=1)
        for piece in others:
            p.send(ping(b"between"), piece, chop=1)
        p.expect(*[(PONG, b"between")] * len(others), (TEXT, b"octet by octet"))


# 13c: streams


def whole(data, level=6, flush=zlib.Z_SYNC_FLUSH):
    z = zlib.compressobj(level, zlib.DEFLATED, -15)
    return z.compress(data) + z.flush(flush)


SYNC = b"\x00\x00\xff\xff"


@cases("13c.1",
       ("one octet for the empty message", b"\x00", b""),
       ("stored blocks", whole(WORDS, level=0)[:-4], WORDS),
       ("several blocks", whole(b"ab")[:-4] + SYNC + whole(b"cd")[:-4], b"abcd"),
       ("an empty block before the end", whole(b"ab") + b"\x00", b"ab"),
       ("a final block", whole(b"abc", flush=zlib.Z_FINISH) + b"\x00", b"abc"),
       ("a full flush", whole(WORDS, flush=zlib.Z_FULL_FLUSH)[:-4], WORDS),
       ("the largest window", whole(WORDS * 30)[:-4], WORDS * 30))
def good_stream(peer, stream, payload):
    with peer.another(offer=PLAIN) as p:
        p.echo(TEXT, payload, text(stream, rsv=RSV1))
        half = len(stream) // 2
        p.echo(TEXT, payload, text(stream[:half], fin=False, rsv=RSV1),
               more(stream[half:], fin=True))


@cases("13c.2",
       ("a reserved kind of block", b"\x07"),
       ("a stored block whose length doesn't fit", b"\x00\x05\x00\xfb\xffHello\x00"),
       ("a distance before the beginning", b"\x02\x02\x00"),
       ("a block that is cut off", whole(WORDS)[:-9]),
       ("a stored block that is cut off", b"\x00\x05\x00\xfa\xffH"),
       ("octets behind the end", whole(WORDS) + b"\x06"),
       ("a zlib header", zlib.compress(WORDS)),
       ("no deflate at all", b"plain words"))
def bad_stream(peer, stream):
    with peer.another(offer=PLAIN) as p:
        p.send(binary(stream, rsv=RSV1))
        p.expect_failure(1007)


@cases("13c.3",
       ("invalid", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
       ("cut off", "κόσμε".encode()[:-1]),
       ("invalid at the very end of much", WORDS * 10 + b"\xff"))
def not_utf8(peer, payload):
    with peer.another(offer=PLAIN) as p:
        p.send(b"".join(p.deflated(TEXT, payload)))
        p.expect_failure(1007)
        with peer.another(offer=PLAIN) as other:
            other.echo(BINARY, payload, *other.deflated(BINARY, payload))


@case("13c.4", "a bomb: 64 KiB that would be 64 MiB")
def bomb(peer):
    with peer.another(offer=PLAIN) as p:
        p.send(binary(whole(bytes(64 << 20))[:-4], rsv=RSV1))
        p.expect_failure(1009)
