# SPDX-License-Identifier: MIT
"""Channels: joining by path and by SUBSCRIBE, who gets what, notices, members on two workers."""

from harness import *

SETTINGS = {}


def unique():
    return f"c-{uuid.uuid4()}"


async def test_members_of_a_path_hear_each_other_and_nobody_else(daemon):
    one, two = unique(), unique()
    a, b, c = [await Client.connect(daemon, "/" + p) for p in (one, one, two)]
    d = await Client.connect(daemon, "/" + two)
    content = await a.send_chat()
    await b.expect_chat(content, channel=one)
    await c.expect_nothing_in(d)
    await a.expect_silence()
    await close_all(a, b, c, d)


async def test_lobby_messages_carry_no_channel(daemon):
    a, b = await Client.connect(daemon), await Client.connect(daemon)
    content = await a.send_chat()
    m = await b.expect_chat(content)
    assert not m.HasField("channel")
    await close_all(a, b)


async def test_channel_field_set_and_empty_means_the_lobby(daemon):
    path = unique()
    guest, local = await Client.connect(daemon, "/" + path), await Client.connect(daemon)
    m = await guest.ask(chat("let me in", channel=""))
    assert m.control.type == ERROR, "not a member of the lobby"
    await guest.subscribe("")
    await local.expect_chat(await guest.send_chat(channel=""))
    content = await local.send_chat()
    await guest.expect_chat(content)
    await close_all(guest, local)


async def test_subscribe_and_unsubscribe(daemon):
    extra = [unique() for _ in range(3)]
    a, b = await Client.connect(daemon), await Client.connect(daemon)
    await a.subscribe(*extra)
    await b.subscribe(extra[1])
    await a.expect_chat(await b.send_chat(channel=extra[1]), channel=extra[1])
    m = await b.ask(chat("x", channel=extra[0]))
    assert m.control.type == ERROR and m.control.reason
    await a.unsubscribe(extra[1])
    await b.send_chat(channel=extra[1])
    await a.expect_nothing_in(b)
    m = await a.ask(chat("x", channel=extra[1]))
    assert m.control.type == ERROR
    await close_all(a, b)


async def test_member_of_many_gets_each_message_once(daemon):
    names = [unique() for _ in range(20)]
    a, b = await Client.connect(daemon, "/" + names[0]), await Client.connect(daemon)
    await a.subscribe(*names[1:])
    await b.subscribe(*names)
    for name in names:
        await a.expect_chat(await b.send_chat(channel=name), channel=name)
    await close_all(a, b)


async def test_list_is_taken_whole_or_not_at_all():
    with Daemon(max_channels_per_client=4) as d:
        a, b = await Client.connect(d), await Client.connect(d)
        await b.subscribe("one")
        for bad in (["one", "x" * 256], ["one", "2", "3", "4"]):
            m = await a.ask(control(SUBSCRIBE, channels=bad))
            assert m.control.type == ERROR and m.control.reason, describe(m)
            m = await a.ask(chat("x", channel="one"))
            assert m.control.type == ERROR, "a refused list was taken in part"
        await a.subscribe("one", "2", "3")
        m = await a.ask(control(UNSUBSCRIBE, channels=["one", "never joined"]))
        assert m.control.type == ERROR, describe(m)
        await b.expect_chat(await a.send_chat(channel="one"), channel="one")
        await close_all(a, b)


async def test_subscribing_twice_changes_nothing(daemon):
    name = unique()
    a, b = await Client.connect(daemon), await Client.connect(daemon)
    await a.subscribe(name)
    await a.subscribe(name, name)
    await b.subscribe(name)
    await a.expect_chat(await b.send_chat(channel=name))
    await a.expect_nothing_in(b, channel=name)
    await a.unsubscribe(name)
    m = await a.ask(chat("x", channel=name))
    assert m.control.type == ERROR
    await close_all(a, b)


async def test_path_channel_can_be_left(daemon):
    path = unique()
    a, b, c = [await Client.connect(daemon, "/" + path) for _ in range(3)]
    await a.unsubscribe(path)
    content = await b.send_chat()
    await c.expect_chat(content)
    await a.expect_silence()
    m = await a.ask(chat("x"))
    assert m.control.type == ERROR, "its path channel is still where it sends without a channel"
    await close_all(a, b, c)


async def test_max_channels():
    with Daemon(max_channels=3, max_channels_per_client=3) as d:
        a, b = await Client.connect(d), await Client.connect(d)
        await a.subscribe("1", "2")
        m = await b.ask(control(SUBSCRIBE, channels=["2", "3"]))
        assert m.control.type == ERROR and m.control.reason
        await b.subscribe("2")
        with RawClient(d, "/4", handshake=False) as c:
            c.send(request("/4"))
            assert c.recv_head()[0] == 503
        await a.unsubscribe("1")
        await b.subscribe("3")
        await close_all(a, b)


async def test_many_channels_come_and_go():
    with Daemon() as d:
        async with await Client.connect(d) as a:
            for round_ in range(20):
                names = [f"{round_}-{i}" for i in range(60)]
                await a.subscribe(*names)
                await a.unsubscribe(*names)
            await d.wait_metric("websocket_channels", 1)
        await d.wait_metric("websocket_channels", 0)


# Two workers


async def test_members_on_both_workers_hear_both_workers():
    with Daemon() as d:
        groups = await spread(d, "/both", each=3)
        everyone = [c for g in groups for c in g]
        for sender in (groups[0][0], groups[1][0]):
            content = await sender.send_chat()
            for c in everyone:
                if c is not sender:
                    await c.expect_chat(content, channel="both")
            await sender.expect_silence()
        assert d.metric("websocket_worker_ring_posts_total") >= 2
        await close_all(everyone)


async def test_one_order_for_members_on_both_workers():
    with Daemon() as d:
        groups = await spread(d, "/order", each=2)
        (a, a2), (b, b2) = groups[0][:2], groups[1][:2]
        for extra in groups[0][2:] + groups[1][2:]:
            await extra.close()

        async def publish(c, name):
            for i in range(300):
                await c.send_chat(f"{name}{i}")

        await asyncio.gather(publish(a, "a"), publish(b, "b"))
        seen = [[(await c.recv()).chat.content for _ in range(600)] for c in (a2, b2)]
        assert seen[0] == seen[1], "two orders"
        for name in "ab":
            assert [t for t in seen[0] if t[0] == name] == [f"{name}{i}" for i in range(300)]
        for c, name in ((a, "b"), (b, "a")):
            got = [(await c.recv()).chat.content for _ in range(300)]
            assert got == [f"{name}{i}" for i in range(300)]
        await close_all(a, a2, b, b2)


async def test_a_newcomer_gets_what_comes_after_its_acknowledgement():
    with Daemon() as d:
        groups = await spread(d, "/base")
        a, b = groups[0][0], groups[1][0]
        for round_ in range(50):
            name = f"late-{round_}"
            await a.subscribe(name)
            await b.subscribe(name)
            await b.expect_chat(await a.send_chat(channel=name), channel=name)
            await a.expect_chat(await b.send_chat(channel=name), channel=name)
            await a.unsubscribe(name)
            await b.unsubscribe(name)
        await close_all(groups)


# Notices


async def test_notices_for_path_channel_and_subscriptions():
    with Daemon() as d:
        groups = await spread(d, "/home")
        a, b = groups[0][0], groups[1][0]
        for extra in groups[0][1:] + groups[1][1:]:
            await extra.close()
        c = await Client.connect(d, "/home")
        for watcher in (a, b):
            n = await watcher.expect_notice(CONNECT, c.id)
            assert n.channel == "home", describe(n)
        await a.subscribe("extra")
        await c.subscribe("extra")
        await a.expect_notice(CONNECT, c.id, channel="extra")
        await c.unsubscribe("extra")
        await a.expect_notice(DISCONNECT, c.id, channel="extra")
        await c.subscribe("extra")
        await a.expect_notice(CONNECT, c.id, channel="extra")
        a.notices.clear()
        await c.close()
        await a.expect_notice(DISCONNECT, c.id, channel="extra")
        await a.expect_notice(DISCONNECT, c.id, channel="home")
        await b.expect_notice(DISCONNECT, c.id, channel="home")
        assert not [n for n in b.notices if n.channel == "extra"]
        await close_all(a, b)


async def test_notices_stop_at_notice_limit():
    with Daemon(notice_limit=3) as d:
        path = "/small"
        a = await Client.connect(d, path)
        second, third = await Client.connect(d, path), await Client.connect(d, path)
        await a.expect_notice(CONNECT, second.id)
        await a.expect_notice(CONNECT, third.id)
        fourth = await Client.connect(d, path)
        await a.expect_nothing_in(second)
        assert not [n for n in a.notices if n.control.session_id == fourth.id]
        await close_all(a, second, third, fourth)


async def test_no_notices_with_limit_0():
    with Daemon(notice_limit=0) as d:
        a, b, c = [await Client.connect(d) for _ in range(3)]
        await c.close()
        await d.wait_metric("websocket_active_connections", 2)
        await a.expect_nothing_in(b)
        assert not a.notices
        await close_all(a, b)


async def test_comers_and_goers_leave_no_one_behind():
    with Daemon() as d:
        watcher = await Client.connect(d, "/busy")
        for _ in range(5):
            crowd = await asyncio.gather(*(Client.connect(d, "/busy") for _ in range(40)))
            for c in crowd[::2]:
                c.abort()
            await close_all(crowd[1::2])
            for c in crowd:
                await watcher.expect_notice(DISCONNECT, c.id)
        await d.wait_metric("websocket_active_connections", 1)
        assert list(d.clients()) == [watcher.id]
        await watcher.close()
