# SPDX-License-Identifier: MIT
"""9 large messages, many fragments, small writes, many messages."""

from catalogue import cases
from framing import letters, octets
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

K, M = 1 << 10, 1 << 20
SIZES = (64 * K, 256 * K, M, 4 * M, 8 * M, 16 * M)
FRAGMENTS = (64, 256, K, 4 * K, 16 * K, 64 * K, 256 * K, M, 4 * M)
CHOPS = (64, 128, 256, 512, 1024, 2048)
SMALL = (0, 16, 64, 256, 1024, 4096)
BATCH = 64 * K  # bytes of small frames that go in one write
MESSAGES = 1000


def size_text(n):
    return f"{n // M} MiB" if n >= M else f"{n // K} KiB" if n >= K else f"{n} bytes"


def sample(opcode, n):
    return letters(n) if opcode == TEXT else octets(n)


def both(section, *rows):
    """A section for text and, as the next one, for binary."""
    def add(function):
        for opcode in TEXT, BINARY:
            cases(f"9.{section + opcode - TEXT}", *(
                (f"{NAMES[opcode]}: {what}", opcode, *args) for what, *args in rows))(function)
        return function
    return add


@both(1, *((size_text(n), n) for n in SIZES))
def large(peer, opcode, n):
    peer.echo(opcode, sample(opcode, n))


@both(3, *((f"4 MiB in fragments of {size_text(n)}", n) for n in FRAGMENTS))
def in_fragments(peer, opcode, n):
    payload = sample(opcode, 4 * M)
    frames = fragments(opcode, payload, n)
    step = max(1, BATCH // n)
    peer.echo(opcode, payload, *(b"".join(frames[i:i + step])
                                 for i in range(0, len(frames), step)))


@both(5, *((f"1 MiB, {size_text(n)} a write", n) for n in CHOPS))
def chopped(peer, opcode, n):
    peer.echo(opcode, sample(opcode, M), chop=n)


@both(7, *((f"{MESSAGES} round trips of {size_text(n)}", n) for n in SMALL))
def round_trips(peer, opcode, n):
    payload = sample(opcode, n)
    data = frame(opcode, payload)
    for _ in range(MESSAGES):
        peer.echo(opcode, payload, data)
