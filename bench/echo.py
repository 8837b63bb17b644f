#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What an echoed message costs the server, beside a minimal C server and beside peers.

As fanout.py, but each client sends to the server and gets it back, so many messages of each in
flight. What is compared is the server's processor time (user and system) for a million messages,
and its ratio to `floor echo`.
"""

import argparse
import json

from common import raise_descriptors
from peers import benchmark, compare, echo_servers, print_head, print_row

YARDSTICK = "floor echo"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 1000])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 32], help="in flight")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 65536])
    parser.add_argument("--servers", nargs="+", default=list(echo_servers()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=200 << 20, help="of a run, at most")
    parser.add_argument("--messages", type=int, default=100000, help="of a run, at most")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    everything = []
    print_head(f"{'clients':>7} {'size':>6} {'window':>6}", options.servers)
    for connections in options.connections:
        for window in options.windows:
            for size in options.sizes:
                messages = max(min(options.messages, options.bytes // size), 2 * connections)

                def measure(server):
                    used, report = benchmark(server, "/echo", "--mode", "echo", "-c", connections,
                                             "-m", messages, "--window", window,
                                             "--message-size", size)
                    return used and used / report["delivered"] * 1e6, report

                figures, p99 = compare(options.servers, echo_servers(), options.rounds, measure)
                print_row(f"{connections:7} {size:6} {window:6}", options.servers, figures,
                          YARDSTICK, "s/M")
                everything.append({"connections": connections, "size": size, "window": window,
                                   "cpu_seconds_per_million": figures, "p99_ms": p99})
    if options.json:
        with open(options.json, "w") as f:
            json.dump(everything, f, indent=1)


if __name__ == "__main__":
    main()
