# SPDX-License-Identifier: MIT
"""2 Pings and Pongs."""

from catalogue import case
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

BYTES = bytes([0, 255, 254, 253, 252, 251, 0, 255])
LARGEST = bytes(range(125))


@case("2.1", "empty Ping", b"")
@case("2.2", "Ping with text", b"are you there?")
@case("2.3", "Ping with bytes that are no text", BYTES)
@case("2.4", "Ping with 125 bytes", LARGEST)
@case("2.6", "Ping with 125 bytes, octet by octet", LARGEST, 1)
def one_ping(peer, payload, chop=None):
    peer.send(ping(payload), chop=chop)
    peer.expect((PONG, payload))


@case("2.5", "Ping with 126 bytes", ping(bytes(126)))
@case("2.5a", "Pong with 126 bytes", pong(bytes(126)))
@case("2.5b", "Ping with 65536 bytes", ping(bytes(65536)))
def too_large(peer, data):
    peer.send(data)
    peer.expect_failure(1002)


@case("2.5c", "Ping that announces 126 bytes and waits")
def announced(peer):
    peer.send(ping(length=126))
    if not peer.heard(peer.settings.fail_fast):
        peer.note("waits for the payload of a Ping that is too large")
        peer.send(bytes(126))
    peer.expect_failure(1002)


@case("2.7", "Pong that nobody asked for", pong())
@case("2.8", "Pong with payload that nobody asked for", pong(b"here I am"))
def unasked(peer, data):
    peer.send(data)
    peer.fence()


@case("2.9", "Pong that nobody asked for, then a Ping")
def unasked_then_ping(peer):
    peer.send(pong(b"here I am"), ping(b"and you?"))
    peer.expect((PONG, b"and you?"))


@case("2.10", "10 Pings in one write", None)
@case("2.11", "10 Pings, octet by octet", 1)
def ten_pings(peer, chop):
    payloads = [b"Ping %d" % i for i in range(10)]
    peer.send(b"".join(map(ping, payloads)), chop=chop)
    while payloads:
        got = peer.recv(f"the Pong to {payloads[0]!r}")
        if isinstance(got, End) or got.opcode != PONG or got.payload not in payloads:
            raise Failed(f"got {got}; expected the Pong to {payloads[0]!r}")
        if got.payload != payloads[0]:
            peer.note("answers only the latest of several Pings")
        del payloads[:payloads.index(got.payload) + 1]
