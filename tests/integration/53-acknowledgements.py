# SPDX-License-Identifier: MIT
"""Acknowledgements at the pace of those that read: they wait, and none is lost."""

import contextlib
import tempfile
import threading

from harness import *

RCVBUF = 1 << 16
CHUNK = bytes(16 << 10)
# A member has more than half of its limits waiting with a few chunks that its kernel doesn't take.
TIGHT = {"max_send_buffer": "256K", "tcp_notsent_lowat": "16K", "notice_limit": 0}


def sender_of_chunks(d, path="/room"):
    client = RawClient(d, path)
    client.send(control(CONNECT, capabilities=["ack"]))
    while (m := client.recv()).type != CONTROL or m.control.type != ACKNOWLEDGE:
        pass
    return client


def chunk(channel=None):
    m = data(CHUNK)
    m.request_id = new_id()
    if channel is not None:
        m.channel = channel
    return m


def acknowledged(client):
    """The request of the next answer."""
    while (m := client.recv()).type != CONTROL or m.control.type not in (ACKNOWLEDGE, ERROR):
        pass
    assert m.control.type == ACKNOWLEDGE, describe(m)
    return m.request_id


def fill(d, client, most=400):
    """Sends chunks until the acknowledgement of one waits; returns the request of that one."""
    for _ in range(most):
        m = chunk()
        client.send(m)
        client.send(frame(PING))
        while (f := client.recv_frame()).opcode == BINARY:
            answer = Message.FromString(f.payload)
            if answer.request_id == m.request_id:
                break
        else:
            # The pong came first. It overtakes what waits, so the answer may be there by now.
            if d.metric("websocket_acknowledgements_waiting") > 0:
                return m.request_id
            assert acknowledged(client) == m.request_id
            continue
        assert client.recv_frame().opcode == PONG
    raise AssertionError(f"{most} chunks were acknowledged that nobody reads")


def read_on(client):
    """In a thread: reads until the connection ends."""
    def work():
        with contextlib.suppress(EOFError, OSError):
            while True:
                client.recv_frame()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@seconds(120)
def test_a_chunk_is_acknowledged_when_the_slowest_has_read_on():
    for workers in (1, 2):
        with Daemon(worker_threads=workers, slow_consumer_grace="60s", **TIGHT) as d:
            slow = [RawClient(d, "/room", rcvbuf=RCVBUF) for _ in range(4)]
            sender = sender_of_chunks(d)
            waiting = fill(d, sender)
            assert d.metric("websocket_acknowledgements_delayed_total") == 1
            threads = [read_on(c) for c in slow]
            assert acknowledged(sender) == waiting
            for _ in range(50):
                m = chunk()
                sender.send(m)
                assert acknowledged(sender) == m.request_id
            assert d.metric("websocket_slow_consumer_actions_total") == 0
            assert d.metric("websocket_closes_total") == 0
            sender.close()
            d.stop()
            for t in threads:
                t.join()


@seconds(120)
def test_acknowledgements_keep_their_order_in_a_channel():
    with Daemon(slow_consumer_grace="60s", **TIGHT) as d:
        slow = RawClient(d, "/room", rcvbuf=RCVBUF)
        sender = sender_of_chunks(d)
        sender.send(control(SUBSCRIBE, channels=["else"]))
        acknowledged(sender)
        first = fill(d, sender)
        behind, elsewhere = chat("behind"), chunk("else")
        for m in (behind, elsewhere):
            m.request_id = m.request_id or new_id()
            sender.send(m)
        assert acknowledged(sender) == elsewhere.request_id
        read_on(slow)
        assert acknowledged(sender) == first
        assert acknowledged(sender) == behind.request_id
        sender.close()


@seconds(120)
def test_acknowledgements_wait_for_the_grace_at_most():
    with Daemon(slow_consumer_grace="1s", **TIGHT) as d:
        deaf = RawClient(d, "/room", rcvbuf=RCVBUF)
        sender = sender_of_chunks(d)
        waiting = fill(d, sender)
        # It is still past the half of its limits, and within them: it stays.
        assert acknowledged(sender) == waiting
        assert d.metric("websocket_slow_consumer_actions_total") == 0
        sender.close()
        deaf.close()


@seconds(120)
def test_who_may_skip_is_not_waited_for():
    with Daemon(slow_consumer="skip", slow_consumer_grace="60s", **TIGHT) as d:
        deaf = RawClient(d, "/room", rcvbuf=RCVBUF)
        sender = sender_of_chunks(d)
        for _ in range(100):
            m = chunk()
            sender.send(m)
            assert acknowledged(sender) == m.request_id
        assert d.metric("websocket_acknowledgements_delayed_total") == 0
        sender.close()
        deaf.close()


@seconds(120)
def test_a_hand_over_loses_no_acknowledgement():
    with Daemon(slow_consumer_grace="60s", **TIGHT) as d:
        deaf = RawClient(d, "/room", rcvbuf=RCVBUF)
        sender = sender_of_chunks(d)
        waiting = [fill(d, sender)]
        for _ in range(3):
            m = chunk()
            sender.send(m)
            waiting.append(m.request_id)
        sender.send(frame(PING))
        assert sender.recv_frame().opcode == PONG
        assert d.metric("websocket_acknowledgements_waiting") == 4
        d.hand_over()
        for request in waiting:
            assert acknowledged(sender) == request
        sender.close()
        deaf.close()


@seconds(120)
def test_the_last_chunk_of_a_file_is_acknowledged_last():
    with tempfile.TemporaryDirectory() as folder, \
            Daemon(slow_consumer_grace="60s", spool_dir=folder, **TIGHT) as d:
        slow = RawClient(d, "/room", rcvbuf=RCVBUF)
        sender = sender_of_chunks(d)
        requests = []
        for number in range(60):
            m = chunk()
            m.binary.sequence, m.binary.is_last = number, number == 59
            requests.append(m.request_id)
            sender.send(m)
        wait_until(lambda: d.metric("websocket_spool_files_total") == 1, "the file is there")
        assert d.metric("websocket_acknowledgements_waiting") > 0
        read_on(slow)
        assert [acknowledged(sender) for _ in requests] == requests
        sender.close()
