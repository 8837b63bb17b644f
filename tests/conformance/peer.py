# SPDX-License-Identifier: MIT
"""
A client that sends what it is told, however wrong, and takes nothing wrong itself.

Every frame of the server is held to RFC 6455: unmasked, no reserved bits or opcodes, lengths
in their shortest form, control frames short and whole, continuations in their place, text and
close reasons UTF-8, close codes that may be sent, and nothing after a Close. Pings of the
server are answered and passed over. What the server agrees to is held to RFC 7692: it has to
answer the offer, and its deflated messages have to inflate within the window agreed to.
"""

import base64
import hashlib
import os
import select
import socket
import struct
import time
import zlib
from typing import NamedTuple
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "Close",
         PING: "Ping", PONG: "Pong"}
MAX_CONTROL = 125
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Failed(Exception):
    """The server broke the standard."""


class Refused(Failed):
    """The handshake was not answered with 101."""

    def __init__(self, answer):
        super().__init__(f"the handshake was answered with {answer!r}")
        self.status = " ".join(answer.split()[1:2])


class Unsupported(Failed):
    """The server doesn't do what the standard leaves open to it."""


class Event(NamedTuple):
    """A whole message, a Close or a Pong of the server's."""
    opcode: int
    payload: bytes

    def __str__(self):
        text = f"{NAMES[self.opcode]} of {len(self.payload)} bytes"
        if self.opcode == CLOSE and len(self.payload) >= 2:
            return f"Close {close_code(self.payload)} {self.payload[2:]!r}"
        return f"{text} {self.payload[:60]!r}" if self.payload else text


class End(NamedTuple):
    """The end of the connection; how: "end" or "reset"."""
    how: str

    def __str__(self):
        return f"the connection's {self.how}"


class Settings(NamedTuple):
    """What all connections of a run have in common."""
    url: str
    deadline: float = 10  # seconds that the server may take to say anything at all
    fail_fast: float = 2  # seconds within which bad input has to be noticed
    prompt: float = 0.6   # seconds within which a connection has to end after both Closes
    whole: float = 120    # seconds that one connection may last
    messages: int = 5     # of each kind that 12 and 13 send


# ------------------------------------------------------------------------- frames

def mask(payload, key):
    repeated = (key * (len(payload) // 4 + 1))[:len(payload)]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return mixed.to_bytes(len(payload), "little")


def frame(opcode, payload=b"", fin=True, rsv=0, length=None, form=None, masked=True):
    """
    The bytes of a frame. length may lie about the payload; form forces 7, 16 or 64 bits
    for it, masked=False leaves the mask out.
    """
    n = len(payload) if length is None else length
    form = form or (7 if n < 126 else 16 if n < 65536 else 64)
    bit = 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if form == 7:
        head += bytes([bit | n])
    elif form == 16:
        head += struct.pack(">BH", bit | 126, n)
    else:
        head += struct.pack(">BQ", bit | 127, n)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def text(payload=b"", **how):
    return frame(TEXT, payload, **how)


def binary(payload=b"", **how):
    return frame(BINARY, payload, **how)


def more(payload=b"", fin=False, **how):
    return frame(CONTINUATION, payload, fin=fin, **how)


def ping(payload=b"", **how):
    return frame(PING, payload, **how)


def pong(payload=b"", **how):
    return frame(PONG, payload, **how)


def close(code=None, reason=b"", **how):
    head = b"" if code is None else struct.pack(">H", code)
    return frame(CLOSE, head + reason, **how)


def fragments(opcode, payload, size):
    """The frames of a message cut into pieces of size bytes."""
    pieces = [payload[i:i + size] for i in range(0, len(payload), size)] or [b""]
    return [frame(CONTINUATION if i else opcode, piece, fin=i == len(pieces) - 1)
            for i, piece in enumerate(pieces)]


def close_code(payload):
    """1005 stands for none, as the standard has it."""
    return struct.unpack(">H", payload[:2])[0] if payload else 1005


def may_be_sent(code):
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def is_utf8(payload):
    try:
        payload.decode()
        return True
    except UnicodeDecodeError:
        return False


# ------------------------------------------------------------- permessage-deflate

TAKEOVERS = "server_no_context_takeover", "client_no_context_takeover"
WINDOWS = "server_max_window_bits", "client_max_window_bits"


def parse_extension(element):
    """name; parameter=value … as (name, {parameter: value or None})."""
    name, *parameters = (part.strip() for part in element.split(";"))
    out = {}
    for parameter in parameters:
        key, has_value, value = (part.strip() for part in parameter.partition("="))
        if key.lower() in out:
            raise Failed(f"agreed to {element!r}, which says {key} twice")
        out[key.lower()] = value.strip('"') if has_value else None
    return name.lower(), out


def answers(agreed, offered):
    """Whether a response may stand against an offer (RFC 7692 section 7.1)."""
    for name in agreed:
        if name in TAKEOVERS and agreed[name] is not None:
            return False
        if name in WINDOWS and (agreed[name] or "") not in map(str, range(8, 16)):
            return False
        if name not in TAKEOVERS + WINDOWS:
            return False
    if TAKEOVERS[0] in offered and TAKEOVERS[0] not in agreed:
        return False
    if WINDOWS[1] in agreed and WINDOWS[1] not in offered:
        return False
    if WINDOWS[0] in offered and WINDOWS[0] not in agreed:
        return False
    return all(int(agreed[w]) <= int(offered[w]) for w in WINDOWS
               if w in agreed and (offered.get(w) or "").isdigit())


class Deflate:
    """What client and server agreed to, and the client's end of it."""

    TAIL = b"\x00\x00\xff\xff"

    def __init__(self, answer, offer):
        name, agreed = parse_extension(answer)
        offers = []
        for element in offer.split(","):
            try:
                offers.append(parse_extension(element))
            except Failed:
                pass  # one that may not be agreed to
        if name != "permessage-deflate" or "," in answer or not any(
                name == o and answers(agreed, parameters) for o, parameters in offers):
            raise Failed(f"agreed to {answer!r}, offered was {offer!r}")
        self.keeps_context = TAKEOVERS[0] not in agreed
        self.window = int(agreed.get(WINDOWS[0]) or 15)
        self.own_window = max(9, int(agreed.get(WINDOWS[1]) or 15))
        self.inflater = None

    def deflate(self, payload):
        """Each message by itself, which every agreement allows."""
        z = zlib.compressobj(6, zlib.DEFLATED, -self.own_window)
        return (z.compress(payload) + z.flush(zlib.Z_SYNC_FLUSH))[:-len(self.TAIL)]

    def inflate(self, payload):
        if not self.inflater or not self.keeps_context:
            self.inflater = zlib.decompressobj(-self.window)
        try:
            return self.inflater.decompress(payload + self.TAIL)
        except zlib.error as e:
            raise Failed(f"sent a message that doesn't inflate with a window of "
                         f"{self.window} bits: {e}") from e


# --------------------------------------------------------------------- connection

class Peer:
    """A connection to the server, past the handshake. With `with`, it ends as it should."""

    def __init__(self, settings, offer=None, wants_deflate=True, notes=None):
        """offer: of extensions; without wants_deflate nothing need come of it."""
        self.settings = settings
        self.notes = [] if notes is None else notes
        self.until = time.monotonic() + settings.whole
        self.buffer, self.at = bytearray(), 0
        self.end = None  # an End
        self.got_close = None
        self.sent_close = False
        self.parts, self.opcode, self.is_deflated = [], None, False
        self.extensions, self.deflate = "", None
        parts = urlsplit(settings.url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80),
                                               settings.deadline)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setblocking(False)
            self._open(parts, offer)
            if self.extensions:
                self.deflate = Deflate(self.extensions, offer)
            elif offer and wants_deflate:
                raise Unsupported("doesn't agree to permessage-deflate")
        except BaseException:
            self.socket.close()
            raise

    def another(self, **how):
        """One more connection like this one; what is noted counts for the same case."""
        return Peer(self.settings, notes=self.notes, **how)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and not self.end:
                self.finish()
        finally:
            self.socket.close()

    def note(self, what):
        """The standard is kept, but not in the best way."""
        if what not in self.notes:
            self.notes.append(what)

    # Bytes

    def _wait(self, write, timeout=None):
        """Waits for the socket; true when it is ready for what is wanted, or ended."""
        limit = self.settings.deadline if timeout is None else timeout
        limit = max(0, min(limit, self.until - time.monotonic()))
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | (select.POLLOUT if write else 0))
        return bool(poll.poll(limit * 1000))

    def _fill(self):
        """Takes what has come, without waiting; false when there is nothing."""
        if self.end:
            return True
        try:
            chunk = self.socket.recv(1 << 20)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.end = End("reset")
            return True
        if not chunk:
            self.end = End("end")
        self.buffer += chunk
        return True

    def _await(self, what):
        if not self._fill():
            if not self._wait(write=False):
                raise Failed(f"nothing came within {self.settings.deadline:g} s; "
                             f"expected {what}")
            self._fill()

    def _take(self, n, what):
        while len(self.buffer) - self.at < n:
            if self.end:
                if len(self.buffer) > self.at:
                    raise Failed(f"{self.end} in the middle of a frame")
                return None
            self._await(what)
        taken = bytes(self.buffer[self.at:self.at + n])
        self.at += n
        if self.at == len(self.buffer):
            self.buffer, self.at = bytearray(), 0
        return taken

    def _write(self, data):
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                # A server that echoes before the end has to be read meanwhile.
                if not self._wait(write=True):
                    raise Failed("took no more bytes "
                                 f"for {self.settings.deadline:g} s") from None
                self._fill()
                if self.end:
                    return
            except ConnectionError:
                return  # what it had to say before is still there to be read

    def deflated(self, opcode, payload, size=0):
        """The frames of a deflated message, in pieces of size bytes, or one (0)."""
        first, *others = fragments(opcode, self.deflate.deflate(payload), size or 1 << 30)
        return [bytes([first[0] | 0x40]) + first[1:], *others]

    def send(self, *pieces, chop=None):
        """Writes each piece by itself, or chop bytes at a time."""
        for piece in pieces:
            if chop:
                for i in range(0, len(piece), chop):
                    self._write(piece[i:i + chop])
            else:
                self._write(piece)

    def heard(self, timeout):
        """Waits until there is something to read, or the end."""
        return bool(len(self.buffer) > self.at or self.end or self._wait(False, timeout))

    # Handshake

    def _open(self, parts, offer):
        key = base64.b64encode(os.urandom(16)).decode()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"Host": parts.netloc, "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"}
        if offer:
            fields["Sec-WebSocket-Extensions"] = offer
        lines = [f"GET {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
        self.send("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self.buffer:
            if self.end:
                raise Failed(f"{self.end} before the handshake was answered")
            self._await("the answer to the handshake")
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        got = {name.strip().lower(): value.strip()
               for name, _, value in (line.partition(":") for line in lines)}
        digest = hashlib.sha1((key + GUID).encode()).digest()
        if first.split()[1:2] != ["101"]:
            raise Refused(first)
        if got.get("sec-websocket-accept") != base64.b64encode(digest).decode():
            raise Failed("Sec-WebSocket-Accept is wrong")
        self.extensions = got.get("sec-websocket-extensions", "")
        if self.extensions and not offer:
            raise Failed(f"extensions that were not offered: {self.extensions}")

    # What the server sends

    def _recv_frame(self, what):
        head = self._take(2, what)
        if head is None:
            return None
        opcode, n, form = head[0] & 15, head[1] & 127, 7
        if n > 125:
            form = 16 if n == 126 else 64
            n = int.from_bytes(self._take(form // 8, what) or b"", "big")
        wrong = [reason for reason, applies in (
            ("something after a Close", self.got_close),
            ("reserved bits", head[0] & (0x30 if self._may_have_rsv1(opcode) else 0x70)),
            ("a reserved opcode", opcode not in NAMES),
            ("a mask", head[1] & 0x80),
            ("a length that is longer than need be",
             form == 16 and n < 126 or form == 64 and n < 65536),
            ("a large control frame", opcode >= CLOSE and n > MAX_CONTROL),
            ("a control frame in fragments", opcode >= CLOSE and not head[0] & 0x80),
            ("a continuation of nothing", opcode == CONTINUATION and self.opcode is None),
            ("a message inside a message",
             CONTINUATION < opcode < CLOSE and self.opcode is not None)) if applies]
        if wrong:
            raise Failed(f"sent {wrong[0]} (frame {head.hex()})")
        payload = self._take(n, what) if n else b""
        if payload is None:
            raise Failed(f"{self.end} in the middle of a frame")
        if opcode in (TEXT, BINARY):
            self.is_deflated = bool(head[0] & 0x40)
        return opcode, payload, bool(head[0] & 0x80)

    def _may_have_rsv1(self, opcode):
        return self.deflate and opcode in (TEXT, BINARY)

    def _check_close(self, payload):
        if len(payload) == 1:
            raise Failed("sent a Close with half a code")
        if payload and not may_be_sent(close_code(payload)):
            raise Failed(f"sent a Close with code {close_code(payload)}")
        if not is_utf8(payload[2:]):
            raise Failed("sent a Close whose reason is not UTF-8")

    def recv(self, what="anything"):
        """The next Event or the End."""
        while True:
            got = self._recv_frame(what)
            if got is None:
                return self.end
            opcode, payload, fin = got
            if opcode == PING:
                if not self.sent_close:
                    self.send(pong(payload))
            elif opcode == CLOSE:
                self._check_close(payload)
                self.got_close = Event(CLOSE, payload)
                return self.got_close
            elif opcode == PONG:
                return Event(PONG, payload)
            else:
                self.opcode = opcode or self.opcode
                self.parts.append(payload)
                if fin:
                    whole = b"".join(self.parts)
                    event = Event(self.opcode,
                                  self.deflate.inflate(whole) if self.is_deflated else whole)
                    self.parts, self.opcode = [], None
                    if event.opcode == TEXT and not is_utf8(event.payload):
                        raise Failed("sent text that is not UTF-8")
                    return event

    # What it should send

    def expect(self, *wanted):
        """These events, each an (opcode, payload); in another order they are noted."""
        wanted = [Event(*w) for w in wanted]
        left = list(wanted)
        while left:
            got = self.recv(str(left[0]))
            if got not in left:
                raise Failed(f"got {got}; expected {left[0]}")
            if got != left[0]:
                self.note(f"{got} came before {left[0]}")
            left.remove(got)

    def expect_end(self):
        """After the Close: answers it where that has not been done, and waits for the end."""
        if not self.sent_close:
            self.sent_close = True
            self.send(close())
        if not self.heard(self.settings.prompt):
            self.note("does not end the connection at once after the Close")
        got = self.recv("the end of the connection, which is the server's to bring about")
        if not isinstance(got, End):
            raise Failed(f"got {got} after the Close")
        if got.how == "reset":
            self.note("the connection was reset after the Close")

    def _expect_last(self, code, before):
        """Up to the Close or the End, with some or all of the events before it."""
        left = [Event(*b) for b in before]
        while True:
            got = self.recv(f"Close {code}")
            if isinstance(got, End) or got.opcode == CLOSE:
                break
            if not left or got != left.pop(0):
                raise Failed(f"got {got}; expected Close {code}")
        if left:
            self.note(f"closed without {left[0]}")
        return got

    def expect_failure(self, code, before=()):
        """The server fails the connection with code, after the events before."""
        self._judge_failure(self._expect_last(code, before), code)

    def expect_failure_or(self, event, code, what):
        """The same, but with event it would do no more than deserve a note."""
        got = self.recv(f"Close {code}")
        if got == Event(*event):
            self.note(what)
        elif isinstance(got, Event) and got.opcode != CLOSE:
            raise Failed(f"got {got}; expected Close {code}")
        else:
            self._judge_failure(got, code)

    def _judge_failure(self, got, code):
        if isinstance(got, End):
            self.note(f"{got} without a Close; expected Close {code}")
            return
        if close_code(got.payload) != code:
            self.note(f"got {got}; expected Close {code}")
        self.expect_end()

    def expect_close(self, *codes, before=()):
        """The server answers our Close with one of codes, or less well with 1000."""
        self.sent_close = True
        got = self._expect_last(codes[0], before)
        if isinstance(got, End):
            raise Failed(f"{got} without an answer to the Close")
        if close_code(got.payload) not in (*codes, 1000):
            raise Failed(f"got {got}; expected Close {codes[0]}")
        if close_code(got.payload) not in codes:
            self.note(f"answers Close {codes[0]} with another code, 1000")
        self.expect_end()

    def echo(self, opcode, payload, *pieces, chop=None):
        """Sends a message, as pieces if there are any, and wants it back."""
        self.send(*(pieces or (frame(opcode, payload),)), chop=chop)
        self.expect((opcode, payload))

    def fence(self):
        """Nothing is on its way: the next thing that comes is the answer to this Ping."""
        mark = os.urandom(8)
        self.send(ping(mark))
        self.expect((PONG, mark))

    def finish(self):
        """A closing handshake, with nothing before it."""
        self.send(close(1000))
        self.expect_close(1000)
