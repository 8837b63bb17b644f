# SPDX-License-Identifier: MIT
"""A client by python3-websockets: what a user's program would be."""

import asyncio
import uuid

import old_websockets
from daemon import DEADLINE
from proto import (ACKNOWLEDGE, BINARY_DATA, CHAT_MESSAGE, CONFIG, CONNECT, CONTROL, DISCONNECT,
                   ERROR, GAP, HEARTBEAT, POSITION, SUBSCRIBE, UNSUBSCRIBE, Message, chat,
                   control, data, describe, new_id)

Closed = old_websockets.ConnectionClosed


class Client:
    """One connection. Notices are set aside in .notices; recv() gives everything else."""

    def __init__(self, socket):
        self.socket = socket
        self.notices = []
        self.backlog = []  # came while an answer was awaited
        self.capabilities = []
        self.id = self.welcome = self.config = None
        host, port = socket.local_address[:2]
        self.user_id = f"user-{host}:{port}"

    @classmethod
    async def connect(cls, daemon, path="/", capabilities=None, greeted=True, **options):
        """Connects and takes the greeting; with capabilities, sends CONNECT too."""
        options = {"compression": None, "max_size": None, "max_queue": None, "ping_interval": None,
                   "open_timeout": DEADLINE, "close_timeout": DEADLINE, **options}
        self = cls(await old_websockets.connect(daemon.url(path), **options))
        if greeted:
            self.welcome = await self.recv()
            assert self.welcome.chat.user_id == "system", describe(self.welcome)
            self.config = await self.recv()
            assert self.config.control.type == CONFIG, describe(self.config)
            self.id = self.config.control.session_id
        if capabilities is not None:
            await self.connect_with(capabilities)
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self, code=1000, reason=""):
        await self.socket.close(code, reason)

    def abort(self):
        """Ends the TCP connection without a word."""
        self.socket.transport.abort()

    # Sending

    async def send(self, message):
        """A Message, bytes or text, as one WebSocket message."""
        if isinstance(message, Message):
            message = message.SerializeToString()
        await self.socket.send(message)
        return message

    async def send_chat(self, content=None, **fields):
        """Returns the content, a fresh one when none is given."""
        content = content or str(uuid.uuid4())
        await self.send(chat(content, **fields))
        return content

    async def send_binary(self, payload, **fields):
        return await self.send(data(payload, **fields))

    async def send_control(self, kind, **fields):
        return await self.send(control(kind, **fields))

    async def send_heartbeat(self):
        return await self.send(Message(type=HEARTBEAT))

    # Receiving

    def _is_notice(self, m):
        return (isinstance(m, Message) and m.type == CONTROL
                and m.control.type in (CONNECT, DISCONNECT)
                and m.control.session_id not in ("", self.id))

    async def recv_raw(self, timeout=DEADLINE):
        """The next message as it came, notices included."""
        try:
            return await asyncio.wait_for(self.socket.recv(), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"nothing came within {timeout:g} s") from None

    async def _next(self, timeout=DEADLINE):
        while True:
            m = await self.recv_raw(timeout)
            if isinstance(m, bytes):
                m = Message.FromString(m)
            if not self._is_notice(m):
                return m
            self.notices.append(m)

    async def recv(self, timeout=DEADLINE):
        """The next message that is no notice: a Message, or text."""
        return self.backlog.pop(0) if self.backlog else await self._next(timeout)

    async def expect_chat(self, content, **fields):
        m = await self.recv()
        assert isinstance(m, Message) and m.type == CHAT_MESSAGE, describe(m)
        assert m.chat.content == content, f"{describe(m)}; expected {content!r}"
        for field, value in fields.items():
            assert getattr(m, field) == value, describe(m)
        return m

    async def expect_binary(self, payload=None, **fields):
        m = await self.recv()
        assert isinstance(m, Message) and m.type == BINARY_DATA, describe(m)
        assert payload is None or m.binary.data == payload, describe(m)
        for field, value in fields.items():
            assert getattr(m.binary, field) == value, describe(m)
        return m

    async def expect_control(self, kind, **fields):
        m = await self.recv()
        assert isinstance(m, Message) and m.type == CONTROL, describe(m)
        assert m.control.type == kind, describe(m)
        for field, value in fields.items():
            where = m if field in ("request_id", "channel") else m.control
            assert getattr(where, field) == value, describe(m)
        return m

    async def expect_error(self, request_id=b"", code=None):
        """ERROR with a reason in words; of what has no request_id, perhaps with one of its own."""
        m = await self.expect_control(ERROR)
        assert m.request_id == request_id or not request_id and len(m.request_id) == 16, describe(m)
        assert m.control.reason and code in (None, m.control.code), describe(m)
        return m

    async def expect_notice(self, kind, session_id, channel=None):
        """A notice about someone, come or still to come."""
        def matches(m):
            return (m.control.type == kind and m.control.session_id == session_id
                    and (channel is None or m.channel == channel))

        seen = 0
        while not any(matches(m) for m in self.notices[seen:]):
            seen = len(self.notices)
            m = await self.recv_raw()
            m = Message.FromString(m) if isinstance(m, bytes) else m
            (self.notices if self._is_notice(m) else self.backlog).append(m)
        return next(m for m in self.notices if matches(m))

    async def expect_close(self, code, reason=None):
        """Reads to the end; returns what came before it."""
        before = []
        try:
            while True:
                before.append(await self.recv())
        except Closed:
            pass
        close = self.socket.close_code, self.socket.close_reason
        assert close[0] == code, f"closed with {close}, expected {code}"
        assert reason is None or reason in close[1], close
        return before

    # Question and answer

    async def ask(self, message):
        """Sends with a fresh request_id, returns the answer. What else came stays for recv()."""
        message.request_id = new_id()
        await self.send(message)
        return await self.answer_to(message.request_id)

    async def answer_to(self, request_id):
        while True:
            m = await self._next()
            if isinstance(m, Message) and m.request_id == request_id:
                return m
            self.backlog.append(m)

    async def connect_with(self, capabilities, session_id=""):
        self.capabilities = list(capabilities)
        m = await self.ask(control(CONNECT, capabilities=capabilities, session_id=session_id))
        assert m.control.type == ACKNOWLEDGE, describe(m)
        return m

    async def subscribe(self, *channels):
        m = await self.ask(control(SUBSCRIBE, channels=channels))
        assert m.control.type == ACKNOWLEDGE, describe(m)

    async def unsubscribe(self, *channels):
        m = await self.ask(control(UNSUBSCRIBE, channels=channels))
        assert m.control.type == ACKNOWLEDGE, describe(m)

    # Silence, proven by something that has to come next

    async def expect_silence(self):
        """Nothing more is addressed to this client: the answer to a question comes next."""
        await self.connect_with(self.capabilities)
        assert not self.backlog, describe(self.backlog[0])

    async def expect_nothing_in(self, sender, channel=None):
        """
        Nothing more of a channel waits for this client: the order of a channel is one for all, so
        a message that the sender sends now comes next. Wants a channel of which both are members.
        """
        await self.expect_chat(await sender.send_chat(channel=channel))


async def spread(daemon, path="/", each=1, **options):
    """Connects until every worker has some clients; returns a list of them for each worker."""
    groups = [[] for _ in range(daemon.workers)]

    def by_worker():
        return [daemon.metric("websocket_worker_connections", worker=i)
                for i in range(daemon.workers)]

    before = by_worker()
    for _ in range(200):
        if all(len(g) >= each for g in groups):
            return groups
        client = await Client.connect(daemon, path, **options)
        now = by_worker()
        grown = [i for i in range(daemon.workers) if now[i] > before[i]]
        assert len(grown) == 1, f"one connection more, but {before} became {now}"
        groups[grown[0]].append(client)
        before = now
    raise AssertionError(f"200 connections, all on some workers: {before}")


async def close_all(*clients):
    """Closes clients, and lists of them, and lists of lists."""
    flat = list(clients)
    while any(isinstance(c, list) for c in flat):
        flat = [x for c in flat for x in (c if isinstance(c, list) else [c])]
    await asyncio.gather(*(c.close() for c in flat))
