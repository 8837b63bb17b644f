# SPDX-License-Identifier: MIT
"""
History, whatever happens: clients that come and go, links that are cut anywhere, slow readers,
restarts. What each was given is held against what was said.

Of each channel everything that anybody was told has a number; whoever was told that nothing was
missing between two places must have had all that others said there, in order and once. Those who
come back as themselves never get what they said, say again what was not answered, which is there
once, and nobody is told that they were away.
"""

import random

from harness import *

CHANNELS = ("a", "b", "c")
ROUNDS = 60  # of things that go wrong, in each run


class Truth:
    """What was said, by channel and number, as all who were told of it agree on."""

    def __init__(self):
        self.said = {c: {} for c in CHANNELS}
        self.place = {}     # of what was said, which is never said twice
        self.epoch = {}

    def note(self, channel, epoch, sequence, content):
        assert self.epoch.setdefault(channel, epoch) == epoch, (channel, epoch)
        assert self.said[channel].setdefault(sequence, content) == content, (channel, sequence)
        place = self.place.setdefault((channel, content), sequence)
        assert place == sequence, f"{content[:40]} is in {channel} at {place} and {sequence}"

    def others(self, channel, name, after, before):
        """Numbers between two places that somebody else has published."""
        return [s for s, content in self.said[channel].items()
                if after < s < before and content.split()[0] != name]


class Place:
    """What a client has been told of one channel."""

    def __init__(self):
        self.told = []      # (what, …), in order
        self.position = None
        self.joined = False

    def tell(self, *what, position):
        self.told.append(what)
        self.position = position


class Visitor:
    def __init__(self, daemon, truth, name, rng):
        self.daemon, self.truth, self.name, self.rng = daemon, truth, name, rng
        self.places = {c: Place() for c in CHANNELS}
        self.home = rng.choice(CHANNELS)
        self.client = self.reader = None
        self.asked = {}     # request_id: what to do with its answer
        self.mine = set()   # contents published by this connection
        self.count = 0
        self.recovered = 0

    # What comes

    def join(self, p):
        place = self.places[p.channel]
        if p.HasField("recovered") and p.recovered:
            assert place.position == p.sequence, (self.name, p, place.position)
            self.recovered += 1
        place.joined = True
        place.tell("join", p.sequence, p.HasField("recovered") and p.recovered,
                   position=p.sequence)
        self.truth.epoch.setdefault(p.channel, p.epoch)

    def take(self, m):
        if m.request_id in self.asked:
            self.asked.pop(m.request_id)(m)
        elif m.type == CHAT_MESSAGE and m.HasField("sequence"):
            place = self.places[m.channel]
            assert m.chat.content not in self.mine, f"{self.name} got its own {m.chat.content}"
            self.truth.note(m.channel, self.truth.epoch[m.channel], m.sequence, m.chat.content)
            if place.joined:
                place.tell("message", m.sequence, position=m.sequence)
        elif m.type == CONTROL and m.control.type == GAP:
            before, after = m.control.positions
            if self.places[m.channel].joined:
                self.places[m.channel].tell("gap", before.sequence, after.sequence,
                                            position=after.sequence)
        elif m.type == CONTROL and m.control.type == POSITION:
            at = m.control.positions[0]
            if self.places[m.channel].joined:
                self.places[m.channel].tell("position", at.sequence, position=at.sequence)

    async def read(self):
        try:
            while True:
                self.take(await self.client.recv(timeout=600))
                if self.rng.random() < 0.02:
                    await asyncio.sleep(self.rng.random() / 20)  # reads no faster than that
        except Closed:
            pass

    # What it does

    async def connect(self):
        at = self.places[self.home].position
        query = "?rewind=3" if at is None else f"?since={self.truth.epoch[self.home]}.{at}"
        self.mine, self.asked = set(), {}
        self.client = await Client.connect(
            self.daemon, f"/{self.home}{query}", capabilities=None, compression=self.rng.choice(
                (None, "deflate")))
        for place in self.places.values():
            place.joined = False
        self.join(self.client.config.control.positions[0])
        self.reader = asyncio.create_task(self.read())
        await self.request(control(CONNECT, capabilities=["ack"]), lambda m: None)
        await self.subscribe([c for c in CHANNELS if c != self.home])

    async def request(self, m, answered):
        m.request_id = new_id()
        self.asked[m.request_id] = answered
        try:
            await self.client.send(m)
        except Closed:
            pass

    async def subscribe(self, channels):
        m = control(SUBSCRIBE)
        for c in channels:
            at = self.places[c].position
            p = m.control.positions.add(channel=c)
            if at is None:
                p.rewind = 2
            else:
                p.epoch, p.sequence = self.truth.epoch[c], at

        def answered(answer):
            assert answer.control.type == ACKNOWLEDGE, describe(answer)
            for p in answer.control.positions:
                self.join(p)

        await self.request(m, answered)

    async def publish(self):
        channel = self.rng.choice([c for c in CHANNELS if self.places[c].joined] or [self.home])
        self.count += 1
        content = f"{self.name} {self.count} " + "x" * self.rng.choice((0, 0, 10, 3000))
        self.mine.add(content)

        def answered(answer):
            if answer.control.type == ACKNOWLEDGE:
                p = answer.control.positions[0]
                self.truth.note(channel, p.epoch, p.sequence, content)

        await self.request(chat(content, channel=channel), answered)

    async def leave_and_come_back(self):
        c = self.rng.choice([c for c in CHANNELS if c != self.home])
        if not self.places[c].joined:
            return
        self.places[c].joined = False  # what comes until the next answer counts for nothing
        await self.request(control(UNSUBSCRIBE, channels=[c]), lambda m: None)
        await self.subscribe([c])

    async def cut(self):
        self.client.abort()
        await self.end()

    async def end(self):
        """The link is gone: what was on its way is lost, and so are the answers."""
        for task in (self.reader,):
            try:
                await asyncio.wait_for(task, DEADLINE)
            except asyncio.TimeoutError:
                raise AssertionError("the reader did not end") from None

    async def something(self):
        what = self.rng.random()
        if what < 0.7:
            await self.publish()
        elif what < 0.8:
            await self.leave_and_come_back()
        elif what < 0.85:
            await self.request(control(POSITION), lambda m: None)
        elif what < 0.9:
            await self.cut()
            await self.connect()
        else:
            await asyncio.sleep(0)

    # What must hold

    def judge(self):
        for channel, place in self.places.items():
            at = None
            for what, *where in place.told:
                first, last = (where[0], where[-1]) if what == "gap" else (where[0], where[0])
                if what == "join":
                    if not where[1]:
                        at = first
                    continue
                if what == "message":
                    assert first > at, f"{self.name}: {channel} {first} behind {at}"
                lost = self.truth.others(channel, self.name, at,
                                         first if what == "message" else first + 1)
                assert not lost, f"{self.name}: {channel} misses {lost} behind {at}, {what} {where}"
                at = max(at, last)


class Returner(Visitor):
    """Comes back as itself, and says again what nobody has answered."""

    def __init__(self, *args):
        super().__init__(*args)
        self.token, self.attempts, self.id = "", 0, None
        self.pending = {}   # request_id: what was said, its channel, what was known of that
        self.unknown, self.usurped = set(), []

    def query(self):
        self.attempts += 1
        at = self.places[self.home].position
        since = "rewind=3" if at is None else f"since={self.truth.epoch[self.home]}.{at}"
        return f"/{self.home}?{since}&resume={self.token}&attempt={self.attempts}"

    async def connect(self):
        while self.token and self.rng.random() < 0.15:  # its answer is lost
            lost = await Client.connect(self.daemon, self.query(), greeted=False)
            lost.abort()
        self.asked = {}
        self.client = await Client.connect(self.daemon, self.query(), greeted=False,
                                           compression=self.rng.choice((None, "deflate")))
        m = await self.client.recv()
        if self.id is None:
            m = await self.client.recv()
            self.id = m.control.session_id
        assert m.control.type == CONFIG, f"{self.name} is a newcomer: {describe(m)}"
        assert m.control.session_id == self.id
        self.token, self.attempts = m.control.resume_token.decode(), 0
        for place in self.places.values():
            place.joined = False
        self.join(m.control.positions[0])
        self.reader = asyncio.create_task(self.read())
        await self.request(control(CONNECT, capabilities=["once"]), lambda m: None)
        await self.say_again(self.home)
        await self.subscribe([c for c in CHANNELS if c != self.home])

    def join(self, p):
        super().join(p)
        if p.channel != self.home:
            asyncio.get_running_loop().create_task(self.say_again(p.channel))

    async def say_again(self, channel):
        for m, where, known in list(self.pending.values()):
            if where == channel:
                again = Message()
                again.CopyFrom(m)
                again.sequence = known
                await self.say(again, where)

    async def say(self, m, channel):
        self.asked[m.request_id] = lambda answer: self.answered(m, channel, answer)
        try:
            if self.client:
                await self.client.send(m)
        except Closed:
            pass

    def answered(self, m, channel, answer):
        self.pending.pop(m.request_id, None)
        if answer.control.type == ACKNOWLEDGE:
            p = answer.control.positions[0]
            self.truth.note(channel, p.epoch, p.sequence, m.chat.content)
        else:
            assert answer.control.code == 409 and m.HasField("sequence"), describe(answer)
            self.unknown.add(m.chat.content)

    async def publish(self):
        channel = self.rng.choice([c for c in CHANNELS if self.places[c].joined] or [self.home])
        self.count += 1
        content = f"{self.name} {self.count} " + "x" * self.rng.choice((0, 0, 10, 3000))
        m = chat(content, channel=channel, request_id=new_id())
        self.mine.add(content)
        self.pending[m.request_id] = m, channel, self.places[channel].position
        await self.say(m, channel)

    async def cut(self):
        """The link is lost, or it only seems so."""
        if self.rng.random() < 0.5:
            await super().cut()
        else:
            self.usurped.append((self.client, self.reader))
            self.client = None

    async def read(self):
        """What comes of a link that was given up counts for nothing."""
        client = self.client
        try:
            while True:
                m = await client.recv(timeout=600)
                if self.client is client:
                    self.take(m)
        except Closed:
            pass

    async def something(self):
        await super().something()
        while self.usurped:
            old, reader = self.usurped.pop()
            await asyncio.wait_for(reader, DEADLINE)
            assert old.socket.close_code == 4002, old.socket.close_code

    def judge(self):
        super().judge()
        assert not self.pending, f"{self.name} was not answered: {list(self.pending.values())[:2]}"
        for content in self.mine - self.unknown:
            assert any((c, content) in self.truth.place for c in CHANNELS), content


class Witness:
    """Hears who comes and goes: each in turn, and nobody who is back at once."""

    def __init__(self, client):
        self.client = client
        self.task = asyncio.create_task(self.read())

    async def read(self):
        try:
            while True:
                await self.client.recv(timeout=600)
        except Closed:
            pass

    async def judge(self, visitors, metrics):
        self.client.abort()
        await self.task
        if metrics['websocket_notices_total{result="skipped"}']:
            return
        for v in visitors:
            for channel in CHANNELS:
                told = [m.control.type for m in self.client.notices
                        if m.control.session_id == v.id and m.channel == channel]
                turns = [CONNECT, DISCONNECT] * len(told)
                assert told == turns[:len(told)], (v.name, channel, told)
                # Its home it never leaves.
                assert channel != v.home or told == [CONNECT], (v.name, channel, told)


async def run(seed, faults, kind=Visitor, **settings):
    """faults: False, True for restarts, or "crashes" for both."""
    rng = random.Random(seed)
    truth = Truth()
    with Daemon(worker_threads=rng.choice((1, 2, 3)), max_incoming_frames_per_second=0,
                permessage_deflate="yes", compression_threshold="100", **settings) as d:
        witness = None
        if kind is Returner and faults != "crashes":
            c = await Client.connect(d, f"/{CHANNELS[0]}")
            await c.subscribe(*CHANNELS[1:])
            witness = Witness(c)
        visitors = [kind(d, truth, f"v{i}", rng) for i in range(8)]
        for v in visitors:
            await v.connect()

        async def live(v, n):
            for _ in range(n):
                await v.something()
                await asyncio.sleep(0)

        for i in range(ROUNDS):
            await asyncio.gather(*(live(v, rng.randrange(1, 8)) for v in visitors))
            if faults and i % 12 == 11:
                said = await asyncio.to_thread(d.hand_over)
                assert " 0 connections lost" in said, said
            if faults == "crashes" and i % 12 == 5:
                # Whatever they have just said is on its way, or half done.
                await asyncio.gather(*(v.publish() for v in visitors for _ in range(3)))
                await asyncio.to_thread(d.crash)
                for v in visitors:
                    await v.end()
                    await v.connect()
        # Whoever was cut off comes back once more, and hears the last word in each channel.
        for v in visitors:
            await v.cut()
            await v.connect()
        last = await Client.connect(d, f"/{CHANNELS[0]}", capabilities=["ack"])
        await last.subscribe(*CHANNELS[1:])
        for c in CHANNELS:
            m = await last.ask(chat("the last word", channel=c))
            p = m.control.positions[0]
            truth.note(c, p.epoch, p.sequence, "the last word")
            for v in visitors:
                await until(lambda: (v.places[c].position or 0) >= p.sequence,
                            f"{v.name} hears all of {c}")
            if kind is Returner:
                for v in visitors:
                    await until(lambda: not v.pending, f"{v.name} has all its answers")
        for v in visitors:
            v.judge()
        if witness:
            await witness.judge(visitors, d.metrics())
        for v in visitors:
            await v.cut()
        return sum(v.recovered for v in visitors), d.metrics()


def seeds():
    first = int(os.environ.get("WSBIND_TEST_SEED", random.randrange(1 << 30)))
    return range(first, first + int(os.environ.get("WSBIND_TEST_RUNS", 2)))


async def with_seeds(faults, kind=Visitor, **settings):
    for seed in seeds():
        try:
            yield await run(seed, faults, kind, **settings)
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise


async def test_nobody_misses_anything():
    async for recovered, metrics in with_seeds(False, history_messages=10000,
                                               history_bytes="64M"):
        assert recovered > 20
        assert metrics["websocket_history_gaps_total"] == 0
        assert metrics['websocket_history_resumes_total{recovered="false"}'] == 0


async def test_nobody_misses_anything_through_restarts():
    async for recovered, metrics in with_seeds(True, history_messages=10000,
                                               history_bytes="64M"):
        assert recovered > 20
        assert metrics['websocket_history_resumes_total{recovered="false"}'] == 0


@seconds(120)
async def test_nobody_misses_anything_through_crashes():
    with Shared() as env:
        async for recovered, metrics in with_seeds("crashes", env=env, history_messages=10000,
                                                   history_bytes="64M"):
            assert recovered > 20
            assert metrics['websocket_history_resumes_total{recovered="false"}'] == 0
            assert metrics["websocket_history_crash_recoveries_total"] > 0


@seconds(120)
async def test_who_comes_back_as_oneself_has_died_with_nobody():
    with Shared() as env:
        async for recovered, metrics in with_seeds("crashes", Returner, env=env,
                                                   history_messages=10000, history_bytes="64M"):
            assert recovered > 20
            assert metrics['websocket_history_resumes_total{recovered="false"}'] == 0
            assert metrics["websocket_history_unknown_total"] == 0


@seconds(120)
async def test_what_is_missing_is_told_through_crashes_where_little_is_kept():
    with Shared() as env:
        async for _ in with_seeds("crashes", Returner, env=env, history_messages=7):
            pass


async def test_what_is_missing_is_told_where_little_is_kept():
    async for _ in with_seeds(True, history_messages=7):
        pass


async def test_what_is_missing_is_told_where_slow_members_are_passed_over():
    for policy in ("skip", "history"):
        async for _ in with_seeds(True, history_messages=30, slow_consumer=policy,
                                  slow_consumer_grace=0, message_queue_size=4,
                                  max_send_buffer="8K", tcp_notsent_lowat="4K"):
            pass


async def test_who_comes_back_as_oneself_was_never_away():
    async for recovered, metrics in with_seeds(True, Returner, history_messages=10000,
                                               history_bytes="64M", leave_grace="1h"):
        assert recovered > 20
        assert metrics['websocket_history_resumes_total{recovered="false"}'] == 0
        assert metrics['websocket_resumes_total{taken="true"}'] > 20
        assert metrics["websocket_history_unknown_total"] == 0


async def test_who_comes_back_as_oneself_where_little_is_kept():
    async for _ in with_seeds(True, Returner, history_messages=7, leave_grace="1h"):
        pass
