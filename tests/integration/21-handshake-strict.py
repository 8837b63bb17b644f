# SPDX-License-Identifier: MIT
"""The opening handshake against those who don't mean well: every answer, counter and line."""

import ssl

from harness import *

SETTINGS = {"max_connections": 1000}
GOOD = request("/strict")
REFUSED = "websocket_handshakes_refused_total"


def with_lines(*lines):
    """A good request with these lines at the end of its head."""
    return GOOD[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def of_bytes(n):
    """A good request whose head has n bytes."""
    return with_lines(b"X-Long: " + b"x" * (n - len(with_lines(b"X-Long: "))))


def of_headers(n):
    return with_lines(*(b"X-%d: y" % i for i in range(n - GOOD.count(b"\r\n") + 2)))


# What is sent, the status, and the reason it is counted under (None: it is accepted).
TABLE = [
    # line ends, NUL, white space
    (GOOD.replace(b"\r\n", b"\n"), 400, "bad_request"),
    (GOOD.replace(b"\r\n", b"\r"), 400, "bad_request"),
    (GOOD.replace(b"\r\nUpgrade", b"\nUpgrade"), 400, "bad_request"),
    (with_lines(b"X: a\0b"), 400, "bad_request"),
    (with_lines(b"X\0: ab"), 400, "bad_request"),
    (GOOD.replace(b"/strict", b"/str\0ict"), 400, "bad_request"),
    (GOOD.replace(b"/strict", b"/strict%00"), 404, "path"),
    (with_lines(b"X: a", b" folded"), 400, "bad_request"),
    (with_lines(b"X: a", b"\tfolded"), 400, "bad_request"),
    (with_lines(b"X : a"), 400, "bad_request"),
    (with_lines(b": a"), 400, "bad_request"),
    (with_lines(b"no colon"), 400, "bad_request"),
    (with_lines(b"X(y): a"), 400, "bad_request"),
    (b" " + GOOD, 400, "bad_request"),
    (b"\r\n" + GOOD, 101, None),
    (b"\r\n\r\n" + GOOD, 400, "bad_request"),
    (GOOD.replace(b"GET /", b"GET  /"), 400, "bad_request"),
    # what may stand once
    (with_lines(b"Host: other"), 400, "bad_request"),
    (with_lines(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "bad_request"),
    (with_lines(b"Sec-WebSocket-Version: 13"), 400, "bad_request"),
    (with_lines(b"Upgrade: h2c", b"Connection: keep-alive"), 101, None),
    # targets and hosts
    (GOOD.replace(b"GET /", b"GET http://127.0.0.1/"), 101, None),
    (GOOD.replace(b"GET /", b"GET ws://elsewhere:1/"), 101, None),
    (GOOD.replace(b"GET /", b"GET ftp://127.0.0.1/"), 400, "bad_request"),
    (GOOD.replace(b"GET /", b"GET "), 400, "bad_request"),
    (GOOD.replace(b"/strict", b"/strict#top"), 400, "bad_request"),
    (GOOD.replace(b"/strict", b"*"), 400, "bad_request"),
    (GOOD.replace(b"Host: 127.0.0.1", b"Host: a b"), 400, "bad_request"),
    (GOOD.replace(b"Host: 127.0.0.1", b"Host: me@127.0.0.1"), 400, "bad_request"),
    (GOOD.replace(b"Host: 127.0.0.1\r\n", b""), 400, "bad_request"),
    # methods and versions
    (GOOD.replace(b"GET", b"get"), 405, "method"),
    (GOOD.replace(b"GET", b"HEAD"), 405, "method"),
    (GOOD.replace(b"GET /strict", b"OPTIONS *"), 405, "method"),
    (GOOD.replace(b"GET /strict", b"CONNECT a:1"), 405, "method"),
    (GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), 426, "version"),
    (GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"), 101, None),
    (GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"), 505, "bad_request"),
    (GOOD.replace(b"HTTP/1.1", b"http/1.1"), 400, "bad_request"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505, "bad_request"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400, "bad_request"),
    (GOOD.replace(b"Version: 13", b"Version: 13, 8"), 426, "version"),
    (GOOD.replace(b"Version: 13", b"Version: 013"), 426, "version"),
    (GOOD.replace(b"Sec-WebSocket-Version: 13\r\n", b""), 426, "version"),
    # a body
    (with_lines(b"Content-Length: 0"), 101, None),
    (with_lines(b"Content-Length: 5") + b"hello", 400, "bad_request"),
    (with_lines(b"Content-Length: -1"), 400, "bad_request"),
    (with_lines(b"Content-Length: 0", b"Content-Length: 5"), 400, "bad_request"),
    (with_lines(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "bad_request"),
    (with_lines(b"Transfer-Encoding: identity"), 400, "bad_request"),
    # sizes: a byte less than the limit, the limit, a byte more
    (of_bytes(8191), 101, None),
    (of_bytes(8192), 101, None),
    (of_bytes(8193), 431, "head_too_large"),
    (of_headers(63), 101, None),
    (of_headers(64), 101, None),
    (of_headers(65), 431, "head_too_large"),
    # two at once: the second is never looked at
    (GOOD.replace(b"GET", b"POST") + GOOD, 405, "method"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2, 426, "no_upgrade"),
]


def read_answer(client):
    """Status, headers, and that the connection then ends in order: no reset loses the answer."""
    status, headers, body = client.recv_head()
    if status != 101:
        # Of 426 the last of two such lines is seen: it names Upgrade.
        assert headers["connection"] == ("Upgrade" if status == 426 else "close"), headers
        assert body.strip(), "no word of why"
        while chunk := client.socket.recv(4096):
            assert not chunk, f"{chunk!r} behind the answer"
    return status


async def test_table(daemon):
    """Each row leaves a counter and, but for the limit of lines, a line; two others chat on."""
    a, b = await Client.connect(daemon, "/others"), await Client.connect(daemon, "/others")
    for raw, status, reason in TABLE:
        before = daemon.metric(REFUSED)
        by_reason = reason and daemon.metric(REFUSED, reason=reason)
        with RawClient(daemon, handshake=False) as c:
            c.send(raw)
            assert read_answer(c) == status, raw[:200]
        await b.expect_chat(await a.send_chat())
        assert daemon.metric(REFUSED) == before + (reason is not None), raw[:200]
        if reason:
            assert daemon.metric(REFUSED, reason=reason) == by_reason + 1, raw[:200]
    lines = daemon.lines(r"127\.0\.0\.1:\d+ was refused: handshake answered with \d{3} ")
    assert 3 < len(lines) < len(TABLE), lines
    await close_all(a, b)


def test_head_cut_at_every_byte(daemon):
    """Two writes, each on its own way through the kernel."""
    for at in range(1, len(GOOD)):
        with RawClient(daemon, handshake=False) as c:
            c.send(GOOD[:at])
            c.send(GOOD[at:])
            assert c.recv_head()[0] == 101, at


def test_second_request_is_no_frame(daemon):
    """Behind an accepted handshake come frames: another request breaks the protocol."""
    with RawClient(daemon, handshake=False) as c:
        c.send(GOOD + GOOD)
        assert c.recv_head()[0] == 101
        c.expect_close(1002)


def test_half_close(daemon):
    """Who says no more may still be told why it was refused; without Close it can't stay."""
    with RawClient(daemon, handshake=False) as c:
        c.send(GOOD.replace(b"GET", b"POST"))
        c.socket.shutdown(socket.SHUT_WR)
        assert read_answer(c) == 405
    for n in (0, 50, len(GOOD)):
        with RawClient(daemon, handshake=False) as c:
            c.send(GOOD[:n])
            c.socket.shutdown(socket.SHUT_WR)
            while c._fill():
                pass


def test_tls_client_on_the_plain_port(daemon):
    context = ssl.create_default_context()
    with socket.create_connection((daemon.host, daemon.port), DEADLINE) as s:
        try:
            context.wrap_socket(s, server_hostname="localhost")
            raise AssertionError("a TLS handshake succeeded")
        except ssl.SSLError as e:
            assert "WRONG_VERSION_NUMBER" in str(e) or "HTTP" in str(e).upper(), e


def test_those_who_send_nothing_or_hardly_anything():
    """Many of them, all gone at handshake_timeout, each counted; others come in meanwhile."""
    with Daemon(handshake_timeout="1s") as d:
        silent = [RawClient(d, handshake=False) for _ in range(50)]
        slow = [RawClient(d, handshake=False) for _ in range(50)]
        pieces = [GOOD[i:i + 1] for i in range(len(GOOD) - 1)]
        ended = set()
        for piece in pieces:
            for c in slow:
                if c not in ended:
                    try:
                        c.send(piece)
                    except OSError:
                        ended.add(c)
            with RawClient(d) as c:
                c.send(frame(PING, piece))
                c.expect_frame(PONG, piece)
            if d.metric(REFUSED, reason="timeout") == 100:
                break
        for c in silent + slow:
            c.expect_end()
            c.close()
        assert d.metric(REFUSED, reason="timeout") == 100
        d.wait_log("handshake_timeout")
