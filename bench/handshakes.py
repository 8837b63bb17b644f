#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What a connection costs the server until it is open: TCP, the WebSocket handshake, and whatever the
server says first. `wsbind benchmark` opens them, at most 128 at a time. Printed: the server's
processor time for each, in microseconds, medians of the rounds, and beside that of wsbind.
"""

import argparse

from common import raise_descriptors
from peers import FANOUT, benchmark, compare, figures_of, print_head, print_row, save


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5000, help="connections")
    parser.add_argument("--servers", nargs="+",
                        default=[name for name in FANOUT if name != "floor each"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    reports = compare(options.servers, FANOUT, options.rounds,
                      lambda server: benchmark(server, "/room", "-c", options.n, "-m", 1))
    print_head(f"{'':>11}", options.servers, "microseconds for each connection, and beside wsbind")
    print_row(f"{options.n:11}", options.servers,
              figures_of(reports, lambda r: r["server_seconds"]["connecting"] / r["clients"] * 1e6),
              "wsbind")
    save(options.json, reports)


if __name__ == "__main__":
    main()
