# SPDX-License-Identifier: MIT
"""Nobody's flood is anybody else's drop: work, memory and time that others would pay for."""

from harness import *


def fence(client, payload=b"through"):
    """Reads up to the answer to a ping; returns the frames before it."""
    client.send(frame(PING, payload))
    before = []
    while (f := client.recv_frame()) != Frame(PONG, payload, True, 0):
        before.append(f)
    return before


def answer(client, request_id):
    """Of all that comes, the answer to a request."""
    while (m := client.recv()).request_id != request_id:
        pass
    return m


def ask(client, message):
    message.request_id = new_id()
    client.send(message)
    return answer(client, message.request_id)


def expect_error(m, code, setting=""):
    assert m.control.type == ERROR and m.control.code == code, describe(m)
    assert setting in m.control.reason, describe(m)


# Lists


def test_lists_are_bounded_before_anything_is_looked_up():
    with Daemon() as d, RawClient(d) as c:
        for message in (control(SUBSCRIBE, channels=["a"] * 65),
                        control(UNSUBSCRIBE, channels=["never joined"] * 65),
                        control(CONNECT, capabilities=["ack"] * 65)):
            expect_error(ask(c, message), 429, "max_channels_per_client")
        m = ask(c, control(SUBSCRIBE, channels=["a"] * 64))
        assert m.control.type == ACKNOWLEDGE, describe(m)
        assert d.clients()[c.id]["channels"] in (["", "a"], ["a", ""])


def test_a_list_as_long_as_a_frame():
    with Daemon() as d, RawClient(d) as c:
        m = control(SUBSCRIBE)
        m.control.channels.extend(["n"] * 1_000_000)
        expect_error(ask(c, m), 429)


async def test_mentions_are_not_bounded():
    with Daemon() as d:
        a, b = await Client.connect(d), await Client.connect(d)
        m = chat("to many")
        m.chat.mentions.extend(f"user {i}" for i in range(1000))
        await a.send(m)
        assert len((await b.expect_chat("to many")).chat.mentions) == 1000
        await close_all(a, b)


# What a message costs


def test_each_name_of_a_list_counts_as_a_frame():
    names = [f"n/{i}" for i in range(60)]
    with Daemon(max_incoming_frames_per_second=100, rate_limit_action="close") as d:
        with RawClient(d) as c:
            c.send(control(SUBSCRIBE, channels=names[:40]))
            c.send(control(UNSUBSCRIBE, channels=names[:40]))
            fence(c)
        with RawClient(d) as c:
            c.send(*[control(kind, channels=names) for kind in (SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE)],
                   frame(PING, b"too many"))
            c.expect_close(1008)
        d.wait_log("max_incoming_frames_per_second")


def test_lists_are_throttled_like_frames():
    names = [f"n/{i}" for i in range(60)]
    with Daemon(max_incoming_frames_per_second=100) as d, RawClient(d) as c:
        for kind in 3 * [SUBSCRIBE, UNSUBSCRIBE]:
            c.send(control(kind, channels=names))
        fence(c)
        assert d.metric("websocket_throttles_total") >= 2


# Memory that somebody else fills


@seconds(120)
def test_who_pins_notices_pays_for_them():
    """They fill log_memory; one for whom a single message waits has nothing to do with it."""
    names = [f"pin/{i}" for i in range(60)]
    with Daemon(log_memory="1M", worker_threads=1, tcp_notsent_lowat="4K",
                max_incoming_frames_per_second=10000) as d:
        pinner = RawClient(d, "/pin", rcvbuf=4096)
        pinner.send(control(SUBSCRIBE, channels=names))
        good = RawClient(d, "/good", rcvbuf=4096)
        publisher = RawClient(d, "/good")
        large = data(os.urandom(400000))
        publisher.send(large)
        fence(publisher)
        churner = RawClient(d, "/churn")
        ask(churner, control(SUBSCRIBE, channels=names))
        for _ in range(250):
            ask(churner, control(UNSUBSCRIBE, channels=names))
            ask(churner, control(SUBSCRIBE, channels=names))
        while (m := good.recv()).type != BINARY_DATA:
            pass
        assert m.binary.data == large.binary.data
        for c in (pinner, good, publisher, churner):
            c.close()


# Tables that all share


def test_an_ipv6_network_is_one_address():
    with Daemon(trusted_proxies="127.0.0.1", max_connections_per_ip=2) as d:
        clients = []
        for address, status in (("2001:db8:1:2::1", 101), ("2001:db8:1:2::2", 101),
                                ("2001:db8:1:2:ffff::3", 429), ("2001:db8:1:3::1", 101),
                                ("192.0.2.1", 101), ("192.0.2.2", 101)):
            c = RawClient(d, handshake=False)
            c.send(request(headers={"X-Forwarded-For": address}))
            assert c.recv_head()[0] == status, address
            clients.append(c)
        for c in clients:
            c.close()


def test_half_requests_do_not_block_the_metrics_port():
    with Daemon() as d:
        address = ("127.0.0.1", d.metrics_port)
        halves = [socket.create_connection(address) for _ in range(100)]
        for s in halves:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        assert d.get("/healthz").status == 200
        for s in halves:
            s.close()
