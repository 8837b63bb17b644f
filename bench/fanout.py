#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What a delivery costs the server, beside the least that it can cost and beside peers.

Each row is a number of members, a size and a way of publishing. In a round every server gets a
run of it, one after the other, so that whatever else the machine does meets all; the server is
pinned to one processor, `wsbind benchmark` to another. What is compared is the server's processor
time (user and system) for a million deliveries: medians of the rounds, and their ratio to
`floor batched`.
"""

import argparse
import json

from common import raise_descriptors
from peers import benchmark, compare, fanout_servers, print_head, print_row

YARDSTICK = "floor batched"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 16384])
    parser.add_argument("--publishing", nargs="+", default=["1x1", "4x4"],
                        help="publishers x messages of each in flight")
    parser.add_argument("--servers", nargs="+", default=list(fanout_servers()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=200000, help="of each run, about")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    everything = []
    print_head(f"{'members':>7} {'size':>6} {'pub':>4}", options.servers)
    for publishing in options.publishing:
        publishers, window = publishing.split("x")
        for members in options.members:
            for size in options.sizes:
                messages = max(options.deliveries // (members - 1), 200)

                def measure(server):
                    used, report = benchmark(server, "/room", "-c", members, "-m", messages,
                                             "--publishers", publishers, "--window", window,
                                             "--message-size", size)
                    return used and used / report["delivered"] * 1e6, report

                figures, p99 = compare(options.servers, fanout_servers(), options.rounds, measure)
                print_row(f"{members:7} {size:6} {publishing:>4}", options.servers, figures,
                          YARDSTICK, "s/M")
                everything.append({"members": members, "size": size, "publishing": publishing,
                                   "cpu_seconds_per_million": figures, "p99_ms": p99})
    if options.json:
        with open(options.json, "w") as f:
            json.dump(everything, f, indent=1)


if __name__ == "__main__":
    main()
