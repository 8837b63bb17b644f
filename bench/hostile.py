#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What hostile clients, and bad weather, do to the others. Each row is a kind of attack, in a daemon
of its own: a good pair of clients and pings to every worker measure without the attack first, then
with it. A row says what must hold, and whether it does.

Of the good pair: p50 and p99 of a message, in ms. Turn: the longest that a loop worked before it
answered a ping, by the clock of its thread; pause: by the wall. CPU: the daemon's, percent of one
processor. Peak: of its memory, beside what its ready line says. Exit status: 0 everything holds, 1
not so.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

import hostile_memory
import hostile_rest
import hostile_work
from common import raise_descriptors

CASES = {
    1: hostile_work.unpacks_past_the_limit,
    2: hostile_work.tables_without_data,
    3: hostile_work.unpacks_for_others,
    4: hostile_work.tls_handshakes,
    5: hostile_memory.backlog,
    6: hostile_memory.hand_over_under_load,
    7: hostile_memory.standstill,
    8: hostile_memory.own_messages,
    9: hostile_memory.notices,
    10: hostile_work.large_channels,
    11: hostile_work.chosen_names,
    12: hostile_work.long_lists,
    13: hostile_rest.spreading,
    14: hostile_rest.spool,
    15: hostile_memory.announced,
    16: hostile_rest.shared_tables,
    17: hostile_rest.hand_over_refused,
    18: hostile_memory.files,
}
FIGURES = ("p50", "p99", "turn", "pause", "cpu")


def merge(values):
    """Several of the same shape: medians of numbers, of everything else the first."""
    first = values[0]
    if isinstance(first, dict):
        keys = {k: None for v in values for k in v}
        return {k: merge([v[k] for v in values if k in v]) for k in keys}
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return median(v for v in values if v is not None)
    return first


def judge(checks):
    """The same check in all rounds: its medians, and whether they hold."""
    check = merge(checks)
    if check["is_ok"] is not None:
        check["is_ok"] = (check["value"] <= check["bound"] if check["sign"] == "<="
                          else check["value"] >= check["bound"])
    return check


def middle(rounds):
    """The parts of a row, each the median of its rounds."""
    parts = []
    for same in zip(*rounds):
        part = merge([{k: p[k] for k in ("name", "without", "with", "promise")} for p in same])
        part["checks"] = [judge(checks) for checks in zip(*(p["checks"] for p in same))]
        parts.append(part)
    return parts


def number(x):
    if not isinstance(x, (int, float)):
        return str(x)
    return f"{x:.0f}" if x == int(x) or abs(x) >= 100 else f"{x:.2f}"


def show(part):
    before, after = part["without"], part["with"]
    name = part["name"] or "all of it"
    pairs = [f"{f} {number(before[f]):>6} ->{number(after[f]):>7}" if f in before and f in after
             else f"{f} {number(after[f]):>7}" for f in FIGURES if f in after]
    closes = " ".join(f"{number(n)} x {code}" for code, n in after["closes"].items()) or "none"
    print(f"    {name}: {'  '.join(pairs)}  peak {after['peak'] / 2**20:.0f} of "
          f"{part['promise'] / 2**20:.0f} MiB  closes: {closes}")
    for c in part["checks"]:
        verdict = {True: "ok", False: "NOT OK", None: ""}[c["is_ok"]]
        bound = f" {c['sign']} {number(c['bound'])}" if c["is_ok"] is not None else ""
        print(f"      {verdict:7}{c['name']}: {number(c['value'])}{bound} {c['unit']}".rstrip())
    sys.stdout.flush()


def run(case, workers, rounds):
    """All rounds of a case; what it printed is its medians."""
    function = CASES[case]
    print(f"{case:2}  {' '.join(function.__doc__.split())}", flush=True)
    begin = time.monotonic()
    reports = [function(workers) for _ in range(rounds)]
    parts = middle(reports)
    for part in parts:
        show(part)
    holds = all(c["is_ok"] is not False for p in parts for c in p["checks"])
    print(f"    {'holds' if holds else 'DOES NOT HOLD'}, {time.monotonic() - begin:.0f} s",
          flush=True)
    return {"case": case, "workers": workers, "is_ok": holds, "rounds": reports}


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=numbers, default=list(CASES), metavar="N,N", help="cases")
    parser.add_argument("--workers", type=numbers, default=[1, 2], metavar="N,N",
                        help="worker_threads, one after the other")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    options = parser.parse_args()
    raise_descriptors()
    # What else goes on shares processors with the load; let it have little of them meanwhile.
    if os.geteuid() == 0 and Path("/proc/self/autogroup").exists():
        Path("/proc/self/autogroup").write_text("-10")
    rows = []
    for workers in options.workers:
        print(f"# {workers} worker{'s' if workers > 1 else ''}")
        rows += [run(case, workers, options.rounds) for case in options.only]
        if options.json:
            Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    failing = [f"{r['case']} ({r['workers']})" for r in rows if not r["is_ok"]]
    print(f"{len(rows) - len(failing)} of {len(rows)} rows hold"
          + (f"; not: {', '.join(failing)}" if failing else ""))
    sys.exit(bool(failing))


if __name__ == "__main__":
    main()
