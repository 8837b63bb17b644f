#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of the harnesses beside it: make-seeds.py [FOLDER]

Small inputs that reach each branch of what is read, named by what they are. Files
that begin with "found-" are inputs that the fuzzer found and that are fixed: they
are not made here and stay. Compressed seeds may differ from one version of a library
to the next, so a seed that is there is left as it is.
"""

import gzip
import os
import struct
import sys
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "seeds")
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"


def seed(harness, name, data):
    folder = os.path.join(OUT, harness)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(data)


# ------------------------------------------------------------------------- http


def head(first, *lines):
    return b"\r\n".join((first,) + lines) + b"\r\n\r\n"


def upgrade(path=b"/", *more, version=b"13", key=KEY):
    return head(b"GET " + path + b" HTTP/1.1", b"Host: localhost:8080", b"Upgrade: websocket",
                b"Connection: Upgrade", b"Sec-WebSocket-Key: " + key,
                b"Sec-WebSocket-Version: " + version, *more)


def http_seeds():
    requests = {
        "upgrade": upgrade(),
        "upgrade-channel": upgrade(b"/caf%C3%A9/a%20b?token=x%26y"),
        "upgrade-long-channel": upgrade(b"/" + b"r" * 255),
        "upgrade-bad-escape": upgrade(b"/%zz"),
        "upgrade-nul-channel": upgrade(b"/a%00b"),
        "upgrade-absolute": upgrade(b"ws://localhost:8080/room"),
        "upgrade-version": upgrade(version=b"8"),
        "upgrade-short-key": upgrade(key=b"c2hvcnQ="),
        "upgrade-lists": upgrade(b"/x", b"Connection: keep-alive", b"Origin: https://example.org",
                                 b"Sec-WebSocket-Protocol: chat, superchat",
                                 b"Sec-WebSocket-Protocol: other",
                                 b'Sec-WebSocket-Extensions: x; a="1,2", permessage-deflate'),
        "upgrade-deflate": upgrade(
            b"/", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; "
            b"server_max_window_bits=10; server_no_context_takeover, permessage-deflate"),
        "upgrade-body": upgrade(b"/", b"Content-Length: 5"),
        "upgrade-chunked": upgrade(b"/", b"Transfer-Encoding: chunked"),
        "upgrade-frame": upgrade() + b"\x81\x82" + MASK + b"\x5f\x93",
        "get": head(b"GET / HTTP/1.1", b"Host: a"),
        "get-1.0": head(b"GET / HTTP/1.0"),
        "empty-line-first": b"\r\n" + head(b"GET / HTTP/1.1", b"Host: a"),
        "options": head(b"OPTIONS * HTTP/1.1", b"Host: a"),
        "connect": head(b"CONNECT a.example:443 HTTP/1.1", b"Host: a.example:443"),
        "post": head(b"POST /x HTTP/1.1", b"Host: [::1]:8080", b"Content-Length: 0"),
        "no-host": head(b"GET / HTTP/1.1", b"Accept: */*"),
        "two-hosts": head(b"GET / HTTP/1.1", b"Host: a", b"Host: b"),
        "folded": head(b"GET / HTTP/1.1", b"Host: a", b"X: 1", b" 2"),
        "bare-lf": b"GET / HTTP/1.1\nHost: a\n\n",
        "space-before-colon": head(b"GET / HTTP/1.1", b"Host : a"),
        "many-headers": head(b"GET / HTTP/1.1", b"Host: a", *[b"X%d: y" % i for i in range(64)]),
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    }
    responses = {
        "response-101": head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket",
                             b"Connection: Upgrade",
                             b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "response-early-hints": head(b"HTTP/1.1 103 Early Hints", b"Link: <a>") +
        head(b"HTTP/1.1 101 ", b"Upgrade: websocket", b"Connection: Upgrade",
             b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "response-extension": head(b"HTTP/1.1 101 OK", b"Upgrade: websocket",
                                   b"Connection: Upgrade", b"Sec-WebSocket-Extensions: x",
                                   b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "response-503": head(b"HTTP/1.1 503 Service Unavailable", b"Retry-After: 5",
                             b"Content-Length: 0"),
        "response-no-reason": b"HTTP/1.0 404\r\n\r\n",
    }
    urls = {
        "url": b"ws://localhost:8080/room?x=1",
        "url-ipv6": b"wss://[2001:db8::1]:9443/",
        "url-bare": b"WS://Example.ORG",
        "url-utf8": "ws://h/käse".encode(),
        "url-fragment": b"ws://h/a#b",
        "url-user": b"ws://u:p@h/",
        "url-port": b"ws://h:65536/",
    }
    for name, data in {**requests, **responses, **urls}.items():
        seed("http", name, data)


# --------------------------------------------------------------------------- ws


def frame(opcode, payload=b"", fin=True, rsv=0, mask=MASK, length=None):
    n = len(payload) if length is None else length
    bit = 0x80 if mask else 0
    out = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if n < 126:
        out += bytes([bit | n])
    elif n < 65536:
        out += struct.pack(">BH", bit | 126, n)
    else:
        out += struct.pack(">BQ", bit | 127, n)
    if mask:
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return out + (mask or b"") + payload


def ws_seeds():
    def server(name, data, what=0, cut=7):
        seed("ws", name, bytes([what, cut]) + data)

    server("text", frame(1, b"Hello"))
    server("fragments", frame(1, b"Hel", fin=False) + frame(9, b"p") + frame(0, b"lo"))
    server("empty", frame(2) + frame(1) + frame(10))
    server("length-16", frame(2, bytes(range(200))))
    server("length-64", frame(2, b"z" * 66000))
    server("length-announced", frame(2, b"abc", length=1 << 40))
    server("length-not-minimal", b"\x82\xfe\x00\x05" + MASK + b"abcde")
    server("length-negative", b"\x82\xff\x80\0\0\0\0\0\0\0" + MASK)
    server("close", frame(8, b"\x03\xe8bye"))
    server("close-empty", frame(8))
    server("close-one-byte", frame(8, b"\x03"))
    server("close-code-1005", frame(8, b"\x03\xed"))
    server("close-bad-utf8", frame(8, b"\x03\xe8\xc0\xaf"))
    server("close-longest", frame(8, b"\x0f\xa1" + "ü".encode() * 61 + b"x"))
    server("ping-too-long", frame(9, b"p" * 126))
    server("ping-fragment", frame(9, b"p", fin=False))
    server("opcode-3", frame(3, b"x"))
    server("opcode-11", frame(11, b"x"))
    server("unmasked", frame(1, b"x", mask=None))
    server("rsv1", frame(2, b"x", rsv=4))
    server("rsv1-allowed", frame(2, b"x", rsv=4) + frame(0, b"y"), what=8)
    server("rsv1-control", frame(9, b"x", rsv=4), what=8)
    server("rsv1-continuation", frame(2, b"x", rsv=4, fin=False) + frame(0, b"y", rsv=4), what=8)
    server("rsv-all", frame(1, b"x", rsv=7), what=14)
    server("client", frame(1, b"Hello", mask=None) + frame(8, b"\x03\xe8", mask=None), what=1)
    server("client-masked", frame(1, b"x"), what=1)
    server("utf8-split", frame(1, b"\xe2\x82", fin=False) + frame(0, b"\xac"), cut=0)
    server("many", b"".join(frame(2, bytes([i]) * i) for i in range(40)), cut=200)


# -------------------------------------------------------------------------- msg


def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def num(field, v):
    return varint(field << 3) + varint(v)


def text(field, v):
    v = v if isinstance(v, bytes) else v.encode()
    return varint(field << 3 | 2) + varint(len(v)) + v


def chat(content="hi", user="somebody", **more):
    body = text(1, "8c2d8c4e-5f1b-4a3e-9f64-0f7d1c3b2a10") + text(2, user) + text(3, content)
    body += num(4, 1700000000) + b"".join(text(5, m) for m in more.get("mentions", ()))
    return num(1, 1) + text(3, body) + more.get("behind", b"")


def binary(data=b"data", sequence=0, last=True, compression=0, checksum=None, behind=b""):
    import zlib
    checksum = "%08x" % zlib.crc32(data) if checksum is None else checksum
    body = text(1, data) + text(2, checksum) + num(3, sequence) + num(4, last)
    return num(1, 2) + text(4, body + num(5, compression)) + behind


def control(kind, *fields):
    return num(1, 3) + text(5, num(1, kind) + b"".join(fields))


def msg_seeds():
    messages = {
        "chat": chat(mentions=("a", "b"), behind=text(2, bytes(range(16))) + text(16, "room")),
        "chat-lobby": chat(behind=text(16, "")),
        "chat-system": chat(user="system"),
        "chat-bad-utf8": chat(b"\xff"),
        "chat-nul": chat(user="a\0b"),
        "chat-twice": chat("one") + chat("two"),
        "binary": binary(b"some data"),
        "binary-wrong-checksum": binary(checksum="deadbeef"),
        "binary-gzip": binary(gzip.compress(b"x" * 500, mtime=0), compression=1),
        "binary-unknown-compression": binary(compression=9),
        "connect": control(0, text(2, "session"), num(3, 1 << 20), text(4, "zstd"),
                           text(4, "ack")),
        "disconnect": control(1, text(16, "bye"), num(17, 1000), num(19, 500)),
        "config": control(4, num(3, -1)),
        "subscribe": control(16, text(18, "a"), text(18, "b")),
        "control-unknown": control(77),
        "heartbeat": num(1, 4),
        "type-missing": text(3, b""),
        "payload-missing": num(1, 1),
        "payload-other": num(1, 1) + text(4, b""),
        "payload-both": num(1, 2) + text(3, b"") + text(4, text(1, "x")),
        "unknown-fields": chat(behind=num(100, 5) + b"\xa1\x06" + bytes(8) + b"\xa5\x06" +
                               bytes(4) + text(200, "x")),
        "group": num(1, 1) + b"\x2b\x2c",
        "group-inside": chat(behind=b"\x3b" + num(1, 2) + text(2, "x") + b"\x43\x44\x3c"),
        "group-without-end": num(1, 4) + b"\x3b\x43\x3c",
        "other-wire-types": chat(behind=text(1, "x") + num(2, 7) + num(16, 1)) + b"\x1d" + bytes(4),
        "field-0": b"\x00\x01",
        "varint-too-long": b"\x08" + b"\xff" * 10 + b"\x01",
        "length-past-end": b"\x1a\x7f",
        "empty": b"",
    }
    for name, data in messages.items():
        seed("msg", name, data)


# -------------------------------------------------------------------------- zip


def zstd(data):
    """One frame of one raw block, with its size: what any encoder may write."""
    return (b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) +
            struct.pack("<I", len(data) << 3 | 1)[:3] + data)


def zstd_rle(byte, size):
    return (b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size) +
            struct.pack("<I", size << 3 | 2 | 1)[:3] + byte)


def lz4(data):
    """A frame of one block that is stored, without checksums."""
    head = b"\x60\x40"
    return (b"\x04\x22\x4d\x18" + head + b"\x82" +
            struct.pack("<I", 0x80000000 | len(data)) + data + bytes(4))


def zip_seeds():
    # Kind, limit / 64, the rest.
    def one(name, kind, data, limit=100):
        seed("zip", name, bytes([kind, limit]) + data)

    one("none", 0, b"plain")
    one("none-too-big", 0, b"x" * 100, limit=1)
    one("gzip", 1, gzip.compress(b"hello " * 20, mtime=0))
    one("gzip-twice", 1, gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0))
    one("gzip-bomb", 1, gzip.compress(bytes(1 << 20), mtime=0))
    one("gzip-cut", 1, gzip.compress(b"hello " * 20, mtime=0)[:-5])
    one("gzip-behind", 1, gzip.compress(b"a", mtime=0) + b"x")
    one("zstd", 2, zstd(b"hello"))
    one("zstd-twice", 2, zstd(b"hello") + zstd(b"again"))
    one("zstd-bomb", 2, zstd_rle(b"x", 100000))
    one("zstd-skippable", 2, b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(b"x"))
    one("zstd-claims", 2, b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8)
    one("zstd-window", 2, b"\x28\xb5\x2f\xfd\x00\xf8\x01\0\0")
    one("lz4", 3, lz4(b"hello"))
    one("lz4-twice", 3, lz4(b"hello") + lz4(b"again"))
    one("lz4-cut", 3, lz4(b"hello")[:-4])
    one("unknown", 4, b"x")
    one("empty", 1, b"")


# ----------------------------------------------------------------------- config


def deflated(data, level=6, bits=15, flush=zlib.Z_SYNC_FLUSH):
    """A message as RFC 7692 has it: without the four bytes that a flush ends with."""
    z = zlib.compressobj(level, zlib.DEFLATED, -bits)
    out = z.compress(data) + z.flush(flush)
    return out[:-4] if flush == zlib.Z_SYNC_FLUSH else out


def deflate_seeds():
    def offer(name, *lines):
        seed("deflate", "offer-" + name, b"\0" + b"\n".join(lines))

    def message(name, data, limit=100, step=10):
        seed("deflate", name, bytes([1, limit, step]) + data)

    ours = b"permessage-deflate"
    offer("plain", ours)
    offer("of-browsers", ours + b"; client_max_window_bits")
    offer("all", ours + b"; server_no_context_takeover; client_no_context_takeover; "
          b"server_max_window_bits=10; client_max_window_bits=12")
    offer("quoted", ours + b"; server_max_window_bits=\"15\"")
    offer("unknown", ours + b"; x=1")
    offer("twice", ours + b"; client_max_window_bits; client_max_window_bits=9")
    offer("bad-bits", ours + b"; server_max_window_bits=8", ours + b"; client_max_window_bits=16")
    offer("fallback", ours + b"; server_max_window_bits=7, " + ours)
    offer("several-lines", b"foo; a=b", b"", ours + b"; server_max_window_bits=12")
    offer("malformed", ours + b"; =", ours)
    offer("open-quote", ours + b"; a=\"b, " + ours)
    words = b"words and more words, " * 40
    message("words", deflated(words))
    message("words-small-steps", deflated(words), step=0)
    message("stored", deflated(words, level=0))
    message("small-window", deflated(words, bits=9))
    message("exact", deflated(words[:640]), limit=10)
    message("too-big", deflated(words), limit=1)
    message("bomb", deflated(bytes(1 << 20)))
    message("empty", b"\0")
    message("nothing", b"")
    message("final", deflated(words, flush=zlib.Z_FINISH))
    message("final-and-more", deflated(b"a", flush=zlib.Z_FINISH) + deflated(b"b"))
    message("many-finals", deflated(b"", flush=zlib.Z_FINISH) * 50 + b"\0")
    message("two-blocks", b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")
    message("cut", deflated(words)[:-5])
    message("cut-stored", b"\x00\x05\x00\xfa\xff\x48")
    message("block-type", b"\x07")
    message("too-far", b"\x02\x02\x00")
    message("plain-words", words[:200])


def config_seeds():
    texts = {
        "empty": "",
        "comments": "# one\n; two\n\n   \n",
        "usual": "host = ::1\nport = 9000\nworker_threads = auto\nwelcome = Hi {user}; # no\n",
        "sizes": "max_message_size = 1500K\nmax_frame_size=64k\nmax_send_buffer = 1G\n"
                 "compression_threshold = 0\n",
        "durations": "ping_interval = 500ms\npong_timeout = 0.5s\nheartbeat_timeout = 2m\n"
                     "tcp_keepalive = 0\nreconnect_backoff = 1.25\n",
        "choices": "slow_consumer = skip\nrate_limit_action = CLOSE\ntext_messages = relay\n"
                   "log_level = warn\nenable_metrics = off\n",
        "disagree": "max_message_size = 1K\nmax_frame_size = 2K\n",
        "unknown": "prot = 1\nport-x = 2\n",
        "bad-values": "port = 65536\nport = x\nport =\nworker_threads = 0\nhost = nowhere\n",
        "crlf": "\ufeffport = 1\r\nhost = 10.0.0.1\r\n",
        "sections": "[wsbind]\nport = 1\n",
        "channels": "slow_consumer = skip\n[channel market/**]\nhistory_messages = 10\n"
                    "slow_consumer = history\n [ channel  / ] \nnotice_limit = 0\n"
                    "[channel //a]b]\nstamp_sender = no\n[channel market/**]\nhistory_age = 1h\n",
        "channels-wrong": "[channel]\nx = 1\n[channel a\n[other b]\n[channel c]\nport = 1\n"
                          "history_messages = -1\n[]\n[ ]\n[channel \x01]\n[channela]\n",
        "no-equals": "port\n: 5\n= 5\nport : 5\n",
        "long-line": "welcome = " + "x" * 1100 + "\n# " + "y" * 4200 + "\n",
        "text": "welcome = ä\u20ac \"quoted\" 'x' = y\necho_path = /a%20b\nspool_dir = rel/dir\n",
        "twice": "port = 1\nport = 2\n  port = 3\n",
    }
    for name, data in texts.items():
        seed("config", name, data.encode())
    seed("config", "nul", b"port = 1\0\n")
    seed("config", "not-utf8", b"welcome = \xff\nwelcome = \x01\n\xff = 1\n")


# ------------------------------------------------------------------------- conn
# The steps of fuzz-conn.c; slots 0 to 7, of which the odd ones are at the second worker.


def step(number, slot, *more):
    return bytes([number | slot << 4, *more])


ACCEPT, OPEN, RAW, FRAME, CHAT, JOIN, LEAVE, ROOM, TIME, TURN, END, ERROR, PUBLISH, CUT, DATA, \
    ORDER = range(16)
ALL, SETTLE, STOP, FLOOD, TIGHT = 255, 1, 250, 240, 8
LOBBY, A, B, ROOM_X, ECHO, HOME = 0, 1, 2, 3, 5, 7


def hello(slot, caps):
    return bytes([DATA | slot << 4 | 0x80, caps])


def turns(n=1):
    return step(TURN, SETTLE) * n


def opened(*slots, path=A):
    return b"".join(step(OPEN, s, path) for s in slots) + turns()


def chats(slot, channel, n, size=0):
    return step(CHAT, slot, channel | size << 3) * n


WINDOW_32K, WINDOW_4K, WINDOW_512 = 8, 16, 24  # beside the path of a handshake


def packed(slot, first, data):
    """A frame whose payload is deflated; where bytes of it are cut, it is broken."""
    return step(FRAME, slot, first | 0x60, len(data)) + data


def raw(slot, data):
    return b"".join(step(RAW, slot, len(data[i:i + 255])) + data[i:i + 255]
                    for i in range(0, len(data), 255))


def conn_seeds():
    def script(name, *steps, config=0, workers=2):
        seed("conn", name, bytes([config | (0x80 if workers == 2 else 0)]) + b"".join(steps))

    two = opened(0, 1)
    script("nothing", workers=1)
    script("silence", step(ACCEPT, 0), step(TIME, 0, 0x33))
    script("handshake-cut", step(ACCEPT, 0), step(CUT, 0, 1), step(OPEN, 0, A), turns())
    script("handshake-by-hand", step(ACCEPT, 0), raw(0, upgrade(b"/a")), turns())
    script("handshake-wrong", step(ACCEPT, 0), raw(0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           step(OPEN, 1, 7), turns())
    script("chat", two, chats(0, HOME, 3), chats(1, A, 2), turns(), chats(0, A, 2, 20), turns())
    script("chat-one-worker", opened(0, 1, 2), chats(0, A, 5), turns(), workers=1)
    script("chat-cut", two, step(CUT, 0, 3), chats(0, HOME, 2, 4), turns())
    script("slow", two, step(ROOM, 1, 2), chats(0, HOME, 12, 30), turns(), step(TIME, 0, 0x22),
           step(ROOM, 1, 60), turns(), step(ROOM, 1, ALL), turns(), config=1)
    script("slow-ends", two, step(ROOM, 1, 0), chats(0, HOME, 12, 30), step(TIME, 0, 0x22), turns(),
           config=2)
    script("slow-end-to-end", two, step(ROOM, 1, 1), chats(0, HOME, 6, 20), turns(),
           step(ROOM, 1, 3), turns(), step(ROOM, 1, 40), turns(), step(ERROR, 1, 4), turns())
    script("members", two, step(JOIN, 0, B | ROOM_X << 3 | 0x40), chats(1, B, 1), turns(),
           chats(0, ROOM_X, 1), step(LEAVE, 0, B), step(LEAVE, 1, A), turns(),
           step(JOIN, 1, B), chats(1, B, 2), turns(), step(END, 0), turns())
    script("too-many", opened(0, 1, 2, 3), step(JOIN, 0, B), step(JOIN, 0, ROOM_X), turns(),
           config=5)
    script("data", two, hello(1, 14), step(DATA, 0, 2, 100), step(DATA, 0, 0x15, 90),
           step(DATA, 0, 0x27, 40), step(DATA, 0, 0x0a, 9), turns(), hello(1, 1),
           step(DATA, 0, 2, 50), turns(), config=6)
    script("frames", opened(0), step(FRAME, 0, 0x89, 3) + b"abc", step(FRAME, 0, 0x01, 2) + b"\xc3\xa4",
           step(FRAME, 0, 0x8a, 0), step(FRAME, 0, 0x80, 1) + b"x", turns(),
           step(FRAME, 0, 0x88, 2) + b"\x03\xe8", turns())
    script("frames-wrong", opened(0, 1, 2), step(FRAME, 0, 0x80, 0), step(FRAME, 1, 0xc2, 0),
           step(FRAME, 2, 0x81, 1) + b"\xff", turns())
    script("frames-large", opened(0, 1), step(FRAME, 0, 0x02, 220), step(FRAME, 0, 0x00, 230),
           step(FRAME, 1, 0x82, 255), turns(), config=1)
    script("frames-by-hand", opened(0), raw(0, frame(2, chat())), raw(0, frame(2, binary())),
           raw(0, frame(2, control(0, text(4, "ack")))), raw(0, frame(2, control(99))), turns())
    script("echo", opened(0, path=ECHO), step(FRAME, 0, 0x82, 200), step(FRAME, 0, 0x81, 1) + b"x",
           step(ROOM, 0, 1), step(FRAME, 0, 0x82, 240), turns(), step(ROOM, 0, ALL), turns())
    script("deflate", opened(0, path=A | WINDOW_32K), opened(1, path=A | WINDOW_4K),
           opened(2, path=A | WINDOW_512), opened(3), chats(0, HOME, 2, 31), chats(3, HOME, 1, 31),
           turns(), hello(1, 14), step(DATA, 0, 4, 100), step(DATA, 0, 2, 200), turns())
    script("deflate-slow", opened(0), opened(1, path=A | WINDOW_32K), step(ROOM, 1, 1),
           chats(0, HOME, 3, 31), turns(), step(ROOM, 1, 3), turns(), step(ROOM, 1, ALL), turns())
    script("deflate-echo", opened(0, path=ECHO | WINDOW_32K), packed(0, 0x81, b"x" * 190),
           packed(0, 0x82, b""), step(FRAME, 0, 0xc2, 1) + b"\0", packed(0, 0x01, b"ab"),
           step(FRAME, 0, 0x80, 0), turns(), step(FRAME, 0, 0xc1, 2) + b"\x07\x00", turns())
    script("deflate-large", opened(0, path=ECHO | WINDOW_4K), step(FRAME, 0, 0xe2, 255),
           step(FRAME, 0, 0x62, 255), step(FRAME, 0, 0x80, 0), turns(), config=1)
    script("deflate-relay", opened(0, path=A | WINDOW_32K), opened(1, path=A | WINDOW_32K),
           packed(0, 0x81, b"relay" * 30), packed(1, 0x81, b"\xff"), turns(), config=3)
    script("relay", two, step(FRAME, 0, 0x81, 5) + b"hello", turns(), config=3)
    script("rate", two, step(FRAME, 0, 0x81, 1) + b"x", chats(0, HOME, 8), turns(),
           step(TIME, 0, 0x32), config=3)
    script("rate-close", two, chats(0, HOME, 8), turns(), config=4)
    script("heartbeat", two, step(TIME, 0, 0x35), step(FRAME, 0, 0x8a, 0), step(TIME, 0, 0x35))
    script("half-message", opened(0), step(FRAME, 0, 0x01, 1) + b"x", step(TIME, 0, 0x34))
    script("publish", two, step(PUBLISH, 0, A), step(PUBLISH, 1, A | 20 << 3), turns(),
           step(PUBLISH, 0, B))
    script("reload", two, step(ROOM, 1, 4), chats(0, HOME, 6, 20), step(ORDER, 0, 1), turns(),
           step(ORDER, 1, 7), chats(0, HOME, 2), step(ORDER, 0, 4), turns())
    script("flood", two, step(ORDER, 0, FLOOD + A), chats(0, HOME, 1), step(LEAVE, 0, A), turns(),
           chats(1, HOME, 1), turns())
    script("flood-stop", two, step(ROOM, 1, 9), step(ORDER, 0, FLOOD + A), step(ORDER, 0, STOP),
           step(END, 0), turns(), step(ORDER, 0, STOP), step(TIME, 0, 0x32), config=2)
    script("memory", opened(0, 1, 2), step(ROOM, 1, 0), step(ROOM, 2, 9), step(ORDER, 0, TIGHT),
           chats(0, HOME, 20, 31), turns(), step(TIME, 0, 0x33), turns())
    script("memory-skip", opened(0, 1, 2), step(ROOM, 1, 0), step(ROOM, 2, 9),
           step(ORDER, 0, TIGHT + 7), chats(0, HOME, 20, 31), turns(), step(TIME, 0, 0x33), turns())
    script("memory-halves", opened(0, 1, 2), step(ORDER, 0, TIGHT), step(FRAME, 0, 0x02, 210),
           step(FRAME, 2, 0x02, 208), turns(), step(FRAME, 0, 0x00, 200), turns())
    script("errors", opened(0, 1, 2), step(ERROR, 0, 4), step(ERROR, 1, 1), chats(2, HOME, 2),
           turns(), step(END, 2), turns())
    script("stop", two, step(ROOM, 1, 2), chats(0, HOME, 3, 10), step(ORDER, 0, STOP), turns(),
           step(ORDER, 0, STOP), turns(), step(ROOM, 1, ALL), turns(), step(TIME, 0, 0x32))
    script("again", opened(0, 1), step(END, 0), turns(), opened(0), chats(1, A, 2), turns(),
           step(END, 1), step(FRAME, 0, 0x88, 0), turns(), opened(0, 1, path=LOBBY),
           chats(0, LOBBY, 1), turns())


# ------------------------------------------------------------------------ proxy


def proxy_seeds():
    v2 = b"\r\n\r\n\0\r\nQUIT\n"

    seed("proxy", "v1-tcp4", b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n")
    seed("proxy", "v1-tcp6", b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n")
    seed("proxy", "v1-unknown", b"PROXY UNKNOWN ff:: x\r\n")
    seed("proxy", "v1-too-long", b"PROXY UNKNOWN " + b"x" * 100)
    seed("proxy", "v1-broken", b"PROXY TCP4 192.0.2.7 x 1 2\r\n")
    seed("proxy", "v2-inet", v2 + b"\x21\x11\0\x0c" + bytes(range(12)))
    seed("proxy", "v2-inet6", v2 + b"\x21\x21\0\x24" + bytes(range(36)))
    seed("proxy", "v2-local", v2 + b"\x20\0\0\0GET")
    seed("proxy", "v2-unix", v2 + b"\x21\x31\0\xd8" + bytes(216))
    seed("proxy", "v2-short", v2 + b"\x21\x11\0\x0b" + bytes(11))
    seed("proxy", "v2-version", v2 + b"\x11\x11\0\x0c" + bytes(12))
    seed("proxy", "forwarded", b"203.0.113.9, 10.0.0.1:80, [2001:db8::7]:5, unknown, 192.0.2.2")
    seed("proxy", "forwarded-quotes", b'"203.0.113.9, \\", [6.6.6.6]"x, 192.0.2.3:", [2001:db8::7]]:5')
    seed("proxy", "prefix4", b"10.0.0.0/8")
    seed("proxy", "prefix6", b"2001:db8::/32")


# ------------------------------------------------------------------------ token


def token_seeds():
    seed("token", "claims", b"\0" + b'{"sub":"alice","exp":1800000000,"nbf":1.5,"publish":false,'
         b'"channels":["room/*","a/**","a/b/c"]}')
    seed("token", "no-sub", b"\0{}")
    seed("token", "expired", b'\0{"sub":"a","exp":1}')
    seed("token", "early", b'\0{"sub":"a","nbf":1e300}')
    seed("token", "channels-wrong", b'\0{"sub":"a","channels":[1]}')
    seed("token", "twice", b'\0{"sub":"a","sub":"b"}')
    header = b'{"alg":"none","kid":"k"}'
    seed("token", "header", bytes([len(header)]) + header + b'{"sub":"a"}')
    header = b'{"alg":"HS256","crit":["x"]}'
    seed("token", "crit", bytes([len(header)]) + header + b'{"sub":"a"}')
    seed("token", "parts", b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.AAAA")
    seed("token", "dots", b"..")


# ----------------------------------------------------------------------- record


HEAD, COUNTERS, FRAME_RECORD, CHANNEL, CONNECTION, _, HISTORY = range(1, 8)
HANDSHAKE, OPEN, CLOSING, LINGERING = range(4)
ALL_READ, NONE_READS, KEEPS = 0, 0x80, 0x20
NUMBERED = 1 << 6
ZERO = bytes(1)


def fixed64(field, v):
    return varint(field << 3 | 1) + struct.pack("<Q", v)


def fixed32(field, v):
    return varint(field << 3 | 5) + struct.pack("<I", v)


def packed_list(field, values, code="varint"):
    data = b"".join(varint(v) if code == "varint" else struct.pack(code, v) for v in values)
    return text(field, data) if values else b""


def record(kind, *fields):
    body = b"".join(fields)
    return struct.pack("=II", kind, len(body)) + body


def saved_bytes(data, form=0, piece=None):
    return num(1, form) + num(2, len(data) if piece is None else piece) + text(3, data)


def saved_frame(text_of, *more, opcode=2, flags=0, seq=0):
    return (num(1, flags) + num(2, opcode) + num(4, seq) + num(7, 1)
            + text(8, saved_bytes(frame(opcode, text_of, mask=None))) + b"".join(more))


def saved_conn(cookie, *more, state=OPEN, flags=0, channels=(), next=(), path_member=1):
    return record(CONNECTION, fixed64(1, cookie), fixed64(2, 1000 + cookie), num(3, state),
                  num(4, flags), text(5, bytes([cookie]) * 16),
                  text(6, bytes(10) + b"\xff\xff\x7f\0\0\1"), num(7, 4711),
                  fixed64(9, 1), num(24, path_member if channels else 0), packed_list(25, channels),
                  packed_list(26, next, "<Q"), packed_list(27, [0] * len(channels), "<Q"), *more)


def record_seeds():
    was_open, echo = 1 << 4, 1 << 1
    head = record(HEAD, text(1, "1.0"), fixed64(2, 1), num(3, 5000), num(4, 6))
    room = record(CHANNEL, text(1, "room"), num(2, 3), num(3, 1), packed_list(4, [1, 2]))
    frames = (record(FRAME_RECORD, saved_frame(chat("one")))
              + record(FRAME_RECORD, saved_frame(chat("two") * 9)))

    def saved(name, *records, what=ALL_READ):
        seed("record", name, bytes([what]) + head + b"".join(records))

    def members(*more):
        return saved_conn(1, *more, flags=was_open, channels=[1], next=[1])

    seed("record", "empty", ZERO)
    saved("head")
    saved("later-version", record(99, num(1, 1)), saved_conn(1, text(200, "news")))
    saved("counters", record(COUNTERS, text(1, "handovers_total"), text(1, "nobody_knows"),
                             packed_list(2, [7, 8])))
    saved("in-handshake", saved_conn(1, text(21, text(5, upgrade()[:40])), state=HANDSHAKE))
    saved("echo", saved_conn(1, flags=was_open | echo), saved_conn(2, flags=was_open | echo))
    saved("lagging", frames, room, members(),
          saved_conn(2, flags=was_open, channels=[1], next=[2]),
          saved_conn(3, flags=was_open, channels=[1], next=[3]))
    saved("lagging-stalled", frames, room, members(), what=NONE_READS | 1)
    saved("two-channels", frames, room, record(CHANNEL, text(1, "other"), num(2, 9), num(3, 9)),
          saved_conn(1, flags=was_open, channels=[2, 1], next=[9, 3], path_member=2))
    saved("lobby", record(CHANNEL, num(2, 1), num(3, 1)), members())
    saved("left-path-channel", saved_conn(1, text(23, "room"), flags=was_open))
    saved("half-a-frame-in", frames, room,
          members(text(21, text(1, frame(2, b"x" * 300, length=300)[:8]) + num(3, 5)
                       + text(4, b"xxxxx") + num(8, 2))))
    saved("half-a-message-in", saved_conn(1, text(21, text(4, b"caf\xc3") + num(8, 1)),
                                          flags=was_open | echo))
    saved("parked", saved_conn(1, text(21, text(5, frame(9, b"?") + frame(2, b"x"))),
                               flags=was_open | echo))
    saved("half-a-frame-out", frames, room,
          members(text(22, num(3, 2) + num(5, 40))))
    saved("deflated-form", record(FRAME_RECORD, saved_frame(
        chat("one"), text(9, saved_bytes(frame(2, b"\xaa\x06\0", rsv=4, mask=None), form=1)))),
          record(CHANNEL, text(1, "room"), num(2, 1), packed_list(4, [1])),
          saved_conn(1, text(22, num(3, 1) + num(4, 1) + num(5, 2)), num(18, 3), flags=was_open,
                     channels=[1], next=[0]))
    saved("queued", saved_conn(1, text(22, text(1, saved_frame(b"", opcode=10))
                                       + text(1, saved_frame(b"x" * 50)) + num(2, 1)),
                               flags=was_open | echo))
    saved("closing", saved_conn(1, num(16, 4001), text(22, text(1, saved_frame(
        b"\x0f\xa1", opcode=8))), state=CLOSING, flags=was_open))
    saved("lingering", saved_conn(1, fixed64(12, 1 << 40), state=LINGERING, flags=was_open))
    saved("grant", room, saved_conn(1, text(20, text(1, "alice") + num(2, 4000000000)
                                            + text(5, "room/*")), flags=was_open))
    saved("grant-expired", saved_conn(1, text(20, text(1, "a") + num(2, 1) + num(4, 1)), flags=was_open))
    saved("transfer", saved_conn(1, text(28, num(1, 3) + num(3, 99) + text(4, "a.bin")
                                         + text(5, ".part-1") + text(7, bytes(16))),
                                 flags=was_open))
    saved("transfer-elsewhere", saved_conn(1, text(28, text(4, "../a") + text(5, "/etc/x")),
                                           flags=was_open))
    saved("refused", saved_conn(1, num(15, 503), state=HANDSHAKE))
    saved("awaits-proxy", saved_conn(1, state=HANDSHAKE, flags=1 << 6))
    saved("awaits-tls", saved_conn(1, state=HANDSHAKE, flags=1 << 7))
    saved("stranger", saved_conn(77))
    saved("twice", saved_conn(1), saved_conn(1))
    saved("no-such-channel", saved_conn(1, channels=[5], next=[0]))
    saved("no-such-frame", record(CHANNEL, text(1, "x"), num(2, 1), packed_list(4, [9])),
          saved_conn(1, text(22, num(3, 9)), channels=[1], next=[0]))
    saved("channel-backwards", record(CHANNEL, text(1, "x"), num(2, 1), num(3, 2)))
    saved("channel-twice", room, room, saved_conn(1, channels=[1, 2], next=[3, 3]))
    said = [record(FRAME_RECORD, saved_frame(chat("said") + varint(21 << 3 | 1)
                                             + struct.pack("<Q", n + 1), flags=NUMBERED, seq=n))
            for n in range(5)]

    def kept(*ids, name="room", epoch=77, seq=5, earliest=0):
        return record(HISTORY, text(1, name), fixed64(2, epoch), num(3, seq), num(4, earliest),
                      packed_list(5, ids))

    place = record(CHANNEL, text(1, "room"), num(2, 5), num(3, 5))
    saved("kept", *said, place, kept(1, 2, 3, 4, 5), members(), what=KEEPS)
    saved("kept-without-members", *said, kept(4, 5, earliest=3), what=KEEPS)
    saved("kept-replaying", *said, record(CHANNEL, text(1, "room"), num(2, 5), num(3, 0),
                                          packed_list(4, [1, 2, 3, 4, 5])), kept(3, 5, earliest=1),
          members(packed_list(34, [5], "<Q"), packed_list(35, [2], "<Q")), what=KEEPS | NONE_READS)
    saved("kept-backwards", *said, place, kept(2, 1), kept(1, 1), members(), what=KEEPS)
    saved("kept-ahead", *said, place, kept(1, 2, seq=4), kept(5, earliest=9), members(),
          what=KEEPS)
    saved("kept-twice", *said, kept(1, 2), kept(1, 2, epoch=78), kept(1, name="other"),
          what=KEEPS)
    saved("kept-by-nobody", *said, place, kept(1, 2, 3), members(), what=ALL_READ)
    saved("kept-no-epoch", *said, place, kept(1, epoch=0), kept(9), members(), what=KEEPS)
    saved("cut", members()[:-9])
    with open(os.path.join(HERE, "../unit/data/records-0.1.0.bin"), "rb") as f:
        seed("record", "from-0.1.0", bytes([ALL_READ]) + f.read()[32:])


# ---------------------------------------------------------------------- history


def piece(at, data, in_head=False, marks=False):
    """What is written over a file: where, and the bytes, 16 at most."""
    what = len(data) - 1 | (16 if in_head else 0) | (32 if marks else 0)
    return struct.pack("<HB", at, what) + data


def history_seeds():
    word, ones = bytes(4), b"\xff" * 8
    seed("history", "right", b"")
    seed("history", "no-magic", piece(0, b"nothing!", in_head=True))
    seed("history", "another-version", piece(64, struct.pack("<I", 99), in_head=True))
    seed("history", "no-spans", piece(12, word, in_head=True))
    seed("history", "many-spans", piece(12, b"\xff" * 4, in_head=True))
    for i in range(17, 25):
        for name, value in (("free", 0), ("class", 60), ("run", 1 << 31 | 2 << 5 | 4),
                            ("long-run", 1 << 31 | 5000 << 5 | 16), ("odd", 77)):
            seed("history", f"map-{name}-{i}",
                 piece(4096 + 4 * i, struct.pack("<I", value), in_head=True))
    for i in range(0, 2000, 111):
        seed("history", f"slot-{i}", piece(i, ones) + piece(i + 30, ones, marks=True))
        seed("history", f"zero-{i}", piece(i, bytes(16), marks=True))


http_seeds()
ws_seeds()
msg_seeds()
zip_seeds()
deflate_seeds()
config_seeds()
conn_seeds()
proxy_seeds()
token_seeds()
record_seeds()
history_seeds()
