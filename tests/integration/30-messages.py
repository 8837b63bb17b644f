# SPDX-License-Identifier: MIT
"""What the server does with each kind of message, and with what is none."""

from harness import *

SETTINGS = {}


async def pair(daemon, capabilities=()):
    """Two members of a channel of their own."""
    path = f"/{uuid.uuid4()}"
    return (await Client.connect(daemon, path, capabilities=capabilities),
            await Client.connect(daemon, path))


# Greeting


async def test_greeting(daemon):
    async with await Client.connect(daemon) as c:
        assert uuid.UUID(c.id).version == 4 and c.id == str(uuid.UUID(c.id))
        assert c.welcome.type == CHAT_MESSAGE
        assert c.welcome.chat.content == f"Welcome {c.user_id}! Your connection ID: {c.id}"
        assert abs(c.welcome.chat.timestamp - time.time()) < DEADLINE
        uuid.UUID(c.welcome.chat.id)
        assert c.config.type == CONTROL
        assert c.config.control.max_size == 16 << 20
        assert {"ack", "zstd", "gzip", "lz4"} <= set(c.config.control.capabilities)


async def test_ids_differ(daemon):
    clients = [await Client.connect(daemon) for _ in range(20)]
    assert len({c.id for c in clients}) == 20
    await close_all(clients)


async def test_welcome_of_ones_own():
    with Daemon(welcome="Hello {user}, you are {id}", max_message_size="2M",
                max_frame_size="1M") as d:
        async with await Client.connect(d) as c:
            assert c.welcome.chat.content == f"Hello {c.user_id}, you are {c.id}"
            assert c.config.control.max_size == 2 << 20


# CONNECT


async def test_connect_is_acknowledged_with_what_both_can(daemon):
    async with await Client.connect(daemon) as c:
        m = await c.connect_with(["zstd", "telepathy", "ack"], session_id="mine")
        assert set(m.control.capabilities) == {"zstd", "ack"}, describe(m)
        # Without capabilities it is about something else, and they stay as they are.
        m = await c.connect_with([])
        assert set(m.control.capabilities) == {"zstd", "ack"}, describe(m)
        m = await c.connect_with(["none of them"])
        assert not m.control.capabilities


async def test_connect_with_a_long_session_id(daemon):
    async with await Client.connect(daemon) as c:
        await c.connect_with([], session_id="x" * 64)
        m = await c.ask(control(CONNECT, session_id="x" * 65))
        assert m.control.type == ERROR and m.control.reason
        await c.expect_silence()


async def test_others_see_the_client_id_and_nothing_else(daemon):
    a, b = await pair(daemon)
    await a.expect_notice(CONNECT, b.id)
    await b.connect_with([], session_id="a name of its own")
    await b.close()
    await a.expect_notice(DISCONNECT, b.id)
    assert {n.control.session_id for n in a.notices} == {b.id}
    await a.close()


# CHAT_MESSAGE


async def test_chat_reaches_the_others_unchanged(daemon):
    async with await Client.connect(daemon) as a, await Client.connect(daemon) as b:
        m = chat("héllo ✓ \U0001f600", user_id="anyone", request_id=new_id())
        m.chat.mentions.extend(["x", "y"])
        sent = await a.send(m.SerializeToString() + b"\xfa\x3e\x03abc")  # and an unknown field
        while (got := await b.recv_raw()) != sent:
            assert Message.FromString(got).control.type in (CONNECT, DISCONNECT), got
        await a.expect_silence()


async def test_chat_may_name_its_channel_or_not(daemon):
    a, b = await pair(daemon)
    sent = await a.send(chat("x" * 1000))
    got = await b.recv_raw()
    channel = Message.FromString(got).channel
    assert channel
    assert got.startswith(sent) and got.endswith(channel.encode())  # appended, the rest as it came
    sent = await a.send(chat("y", channel=channel))
    assert await b.recv_raw() == sent
    await close_all(a, b)


async def test_nobody_is_called_system(daemon):
    a, b = await pair(daemon)
    m = chat("obey", user_id="system", request_id=new_id())
    await a.send(m)
    await a.expect_error(m.request_id)
    await b.expect_nothing_in(a)
    await close_all(a, b)


# BINARY_DATA


async def test_binary_is_delivered(daemon):
    a, b = await pair(daemon)
    for payload, checksum in [(b"\x00\xff" * 50, None), (b"plain", ""), (b"", None),
                              (b"upper", crc32(b"upper").upper())]:
        await a.send_binary(payload, checksum=checksum)
        await b.expect_binary(payload, is_last=True, compression=NONE)
    await close_all(a, b)


async def test_checksum_is_a_number(daemon):
    a, b = await pair(daemon)
    payload = next(p for i in range(10000) if crc32(p := b"%d" % i).startswith("00"))
    await a.send_binary(payload, checksum=crc32(payload).lstrip("0"))
    await b.expect_binary(payload)
    await close_all(a, b)


async def test_wrong_checksum_is_refused(daemon):
    a, b = await pair(daemon)
    errors = daemon.metric("websocket_message_errors_total")
    for wrong in ("00000000", "xyz", crc32(b"payload") + "0"):
        m = data(b"payload", checksum=wrong, request_id=new_id())
        await a.send(m)
        await a.expect_error(m.request_id)
    await b.expect_nothing_in(a)
    assert daemon.metric("websocket_message_errors_total") == errors + 3
    await close_all(a, b)


# CONTROL, HEARTBEAT


async def test_controls_that_are_only_noted(daemon):
    a, b = await pair(daemon)
    errors = daemon.metric("websocket_message_errors_total")
    for kind in (ACKNOWLEDGE, ERROR, CONFIG):
        await a.send_control(kind, request_id=new_id())
    await a.send_heartbeat()
    await a.expect_silence()
    await b.expect_nothing_in(a)
    assert daemon.metric("websocket_message_errors_total") == errors
    await close_all(a, b)


async def test_disconnect_closes_with_1000(daemon):
    a, b = await pair(daemon)
    await a.send_control(DISCONNECT)
    assert not await a.expect_close(1000)
    await b.expect_notice(DISCONNECT, a.id)
    await b.close()


# Text


async def test_text_is_counted_and_goes_nowhere():
    with Daemon(log_level="debug") as d:
        a, b = await pair(d)
        await a.send("just text\nwith a \x1b[31mtrick")
        m = await a.expect_error(code=400)
        assert "WebSocketMessage" in m.control.reason and "text_messages" in m.control.reason
        await a.send("and again")
        await a.expect_silence()
        await b.expect_nothing_in(a)
        assert d.metric("websocket_text_messages_total") == 2
        assert not d.lines("\x1b"), "a peer's text reached the log as it was"
        await close_all(a, b)


async def test_text_is_relayed():
    with Daemon(text_messages="relay") as d:
        groups = await spread(d)
        a, others = groups[0][0], groups[0][1:] + groups[1]
        await a.send("tëxt")
        for c in others:
            assert await c.recv() == "tëxt"
        await a.expect_silence()
        await close_all(groups)


async def test_text_is_rejected():
    with Daemon(text_messages="reject") as d:
        a, b = await pair(d)
        await a.send("text")
        await a.expect_close(1003)
        await b.expect_notice(DISCONNECT, a.id)
        await b.close()


def test_text_that_is_not_utf8(daemon):
    for payload in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xc3"):
        with RawClient(daemon) as c:
            c.send(frame(TEXT, payload))
            c.expect_close(1007)


# What is wrong


async def test_wrong_types_and_payloads_answer_an_error(daemon):
    errors = daemon.metric("websocket_message_errors_total")
    no_payload = Message(type=CHAT_MESSAGE)
    wrong_kind = chat("x")
    wrong_kind.type = BINARY_DATA
    unknown = chat("x")
    unknown.type = UNKNOWN
    no_control = Message(type=CONTROL)
    strange_control = control(CONNECT)
    strange_control.control.type = 9
    strange_type = chat("x")
    strange_type.type = 99
    cases = [no_payload, wrong_kind, unknown, no_control, strange_control, strange_type]
    a, b = await pair(daemon)
    for m in cases:
        m.request_id = new_id()
        await a.send(m)
        await a.expect_error(m.request_id)
    await a.send(b"")
    await a.expect_error()
    assert daemon.metric("websocket_message_errors_total") == errors + len(cases) + 1
    await b.expect_nothing_in(a)
    await close_all(a, b)


# Behind a chat, or inside of it: what no library has to know, in every wire type, whole and broken.
NUMBERS = [b"", b"\x05", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x02", b"\xff" * 11]
ENCODINGS = [
    # Unknown fields 30 and 5000 of each wire type.
    *[b"\xf0\x01" + n for n in NUMBERS], b"\xc0\xb8\x02\x07",
    b"\xf1\x01" + bytes(8), b"\xf1\x01" + bytes(7), b"\xf5\x01" + bytes(4), b"\xf5\x01" + bytes(3),
    b"\xf2\x01\x03abc", b"\xf2\x01\x04abc", b"\xf2\x01\x00", b"\xf6\x01", b"\xf7\x01",
    # Groups: empty, full, nested, of a known field's number; without an end, with another, crossed.
    b"\xf3\x01\xf4\x01", b"\xf3\x01\x08\x01\x12\x01z\xf4\x01", b"\x1b\x0a\x01x\x1c",
    b"\xf3\x01\x3b\x3d" + bytes(4) + b"\x39" + bytes(8) + b"\x3c\xf4\x01",
    b"\x3b" * 90 + b"\x3c" * 90, b"\xf3\x01", b"\xf4\x01", b"\xf3\x01\x3c", b"\x3b\x43\x3c\x44",
    b"\xf3\x01\x12\x09z\xf4\x01", b"\x3b\x82\x01\x01\xff\x3c",
    # Known fields with another wire type than theirs: type, request_id, chat, channel.
    b"\x0a\x01x", b"\x0d" + bytes(4), b"\x09" + bytes(8), b"\x10\x07", b"\x15" + bytes(4), b"\x18\x01",
    b"\x1d" + bytes(4), b"\x80\x01\x07", b"\x81\x01" + bytes(8), b"\x0b\x0c", b"\x13\x14",
    # Tags: of number 0, spelt longer than they need, past 32 bits.
    b"\x00\x00", b"\xf8\x81\x80\x80\x00\x05", b"\xf8\xff\xff\xff\x1f\x01", b"\x02\x00",
    # Lengths: spelt longer, past the end.
    b"\xf2\x81\x80\x00\x01x", b"\xf2\x01\x81\x80\x00x", b"\xf2\x01" + b"\xff" * 4 + b"\x0f",
]


# What one of the two lets pass, and others refuse: bits that a varint has no room for, tags past
# 32 bits or of number 0, and the end of a group that never began.
STRICTER = [b"\xf0\x01" + b"\x80" * 9 + b"\x02", b"\xf8\xff\xff\xff\x1f\x01", b"\x00\x00", b"\xf4\x01"]


READER = """
import sys
from google.protobuf.internal import api_implementation
sys.path.insert(0, sys.argv[2])
import message_pb2
from google.protobuf.message import DecodeError
assert api_implementation.Type() == sys.argv[1], api_implementation.Type()
for line in sys.stdin:
    try:
        message_pb2.WebSocketMessage.FromString(bytes.fromhex(line))
        print("read")
    except DecodeError:
        print("refused")
"""


def read_by(library, messages):
    """Which of them a library reads: python3-protobuf is two, Google's in C++ and one in Python."""
    done = subprocess.run(
        [sys.executable, "-c", READER, library, str(generate())], text=True, check=True,
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": library}, timeout=DEADLINE,
        input="".join(m.hex() + "\n" for m in messages), stdout=subprocess.PIPE)
    verdicts = done.stdout.split()
    assert len(verdicts) == len(messages)
    return [v == "read" for v in verdicts]


async def test_what_other_libraries_pass_over_goes_through(daemon):
    assert len(ENCODINGS) >= 40
    whole = chat("x", request_id=new_id())
    head = whole.SerializeToString()
    passed = 0
    for before, behind in ((b"", head), (head, b"")):
        messages = [behind + extra + before for extra in ENCODINGS]
        verdicts = [read_by(library, messages) for library in ("cpp", "python")]
        for extra, raw, *reads in zip(ENCODINGS, messages, *verdicts):
            assert reads[0] == reads[1] or extra in STRICTER, (raw, reads)
            a, b = await pair(daemon)
            await a.connect_with(["ack"])
            await a.send(raw)
            if all(reads) and extra not in STRICTER:
                m = await a.recv()
                assert m.control.type == ACKNOWLEDGE, (raw, describe(m))
                assert m.request_id == whole.request_id
                # The channel's name is added behind it.
                assert (await b.recv_raw()).startswith(raw)
                passed += 1
            else:
                await a.expect_error()
                await a.expect_close(1007)
            await a.close()
            await b.close()
    assert 40 < passed < 2 * len(ENCODINGS) - 20, passed


async def test_bytes_that_are_no_message(daemon):
    errors = daemon.metric("websocket_message_errors_total")
    bad_text = chat("????").SerializeToString().replace(b"????", b"\xff\xfe\xfd\xfc")
    bad_channel = chat("x", channel="????").SerializeToString().replace(b"????", b"\xc3\x28ab")
    cases = [b"\xff\xff\xff\xff", b"\x08", b"\x1a\x7fshort", b"\x0f\x01x", bad_text, bad_channel]
    for junk in cases:
        a, b = await pair(daemon)
        await a.send(junk)
        await a.expect_error()
        await a.expect_close(1007)
        await b.expect_notice(DISCONNECT, a.id)
        await b.close()
    assert daemon.metric("websocket_message_errors_total") == errors + len(cases)


# ack


async def test_ack_for_those_who_asked(daemon):
    a, b = await pair(daemon, capabilities=["ack"])
    for m in (chat("x"), data(b"x")):
        answer = await a.ask(m)
        assert answer.control.type == ACKNOWLEDGE, describe(answer)
        await b.recv()
    refused = await a.ask(chat("x", user_id="system"))
    assert refused.control.type == ERROR
    await b.send_chat("no answer to this", request_id=new_id())
    await b.expect_silence()
    await a.expect_chat("no answer to this")
    await close_all(a, b)


async def test_ack_keeps_the_order_of_requests(daemon):
    a, b = await pair(daemon, capabilities=["ack"])
    ids = [new_id() for _ in range(100)]
    for i in ids:
        await a.send_chat("x", request_id=i)
    for i in ids:
        await a.expect_control(ACKNOWLEDGE, request_id=i)
    await close_all(a, b)


# The end of a connection


async def test_every_end_is_told_to_the_others(daemon):
    path = f"/{uuid.uuid4()}"
    watcher = await Client.connect(daemon, path)
    active = daemon.metric("websocket_active_connections")
    ends = [lambda c: c.reset(), lambda c: c.close(),
            lambda c: c.send(frame(CLOSE, struct.pack(">H", 1000))),
            lambda c: c.send(frame(CLOSE)),
            lambda c: c.send(control(DISCONNECT)),
            lambda c: c.send(frame(3)),
            lambda c: (c.send(frame(BINARY, b"half", fin=False)), c.close())]
    for end in ends:
        c = RawClient(daemon, path)
        end(c)
        await watcher.expect_notice(DISCONNECT, c.id)
        c.close()
    await daemon.wait_metric("websocket_active_connections", active)
    assert len(watcher.notices) == 2 * len(ends), "each comes once and leaves once"
    await watcher.close()


# Frames


def test_message_in_fragments_with_a_ping_between(daemon):
    with RawClient(daemon, "/fragments") as a, RawClient(daemon, "/fragments") as b:
        whole = chat("in pieces" * 100, channel="fragments").SerializeToString()
        a.recv_message()  # the notice about b
        a.send(frame(BINARY, whole[:10], fin=False), frame(PING, b"between"),
               frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, whole[10:50], fin=False),
               frame(CONTINUATION, whole[50:]))
        a.expect_frame(PONG, b"between")
        assert b.recv_message() == whole


def test_ping_gets_the_same_pong(daemon):
    with RawClient(daemon) as c:
        for payload in (b"", b"x", bytes(range(125))):
            c.send(frame(PING, payload))
            c.expect_frame(PONG, payload)
        c.send(frame(PONG, b"unasked"), frame(PING, b"fence"))
        c.expect_frame(PONG, b"fence")


def test_close_is_answered(daemon):
    for payload, code in [(struct.pack(">H", 1000) + b"bye", 1000), (struct.pack(">H", 1001), 1001),
                          (struct.pack(">H", 4000), 4000), (b"", 1005)]:
        with RawClient(daemon) as c:
            c.send(frame(CLOSE, payload))
            c.expect_close(code)


def test_violations_of_the_standard(daemon):
    cases = [
        (1002, [frame(BINARY, b"x", mask=False)]),
        (1002, [frame(BINARY, b"x", rsv=4)]),
        (1002, [frame(BINARY, b"x", rsv=2)]),
        (1002, [frame(PING, b"x", rsv=1)]),
        (1002, [frame(3, b"")]),
        (1002, [frame(7, b"")]),
        (1002, [frame(11, b"")]),
        (1002, [frame(PING, b"x", fin=False)]),
        (1002, [frame(PING, b"x" * 126)]),
        (1002, [frame(CONTINUATION, b"x")]),
        (1002, [frame(BINARY, b"x", fin=False), frame(BINARY, b"y")]),
        (1002, [frame(BINARY, b"x", fin=False), frame(TEXT, b"y")]),
        (1002, [frame(CLOSE, b"\x03")]),
        (1002, [frame(CLOSE, struct.pack(">H", 1005))]),
        (1002, [frame(CLOSE, struct.pack(">H", 1006))]),
        (1002, [frame(CLOSE, struct.pack(">H", 999))]),
        (1002, [frame(CLOSE, struct.pack(">H", 5000))]),
        (1007, [frame(CLOSE, struct.pack(">H", 1000) + b"\xff")]),
    ]
    for code, frames in cases:
        with RawClient(daemon) as c:
            c.send(*frames)
            began = time.monotonic()
            try:
                c.expect_close(code)
            except (AssertionError, EOFError) as e:
                raise AssertionError(f"{frames}: {e}") from None
            assert time.monotonic() - began < 2 * SLOW, f"{frames}: TCP ended late"


def test_each_byte_alone(daemon):
    with RawClient(daemon, "/bytes") as a, RawClient(daemon, "/bytes") as b:
        a.recv_message()
        whole = chat("slowly", channel="bytes")
        for byte in frame(BINARY, whole.SerializeToString()):
            a.send(bytes([byte]))
        assert b.recv() == whole


def test_large_message_comes_in_frames():
    path = "/large"
    with Daemon(max_frame_size="64K", max_send_buffer="1M", compression_max_size="1K") as d:
        with RawClient(d, path) as a, RawClient(d, path) as b:
            a.recv_message()
            whole = data(os.urandom(3 << 20), channel="large").SerializeToString()
            pieces = [whole[i:i + 60000] for i in range(0, len(whole), 60000)]
            for i, piece in enumerate(pieces):
                a.send(frame(CONTINUATION if i else BINARY, piece, fin=i == len(pieces) - 1))
            got = []
            while not got or not got[-1].fin:
                got.append(b.recv_frame())
                assert len(got[-1].payload) <= 65536
            assert b"".join(f.payload for f in got) == whole
            assert [f.opcode for f in got] == [BINARY] + [CONTINUATION] * (len(got) - 1)


async def test_the_largest_message_reaches_a_client():
    with Daemon() as d:
        groups = await spread(d)
        whole = data(b"", checksum="", channel="")
        whole.binary.data = os.urandom((16 << 20) - len(whole.SerializeToString()) - 8)
        assert (16 << 20) - 16 < whole.ByteSize() <= 16 << 20
        bytes_ = whole.SerializeToString()
        parts = [bytes_[i:i + (4 << 20)] for i in range(0, len(bytes_), 4 << 20)]
        await groups[0][0].socket.send(parts)
        for c in groups[0][1:] + groups[1]:
            m = await c.recv()
            assert m.binary.data == whole.binary.data
        await close_all(groups)


# echo_path


async def test_echo_path():
    with Daemon(echo_path="/echo") as d:
        async with await Client.connect(d, "/echo", greeted=False) as c, \
                await Client.connect(d, "/echo", greeted=False) as other:
            for m in ("text", "", b"\xff no message \x00", b"", "x" * 100000, b"y" * 1000000):
                await c.send(m)
                assert await c.recv_raw() == m
            await other.send("mine")
            assert await other.recv_raw() == "mine"
        async with await Client.connect(d, "/other") as c:
            await c.expect_silence()


# What the server says of itself, and what nobody else may say

async def test_config_tells_all_about_the_connection():
    with Daemon(max_incoming_frames_per_second=77) as d:
        async with await Client.connect(d, "/room/7") as a, await Client.connect(d, "/room/7") as b:
            config = a.config
            assert config.channel == "room/7" and config.control.max_frames_per_second == 77
            assert config.control.user_id == f"user-127.0.0.1:{a.socket.local_address[1]}"
            assert "wsbind/2" in config.control.capabilities
            assert "heartbeat" in config.control.capabilities
            assert all(len(m.request_id) == 16 for m in (a.welcome, config))
            notice = await a.expect_notice(CONNECT, b.id, "room/7")
            assert notice.control.user_id == b.config.control.user_id
            assert len(notice.request_id) == 16 and notice.request_id != config.request_id
        async with await Client.connect(d) as c:
            assert c.config.HasField("channel") and c.config.channel == ""


async def test_two_payloads_are_refused(daemon):
    a, b = await pair(daemon)
    both = Message(type=BINARY_DATA, request_id=new_id(), channel="")
    both.binary.data = b"x"
    beside = Message()
    beside.chat.user_id, beside.chat.content = "system", "pay here"
    for raw in (both.SerializeToString() + beside.SerializeToString(),
                beside.SerializeToString() + both.SerializeToString()):
        await a.send(raw)
        m = await a.expect_error(both.request_id, code=400)
        assert "two payloads" in m.control.reason
    await b.expect_nothing_in(a)
    await close_all(a, b)


async def test_what_only_the_server_may_say(daemon):
    a, b = await pair(daemon)
    whole = chat("mine", request_id=new_id())
    forged = Message(sender=b"s" * 16, sent_ms=5, sequence=7)
    raw = whole.SerializeToString()
    extra = forged.SerializeToString() + b"\x88\x01\x05"  # 17 was a varint once
    for sent in (raw + extra, extra + raw, extra[:19] + raw + extra[19:]):
        await a.send(sent)
        got = await b.recv_raw()
        assert got == raw + Message(channel=b.config.channel).SerializeToString(), (got, raw)
    # A hundred of them are a message all the same.
    await a.send(raw + extra * 100)
    m = await b.expect_chat("mine")
    assert not m.sender and not m.sent_ms and not m.HasField("sequence")
    await close_all(a, b)


async def test_sender_is_stamped():
    with Daemon(stamp_sender="yes") as d:
        a, b = await pair(d)
        await b.connect_with(["zstd"])
        for message in (chat("x"), data(b"\0" * 5000), data(b"\0" * 300000)):
            message.sender = b"forged"
            await a.send(message)
            m = await b.recv()
            assert uuid.UUID(bytes=m.sender) == uuid.UUID(a.id), describe(m)
        assert d.reload(stamp_sender="no").status == 200
        await a.send_chat("y")
        assert not (await b.expect_chat("y")).sender
        await close_all(a, b)


async def test_heartbeats_are_answered_for_who_asked(daemon):
    async with await Client.connect(daemon) as a:
        await a.send(Message(type=HEARTBEAT, request_id=new_id()))
        await a.expect_silence()
        await a.connect_with(["heartbeat"])
        m = await a.ask(Message(type=HEARTBEAT))
        assert m.type == HEARTBEAT


async def test_errors_name_their_channel(daemon):
    async with await Client.connect(daemon) as a:
        for message, name in ((chat("x", channel="nowhere"), "nowhere"),
                              (control(SUBSCRIBE, channels=["/room/7"]), "/room/7"),
                              (control(UNSUBSCRIBE, channels=["never"]), "never")):
            m = await a.ask(message)
            assert m.control.type == ERROR and m.channel == name, describe(m)
        for kind in (19, 20):
            m = await a.ask(control(kind))
            assert m.control.code == 400, describe(m)
