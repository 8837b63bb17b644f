# SPDX-License-Identifier: MIT
"""Many publishers, many members, two workers: nothing lost, doubled or in another order."""

import selectors

from harness import *

PUBLISHERS = 8
EACH = 250
ROOM = {"notice_limit": 0, "message_queue_size": 1000000, "max_send_buffer": "256M",
        "log_memory": "1G", "max_incoming_frames_per_second": 0}


def payloads(stream):
    """Cuts a stream of unmasked binary frames of one message each; returns payloads."""
    at, out = 0, []
    while at < len(stream):
        assert stream[at] == 0x82, f"byte {at} begins no binary frame: {stream[at]:#x}"
        n = stream[at + 1]
        at += 2
        if n == 126:
            n, = struct.unpack_from(">H", stream, at)
            at += 2
        out.append(stream[at:at + n])
        at += n
    return out


def members(daemon, n, path):
    """Raw clients, each worker with some of them."""
    clients = [RawClient(daemon, path) for _ in range(n)]
    by_worker = [daemon.metric("websocket_worker_connections", worker=i) for i in (0, 1)]
    assert min(by_worker) > 0, by_worker
    return clients


def read_all(clients, expected, seconds_):
    """Reads from all until each has its number of bytes; returns them."""
    streams = {c: bytearray(c.buffer) for c in clients}
    selector = selectors.DefaultSelector()
    for c in clients:
        selector.register(c.socket, selectors.EVENT_READ, c)
    end = time.monotonic() + seconds_
    while selector.get_map():
        assert time.monotonic() < end, "too slow: " + ", ".join(
            f"{len(s)} of {expected[c]} bytes" for c, s in streams.items()
            if len(s) < expected[c])[:300]
        for key, _ in selector.select(1):
            more = key.data.socket.recv(1 << 18)
            assert more, "a connection ended"
            streams[key.data] += more
            if len(streams[key.data]) >= expected[key.data]:
                selector.unregister(key.fileobj)
    return streams


def publish_in_a_thread(publishers, frames):
    def publish(i):
        for f in frames[i]:
            publishers[i].socket.sendall(f)

    threads = [threading.Thread(target=publish, args=(i,)) for i in range(len(publishers))]
    for t in threads:
        t.start()
    return threads


def delivered(content):
    """The bytes that a member gets: the message in one frame."""
    n = len(content)
    return (b"\x82" + bytes([n]) if n < 126 else b"\x82\x7e" + struct.pack(">H", n)) + content


def check(daemon, path, n_members):
    clients = members(daemon, n_members, path)
    publishers, watchers = clients[:PUBLISHERS], clients[PUBLISHERS:]
    sent = [[chat(f"{p}:{i} " + "x" * (i % 40), channel=path[1:]).SerializeToString()
             for i in range(EACH)] for p in range(PUBLISHERS)]
    size = [sum(len(delivered(m)) for m in of_one) for of_one in sent]
    expected = {c: sum(size) for c in watchers}
    expected.update({c: sum(size) - size[p] for p, c in enumerate(publishers)})
    threads = publish_in_a_thread(publishers,
                                  [[frame(BINARY, m) for m in of_one] for of_one in sent])
    streams = read_all(clients, expected, 50 * SLOW)
    for t in threads:
        t.join()

    first = bytes(streams[watchers[0]])
    order = payloads(first)
    assert sorted(order) == sorted(m for of_one in sent for m in of_one), "lost or doubled"
    for c in watchers:
        assert streams[c] == first, "two members saw two orders"
    for p, c in enumerate(publishers):
        own = set(sent[p])
        assert [m for m in order if m in own] == sent[p], f"publisher {p} was reordered"
        assert streams[c] == b"".join(delivered(m) for m in order if m not in own), \
            f"publisher {p} saw another order"
    for c in clients:
        c.close()


def test_eight_publishers_two_hundred_members():
    with Daemon(**ROOM) as d:
        check(d, "/room", 200)


def test_again_in_the_lobby_of_a_busy_daemon():
    with Daemon(**ROOM) as d:
        others = [RawClient(d, f"/other-{i % 10}") for i in range(50)]
        stop = threading.Event()

        def chatter():
            i = 0
            while not stop.is_set():
                others[i % 25].send(chat("noise"))
                i += 1

        def drain():
            selector = selectors.DefaultSelector()
            for c in others:
                selector.register(c.socket, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.1):
                    key.fileobj.recv(1 << 16)

        threads = [threading.Thread(target=f) for f in (chatter, drain)]
        for t in threads:
            t.start()
        try:
            check(d, "/quiet", 60)
        finally:
            stop.set()
            for t in threads:
                t.join()


def test_more_workers_than_cpus():
    with Daemon(**ROOM, worker_threads=6) as d:
        check(d, "/six", 60)
        assert d.metric("websocket_worker_ring_posts_total") > 0


async def test_connections_come_and_go_while_broadcasts_run():
    with Daemon(**ROOM) as d:
        groups = await spread(d, "/steady")
        sender = groups[0][0]
        readers = (groups[0][1:] + groups[1])[:4]
        count = 600

        async def publish():
            for i in range(count):
                await sender.send_chat(str(i))
                await asyncio.sleep(0)

        async def read(c):
            got = [(await c.recv()).chat.content for _ in range(count)]
            assert got == [str(i) for i in range(count)], "lost, doubled or out of order"

        async def churn(n):
            for i in range(n):
                c = await Client.connect(d, "/steady", greeted=False)
                if i % 3:
                    c.abort()
                else:
                    await c.close()

        await asyncio.gather(publish(), *(read(c) for c in readers), *(churn(100)
                                                                      for _ in range(10)))
        await d.wait_metric("websocket_active_connections", sum(len(g) for g in groups))
        assert d.metric("websocket_total_connections") >= 1000
        await close_all(groups)


async def test_stop_in_the_middle_of_broadcasts():
    with Daemon(**ROOM, shutdown_timeout="5s") as d:
        groups = await spread(d, "/end", each=3)
        everyone = [c for g in groups for c in g]

        async def publish(c):
            try:
                while True:
                    await c.send_chat("x" * 200)
                    await asyncio.sleep(0)  # or nobody else would get a turn
            except Closed:
                pass

        async def read(c):
            try:
                while True:
                    await c.recv()
            except Closed:
                pass
            assert c.socket.close_code == 1012, c.socket.close_code

        tasks = [publish(c) for c in everyone[:3]] + [read(c) for c in everyone]
        running_ = asyncio.gather(*tasks)
        await d.wait_metric("websocket_messages_received_total", lambda v: v > 500)
        d.signal(signal.SIGTERM)
        await running_
        d.stop()


async def test_order_with_a_flush_delay():
    """Held back and gathered, over both workers; and no more after a reload."""
    with Daemon(worker_threads=2, flush_delay="10ms", max_incoming_frames_per_second=0) as d:
        clients = [await Client.connect(d, "/held") for _ in range(6)]
        for delay in ("10ms", "0"):
            assert d.reload(flush_delay=delay).status == 200
            sent = [str(i) for i in range(100)]
            for content in sent:
                await clients[0].send_chat(content)
            for c in clients[1:]:
                assert [(await c.recv()).chat.content for _ in sent] == sent
        await close_all(*clients)
