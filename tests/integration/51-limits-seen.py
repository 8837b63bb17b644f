# SPDX-License-Identifier: MIT
"""
What an administrator sees of each limit: a counter, and a line that says who, what and which
setting. Where exactly each limit lies is tested in tests/unit/test-limits.c.
"""

import ctypes
import errno
import fcntl
import stat

from harness import *

TIGHT = {"max_frame_size": "64K", "max_message_size": "128K"}
CLOSES = "websocket_closes_total"
SLOW_ACTIONS = "websocket_slow_consumer_actions_total"


def closes_with(code, *pieces, path="/"):
    """A client that sends this and is closed with the code; its address."""
    def visit(d):
        with RawClient(d, path) as c:
            address = "%s:%d" % c.socket.getsockname()
            c.send(*pieces)
            c.expect_close(code)
            return address
    return visit


def is_answered(status, *before):
    """A handshake that is answered with the status, after others that succeeded."""
    def visit(d):
        inside = [RawClient(d, path) for path in before]
        with RawClient(d, handshake=False) as c:
            address = "%s:%d" % c.socket.getsockname()
            c.send(request("/one-more"))
            assert c.recv_head()[0] == status
        for c in inside:
            c.close()
        return address
    return visit


def waits_in_vain(d):
    """A head that is never finished."""
    with RawClient(d, handshake=False) as c:
        address = "%s:%d" % c.socket.getsockname()
        c.send(request()[:-2])
        c.expect_end()
        return address


def is_throttled(d):
    with RawClient(d) as c:
        address = "%s:%d" % c.socket.getsockname()
        c.send(frame(PING, b"p") * 30)
        pongs, messages = 0, []
        while pongs < 30:
            f = c.recv_frame()
            if f.opcode == PONG:
                pongs += 1
            else:
                messages.append(Message.FromString(f.payload))
        # Once, however long it goes on like this.
        assert [m.control.code for m in messages] == [429], messages
        assert "max_incoming_frames_per_second" in messages[0].control.reason
        return address


def reads_nothing(d):
    """Members of a busy channel that never read; the sender goes on until it is met."""
    with RawClient(d, "/busy", rcvbuf=4096) as slow, RawClient(d, "/busy") as sender:
        address = "%s:%d" % slow.socket.getsockname()
        message = frame(BINARY, chat("x" * 20000).SerializeToString())
        before = d.metric(SLOW_ACTIONS)
        for _ in range(2000):
            sender.send(message)
            sender.send(frame(PING, b"taken"))
            while sender.recv_frame().opcode != PONG:
                pass
            if d.metric(SLOW_ACTIONS) > before:
                return address
    raise AssertionError("never met")


def asks_for_too_much(d):
    """ERROR, and the connection stays."""
    with RawClient(d) as c:
        address = "%s:%d" % c.socket.getsockname()
        c.send(control(SUBSCRIBE, channels=[f"many/{i}" for i in range(10)], request_id=new_id()))
        assert c.recv().control.type == ERROR
        return address


# name of the setting, its value, more settings, what happens, metric and labels
TABLE = [
    ("max_frame_size", "64K", TIGHT, closes_with(1009, frame(BINARY, bytes(65537))),
     (CLOSES, {"code": "1009"})),
    ("max_message_size", "128K", TIGHT,
     closes_with(1009, *[frame(CONTINUATION if i else BINARY, bytes(50000), fin=False)
                         for i in range(3)]), (CLOSES, {"code": "1009"})),
    ("message_timeout", "200ms", {}, closes_with(1008, frame(TEXT, b"begun", fin=False)),
     (CLOSES, {"code": "1008"})),
    ("reassembly_memory", "1M", {"worker_threads": 1, "max_frame_size": "4M"},
     closes_with(1013, frame(BINARY, bytes(1 << 20), fin=False)), (CLOSES, {"code": "1013"})),
    ("max_incoming_frames_per_second", "20", {}, is_throttled, ("websocket_throttles_total", {})),
    ("max_incoming_frames_per_second", "20", {"rate_limit_action": "close"},
     closes_with(1008, *[frame(PONG)] * 30), (CLOSES, {"code": "1008"})),
    ("heartbeat_timeout", "400ms", {"ping_interval": "200ms", "pong_timeout": "200ms"},
     closes_with(4001), ("websocket_heartbeat_expired_total", {})),
    ("handshake_timeout", "200ms", {}, waits_in_vain,
     ("websocket_handshakes_refused_total", {"reason": "timeout"})),
    ("max_connections", "4", {}, is_answered(503, "/", "/"),
     ("websocket_handshakes_refused_total", {"reason": "max_connections"})),
    ("max_connections_per_ip", "4", {}, is_answered(429, "/", "/"),
     ("websocket_handshakes_refused_total", {"reason": "per_ip"})),
    ("max_channels", "3", {}, is_answered(503, "/1", "/2"),
     ("websocket_handshakes_refused_total", {"reason": "max_channels"})),
    ("max_channels", "3", {"max_channels_per_client": 50}, asks_for_too_much,
     ("websocket_message_errors_total", {})),
    ("max_channels_per_client", "5", {}, asks_for_too_much,
     ("websocket_message_errors_total", {})),
    ("message_queue_size", "10", {"slow_consumer_grace": 0, "max_send_buffer": "1G"},
     reads_nothing, (SLOW_ACTIONS, {"action": "disconnect"})),
    ("max_send_buffer", "64K", {"slow_consumer_grace": 0}, reads_nothing,
     (SLOW_ACTIONS, {"action": "disconnect"})),
    ("max_send_buffer", "64K", {"slow_consumer_grace": 0, "slow_consumer": "skip"},
     reads_nothing, (SLOW_ACTIONS, {"action": "skip"})),
    ("log_memory", "1M", {"max_send_buffer": "1G", "slow_consumer_grace": "1h"}, reads_nothing,
     (SLOW_ACTIONS, {"action": "disconnect"})),
    ("text_messages", "reject", {}, closes_with(1003, frame(TEXT, b"text")),
     (CLOSES, {"code": "1003"})),
]


@seconds(120)
async def test_each_limit_has_its_counter_and_its_line():
    for setting, value, more, visit, (metric, labels) in TABLE:
        free = {"max_incoming_frames_per_second": 0, "tcp_notsent_lowat": "16K"}
        with Daemon(**{**free, **more, setting: value}) as d:
            a, b = [await Client.connect(d, "/others") for _ in range(2)]
            await b.expect_chat(await a.send_chat())
            address = await asyncio.get_running_loop().run_in_executor(None, visit, d)
            await d.wait_metric(metric, lambda n: n >= 1, **labels)
            d.wait_log(rf"^(notice|info|debug): {re.escape(address)} .*\({setting} = {value}\)$")
            if setting != "heartbeat_timeout":  # they have it too, and say nothing meanwhile
                await b.expect_chat(await a.send_chat())
            await close_all(a, b)


# What the kernel holds. No counter of ours sees it: the daemon's own sockets are asked.

SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
TCP_NOTSENT_LOWAT, SIOCOUTQNSD = 25, 0x894B


def sockets_of(daemon):
    """Copies of the daemon's connected sockets on its port."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(SYS_PIDFD_OPEN, daemon.process.pid, 0)
    if pidfd < 0:
        raise Skip(f"pidfd_open: {os.strerror(ctypes.get_errno())}")
    found = []
    for number in os.listdir(f"/proc/{daemon.process.pid}/fd"):
        fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(number), 0)
        if fd < 0:
            if ctypes.get_errno() == errno.EBADF:
                continue  # closed meanwhile: an answered request for metrics
            os.close(pidfd)
            raise Skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            continue
        s = socket.socket(fileno=fd)
        try:
            if s.getsockname()[1] == daemon.port and s.getpeername():
                found.append(s)
        except (OSError, IndexError, TypeError):
            s.close()
    os.close(pidfd)
    return found


def unsent(s):
    return struct.unpack("i", fcntl.ioctl(s, SIOCOUTQNSD, bytes(4)))[0]


def test_tcp_notsent_lowat_is_what_the_kernel_holds():
    """The option is set on each socket; a reader that stops has no more than about that unsent."""
    held = {}
    for kib in (8, 256):
        with Daemon(tcp_notsent_lowat=f"{kib}K", slow_consumer_grace="1h", max_send_buffer="1G",
                    message_queue_size=100000, max_incoming_frames_per_second=0) as d:
            with RawClient(d, "/r", rcvbuf=4096) as slow, RawClient(d, "/r") as sender:
                for _ in range(1000):
                    sender.send(chat("x" * 5000))
                sender.send(frame(PING, b"through"))
                while sender.recv_frame().opcode != PONG:
                    pass
                wait_until(lambda: d.metric("websocket_queue_bytes") > 1 << 20, "a queue")
                sockets = sockets_of(d)
                assert len(sockets) == 2, sockets
                for s in sockets:
                    assert s.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == kib << 10
                held[kib] = max(unsent(s) for s in sockets)
                for s in sockets:
                    s.close()
                assert slow.id
    with Daemon(tcp_notsent_lowat="8K", echo_path="/echo") as d:
        with RawClient(d, "/echo", greeted=False), RawClient(d, "/r"):
            marks = [s.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) & 0xffffffff
                     for s in sockets_of(d)]
            assert sorted(marks) == [8 << 10, 0xffffffff], marks  # nothing of an echo is skipped
    # What one send takes is not cut, and a send has up to 64 messages. The kernel stops a little
    # below the mark when what comes next doesn't fit.
    assert held[8] <= (8 << 10) + 64 * 5100, held
    assert held[256] >= 128 << 10, held
