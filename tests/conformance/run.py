#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Looks how well a WebSocket server keeps to RFC 6455 and, if it does permessage-deflate, RFC 7692.

With a URL, any server that echoes text and binary messages at ws://HOST:PORT/PATH; it should take
messages and frames of 16 MiB, and as many as come. Without one, the program that WSBIND
names (build/release/wsbind) is started for the time being. A case of the catalogue is OK; or
NON-STRICT, where the standard allows what was seen but advises something better; or FAILED; or
UNSUPPORTED, which is skipped for other servers and failed by ours. Output is TAP with a summary at
the end, the exit status 0 if all is well, 1 if not, 2 if nothing ran.
"""

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True

# Each of these registers the cases of some sections.
import framing  # pylint: disable=wrong-import-position,unused-import
import pings  # pylint: disable=wrong-import-position,unused-import
import fragments  # pylint: disable=wrong-import-position,unused-import
import utf8  # pylint: disable=wrong-import-position,unused-import
import closing  # pylint: disable=wrong-import-position,unused-import
import limits  # pylint: disable=wrong-import-position,unused-import
import deflate  # pylint: disable=wrong-import-position,unused-import
import offers  # pylint: disable=wrong-import-position,unused-import
from catalogue import choose  # pylint: disable=wrong-import-position
from peer import Failed, Peer, Settings, Unsupported  # pylint: disable=wrong-import-position

OK, NON_STRICT, FAILED, UNSUPPORTED = "OK", "NON-STRICT", "FAILED", "UNSUPPORTED"
FULL = 1000  # messages of each kind in 12 and 13, as in the catalogue
DEADLINES = "deadline", "fail_fast", "prompt", "whole"
ECHO = {"echo_path": "/echo", "max_incoming_frames_per_second": 0, "max_frame_size": "16M",
        "max_message_size": "16M"}


def run_case(case, settings):
    """Returns verdict, what there is to say of it, and the seconds it took."""
    began = time.monotonic()
    said = []
    try:
        with Peer(settings, notes=said) as peer:
            case.function(peer, *case.args)
        verdict = NON_STRICT if said else OK
    except Unsupported as e:
        verdict, said = UNSUPPORTED, [str(e)]
    except (Failed, OSError) as e:
        verdict, said = FAILED, [str(e) or type(e).__name__]
    except Exception:  # pylint: disable=broad-except
        verdict, said = FAILED, traceback.format_exc().splitlines()
    return verdict, said, time.monotonic() - began


class Report:
    """Counts verdicts and prints a line for each."""

    def __init__(self, allow_non_strict, allow_unsupported):
        self.allowed = {OK} | ({NON_STRICT} if allow_non_strict else set())
        self.allow_unsupported = allow_unsupported
        self.lines = 0
        self.count = Counter()
        self.bad = False

    def line(self, ok, text, said=()):
        self.lines += 1
        self.bad = self.bad or not ok
        print("ok" if ok else "not ok", self.lines, "-", text)
        for line in said:
            print("#", line)
        sys.stdout.flush()

    def case(self, case, verdict, said, seconds):
        self.count[verdict] += 1
        if verdict == UNSUPPORTED and self.allow_unsupported:
            self.line(True, f"{case.number} {case.title} # SKIP {said[0]}")
            return
        shown = "" if verdict == OK else f"{verdict}: "
        self.line(verdict in self.allowed,
                  f"{case.number} {shown}{case.title} ({seconds:.1f} s)", said)

    def summary(self):
        last = (UNSUPPORTED,) if self.count[UNSUPPORTED] else ()
        return ", ".join(f"{self.count[v]} {v}" for v in (OK, NON_STRICT, FAILED, *last))


def run_all(cases, settings, at_once, report):
    """Some at a time; the lines come in the catalogue's order."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for case, result in zip(cases, pool.map(lambda c: run_case(c, settings), cases)):
                report.case(case, *result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_own(cases, settings, at_once, report):
    """All of it against the program under test, of which nothing may be left at the end."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
    from daemon import Daemon, wait_until  # pylint: disable=import-outside-toplevel
    daemon = Daemon(**ECHO)
    said = []
    try:
        with daemon:
            url = f"ws://{daemon.host}:{daemon.port}{ECHO['echo_path']}"
            run_all(cases, settings._replace(url=url), at_once, report)
            for name in "websocket_active_connections", "websocket_reassembly_bytes":
                wait_until(lambda n=name: daemon.metric(n) == 0, f"{name} 0")
    except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
        said = [str(e), *daemon.end_of_log().splitlines()]
    report.line(not said, "the daemon starts, holds nothing afterwards, ends as it should", said)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", metavar="URL")
    parser.add_argument("-c", "--case", nargs="+", action="extend", default=[], metavar="NUMBER",
                        help="only these, or all that begin so: 5 6.4")
    parser.add_argument("-x", "--exclude", nargs="+", action="extend", default=[],
                        metavar="NUMBER", help="not these")
    parser.add_argument("-j", type=int, default=4, metavar="N", help="cases at once (4)")
    parser.add_argument("-l", "--list", action="store_true", help="list the cases")
    parser.add_argument("--full", action="store_true",
                        help=f"{FULL} messages in each case of 12 and 13 instead of "
                             f"{Settings._field_defaults['messages']}")
    parser.add_argument("--allow-non-strict", action="store_true", help="NON-STRICT is ok")
    parser.add_argument("--slow", type=float, metavar="FACTOR",
                        default=float(os.environ.get("WSBIND_TEST_SLOW", "1")),
                        help="stretches all deadlines ($WSBIND_TEST_SLOW, or 1)")
    return parser.parse_args()


def main():
    options = parse()
    cases = choose(options.case, options.exclude)
    if options.list:
        print("\n".join(f"{c.number} {c.title}" for c in cases))
        return 0
    if not cases:
        print("Bail out! no such case")
        return 2
    report = Report(options.allow_non_strict, allow_unsupported=bool(options.url))
    began = time.monotonic()
    print(f"1..{len(cases) + (not options.url)}")
    plain = Settings(options.url)
    settings = plain._replace(**{name: getattr(plain, name) * options.slow
                                 for name in DEADLINES})
    if options.full:
        settings = settings._replace(messages=FULL, whole=settings.whole * 100)
    run = run_all if options.url else run_own
    run(cases, settings, options.j, report)
    print(f"# {time.monotonic() - began:.0f} s")
    print(report.summary())
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
