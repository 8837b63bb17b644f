#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Instructions that each delivery, echo, handshake and message takes in user space, by callgrind,
compared with the figures of guard.json: guard.py PROGRAM [--update] [CASE ...]

They hold for one compiler and one processor family (libraries choose code by processor). A
machine of another kind has nothing to compare with: its cases are skipped, and say so. More than
2 % above the kept figure is a failure; much less is told, so that --update keeps the gain.
Output is TAP.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).with_name("guard.json")
TOLERANCE = 0.02
# case: how often, and how many of what is counted that makes
CASES = {"delivery": (400, 999), "batch": (100, 16 * 999), "echo": (20000, 1),
         "echoes": (4000, 32), "handshake": (500, 1), "ingest": (400, 1)}


def instructions(program, case, times):
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case,
         str(times)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "CMOCKA_MESSAGE_OUTPUT": "STDOUT"})
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"guard.py: {case}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return int(found[1])


def measure(program, case):
    times, each = CASES[case]
    once, twice = (instructions(program, case, n) for n in (times, 2 * times))
    if twice < 1.2 * once:
        sys.exit(f"guard.py: {case}: {times} times cost {once}, twice that {twice}: mostly start")
    return (twice - once) / times / each


def kind_of_machine():
    compiler = subprocess.run([*shlex.split(os.environ.get("CC", "cc")), "--version"], capture_output=True,
                              text=True, check=True).stdout.splitlines()[0]
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    # What valgrind makes of a processor depends on this alone.
    wide = [f for f in ("avx2", "sse4_2") if flags and f in flags[1].split()]
    return f"{os.uname().machine} {wide[0] if wide else '-'}, {compiler}"


def compare(now, before, is_update):
    """Returns passed, failed or skipped, and in words how it differs."""
    if is_update:
        return "passed", ", kept"
    if not before:
        return "skipped", ""
    change = now / before - 1
    text = f", {change * 100:+.2f} % beside {before:.1f}"
    if change > TOLERANCE:
        return "failed", text + ": more than allowed"
    return "passed", text + (": less, keep it with UPDATE=1" if change < -TOLERANCE else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip())
    parser.add_argument("program")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--update", action="store_true", help="keep what is measured")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    machine = kind_of_machine()
    figures = kept.setdefault(machine, {})
    count = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for n, case in enumerate(options.cases, 1):
        now = measure(options.program, case)
        result, text = compare(now, figures.get(case), options.update)
        if result == "skipped":
            text += f" # SKIP no figure is kept for {machine}"
        print(f"{'not ok' if result == 'failed' else 'ok'} {n} - guard: {case}, "
              f"{now:.1f} instructions{text}", flush=True)
        count[result] += 1
        if options.update:
            figures[case] = round(now, 1)
    if options.update:
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print("# " + ", ".join(f"{n} {result}" for result, n in count.items()))
    return count["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
