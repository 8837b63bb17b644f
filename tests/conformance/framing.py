# SPDX-License-Identifier: MIT
"""1 messages in one frame, 3 reserved bits, 4 reserved opcodes, 10 messages cut by a sender."""

from catalogue import case, cases
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

SIZES = (0, 125, 126, 127, 128, 65535, 65536)
HELLO = b"a first message"
AGAIN = b"and another"


def letters(n):
    """Text in which a piece that is lost or doubled shows."""
    return (b"".join(b"%07d " % i for i in range(n // 8 + 1)))[:n]


def octets(n):
    """Bytes of every value, likewise."""
    return (b"".join(struct.pack(">I", i * 2654435761 % 2**32) for i in range(n // 4 + 1)))[:n]


# ----------------------------------------------------------------------- section 1

@cases("1.1", *((f"text of {n} bytes", TEXT, letters(n)) for n in SIZES))
@cases("1.2", *((f"binary of {n} bytes", BINARY, octets(n)) for n in SIZES))
@case("1.1.8", "text of 65536 bytes, 997 a write", TEXT, letters(65536), 997)
@case("1.2.8", "binary of 65536 bytes, 997 a write", BINARY, octets(65536), 997)
def whole(peer, opcode, payload, chop=None):
    peer.echo(opcode, payload, chop=chop)


@case("1.1.8a", "text of every kind of length, the frame's head octet by octet")
def head_in_octets(peer):
    for n in SIZES:
        data = text(letters(n))
        peer.send(data[:14], chop=1)
        peer.send(data[14:])
        peer.expect((TEXT, letters(n)))


@case("1.2.8a", "text without a mask", text(HELLO, masked=False))
@case("1.2.8b", "binary of 65536 bytes without a mask", binary(octets(65536), masked=False))
@case("1.2.8c", "length with its top bit set", binary(length=1 << 63, form=64))
def refused(peer, data):
    peer.send(data)
    peer.expect_failure(1002)


@case("1.2.8d", "125 bytes, their length in 16 bits", letters(125), 16)
@case("1.2.8e", "65535 bytes, their length in 64 bits", letters(65535), 64)
@case("1.2.8f", "no bytes, their length in 64 bits", b"", 64)
def long_form(peer, payload, form):
    peer.send(text(payload, form=form))
    peer.expect_failure_or((TEXT, payload), 1002,
                           "takes lengths that are not in their shortest form")


# ----------------------------------------------------------------------- section 3

@case("3.1", "text with RSV 1", text(HELLO, rsv=1))
@case("3.5", "binary with RSV 5", binary(HELLO, rsv=5))
@case("3.6", "Ping with RSV 6", ping(HELLO, rsv=6))
@case("3.7", "Close with RSV 7", close(1000, rsv=7))
@case("3.7a", "empty text with RSV 4", text(rsv=4))
@case("3.7b", "Pong with RSV 1", pong(rsv=1))
def reserved(peer, data):
    peer.send(data)
    peer.expect_failure(1002)


@case("3.7c", "continuation with RSV 2", 2)
def reserved_inside(peer, rsv):
    peer.send(text(HELLO, fin=False))
    peer.fence()
    peer.send(more(AGAIN, fin=True, rsv=rsv))
    peer.expect_failure(1002)


@case("3.2", "text, text with RSV 2, Ping, in one write", 2, "one")
@case("3.3", "text, text with RSV 3, Ping, a write each", 3, "each")
@case("3.4", "text, text with RSV 4, Ping, octet by octet", 4, "octets")
def reserved_second(peer, rsv, writes):
    send_as(peer, writes, text(HELLO), text(AGAIN, rsv=rsv), ping())
    peer.expect_failure(1002, before=[(TEXT, HELLO)])


def send_as(peer, writes, *frames):
    """All at once, a frame at a time, or an octet at a time."""
    if writes == "each":
        peer.send(*frames)
    else:
        peer.send(b"".join(frames), chop=1 if writes == "octets" else None)


# ----------------------------------------------------------------------- section 4

def opcodes(section, first):
    """The five cases of one half of the reserved opcodes."""
    def add(function):
        for i, (what, before, payload, writes) in enumerate((
                ("alone", False, b"", "one"),
                ("with payload", False, HELLO, "one"),
                ("after a text and before a Ping", True, b"", "one"),
                ("with payload, after a text and before a Ping", True, AGAIN, "each"),
                ("with payload, likewise, octet by octet", True, AGAIN, "octets"))):
            case(f"{section}.{i + 1}", f"opcode {first + i} {what}", first + i, before, payload,
                 writes)(function)
        return function
    return add


@opcodes("4.1", 3)
@opcodes("4.2", 11)
def reserved_opcode(peer, opcode, before, payload, writes):
    if before:
        send_as(peer, writes, text(HELLO), frame(opcode, payload), ping())
        peer.expect_failure(1002, before=[(TEXT, HELLO)])
    else:
        peer.send(frame(opcode, payload))
        peer.expect_failure(1002)


@case("4.2.5a", "opcode 7, of whose head one octet comes", bytes([0x87]))
@case("4.2.5b", "RSV 1, of whose head one octet comes", bytes([0xc1]))
def first_octet(peer, data):
    peer.send(data)
    if not peer.heard(peer.settings.fail_fast):
        peer.note("waits for more of a frame that is broken already")
        peer.send(b"\x80" + bytes(4))
    peer.expect_failure(1002)


# ---------------------------------------------------------------------- section 10

@case("10.1.1", "text of 65536 bytes in frames of 1300", TEXT, letters(65536))
@case("10.1.1a", "binary of 65536 bytes in frames of 1300", BINARY, octets(65536))
def auto_fragmented(peer, opcode, payload):
    peer.echo(opcode, payload, *fragments(opcode, payload, 1300))
