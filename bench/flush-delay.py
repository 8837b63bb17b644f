#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What flush_delay saves and costs: messages at a fixed rate to one channel, with and without it, in
rounds that take turns. Printed: the server's processor time for a million deliveries, the p99, and
both beside those of flush_delay = 0.
"""

import argparse
import statistics

from peers import Wsbind, benchmark, compare, cpu_per_million, figures_of, print_head, save


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", nargs="+", default=["0", "2ms"], help="the first is compared with")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--publishers", type=int, default=8)
    parser.add_argument("--rate", type=int, default=2000, help="messages a second")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of a round")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    servers = {d: lambda d=d: Wsbind(flush_delay=d) for d in options.delays}
    reports = compare(
        options.delays, servers, options.rounds,
        lambda server: benchmark(server, "/room", "-c", options.members, "--publishers",
                                 options.publishers, "--rate", options.rate, "--window", 1000,
                                 "-m", int(options.rate * options.seconds), "--message-size",
                                 options.size))
    cpu = {d: statistics.median(v) for d, v in figures_of(reports, cpu_per_million).items()}
    p99 = {d: statistics.median(r["latency_ms"]["p99"] for r in rs) for d, rs in reports.items()}
    print_head(f"{'delay':>6}", ["processor s/M", "less", "p99 ms", "more ms"])
    first = options.delays[0]
    for d in options.delays:
        figures = cpu[d], cpu[first] / cpu[d], p99[d], p99[d] - p99[first]
        print(f"{d:>6}  " + "  ".join(f"{f:20.2f}" for f in figures))
    save(options.json, reports)


if __name__ == "__main__":
    main()
