#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What an echoed message costs the server, beside a minimal C server and beside peers.

As fanout.py, but each client sends to the server and gets it back, so many messages of each in
flight. Compared is the server's processor time (user and system) for a million messages, in
seconds, and its ratio to `floor echo`.
"""

import argparse

from common import raise_descriptors
from peers import (ECHO, benchmark, compare, cpu_per_million, figures_of, print_head, print_row,
                   save)

YARDSTICK = "floor echo"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 1000])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 32], help="in flight")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 65536])
    parser.add_argument("--servers", nargs="+", default=list(ECHO))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=400 << 20, help="of a run, at most")
    parser.add_argument("--messages", type=int, default=100000, help="of a run, at most")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    rows = []
    print_head(f"{'clients':>7} {'size':>6} {'window':>6}", options.servers,
               "processor seconds for a million messages, and beside " + YARDSTICK)
    for connections in options.connections:
        for window in options.windows:
            for size in options.sizes:
                messages = max(min(options.messages, options.bytes // size), 2 * connections)
                reports = compare(
                    options.servers, ECHO, options.rounds,
                    lambda server: benchmark(server, "/echo", "--mode", "echo", "-c", connections,
                                             "-m", messages, "--window", window, "--message-size",
                                             size))
                print_row(f"{connections:7} {size:6} {window:6}", options.servers,
                          figures_of(reports, cpu_per_million), YARDSTICK)
                rows.append({"connections": connections, "size": size, "window": window,
                             "reports": reports})
                save(options.json, rows)


if __name__ == "__main__":
    main()
