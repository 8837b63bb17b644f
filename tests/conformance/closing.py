# SPDX-License-Identifier: MIT
"""7 the closing handshake."""

from catalogue import case, cases
from framing import letters
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

HELLO = b"before the end"
VALID = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)


# ----------------------------------------------------------- what stands around it

@case("7.1.1", "text, then Close, in one write")
def after_text(peer):
    peer.send(text(HELLO) + close(1000))
    peer.expect_close(1000, before=[(TEXT, HELLO)])


@case("7.1.2", "Close twice", close(1000))
@case("7.1.3", "Close, then a Ping", ping(b"still there?"))
@case("7.1.4", "Close, then a text", text(HELLO))
@case("7.1.4a", "Close, then a frame that is wrong", text(HELLO, rsv=7))
@case("7.1.4b", "Close, then bytes of every kind", bytes(range(256)) * 256)
def then(peer, data):
    peer.send(close(1000) + data)
    peer.expect_close(1000)


@case("7.1.2a", "Close of both sides at once")
def at_once(peer):
    """The server's is for a frame that is wrong; ours is on its way when that comes."""
    peer.send(text(HELLO, rsv=1), close(1001))
    peer.sent_close = True
    peer.expect_failure(1002)


@case("7.1.5", "Close between two fragments of a text")
def in_fragments(peer):
    peer.send(text(HELLO, fin=False), close(1000), more(HELLO, fin=True))
    peer.expect_close(1000)


@case("7.1.6", "text of 256 KiB, Close, Ping, in one write")
def after_large_text(peer):
    payload = letters(256 << 10)
    peer.send(text(payload) + close(1000) + ping())
    peer.expect_close(1000, before=[(TEXT, payload)])


@case("7.1.6a", "Close, octet by octet, then our end of the connection")
def half_closed(peer):
    peer.send(close(1000, b"that is all"), chop=1)
    peer.socket.shutdown(socket.SHUT_WR)
    peer.expect_close(1000)


# ------------------------------------------------------------------- what is in it

@case("7.3.1", "Close without a code", close(), 1000, 1005)
@case("7.3.3", "Close with a code", close(1000), 1000)
@case("7.3.4", "Close with a code and a reason", close(1000, b"that is all"), 1000)
@case("7.3.5", "Close with a reason of 123 bytes", close(1000, b"*" * 123), 1000)
@case("7.3.5a", "Close with a reason of 123 bytes of UTF-8", close(1000, b"\xe2\x82\xac" * 41),
      1000)
@cases("7.7", *((f"Close {code}", close(code), code) for code in VALID))
@case("7.7.13a", "Close 1012", close(1012), 1012)
@case("7.7.13b", "Close 1013", close(1013), 1013)
@case("7.7.13c", "Close 1014", close(1014), 1014)
def answered(peer, data, *codes):
    peer.send(data)
    peer.expect_close(*codes)


@case("7.3.2", "Close with one byte", frame(CLOSE, b"\x03"))
@case("7.3.6", "Close with a reason of 124 bytes", close(1000, b"*" * 124))
@case("7.3.6a", "Close with a reason of 65534 bytes", close(1000, b"*" * 65534))
@cases("7.9", *((f"Close {code}", close(code)) for code in INVALID))
@case("7.9.9a", "Close 1015", close(1015))
@case("7.9.9b", "Close 1014 with a reason and the mask left out", close(1014, b"x", masked=False))
def refused(peer, data):
    peer.send(data)
    peer.expect_failure(1002)


@case("7.5.1", "Close with a reason that is not UTF-8", b"that is \xed\xa0\x80 all")
@case("7.5.1a", "Close with a reason that ends in a character's middle", b"that is all \xe2\x82")
@case("7.5.1b", "Close with a reason that begins with a continuation", b"\x80")
@case("7.5.1c", "Close with a reason that is overlong", b"\xc0\xaf")
def bad_reason(peer, reason):
    peer.send(close(1000, reason))
    peer.expect_failure(1007)


@case("7.13.1", "Close 5000, of which no standard speaks", 5000)
@case("7.13.2", "Close 65535, of which no standard speaks", 65535)
def undefined(peer, code):
    """Refused or answered with a code that may be sent: either will do."""
    peer.send(close(code))
    peer.sent_close = True
    got = peer.recv("Close")
    if isinstance(got, Event) and got.opcode != CLOSE:
        raise Failed(f"got {got}; expected a Close")
    if isinstance(got, End):
        peer.note(f"{got} without a Close")
    else:
        peer.expect_end()
