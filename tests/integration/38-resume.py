# SPDX-License-Identifier: MIT
"""Coming back as oneself: resume tokens, attempts, the connection before, who is told what."""

import base64

from harness import *
from pki import Folder

SETTINGS = {"history_messages": 1000, "worker_threads": 2}


def unique():
    return f"r-{uuid.uuid4()}"


def position(m):
    assert len(m.control.positions) == 1, describe(m)
    return m.control.positions[0]


async def enter(daemon, path, **options):
    """A newcomer that gets a token with its CONFIG."""
    c = await Client.connect(daemon, f"{path}{'&' if '?' in path else '?'}resume=", **options)
    c.token = c.config.control.resume_token.decode()
    assert c.token, describe(c.config)
    return c


async def come_back(daemon, path, token, attempt=None, since=None, offer=False, **options):
    """Whoever that makes it; is_resumed says whether it is the client of before."""
    query = [] if offer else [f"resume={token}"]
    query += [f"attempt={attempt}"] if attempt is not None else []
    query += [f"since={since.epoch}.{since.sequence}"] if since else []
    if offer:
        options["subprotocols"] = ["wsbind", f"resume.{token}"]
    c = await Client.connect(daemon, f"{path}?{'&'.join(query)}", greeted=False, **options)
    first = await c.recv()
    c.is_resumed = first.type == CONTROL
    c.config = first if c.is_resumed else await c.recv()
    assert c.config.control.type == CONFIG, describe(c.config)
    c.id = c.config.control.session_id
    c.user_id = c.config.control.user_id
    c.token = c.config.control.resume_token.decode()
    assert c.token and c.token != token
    return c


def told(c, of):
    """What notices it got about a client, in their order."""
    return [m.control.type for m in c.notices if m.control.session_id == of.id]


async def say(c, text, **fields):
    """Published by somebody with acknowledgements; its position."""
    return position(await c.ask(chat(text, **fields)))


# Tokens

async def test_a_token_by_each_way(daemon):
    name = unique()
    a = await enter(daemon, f"/{name}")
    b = await Client.connect(daemon, f"/{name}")
    answer = await b.ask(control(CONNECT, capabilities=["resume"]))
    assert set(answer.control.capabilities) == {"resume", "once", "ack"}
    tokens = {a.token, answer.control.resume_token.decode()}
    # Each CONNECT that names it brings another one; without capabilities there is none.
    again = await b.ask(control(CONNECT, capabilities=["resume"]))
    tokens.add(again.control.resume_token.decode())
    assert not (await b.ask(control(CONNECT))).control.resume_token
    c = await Client.connect(daemon, f"/{name}", subprotocols=["wsbind", "resume."], greeted=False)
    assert c.socket.subprotocol == "wsbind"
    await c.recv()
    tokens.add((await c.recv()).control.resume_token.decode())
    assert len(tokens) == 4 and all(re.fullmatch(r"[\w-]{70,}", t) for t in tokens), tokens
    d = await Client.connect(daemon, f"/{name}")
    assert not d.config.control.resume_token
    await close_all(a, b, c, d)


async def test_the_same_client_comes_back(daemon):
    name = unique()
    b = await Client.connect(daemon, f"/{name}", capabilities=["ack"])
    for offer in (False, True):
        a = await enter(daemon, f"/{name}", capabilities=["ack"])
        start = position(a.config)
        await say(a, "mine before")
        await b.expect_chat("mine before")
        theirs = await say(b, "theirs")
        await a.expect_chat("theirs")
        a.abort()
        missed = [f"missed {i}" for i in range(5)]
        for text in missed:
            await say(b, text)
        # From where it began: what it said itself is not among what comes.
        again = await come_back(daemon, f"/{name}", a.token, since=start, offer=offer)
        assert again.is_resumed and (again.id, again.user_id) == (a.id, a.user_id)
        assert position(again.config).recovered
        for text in ["theirs", *missed]:
            await again.expect_chat(text)
        end = position(await again.expect_control(POSITION))
        assert end.sequence > theirs.sequence
        # It goes on like any other.
        await say(b, "more")
        await again.expect_chat("more")
        await again.send_chat("mine again")
        m = await b.expect_chat("mine again")
        assert m.sender == uuid.UUID(a.id).bytes
        await again.close()
    await b.close()


async def test_twice_in_a_row_without_traffic(daemon):
    name = unique()
    a = await enter(daemon, f"/{name}")
    token, at = a.token, position(a.config)
    for _ in range(4):
        a.abort()
        a = await come_back(daemon, f"/{name}", token, since=at)
        assert a.is_resumed and position(a.config).recovered
        at = position(await a.expect_control(POSITION))
        token = a.token
    await a.close()


async def test_an_answer_may_be_lost(daemon):
    """A token is good until its successor was brought; each attempt with it is good once."""
    name = unique()
    a = await enter(daemon, f"/{name}")
    first = a.token
    b = await come_back(daemon, f"/{name}", first)
    # That answer was lost: it tries again, and not with the same number.
    for attempt, is_good in ((1, False), (None, False), (0, False), ("x", False), (2, True),
                             (2, False), (1, False), (4, True), (3, False)):
        c = await come_back(daemon, f"/{name}", first, attempt)
        assert c.is_resumed == is_good and (c.id == a.id) == is_good, attempt
        if is_good:
            newest = c.token
        else:
            await c.close()
    d = await come_back(daemon, f"/{name}", newest)
    assert d.is_resumed
    # An older one, and the first with any number, come too late now.
    for late, attempt in ((first, 5), (b.token, 1)):
        e = await come_back(daemon, f"/{name}", late, attempt)
        assert not e.is_resumed and e.id != a.id
        await e.close()
    await d.send_chat("still here")
    await d.close()


async def test_a_token_that_is_none_makes_a_newcomer(daemon):
    name = unique()
    a = await enter(daemon, f"/{name}")
    raw = base64.urlsafe_b64decode(a.token + "=" * (-len(a.token) % 4))
    forged = [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1:] for i in range(len(raw))]
    texts = [base64.urlsafe_b64encode(f).decode().rstrip("=") for f in forged]
    for text in [*texts, a.token[:-4], a.token + "AAAA", "x", "%00", "a" * 300]:
        c = await come_back(daemon, f"/{name}", text)
        assert not c.is_resumed and c.id != a.id, text
        await c.close()
    assert (await come_back(daemon, f"/{name}", a.token)).is_resumed
    await a.socket.wait_closed()


# The connection before

async def test_the_connection_before_is_ended_first(daemon):
    """On whichever worker it is; nothing of it is heard of any more."""
    for _ in range(8):
        name = unique()
        b = await Client.connect(daemon, f"/{name}")
        a = await enter(daemon, f"/{name}")
        await b.expect_notice(CONNECT, a.id)
        again = await come_back(daemon, f"/{name}", a.token)
        assert again.is_resumed
        await a.socket.wait_closed()
        assert a.socket.close_code == 4002, a.socket.close_code
        await again.send_chat("it is me")
        await b.expect_chat("it is me")
        assert told(b, a) == [CONNECT]
        await close_all(again, b)


async def test_many_take_over_from_each_other(daemon):
    """All at once, on two workers: one of them is left, and all others were told."""
    name = unique()
    a = await enter(daemon, f"/{name}")
    token = a.token

    async def attempt(n):
        try:
            return await come_back(daemon, f"/{name}", token, n)
        except Closed as e:
            return e

    for _ in range(5):
        came = await asyncio.gather(*(attempt(n) for n in range(1, 13)))
        clients = [c for c in came if isinstance(c, Client)]
        mine = [c for c in clients if c.is_resumed]
        assert mine, came
        for c in clients:
            if not c.is_resumed:
                assert c.id != a.id
                await c.close()
        listed = [c for c in daemon.clients().values() if c["id"] == a.id]
        await asyncio.to_thread(wait_until, lambda: sum(
            c["id"] == a.id for c in daemon.ask("GET", "/clients?limit=1000").json["clients"]) == 1,
            f"one is left of {listed}")
        open_ones = []
        for c in mine:
            try:
                await c.ask(control(CONNECT))
                open_ones.append(c)
            except Closed:
                assert c.socket.close_code == 4002
        assert len(open_ones) == 1
        token = open_ones[0].token
    await open_ones[0].close()


# Who is told

async def test_nobody_is_told_of_a_short_absence(daemon):
    name = unique()
    b = await Client.connect(daemon, f"/{name}")
    await b.subscribe("other")
    a = await enter(daemon, f"/{name}")
    await a.subscribe("other")
    for channel in (name, "other"):
        await b.expect_notice(CONNECT, a.id, channel)
    a.abort()
    await asyncio.to_thread(wait_until, lambda: a.id not in daemon.clients(), "it is away")
    again = await come_back(daemon, f"/{name}", a.token)
    await again.subscribe("other")
    await again.send_chat("back")
    await b.expect_chat("back")
    assert told(b, a) == [CONNECT] * 2
    await again.close()
    # That end is one that it meant: it leaves both at once.
    for channel in (name, "other"):
        await b.expect_notice(DISCONNECT, a.id, channel)
    await b.close()


async def test_others_are_told_when_the_grace_is_over():
    with Daemon(**SETTINGS, leave_grace="300ms") as d:
        b = await Client.connect(d, "/room")
        await b.subscribe("other")
        a = await enter(d, "/room")
        await a.subscribe("other")
        for channel in ("room", "other"):
            await b.expect_notice(CONNECT, a.id, channel)
        a.abort()
        await asyncio.to_thread(wait_until, lambda: a.id not in d.clients(), "it is away")
        # In each channel by itself: it comes back to one of them alone.
        again = await come_back(d, "/room", a.token)
        m = await b.expect_notice(DISCONNECT, a.id, "other")
        assert m.control.user_id == a.user_id
        await again.send_chat("here I am")
        await b.expect_chat("here I am")
        assert told(b, a) == [CONNECT, CONNECT, DISCONNECT]
        again.abort()
        await b.expect_notice(DISCONNECT, a.id, "room")
        # Whoever comes back then comes like any other.
        late = await come_back(d, "/room", again.token)
        assert late.is_resumed
        await late.send_chat("late")
        await b.expect_chat("late")
        assert told(b, a) == [CONNECT, CONNECT, DISCONNECT, DISCONNECT, CONNECT]
        await close_all(late, b)


async def test_ends_that_are_meant_are_told_at_once():
    with Daemon(**SETTINGS, leave_grace="1h") as d:
        b = await Client.connect(d, "/room")
        for end in ("1000", "none", "DISCONNECT", "administrator", "violation", "UNSUBSCRIBE"):
            a = await enter(d, "/room")
            await b.expect_notice(CONNECT, a.id)
            if end == "1000":
                await a.close()
            elif end == "none":
                await a.socket.close(1000)
            elif end == "DISCONNECT":
                await a.send_control(DISCONNECT)
            elif end == "administrator":
                assert d.ask("POST", f"/disconnect?id={a.id}").status == 200
            elif end == "violation":
                await a.send(b"\xff\xff")
            else:
                await a.ask(control(UNSUBSCRIBE, channels=["room"]))
            await b.expect_notice(DISCONNECT, a.id)
            a.abort()
        # Who never asked for a token is away at once, however it went.
        a = await Client.connect(d, "/room")
        await b.expect_notice(CONNECT, a.id)
        a.abort()
        await b.expect_notice(DISCONNECT, a.id)
        await b.close()


# Other limits

async def test_a_token_is_of_its_user():
    with tempfile.NamedTemporaryFile("w") as key:
        key.write("k" * 40)
        key.flush()
        with Daemon(**SETTINGS, auth="jwt", jwt_key_file=key.name) as d:
            def bearer(name):
                token = subprocess.run(
                    [binary(), "token", "--sub", name, "--channels", "**", "--key", key.name],
                    check=True, capture_output=True, text=True).stdout.strip()
                return {"extra_headers": [("Authorization", f"Bearer {token}")]}

            a = await enter(d, "/room", **bearer("alice"))
            stranger = await come_back(d, "/room", a.token, **bearer("bob"))
            assert not stranger.is_resumed and stranger.user_id == "bob"
            # It was good for nobody else: alice has it still, with the same attempt.
            again = await come_back(d, "/room", a.token, **bearer("alice"))
            assert again.is_resumed and (again.id, again.user_id) == (a.id, "alice")
            await close_all(stranger, again)


async def test_an_end_in_the_middle_of_the_replay():
    with Daemon(**SETTINGS, history_bytes="8M", notice_limit=0, tcp_notsent_lowat="4K") as d:
        b = await Client.connect(d, "/room", capabilities=["ack"])
        a = await enter(d, "/room")
        token, at = a.token, position(a.config)
        a.abort()
        said = [f"{i} " + "x" * 3000 for i in range(400)]
        for text in said:
            await say(b, text)
        got = []
        while len(got) < len(said):
            a = await come_back(d, "/room", token, since=at)
            assert a.is_resumed and position(a.config).recovered
            token = a.token
            for _ in range(min(90, len(said) - len(got))):
                m = await a.recv()
                got.append(m.chat.content)
                at.sequence = m.sequence
            a.abort()
        assert got == said
        await b.close()


async def test_through_another_process():
    """Who is there, who is away, and who was told what."""
    with Daemon(**SETTINGS, leave_grace="1h") as d:
        b = await Client.connect(d, "/room")
        here, away = await enter(d, "/room"), await enter(d, "/room")
        for c in (here, away):
            await b.expect_notice(CONNECT, c.id)
        away.abort()
        await d.wait_metric("websocket_active_connections", 2)
        await asyncio.to_thread(d.hand_over)
        again = await come_back(d, "/room", away.token)
        assert again.is_resumed and again.id == away.id
        new = await come_back(d, "/room", here.token)
        assert new.is_resumed and new.id == here.id
        await here.socket.wait_closed()
        assert here.socket.close_code == 4002
        await new.send_chat("here")
        await b.expect_chat("here")
        assert told(b, here) == told(b, away) == [CONNECT]
        # What was brought once is known there, too.
        await asyncio.to_thread(d.hand_over)
        late = await come_back(d, "/room", away.token)
        assert not late.is_resumed
        await close_all(late, again, new, b)


def forget(daemon):
    """It has ended by itself."""
    running.remove(daemon)
    shutil.rmtree(daemon.folder)


async def test_tokens_of_a_key_file_outlive_a_crash():
    """Whoever has the file believes them, for a while after its start; without it nobody does."""
    with Folder() as f:
        key = f.write("resume.key", os.urandom(40))
        crashed = Daemon(**SETTINGS, resume_key_file=key).write_config()
        crashed.start()
        a = await enter(crashed, "/room")
        crashed.process.kill()
        crashed.wait()
        forget(crashed)
        with Daemon(**SETTINGS, resume_key_file=key) as d:
            again = await come_back(d, "/room", a.token)
            assert again.is_resumed and (again.id, again.user_id) == (a.id, a.user_id)
            # That attempt is known now.
            late = await come_back(d, "/room", a.token)
            assert not late.is_resumed
            await close_all(again, late)
        with Daemon(**SETTINGS) as d:
            stranger = await come_back(d, "/room", a.token)
            assert not stranger.is_resumed
            await stranger.close()
        short = f.write("short.key", os.urandom(31))
        for file, reason in ((short, "at least 32 bytes"), (f.path / "none", "No such file")):
            d = Daemon(resume_key_file=file, ready=False).write_config()
            d.start()
            assert d.wait() == 78 and re.search(f"resume_key_file.*{reason}", d.end_of_log()), d.end_of_log()
            forget(d)
