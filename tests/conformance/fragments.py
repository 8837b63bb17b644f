# SPDX-License-Identifier: MIT
"""5 messages in fragments, and control frames between them."""

from catalogue import case
from framing import send_as
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

ONE, TWO, THREE, FOUR, FIVE = (b"fragment %d" % i for i in range(1, 6))
WHOLE = b"not in fragments"
MARK = b"in between"


@case("5.1", "Ping in two fragments", PING)
@case("5.2", "Pong in two fragments", PONG)
@case("5.2a", "Close in two fragments", CLOSE)
def control_in_fragments(peer, opcode):
    peer.send(frame(opcode, ONE, fin=False), more(TWO, fin=True))
    peer.expect_failure(1002)


@case("5.3", "text in two fragments, in one write", "one")
@case("5.4", "text in two fragments, a write each", "each")
@case("5.5", "text in two fragments, octet by octet", "octets")
def two(peer, writes):
    send_as(peer, writes, text(ONE, fin=False), more(TWO, fin=True))
    peer.expect((TEXT, ONE + TWO))


@case("5.6", "Ping between two fragments, in one write", "one")
@case("5.7", "Ping between two fragments, a write each", "each")
@case("5.8", "Ping between two fragments, octet by octet", "octets")
def ping_between(peer, writes):
    send_as(peer, writes, text(ONE, fin=False), ping(MARK), more(TWO, fin=True))
    peer.expect((PONG, MARK), (TEXT, ONE + TWO))


@case("5.9", "last fragment of nothing, then a text, in one write", True, "one")
@case("5.10", "last fragment of nothing, then a text, a write each", True, "each")
@case("5.11", "last fragment of nothing, then a text, octet by octet", True, "octets")
@case("5.12", "fragment of nothing, then a text, in one write", False, "one")
@case("5.13", "fragment of nothing, then a text, a write each", False, "each")
@case("5.14", "fragment of nothing, then a text, octet by octet", False, "octets")
def of_nothing(peer, fin, writes):
    send_as(peer, writes, more(ONE, fin=fin), text(WHOLE))
    peer.expect_failure(1002)


@case("5.15", "text in two fragments, then a fragment of nothing and a text")
def of_nothing_later(peer):
    peer.send(text(ONE, fin=False) + more(TWO, fin=True) + more(THREE) + text(WHOLE))
    peer.expect_failure(1002, before=[(TEXT, ONE + TWO)])


@case("5.16", "twice: a fragment of nothing and a text", False)
@case("5.17", "twice: a last fragment of nothing and a text", True)
def of_nothing_twice(peer, fin):
    peer.send(more(ONE, fin=fin) + text(WHOLE) + more(ONE, fin=fin) + text(WHOLE))
    peer.expect_failure(1002)


@case("5.18", "text inside a text", TEXT, TEXT)
@case("5.18a", "binary inside a text", TEXT, BINARY)
@case("5.18b", "text inside a binary", BINARY, TEXT)
def inside(peer, outer, inner):
    peer.send(frame(outer, ONE, fin=False), frame(inner, TWO))
    peer.expect_failure(1002)


@case("5.19", "Pings answered before a text in five fragments is complete", "one")
@case("5.20", "the same, a write for each frame", "each")
@case("5.20a", "the same, octet by octet", "octets")
def pings_between(peer, writes):
    send_as(peer, writes, text(ONE, fin=False), more(TWO), ping(b"first"))
    peer.expect((PONG, b"first"))
    send_as(peer, writes, more(THREE), more(FOUR), ping(b"second"))
    peer.expect((PONG, b"second"))
    peer.send(more(FIVE, fin=True))
    peer.expect((TEXT, ONE + TWO + THREE + FOUR + FIVE))


@case("5.20b", "two fragments, the first of them empty", b"", ONE)
@case("5.20c", "two fragments, the last of them empty", ONE, b"")
def empty(peer, first, last):
    for opcode in TEXT, BINARY:
        peer.echo(opcode, first + last, frame(opcode, first, fin=False), more(last, fin=True))
