# SPDX-License-Identifier: MIT
"""Publishing once: resends that are known again, and those that can't be."""

from harness import *

MIB = 1 << 20
SETTINGS = {"history_messages": 1000, "worker_threads": 2, "notice_limit": 0}


def unique():
    return f"o-{uuid.uuid4()}"


def resend(m, known):
    again = Message()
    again.CopyFrom(m)
    again.sequence = known
    return again


async def enter(daemon, path, capabilities=("once",)):
    return await Client.connect(daemon, path, capabilities=list(capabilities))


async def say(c, m):
    """The answer to what is sent as it is; others may have sent the same."""
    await c.send(m)
    while (answer := await c.answer_to(m.request_id)).type != CONTROL:
        c.backlog.append(answer)
    return answer


def expect_ack(answer, duplicate):
    """Its position."""
    assert answer.control.type == ACKNOWLEDGE, describe(answer)
    assert answer.control.duplicate == duplicate, describe(answer)
    assert len(answer.control.positions) == 1, describe(answer)
    return answer.control.positions[0]


def expect_409(answer, channel):
    assert (answer.control.type, answer.control.code) == (ERROR, 409), describe(answer)
    assert (answer.control.reason, answer.channel) == ("outcome unknown", channel), describe(answer)


async def test_what_is_sent_again_is_published_once(daemon):
    name = unique()
    a, b = await enter(daemon, f"/{name}"), await Client.connect(daemon, f"/{name}")
    said = chat("once", request_id=new_id())
    first = expect_ack(await say(a, said), False)
    assert (await b.expect_chat("once")).sequence == first.sequence
    for again in (said, resend(said, 0), resend(said, first.sequence)):
        p = expect_ack(await say(a, again), True)
        assert (p.channel, p.epoch, p.sequence) == (name, first.epoch, first.sequence)
    # From another connection, whichever worker it is on, with the number among the other fields.
    for _ in range(4):
        other = await enter(daemon, f"/{name}")
        assert expect_ack(await say(other, resend(said, 0)), True).sequence == first.sequence
        raw = said.SerializeToString()
        before = b"\xa9\x01" + struct.pack("<Q", 0) + raw
        await other.send(before)
        assert expect_ack(await other.answer_to(said.request_id), True).sequence == first.sequence
        await other.close()
    # Nobody got any of it a second time.
    last = expect_ack(await say(a, chat("last", request_id=new_id())), False)
    assert (await b.expect_chat("last")).sequence == last.sequence == first.sequence + 1
    assert daemon.metric("websocket_history_duplicates_total") >= 11
    await close_all(a, b)


async def test_other_bytes_are_another_message(daemon):
    name = unique()
    a, b = await enter(daemon, f"/{name}"), await Client.connect(daemon, f"/{name}")
    same = new_id()
    said = [chat(text, request_id=same) for text in ("one", "two", "one ")]
    said += [data(b"one", request_id=same), data(b"one", sequence=1, request_id=same)]
    at = [expect_ack(await say(a, m), False).sequence for m in said]
    assert at == sorted(set(at))
    for m in said:
        got = await (b.expect_chat(m.chat.content) if m.HasField("chat")
                     else b.expect_binary(m.binary.data))
        assert got.request_id == same
    assert [expect_ack(await say(a, m), True).sequence for m in said] == at
    await close_all(a, b)


async def test_who_did_not_ask_is_published_each_time(daemon):
    name = unique()
    a = await enter(daemon, f"/{name}", ["ack"])
    once, b = await enter(daemon, f"/{name}"), await Client.connect(daemon, f"/{name}")
    said = chat("again", request_id=new_id())
    short = chat("short", request_id=b"12345678")
    for c, m in ((a, said), (a, said), (a, resend(said, 0)), (once, short), (once, short)):
        expect_ack(await say(c, m), False)
        await b.expect_chat(m.chat.content)
    # What nobody asked for has no key: the first of who asks is published, too.
    expect_ack(await say(once, said), False)
    await b.expect_chat("again")
    expect_ack(await say(once, said), True)
    await close_all(a, b, once)


async def test_once_implies_acknowledgements(daemon):
    a = await enter(daemon, f"/{unique()}", [])
    answer = await a.ask(control(CONNECT, capabilities=["once"]))
    assert set(answer.control.capabilities) == {"once", "ack"}
    assert "once" in a.config.control.capabilities
    await a.close()


async def test_a_channel_without_history_knows_nothing():
    with Daemon() as d:
        a, b = await enter(d, "/plain"), await Client.connect(d, "/plain")
        said = chat("twice", request_id=new_id())
        for m in (said, said, resend(said, 5)):
            answer = await say(a, m)
            assert answer.control.type == ACKNOWLEDGE, describe(answer)
            assert not answer.control.positions and not answer.control.duplicate
            await b.expect_chat("twice")
        await close_all(a, b)


async def test_a_resend_past_what_is_known_is_refused():
    with Daemon(history_messages=3, notice_limit=0) as d:
        a, b = await enter(d, "/room"), await Client.connect(d, "/room")
        said = [chat(f"{i}", request_id=new_id()) for i in range(6)]
        for m in said:
            expect_ack(await say(a, m), False)
            await b.expect_chat(m.chat.content)
        # 1 to 3 are kept no more.
        for i, m in enumerate(said):
            answer = await say(a, resend(m, i))
            if i < 3:
                expect_409(answer, "room")
            else:
                assert expect_ack(answer, True).sequence == i + 1
        # Nothing was said between: what was sent first with this number would be here.
        fresh = chat("fresh", request_id=new_id())
        expect_ack(await say(a, resend(fresh, 3)), False)
        await b.expect_chat("fresh")
        # One that marks no resend is a first time, whatever has gone.
        expect_ack(await say(a, said[0]), False)
        await b.expect_chat("0")
        assert d.metric("websocket_history_unknown_total") == 3
        await close_all(a, b)


async def test_keys_live_as_long_as_their_messages():
    """Through bounds of all kinds, a reload, other processes."""
    with Daemon(**SETTINGS) as d:
        a = await enter(d, "/room")
        said = [chat(f"{i}", request_id=new_id()) for i in range(20)]
        at = [expect_ack(await say(a, m), False).sequence for m in said]

        async def expect_known(known):
            c = await enter(d, "/room")
            for i, m in enumerate(said):
                answer = await say(c, resend(m, at[i] - 1))
                if i in known:
                    assert expect_ack(answer, True).sequence == at[i]
                else:
                    expect_409(answer, "room")
            await c.close()

        await expect_known(range(20))
        for _ in range(2):
            await asyncio.to_thread(d.hand_over)
            await expect_known(range(20))
        assert d.reload(history_messages=5).status == 200
        await expect_known(range(15, 20))
        await asyncio.to_thread(d.hand_over)
        await expect_known(range(15, 20))
        full = d.metric("websocket_history_bytes")
        assert d.reload(history_age="1s").status == 200
        # Keys go with their messages: what is left is the place.
        await d.wait_metric("websocket_history_bytes", 512)
        assert full > 5 * 64 + 512
        await expect_known([])
        await a.close()


async def test_many_bring_the_same_at_once():
    """On two workers: one of them publishes it."""
    with Daemon(**SETTINGS) as d:
        crowd = [await enter(d, "/room") for _ in range(12)]
        reader = await Client.connect(d, "/room")
        for n in range(30):
            m = chat(f"{n}", request_id=new_id())
            answers = await asyncio.gather(*(say(c, m) for c in crowd))
            assert sorted(a.control.duplicate for a in answers) == [False] + [True] * 11
            assert {a.control.positions[0].sequence for a in answers} == {n + 1}
        for n in range(30):
            assert (await reader.expect_chat(f"{n}")).sequence == n + 1
        await close_all(crowd, reader)


async def test_large_messages_are_known_again():
    """To their last byte, though they are looked at in steps."""
    with Daemon(**SETTINGS, history_bytes="64M", max_frame_size="16M") as d:
        a, b = await enter(d, "/room"), await Client.connect(d, "/room")
        body, text = os.urandom(5 * MIB), "é" * MIB
        binaries = [body, body[:-1] + bytes([body[-1] ^ 1])]
        chats = [text, text[:-1] + "e"]
        for kind, contents in ((data, binaries), (chat, chats)):
            same = new_id()
            said = [kind(content, request_id=same) for content in contents]
            at = [expect_ack(await say(a, m), False).sequence for m in said]
            assert at[1] == at[0] + 1
            for content in contents:
                await (b.expect_binary(content) if kind is data else b.expect_chat(content))
            for m, sequence in zip(said, at):
                assert expect_ack(await say(a, resend(m, 0)), True).sequence == sequence
        await close_all(a, b)


async def test_a_stamped_message_is_known_by_what_its_sender_wrote():
    """Two users who send the same bytes have sent the same message, whoever it is stamped with."""
    with tempfile.NamedTemporaryFile("w") as key:
        key.write("k" * 40)
        key.flush()
        with Daemon(**SETTINGS, auth="jwt", jwt_key_file=key.name) as d:
            async def user(name):
                token = subprocess.run(
                    [binary(), "token", "--sub", name, "--channels", "**", "--key", key.name],
                    check=True, capture_output=True, text=True).stdout.strip()
                return await Client.connect(d, "/room", capabilities=["once"],
                                            extra_headers=[("Authorization", f"Bearer {token}")])

            alice, bob = await user("alice"), await user("bob")
            said = chat("mine", user_id="claimed", request_id=new_id())
            first = expect_ack(await say(alice, said), False)
            assert (await bob.expect_chat("mine")).chat.user_id == "alice"
            assert expect_ack(await say(alice, said), True).sequence == first.sequence
            assert expect_ack(await say(bob, said), True).sequence == first.sequence
            await close_all(alice, bob)


async def test_a_duplicate_chunk_is_still_spooled():
    with tempfile.TemporaryDirectory() as folder:
        with Daemon(**SETTINGS, spool_dir=folder) as d:
            a, b = await enter(d, "/files"), await Client.connect(d, "/files")
            chunks = [data(os.urandom(1000), sequence=i, is_last=i == 2, request_id=new_id())
                      for i in range(3)]
            for m in chunks[:2]:
                expect_ack(await say(a, m), False)
            await a.close()
            a = await enter(d, "/files")
            # The transfer begins anew with the connection; for the members nothing does.
            for m in chunks[:2]:
                expect_ack(await say(a, resend(m, 0)), True)
            assert (await say(a, chunks[2])).control.type == ACKNOWLEDGE
            for m in chunks:
                await b.expect_binary(m.binary.data)
            files = [p for p in Path(folder).rglob("*") if p.is_file()]
            assert [p.read_bytes() for p in files] == [b"".join(m.binary.data for m in chunks)]
            await close_all(a, b)
