# SPDX-License-Identifier: MIT
"""Servers to compare with, each brought up on a port of the kernel's choice and taken down again."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import READY_SECONDS, ROOT, WSBIND, Daemon, fail

BUILD = Path(os.environ.get("BUILD", ROOT / "build/release"))
TICKS = os.sysconf("SC_CLK_TCK")


def pin(cpus):
    """For preexec_fn: only these processors."""
    return lambda: os.sched_setaffinity(0, cpus)


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Program:
    """A server that prints "port N" when it listens."""

    def __init__(self, *command, env=None):
        self.command, self.env = [str(c) for c in command], env

    def start(self, cpus):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, preexec_fn=pin(cpus),
                                        env={**os.environ, **(self.env or {})})
        line = self.process.stdout.readline().decode()
        if not line.startswith("port "):
            fail(f"{self.command}: {line!r}")
        self.port, self.pid = int(line.split()[1]), self.process.pid
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Wsbind:
    """The daemon with its defaults, but for a limit of frames and what a benchmark may open."""

    def __init__(self, **settings):
        self.settings = {"worker_threads": 1, "max_incoming_frames_per_second": 0,
                         "notice_limit": 0, "max_connections": 19000, **settings}

    def start(self, cpus):
        self.daemon = Daemon(**self.settings)
        self.daemon.__enter__()
        self.port, self.pid = self.daemon.port, self.daemon.process.pid
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)
        return self

    def stop(self):
        self.daemon.__exit__()


def fanout_servers():
    """By name. The second is what all are measured by."""
    return {
        "floor each": lambda: Program(BUILD / "floor", "each"),
        "floor batched": lambda: Program(BUILD / "floor", "batched"),
        "wsbind": Wsbind,
        "node ws": lambda: Program("node", ROOT / "bench/servers/node-ws.js",
                                   env={"NODE_PATH": "/usr/share/nodejs"}),
    }


def echo_servers():
    """The same for echo."""
    return {
        "floor echo": lambda: Program(BUILD / "floor", "echo"),
        "wsbind": lambda: Wsbind(echo_path="/echo"),
        "node ws": lambda: Program("node", ROOT / "bench/servers/node-ws.js",
                                   env={"NODE_PATH": "/usr/share/nodejs"}),
    }


class Running:
    """A server of its own for one measurement."""

    def __init__(self, server, cpus):
        self.server, self.cpus = server, cpus

    def __enter__(self):
        return self.server.start(self.cpus)

    def __exit__(self, *_):
        self.server.stop()


SERVER_CPU, LOAD_CPU = {0}, {1}


def benchmark(server, path, *options):
    """
    One run of `wsbind benchmark` against a server of its own: the server's processor time, and
    the report; None and why not, where something was lost.
    """
    with Running(server, SERVER_CPU) as s:
        before = cpu_seconds(s.pid)
        done = subprocess.run([WSBIND, "benchmark", "-u", f"ws://127.0.0.1:{s.port}{path}",
                               "--json", *[str(o) for o in options]], stdin=subprocess.DEVNULL,
                              capture_output=True, preexec_fn=pin(LOAD_CPU))
        settle(s.pid)
        used = cpu_seconds(s.pid) - before
    report = json.loads(done.stdout or "{}")
    if done.returncode or report.get("lost") or not report.get("delivered"):
        return None, (done.stderr.decode().strip().splitlines() or [report])[-1]
    return used, report


def compare(names, servers, rounds, measure):
    """
    Rounds in which each server has a turn: measure(server) gives what is compared and the report.
    Returns the figures by name, and p99 [ms].
    """
    figures, p99 = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            figure, report = measure(servers[name]())
            if figure is None:
                print(f"# {name}: {report}", file=sys.stderr)
                continue
            figures[name].append(figure)
            p99[name].append(report["latency_ms"]["p99"])
    return figures, p99


def print_head(label, names):
    print(f"{label}  " + "  ".join(f"{name:>22}" for name in names))


def print_row(label, names, figures, yardstick, unit):
    """Medians, and what they are beside the yardstick's."""
    middle = {n: statistics.median(v) for n, v in figures.items() if v}
    texts = []
    for name in names:
        text = "-"
        if name in middle:
            text = f"{middle[name]:6.2f} {unit}"
            if middle.get(yardstick):
                text += f"  {middle[name] / middle[yardstick]:5.2f} x"
        texts.append(f"{text:>22}")
    print(f"{label}  " + "  ".join(texts), flush=True)


def settle(pid, quiet=0.2):
    """Waits until a process has nothing to do."""
    end, before = time.monotonic() + READY_SECONDS, cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(quiet)
        now = cpu_seconds(pid)
        if now - before < 0.02:
            return
        before = now
