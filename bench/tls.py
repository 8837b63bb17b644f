#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What TLS costs: wss:// beside ws://, in rounds that take turns. Printed: the server's processor time
for a million deliveries, for each connection until it is open, its memory for each idle connection,
and all of it beside plain connections.
"""

import argparse
import statistics
import subprocess
import time

from common import READY_SECONDS, fail, raise_descriptors
from peers import (LOAD_CPUS, Running, Wsbind, WsbindTls, benchmark, compare, cpu_per_million,
                   figures_of, memory, pin, print_head, print_row, save)

SERVERS = {"ws": Wsbind, "wss": WsbindTls}
QUIET = {"ping_interval": "1h", "heartbeat_timeout": "24h"}
SETTLE_SECONDS = 3


def idle_memory(make, n):
    """Bytes for each of n connections that have said and heard nothing but the greeting."""
    with Running(make(**QUIET)) as s:
        before, _ = memory(s.pid)
        # A rate of one message an hour: connections, and nothing on them.
        load = subprocess.Popen([*s.load, "-u", s.url("/room"), "-c", str(n), "--publishers", "1",
                                 "-m", "2", "--rate", "1"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                preexec_fn=pin(LOAD_CPUS))
        end = time.monotonic() + 6 * READY_SECONDS
        while s.daemon.metric("websocket_active_connections") < n:
            if time.monotonic() > end:
                fail(f"{n} connections do not come")
        time.sleep(0.5)
        after, _ = memory(s.pid)
        load.kill()
        load.wait()
    return (after - before) / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    rows, names = [], list(SERVERS)
    print_head(f"{'size':>6} {'pub':>4}", names, "processor seconds for a million deliveries")
    for publishers, window in ((1, 1), (4, 4)):
        for size in options.sizes:
            reports = compare(names, SERVERS, options.rounds, lambda server: benchmark(
                server, "/room", "-c", options.members, "-m", 200, "--publishers", publishers,
                "--window", window, "--message-size", size))
            print_row(f"{size:6} {publishers}x{window:>2}", names,
                      figures_of(reports, cpu_per_million), "ws")
            rows.append({"size": size, "publishing": f"{publishers}x{window}", "reports": reports})
    print_head(f"{'':11}", names, "microseconds for each connection until it is open")
    print_row(f"{'':11}", names, figures_of(
        reports, lambda r: r["server_seconds"]["connecting"] / r["clients"] * 1e6), "ws")
    memories = {name: [idle_memory(SERVERS[name], n) for n in (2000,)] for name in names}
    print_head(f"{'':11}", names, "bytes of resident memory for each idle connection")
    print_row(f"{'':11}", names, memories, "ws", 0)
    save(options.json, rows)


if __name__ == "__main__":
    main()
