# SPDX-License-Identifier: MIT
"""The opening handshake: what is taken, what is refused and with which status."""

from harness import *

SETTINGS = {"max_connections": 100}


def answer(daemon, raw):
    """Sends bytes as a handshake; returns status, headers and body."""
    with RawClient(daemon, handshake=False) as c:
        c.send(raw)
        return c.recv_head()


def test_accepts_the_example_of_the_standard(daemon):
    with RawClient(daemon, handshake=False) as c:
        c.send(b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
               b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               b"Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
               b"Sec-WebSocket-Version: 13\r\n\r\n")
        status, headers, _ = c.recv_head()
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert headers["upgrade"].lower() == "websocket"
        assert headers["connection"].lower() == "upgrade"
        assert "sec-websocket-protocol" not in headers
        assert "sec-websocket-extensions" not in headers


def test_accepts_what_it_should(daemon):
    cases = [
        request(headers={"Connection": "keep-alive, Upgrade"}),
        request(headers={"Upgrade": "WebSocket"}),
        request(headers={"Upgrade": "h2c, websocket"}),
        request().replace(b"Sec-WebSocket-Key", b"sec-websocket-KEY"),
        request().replace(b"Host: ", b"Host:\t ").replace(b"Upgrade: websocket",
                                                          b"Upgrade:websocket \t"),
        request("/room/7?token=x"),
        request("/" + "a" * 255),
        request("/%C3%A9%20b"),
        request("/" + "%C3%A9" * 127),
        request(headers={f"X-{i}": "y" for i in range(50)}),
        request(headers={"X-Long": "y" * 7000}),
    ]
    for raw in cases:
        assert answer(daemon, raw)[0] == 101, raw


def test_refuses_with_the_right_status(daemon):
    good = request()
    cases = [
        (426, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (426, request(headers={"Sec-WebSocket-Version": "8"})),
        (426, request(headers={"Sec-WebSocket-Version": "14"})),
        (400, request(drop=["Sec-WebSocket-Key"])),
        (400, request(headers={"Sec-WebSocket-Key": "short"})),
        (400, request(headers={"Sec-WebSocket-Key": "!" * 24})),
        (400, request(headers={"Sec-WebSocket-Key": "AAAA"})),
        (400, request(drop=["Host"])),
        (405, request(method="POST")),
        (405, request(method="DELETE")),
        (426, request(version="HTTP/1.0")),
        (400, good.replace(b"HTTP/1.1", b"HTTP/x.y")),
        (400, b"nonsense\r\n\r\n"),
        (400, b"GET / HTTP/1.1 more\r\nHost: x\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (400, good.replace(b"Upgrade: websocket", b"Upgrade websocket")),
        (400, good.replace(b"Host: ", b"Host : ")),
        (400, good.replace(b"Host: ", b"Ho\x00st: ")),
        (400, good.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\n folded")),
        (404, request("/" + "a" * 256)),
        (404, request("/" + "%C3%A9" * 128)),
        (404, request("/%FF%FE")),
        (404, request("/%C3")),
        (431, request(headers={"X-Long": "y" * 8200})),
        (431, b"GET /" + b"a" * 9000),
        (431, request(headers={f"X-{i}": "y" for i in range(65)})),
    ]
    for status, raw in cases:
        assert answer(daemon, raw)[0] == status, f"{answer(daemon, raw)}, not {status}: {raw[:300]}"


def test_bad_escapes_are_refused(daemon):
    for path in ("/%", "/%4", "/%zz", "/a%2"):
        assert answer(daemon, request(path))[0] in (400, 404), path


def test_refusal_ends_the_connection(daemon):
    with RawClient(daemon, handshake=False) as c:
        c.send(request(method="POST"))
        c.recv_head()
        c.expect_end()


def test_wrong_version_says_which_one(daemon):
    _, headers, _ = answer(daemon, request(headers={"Sec-WebSocket-Version": "8"}))
    assert headers["sec-websocket-version"] == "13"


def test_a_browser_that_lost_its_way_reads_a_line(daemon):
    status, _, body = answer(daemon, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 426
    text = body.decode()
    assert text.strip() and len(text.strip().splitlines()) == 1, text


def test_head_in_single_bytes(daemon):
    with RawClient(daemon, handshake=False) as c:
        for b in request("/slow"):
            c.send(bytes([b]))
        assert c.recv_head()[0] == 101


def test_frames_that_come_with_the_head(daemon):
    with RawClient(daemon, handshake=False) as c:
        c.send(request("/eager"), frame(PING, b"early"), chat("early"))
        assert c.recv_head()[0] == 101
        while (f := c.recv_frame()).opcode != PONG:
            pass
        assert f.payload == b"early"


async def test_path_becomes_the_channel(daemon):
    cases = [("/room/7", "room/7"), ("/room/7?x=1", "room/7"), ("/a%2Fb", "a/b"),
             ("/%C3%A9", "é"), ("/with%20space", "with space")]
    for path, channel in cases:
        async with await Client.connect(daemon, path) as a, await Client.connect(daemon, path) as b:
            await b.expect_chat(await a.send_chat(channel=channel), channel=channel)


def test_refusals_are_counted_and_logged(daemon):
    cases = [("method", request(method="POST")),
             ("bad_request", b"nonsense\r\n\r\n"),
             ("version", request(headers={"Sec-WebSocket-Version": "8"})),
             ("no_upgrade", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
             ("path", request("/%FF")),
             ("head_too_large", b"GET /" + b"a" * 9000)]
    for reason, raw in cases:
        before = daemon.metric("websocket_handshakes_refused_total", reason=reason)
        answer(daemon, raw)
        wait_until(lambda: daemon.metric("websocket_handshakes_refused_total",
                                         reason=reason) == before + 1, reason)
    assert daemon.lines(r"127\.0\.0\.1:\d+"), "no line names a refused client"


async def connects_at_last(daemon):
    """A client that tries until a place is free: it is when the daemon has seen the other's end."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return await Client.connect(daemon)
        except old_websockets.InvalidStatusCode as e:
            assert e.status_code in (429, 503) and time.monotonic() < deadline, e


async def test_those_who_are_refused_take_no_place():
    """Refused connections that stay are in nobody's way."""
    with Daemon(max_connections=2) as d:
        a, b = await Client.connect(d), await Client.connect(d)
        refused = [RawClient(d, handshake=False) for _ in range(20)]
        for c in refused:
            c.send(request()[:-2])
        answer(d, b"nonsense\r\n\r\n")  # the others were accepted before it
        await b.close()
        await close_all(a, await connects_at_last(d))
        for c in refused:
            c.close()


async def test_max_connections():
    with Daemon(max_connections=3) as d:
        clients = [await Client.connect(d) for _ in range(3)]
        status, headers, _ = answer(d, request())
        assert status == 503
        assert int(headers["retry-after"]) > 0
        assert d.metric("websocket_handshakes_refused_total", reason="max_connections") == 1
        d.wait_log("max_connections")
        await clients.pop().close()
        clients.append(await connects_at_last(d))
        await close_all(clients)


async def test_max_connections_per_ip():
    with Daemon(max_connections_per_ip=2) as d:
        clients = [await Client.connect(d) for _ in range(2)]
        assert answer(d, request())[0] == 429
        assert d.metric("websocket_handshakes_refused_total", reason="per_ip") == 1
        d.wait_log("max_connections_per_ip")
        async with await Client.connect(d, local_addr=("127.0.0.2", 0)):
            pass
        await clients.pop().close()
        clients.append(await connects_at_last(d))
        await close_all(clients)


def test_handshake_timeout():
    with Daemon(handshake_timeout="300ms") as d:
        with RawClient(d, handshake=False) as silent, RawClient(d, handshake=False) as half:
            began = time.monotonic()
            half.send(request()[:-2])
            half.expect_end()
            silent.expect_end()
            assert time.monotonic() - began >= 0.29
        assert d.metric("websocket_handshakes_refused_total", reason="timeout") >= 1
        with RawClient(d) as c:
            c.send(frame(PING, b"alive"))
            c.expect_frame(PONG, b"alive")


def test_dribbled_handshake_does_not_win_time():
    with Daemon(handshake_timeout="500ms") as d:
        with RawClient(d, handshake=False) as c:
            c.socket.settimeout(0.05)
            began = time.monotonic()
            ended = False
            while not ended and time.monotonic() - began < DEADLINE:
                try:
                    c.send(b"G")
                    ended = not c.socket.recv(1)
                except socket.timeout:
                    pass
                except ConnectionError:
                    ended = True
            assert ended and 0.49 <= time.monotonic() - began < 0.5 + 1.5 * SLOW


def unix_connection(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(DEADLINE)
    s.connect(str(path))
    s.sendall(request("/spread"))
    assert s.recv(100).startswith(b"HTTP/1.1 101")
    return s


def test_connections_of_one_listening_socket_spread_over_the_workers():
    with tempfile.TemporaryDirectory() as folder, \
            Daemon(listen_unix=f"{folder}/ws.sock", worker_threads=4) as d:
        connections = [unix_connection(f"{folder}/ws.sock") for _ in range(80)]
        counts = [d.metric("websocket_worker_connections", worker=i) for i in range(4)]
        assert sum(counts) == 80 and max(counts) <= 22, counts
        # Who comes goes where the others have left.
        for s in connections[::4] + connections[1::4]:
            s.close()
        wait_until(lambda: d.metric("websocket_active_connections") == 40, "they are gone")
        connections += [unix_connection(f"{folder}/ws.sock") for _ in range(40)]
        counts = [d.metric("websocket_worker_connections", worker=i) for i in range(4)]
        assert sum(counts) == 80 and max(counts) <= 22, counts
        for s in connections:
            s.close()
