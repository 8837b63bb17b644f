#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What clients notice of `systemctl restart`, on a machine booted for it by tests/systemd/boot-systemd:
wsbind as it is installed, clients in one channel with some messages a second, and two more that see
one every 10 ms. Printed, for each number of clients: latency of that rhythm without a restart, then
with one in each round, whose longest is the pause; processor time of PID 1 for each restart, beside
that for restarting a service which only sleeps; the daemon's memory before and after all rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import READY_SECONDS, ROOT, fail

BUILD = Path(os.environ.get("BUILD", ROOT / "build/release")).resolve()
RHYTHM = 100  # messages a second
PROBE_SECONDS = 3
CROWD_RATE = 3  # messages a second, each to all
CONFIGURATION = """
notice_limit = 0
log_connections = no
max_incoming_frames_per_second = 0
"""
SLEEPER = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=sleep infinity\n"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def benchmark(path, *options):
    return subprocess.Popen(["wsbind", "benchmark", "-u", "ws://127.0.0.1:8080" + path, "--json",
                             "--message-size", "64", *[str(o) for o in options]],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate()
    if process.returncode:
        fail(f"messages were lost: {err.strip()}")
    return json.loads(out)


def manager_seconds():
    """Processor time of PID 1."""
    return int(Path("/proc/1/schedstat").read_text().split()[0]) / 1e9


def daemon_memory():
    pid = run("systemctl", "show", "-P", "MainPID", "wsbind").strip()
    fields = dict(line.split(":", 1)
                  for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def probe(action):
    """Latencies of two clients' rhythm, with @action in the middle."""
    process = benchmark("/probe", "-c", 2, "--publishers", 1, "--rate", RHYTHM,
                        "-m", RHYTHM * PROBE_SECONDS)
    time.sleep(PROBE_SECONDS / 3)
    before = manager_seconds()
    action()
    # What the manager does behind it counts, too.
    time.sleep(PROBE_SECONDS / 3)
    spent = manager_seconds() - before
    return {**finish(process)["latency_ms"], "manager_ms": spent * 1000}


def crowd(n, seconds):
    process = benchmark("/crowd", "-c", n, "--publishers", 1, "--rate", CROWD_RATE,
                        "-m", CROWD_RATE * seconds)
    end = time.monotonic() + 6 * READY_SECONDS
    while f"connections {n} " not in " ".join(run("wsbind", "status").split()) + " ":
        if process.poll() is not None or time.monotonic() > end:
            fail(f"{n} connections do not come")
        time.sleep(0.1)
    return process


def measure(n, rounds):
    """All figures for @n clients, on a daemon of its own."""
    run("systemctl", "restart", "wsbind")
    clients = crowd(n, int((2 * rounds + 2) * (PROBE_SECONDS + 1))) if n else None
    before = daemon_memory()
    row = {"clients": n, "undisturbed": [probe(lambda: None) for _ in range(rounds)]}
    row["restarted"] = [probe(lambda: run("systemctl", "restart", "wsbind"))
                        for _ in range(rounds)]
    row["memory"] = [before, daemon_memory()]
    if clients:
        finish(clients)
    run("systemctl", "stop", "wsbind")
    return row


def measure_sleeper(rounds):
    Path("/run/systemd/system/sleeper.service").write_text(SLEEPER)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "sleeper")
    spent = []
    for _ in range(rounds):
        before = manager_seconds()
        run("systemctl", "restart", "sleeper")
        time.sleep(PROBE_SECONDS / 3)
        spent.append((manager_seconds() - before) * 1000)
    run("systemctl", "stop", "sleeper")
    return spent


def middle(figures, name):
    return statistics.median(f[name] for f in figures)


def print_row(row):
    calm, restarted = row["undisturbed"], row["restarted"]
    pauses = [f["max"] for f in restarted]
    print(f"{row['clients']:8}  {middle(calm, 'p50'):7.2f} {middle(calm, 'p99'):7.2f} "
          f"{max(f['max'] for f in calm):7.2f}  {middle(restarted, 'p50'):7.2f} "
          f"{middle(restarted, 'p99'):7.2f}  {statistics.median(pauses):7.1f} {max(pauses):7.1f}  "
          f"{middle(restarted, 'manager_ms') - middle(calm, 'manager_ms'):7.2f}  "
          f"{row['memory'][0] / 1e6:7.1f} {row['memory'][1] / 1e6:7.1f}", flush=True)


def in_machine(options):
    Path("/etc/wsbind.conf").write_text(CONFIGURATION)
    sleeper = measure_sleeper(options.rounds)
    print(f"# PID 1 for restarting what only sleeps: {statistics.median(sleeper):.2f} ms")
    print("# latency in ms without a restart | with one in 3 s, and the longest: the pause | "
          "PID 1, ms each | daemon, MB")
    print(f"{'clients':>8}  {'p50':>7} {'p99':>7} {'max':>7}  {'p50':>7} {'p99':>7}  "
          f"{'pause':>7} {'max':>7}  {'PID 1':>7}  {'before':>7} {'after':>7}", flush=True)
    rows = []
    for n in options.clients:
        rows.append(measure(n, options.rounds))
        print_row(rows[-1])
    if options.json:
        Path(options.json).write_text(json.dumps({"sleeper": sleeper, "rows": rows}, indent=1)
                                      + "\n")


def boot(options):
    make = os.environ.get("MAKE", "make")
    folder = Path(tempfile.mkdtemp(prefix="restart-", dir=BUILD))
    command = [str(ROOT / "tests/systemd/boot-systemd"), "--timeout", "1800",
               "--bind", str(folder), "--prepare",
               f"{make} -s -C {ROOT} install O={BUILD} prefix=/usr sysconfdir=/etc >/dev/null",
               "--", sys.executable, str(Path(__file__).resolve()), "--in-machine",
               "--json", str(folder / "figures"), "--rounds", str(options.rounds),
               "--clients", *[str(n) for n in options.clients]]
    status = subprocess.run(command).returncode
    if status == 0 and options.json:
        Path(options.json).write_text((folder / "figures").read_text())
    (folder / "figures").unlink(missing_ok=True)
    folder.rmdir()
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[0, 1000, 5000, 9000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--in-machine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.exit(in_machine(options) if options.in_machine else boot(options))


if __name__ == "__main__":
    main()
