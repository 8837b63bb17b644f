# SPDX-License-Identifier: MIT
"""Another language, another library: a client on Node's `ws`."""

import json

from harness import *

SETTINGS = {}


class Node:
    """node_client.js, its input and its lines of JSON."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, daemon, path="/", *options):
        if not shutil.which("node") or not os.path.exists("/usr/share/nodejs/ws"):
            raise Skip("node-ws is not installed")
        script = Path(__file__).with_name("node_client.js")
        return cls(await asyncio.create_subprocess_exec(
            "node", script, daemon.url(path), *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "NODE_PATH": "/usr/share/nodejs"}))

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    async def event(self):
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        assert line, "node ended"
        return json.loads(line)

    async def greeted(self):
        """Takes welcome, CONFIG and the answer to CONNECT; returns the client id."""
        welcome, config, answer = [await self.event() for _ in range(3)]
        assert welcome["user"] == "system", welcome
        assert config["control"] == CONFIG, config
        assert answer["control"] == ACKNOWLEDGE, answer
        return config["session"]

    async def end(self):
        self.process.stdin.close()
        while (event := await self.event()) and "closed" not in event:
            pass
        assert event["closed"] == 1000, event
        assert await asyncio.wait_for(self.process.wait(), DEADLINE) == 0


async def test_node_and_python_talk(daemon):
    async with await Client.connect(daemon, "/mixed") as c:
        node = await Node.start(daemon, "/mixed")
        node_id = await node.greeted()
        await c.expect_notice(CONNECT, node_id)
        for text in ("hello from node", "ünïcode \U0001f600", "x" * 100000):
            node.type(text)
            m = await c.expect_chat(text, channel="mixed")
            assert m.chat.user_id == "node"
            assert (await node.event())["control"] == ACKNOWLEDGE
        await c.send_chat("hello from python", user_id="py")
        assert await node.event() == {"chat": "hello from python", "user": "py"}
        await node.end()
        await c.expect_notice(DISCONNECT, node_id)


async def test_two_nodes_talk(daemon):
    a = await Node.start(daemon, "/pair")
    await a.greeted()
    b = await Node.start(daemon, "/pair")
    b_id = await b.greeted()
    assert await a.event() == {"control": CONNECT, "session": b_id}
    a.type("one")
    assert (await a.event())["control"] == ACKNOWLEDGE
    assert await b.event() == {"chat": "one", "user": "node"}
    await b.end()
    assert await a.event() == {"control": DISCONNECT, "session": b_id}
    await a.end()


async def test_node_deflates_and_inflates():
    with Daemon() as d:
        a = await Node.start(d, "/deflated", "deflate")
        await a.greeted()
        b = await Node.start(d, "/deflated", "deflate")
        b_id = await b.greeted()
        assert await a.event() == {"control": CONNECT, "session": b_id}
        texts = ("short", "again and again, " * 500, "ünïcode \U0001f600 " * 2000)
        for text in texts:
            a.type(text)
            assert (await a.event())["control"] == ACKNOWLEDGE
            assert await b.event() == {"chat": text, "user": "node"}
        sent = sum(len(text.encode()) for text in texts)
        name = "websocket_compression_{}_bytes_total"
        assert d.metric(name.format("output"), operation="inflate") > sent
        assert d.metric(name.format("input"), operation="inflate") < sent / 10
        await d.wait_metric(name.format("output"), lambda n: 0 < n < sent / 10,
                            operation="deflate")
        await b.end()
        assert await a.event() == {"control": DISCONNECT, "session": b_id}
        await a.end()


async def test_node_sees_the_goodbye():
    with Daemon() as d:
        node = await Node.start(d)
        await node.greeted()
        d.signal(signal.SIGTERM)
        assert (await node.event())["control"] == DISCONNECT
        assert (await node.event())["closed"] == 1012
        node.process.stdin.close()
        await node.process.wait()
