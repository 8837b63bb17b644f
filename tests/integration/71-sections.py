# SPDX-License-Identifier: MIT
"""Sections of the configuration: keys that hold for some channels alone."""

from harness import *


def rewrite(d, text, **changes):
    """The daemon's configuration with these sections behind its keys, and a reload of it."""
    d.write_config(**changes)
    with open(d.config, "a", encoding="utf-8") as f:
        f.write(text)
    return d.ask("POST", "/reload")


def position_of(c):
    return [p for p in c.config.control.positions if p.epoch]


async def test_channels_by_pattern():
    with Daemon() as d:
        answer = rewrite(d, "[channel kept/**]\nhistory_messages = 5\n"
                            "[channel kept/not]\nhistory_messages = 0\n"
                            "[channel /]\nnotice_limit = 0\nstamp_sender = yes\n")
        assert answer.status == 200, answer.text
        for line in ("[channel kept/**] history_messages: 5, was not set",
                     "[channel /] stamp_sender: yes, was not set"):
            assert line in answer.text, answer.text
        d.wait_log(r"\[channel /\] notice_limit: 0, was not set")
        for path, is_kept in (("/kept/a", True), ("/kept/a/b", True), ("/kept/not", False),
                              ("/kept", False), ("/", False)):
            async with await Client.connect(d, path) as c:
                assert bool(position_of(c)) == is_kept, path
        a, b = await Client.connect(d), await Client.connect(d)
        m = await b.expect_chat(await a.send_chat())
        assert m.sender == uuid.UUID(a.id).bytes and not b.notices and not a.notices
        c, e = await Client.connect(d, "/x"), await Client.connect(d, "/x")
        assert not (await e.expect_chat(await c.send_chat())).sender
        await c.expect_notice(CONNECT, e.id)
        await close_all(a, b, c, e)


async def test_a_reload_changes_channels_that_are_open():
    with Daemon(history_messages=3) as d:
        a, b = [await Client.connect(d, "/a", capabilities=["ack"]) for _ in range(2)]
        assert position_of(a)
        assert rewrite(d, "[channel a]\nhistory_messages = 0\nstamp_sender = yes\n").status == 200
        m = await a.ask(chat("one"))
        assert not m.control.positions
        m = await b.expect_chat("one")
        assert m.sender and not m.HasField("sequence")
        answer = rewrite(d, "[channel a]\nhistory_messages = 2\n")
        assert "[channel a] stamp_sender: not set, was yes" in answer.text, answer.text
        m = await a.ask(chat("two"))
        assert len(m.control.positions) == 1
        await b.expect_chat("two")
        # What is wrong changes nothing.
        answer = rewrite(d, "[channel a]\nhistory_messages = 0\nport = 1\n")
        assert answer.status == 422 and "no key of a channel" in answer.text, answer.text
        assert (await a.ask(chat("three"))).control.positions
        await close_all(a, b)




async def test_slow_consumers_by_channel():
    """In one channel they are skipped, in another closed."""
    with Daemon(slow_consumer_grace=0, message_queue_size=10, tcp_notsent_lowat="4K",
                notice_limit=0, max_incoming_frames_per_second=0) as d:
        assert rewrite(d, "[channel market/**]\nslow_consumer = skip\n").status == 200
        for path, action in (("/market/x", "skip"), ("/chat", "disconnect")):
            a = await Client.connect(d, path, capabilities=["ack"])
            with RawClient(d, path, rcvbuf=4096):  # it reads nothing
                for _ in range(300):
                    await a.ask(chat("x" * 20000))
                await d.wait_metric("websocket_slow_consumer_actions_total", lambda n: n > 0,
                                    action=action)
            await a.close()
        metrics = d.metrics()
        assert metrics['websocket_slow_consumer_actions_total{action="disconnect"}'] == 1


async def test_sections_live_through_a_restart():
    with Daemon(history_messages=0) as d:
        rewrite(d, "[channel kept]\nhistory_messages = 9\n")
        a = await Client.connect(d, "/kept", capabilities=["ack"])
        at = (await a.ask(chat("one"))).control.positions[0]
        await asyncio.to_thread(d.hand_over)
        async with await Client.connect(d, f"/kept?since={at.epoch}.{at.sequence - 1}") as b:
            assert b.config.control.positions[0].recovered
            await b.expect_chat("one")
        await a.close()
