# SPDX-License-Identifier: MIT
"""Memory without an owner, time that nobody saw, and who pays for it: backlog, notices, standstill,
partly received messages, files for slow readers."""

import contextlib
import os
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from common import WSBIND, field, frame, handshake, open_socket
from hostile_kit import Attackers, Client, Crowd, Ground, load_cpus
from hostile_payloads import (HEARTBEAT, MAX_FRAME, MIB, chat, data, subscribe, unsubscribe)

FLOOD = frame(chat(b"x" * 256))
SECONDS = 8
HICCUP = 0.05  # seconds; for longer, what is published meanwhile is past four times a limit


class Flood:
    """
    80 publishers with 1,000 frames a second each, and 1,500 who read as fast as it comes. They
    come first on the processor that they share with the publishers, and perhaps with a worker:
    who doesn't keep up is to be the daemon.
    """

    def __init__(self, g, path="/flood"):
        self.stack = contextlib.ExitStack()
        self.readers = Crowd(g.daemon, 1500, path, rcvbuf=1 << 16)
        if os.geteuid() == 0:
            os.setpriority(os.PRIO_PROCESS, self.readers.process.pid, -15)
        self.publishers = Crowd(g.daemon, 80, path, publishers=80, rate=1000, each=FLOOD)
        self.n = self.readers.n + self.publishers.n

    def closed(self):
        """By code, of both."""
        total = {}
        for crowd in (self.readers, self.publishers):
            for code, n in crowd.closed().items():
                total[code] = total.get(code, 0) + n
        return total

    def __enter__(self):
        self.stack.enter_context(self.readers)
        self.stack.enter_context(self.publishers)
        return self

    def __exit__(self, *_):
        self.stack.close()


def codes(closed):
    return " ".join(f"{n} x {code or 'end'}" for code, n in sorted(closed.items())) or "none"


# 5


def backlog(workers):
    """
    80 publishers at the default 1,000 frames a second, 1,500 who read, log_memory = 16M. Readers
    stop now and then for 50 ms: what waits for them then is past a limit, not past four times it.
    """
    with Ground(workers, log_memory="16M", notice_limit=0) as g:
        with Flood(g) as flood:
            g.quiet()
            published = g.daemon.metric("websocket_messages_received_total")
            with g.attack():
                flood.publishers.tell("send")
                time.sleep(10)
                for _ in range(4):
                    flood.readers.hiccup(HICCUP)
                    time.sleep(1)
                flood.publishers.tell("pause")
                published = g.daemon.metric("websocket_messages_received_total") - published
                time.sleep(3)
            closed = flood.closed()
            g.note("messages published a second", published / 15)
            g.note("deliveries a second",
                   flood.readers.report()["bytes"] / len(FLOOD) / 18)
            g.at_most(f"closed of {flood.n} that read all", sum(closed.values()), 0)
            g.note("their codes", codes(closed))
            g.expect_usual()
        return g.parts


# 6


def hand_over_under_load(workers):
    """The same load, and SIGUSR2."""
    with Ground(workers, notice_limit=0) as g:
        with Flood(g) as flood:
            g.quiet()
            with g.attack():
                flood.publishers.tell("send")
                time.sleep(4)
                before = flood.closed()
                took = g.daemon.hand_over()
                time.sleep(4)
                flood.publishers.tell("pause")
                time.sleep(2)
            closed = flood.closed()
            g.note("hand-over", took * 1000, "ms")
            g.note("closed before it", sum(before.values()))
            g.at_most(f"closed of {flood.n} that read all", sum(closed.values()), 0)
            g.note("their codes", codes(closed))
            g.expect_memory()
        return g.parts


# 7


def standstill(workers):
    """The process stands still for longer than heartbeat_timeout while 1,500 clients speak."""
    with Ground(workers, ping_interval="1s", pong_timeout="1s", heartbeat_timeout="3s",
                handshake_timeout="3s", notice_limit=0) as g:
        with Crowd(g.daemon, 1500, "/speak/#", paths=1500, publishers=1500, rate=2,
                   each=frame(field(1, HEARTBEAT))) as speakers, \
                Crowd(g.daemon, 20, "/talk", publishers=20, rate=5, each=FLOOD) as talkers:
            speakers.tell("send")
            time.sleep(0.5)
            greetings = talkers.report()["bytes"]
            talkers.tell("send")
            g.quiet()
            newcomers = [open_socket(g.daemon.port) for _ in range(50)]
            with g.attack():
                time.sleep(1)
                os.kill(g.daemon.pid, signal.SIGSTOP)
                time.sleep(2)
                for s in newcomers:
                    s.sendall(handshake("/new"))
                time.sleep(3)
                os.kill(g.daemon.pid, signal.SIGCONT)
                time.sleep(2)
                talkers.tell("pause")
                time.sleep(1)
            closed, report = speakers.closed(), talkers.report()
            g.at_most("closed of 1500 that spoke all the while", sum(closed.values()), 0)
            g.note("their codes", codes(closed))
            g.at_most("handshakes lost, of 50", sum(not answers_101(s) for s in newcomers), 0)
            # Each of 20 gets what the others sent, with the channel's name and without a mask.
            each = len(FLOOD) - 4 + len(field(16, b"talk"))
            lost = report["sent"] * 19 - (report["bytes"] - greetings) / each
            g.at_most("messages lost", round(max(lost, 0)), 0)
        return g.parts


def answers_101(s):
    try:
        return s.recv(4096).startswith(b"HTTP/1.1 101")
    except OSError:
        return False


# 8


def own_messages(workers):
    """500 clients that don't read, before and after each has published once in their channel."""
    with Ground(workers, path="/own", is_watched=False, tcp_notsent_lowat="4K", notice_limit=0,
                slow_consumer_grace="60s", message_queue_size=3000) as g:
        with Crowd(g.daemon, 500, "/own", publishers=500, rcvbuf=4096,
                   each=frame(chat(b"once"))) as crowd:
            g.begin_watch()
            crowd.tell("deaf")
            filler = Client(g.daemon, "/own")
            with Attackers(g.daemon, lambda: fill(filler, 7000)) as attackers:
                attackers.results(20)
            g.quiet()
            crowd.tell("once")
            time.sleep(1)
            with g.attack():
                time.sleep(SECONDS)
            g.note("closed of 500 that don't read", sum(crowd.closed().values()))
            # The pair's messages are all that there are.
            each = [f["cpu"] * 10 * f["seconds"] / f["messages"]
                    for f in (g.without, g.part["with"])]
            g.note("processor time of a message, before", each[0], "ms")
            g.at_most("processor time of a message", each[1], 2 * each[0], "ms")
            g.expect_usual()
        return g.parts


def fill(client, n):
    """So many messages, below what a client may send a second."""
    for _ in range(n // 50):
        client.send(50 * frame(chat(b"x" * 100)))
        time.sleep(0.06)


# 9


def notices(workers):
    """Clients that read nothing pin notices of 63 channels each, past log_memory."""
    sets = [[b"pin/%d/%02d" % (i, n) for n in range(63)] for i in range(4 * workers)]
    with Ground(workers, log_memory="16M") as g, contextlib.ExitStack() as stack:
        churners = []
        for names in sets:
            first = subscribe(names)
            churners.append(stack.enter_context(
                Crowd(g.daemon, 4, "/churn", first=first, publishers=4, rate=100,
                      each=unsubscribe(names) + subscribe(names))))
            pinner = stack.enter_context(Crowd(g.daemon, 1, "/pin", first=first, rcvbuf=4096))
            pinner.tell("deaf")
        large = frame(data(os.urandom(MIB)))
        good = stack.enter_context(Crowd(g.daemon, 20, "/large", publishers=1, rate=5, each=large))
        good.tell("send")
        time.sleep(1)
        g.quiet()
        with g.attack():
            for c in churners:
                c.tell("send")
            time.sleep(20)
        closed = good.closed()
        g.at_most("closed of 20 that read one message at a time", sum(closed.values()), 0)
        g.note("their codes", codes(closed))
        g.expect_usual()
        return g.parts


# 15


def announced(workers):
    """300 connections that announce 4 MB and send one byte, and an honest upload of 12 MB."""
    head = struct.pack(">BBQ", 0x82, 0x80 | 127, MAX_FRAME) + bytes(4) + b"\x08"
    with Ground(workers, reassembly_memory="16M") as g:
        uploader = Client(g.daemon, "/upload")
        g.quiet()
        with g.attack(), Crowd(g.daemon, 300, "/announce", first=head) as liars:
            time.sleep(1)
            code = upload(uploader)
            closed = liars.closed()
        g.note("closed of 300 that only announce", sum(closed.values()))
        g.at_most("honest uploads ended, of 1", int(code != 0), 0)
        g.note("its code", code)
        g.expect_usual()
        return g.parts


def upload(client, seconds=3):
    """A message of 12 MB at a steady pace; what it was closed with, or 0."""
    message = data(os.urandom(12 * MIB))
    size = MIB
    pieces = [message[i:i + size] for i in range(0, len(message), size)]
    try:
        for i, piece in enumerate(pieces):
            opcode = (0x80 if i == len(pieces) - 1 else 0) | (0 if i else 2)
            client.send(frame(piece, opcode))
            time.sleep(seconds / len(pieces))
        client.send(frame(b"done", 0x89))
        while (f := client.frame())[0] != 8:
            if f == (10, b"done"):
                return 0
        return int.from_bytes(f[1][:2], "big")
    except (OSError, EOFError):
        return 1006


# 18


def files(workers):
    """wsbind client --send-file of 12 MB to receivers that read 1, 3, 6 and 12 MB a second."""
    size = 12 * MIB
    with Ground(workers) as g, tempfile.NamedTemporaryFile(prefix="wsbind-bench-") as file:
        Path(file.name).write_bytes(os.urandom(size))
        with contextlib.ExitStack() as stack:
            receivers = {mb: stack.enter_context(Crowd(g.daemon, 1, "/files", speed=mb * 1e6))
                         for mb in (1, 3, 6, 12)}
            g.quiet()
            with g.attack():
                begin = time.monotonic()
                sender = subprocess.run(
                    [WSBIND, "client", "--url", f"ws://127.0.0.1:{g.daemon.port}/files",
                     "--send-file", file.name], stdin=subprocess.DEVNULL, capture_output=True,
                    text=True, timeout=120,
                    preexec_fn=lambda: os.sched_setaffinity(0, load_cpus(workers)))
                took = time.monotonic() - begin
                time.sleep(max(0, min(15, size / 1e6 + 2 - took)))
            closed = sum(sum(r.closed().values()) for r in receivers.values())
            g.note("the sender took", took, "s")
            g.note("its exit status", sender.returncode)
            for mb, r in receivers.items():
                g.at_least(f"received at {mb} MB/s", r.report()["bytes"] / MIB, 12, "MiB")
            g.at_most("receivers closed, of 4", closed, 0)
            g.expect_usual()
        return g.parts
