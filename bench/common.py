# SPDX-License-Identifier: MIT
"""What the measurements share: a fresh daemon, and clients on plain sockets that cost next to nothing."""

import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WSBIND = os.environ.get("WSBIND", str(ROOT / "build/release/wsbind"))
READY_SECONDS = 10
READY = re.compile(r"ready: wss?://\S+:(?P<port>\d+)/ metrics http://\S+:(?P<metrics_port>\d+)/")

CONNECT_REQUEST_ID = b"\x11\x22\x33\x44" * 4


def raise_descriptors():
    """Raises the soft limit of open files to the hard one, which is returned."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fail(text):
    sys.exit(f"{Path(sys.argv[0]).name}: {text}")


class Daemon:
    """wsbind server on ports that the kernel chooses. Settings are keys of the configuration."""

    def __init__(self, **settings):
        self.settings = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, "log_connections": "no",
                         "log_level": "info", **settings}

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="wsbind-bench-"))
        self.log = self.folder / "log"
        with self.log.open("w") as out:
            self.process = self._spawn(out)
        try:
            self._find_ports()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _command(self):
        options = [f"--{key.replace('_', '-')}={value}" for key, value in self.settings.items()]
        return [WSBIND, "server", "--config", "/dev/null", *options]

    def _spawn(self, out):
        return subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder)

    def _find_ports(self):
        end = time.monotonic() + READY_SECONDS
        while not (found := READY.search(text := self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                fail(f"the daemon does not start:\n{text}")
            time.sleep(0.02)
        self.port, self.metrics_port = int(found["port"]), int(found["metrics_port"])

    def rss(self):
        """Resident memory in bytes, as smaps_rollup has it."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Rss in smaps_rollup")

    def metric(self, name):
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.split("{")[0].split(" ")[0] == name)


def handshake(path="/"):
    return (f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n").encode()


def varint(n):
    """A number as protobuf has it."""
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """A field of protobuf: bytes, or a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def frame(payload, first=0x82):
    """A frame of a client, a binary one; its mask is zero, so that it costs nothing to apply."""
    n = len(payload)
    if n < 126:
        head = struct.pack(">BB", first, 0x80 | n)
    elif n < 65536:
        head = struct.pack(">BBH", first, 0x80 | 126, n)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, n)
    return head + bytes(4) + payload


def connect_message(session_id=b""):
    """CONTROL/CONNECT with CONNECT_REQUEST_ID."""
    control = field(4, b"zstd") + field(4, b"ack")
    if session_id:
        control = field(2, session_id) + control
    return frame(field(1, 3) + field(2, CONNECT_REQUEST_ID) + field(5, control))


def open_socket(port, receive_buffer=None):
    s = socket.socket()
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.connect(("127.0.0.1", port))
    return s
