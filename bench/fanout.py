#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What a delivery costs the server, beside the least that it can cost and beside peers.

Each row is a number of members, a size and a way of publishing: PUBLISHERSxWINDOW (messages of
each on their way), or N/s (a fixed rate, of 4 publishers together). In a round every server gets a
run of it, one after the other, so that whatever else the machine does meets all; the server is
pinned to one processor, the load to another. Compared is the server's processor time (user and
system) for a million deliveries, in seconds: medians of the rounds, and their ratio to
`floor batched`. With --workers 2 neither is pinned and members are on both threads.
"""

import argparse

from common import raise_descriptors
from peers import (FANOUT, FANOUT_2, benchmark, compare, cpu_per_million, figures_of, print_head,
                   print_row, save)

YARDSTICK = "floor batched"
RATE_PUBLISHERS = 4
RATE_SECONDS = 5
RUN_BYTES = 4 << 30  # of data, of each run, at most


def way(publishing, members, size, deliveries):
    """
    The options of a way of publishing. With several messages on their way a run has four times as
    many: what chance gathers in a turn has to even out.
    """
    if publishing.endswith("/s"):
        rate = int(publishing[:-2])
        return ["--rate", rate, "-m", rate * RATE_SECONDS, "--publishers", RATE_PUBLISHERS,
                "--window", 1000]
    publishers, window = publishing.split("x")
    if int(publishers) * int(window) > 1:
        deliveries *= 4
    messages = max(min(deliveries, RUN_BYTES // size) // (members - 1), 100)
    return ["-m", messages, "--publishers", publishers, "--window", window]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 16384])
    parser.add_argument("--publishing", nargs="+", default=["1x1", "4x4"])
    parser.add_argument("--workers", type=int, choices=[1, 2], default=1)
    parser.add_argument("--servers", nargs="+", help="of " + ", ".join(FANOUT))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=200000, help="of each run, about")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    servers = FANOUT if options.workers == 1 else FANOUT_2
    names = options.servers or list(servers)
    cpus = {} if options.workers == 1 else {"server_cpus": {0, 1}, "load_cpus": {0, 1}}
    rows = []
    print_head(f"{'members':>7} {'size':>6} {'pub':>7}", names,
               "processor seconds for a million deliveries, and beside " + YARDSTICK)
    for publishing in options.publishing:
        for members in options.members:
            for size in options.sizes:
                reports = compare(
                    names, servers, options.rounds,
                    lambda server: benchmark(server, "/room", "-c", members, "--message-size",
                                             size, *way(publishing, members, size,
                                                  options.deliveries),
                                             **cpus))
                print_row(f"{members:7} {size:6} {publishing:>7}", names,
                          figures_of(reports, cpu_per_million), YARDSTICK)
                rows.append({"members": members, "size": size, "publishing": publishing,
                             "reports": reports})
                save(options.json, rows)


if __name__ == "__main__":
    main()
