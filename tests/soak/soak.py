#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Hours of everything that clients do, well and badly, against the real program:

    soak.py [--time SECONDS] [--seed N] [--visitors N] [--rate N] [--in-use FILE] [--hand-overs]
            [--out FILE]

Visitors come and go at a bounded rate (visitors.py), and with them those who mean no good
(attackers.py); settings are reloaded, the process is stopped for longer than a heartbeat may take,
regular guests chat all the while and must get every message once and in order. Now and then everybody leaves: then
every gauge must be zero and every descriptor closed, and memory must not have grown from the first
half of these rests (without the very first, which warms up) to the second: with in-use.c, what
malloc has handed out; without, all that is resident. With --hand-overs the daemon becomes another
process every few seconds, and nobody may notice. Exit status 0 when all of that held.
"""

import argparse
import asyncio
import json
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from attackers import ATTACKERS, KEPT  # noqa: E402
from client import Client, Closed  # noqa: E402
from daemon import Daemon, until  # noqa: E402
from pki import Folder  # noqa: E402
from visitors import VISITORS, deflate  # noqa: E402

SETTINGS = {
    "echo_path": "/echo", "log_connections": "no", "max_frame_size": "1M", "max_message_size": "4M",
    "handshake_timeout": "2", "message_timeout": "2", "ping_interval": "1", "pong_timeout": "1",
    "heartbeat_timeout": "6", "max_send_buffer": "256K", "slow_consumer_grace": "1",
    "reassembly_memory": "16M", "log_memory": "32M", "max_connections": "2000",
    "shutdown_timeout": "5", "tls_port": "0", "spool_max_size": "64M"}
SECTIONS = "[channel kept/**]\nhistory_messages = 100\nhistory_bytes = 64K\nhistory_age = 2s\n"
# What a reload changes: any of these, all of which regular guests outlive.
CHANGES = {
    "slow_consumer": ["disconnect", "skip"], "text_messages": ["log", "relay", "reject"],
    "permessage_deflate": ["yes", "no"], "notice_limit": ["0", "5", "500"],
    "rate_limit_action": ["throttle", "close"], "enable_compression": ["yes", "no"],
    "compression_level": ["1", "6", "9"], "compression_threshold": ["0", "1K", "16K"],
    "max_message_size": ["2M", "4M"], "log_memory": ["4M", "32M"],
    "slow_consumer_grace": ["0", "1", "3"], "tcp_nodelay": ["yes", "no"], "log_level": ["info"]}
BAD_CHANGES = [{"max_frame_size": "lots"}, {"no_such_key": "1"}, {"ping_interval": "0"}]
LEFT = {"websocket_history_bytes": 512 * len(KEPT)}  # gauges at rest: places of channels
STANDSTILLS = 0.03    # of what the administrator does
STANDSTILL = 1, 8     # seconds; heartbeat_timeout is between them
REST_DEADLINE = 60  # seconds until all that is left of the visitors is gone
GROWTH = 0.05, 1 << 20  # of memory at rest: a share, and bytes beside it
GROWTH_IN_USE = 0.01, 64 << 10
NOT_COUNTS = ("process_", "wsbind_build_info", "websocket_handover_")  # gauges that are no counts


def client_hello():
    """The bytes that begin a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


class Failure(Exception):
    """Something did not hold."""


class Soak:
    """One run: what the visitors know as their town."""

    def __init__(self, daemon, options):
        self.daemon, self.options = daemon, options
        self.host, self.port = daemon.host, daemon.port
        self.random = random.Random(options.seed)
        self.bomb = deflate(bytes(16 << 20))
        self.tls_port, self.unix_socket = daemon.tls_port, daemon.settings["listen_unix"]
        self.hello = client_hello()
        self.positions = []  # that visitors were told
        self.came, self.ended = Counter(), Counter()
        self.rests, self.chats, self.reloads = [], 0, 0
        self.out = open(options.out, "w") if options.out else None
        self.is_open = True
        self.hand_overs = self.standstills = 0
        self.one_process = threading.Lock()  # held while another one takes over

    def any(self, choices):
        return self.random.choice(choices)

    # Measuring

    def figures(self):
        pid = self.daemon.process.pid
        if self.daemon.process.poll() is not None:
            raise Failure(f"the daemon ended with {self.daemon.process.returncode}")
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        return {"rss": kib["Rss"] * 1024, "pss": kib["Pss"] * 1024, **self.in_use(),
                "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
                "threads": len(list(Path(f"/proc/{pid}/task").iterdir()))}

    def in_use(self):
        """What malloc has handed out, and what it keeps beside that."""
        if not self.options.in_use:
            return {}
        with self.one_process, socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.daemon.folder / "in-use"))
            allocated, kept = s.makefile().readline().split()
        return {"allocated": int(allocated), "free": int(kept)}

    def gauges(self):
        """Those that count what is there now."""
        with self.one_process:
            text = self.daemon.get("/metrics").text
        names = {line.split()[2] for line in text.splitlines()
                 if line.startswith("# TYPE ") and line.endswith(" gauge")}
        series = (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("#", ""))
        return {name: float(value) for name, value in series
                if name.split("{")[0] in names and not name.startswith(NOT_COUNTS)}

    def note(self, kind, **figures):
        line = {"at": round(time.monotonic() - self.begun, 1), "kind": kind, **figures}
        print(json.dumps(line), flush=True)
        if self.out:
            print(json.dumps(line), file=self.out, flush=True)

    # Those who come and go

    async def visit(self, visitor):
        self.came[visitor.__name__] += 1
        try:
            await asyncio.wait_for(visitor(self), 30)
            how = "as it wished"
        except asyncio.TimeoutError:
            how = "after 30 seconds"
        except (OSError, EOFError, Closed, asyncio.IncompleteReadError,
                asyncio.LimitOverrunError, Exception) as e:  # whatever the daemon did to it
            how = type(e).__name__
        self.ended[how] += 1

    async def crowd(self, seconds):
        """Visitors at the given rate, at most so many at a time."""
        weights, visitors = zip(*VISITORS, *ATTACKERS)
        inside, end = set(), time.monotonic() + seconds
        while time.monotonic() < end:
            if len(inside) < self.options.visitors:
                visitor = self.random.choices(visitors, weights)[0]
                task = asyncio.create_task(self.visit(visitor))
                inside.add(task)
                task.add_done_callback(inside.discard)
            await asyncio.sleep(self.random.expovariate(self.options.rate))
        if inside:
            await asyncio.wait(inside)

    # Those who stay

    async def regulars(self):
        """Four of them, each reading what the others say: everything, once, in order."""
        talk = [await Client.connect(self.daemon, "/regulars", compression=c, ping_interval=2)
                for c in (None, "deflate", None, "deflate")]
        try:
            for n in range(1 << 30):
                if not self.is_open:
                    break
                sender = talk[n % len(talk)]
                text = f"{n} " + "chat " * self.random.randrange(400)
                await sender.send_chat(text)
                for c in talk:
                    if c is not sender:
                        await c.expect_chat(text)
                self.chats += 1
                await asyncio.sleep(0.05)
        finally:
            await asyncio.gather(*(c.close() for c in talk))

    async def busy_channel(self):
        """Two who fill a channel that others can't follow."""
        async with await Client.connect(self.daemon, "/busy") as a, \
                await Client.connect(self.daemon, "/busy") as b:
            reader = asyncio.create_task(self.read_all(b))
            while self.is_open:
                try:
                    await a.send_chat("busy " * self.random.randrange(1000))
                    await asyncio.sleep(0.01)
                except Closed:
                    break  # a reload made the limits tight for it, too
            reader.cancel()

    @staticmethod
    async def read_all(client):
        try:
            while True:
                await client.recv_raw(3600)
        except Closed:
            pass

    # The administrator

    async def administrator(self):
        """Reloads, good and bad, by both ways; looks at clients; publishes; throws some out;
        lets another process go on."""
        while self.is_open:
            await asyncio.sleep(self.random.uniform(0.5, 3))
            await asyncio.get_running_loop().run_in_executor(None, self.one_order)

    def one_order(self):
        d, what = self.daemon, self.random.randrange(6)
        if self.random.random() < STANDSTILLS:
            with self.one_process:
                d.signal(signal.SIGSTOP)
                time.sleep(self.random.uniform(*STANDSTILL))
                d.signal(signal.SIGCONT)
            self.standstills += 1
        elif self.options.hand_overs and self.random.randrange(2):
            with self.one_process:
                d.hand_over()
            self.hand_overs += 1
        elif what == 0:
            key = self.any(list(CHANGES))
            self.expect(d.reload(**{key: self.any(CHANGES[key])}).status, 200)
            self.reloads += 1
        elif what == 1:
            d.signal(signal.SIGHUP)
        elif what == 2:
            bad = self.any(BAD_CHANGES)
            kept = {key: d.settings.get(key) for key in bad}
            self.expect(d.reload(**bad).status, 422)
            d.write_config(**kept)
        elif what == 3:
            clients = d.clients()
            others = [i for i, c in clients.items() if "regulars" not in c["channels"]]
            if others:
                d.ask("POST", f"/disconnect?id={self.any(others)}")
        else:
            channel = quote(self.any(["", "a", "b", "busy"]))
            d.ask("POST", f"/publish?channel={channel}", "from the administrator " * 50,
                  {"Content-Type": "text/plain"})

    @staticmethod
    def expect(got, wanted):
        if got != wanted:
            raise Failure(f"the control socket answered {got} instead of {wanted}")

    # Rests

    async def rest(self):
        """Everybody is gone: nothing may be left but memory that is flat."""
        deadline = time.monotonic() + REST_DEADLINE
        while left := {name: value for name, value in self.gauges().items()
                       if value > LEFT.get(name, 0)}:
            if time.monotonic() > deadline:
                raise Failure(f"not zero after everybody left: {left}")
            await asyncio.sleep(0.2)
        try:
            await until(lambda: self.figures()["descriptors"] == self.before["descriptors"],
                        "the descriptors of before", REST_DEADLINE)
        except AssertionError as e:
            raise Failure(f"{self.figures()['descriptors']} descriptors, "
                          f"{self.before['descriptors']} before the first client") from e
        await asyncio.sleep(5)  # idle workers give memory back once a second
        self.rests.append(self.figures())
        self.note("rest", **self.rests[-1])

    def judge_memory(self):
        """
        What leaks is there at every rest: so the lowest of the first half is compared with the
        lowest of the second. What is resident swings with how scattered the little is that stays.
        """
        if len(self.rests) < 3:
            raise Failure("too short for three rests")
        kind, growth = ("allocated", GROWTH_IN_USE) if self.options.in_use else ("rss", GROWTH)
        rests = [r[kind] for r in self.rests[1:]]
        half = len(rests) // 2
        first, last = min(rests[:half]), min(rests[half:])
        if last > first * (1 + growth[0]) + growth[1]:
            raise Failure(f"memory at rest ({kind}) grew from {first} to {last} bytes: {rests}")

    # All of it

    async def shift(self, seconds):
        """One stretch between two rests."""
        self.is_open = True
        stay = [asyncio.create_task(f()) for f in (self.regulars, self.busy_channel,
                                                   self.administrator)]
        crowd = asyncio.create_task(self.crowd(seconds))
        try:
            while not crowd.done():
                done, _ = await asyncio.wait([crowd, *stay], timeout=30,
                                             return_when=asyncio.FIRST_COMPLETED)
                for task in done - {crowd}:
                    task.result()
                    stay.remove(task)
                self.note("open", **self.figures(), visits=sum(self.came.values()),
                          connections=self.gauges().get("websocket_active_connections"))
        finally:
            self.is_open = False
            await asyncio.wait([crowd])
            await asyncio.gather(*stay)

    async def run(self):
        self.begun = time.monotonic()
        self.daemon.metrics()
        await asyncio.sleep(2)  # what answered that is closed by then
        self.before = self.figures()
        self.note("before", **self.before)
        shifts = max(3, min(12, int(self.options.time // 60)))
        for _ in range(shifts):
            await self.shift(self.options.time / shifts)
            await self.rest()
        self.judge_memory()
        self.note("after", **self.figures(), visits=dict(self.came), endings=dict(self.ended),
                  chats=self.chats, reloads=self.reloads, hand_overs=self.hand_overs,
                  standstills=self.standstills)


def main():
    parser = argparse.ArgumentParser(description="Hours of everything that clients do.")
    parser.add_argument("--time", type=float, default=3600, help="seconds, without the rests")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--visitors", type=int, default=100, help="at a time")
    parser.add_argument("--rate", type=float, default=40, help="visitors a second")
    parser.add_argument("--in-use", metavar="FILE", help="in-use.c as a library")
    parser.add_argument("--hand-overs", action="store_true", help="many of them")
    parser.add_argument("--out", help="file for the lines of figures")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        daemon = Daemon(**SETTINGS)
        drop_ins = daemon.folder / "wsbind.conf.d"
        drop_ins.mkdir()
        (drop_ins / "sections.conf").write_text(SECTIONS)
        if options.in_use:
            daemon.env.update(LD_PRELOAD=str(Path(options.in_use).resolve()),
                              IN_USE_SOCKET=str(daemon.folder / "in-use"))
        spool = daemon.folder / "spool"
        spool.mkdir()
        with Folder() as pki:
            certificate, key = pki.certificate("localhost")
            daemon.settings.update(spool_dir=spool, listen_unix=daemon.folder / "ws.sock",
                                   tls_certificate=certificate, tls_key=key)
            with daemon:
                asyncio.run(Soak(daemon, options).run())
    except (Failure, AssertionError) as e:
        sys.exit(f"soak: {e} (seed {options.seed})")
    print("soak: all of it held")


if __name__ == "__main__":
    main()
