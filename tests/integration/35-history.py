# SPDX-License-Identifier: MIT
"""History: positions, coming back, GAP, what is kept and for how long, restarts."""

import gzip

from harness import *

SETTINGS = {"history_messages": 1000, "worker_threads": 2}


def unique():
    return f"h-{uuid.uuid4()}"


def position(m):
    """The one Position of a message."""
    assert len(m.control.positions) == 1, describe(m)
    return m.control.positions[0]


def since(p, sequence=None):
    return f"?since={p.epoch}.{p.sequence if sequence is None else sequence}"


async def enter(daemon, path, **options):
    """A client, and where it begins in its home."""
    c = await Client.connect(daemon, path, **options)
    return c, position(c.config)


async def publish(c, content=None, **fields):
    """One message, and its Position."""
    content = content or str(uuid.uuid4())
    m = await c.ask(chat(content, **fields))
    assert m.control.type == ACKNOWLEDGE, describe(m)
    return content, position(m)


async def expect_replay(c, contents):
    """These, in their order, and then POSITION, which is returned."""
    last = 0
    for content in contents:
        m = await c.expect_chat(content)
        assert m.sequence > last and len(m.sender) == 16 and m.sent_ms > 1e12, describe(m)
        last = m.sequence
    m = await c.expect_control(POSITION)
    assert len(m.request_id) == 16 and position(m).sequence >= last, describe(m)
    return position(m)


async def some(daemon, name, n):
    """A channel of n messages: who published them, contents, positions."""
    a = (await Client.connect(daemon, f"/{name}", capabilities=["ack"]))
    said = [await publish(a) for _ in range(n)]
    return a, [s[0] for s in said], [s[1] for s in said]


async def subscribe(c, *positions, channels=()):
    m = control(SUBSCRIBE, channels=channels)
    for p in positions:
        m.control.positions.add().CopyFrom(p)
    return await c.ask(m)


# Positions

async def test_who_has_missed_nothing_is_told_so(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 5)
    for i in range(5):
        b, start = await enter(daemon, f"/{name}{since(at[i])}")
        assert (start.recovered, start.epoch, start.sequence) == (True, at[i].epoch, at[i].sequence)
        assert start.channel == name and start.earliest == 0
        end = await expect_replay(b, contents[i + 1:])
        assert end.epoch == at[i].epoch
        # From here on it is like any other.
        fresh, p = await publish(a)
        assert (await b.expect_chat(fresh)).sequence == p.sequence
        contents.append(fresh)
        await b.close()
    await a.close()


async def test_the_place_before_the_first_message(daemon):
    name = unique()
    b, start = await enter(daemon, f"/{name}")
    assert start.epoch and not start.HasField("recovered")
    await b.close()
    a, contents, _ = await some(daemon, name, 3)
    for _ in range(2):
        c, again = await enter(daemon, f"/{name}{since(start, 0)}")
        assert again.recovered and again.sequence == 0
        await expect_replay(c, contents)
        await c.close()
    await a.close()


async def test_twice_in_a_row_without_traffic(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 3)
    p = at[1]
    for missed in (contents[2:], [], []):
        b, start = await enter(daemon, f"/{name}{since(p)}")
        assert start.recovered and start.sequence == p.sequence
        p = await expect_replay(b, missed)
        await b.close()
    await a.close()


async def test_positions_that_cannot_be_recovered(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 3)
    ahead, other = at[2].sequence + 1000, at[0].epoch ^ 1
    for query in (f"?since={at[0].epoch}.{ahead}", f"?since={other}.{at[1].sequence}",
                  "?since=0.0", f"?since={2 ** 64 - 1}.{2 ** 64 - 1}"):
        b, start = await enter(daemon, f"/{name}{query}")
        assert start.HasField("recovered") and not start.recovered, query
        assert start.epoch == at[0].epoch and start.sequence == start.earliest == 0
        # What is kept follows all the same, or the part of it that was asked for.
        await expect_replay(b, contents)
        await b.close()
        b, start = await enter(daemon, f"/{name}{query}&rewind=1")
        assert not start.recovered
        await expect_replay(b, contents[2:])
        await b.close()
    assert daemon.metric("websocket_history_resumes_total", recovered="false") >= 8
    await a.close()


async def test_what_is_no_position_is_refused(daemon):
    for query in ("since=", "since=1", "since=1.", "since=.1", "since=1.-1", "since=1.2.3",
                  f"since=1.{2 ** 64}", "since=a.b", "rewind=", "rewind=-1", "rewind=x",
                  f"rewind={2 ** 32}", "since=%31.1"):
        with RawClient(daemon, f"/x?{query}", handshake=False) as c:
            c.send(request(f"/x?{query}"))
            assert c.recv_head()[0] == 400, query
    daemon.wait_log("since or rewind in its query is no position")


async def test_the_last_messages_first(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 5)
    for n, expected in ((1, 1), (3, 3), (5, 5), (6, 5), (2 ** 32 - 1, 5)):
        b, start = await enter(daemon, f"/{name}?rewind={n}")
        assert not start.HasField("recovered")
        assert start.sequence < at[5 - expected].sequence
        await expect_replay(b, contents[5 - expected:])
        await b.close()
    # A position decides wherever it can be recovered.
    b, start = await enter(daemon, f"/{name}{since(at[3])}&rewind=5")
    assert start.recovered
    await expect_replay(b, contents[4:])
    await close_all(a, b)


async def test_several_channels_by_subscribe(daemon):
    names = [unique() for _ in range(3)]
    made = [await some(daemon, n, 4) for n in names]
    b = await Client.connect(daemon, f"/{unique()}")
    asked = [made[0][2][1], made[1][2][3]]
    m = await subscribe(b, *asked, channels=names)
    assert m.control.type == ACKNOWLEDGE, describe(m)
    told = {p.channel: p for p in m.control.positions}
    assert set(told) == set(names)
    assert told[names[0]].recovered and told[names[1]].recovered
    assert not told[names[2]].HasField("recovered")
    seen = {n: [] for n in names}
    ends = set()
    while len(ends) < 2:
        m = await b.recv()
        if m.type == CHAT_MESSAGE:
            assert m.channel not in ends
            seen[m.channel].append(m.chat.content)
        else:
            ends.add(m.channel)
    assert seen == {names[0]: made[0][1][2:], names[1]: [], names[2]: []}
    # Of a channel that it is in already nothing changes, and nothing is said.
    m = await subscribe(b, *asked)
    assert m.control.type == ACKNOWLEDGE and not m.control.positions
    await b.expect_silence()
    await close_all(b, *(a for a, _, _ in made))


async def test_a_list_is_taken_whole_or_not_at_all(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 2)
    b = await Client.connect(daemon, f"/{unique()}")
    bad = pb.Position(channel="/slash", epoch=1)
    m = await subscribe(b, at[0], bad)
    assert m.control.type == ERROR and m.control.code == 400, describe(m)
    m = await subscribe(b, at[0], *(pb.Position(channel=f"x{i}") for i in range(64)))
    assert m.control.type == ERROR and m.control.code == 429, describe(m)
    await b.expect_silence()
    assert (await b.ask(chat("x", channel=name))).control.code == 404
    await close_all(a, b)


async def test_a_position_when_it_is_asked_for(daemon):
    name = unique()
    a, contents, at = await some(daemon, name, 2)
    b = await Client.connect(daemon, f"/{name}")
    m = await b.ask(control(POSITION))
    assert m.control.type == POSITION and position(m).sequence >= at[1].sequence
    fresh, p = await publish(a)
    await b.expect_chat(fresh)
    m = await b.ask(control(POSITION, channels=[name]))
    assert position(m).sequence == p.sequence and position(m).epoch == p.epoch
    m = await b.ask(control(POSITION, channels=["elsewhere"]))
    assert m.control.type == ERROR and m.control.code == 404
    await close_all(a, b)


async def test_what_a_client_says_itself_of_its_place(daemon):
    """It never reaches anybody: what the server appends counts."""
    name = unique()
    a, b = [await Client.connect(daemon, f"/{name}") for _ in range(2)]
    m = chat("forged")
    m.sequence, m.sender, m.sent_ms = 2 ** 60, b"x" * 16, 5
    await a.send(m)
    got = await b.expect_chat("forged")
    assert got.sequence < 1000 and got.sent_ms > 1e12
    assert got.sender == uuid.UUID(a.id).bytes
    await close_all(a, b)


async def test_others_are_told_nothing(daemon):
    """No kinds of messages that a client might not know, unless it took part itself."""
    name = unique()
    a, contents, at = await some(daemon, name, 3)
    b = await Client.connect(daemon, f"/{name}")
    fresh, _ = await publish(a)
    await b.expect_chat(fresh)
    await b.expect_silence()
    await close_all(a, b)


async def test_what_the_administrator_says_is_kept(daemon):
    """Text and serialized, also while nobody is there; it has no sender."""
    name = unique()
    a, contents, at = await some(daemon, name, 1)
    await a.close()
    packed = chat("packed", user_id="x")
    for kind, body, content in (("text/plain", b"plain", "plain"),
                                ("application/x-protobuf", packed.SerializeToString(), "packed")):
        answer = daemon.ask("POST", f"/publish?channel={name}", body, {"Content-Type": kind})
        assert answer.status == 200, answer
    b, start = await enter(daemon, f"/{name}{since(at[0])}")
    assert start.recovered
    last = at[0].sequence
    for content in ("plain", "packed"):
        m = await b.expect_chat(content)
        assert m.sequence > last and m.sent_ms and not m.sender and m.channel == name
        last = m.sequence
    await b.expect_control(POSITION)
    daemon.ask("POST", f"/publish?channel={name}", b"live", {"Content-Type": "text/plain"})
    assert (await b.expect_chat("live")).sequence > last
    await b.close()


# All forms

async def test_every_form_carries_the_same_number(daemon):
    """Deflated, packed, unpacked, plain; before and behind a resume."""
    name = unique()
    payload = b"abc" * 20000
    a = await Client.connect(daemon, f"/{name}", capabilities=["ack"])
    readers = [await Client.connect(daemon, f"/{name}", compression=c, capabilities=caps)
               for c in (None, "deflate") for caps in (["ack"], ["zstd"], ["gzip"])]
    for r in readers:
        r.notices.clear()
    m = await a.ask(data(payload))
    p = position(m)
    zipped = gzip.compress(payload)
    q = position(await a.ask(data(zipped, compression=GZIP)))
    text, t = await publish(a, "x" * 5000)
    for r in readers:
        for at in (p, q):
            m = await r.recv()
            assert m.type == BINARY_DATA and m.sequence == at.sequence, describe(m)
            assert m.sender == uuid.UUID(a.id).bytes and m.channel == name
        assert (await r.expect_chat(text)).sequence == t.sequence
    for c, caps in ((None, []), ("deflate", []), ("deflate", ["zstd"])):
        # Who comes back reads as it can, whatever was made when it was said.
        b = await Client.connect(daemon, f"/{unique()}", compression=c, capabilities=caps)
        m = await subscribe(b, pb.Position(channel=name, epoch=p.epoch, sequence=p.sequence - 1))
        assert position(m).recovered
        for at in (p, q):
            m = await b.recv()
            assert m.type == BINARY_DATA and m.sequence == at.sequence, describe(m)
        assert (await b.expect_chat(text)).sequence == t.sequence
        await b.expect_control(POSITION)
        await b.close()
    await close_all(a, *readers)


# What is kept

async def test_bounds_of_messages_and_bytes():
    with Daemon(history_messages=3, history_bytes="4K") as d:
        a, contents, at = await some(d, "n", 5)
        b, start = await enter(d, f"/n{since(at[1])}")
        assert start.recovered and start.earliest == at[1].sequence
        await expect_replay(b, contents[2:])
        b, start = await enter(d, f"/n{since(at[0])}")
        assert not start.recovered and start.sequence == at[1].sequence
        await expect_replay(b, contents[2:])
        # One that is larger than all that may be kept isn't, and nothing before it is of use.
        _, p = await publish(a, "x" * 5000)
        b, start = await enter(d, f"/n{since(at[4])}")
        assert not start.recovered and start.sequence == start.earliest == p.sequence
        b, start = await enter(d, f"/n{since(p)}")
        assert start.recovered
        contents = [(await publish(a, str(i) * 1500))[0] for i in range(4)]
        b, start = await enter(d, "/n?rewind=9")
        await expect_replay(b, contents[2:])
        assert d.metric("websocket_history_messages") == 2


async def test_a_channel_keeps_its_place_without_members():
    with Daemon(history_messages=10, max_channels=2) as d:
        a, contents, at = await some(d, "x", 3)
        await a.close()
        await d.wait_metric("websocket_channels", 0)
        b, start = await enter(d, f"/x{since(at[0])}")
        assert start.recovered
        await expect_replay(b, contents[1:])
        await b.close()
        await d.wait_metric("websocket_channels", 0)
        # Two other places: the one that was silent longest goes, and begins with another epoch.
        for name in ("y", "z"):
            await (await some(d, name, 1))[0].close()
            await d.wait_metric("websocket_channels", 0)
        b, start = await enter(d, f"/x{since(at[2])}")
        assert not start.recovered and start.epoch != at[0].epoch
        assert (start.sequence, start.earliest) == (0, 0)


async def test_history_memory_is_a_bound():
    with Daemon(history_messages=100000, history_bytes="64M", history_memory="1M") as d:
        quiet, _, at = await some(d, "quiet", 3)
        loud = await Client.connect(d, "/loud", capabilities=["ack"])
        for _ in range(40):
            last = (await publish(loud, "x" * 50000))[1]
        assert d.metric("websocket_history_bytes") <= 1024 * 1024
        # Who keeps most loses its oldest; the others keep theirs.
        other, start = await enter(d, f"/quiet{since(at[0])}")
        assert start.recovered
        b, start = await enter(d, f"/loud?since={last.epoch}.1")
        assert not start.recovered and 0 < start.earliest < last.sequence
        # Without members, though, a channel comes first.
        await quiet.close()
        await other.close()
        await d.wait_metric("websocket_channels", 1)
        for _ in range(3):
            last = (await publish(loud, "x" * 50000))[1]
        b, start = await enter(d, f"/quiet{since(at[0])}")
        assert not start.recovered and start.epoch == at[0].epoch, (start, at)


async def test_a_small_file_system_makes_the_oldest_go():
    """History may take 64 MiB; of a $RUNTIME_DIRECTORY with 6 MiB it takes those."""
    with tempfile.TemporaryDirectory() as folder:
        mount = f'mount -t tmpfs -o size=6M,mode=0700 tmpfs {folder} && exec "$@"'
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        prefix = ("unshare", "--mount", *as_root, "bash", "-c", mount, "bash")
        with Daemon(prefix=prefix, env={"RUNTIME_DIRECTORY": folder}, history_messages=100000,
                    history_bytes="64M", history_memory="64M") as d:
            quiet, _, at = await some(d, "quiet", 3)
            loud = await Client.connect(d, "/loud", capabilities=["ack"])
            for _ in range(300):
                last = (await publish(loud, "x" * 50000))[1]
            assert 2 << 20 < d.metric("websocket_history_bytes") < 6 << 20
            assert d.metric("websocket_history_evicted_messages_total") > 150
            other, start = await enter(d, f"/quiet{since(at[0])}")
            assert start.recovered
            b, start = await enter(d, f"/loud?since={last.epoch}.1")
            assert not start.recovered and last.sequence - start.earliest > 80
            await expect_replay(b, ["x" * 50000] * (last.sequence - start.earliest))


def test_history_memory_is_in_what_the_daemon_may_use():
    def most(d):
        return int(re.search(r"at most (\d+) MiB", d.lines("ready: ws")[0])[1])

    with Daemon() as without, Daemon(history_messages=1, history_memory="2G") as kept:
        # What is given back in pieces, and spans that only few messages are in, count, too.
        expected = 2048 * 5 / 4 + 16
        assert abs(most(kept) - most(without) - expected) < 100, (most(kept), most(without))


async def test_what_is_too_old_goes():
    with Daemon(history_messages=100, history_age="1s") as d:
        a, contents, at = await some(d, "x", 3)
        await d.wait_metric("websocket_history_messages", 0)
        b, start = await enter(d, f"/x{since(at[1])}")
        assert not start.recovered and start.earliest == at[2].sequence
        b, start = await enter(d, f"/x{since(at[2])}")
        assert start.recovered


async def test_turned_on_and_off_by_a_reload():
    with Daemon() as d:
        a, b = [await Client.connect(d, "/x", capabilities=["ack"]) for _ in range(2)]
        assert not a.config.control.positions
        m = await a.ask(chat("before"))
        assert not m.control.positions
        assert not (await b.expect_chat("before")).HasField("sequence")
        c, start = await enter(d, "/x?since=1.1")
        assert (start.epoch, start.recovered) == (0, False)
        await c.close()
        assert d.reload(history_messages=10).status == 200
        content, p = await publish(a)
        assert (await b.expect_chat(content)).sequence == p.sequence
        c, start = await enter(d, "/x?rewind=5")
        await expect_replay(c, [content])
        m = await c.ask(control(POSITION))
        assert position(m).epoch == p.epoch
        assert d.reload(history_messages=0).status == 200
        m = await c.ask(control(POSITION))
        assert position(m).epoch == 0
        m = await a.ask(chat("behind"))
        assert not m.control.positions
        assert not (await b.expect_chat("behind")).HasField("sequence")
        assert d.metric("websocket_history_bytes") == 0
        assert d.reload(history_messages=10).status == 200
        other = (await publish(a))[1]
        assert other.epoch != p.epoch


# Slow members

def read_to_position(c, p):
    """What comes up to POSITION of p: sequences, and gaps as pairs."""
    seen, gaps = [], []
    while True:
        m = Message.FromString(c.recv_message())
        if m.type == CHAT_MESSAGE and m.HasField("sequence"):
            seen.append(m.sequence)
        elif m.control.type == GAP:
            first, last = m.control.positions
            assert m.control.reason and first.epoch == last.epoch == p.epoch
            gaps.append((first.sequence, last.sequence))
            seen.append(gaps[-1])
        elif m.control.type == POSITION:
            return seen, gaps, position(m)


def check_gaps(seen, all_of_them, start):
    """Everything behind start is either there or within a gap that was told."""
    at = start
    for what in seen:
        first, last = what if isinstance(what, tuple) else (what - 1, what)
        if isinstance(what, tuple):
            assert first == at or not [s for s in all_of_them if at < s <= first], (at, what)
            assert last > first
        else:
            assert what > at and not [s for s in all_of_them if at < s < what], (at, what)
        at = last
    assert not [s for s in all_of_them if s > at], at


async def slow_one(policy, **settings):
    with Daemon(slow_consumer=policy, slow_consumer_grace=0, message_queue_size=20,
                tcp_notsent_lowat="4K", notice_limit=0, max_incoming_frames_per_second=0,
                **settings) as d:
        a = await Client.connect(d, "/x", capabilities=["ack"])
        first = (await publish(a, "first"))[1]
        with RawClient(d, f"/x{since(first)}", rcvbuf=4096) as c:
            published = [(await publish(a, "x" * 20000))[1].sequence for _ in range(300)]
            seen, gaps, end = read_to_position(c, first)  # the one that ends the join
            while end.sequence < published[-1]:
                c.send(control(POSITION, request_id=new_id()))
                more, more_gaps, end = read_to_position(c, first)
                seen, gaps = seen + more, gaps + more_gaps
            check_gaps(seen, published, first.sequence)
            return seen, gaps, d.metrics()


async def test_who_reads_too_slowly_is_told_what_it_missed():
    seen, gaps, metrics = await slow_one("skip", history_messages=1000, history_bytes="64M")
    assert gaps and metrics["websocket_history_gaps_total"] == len(gaps)


async def test_what_is_kept_costs_a_slow_member_nothing():
    seen, gaps, metrics = await slow_one("history", history_messages=1000, history_bytes="64M")
    assert not gaps and len(seen) == 300
    assert metrics['websocket_slow_consumer_actions_total{action="skip"}'] == 0


async def test_past_the_history_a_slow_member_goes_on_from_the_earliest():
    seen, gaps, _ = await slow_one("history", history_messages=50, history_bytes="64M")
    assert gaps
