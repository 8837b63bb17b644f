# SPDX-License-Identifier: MIT
"""
What the rows of hostile.py are made of: a daemon that is attacked, clients that behave and measure
from outside how they fare, crowds and attackers in processes of their own, and what must hold.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import READY_SECONDS, WSBIND, Daemon, fail, frame, handshake, open_socket
from hostile_payloads import chat
from peers import BUILD, memory

READY = re.compile(r"ready: (?:ws://\S+:(?P<port>\d+)/)? ?(?:wss://\S+:(?P<tls_port>\d+)/)?"
                   r"(?: ?unix:(?P<unix>\S+))?(?: metrics http://\S+:(?P<metrics_port>\d+)/)?"
                   r" workers \d+, at most (?P<promise>\d+) MiB")
# LISTEN_PID has to be the number of the process that will be the daemon.
ACTIVATE = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
            "os.execv(sys.argv[2], sys.argv[2:])")
PAIR_SECONDS = 0.005        # between messages of the good pair
PING_SECONDS = 0.002        # between pings of a worker
SIGN_SECONDS = 0.5          # between signs of life of who only reads
PAIR_WAITING_MAX = 900      # below what a client may send in a second
MARK = re.compile(rb"t=([0-9a-f]{16})")
PONG = re.compile(rb"\x8a\x04(....)", re.DOTALL)
CLOSE_CODES = re.compile(r'websocket_closes_total\{code="(\w+)"\}')
BUCKET = re.compile(r'websocket_loop_turn_seconds_bucket\{.*?le="([^"]+)"')

TURN_MS = 10                # no input may keep a loop longer
SHARE_MS = 5                # of an attacker, in a message's way: a turn to come in, one to go out
TIMES = 2                   # what the p99 of a good pair may grow by beside that
MEMORY_TIMES = 1.2          # what is used, beside what the ready line says

fork = multiprocessing.get_context("fork")


def server_cpus(workers):
    """One for each worker, but one less than there are: who reads is not to be late by our doing."""
    cpus = sorted(os.sched_getaffinity(0))
    return set(cpus[:max(1, min(workers, len(cpus) - 1))])


def load_cpus(workers):
    """Those that the server has not, where there are any."""
    return set(os.sched_getaffinity(0)) - server_cpus(workers) or server_cpus(workers)


# ----------------------------------------------------------------------------- the daemon


class UnixHttp(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Victim(Daemon):
    """The daemon with its defaults, on processors of its own where there are enough."""

    def __init__(self, workers, activation=None, **settings):
        super().__init__(**{"worker_threads": workers, "max_connections": 19000,
                            "ping_interval": "1h", "heartbeat_timeout": "24h", **settings})
        self.workers, self.activation = workers, activation

    def _spawn(self, out):
        command, fds = self._command(), ()
        if self.activation:
            fds = (self.activation.fileno(),)
            command = [sys.executable, "-c", ACTIVATE, str(fds[0]), *command]
        cpus = server_cpus(self.workers)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                pass_fds=fds, preexec_fn=lambda: os.sched_setaffinity(0, cpus),
                                env={**os.environ, "RUNTIME_DIRECTORY": str(self.folder),
                                     "STATE_DIRECTORY": str(self.folder)})

    def _find_ports(self, times=1):
        end = time.monotonic() + READY_SECONDS
        while len(found := list(READY.finditer(text := self.log.read_text()))) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                fail(f"the daemon does not start:\n{text}")
            time.sleep(0.02)
        port = {name: int(found[-1][name] or 0) for name in ("port", "tls_port", "metrics_port")}
        self.port, self.tls_port = port["port"], port["tls_port"]
        self.metrics_port = port["metrics_port"]
        self.promise = int(found[-1]["promise"]) << 20
        self.pid = self.process.pid

    def __exit__(self, *_):
        # One that is held up would take its time to stop, which is not what is measured here.
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        super().__exit__()

    def hand_over(self):
        """The same process becomes another one; returns the seconds that this took."""
        times = len(READY.findall(self.log.read_text()))
        begin = time.monotonic()
        self.process.send_signal(signal.SIGUSR2)
        self._find_ports(times + 1)
        return time.monotonic() - begin

    def ask(self, path, timeout=10):
        """GET on the control socket: status and body."""
        with contextlib.closing(UnixHttp(self.folder / "control.sock", timeout)) as c:
            c.request("GET", path)
            answer = c.getresponse()
            return answer.status, answer.read()

    def metrics(self):
        lines = self.ask("/metrics")[1].decode().splitlines()
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}

    def metric(self, name):
        return sum(v for series, v in self.metrics().items() if series.split("{")[0] == name)

    def cpu(self):
        """Processor seconds so far, by the clock of the process (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def is_running(self):
        """Whether a thread of it has a processor or waits for one."""
        return any(stat.read_text().rsplit(")", 1)[1].split()[0] == "R"
                   for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def forget_peak(self):
        """The peak of its memory counts from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def by_worker(self):
        """Connections of each."""
        m = self.metrics()
        return [int(m[f'websocket_worker_connections{{worker="{i}"}}'])
                for i in range(self.workers)]


def has_key(key):
    """Whether the configuration of the program knows a key."""
    dump = subprocess.run([WSBIND, "check-config", "/dev/null", "--dump"], capture_output=True,
                          text=True).stdout
    return re.search(rf"^{key}\s", dump, re.MULTILINE) is not None


# --------------------------------------------------------------------------- good clients


class Client:
    """A connection on a plain socket that blocks."""

    def __init__(self, daemon, path="/", source=None, rcvbuf=None, headers=b"", to=None,
                 timeout=60):
        if to:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(to))
        elif source:
            self.socket = socket.create_connection(("127.0.0.1", daemon.port),
                                                   source_address=(source, 0))
        else:
            self.socket = open_socket(daemon.port, rcvbuf)
        self.socket.settimeout(timeout)
        self.socket.sendall(handshake(path)[:-2] + headers + b"\r\n")
        self.status, self.rest = self._answer()

    def _answer(self):
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(4096)
            if not more:
                return 0, b""
            head += more
        head, rest = head.split(b"\r\n\r\n", 1)
        return int(head.split()[1]), rest

    def send(self, *pieces):
        self.socket.sendall(b"".join(pieces))

    def recv(self, n=1 << 18):
        """Some bytes; none at the end."""
        if self.rest:
            rest, self.rest = self.rest, b""
            return rest
        try:
            return self.socket.recv(n)
        except ConnectionResetError:
            return b""

    def _take(self, n):
        while len(self.rest) < n:
            more = self.socket.recv(1 << 18)
            if not more:
                raise EOFError
            self.rest += more
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken

    def frame(self):
        """The next one: opcode and payload."""
        first, n = self._take(2)
        if n > 125:
            n = int.from_bytes(self._take(2 if n == 126 else 8), "big")
        return first & 15, self._take(n)

    def close(self):
        self.socket.close()


def close_code(tail):
    """Of the Close frame that ends these bytes; 0 where none does."""
    for at in range(max(0, len(tail) - 127), len(tail) - 3):
        if tail[at] == 0x88 and at + 2 + tail[at + 1] == len(tail):
            return int.from_bytes(tail[at + 2:at + 4], "big")
    return 0


def spread(daemon, paths, headers):
    """For each worker a client of each kind: a list of dicts like the one of paths."""
    found = [{} for _ in range(daemon.workers)]
    for kind, path in paths.items():
        others = []
        before = daemon.by_worker()
        while any(kind not in clients for clients in found):
            c = Client(daemon, path, headers=headers)
            now = daemon.by_worker()
            worker = next(i for i in range(daemon.workers) if now[i] > before[i])
            if kind in found[worker]:
                others.append(c)
            else:
                found[worker][kind] = c
            before = now
        for c in others:
            c.close()
        while sum(daemon.by_worker()) > sum(before) - len(others):
            time.sleep(0.01)
    return found


def thread_seconds(pid, tid):
    """Processor seconds of a thread so far; 0 when there is no such thread any more."""
    try:
        return int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Pair:
    """Who publishes and who reads: how long each message takes, from when it was to be sent."""

    def __init__(self, publisher, reader):
        self.publisher, self.reader = publisher, reader
        self.tail = b""
        self.code = None   # that the reader was closed with
        self.reset()

    def reset(self):
        self.waiting, self.latencies, self.left_out = set(), [], 0
        self.next = self.next_sign = time.monotonic()

    def send_due(self, now):
        if now >= self.next_sign and self.code is None:
            # A pong that nobody asked for is a sign of life, too.
            with contextlib.suppress(OSError):
                self.reader.send(frame(b"", 0x8a))
            self.next_sign = now + SIGN_SECONDS
        while self.next <= now:
            if len(self.waiting) < PAIR_WAITING_MAX and self.code is None:
                stamp = int(self.next * 1e9)
                self.waiting.add(stamp)
                try:
                    self.publisher.send(frame(chat(b"t=%016x" % stamp)))
                except OSError:
                    self.code = self.code or 0
            else:
                self.left_out += 1
            self.next += PAIR_SECONDS

    def read(self):
        got = self.reader.recv()
        now = time.monotonic()
        if not got:
            self.code = close_code(self.tail)
            return False
        self.tail += got
        end = 0
        for m in MARK.finditer(self.tail):
            stamp, end = int(m[1], 16), m.end()
            if stamp in self.waiting:
                self.waiting.remove(stamp)
                self.latencies.append(now - stamp / 1e9)
        self.tail = self.tail[max(end, len(self.tail) - 140):]
        return True

    def figures(self):
        now = time.monotonic()
        took = sorted(self.latencies + [now - s / 1e9 for s in self.waiting])
        return {"p50": took[len(took) // 2] * 1000 if took else 0,
                "p99": took[int(len(took) * 0.99)] * 1000 if took else 0,
                "max": took[-1] * 1000 if took else 0, "messages": len(took),
                "unanswered": len(self.waiting), "left_out": self.left_out, "code": self.code}


class Pinger:
    """Pings a worker all the while, one ping at a time: nobody waits longer than for a turn."""

    def __init__(self, client, pid, tid):
        self.client, self.pid, self.tid = client, pid, tid
        self.number = 0
        self.reset()

    def reset(self):
        self.pauses = []
        self.is_waiting = False
        self.next = time.monotonic()

    def send_due(self, now):
        if self.is_waiting or now < self.next:
            return
        self.number += 1
        self.is_waiting, self.sent_at = True, time.monotonic()
        self.cpu_at = thread_seconds(self.pid, self.tid)
        try:
            self.client.send(frame(struct.pack(">I", self.number), 0x89))
        except OSError:
            pass

    def read(self):
        got = self.client.recv()
        if not got:
            return False
        if any(struct.unpack(">I", m[1])[0] == self.number for m in PONG.finditer(got)):
            self._note()
            self.is_waiting = False
            self.next = time.monotonic() + PING_SECONDS
        return True

    def _note(self):
        took = time.monotonic() - self.sent_at
        # Of which the thread worked so long: other processes may have had its processor.
        worked = thread_seconds(self.pid, self.tid) - self.cpu_at
        self.pauses.append((took, min(took, max(worked, 0))))

    def figures(self):
        if self.is_waiting:
            self._note()
        return {"pause": max((p[0] for p in self.pauses), default=0) * 1000,
                "turn": max((p[1] for p in self.pauses), default=0) * 1000}


def watch(pair, pingers, pipe, cpus):
    """The process that measures, from a message of the pipe to the next."""
    os.sched_setaffinity(0, cpus)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    while True:
        pipe.recv()
        measure(pair, pingers, pipe)
        pipe.send((pair.figures(), [p.figures() for p in pingers]))


def measure(pair, pingers, pipe):
    readers = {pipe.fileno(): None, pair.reader.socket.fileno(): pair}
    readers.update((p.client.socket.fileno(), p) for p in pingers)
    poll = select.poll()
    for fd in readers:
        poll.register(fd, select.POLLIN)
    for p in (pair, *pingers):
        p.reset()
    while True:
        now = time.monotonic()
        for p in (pair, *pingers):
            p.send_due(now)
        for fd, _ in poll.poll(1):
            if readers[fd] is None:
                pipe.recv()
                return
            if not readers[fd].read():
                poll.unregister(fd)


class Watch:
    """A good pair and pings of every worker, in a process of their own."""

    def __init__(self, daemon, path, headers):
        clients = spread(daemon, {"publisher": path, "reader": path, "pings": "/watch"}, headers)
        self.clients = [c for kinds in clients for c in kinds.values()]
        # With several workers who reads is on another one.
        pair = Pair(clients[0]["publisher"], clients[-1]["reader"])
        names = {(t / "comm").read_text().strip(): t.name
                 for t in Path(f"/proc/{daemon.pid}/task").iterdir()}
        pingers = [Pinger(c["pings"], daemon.pid, names[f"worker {i}"])
                   for i, c in enumerate(clients)]
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=watch, daemon=True,
                                    args=(pair, pingers, theirs, load_cpus(daemon.workers)))
        self.process.start()

    def begin(self):
        self.pipe.send("begin")

    def end(self):
        """What was measured since."""
        self.pipe.send("end")
        figures, pingers = self.pipe.recv()
        figures["pause"] = max(p["pause"] for p in pingers)
        figures["turn"] = max(p["turn"] for p in pingers)
        return figures

    def stop(self):
        self.process.terminate()
        self.process.join()
        for c in self.clients:
            c.close()


# ------------------------------------------------------------------------------ attackers


class Crowd:
    """crowd.c: many clients that read fast, or not at all, and send what they are given."""

    def __init__(self, daemon, n, path, first=b"", each=b"", **options):
        self.folder = tempfile.TemporaryDirectory(prefix="wsbind-bench-")
        for name, payload in (("first", first), ("each", each)):
            if payload:
                options[name] = Path(self.folder.name) / name
                options[name].write_bytes(payload)
        command = [str(BUILD / "bench/crowd"), str(daemon.port), str(n), path]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        cpus = load_cpus(daemon.workers)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        self.n = int(self._line().split()[1])

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            fail(f"{' '.join(self.process.args)} ended")
        return line

    def tell(self, *orders):
        for order in orders:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()

    def report(self):
        self.tell("report")
        return json.loads(self._line())

    def hiccup(self, seconds):
        """The process stops, and all clients with it."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def closed(self):
        """How many ended, by code; 0: without one."""
        return {int(code): n for code, n in self.report()["codes"].items()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.tell("end")
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.folder.cleanup()


class Attackers:
    """Functions that run in processes of their own until they are told to end."""

    def __init__(self, daemon, *functions):
        self.cpus = load_cpus(daemon.workers)
        self.pipe, self.theirs = fork.Pipe()
        self.processes = [fork.Process(target=self._run, args=(f,), daemon=True)
                          for f in functions]

    def _run(self, function):
        os.sched_setaffinity(0, self.cpus)
        with contextlib.suppress(ConnectionError, BrokenPipeError, TimeoutError):
            self.theirs.send(function())

    def __enter__(self):
        for p in self.processes:
            p.start()
        return self

    def results(self, timeout):
        """What those returned that ended in time."""
        end, found = time.monotonic() + timeout, []
        while len(found) < len(self.processes) and self.pipe.poll(max(0, end - time.monotonic())):
            found.append(self.pipe.recv())
        return found

    def __exit__(self, *_):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.join()


# ------------------------------------------------------------------------------- a ground


class Ground:
    """
    One daemon, watched: without an attack first, then with one or more of them, each of which
    makes a part of the report with what must hold.
    """

    def __init__(self, workers, path="/good", headers=b"", is_watched=True, **settings):
        self.daemon = Victim(workers, **settings)
        self.workers, self.path, self.headers, self.is_watched = workers, path, headers, is_watched
        self.watch, self.without, self.parts = None, {}, []

    def __enter__(self):
        self.daemon.__enter__()
        try:
            if self.is_watched:
                self.begin_watch()
        except BaseException:
            self.daemon.__exit__()
            raise
        return self

    def begin_watch(self):
        """The good pair comes in; who came before it is served before it."""
        self.watch = Watch(self.daemon, self.path, self.headers)

    def __exit__(self, *_):
        if self.watch:
            self.watch.stop()
        self.daemon.__exit__()

    @contextlib.contextmanager
    def _measuring(self, figures):
        d = self.daemon
        d.forget_peak()
        before, cpu, begin = d.metrics(), d.cpu(), time.monotonic()
        if self.watch:
            self.watch.begin()
        yield
        if self.watch:
            figures.update(self.watch.end())
        figures["seconds"] = time.monotonic() - begin
        figures["cpu"] = (d.cpu() - cpu) / figures["seconds"] * 100
        figures["rss"], figures["peak"] = memory(d.pid)
        note_metrics(figures, before, d.metrics())

    def quiet(self, seconds=3):
        """Measures without an attack."""
        with self.beside():
            time.sleep(seconds)

    def beside(self):
        """Measures what is inside as what there is without an attack."""
        return self._measuring(self.without)

    @contextlib.contextmanager
    def attack(self, name=""):
        """Measures what is inside as a part of its own."""
        self.part = {"name": name, "without": self.without, "with": {}, "checks": [],
                     "promise": self.daemon.promise}
        self.parts.append(self.part)
        with self._measuring(self.part["with"]):
            yield

    # What must hold, of the last attack

    def _check(self, name, value, unit, **more):
        self.part["checks"].append({"name": name, "value": value, "unit": unit, **more})

    def at_most(self, name, value, bound, unit=""):
        self._check(name, value, unit, bound=bound, sign="<=", is_ok=value <= bound)

    def at_least(self, name, value, bound, unit=""):
        self._check(name, value, unit, bound=bound, sign=">=", is_ok=value >= bound)

    def note(self, name, value, unit=""):
        self._check(name, value, unit, is_ok=None)

    def expect_latency(self):
        bound = TIMES * self.without["p99"] + SHARE_MS
        self.at_most("p99 of a good pair", self.part["with"]["p99"], bound, "ms")

    def expect_turn(self):
        figures = self.part["with"]
        # The daemon counts its turns by the wall. Where no ping waited for so much work of the
        # thread, a turn that took longer had its processor taken away by somebody else.
        if "turns_over" in figures:
            over = figures["turns_over"] if figures["turn"] > TURN_MS else 0
            self.at_most(f"turns with over {TURN_MS} ms of work", over, 0)
            self.note("turns that took longer by the wall", figures["turns_over"])
            self.note("longest turn's bucket", figures["longest_bucket"], "ms")
        else:
            self.at_most("longest turn", figures["turn"], TURN_MS, "ms")

    def expect_memory(self):
        self.at_most("peak of memory", self.part["with"]["peak"] / 2**20,
                     MEMORY_TIMES * self.daemon.promise / 2**20, "MiB")

    def expect_usual(self):
        self.expect_latency()
        self.expect_turn()
        self.expect_memory()


def note_metrics(figures, before, after):
    """Of what the daemon says itself: closes by code, and turns where it counts them."""
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    figures["closes"] = {m[1]: int(n) for name, n in grown.items()
                         if n > 0 and (m := CLOSE_CODES.match(name))}
    turns = {}
    for name, n in grown.items():
        if m := BUCKET.match(name):
            turns[float(m[1])] = turns.get(float(m[1]), 0) + n
    if turns:
        most = max(turns.values())
        figures["turns_over"] = int(most - turns.get(TURN_MS / 1000, 0))
        figures["longest_bucket"] = min(le for le, n in turns.items() if n == most) * 1000
