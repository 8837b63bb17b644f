# SPDX-License-Identifier: MIT
"""Servers to compare with, each brought up on a port of the kernel's choice and taken down again."""

import os
import subprocess
import time
from pathlib import Path

from common import READY_SECONDS, ROOT, Daemon, fail

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


class Running:
    """A server of its own for one measurement."""

    def __init__(self, server, cpus):
        self.server, self.cpus = server, cpus

    def __enter__(self):
        return self.server.start(self.cpus)

    def __exit__(self, *_):
        self.server.stop()


def settle(pid, quiet=0.2):
    """Waits until a process has nothing to do."""
    end, before = time.monotonic() + READY_SECONDS, cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(quiet)
        now = cpu_seconds(pid)
        if now - before < 0.02:
            return
        before = now
