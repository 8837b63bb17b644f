# SPDX-License-Identifier: MIT
"""Bytes that cost more to read than to send, made by hand."""

import struct
import zlib

from common import field, frame

CHAT_MESSAGE, BINARY_DATA, CONTROL, HEARTBEAT = 1, 2, 3, 4
CONNECT, SUBSCRIBE, UNSUBSCRIBE = 0, 16, 17
GZIP, ZSTD = 1, 2

MIB = 1 << 20
MAX_FRAME = 4 * MIB    # defaults of the daemon
MAX_MESSAGE = 16 * MIB


def whole(payload, first=0x82):
    """A message in as few frames as max_frame_size allows."""
    out = b""
    while len(payload) > MAX_FRAME:
        out += frame(payload[:MAX_FRAME], first & 0x7f)
        payload, first = payload[MAX_FRAME:], 0x80
    return out + frame(payload, first)


def chat(content, channel=None):
    message = field(1, CHAT_MESSAGE) + field(3, field(3, content))
    return message if channel is None else message + field(16, channel)


def data(payload, compression=0, sequence=0, is_last=True, request_id=b""):
    binary = field(1, payload) + field(3, sequence) + field(4, int(is_last))
    if compression:
        binary += field(5, compression)
    return field(1, BINARY_DATA) + field(2, request_id) + field(4, binary)


def control(kind, channels=(), capabilities=()):
    body = field(1, kind) + b"".join(field(4, c) for c in capabilities)
    body += b"".join(field(18, c) for c in channels)
    return field(1, CONTROL) + field(5, body)


def subscribe(channels):
    return frame(control(SUBSCRIBE, channels))


def unsubscribe(channels):
    return frame(control(UNSUBSCRIBE, channels))


def gzip(deflated, crc, length):
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated + struct.pack("<II", crc, length)


def gzip_of(payload):
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    return z.compress(payload) + z.flush()


def zstd_zeroes(n):
    """A zstd frame (RFC 8878) that is n zeroes: a run for each 128 KiB, four bytes each."""
    out = b"\x28\xb5\x2f\xfd\x00\x58"  # no size, a window of 2 MiB
    while n > 0:
        run = min(n, 128 << 10)
        n -= run
        out += struct.pack("<I", run << 3 | 1 << 1 | (n == 0))[:3] + b"\0"
    return out


class _Bits:
    """Bits as deflate has them, the lowest first."""

    def __init__(self):
        self.value = self.n = 0

    def put(self, value, n):
        self.value |= value << self.n
        self.n += n


def empty_blocks(n):
    """
    About n bytes of deflate blocks that hold nothing but Huffman tables, and say nothing: 90 bits
    each, for which the reader makes two tables.
    """
    b = _Bits()
    b.put(0, 1)               # more blocks follow
    b.put(2, 2)               # dynamic tables
    b.put(0, 5)               # 257 codes of literals and lengths
    b.put(0, 5)               # one of distances
    b.put(18 - 4, 4)          # lengths of 18 codes of lengths; two have one, of one bit:
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
        b.put(int(symbol in (1, 18)), 3)
    for zeroes in (138, 118):  # 18 is coded as 1, and followed by their number
        b.put(1, 1)
        b.put(zeroes - 11, 7)
    b.put(0, 1)               # the end of the block has a code of one bit
    b.put(0, 1)               # and so has a distance that isn't used
    b.put(0, 1)               # the end of the block
    four = sum(b.value << b.n * i for i in range(4))
    return four.to_bytes(b.n * 4 // 8, "little") * (n * 8 // (b.n * 4))


END_OF_DEFLATE = b"\x03\0"  # a last block, empty
