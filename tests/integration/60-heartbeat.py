# SPDX-License-Identifier: MIT
"""Signs of life: pings, pongs, and the end of those that give none."""

from harness import *

SHORT = {"ping_interval": "200ms", "pong_timeout": "150ms", "heartbeat_timeout": "1s"}


def read_until_close(client):
    """Answers nothing; returns the pings and when the Close came."""
    pings = 0
    while (f := client.recv_frame()).opcode != CLOSE:
        pings += f.opcode == PING
    return pings, f.payload, time.monotonic()


def test_silent_client_is_pinged_and_then_closed():
    with Daemon(**SHORT) as d:
        with RawClient(d) as c:
            last_sign = time.monotonic()
            pings, close, ended = read_until_close(c)
            assert close == struct.pack(">H", 4001) + b"heartbeat timeout"
            assert 0.98 <= ended - last_sign <= 2 + SLOW, f"after {ended - last_sign:.2f} s"
            assert pings >= 2
            c.expect_end()
        assert d.metric("websocket_pongs_missed_total") >= 1
        assert d.metric("websocket_heartbeat_expired_total") == 1
        assert d.metric("websocket_closes_total", code="4001") == 1
        d.wait_log("heartbeat_timeout|heartbeat timeout|no sign of life")


async def test_expiry_is_told_to_the_others_and_frees_everything():
    with Daemon(**SHORT) as d:
        watchers = await spread(d, "/room")
        c = RawClient(d, "/room")
        for group in watchers:
            for w in group:
                await w.expect_notice(DISCONNECT, c.id)
        assert c.id not in d.clients()
        assert d.metric("websocket_active_connections") == sum(len(g) for g in watchers)
        c.close()
        await close_all(watchers)


async def test_pongs_keep_a_client_alive():
    with Daemon(**SHORT) as d:
        async with await Client.connect(d) as c:  # the library answers pings
            await d.wait_metric("websocket_pings_sent_total", lambda v: v >= 12)
            await c.expect_silence()
        assert d.metric("websocket_heartbeat_expired_total") == 0
        assert d.metric("websocket_pongs_missed_total") == 0


def test_any_complete_frame_is_a_sign_of_life():
    kinds = [lambda: frame(BINARY, Message(type=HEARTBEAT).SerializeToString()),
             lambda: frame(PONG, b"unasked"), lambda: frame(TEXT, b"text"),
             lambda: frame(PING, b"mine")]
    with Daemon(ping_interval="300ms", pong_timeout="300ms", heartbeat_timeout="600ms") as d:
        for kind in kinds:
            with RawClient(d) as c:
                c.socket.settimeout(0.2)
                for _ in range(8):
                    c.send(kind())
                    try:
                        while True:
                            more = c.socket.recv(4096)  # waits up to 0.2 s
                            assert more and more[0] != 0x88, "closed in spite of its frames"
                    except socket.timeout:
                        pass
        assert d.metric("websocket_heartbeat_expired_total") == 0


def test_bytes_without_a_frame_are_no_sign_of_life():
    with Daemon(**SHORT) as d:
        with RawClient(d) as c:
            began = time.monotonic()
            c.send(frame(BINARY, b"", length=1000))
            c.socket.settimeout(0.1)
            closed = False
            while not closed:
                assert time.monotonic() - began < DEADLINE, "dribbling keeps it alive"
                try:
                    c.send(b"x")
                    c.buffer += c.socket.recv(4096)
                    closed = b"heartbeat timeout" in c.buffer
                except socket.timeout:
                    pass
                except ConnectionError:
                    closed = True
        assert d.metric("websocket_heartbeat_expired_total") == 1


def test_busy_client_is_not_pinged():
    with Daemon(ping_interval="500ms", pong_timeout="10s") as d:
        with RawClient(d) as c:
            c.socket.settimeout(0.1)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                c.send(Message(type=HEARTBEAT))
                try:
                    assert c.socket.recv(4096)[0] & 0x0f != PING, "pinged though it talks"
                except socket.timeout:
                    pass


async def test_timers_of_many_clients():
    with Daemon(**SHORT, notice_limit=0) as d:
        alive = [await Client.connect(d) for _ in range(20)]
        silent = [RawClient(d) for _ in range(100)]
        await d.wait_metric("websocket_heartbeat_expired_total", 100)
        await d.wait_metric("websocket_active_connections", 20)
        for c in silent:
            c.close()
        await alive[0].expect_nothing_in(alive[1])
        await close_all(alive)


# Standing still

SHORTER = {"ping_interval": "300ms", "pong_timeout": "300ms", "heartbeat_timeout": "1s",
           "handshake_timeout": "1s", "notice_limit": 0}


def test_standing_still_ends_nobody_who_speaks_meanwhile():
    with Daemon(**SHORTER, message_timeout="1s") as d:
        reader = RawClient(d, "/room")
        talkers = [RawClient(d, "/room") for _ in range(100)]
        begun = [RawClient(d, handshake=False) for _ in range(20)]
        half = RawClient(d, "/half")
        half.send(frame(BINARY, chat("half").SerializeToString()[:3], fin=False))
        for c in begun:
            c.send(request("/new")[:20])
        d.suspend()
        late = [RawClient(d, handshake=False) for _ in range(20)]
        for round in range(8):
            for c in talkers:
                c.send(chat(f"{round}"))
            time.sleep(0.3)
        for c in begun:
            c.send(request("/new")[20:])
        for c in late:
            c.send(request("/new"))
        half.send(frame(CONTINUATION, chat("half").SerializeToString()[3:]))
        d.signal(signal.SIGCONT)
        # Nothing is lost, and nobody.
        got = sorted(reader.recv().chat.content for _ in range(8 * len(talkers)))
        assert got == sorted(f"{round}" for round in range(8) for _ in talkers)
        for c in begun + late:
            assert c.recv_head()[0] == 101
        assert d.metric("websocket_heartbeat_expired_total") == 0
        assert d.metric("websocket_handshakes_refused_total", reason="timeout") == 0
        assert d.metric("websocket_closes_total", code="1008") == 0
        for c in [reader, half] + talkers + begun + late:
            c.close()


def test_standing_still_is_no_clients_silence_but_pings_follow():
    with Daemon(**SHORTER) as d, RawClient(d) as c:
        d.suspend()
        time.sleep(1.5)
        d.signal(signal.SIGCONT)
        woke = time.monotonic()
        pings, close, ended = read_until_close(c)
        assert pings >= 2
        assert close == struct.pack(">H", 4001) + b"heartbeat timeout"
        assert 0.98 <= ended - woke <= 2 + SLOW, f"after {ended - woke:.2f} s"
