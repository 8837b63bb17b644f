# SPDX-License-Identifier: MIT
"""Servers to compare with, each brought up on a port of its own and taken down again, and how
they are measured: one after the other, by `wsbind benchmark`, on processors of their own."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import READY_SECONDS, ROOT, WSBIND, Daemon, fail

BUILD = Path(os.environ.get("BUILD", ROOT / "build/release"))
SERVER_CPUS, LOAD_CPUS = {0}, {1}
MAX_CONNECTIONS = 19500


def pin(cpus):
    """For preexec_fn: only these processors."""
    return lambda: os.sched_setaffinity(0, cpus)


def free_port():
    """One that nobody has now: for servers that can't be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def memory(pid):
    """Resident bytes now, and the most that there ever were."""
    fields = dict(line.split(":", 1)
                  for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


class Program:
    """A server that prints "port N" when it listens."""

    load = [WSBIND, "benchmark"]  # the client that speaks as it wants

    def __init__(self, *command, env=None):
        self.command, self.env = [str(c) for c in command], env

    def url(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    def spawn(self, cpus, stdout, stderr=None):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=stdout,
                                        stderr=stderr, preexec_fn=pin(cpus),
                                        env={**os.environ, **(self.env or {})})
        self.pid = self.process.pid

    def start(self, cpus):
        self.spawn(cpus, subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        if not line.startswith("port "):
            fail(f"{self.command}: {line!r}")
        self.port = int(line.split()[1])
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Configured(Program):
    """A server that reads its port from a configuration file, and has a folder while it runs."""

    def start(self, cpus):
        self.folder = Path(tempfile.mkdtemp(prefix="wsbind-bench-"))
        self.port = free_port()
        self.file = self.folder / "conf"
        self.file.write_text(self.configuration())
        self.command = self.command_line()
        with (self.folder / "log").open("w") as log:
            self.spawn(cpus, log, log)
        end = time.monotonic() + READY_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                fail(f"{self.command} does not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return self

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)


class Nchan(Configured):
    """nginx with nchan's memory store, which sends to everybody what a member of a channel says."""

    def __init__(self):
        super().__init__()

    def configuration(self):
        paths = "\n".join(f"{kind}_temp_path {self.folder}/{kind};"
                          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""
            load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
            user root;
            daemon off;
            worker_processes 1;
            worker_rlimit_nofile {MAX_CONNECTIONS + 200};
            pid {self.folder}/pid;
            error_log {self.folder}/log;
            events {{ worker_connections {MAX_CONNECTIONS + 100}; }}
            http {{
                {paths}
                access_log off;
                nchan_shared_memory_size 512M;
                server {{
                    listen 127.0.0.1:{self.port} backlog=4096;
                    location / {{
                        nchan_pubsub websocket;
                        nchan_channel_id $uri;
                        nchan_message_buffer_length 1024;
                        nchan_subscriber_first_message newest;
                        nchan_websocket_ping_interval 0;
                    }}
                }}
            }}
            """

    def command_line(self):
        return ["nginx", "-c", str(self.file), "-p", str(self.folder), "-e",
                str(self.folder / "log")]

    def start(self, cpus):
        super().start(cpus)
        self.pid = int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])
        return self


class Nats(Configured):
    """NATS with its protocol over WebSocket."""

    load = [BUILD / "bench/nats"]

    def __init__(self):
        super().__init__()

    def configuration(self):
        return f"""
            listen: "127.0.0.1:-1"
            max_connections: {MAX_CONNECTIONS}
            websocket {{ listen: "127.0.0.1:{self.port}", no_tls: true }}
            """

    def command_line(self):
        return ["nats-server", "-c", str(self.file)]


class Wsbind:
    """The daemon with its defaults, but for a limit of frames and what a benchmark may open."""

    load = Program.load

    def __init__(self, **settings):
        self.settings = {"worker_threads": 1, "max_incoming_frames_per_second": 0,
                         "notice_limit": 0, "max_connections": MAX_CONNECTIONS, **settings}

    def start(self, cpus):
        self.daemon = Daemon(**self.settings)
        self.daemon.__enter__()
        self.port, self.pid = self.daemon.port, self.daemon.process.pid
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)
        return self

    url = Program.url

    def stop(self):
        self.daemon.__exit__()


class WsbindTls(Wsbind):
    """The same over TLS, with a certificate of its own."""

    load = [*Wsbind.load, "--insecure"]

    def __init__(self, **settings):
        super().__init__(tls_port=0, port="off", **settings)

    def start(self, cpus):
        self.folder = Path(tempfile.mkdtemp(prefix="wsbind-bench-"))
        certificate, key = self.folder / "certificate", self.folder / "key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        self.settings.update(tls_certificate=certificate, tls_key=key)
        return super().start(cpus)

    def url(self, path):
        return f"wss://127.0.0.1:{self.port}{path}"

    def stop(self):
        super().stop()
        shutil.rmtree(self.folder)


def node():
    return Program("node", ROOT / "bench/servers/node-ws.js",
                   env={"NODE_PATH": "/usr/share/nodejs"})


# What makes each of them, by name.
FANOUT = {
    "floor each": lambda: Program(BUILD / "bench/floor", "each"),
    "floor batched": lambda: Program(BUILD / "bench/floor", "batched"),
    "wsbind": Wsbind,
    "nchan": Nchan,
    "lws": lambda: Program(BUILD / "bench/lws"),
    "nats": Nats,
    "go gorilla": lambda: Program(BUILD / "bench/go-hub"),
    "node ws": node,
}
FANOUT_2 = {
    "floor batched": lambda: Program(BUILD / "bench/floor", "batched", 2),
    "wsbind": lambda: Wsbind(worker_threads=2),
}
ECHO = {
    "floor echo": lambda: Program(BUILD / "bench/floor", "echo"),
    "wsbind": lambda: Wsbind(echo_path="/echo"),
    "go gorilla": FANOUT["go gorilla"],
    "node ws": node,
}


class Running:
    """A server of its own for one measurement."""

    def __init__(self, server, cpus=None):
        self.server, self.cpus = server, cpus or SERVER_CPUS

    def __enter__(self):
        return self.server.start(self.cpus)

    def __exit__(self, *_):
        self.server.stop()


def load(server, path, *options, cpus=None):
    """
    One run against a server that runs: its report, and in it "error" when something was lost.
    Members may see different orders: few servers promise one.
    """
    done = subprocess.run([*server.load, "-u", server.url(path), "--json",
                           "--server-pid", str(server.pid), *[str(o) for o in options]],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          preexec_fn=pin(cpus or LOAD_CPUS))
    report = json.loads(done.stdout or "{}")
    if not report.get("error") and (report.get("lost") or not report.get("delivered")):
        said = done.stderr.decode().strip().splitlines()
        report["error"] = said[-1] if said else f"{report.get('lost')} lost"
    return report


def benchmark(server, path, *options, server_cpus=None, load_cpus=None):
    """The same against a server of its own, with what its memory grew by for each client."""
    with Running(server, server_cpus) as s:
        before, _ = memory(s.pid)
        report = load(s, path, *options, cpus=load_cpus)
        _, most = memory(s.pid)
    if "clients" in report:
        report["peak_rss_per_client"] = (most - before) / report["clients"]
    return report


def cpu_per_million(report):
    """Processor seconds of the server for a million messages that it sent."""
    return report["server_seconds"]["running"] / (report["delivered"] + report["own"]) * 1e6


def compare(names, servers, rounds, measure):
    """
    Rounds in which each server has a turn: measure(server) makes a report. Returns the reports of
    each, without those of runs that failed.
    """
    reports = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            report = measure(servers[name]())
            if report.get("error"):
                print(f"# {name}: {report['error']}", file=sys.stderr)
            else:
                reports[name].append(report)
    return reports


def figures_of(reports, figure):
    return {name: [figure(r) for r in rs] for name, rs in reports.items()}


def print_head(label, names, note=""):
    if note:
        print(f"# {note}")
    print(f"{label}  " + "  ".join(f"{name:>20}" for name in names), flush=True)


def print_row(label, names, figures, yardstick, digits=2):
    """Medians, and what they are beside the yardstick's."""
    middle = {n: statistics.median(v) for n, v in figures.items() if v}
    texts = []
    for name in names:
        text = "-"
        if name in middle:
            text = f"{middle[name]:8.{digits}f}"
            if middle.get(yardstick):
                text += f"  {middle[name] / middle[yardstick]:6.2f} x"
        texts.append(f"{text:>20}")
    print(f"{label}  " + "  ".join(texts), flush=True)


def save(file, rows):
    """All reports of all rounds."""
    if file:
        Path(file).write_text(json.dumps(rows, indent=1) + "\n")
