# SPDX-License-Identifier: MIT
"""The real program in a temporary folder of its own, on ports that the kernel chooses."""

import asyncio
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from proto import DEADLINE, SLOW, binary

READY = re.compile(r"ready: (?:ws://(?P<host>\S+):(?P<port>\d+)/)?"
                   r" ?(?:wss://(?P<tls_host>\S+):(?P<tls_port>\d+)/)?(?: ?unix:(?P<unix>\S+))?"
                   r"(?: metrics http://(?P<metrics_host>\S+):(?P<metrics_port>\d+)/)?"
                   r" workers (?P<workers>\d+)")
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:"
                       r"|assertion failed")
OF_SYSTEMD = re.compile(r"NOTIFY_SOCKET|WATCHDOG_|LISTEN_|JOURNAL_STREAM|INVOCATION_ID|"
                        r"(RUNTIME|STATE|CONFIGURATION|CREDENTIALS)_DIRECTORY")
running = []  # what a failing test shows the log of


class Answer(NamedTuple):
    """An HTTP answer."""
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def wait_until(condition, what, timeout=DEADLINE):
    """Looks until condition() is true; returns what it returned."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return result


async def until(condition, what, timeout=DEADLINE):
    """wait_until() that lets other tasks run meanwhile."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.01)
    return result


def parse_metrics(text):
    """Prometheus text as {'name{labels}': value}."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return {series: float(value) for series, value in lines}


def listen_fds(fds):
    """A prefix that gives them to the daemon as systemd would: [(name, descriptor)]."""
    moves = "".join(f"exec {i}<&{fd}; " for i, (_, fd) in enumerate(fds, 3))
    names = ":".join(name for name, _ in fds)
    take = f'{moves}export LISTEN_PID=$$ LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names}; exec "$@"'
    return ("bash", "-c", take, "bash")


def free_port():
    """For a daemon that dies and comes back on it: no client is given one of these meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10000 + secrets.randbelow(max(first, 20000) - 10000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class Shared:
    """A folder in memory, where what channels keep lies while no process has it."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="wsbind-test-", dir="/dev/shm")
        return {"RUNTIME_DIRECTORY": self.path}

    def __exit__(self, *_):
        shutil.rmtree(self.path)


class Daemon:
    """wsbind server. Settings are keys of the configuration file; None leaves a key out."""

    DEFAULTS = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, "worker_threads": 2}

    def __init__(self, *args, env=None, ready=True, prefix=(), preexec=None, fds=(),
                 program=None, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="wsbind-test-"))
        self.config = self.folder / "wsbind.conf"
        self.control_socket = self.folder / "control.sock"
        self.settings = {**self.DEFAULTS, "control_socket": self.control_socket, **settings}
        self.args = [*prefix, str(program or binary()), "server", "--config", str(self.config), *args]
        # Where the tests themselves are a service, that is not the daemon's business.
        inherited = {k: v for k, v in os.environ.items() if not OF_SYSTEMD.match(k)}
        self.env = {**inherited, **(env or {})}
        self.preexec, self.fds = preexec, fds
        self.wants_ready = ready
        self.log = []
        self.changed = threading.Condition()
        self.process = None
        self.host = self.port = self.tls_port = self.metrics_port = self.workers = None

    # Life

    def __enter__(self):
        self.write_config()
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
            if kind is None:
                running.remove(self)
                shutil.rmtree(self.folder)

    def start(self):
        running.append(self)
        since = len(self.log)
        self.process = subprocess.Popen(self.args, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        preexec_fn=self.preexec, pass_fds=self.fds)
        threading.Thread(target=self._read_log, args=(self.process.stdout,), daemon=True).start()
        if self.wants_ready:
            self._note_ready(self.wait_log(READY, since=since))

    def _note_ready(self, found):
        self.host = found["host"] or found["tls_host"]
        self.port = found["port"] and int(found["port"])
        self.tls_port = found["tls_port"] and int(found["tls_port"])
        self.metrics_port = found["metrics_port"] and int(found["metrics_port"])
        self.workers = int(found["workers"])

    def stop(self, sig=signal.SIGTERM, timeout=15 * SLOW):
        """A stop as it should be: exit status 0, nothing reported, nothing left behind."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        status = self.wait(timeout)
        assert status == 0, f"exit status {status}"
        assert not self.control_socket.exists(), "the control socket was left behind"

    def wait(self, timeout=DEADLINE):
        """Waits for the end and the last line of the log; returns the exit status."""
        status = self.process.wait(timeout)
        with self.changed:
            assert self.changed.wait_for(lambda: None in self.log, DEADLINE), "its log has no end"
        reports = [line for line in self.log if line and SANITIZER.search(line)]
        assert not reports, reports[0]
        return status

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def crash(self, sig=signal.SIGKILL):
        """It dies, and another one comes in its place. Returns where that one's log begins."""
        self.signal(sig)
        self.wait()
        with self.changed:
            self.log.remove(None)
        running.remove(self)
        since = len(self.log)
        self.start()
        return since

    def signal(self, number):
        self.process.send_signal(number)

    def suspend(self):
        """All its threads stand still until SIGCONT; what comes meanwhile they find at once."""
        self.signal(signal.SIGSTOP)

        def stand_still():
            states = [stat.read_text().rsplit(")", 1)[1].split()[0]
                      for stat in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
            return set(states) == {"T"}

        wait_until(stand_still, "it is suspended")

    def hand_over(self, timeout=DEADLINE):
        """SIGUSR2: the same process becomes another one. Returns what that said of it."""
        since = len(self.log)
        self.signal(signal.SIGUSR2)
        said = self.wait_log("took over .*", timeout, since)[0]
        self._note_ready(self.wait_log(READY, timeout, since))
        return said

    # Log

    def _read_log(self, pipe):
        with pipe:
            for line in pipe:
                with self.changed:
                    self.log.append(line.decode(errors="replace").rstrip("\n"))
                    self.changed.notify_all()
        with self.changed:
            self.log.append(None)  # the end
            self.changed.notify_all()

    def lines(self, pattern="", since=0):
        return [line for line in self.log[since:] if line and re.search(pattern, line)]

    def wait_log(self, pattern, timeout=DEADLINE, since=0):
        """Waits for a line, past or to come; returns the match. since: len(log) from where."""
        pattern = re.compile(pattern)

        def look():
            return next((m for line in self.log[since:] if line and (m := pattern.search(line))),
                        None) or (None in self.log and self.log)

        with self.changed:
            found = self.changed.wait_for(look, timeout)
        assert found, f"no line like {pattern.pattern!r} within {timeout:g} s"
        assert found is not self.log, f"it ended without a line like {pattern.pattern!r}"
        return found

    def end_of_log(self, lines=30):
        return "\n".join(line for line in self.log[-lines:] if line is not None)

    # Configuration

    def write_config(self, **changes):
        """Writes the file anew with some keys changed (None: left out); returns the daemon."""
        self.settings.update(changes)
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in self.settings.items()
                                       if value is not None))
        return self

    def reload(self, **changes):
        """Changes keys and asks for a reload over the control socket; returns the answer."""
        self.write_config(**changes)
        return self.ask("POST", "/reload")

    # HTTP

    def url(self, path="/"):
        return f"ws://{self.host}:{self.port}{path}"

    def _request(self, connection, method, path, body, headers):
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, method="GET", body=None, headers=None):
        """A request to the metrics port."""
        host = self.settings.get("metrics_host", "127.0.0.1")
        connection = http.client.HTTPConnection(host, self.metrics_port, timeout=DEADLINE)
        return self._request(connection, method, path, body, headers)

    def ask(self, method, path, body=None, headers=None):
        """A request to the control socket."""
        return self._request(UnixConnection(self.control_socket), method, path, body, headers)

    def metrics(self):
        answer = self.get("/metrics")
        assert answer.status == 200, answer
        return parse_metrics(answer.text)

    def metric(self, name, **labels):
        """The sum of a metric's series that have these labels."""
        want = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for series, value in self.metrics().items()
                   if series.split("{")[0] == name and all(w in series for w in want))

    async def wait_metric(self, name, value, timeout=DEADLINE, **labels):
        """Waits until a metric is a number, or passes a test."""
        passes = value if callable(value) else lambda v: v == value
        seen = None

        def look():
            nonlocal seen
            seen = self.metric(name, **labels)
            return passes(seen)

        try:
            await until(look, f"{name} {labels}", timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {seen}") from None

    def clients(self, page=1000):
        """What GET /clients says of everyone, all pages together, by id."""
        found, offset = {}, 0
        while offset is not None:
            answer = self.ask("GET", f"/clients?offset={offset}&limit={page}")
            assert answer.status == 200, answer
            found.update((c["id"], c) for c in answer.json["clients"])
            offset = answer.json["next"]
        return found
