#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
How fast large messages come in: publishers that send as fast as they can, one member that reads
what it can, and is skipped what it can't (slow_consumer = skip). The publishers are members, too,
and read nothing. Printed: bytes of payload for each second of the server's user time (unmasking,
parsing, and the checksum where messages have one), and the system time beside it.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import struct
import time
import zlib
from pathlib import Path

from common import fail, field, frame, handshake, open_socket
from peers import LOAD_CPUS, Running, Wsbind, print_head, save

TICKS = os.sysconf("SC_CLK_TCK")
FRAMES_AT_ONCE = 16


def masked(message):
    """As a frame with a mask that is none of zeros."""
    key = 0x5ac3190f
    whole = frame(message)
    head, payload = whole[:-len(message) - 4], whole[-len(message):]
    padded = payload + bytes(-len(payload) % 4)
    words = struct.unpack(f">{len(padded) // 4}I", padded)
    hidden = struct.pack(f">{len(words)}I", *(w ^ key for w in words))[:len(payload)]
    return head + struct.pack(">I", key) + hidden


def message(size, has_checksum):
    data = random.Random(1).randbytes(size)
    binary = field(1, data) + field(4, 1)
    if has_checksum:
        binary += field(2, b"%08x" % zlib.crc32(data))
    return field(1, 2) + field(4, binary)


def times(pid):
    """User and system seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def join(port):
    s = open_socket(port)
    s.sendall(handshake("/room"))
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += s.recv(1024)
    return s


def publish(port, n, burst):
    """Until it is ended."""
    os.sched_setaffinity(0, LOAD_CPUS)
    sockets = [join(port) for _ in range(n)]
    while True:
        for s in sockets:
            s.sendall(burst)


def read(port):
    os.sched_setaffinity(0, LOAD_CPUS)
    s, room = join(port), bytearray(1 << 20)
    while s.recv_into(room):
        pass


def measure(options, has_checksum):
    burst = masked(message(options.size, has_checksum)) * FRAMES_AT_ONCE
    with Running(Wsbind(slow_consumer="skip", max_frame_size="16M")) as s:
        tasks = [multiprocessing.Process(target=read, args=(s.port,), daemon=True),
                 multiprocessing.Process(target=publish, args=(s.port, options.publishers, burst),
                                         daemon=True)]
        for t in tasks:
            t.start()
        while s.daemon.metric("websocket_messages_received_total") < 1000:
            if not all(t.is_alive() for t in tasks):
                fail("the server does not take what is sent")
            time.sleep(0.05)
        before = s.daemon.metric("websocket_messages_received_total"), *times(s.pid)
        time.sleep(options.seconds)
        after = s.daemon.metric("websocket_messages_received_total"), *times(s.pid)
        for t in tasks:
            t.kill()
            t.join()
    messages, user, system = (b - a for a, b in zip(before, after))
    payload = messages * options.size
    return {"checksum": has_checksum, "messages": messages, "user": user, "system": system,
            "gb_per_user_second": payload / user / 1e9,
            "gb_per_second": payload / options.seconds / 1e9}


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publishers", type=int, default=8)
    parser.add_argument("--size", type=int, default=65536, help="bytes of data in a message")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of a round")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    rows = [measure(options, has) for _ in range(options.rounds) for has in (False, True)]
    print_head(f"{'checksum':>8}", ["GB/s of user time", "user s", "system s", "GB/s"])
    for has in (False, True):
        figures = [statistics.median(r[name] for r in rows if r["checksum"] == has)
                   for name in ("gb_per_user_second", "user", "system", "gb_per_second")]
        print(f"{'yes' if has else 'no':>8}  " + "  ".join(f"{f:20.2f}" for f in figures))
    save(options.json, rows)


if __name__ == "__main__":
    main()
