#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What clients that have stopped reading cost the others, and in memory.

One publisher sends at a fixed rate to readers that read (`wsbind benchmark`), in rounds that take
turns: without and with some more clients in the channel that never read (slow_consumer = skip), so
that whatever else happens on the machine meets both alike. Before a round with them is measured,
messages flow until the kernel's buffers of those that don't read are full. Printed for each round:
p50, p99 and p99.9 of the latency of those who read, how much resident memory connecting and filling
took and how much the measured round added, how much memory the kernel has for all TCP sockets of the
machine; at last the ratio of the p99.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

from common import fail, handshake, open_socket, raise_descriptors
from peers import Running, Wsbind, load, memory, print_head, save

FILL_STEP = 200      # messages
FILL_STEPS_MAX = 50
PATH = "/room"


def kernel_memory():
    """Of all TCP sockets, in bytes."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * resource.getpagesize()
    return 0


def connect(port, n):
    """Clients that hear the answer to their handshake, and read no more."""
    sockets = []
    for _ in range(n):
        s = open_socket(port)
        s.sendall(handshake(PATH))
        heard = b""
        while b"\r\n\r\n" not in heard:
            more = s.recv(1024)
            if not more:
                fail(f"a client was refused: {heard!r}")
            heard += more
        sockets.append(s)
    return sockets


def fill(server, options, n):
    """Until all of them miss messages, each time."""
    before = 0
    for _ in range(FILL_STEPS_MAX):
        good(server, options, FILL_STEP)
        missed = server.daemon.metric("websocket_messages_skipped_total")
        if missed - before >= n * FILL_STEP:
            return
        before = missed
    fail("there are stalled readers whose buffers never fill")


def good(server, options, messages):
    report = load(server, PATH, "-c", options.readers + 1, "--publishers", 1, "--window", 1000,
                  "--message-size", options.size, "--rate", options.rate, "-m", messages)
    if report.get("error"):
        fail(report["error"])
    return report


def measure(options, n):
    """A round with n stalled readers, in a daemon of its own."""
    with Running(Wsbind(slow_consumer="skip", ping_interval="1h", heartbeat_timeout="24h")) as s:
        start = memory(s.pid)[0]
        stalled = connect(s.port, n)
        if n > 0:
            fill(s, options, n)
        else:
            good(s, options, FILL_STEP)
        before, kernel = memory(s.pid)[0], kernel_memory()
        report = good(s, options, int(options.rate * options.seconds))
        report["rss_filled"] = before - start
        report["rss_growth"] = memory(s.pid)[0] - before
        report["kernel_tcp_memory"] = max(kernel, kernel_memory())
        report["stalled"] = n
        for c in stalled:
            c.close()
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stalled", type=int, default=1000)
    parser.add_argument("--readers", type=int, default=100, help="readers that read")
    parser.add_argument("--rate", type=int, default=100, help="messages a second")
    parser.add_argument("--size", type=int, default=16384, help="bytes of a message")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    parser.add_argument("--seconds", type=float, default=60, help="of a round")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    reports = []
    print_head(f"{'stalled':>7}", ["p50 ms", "p99 ms", "p99.9 ms", "filled KiB", "added KiB",
                                   "kernel MiB"],
               f"{options.readers} readers, {options.rate} messages/s of {options.size} bytes")
    for _ in range(options.rounds):
        for n in (0, options.stalled):
            time.sleep(1)  # the kernel gives back what the round before had
            r = measure(options, n)
            reports.append(r)
            figures = [r["latency_ms"][p] for p in ("p50", "p99", "p99.9")]
            figures += [r["rss_filled"] / 1024, r["rss_growth"] / 1024,
                        r["kernel_tcp_memory"] / 2**20]
            print(f"{n:7}  " + "  ".join(f"{f:20.3f}" for f in figures), flush=True)
    p99 = {n: statistics.median(r["latency_ms"]["p99"] for r in reports if r["stalled"] == n)
           for n in (0, options.stalled)}
    print(f"p99 with them is {p99[options.stalled] / p99[0]:.2f} times that without")
    save(options.json, reports)


if __name__ == "__main__":
    main()
