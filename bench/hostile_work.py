# SPDX-License-Identifier: MIT
"""Work that one client causes: unpacking and packing, TLS, large channels, tables, long lists."""

import contextlib
import ctypes
import os
import select
import ssl
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

from common import WSBIND, fail, frame, handshake, open_socket
from hostile_kit import Attackers, Client, Crowd, Ground
from hostile_payloads import (END_OF_DEFLATE, GZIP, MAX_MESSAGE, ZSTD, chat, data, empty_blocks,
                              gzip, gzip_of, subscribe, unsubscribe, whole, zstd_zeroes)
from peers import BUILD

PATIENCE = 90        # seconds that a loop may be held up before a row goes on without it
SECONDS = 8          # of an attack that has no end of its own


def drain(clients):
    """For Attackers: reads what comes, for ever."""
    def run():
        poll = select.poll()
        by_fd = {c.socket.fileno(): c for c in clients}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if not by_fd[fd].recv():
                    poll.unregister(fd)
    return run


def answers(client):
    """A ping goes through the worker of a client and comes back; waits for it."""
    client.send(frame(b"done", 0x89))
    while client.frame() != (10, b"done"):
        pass


# 1


def unpacks_past_the_limit(workers):
    """128 × 9 gzips of one byte too many; and 60 × 262 KB for receivers with seven windows."""
    bomb = frame(data(gzip_of(bytes(MAX_MESSAGE + 1)), GZIP))
    with Ground(workers) as g:
        with Crowd(g.daemon, 256, "/bomb/#", paths=128, publishers=128, each=9 * bomb) as crowd:
            g.quiet()
            with g.attack("gzip"):
                crowd.tell("once")
                time.sleep(1)
                # Whoever is on the way has to be over with before the end is measured.
                wait_for_workers(g)
            g.expect_usual()
        noise = frame(data(os.urandom(262000)))
        receivers = [Client(g.daemon, f"/noise/{i}", headers=window(n))
                     for i in range(20) for n in range(9, 16)]
        with Attackers(g.daemon, drain(receivers)), \
                Crowd(g.daemon, 20, "/noise/#", paths=20, publishers=20, each=3 * noise) as crowd:
            with g.attack("262 KB"):
                crowd.tell("once")
                time.sleep(1)
                wait_for_workers(g)
            g.expect_usual()
        return g.parts


def window(bits):
    return b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=%d\r\n" % bits


def wait_for_workers(g, seconds=PATIENCE):
    """Until the daemon has next to nothing to do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, running = g.daemon.cpu(), 0
        for _ in range(50):
            time.sleep(0.01)
            running += g.daemon.is_running()
        if g.daemon.cpu() - before < 0.2 and running < 25:
            return


# 2


def deflate(payload):
    """As a message of permessage-deflate (RFC 7692, 7.2.1)."""
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (z.compress(payload) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


def tables_without_data(workers):
    """Blocks of deflate that say nothing: as gzip, and as permessage-deflate."""
    tables = empty_blocks(15_700_000)
    packed = whole(data(gzip(tables + END_OF_DEFLATE, 0, 0), GZIP))
    deflated = whole(tables + deflate(chat(b"after all")), 0x82 | 0x40)
    with Ground(workers) as g:
        g.quiet()
        plain = Client(g.daemon, "/tables")
        attacker = Client(g.daemon, "/tables")
        with Attackers(g.daemon, drain([plain])), g.attack("gzip"):
            for _ in range(3):
                attacker.send(packed)
            # Who gets it unpacked may be on another worker than who sends it.
            answers(attacker)
            wait_for_workers(g)
        g.expect_usual()
        attacker = Client(g.daemon, "/deflated", headers=window(15))
        with g.attack("permessage-deflate"):
            for _ in range(2):
                attacker.send(deflated)
            answers(attacker)
        g.expect_usual()
        return g.parts


# 3


def unpacks_for_others(workers):
    """33 KB of zstd that are 16 MiB each, 60 times, for ten members who read, but no zstd."""
    bombs = 60 * frame(data(zstd_zeroes(MAX_MESSAGE), ZSTD))
    with Ground(workers) as g:
        # One of them is no faster than a wireless network.
        with Crowd(g.daemon, 9, "/zstd") as fast, Crowd(g.daemon, 1, "/zstd", speed=30e6) as slow:
            g.quiet()
            attacker = Client(g.daemon, "/zstd")
            with g.attack():
                attacker.send(bombs)
                time.sleep(SECONDS)
            g.note("bytes sent", len(bombs))
            g.note("received by members", (fast.report()["bytes"] + slow.report()["bytes"]) / 2**20,
                   "MiB")
            g.at_most("members closed, of 10",
                      sum(fast.closed().values()) + sum(slow.closed().values()), 0)
            g.expect_usual()
        return g.parts


# 4


class TlsFlood:
    """A client of TLS by libssl through memory, for what Python's ssl has no words for."""

    WANT_READ = 2

    def __init__(self, port):
        self.lib = lib = ctypes.CDLL("libssl.so.3")
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        self.context = lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method()))
        self.ssl = ctypes.c_void_p(lib.SSL_new(ctypes.c_void_p(self.context)))
        memory = ctypes.c_void_p(lib.BIO_s_mem())
        self.into, self.out = (ctypes.c_void_p(lib.BIO_new(memory)) for _ in range(2))
        lib.SSL_set_bio(self.ssl, self.into, self.out)
        lib.SSL_set_connect_state(self.ssl)
        self.room = ctypes.create_string_buffer(1 << 20)
        self.socket = open_socket(port)
        while lib.SSL_do_handshake(self.ssl) != 1:
            self.flush()
            self._feed()
        self.flush()

    def _feed(self):
        came = self.socket.recv(65536)
        if not came:
            raise ConnectionError
        self.lib.BIO_write(self.into, came, len(came))

    def flush(self):
        while (n := self.lib.BIO_read(self.out, self.room, len(self.room))) > 0:
            self.socket.sendall(self.room.raw[:n])

    def write(self, p):
        self.lib.SSL_write(self.ssl, p, len(p))

    def update_key(self):
        self.lib.SSL_key_update(self.ssl, 0)
        self.lib.SSL_do_handshake(self.ssl)


def key_updates(port):
    """For Attackers: 60 KeyUpdates for each byte, for ever."""
    def run():
        flood = TlsFlood(port)
        flood.write(handshake("/keys"))
        flood.flush()
        byte = frame(chat(b"x"))
        while True:
            for at in range(len(byte)):
                for _ in range(60):
                    flood.update_key()
                flood.write(byte[at:at + 1])
            flood.flush()
    return run


def client_hello():
    """The bytes that begin a handshake, good for any number of connections."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def hellos(port, n):
    """For Attackers: so many ClientHellos at once, over and over."""
    def run():
        hello = client_hello()
        while True:
            sockets = [open_socket(port) for _ in range(n)]
            for s in sockets:
                s.sendall(hello)
            for s in sockets:
                s.recv(1)
            for s in sockets:
                s.close()
            time.sleep(0.5)
    return run


def tls_handshakes(workers):
    """KeyUpdates without end on one connection; 400 ClientHellos at once."""
    with tempfile.TemporaryDirectory(prefix="wsbind-bench-") as folder:
        certificate, key = Path(folder) / "certificate", Path(folder) / "key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True,
                       capture_output=True)
        with Ground(workers, tls_port=0, tls_certificate=certificate, tls_key=key) as g:
            g.quiet()
            with Attackers(g.daemon, key_updates(g.daemon.tls_port)), g.attack("KeyUpdates"):
                time.sleep(SECONDS)
            g.expect_usual()
            with Attackers(g.daemon, hellos(g.daemon.tls_port, 400)), g.attack("ClientHellos"):
                time.sleep(SECONDS)
            g.expect_usual()
            return g.parts


# 10


def large_channels(workers):
    """A pair beside eight channels of 1,200 members, each with five messages a second."""
    names = [b"big/%d" % i for i in range(8)]
    with Ground(workers, notice_limit=0) as g:
        with Crowd(g.daemon, 1200, "/crowd", first=subscribe(names)), \
                Crowd(g.daemon, 8, "/big/#", paths=8, publishers=8,
                      each=frame(chat(b"x" * 64))) as publishers:
            time.sleep(1)
            g.quiet()
            with g.attack():
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    publishers.tell("once")
                    time.sleep(0.2)
        g.expect_usual()
        return g.parts


# 11


def names_of(kind, bits, n):
    """Names that a table without a secret puts in one place; kept, since they take seconds."""
    file = BUILD / f"bench/names-{kind}-{bits}-{n}"
    if not file.exists():
        file.write_bytes(subprocess.run([BUILD / "bench/collide", kind, str(bits), str(n)],
                                        check=True, capture_output=True).stdout)
    return file.read_bytes().split()


def joining(g, names):
    """Microseconds of the daemon for each name that clients join, 63 each."""
    clients = [Client(g.daemon, "/watch") for _ in range(0, len(names), 63)]
    for c in clients:
        answers(c)
    before = g.daemon.cpu()
    for i, c in enumerate(clients):
        c.send(subscribe(names[63 * i:63 * i + 63]))
    for c in clients:
        answers(c)
    took = g.daemon.cpu() - before
    n = sum(g.daemon.by_worker())
    for c in clients:
        c.close()
    while sum(g.daemon.by_worker()) > n - len(clients):
        time.sleep(0.02)
    return took / len(names) * 1e6


def random_names(n, seed):
    return [b"%s/%08x" % (seed, i * 2654435761 % 2**32) for i in range(n)]


def chosen_names(workers):
    """6,300 names that collide; and 6 × 63 that leave the workers' tables unable to grow."""
    with Ground(workers) as g:
        usual = joining(g, random_names(6300, b"a"))
        g.quiet()
        with g.attack("directory"):
            chosen = joining(g, names_of("fnv", 17, 6300))
        g.note("a name, not chosen", usual, "us")
        g.at_most("a chosen name", chosen, 2 * usual, "us")
        g.expect_usual()
        parts = g.parts
    with Ground(workers) as g:
        # A thousand clients that join at once are a load of their own, with any names.
        with g.beside():
            many = joining(g, random_names(63000, b"b"))
        joining(g, names_of("jenkins", 14, 378 * workers))
        with g.attack("worker's table"):
            after = joining(g, random_names(63000, b"c"))
        g.note("a name, where none were chosen before", many, "us")
        g.at_most("a name, after chosen ones", after, 2 * many, "us")
        g.expect_usual()
        return parts + g.parts


# 12


def bearer(key, channels):
    return b"Authorization: Bearer " + subprocess.run(
        [WSBIND, "token", "--sub", "bench", "--channels", ",".join(channels), "--key", key],
        check=True, capture_output=True).stdout.strip() + b"\r\n"


def long_list(g, name, names, headers=b""):
    """One SUBSCRIBE of a frame as long as it may be."""
    attacker = Client(g.daemon, "/list", headers=headers, timeout=PATIENCE)
    if attacker.status != 101:
        fail(f"{name}: the handshake was answered with {attacker.status}")
    with g.attack(name):
        attacker.send(subscribe(names))
        with contextlib.suppress(EOFError):
            answers(attacker)
        attacker.close()
    g.expect_usual()


def long_lists(workers):
    """SUBSCRIBE with a million names; 300 clients that leave and join 63 channels all the time."""
    million = [b"n"] * 1_000_000
    parts = []
    with Ground(workers) as g:
        g.quiet()
        long_list(g, "a million times a name", million)
        parts += g.parts
    with tempfile.NamedTemporaryFile("w", prefix="wsbind-bench-") as key:
        key.write("k" * 40)
        key.flush()
        patterns = [f"room/{i}/**" for i in range(96)] + ["good", "watch", "list", "n"]
        headers = bearer(key.name, patterns)
        with Ground(workers, headers=headers, auth="jwt", jwt_key_file=key.name) as g:
            g.quiet()
            long_list(g, "with a token of 100 patterns", million, headers)
            parts += g.parts
    with Ground(workers, max_channels_per_client=10000) as g:
        g.quiet()
        names = [b"%04d" % (i % 9990) for i in range(590_000)]
        long_list(g, "with 10,000 channels each", names)
        parts += g.parts
    return parts + comes_and_goes(workers)


def comes_and_goes(workers):
    names = [b"room/%02d" % i for i in range(63)]
    with Ground(workers) as g:
        with Crowd(g.daemon, 200, "/members", first=subscribe(names)), \
                Crowd(g.daemon, 300, "/members2", first=subscribe(names), publishers=300,
                      rate=500, each=unsubscribe(names) + subscribe(names)) as crowd:
            time.sleep(2)
            g.quiet()
            with g.attack("300 clients leave and join 63 channels"):
                crowd.tell("send")
                time.sleep(SECONDS)
                crowd.tell("pause")
            g.note("frames of leaving and joining", crowd.report()["sent"] * 2)
            g.expect_usual()
        return g.parts
