# SPDX-License-Identifier: MIT
"""
6 text: what is UTF-8 comes back, what is not ends the connection with 1007, at once.

The sequences from 6.5 on are those that Markus Kuhn's stress test for decoders made common. Each
goes in several ways. What is valid: whole, octet by octet in one frame, each octet in a
fragment of its own, and in two fragments for every place to cut it. What is invalid: whole; and
in a frame, and in fragments of one octet, up to the octet that makes it invalid, after which the
failure must be there before anything else is sent. Fragments before that octet must not
be refused.
"""

from catalogue import case, cases
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

GREEK = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
MIXED = "Gr\u00fc\u00dfe, \u20ac 5, \U00024b62!".encode()
SURROGATE = b"\xed\xa0\x80"
REST = b" and so on"


# Some of these completes whatever is the beginning of a character.
TAILS = [b""] + [bytes([first]) + b"\x80" * n for first in (0x80, 0xbf) for n in range(3)]


def first_bad(payload):
    """How many octets it takes to see that payload is no UTF-8; None: its end is what is bad."""
    return next((n for n in range(1, len(payload) + 1)
                 if not any(is_utf8(payload[:n] + tail) for tail in TAILS)), None)


def expect_failed_fast(peer, *rest):
    """The failure is there before the rest is sent."""
    if not peer.heard(peer.settings.fail_fast):
        peer.note("sees that text is not UTF-8 only when more of it has come")
        peer.send(*rest)
    peer.expect_failure(1007)


# ------------------------------------------------------------------- 6.1 to 6.4

@case("6.1.1", "empty text", b"")
@case("6.1.2", "text of three empty fragments", b"", b"", b"")
@case("6.1.3", "text of three fragments, the middle one alone not empty", b"", GREEK, b"")
@case("6.2.1", "valid text", MIXED)
@case("6.2.2", "valid text in two fragments, cut between characters", MIXED[:7], MIXED[7:])
@case("6.2.3", "valid text, an octet a fragment", *(bytes([b]) for b in MIXED))
@case("6.2.4", "valid Greek text, an octet a fragment", *(bytes([b]) for b in GREEK))
def valid_pieces(peer, *pieces):
    last = len(pieces) - 1
    peer.echo(TEXT, b"".join(pieces), *(
        frame(CONTINUATION if i else TEXT, p, fin=i == last) for i, p in enumerate(pieces)))


@case("6.3.1", "text with a surrogate in it", None)
@case("6.3.2", "text with a surrogate in it, an octet a fragment", 1)
def invalid(peer, size):
    payload = GREEK + SURROGATE + REST
    peer.send(b"".join(fragments(TEXT, payload, size or len(payload))))
    peer.expect_failure(1007)


@case("6.4.1", "fails within the second of three fragments, which is past the limit of Unicode",
      b"\xf4\x90\x80\x80", b"")
@case("6.4.2", "the same, and the second one ends with the octet that is wrong",
      b"\xf4\x90", b"\x80\x80")
@case("6.4.2a", "fails after the octet of a surrogate that is wrong", b"\xed\xa0", b"\x80")
@case("6.4.2b", "fails after a lead byte that never occurs", b"\xf5", b"\x80\x80\x80")
@case("6.4.2c", "fails after what is no continuation", b"\xe2\x82A", b"")
def fast_in_fragments(peer, bad, after):
    peer.send(text(GREEK, fin=False))
    peer.fence()
    peer.send(more(bad))
    expect_failed_fast(peer, more(after + REST, fin=True))


@case("6.4.3", "fails within the second of three parts of one frame", b"\xf4\x90\x80\x80", b"")
@case("6.4.4", "the same, and the second one ends with the octet that is wrong",
      b"\xf4\x90", b"\x80\x80")
def fast_in_frame(peer, bad, after):
    payload = GREEK + bad + after + REST
    data = text(payload)
    head = len(data) - len(payload)
    first, second = head + len(GREEK), head + len(GREEK) + len(bad)
    peer.send(data[:first], data[first:second])
    expect_failed_fast(peer, data[second:])


@case("6.4.4a", "binary that is no text, whole and in fragments")
def binary_is_free(peer):
    for size in 100, 1:
        payload = GREEK + SURROGATE + b"\xff\xc0\x80" + GREEK[:1]
        peer.echo(BINARY, payload, *fragments(BINARY, payload, size))


@case("6.4.4b", "fails in the middle of a large frame, of which the end is withheld", 60000)
def fast_in_large_frame(peer, at):
    payload = b"x" * at + SURROGATE + b"x" * 5000
    data = text(payload)
    end = len(data) - len(payload) + at + 2
    peer.send(data[:end])
    expect_failed_fast(peer, data[end:])


@case("6.4.4c", "a text's end is not carried over into the next one", GREEK[:1])
def next_text_is_fresh(peer, part):
    """A character cut by the end of a message is wrong even when another message follows."""
    peer.send(text(part) + text(GREEK[1:]))
    peer.expect_failure(1007)


# ------------------------------------------------------------------ 6.5 to 6.23

def coded(*points):
    """Code points in the general scheme, up to six octets, whether or not Unicode has them."""
    return b"".join(map(stretched, points))


def stretched(point, octets=None):
    """A code point in octets many octets, or in as few as the scheme allows."""
    if octets is None:
        octets = next(n for n, top in enumerate(
            (0x80, 0x800, 0x10000, 0x200000, 0x4000000, 0x80000000), 1) if point < top)
    if octets == 1:
        return bytes([point])
    tail = [0x80 | point >> 6 * i & 0x3f for i in reversed(range(octets - 1))]
    return bytes([0xff << 8 - octets & 0xff | point >> 6 * (octets - 1), *tail])


def lonely(first, last):
    return b"".join(bytes([b]) + b" " for b in range(first, last + 1))


# The last continuation is missing: of the lowest and the highest code of each length.
UNFINISHED = [stretched(0, n)[:-1] for n in range(2, 7)] + [
    stretched((1 << top) - 1, n)[:-1] for n, top in zip(range(2, 7), (11, 16, 21, 26, 31))]
OVERLONG_TOP = ((0x7f, 2), (0x7ff, 3), (0xffff, 4), (0x1fffff, 5), (0x3ffffff, 6))
HIGH, LOW = (0xd800, 0xdb7f, 0xdb80, 0xdbff), (0xdc00, 0xdfff)
NO_CHARACTERS = [0xfffe, 0xffff] + [plane << 16 | last
                                    for plane in range(1, 17) for last in (0xfffe, 0xffff)]

ALL, NONE = frozenset(range(1, 100)), frozenset()

# What a group is of, which of it are valid (counted from 1), and the payloads.
SEQUENCES = (
    ("text", ALL, [b"hello$world", "hello\u00a2world".encode(), "hello\u20acworld".encode(),
                   "hello\U00024b62world".encode(), GREEK]),
    ("beginning of a text", {2, 5, 7, 9, 11}, [GREEK[:n] for n in range(1, len(GREEK) + 1)]),
    ("first of its length", ALL, [coded(0), coded(0x80), coded(0x800), coded(0x10000)]),
    ("first of 5 and 6 octets", NONE, [coded(0x200000), coded(0x4000000)]),
    ("last of its length", ALL, [coded(0x7f), coded(0x7ff), coded(0xffff), coded(0x10ffff)]),
    ("last of 4, 5 and 6 octets", NONE, [coded(0x1fffff), coded(0x3ffffff), coded(0x7fffffff)]),
    ("other boundary", {1, 2, 3, 4},
     [coded(0xd7ff), coded(0xe000), coded(0xfffd), coded(0x10ffff), coded(0x110000)]),
    ("unexpected continuations", NONE,
     [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:n] for n in range(2, 7)),
      bytes(range(0x80, 0xc0))]),
    ("lonely lead bytes", NONE,
     [lonely(0xc0, 0xdf), lonely(0xe0, 0xef), lonely(0xf0, 0xf7), lonely(0xf8, 0xfb),
      lonely(0xfc, 0xfd)]),
    ("last continuation missing", NONE, UNFINISHED),
    ("all of these in a row", NONE, [b"".join(UNFINISHED)]),
    ("impossible octets", NONE, [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    ("overlong ASCII", NONE, [stretched(0x2f, n) for n in range(2, 7)]),
    ("largest overlong", NONE, [stretched(point, n) for point, n in OVERLONG_TOP]),
    ("overlong NUL", NONE, [stretched(0, n) for n in range(2, 7)]),
    ("surrogate", NONE, [coded(p) for p in (*HIGH, LOW[0], 0xdf80, LOW[1])]),
    ("pair of surrogates", NONE, [coded(h, l) for h in HIGH for l in LOW]),
    ("code point that is no character", ALL, [coded(p) for p in NO_CHARACTERS]),
    ("special", ALL, [coded(p) for p in range(0xfff9, 0x10000)]),
)


def valid(peer, payload):
    peer.echo(TEXT, payload)
    peer.echo(TEXT, payload, chop=1)
    peer.echo(TEXT, payload, *fragments(TEXT, payload, 1))
    for at in range(1, len(payload)):
        peer.echo(TEXT, payload, text(payload[:at], fin=False), more(payload[at:], fin=True))


def invalid_whole(peer, payload):
    peer.send(text(payload))
    peer.expect_failure(1007)


def with_rest(payload):
    """A payload to send and how many octets of it to send at first: those that are too many."""
    bad = first_bad(payload)
    return (payload + REST, bad) if bad else (payload, len(payload))


def invalid_in_frame(peer, payload):
    payload, bad = with_rest(payload)
    data = text(payload)
    end = len(data) - len(payload) + bad
    peer.send(data[:end], chop=1)
    expect_failed_fast(peer, data[end:])


def invalid_in_fragments(peer, payload):
    payload, bad = with_rest(payload)
    frames = fragments(TEXT, payload, 1)
    if bad > 1:
        peer.send(*frames[:bad - 1])
        peer.fence()
    peer.send(frames[bad - 1])
    expect_failed_fast(peer, *frames[bad:])


def sequence(peer, payload, is_valid):
    if is_valid:
        valid(peer, payload)
        return
    invalid_whole(peer, payload)
    with peer.another() as other:
        invalid_in_frame(other, payload)
    with peer.another() as other:
        invalid_in_fragments(other, payload)


def title(what, payload, is_valid):
    shown = payload.hex(" ") if len(payload) < 9 else payload[:8].hex(" ") + " …"
    return f"{'valid' if is_valid else 'invalid'}: {what}: {shown}"


for section, (group, good, payloads) in enumerate(SEQUENCES, 5):
    rows = [(p, i in good) for i, p in enumerate(payloads, 1)]
    assert all(is_utf8(p) == is_valid for p, is_valid in rows), group
    cases(f"6.{section}", *((title(group, *row), *row) for row in rows))(sequence)
