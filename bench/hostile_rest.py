# SPDX-License-Identifier: MIT
"""Who gets which worker, the spool, tables and pages that are shared, a hand-over that can't be."""

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from common import fail, frame, handshake, open_socket
from hostile_kit import Attackers, Client, Crowd, Ground, has_key
from hostile_payloads import MAX_MESSAGE, MIB, ZSTD, data, subscribe, zstd_zeroes

HONEST = "127.0.0.2"  # where who means well comes from, in cases where addresses count
SECONDS = 8
CHUNK = 16384
SPOOL_MAX = 256 * MIB


# 13


def spreading(workers):
    """300 connections, one every 2 ms, to one listening socket that four workers share."""
    n_workers, n, parts = max(workers, 4), 300, []
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        for name, settings in (("listen_unix", {"listen_unix": "clients.sock"}),
                               ("socket activation", {"activation": listener})):
            with Ground(n_workers, is_watched=False, **settings) as g:
                to = g.daemon.folder / "clients.sock" if name == "listen_unix" else None
                with g.attack(name):
                    clients = []
                    for _ in range(n):
                        clients.append(Client(g.daemon, "/spread", to=to))
                        time.sleep(0.002)
                    counts = g.daemon.by_worker()
                    for c in clients:
                        c.close()
                g.note("connections of each worker", " ".join(str(k) for k in sorted(counts)))
                g.at_most("the most that one has", max(counts), 1.25 * n / n_workers)
                parts += g.parts
    return parts


# 14


def transfer(client, number, chunks=16):
    """A file of 256 KB: seconds until it is acknowledged, and whether it was."""
    begin = time.monotonic()
    payload = b"%08d" % number * (CHUNK // 8)
    for i in range(chunks):
        is_last = i == chunks - 1
        client.send(frame(data(payload, sequence=i, is_last=is_last,
                               request_id=b"%016d" % number)))
    while True:
        opcode, answer = client.frame()
        if opcode == 2 and (at := answer.find(b"%016d" % number)) >= 0:
            # CONTROL, whose type is ACKNOWLEDGE.
            control = answer[at + 16:]
            return time.monotonic() - begin, control[0] == 0x2a and control[2:4] == b"\x08\x02"


def transfers(daemon, seconds):
    """For Attackers, though it means well: a file, and the next one, for so long."""
    def run():
        client, found = Client(daemon, "/honest", source=HONEST), []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client.socket.settimeout(max(0.1, end + 2 - time.monotonic()))
            begin = time.monotonic()
            try:
                found.append(transfer(client, len(found)))
            except (OSError, EOFError):
                found.append((time.monotonic() - begin, False))
                break
        return found
    return run


def disk_used(folder):
    total = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_blocks * 512
    return total


def spool_settings():
    """Bounds of what is written, where the daemon has any."""
    wanted = {"spool_max_size": f"{SPOOL_MAX >> 20}M", "spool_max_file_size": "64M"}
    return {key: value for key, value in wanted.items() if has_key(key)}


def under_spool_attack(g, name, attackers, seconds):
    """How an honest sender fares meanwhile, how much is written, and what /readyz says."""
    spool, most, ready, n_ready = g.daemon.folder / "spool", 0, 0, 0
    with g.attack(name), Attackers(g.daemon, *attackers), \
            Attackers(g.daemon, transfers(g.daemon, seconds)) as honest:
        end, look = time.monotonic() + seconds, 0
        while (now := time.monotonic()) < end:
            most = max(most, disk_used(spool))
            if now >= look:
                look, n_ready = now + 0.5, n_ready + 1
                ready += g.daemon.ask("/readyz")[0] == 200
            time.sleep(0.05)
        found = honest.results(5)
    took = [waited for waited, _ in found[0]] if found else [seconds]
    done = sum(is_done for _, is_done in found[0]) if found else 0
    g.note("honest files kept", done)
    g.at_most("honest files not kept", len(took) - done, 0)
    g.at_most("an honest file waits at most", max(took), 1, "s")
    g.at_most("disk in use at most", most / MIB, 1.2 * SPOOL_MAX / MIB, "MiB")
    g.at_most("times /readyz was not 200", n_ready - ready, 0)
    g.expect_usual()


def zip_bomb(daemon):
    """63 KB: 120 chunks that are 16 MiB each, 1.9 GB in all."""
    def run():
        client, chunk = Client(daemon, f"/bomb/{os.getpid()}"), zstd_zeroes(MAX_MESSAGE)
        for i in range(120):
            client.send(frame(data(chunk, ZSTD, sequence=i, is_last=i == 119)))
        while client.recv():
            pass
    return run


def small_files(daemon):
    """Files of a hundred bytes, as fast as frames are taken."""
    def run():
        client = Client(daemon, "/small")
        file = frame(data(b"x" * 100))
        client.socket.settimeout(None)
        while True:
            client.send(50 * file)
            time.sleep(0.05)
    return run


def begun(daemon, n):
    """Transfers that begin, and don't go on."""
    def run():
        clients = [Client(daemon, "/begun") for _ in range(n)]
        for c in clients:
            c.send(frame(data(b"x" * 100, is_last=False)))
        time.sleep(600)
    return run


def spool(workers):
    """Chunks that unpack to 16 MiB, thousands of files, 256 transfers that only begin."""
    parts = []
    attacks = {"two of 63 KB": (lambda d: 2 * [zip_bomb(d)], 14),
               "small files": (lambda d: 4 * [small_files(d)], SECONDS),
               "begun transfers": (lambda d: [begun(d, 256)], SECONDS)}
    for name, (attackers, seconds) in attacks.items():
        with Ground(workers, spool_dir="spool", **spool_settings()) as g:
            g.quiet(2)
            under_spool_attack(g, name, attackers(g.daemon), seconds)
            parts += g.parts
    return parts


# 16


def networks(workers):
    """40 connections from one IPv6 network of 64 bits, max_connections_per_ip = 10."""
    with Ground(workers, is_watched=False, trusted_proxies="127.0.0.1",
                max_connections_per_ip=10) as g:
        with g.attack("IPv6 network"):
            clients = [Client(g.daemon, "/",
                              headers=b"X-Forwarded-For: 2001:db8:1:2::%x\r\n" % i)
                       for i in range(1, 41)]
        g.at_most("let in, of 40", sum(c.status == 101 for c in clients), 10)
        return g.parts


def channels(workers):
    """Few connections that have all the channels there may be."""
    with Ground(workers, max_channels=1000) as g:
        g.quiet(2)
        with g.attack("17 connections, max_channels = 1000"):
            crowd = [Client(g.daemon, "/many") for _ in range(17)]
            for i, c in enumerate(crowd):
                c.send(*[subscribe([b"%d/%d" % (i, n)]) for n in range(63)])
            time.sleep(1)
            newcomer = Client(g.daemon, "/newcomer", source=HONEST)
        g.at_most("newcomers from elsewhere refused, of 1", int(newcomer.status != 101), 0)
        g.note("its status", newcomer.status)
        g.expect_usual()
        return g.parts


def metrics_port(workers):
    """64 half requests to metrics_port."""
    with Ground(workers) as g:
        g.quiet(2)
        address = ("127.0.0.1", g.daemon.metrics_port)
        with g.attack("64 half requests"):
            halves = [socket.create_connection(address) for _ in range(64)]
            for s in halves:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            begin, timeout = time.monotonic(), 5
            with contextlib.suppress(OSError):
                urllib.request.urlopen("http://%s:%d/healthz" % address, timeout=timeout).read()
            took = time.monotonic() - begin
            for s in halves:
                s.close()
        g.at_most("/healthz takes", took, 2, "s")
        g.expect_usual()
        return g.parts


def pages(workers):
    """/clients with names that JSON makes six times as long; scrapes with 9,500 connections."""
    hostile = [b"\x01" * 250 + b"%03d" % i for i in range(63)]
    parts = []
    with Ground(workers, notice_limit=0) as g, \
            Crowd(g.daemon, 1000, "/page", first=subscribe(hostile)):
        time.sleep(2)
        g.quiet()
        with g.attack("/clients, names of control characters"):
            status, page = g.daemon.ask("/clients?limit=1000", timeout=60)
        g.note("status", status)
        g.note("bytes of the page", len(page) / MIB, "MiB")
        g.expect_usual()
        parts += g.parts
    with Ground(workers, notice_limit=0) as g:
        before = {path: asking(g, path) for path in ("/metrics", "/clients?limit=1")}
        with Crowd(g.daemon, 9500, "/idle/#", paths=100):
            g.quiet()
            for path in before:
                with g.attack(f"20 x {path}, 9,500 connections"):
                    each = asking(g, path)
                g.note("processor time of each, before", before[path], "ms")
                g.at_most("processor time of each", each, 2 * before[path] + 1, "ms")
                g.expect_usual()
        parts += g.parts
    return parts


def asking(g, path):
    """Milliseconds of the daemon for an answer."""
    before = g.daemon.cpu()
    for _ in range(20):
        g.daemon.ask(path)
    return (g.daemon.cpu() - before) / 20 * 1000


def shared_tables(workers):
    """What all clients share and some may use up: addresses, channels, ports, pages."""
    return networks(workers) + channels(workers) + metrics_port(workers) + pages(workers)


# 17


class TlsClient:
    """wss:// by Python's ssl."""

    def __init__(self, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(open_socket(port))
        self.socket.sendall(handshake("/tls"))
        self.socket.settimeout(1)
        while b"101" not in self.socket.recv(65536):
            pass

    def is_open(self):
        """Whether it has heard no Close and no end."""
        try:
            while got := self.socket.recv(65536):
                if b"server is stopping" in got:
                    return False
        except TimeoutError:
            return True
        except OSError:
            return False
        return False


def hand_over_without_descriptors(daemon):
    """True when that was refused."""
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # Enough for a look at the configuration, not for what is left to the next process ...
    used = {int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd")}
    free = [fd for fd in range(len(used) + 2) if fd not in used]
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free[1] + 1, hard))
    os.kill(daemon.pid, signal.SIGUSR2)
    end, log = time.monotonic() + 15, ""
    while "going on as before" not in log and "took over" not in log:
        if time.monotonic() > end:
            fail(f"no end of a hand-over:\n{log}")
        log = daemon.log.read_text()
        if "handing over" in log:
            # ... nor are those of clients that leave for it.
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
        time.sleep(0.002)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
    return "going on as before" in log


def hand_over_refused(workers):
    """SIGUSR2 when descriptors for it are missing, with 20 clients of TLS; with 9,000 it works."""
    with tempfile.TemporaryDirectory(prefix="wsbind-bench-") as folder:
        certificate, key = Path(folder) / "certificate", Path(folder) / "key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        with Ground(workers, tls_port=0, tls_certificate=certificate, tls_key=key) as g:
            tls = [TlsClient(g.daemon.tls_port) for _ in range(20)]
            g.quiet()
            with g.attack("without descriptors"):
                is_refused = hand_over_without_descriptors(g.daemon)
            dismissed = sum(not c.is_open() for c in tls)
            g.note("it is refused", int(is_refused))
            g.at_most("TLS clients dismissed for nothing, of 20", dismissed * is_refused, 0)
            parts = g.parts
    for n in (3000, 9000):
        with Ground(workers, notice_limit=0) as g, \
                Crowd(g.daemon, n, "/some/#", paths=100) as crowd:
            g.quiet()
            with g.attack(f"{n} connections"):
                time.sleep(0.5)
                took = g.daemon.hand_over()
                time.sleep(0.5)
            g.note("hand-over", took * 1000, "ms")
            g.note("pause of a good client", g.part["with"]["pause"], "ms")
            g.at_most("closed", sum(crowd.closed().values()), 0)
            g.expect_memory()
            parts += g.parts
    return parts
