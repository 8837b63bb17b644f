#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What a delivery costs the server, beside the least that it can cost and beside peers.

Each cell of the table is a number of members, a size and a way of publishing. In a round every
server gets a run of it, one after the other, so that whatever else the machine does meets all;
the server is pinned to one processor, `wsbind benchmark` to another. What is compared is the
server's processor time (user and system) for a million deliveries: medians of the rounds, and
their ratio to `floor batched`.
"""

import argparse
import json
import statistics
import subprocess
import sys

from common import WSBIND, raise_descriptors
from peers import Running, cpu_seconds, fanout_servers, pin, settle

YARDSTICK = "floor batched"
SERVER_CPU, LOAD_CPU = {0}, {1}


def run(server, members, size, publishers, window, deliveries):
    """One run: (seconds of the server for a million deliveries, the benchmark's own report)."""
    messages = max(deliveries // (members - 1), 200)
    with Running(server, SERVER_CPU) as s:
        before = cpu_seconds(s.pid)
        done = subprocess.run(
            [WSBIND, "benchmark", "-u", f"ws://127.0.0.1:{s.port}/room", "-c", str(members),
             "-m", str(messages), "--publishers", str(publishers), "--window", str(window),
             "--message-size", str(size), "--json"],
            stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=pin(LOAD_CPU))
        settle(s.pid)
        used = cpu_seconds(s.pid) - before
    report = json.loads(done.stdout or "{}")
    if done.returncode or report.get("lost") or not report.get("delivered"):
        return None, done.stderr.decode().strip().splitlines()[-1:] or report
    return used / report["delivered"] * 1e6, report


def cell(names, servers, members, size, publishers, window, rounds, deliveries):
    seconds = {name: [] for name in names}
    latency = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            used, report = run(servers[name](), members, size, publishers, window, deliveries)
            if used is None:
                print(f"# {name}: {report}", file=sys.stderr)
                continue
            seconds[name].append(used)
            latency[name].append(report["latency_p99_ms"] if "latency_p99_ms" in report
                                 else report.get("latency_ms", {}).get("p99"))
    return seconds, latency


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
    servers, all_figures = fanout_servers(), []
    print(f"{'members':>7} {'size':>6} {'pub':>4}  " +
          "  ".join(f"{name:>22}" for name in options.servers))
    for publishing in options.publishing:
        publishers, window = (int(n) for n in publishing.split("x"))
        for members in options.members:
            for size in options.sizes:
                seconds, latency = cell(options.servers, servers, members, size, publishers,
                                        window, options.rounds, options.deliveries)
                middle = {n: statistics.median(v) for n, v in seconds.items() if v}
                base = middle.get(YARDSTICK)
                texts = []
                for name in options.servers:
                    text = "-"
                    if name in middle:
                        text = f"{middle[name]:6.2f} s/M"
                        if base:
                            text += f"  {middle[name] / base:5.2f} x"
                    texts.append(f"{text:>22}")
                print(f"{members:7} {size:6} {publishing:>4}  " + "  ".join(texts), flush=True)
                all_figures.append({"members": members, "size": size, "publishing": publishing,
                                    "cpu_seconds_per_million": seconds, "p99_ms": latency})
    if options.json:
        with open(options.json, "w") as f:
            json.dump(all_figures, f, indent=1)


if __name__ == "__main__":
    main()
