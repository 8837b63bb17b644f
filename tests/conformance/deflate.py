# SPDX-License-Identifier: MIT
"""12 and 13 permessage-deflate: messages of all sizes, by what was offered."""

import random

from catalogue import case
from peer import *  # pylint: disable=wildcard-import,unused-wildcard-import

# (bytes of a message, bytes of a frame; 0: a frame for each message)
SIZES = [(16, 0), (64, 0), (256, 0), (1024, 0), (4096, 0), (8192, 0), (16384, 0), (32768, 0),
         (65536, 0), (131072, 0), (8192, 256), (16384, 256), (32768, 256), (65536, 256),
         (131072, 256), (131072, 1024), (131072, 4096), (131072, 32768)]
LARGEST = 131072


def records(rng):
    """Data as programs exchange it: the same names, other values."""
    out = []
    while sum(map(len, out)) < LARGEST:
        out.append('{"id": %d, "name": "user-%x", "price": %.2f, "open": %s}, ' % (
            len(out), rng.getrandbits(24), rng.random() * 1000, rng.choice(["true", "false"])))
    return "".join(out).encode()


def gradient(rng):
    """Samples of a picture: neighbours differ little."""
    value, out = 128, bytearray()
    while len(out) < LARGEST:
        value = (value + rng.randrange(-2, 3)) & 255
        out.append(value)
    return bytes(out)


def prose(rng):
    """Words of a language that nobody speaks, with letters beyond ASCII."""
    words = ["".join(rng.choice("aeioulnrstdhäöé") for _ in range(rng.randrange(2, 9)))
             for _ in range(500)]
    return " ".join(rng.choice(words) for _ in range(LARGEST // 3)).encode()


def markup(rng):
    """Few tags around a little text."""
    return "".join(f'<li class="c{rng.randrange(9)}"><a href="/p/{rng.randrange(9999)}">entry'
                   f"</a></li>\n" for _ in range(LARGEST // 40)).encode()


def noise(rng):
    """Nothing that could be made smaller."""
    return rng.randbytes(LARGEST)


def cut(payload, size):
    """The first size bytes, and no part of a character behind them."""
    return payload[:size].decode("utf-8", "ignore").encode()


def exchange(peer, offer, opcode, make, size, piece):
    """The same data from ever another place, sent deflated, back as the server likes."""
    rng = random.Random(4711)
    data = make(rng) * 2
    with peer.another(offer=offer) as deflating:
        for _ in range(peer.settings.messages):
            start = rng.randrange(LARGEST)
            payload = data[start:start + size]
            if opcode == TEXT:
                payload = cut(data[start:].lstrip(bytes(range(0x80, 0xc0))), size)
            deflating.send(b"".join(deflating.deflated(opcode, payload, piece)))
            deflating.expect((opcode, payload))


def register(section, what, offer, opcode, make):
    for i, (size, piece) in enumerate(SIZES, 1):
        in_frames = f" in frames of {piece}" if piece else ""
        case(f"{section}.{i}", f"{what}, {size} bytes{in_frames}", offer, opcode, make, size,
             piece)(exchange)


PLAIN = "permessage-deflate; client_max_window_bits"
register("12.1", "records", PLAIN, TEXT, records)
register("12.2", "a picture", PLAIN, BINARY, gradient)
register("12.3", "prose", PLAIN, TEXT, prose)
register("12.4", "markup", PLAIN, TEXT, markup)
register("12.5", "noise", PLAIN, BINARY, noise)

NO_TAKEOVER = "permessage-deflate; server_no_context_takeover"
register("13.1", "nothing asked for", "permessage-deflate", TEXT, records)
register("13.2", "no takeover", NO_TAKEOVER, TEXT, records)
register("13.3", "window 9", "permessage-deflate; server_max_window_bits=9", TEXT, records)
register("13.4", "window 15", "permessage-deflate; server_max_window_bits=15", TEXT, records)
register("13.5", "no takeover, window 9", f"{NO_TAKEOVER}; server_max_window_bits=9", TEXT, records)
register("13.6", "no takeover, window 15", f"{NO_TAKEOVER}; server_max_window_bits=15", TEXT,
         records)
register("13.7", "three offers", f"{NO_TAKEOVER}; server_max_window_bits=9, {NO_TAKEOVER}, "
         "permessage-deflate", TEXT, records)
