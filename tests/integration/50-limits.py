# SPDX-License-Identifier: MIT
"""Limits: what happens past each, and that the others notice nothing."""

from harness import *

SMALL = {"max_frame_size": "64K", "max_message_size": "256K"}


async def flood(sender, n, size=1000, readers=(), last="end"):
    """
    Publishes n numbered chat messages and a last one, and waits until they are through. Readers
    are in step: they have everything, in order, before more is sent.
    """
    await sender.connect_with(["ack"])
    seen = 0
    for i in range(n):
        await sender.send_chat(f"{i} " + "x" * size)
        if readers and (i % 20 == 19 or i == n - 1):
            for c in readers:
                for k in range(seen, i + 1):
                    m = await c.recv()
                    assert m.chat.content.startswith(f"{k} "), describe(m)
            seen = i + 1
    m = await sender.ask(chat(last))
    assert m.control.type == ACKNOWLEDGE, describe(m)
    for c in readers:
        await c.expect_chat(last)
    sender.backlog.clear()


# Size


def test_frame_past_max_frame_size():
    with Daemon(**SMALL) as d:
        for length in (65537, 1 << 31, (1 << 63) - 1):
            with RawClient(d) as c:
                c.send(frame(BINARY, b"begin", length=length))
                c.expect_close(1009)
        d.wait_log("max_frame_size")
        with RawClient(d) as c:
            c.send(frame(BINARY, b"\x00" * 65536))
            c.send(frame(PING, b"alive"))
            c.expect_close(1007)  # zero is no field number: it was read whole, and refused
        assert d.metric("websocket_closes_total", code="1009") == 3


def test_length_with_its_highest_bit_set():
    with Daemon(**SMALL) as d, RawClient(d) as c:
        c.send(frame(BINARY, b"begin", length=1 << 63))
        c.expect_close(1002)


def test_message_past_max_message_size():
    with Daemon(**SMALL) as d:
        with RawClient(d) as c:
            for i in range(4):
                c.send(frame(CONTINUATION if i else BINARY, bytes(65536), fin=False))
            c.send(frame(PING, b"at the limit"))
            c.expect_frame(PONG, b"at the limit")
            c.send(frame(CONTINUATION, b"x", fin=False))
            c.expect_close(1009)
        d.wait_log("max_message_size")


async def test_big_message_reaches_a_client_with_nothing_else_waiting():
    with Daemon(max_send_buffer="64K", slow_consumer_grace=0) as d:
        a, b = await Client.connect(d), await Client.connect(d)
        payload = os.urandom(3 << 20)
        for _ in range(3):
            await a.send_binary(payload)
            await b.expect_binary(payload)
            await a.expect_chat(await b.send_chat())
        await close_all(a, b)


# Rate


async def test_throttle_delays_and_loses_nothing():
    with Daemon(max_incoming_frames_per_second=50) as d:
        a, b = await Client.connect(d), await Client.connect(d)
        began = time.monotonic()
        for i in range(170):
            await a.send_chat(str(i))
        for i in range(170):
            await b.expect_chat(str(i))
        took = time.monotonic() - began
        assert took > 1.9, f"170 frames at 50 a second took {took:.2f} s"
        assert d.metric("websocket_throttles_total") >= 2
        d.wait_log("max_incoming_frames_per_second")
        await close_all(a, b)


async def test_throttled_client_does_not_delay_others():
    with Daemon(max_incoming_frames_per_second=200, worker_threads=1) as d:
        fast = [await Client.connect(d, "/fast") for _ in range(2)]
        with RawClient(d, "/hog") as hog:
            hog.send(*[frame(PING, b"x")] * 1000)
            for _ in range(50):
                began = time.monotonic()
                await fast[1].expect_chat(await fast[0].send_chat())
                assert time.monotonic() - began < 0.5 * SLOW
        await close_all(fast)


def test_rate_limit_may_close():
    with Daemon(max_incoming_frames_per_second=50, rate_limit_action="close") as d:
        with RawClient(d) as c:
            c.send(*[frame(PONG)] * 200)
            c.expect_close(1008)
        assert d.metric("websocket_closes_total", code="1008") == 1
        d.wait_log("max_incoming_frames_per_second")


# Slow consumers


async def test_slow_consumer_is_disconnected_after_its_grace():
    with Daemon(message_queue_size=2000, max_send_buffer="256K", slow_consumer_grace="700ms",
                tcp_notsent_lowat="16K", max_incoming_frames_per_second=0) as d:
        groups = await spread(d, "/room")
        sender, others = groups[0][0], groups[0][1:] + groups[1]
        with RawClient(d, "/room", rcvbuf=4096) as slow:
            began = time.monotonic()
            # more than kernel and limit hold, less than four times that
            await flood(sender, 600, readers=others)
            await d.wait_metric("websocket_slow_consumer_actions_total", 1, action="disconnect")
            assert time.monotonic() - began >= 0.69
            await d.wait_metric("websocket_active_connections", 1 + len(others))
            d.wait_log("max_send_buffer|message_queue_size")
            for c in others:
                await c.expect_notice(DISCONNECT, slow.id)
            slow.expect_close(1013, "slow consumer")
        await close_all(groups)


async def test_far_past_a_limit_there_is_no_grace():
    with Daemon(max_send_buffer="64K", slow_consumer_grace="1h", message_queue_size=1000000,
                tcp_notsent_lowat="16K", max_incoming_frames_per_second=0) as d:
        sender = await Client.connect(d, "/room")
        with RawClient(d, "/room", rcvbuf=4096):
            await flood(sender, 2000)
            await d.wait_metric("websocket_slow_consumer_actions_total", 1, action="disconnect")
            await d.wait_metric("websocket_active_connections", 1)
        await sender.close()


async def test_messages_count_as_well_as_bytes():
    with Daemon(max_send_buffer="200M", message_queue_size=50, slow_consumer_grace=0,
                tcp_notsent_lowat="16K", max_incoming_frames_per_second=0) as d:
        sender = await Client.connect(d, "/room")
        with RawClient(d, "/room", rcvbuf=4096):
            await flood(sender, 1500, size=2000)
            await d.wait_metric("websocket_slow_consumer_actions_total", 1, action="disconnect")
            d.wait_log("message_queue_size")
        await sender.close()


async def test_client_that_catches_up_in_its_grace_stays():
    with Daemon(max_send_buffer="128K", slow_consumer_grace="30s", message_queue_size=1000000,
                tcp_notsent_lowat="16K", max_incoming_frames_per_second=0) as d:
        sender = await Client.connect(d, "/room")
        with RawClient(d, "/room", rcvbuf=4096) as late:
            await flood(sender, 350)
            late.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            got = [late.recv() for _ in range(351)]
            texts = [m.chat.content.split()[0] for m in got]
            assert texts == [str(i) for i in range(350)] + ["end"]
            await sender.send_chat("more")
            assert late.recv().chat.content == "more"
        assert d.metric("websocket_slow_consumer_actions_total") == 0
        await sender.close()


async def test_skip_loses_the_oldest_and_stays_connected():
    with Daemon(slow_consumer="skip", message_queue_size=100, max_send_buffer="200M",
                slow_consumer_grace=0, tcp_notsent_lowat="16K",
                max_incoming_frames_per_second=0) as d:
        groups = await spread(d, "/market")
        sender, others = groups[0][0], groups[0][1:] + groups[1]
        with RawClient(d, "/market", rcvbuf=4096) as slow:
            await flood(sender, 3000, readers=others)
            await d.wait_metric("websocket_messages_skipped_total", lambda v: v > 0)
            got = []
            while not got or got[-1] != "end":
                m = slow.recv()
                got += [m.chat.content.split()[0]] if m.type == CHAT_MESSAGE else []
            kept = [int(t) for t in got[:-1]]
            assert kept == sorted(set(kept)), "out of order or doubled"
            assert len(kept) < 3000 and kept[-1] == 2999, "not the newest were kept"
            slow.send(frame(PING, b"still here"))
            slow.expect_frame(PONG, b"still here")
        assert d.metric("websocket_slow_consumer_actions_total", action="skip") > 0
        assert d.metric("websocket_slow_consumer_actions_total", action="disconnect") == 0
        await close_all(groups)


async def test_skip_never_drops_what_is_addressed_to_one():
    with Daemon(slow_consumer="skip", message_queue_size=100, max_send_buffer="200M",
                slow_consumer_grace=0, tcp_notsent_lowat="16K",
                max_incoming_frames_per_second=0) as d:
        sender = await Client.connect(d, "/market")
        with RawClient(d, "/market", rcvbuf=4096) as slow:
            slow.send(control(CONNECT, capabilities=["ack"], request_id=b"first"))
            assert slow.recv().request_id == b"first"
            await flood(sender, 1000)
            asked = [b"ask-%d" % i for i in range(20)]
            slow.send(*[control(CONNECT, capabilities=["ack"], request_id=r) for r in asked])
            await d.wait_metric("websocket_acknowledgements_sent_total", lambda v: v >= 23)
            await flood(sender, 1000, last="the very end")
            answers, last = [], ""
            while last != "the very end":
                m = slow.recv()
                last = m.chat.content
                if m.type == CONTROL and m.control.type == ACKNOWLEDGE:
                    answers.append(m.request_id)
            assert answers == asked
        await sender.close()


async def test_log_memory_meets_those_that_lag_most():
    with Daemon(log_memory="1M", max_send_buffer="1M", message_queue_size=1000000,
                max_message_size="1M", max_frame_size="1M", slow_consumer_grace="1h",
                tcp_notsent_lowat="16K",
                max_incoming_frames_per_second=0) as d:
        sender, prompt = await Client.connect(d, "/room"), await Client.connect(d, "/room")
        with RawClient(d, "/room", rcvbuf=4096):
            await flood(sender, 4000, readers=[prompt])
            await d.wait_metric("websocket_slow_consumer_actions_total", 1, action="disconnect")
            await d.wait_metric("websocket_active_connections", 2)
            d.wait_log("log_memory")
        await close_all(sender, prompt)


async def test_stopped_reader_costs_the_others_nothing():
    with Daemon(worker_threads=1, slow_consumer_grace="1h", max_send_buffer="200M",
                message_queue_size=1000000, max_incoming_frames_per_second=0) as d:
        a, b = await Client.connect(d, "/room"), await Client.connect(d, "/room")

        async def median():
            times = []
            for _ in range(200):
                began = time.monotonic()
                await b.expect_chat(await a.send_chat("x" * 5000 + str(uuid.uuid4())))
                times.append(time.monotonic() - began)
            return sorted(times)[len(times) // 2]

        without = await median()
        stopped = [RawClient(d, "/room", rcvbuf=4096) for _ in range(5)]
        with_them = await median()
        assert with_them < 3 * without + 0.005 * SLOW, (without, with_them)
        for c in stopped:
            c.close()
        await close_all(a, b)


# Partly received messages


def test_message_timeout():
    with Daemon(message_timeout="400ms") as d:
        with RawClient(d) as c:
            began = time.monotonic()
            c.send(frame(BINARY, b"begin", fin=False))
            c.expect_close(1008)
            assert time.monotonic() - began >= 0.39
        with RawClient(d) as c:
            c.send(frame(BINARY, b"half a frame", length=100))
            c.expect_close(1008)
        d.wait_log("message_timeout")


def test_reassembly_memory_closes_the_one_that_stands_still_longest():
    with Daemon(reassembly_memory="2M", max_message_size="4M", max_frame_size="4M",
                worker_threads=1, notice_limit=0) as d:
        def hold(c, n, **more):
            c.send(frame(BINARY, bytes(n), fin=False, **more), frame(PING, b"taken"))
            c.expect_frame(PONG, b"taken")

        still, others = RawClient(d), [RawClient(d) for _ in range(3)]
        hold(still, 100000)
        # They only announce: that costs nothing, and nobody anything.
        idle = [RawClient(d) for _ in range(200)]
        for c in idle:
            c.send(frame(BINARY, b"x", length=4 << 20))
        for c in others:
            hold(c, 500000)
        for c in others[:2]:
            for _ in range(6):
                c.send(frame(CONTINUATION, bytes(30000), fin=False), frame(PING, b"taken"))
                c.expect_frame(PONG, b"taken")
        still.expect_close(1013)
        d.wait_log("reassembly_memory")
        for c in others:
            c.send(frame(PING, b"alive"))
            c.expect_frame(PONG, b"alive")
            c.close()
        still.close()
        for c in idle:
            c.close()


def test_many_half_messages_are_given_back():
    with Daemon(notice_limit=0) as d:
        for _ in range(100):
            with RawClient(d) as c:
                c.send(frame(BINARY, bytes(50000), fin=False), frame(PING, b"through"))
                c.expect_frame(PONG, b"through")
        wait_until(lambda: d.metric("websocket_reassembly_bytes") == 0, "reassembly bytes to be 0")


# Lines about it


def test_refusals_do_not_flood_the_log():
    with Daemon() as d:
        for _ in range(100):
            with RawClient(d) as c:
                c.send(frame(3))
                c.expect_close(1002)
        assert d.metric("websocket_closes_total", code="1002") == 100
        lines = d.lines(r"^(notice|warning): .*127\.0\.0\.1")
        assert 1 <= len(lines) <= 60, f"{len(lines)} lines for 100 violations"
