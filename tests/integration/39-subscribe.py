# SPDX-License-Identifier: MIT
"""wsbind subscribe: what arrives, as lines for people or JSON, without a hole or a double."""

import fcntl
import json
import struct
import termios

from google.protobuf import json_format

from harness import *

HISTORY = {"history_messages": 1000, "worker_threads": 2, "leave_grace": 0}


class Subscriber:
    """A run of the command, whose lines are read as they come."""

    def __init__(self, daemon, *args):
        self.daemon, self.args = daemon, args

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            str(binary()), "subscribe", "-u", self.daemon.url("/").rstrip("/"), *map(str, self.args),
            "--reconnect_delay_ms=20", "--reconnect_attempts=200",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            limit=1 << 24)
        return self

    async def __aexit__(self, kind, *_):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def line(self):
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        assert line.endswith(b"\n"), line
        return line.decode()[:-1]

    async def told(self, pattern):
        """Waits for a line on standard error."""
        while True:
            line = await asyncio.wait_for(self.process.stderr.readline(), DEADLINE)
            assert line, f"it ended without a line like {pattern!r}"
            if found := re.search(pattern, line.decode()):
                return found

    async def stop(self, status=0):
        self.process.terminate()
        await asyncio.wait_for(self.process.communicate(), DEADLINE)
        assert self.process.returncode == status, self.process.returncode


async def members(daemon, n):
    await daemon.wait_metric("websocket_active_connections", n)


def texts(lines):
    return [line.split(": ", 1)[1] for line in lines]


async def test_lines_for_people():
    with Daemon(**HISTORY, text_messages="relay") as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        for i in range(5):
            await a.ask(chat(f"before {i}"))
        async with Subscriber(d, "--rewind", 2, "room") as s:
            assert texts([await s.line() for _ in range(2)]) == ["before 3", "before 4"]
            await a.ask(chat("now \x1b[31m\nline"))
            line = await s.line()
            assert "now \\x1b[31m" in line, line
            await a.ask(data(b"12345"))
            assert "binary data: 5 bytes" in await s.line()
            await a.socket.send("a text")
            assert await s.line() == "* text: a text"
            await s.stop()
        await a.close()


async def test_several_channels_are_told_apart():
    with Daemon(**HISTORY) as d:
        a = await Client.connect(d, "/a", capabilities=["ack"])
        await a.subscribe("b", "c/d")
        await a.ask(chat("kept", channel="b"))
        async with Subscriber(d, "--rewind", 1, "a", "b", "c/d") as s:
            # Its channels are joined at once, behind that of the path.
            assert (await s.line()).startswith("[b] ")
            for channel in ("a", "b", "c/d"):
                await a.ask(chat(f"in {channel}", channel=channel))
                line = await s.line()
                assert line.startswith(f"[{channel}] ") and line.endswith(f"in {channel}"), line
            await s.stop()
        await a.close()


async def test_json_is_what_protobuf_makes_of_it():
    with Daemon(history_messages=100, welcome="hello", text_messages="relay") as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        async with Subscriber(d, "--json", "room") as s:
            await members(d, 2)
            sent = [chat('quotes " \\ / \u2028 \u00e9 \U0001f600 \x01\x1f\x7f end', user_id="\u4e2d"),
                    chat(""), data(bytes(range(256)), is_last=True),
                    data(b"\xff", sequence=7)]
            sent[3].binary.name, sent[3].binary.size = "file", 1 << 63
            sent[3].binary.transfer = b"t"
            sent[1].chat.mentions.extend(["x", "y"])
            for m in sent:
                await a.ask(m)
                line = await s.line()
                got = json_format.Parse(line, Message())
                assert got.type == m.type and got.sender == uuid.UUID(a.id).bytes
                assert got.sequence > 0 and got.sent_ms > 0
                # What the server has added is no part of what was said.
                for added in ("sender", "sent_ms", "sequence", "channel"):
                    got.ClearField(added)
                said = Message()
                said.CopyFrom(m)
                said.ClearField("channel")
                assert got == said, (got, said)
                # As Python's library writes it, but for what is always told.
                full = json.loads(line)
                plain = json_format.MessageToDict(json_format.Parse(line, Message()))
                assert full == plain, (full, plain)
                assert "\u2028" not in line and "\x7f" not in line
            await a.socket.send("a text")
            assert json.loads(await s.line()) == {"text": "a text"}
            await s.stop()
        await a.close()


async def test_nothing_is_missed_through_restarts_and_crashes():
    with Shared() as env:
        with Daemon(env=env, **{**HISTORY, "port": free_port()}) as d:
            async with Subscriber(d, "room", "other") as s:
                await d.wait_metric("websocket_channels", 2)
                said, count = [], 0
                for round_ in range(6):
                    a = await Client.connect(d, "/room", capabilities=["ack"])
                    await a.subscribe("other")
                    for _ in range(50):
                        count += 1
                        channel = "other" if count % 3 == 0 else "room"
                        await a.ask(chat(f"message {count}", channel=channel))
                        said.append(f"[{channel}] {count}")
                    if round_ % 3 == 0:
                        await asyncio.to_thread(d.hand_over)
                    elif round_ % 3 == 1:
                        await asyncio.to_thread(d.crash)
                    a.abort()
                got = [await s.line() for _ in said]
                for channel in ("room", "other"):
                    mine = [f"[{channel}] {re.search(r'message ([0-9]+)$', x)[1]}"
                            for x in got if x.startswith(f"[{channel}]")]
                    assert mine == [x for x in said if x.startswith(f"[{channel}]")], mine
                await s.stop()


async def test_one_run_goes_on_where_another_ended():
    with Daemon(**HISTORY) as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        async with Subscriber(d, "room") as s:
            await members(d, 2)
            await a.ask(chat("first"))
            assert (await s.line()).endswith(": first")
            s.process.terminate()
            position = (await s.told(r"to go on from here: --since (\S+)"))[1]
            assert await asyncio.wait_for(s.process.wait(), DEADLINE) == 0
        await a.ask(chat("second"))
        async with Subscriber(d, "--since", position, "room") as s:
            assert (await s.line()).endswith(": second")
            await s.told("nothing is missing")
            await s.stop()
        # Of another life of the channel: what there is comes, and that something may be missing.
        async with Subscriber(d, "--json", "--since", "1.5", "room") as s:
            await s.told("messages may be missing")
            lines = [json.loads(await s.line()) for _ in range(3)]
            assert {"recovered": False, "channel": ""} in lines, lines
            assert [x["chat"]["content"] for x in lines if "chat" in x] == ["first", "second"]
            await s.stop()
        await a.close()


async def test_a_gap_is_told():
    with Daemon(history_messages=3, slow_consumer="history", slow_consumer_grace=0,
                message_queue_size=4, max_send_buffer="256K", tcp_notsent_lowat="4K",
                max_incoming_frames_per_second=0) as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        async with Subscriber(d, "--json", "--rewind", 1, "room") as s:
            await members(d, 2)
            s.process.send_signal(signal.SIGSTOP)
            while not d.metric("websocket_messages_skipped_total"):
                await a.ask(chat("x" * 20000))
            s.process.send_signal(signal.SIGCONT)
            await a.ask(chat("the last"))
            while "control" not in (m := json.loads(await s.line())):
                pass
            assert m["control"]["type"] == "GAP" and len(m["control"]["positions"]) == 2, m
            while m.get("chat", {}).get("content") != "the last":
                m = json.loads(await s.line())
            await s.told("messages are missing, the server passed them over")
            await s.stop()
        await a.close()


async def test_whoever_has_enough_ends_it():
    with Daemon(**HISTORY) as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        pipe = await asyncio.create_subprocess_shell(
            f"{binary()} subscribe -u {d.url('/room')} --rewind 5 | head -n 1",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        await members(d, 2)
        while pipe.returncode is None:
            await a.ask(chat("line"))
            await asyncio.sleep(0)
            if d.metric("websocket_active_connections") == 1:
                break
        out, err = await asyncio.wait_for(pipe.communicate(), DEADLINE)
        assert out.count(b"\n") == 1 and b"cannot write" not in err, (out, err)
        await a.close()


async def chat_through(d, faults, lines):
    """wsbind client sends numbered lines while the connection is lost again and again."""
    client = await asyncio.create_subprocess_exec(
        str(binary()), "client", "-u", d.url("/room"), "--user", "ann", "--reconnect_delay_ms=20",
        "--reconnect_attempts=200", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, limit=1 << 24)
    await members(d, 1)
    for i in range(lines):
        client.stdin.write(f"line {i}\n".encode())
        await client.stdin.drain()
        if i % (lines // (len(faults) + 1)) == lines // (len(faults) + 1) - 1 and faults:
            await asyncio.to_thread(faults.pop(0))
    reader = await Client.connect(d, f"/room?rewind={2 * lines}")
    got = []
    while len(got) < lines:
        m = await reader.recv()  # the end of the replay comes somewhere between them
        got += [m.chat.content] if m.type == CHAT_MESSAGE else []
    client.stdin.close()
    out, err = await asyncio.wait_for(client.communicate(), DEADLINE)
    assert client.returncode == 0, err
    await reader.close()
    return got, out.decode(), err.decode()


async def test_what_a_client_says_is_published_once_through_crashes():
    with Shared() as env:
        with Daemon(env=env, port=free_port(), history_messages=10000,
                    max_incoming_frames_per_second=0) as d:
            got, out, err = await chat_through(d, [d.crash, d.hand_over, d.crash], 600)
            assert got == [f"line {i}" for i in range(600)], got
            # It is the same client, which gets nothing of its own.
            assert "line" not in out and "not known" not in err, (out, err)
            assert d.metric('websocket_resumes_total', taken="true") > 0


def unread(pipe):
    """Bytes of a pipe that its reader has not taken yet."""
    return struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)))[0]


async def test_a_client_reads_on_when_the_server_has_acknowledged():
    """What is read and not acknowledged has a bound: the rest waits in the pipe, and none is lost."""
    lines = [f"line {i}" for i in range(6000)]
    text = "".join(f"{line}\n" for line in lines).encode()
    with Shared() as env:
        with Daemon(env=env, port=free_port(), history_messages=10000,
                    max_incoming_frames_per_second=0) as d:
            client = await asyncio.create_subprocess_exec(
                str(binary()), "client", "-u", d.url("/room"), "--reconnect_delay_ms=20",
                "--reconnect_attempts=200", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            client.stdin.write(b"first\n")
            await d.wait_metric("websocket_history_messages", 1)
            d.suspend()
            client.stdin.write(text)
            await client.stdin.drain()
            pipe = client.stdin.get_extra_info("pipe")
            await until(lambda: unread(pipe) < len(text) - 9 * 1000, "it has read its share")
            await asyncio.to_thread(d.crash)
            client.stdin.close()
            assert await asyncio.wait_for(client.wait(), DEADLINE) == 0
            reader = await Client.connect(d, "/room?rewind=10000")
            for line in ["first", *lines]:
                await reader.expect_chat(line)
            await reader.close()


async def test_a_client_says_what_nobody_knows():
    # Nothing outlives this daemon.
    with Daemon(port=free_port(), history_messages=10000, max_incoming_frames_per_second=0) as d:
        client = await asyncio.create_subprocess_exec(
            str(binary()), "client", "-u", d.url("/room"), "--reconnect_delay_ms=20",
            "--reconnect_attempts=200", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        client.stdin.write(b"a first line\n")
        await d.wait_metric("websocket_history_messages", 1)
        d.suspend()
        client.stdin.write(b"a line\n")
        await client.stdin.drain()
        pipe = client.stdin.get_extra_info("pipe")
        await until(lambda: unread(pipe) == 0, "it has read the line")
        await asyncio.to_thread(d.crash)
        out, err = b"", b""
        while b"whether they were published is not known" not in err:
            err += await asyncio.wait_for(client.stderr.read(4096), DEADLINE)
        client.stdin.close()
        await asyncio.wait_for(client.communicate(), DEADLINE)


def test_refused_for_good(daemon):
    done = subprocess.run([binary(), "subscribe", "-u", daemon.url("/a%00b")],
                          capture_output=True, timeout=30 * SLOW, text=True)
    assert done.returncode == 1 and "404" in done.stderr, done


def test_wrong_usage():
    for args in (["--since", "x", "a"], ["--since", "1.1", "a", "b"], ["--rewind", "0", "a"],
                 ["-u", "http://x/", "a"], ["x" * 300], ["a"] * 65, ["--no-such"]):
        done = subprocess.run([binary(), "subscribe", *args], capture_output=True, text=True,
                              timeout=30 * SLOW)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, (args, done)
