# SPDX-License-Identifier: MIT
"""Reload: by SIGHUP and over the control socket, what follows at once and what does not."""

from harness import *


async def test_reload_over_the_control_socket_is_done_when_answered():
    with Daemon() as d:
        async with await Client.connect(d) as a, await Client.connect(d) as b:
            await a.send("text goes nowhere")
            await a.expect_silence()
            assert d.reload(text_messages="relay").status == 200
            await a.send("text is relayed")
            assert await b.recv() == "text is relayed"
            assert d.reload(text_messages="reject").status == 200
            await a.send("no")
            await a.expect_close(1003)
            d.wait_log("text_messages")


async def test_reload_by_signal():
    with Daemon() as d:
        async with await Client.connect(d) as a:
            since = len(d.log)
            d.write_config(text_messages="reject", log_level="debug").signal(signal.SIGHUP)
            d.wait_log("reloaded", since=since)
            assert d.lines("text_messages", since)
            await a.send("no")
            await a.expect_close(1003)


async def test_new_connections_follow_and_old_ones_stay():
    with Daemon(welcome="before") as d:
        async with await Client.connect(d) as a:
            assert a.welcome.chat.content == "before"
            assert d.reload(welcome="after", max_connections=2).status == 200
            async with await Client.connect(d) as b:
                assert b.welcome.chat.content == "after"
                with RawClient(d, handshake=False) as c:
                    c.send(request())
                    assert c.recv_head()[0] == 503
                await a.expect_nothing_in(b)


async def test_bad_configuration_changes_nothing():
    with Daemon() as d:
        async with await Client.connect(d) as a, await Client.connect(d) as b:
            answer = d.reload(text_messages="reject", ping_interval="soon")
            assert answer.status == 422
            line = next(i for i, text in enumerate(d.config.read_text().splitlines(), 1)
                        if "ping_interval" in text)
            for part in (f"wsbind.conf:{line}", "ping_interval", "soon"):
                assert part in answer.text, answer.text
            d.wait_log(rf"wsbind\.conf:{line}.*ping_interval.*soon")
            await a.send("text still goes nowhere")
            await a.expect_silence()
            await b.expect_nothing_in(a)
            since = len(d.log)
            d.signal(signal.SIGHUP)
            d.wait_log("ping_interval", since=since)
            assert d.reload(text_messages="reject", ping_interval="5s").status == 200
            await a.send("no")
            await a.expect_close(1003)


async def test_what_needs_a_restart_is_reported():
    with Daemon() as d:
        async with await Client.connect(d) as a:
            since = len(d.log)
            answer = d.reload(worker_threads=3, text_messages="relay")
            assert answer.status == 200
            d.wait_log("worker_threads.*restart|restart.*worker_threads", since=since)
            assert "websocket_worker_connections{worker=\"2\"}" not in d.metrics()
            await a.expect_silence()


def test_reload_without_changes():
    with Daemon() as d:
        for _ in range(3):
            assert d.reload().status == 200


async def test_heartbeat_settings_reach_open_connections():
    with Daemon() as d:
        with RawClient(d) as c:
            assert d.reload(ping_interval="200ms", pong_timeout="100ms",
                            heartbeat_timeout="1s").status == 200
            while (f := c.recv_frame()).opcode != CLOSE:
                pass
            assert f.payload == struct.pack(">H", 4001) + b"heartbeat timeout"


async def test_limits_reach_open_connections():
    with Daemon() as d:
        with RawClient(d) as c:
            assert d.reload(max_frame_size="4K", max_message_size="8K").status == 200
            c.send(frame(BINARY, bytes(5000)))
            c.expect_close(1009)


async def test_reloads_under_load_lose_nothing():
    with Daemon(max_incoming_frames_per_second=0) as d:
        groups = await spread(d, "/busy")
        a, b = groups[0][0], groups[1][0]

        async def publish():
            for i in range(1000):
                await a.send_chat(str(i))

        async def read():
            for i in range(1000):
                await b.expect_chat(str(i))

        async def reload_often():
            for i in range(20):
                d.write_config(welcome=f"number {i}")
                answer = await asyncio.get_running_loop().run_in_executor(
                    None, d.ask, "POST", "/reload")
                assert answer.status == 200

        await asyncio.gather(publish(), read(), reload_often())
        await close_all(groups)
