#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Runs the integration tests: run.py [-j N] [-l] [FILTER …]

A filter is the beginning of a file's name, or with a colon of a test's too: 40-channels,
40-channels:test_order. Each file runs in a child of its own, two at a time. Output is TAP. WSBIND
names the program under test; WSBIND_TEST_SLOW stretches all deadlines, for sanitizers.
"""

import argparse
import asyncio
import faulthandler
import importlib.util
import inspect
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True

import harness  # pylint: disable=wrong-import-position
from daemon import Daemon, running  # pylint: disable=wrong-import-position
from proto import SLOW, binary  # pylint: disable=wrong-import-position

TEST_SECONDS = 60
SPARE_SECONDS = 30  # that the child has to report a missed deadline, before it is killed


class Missed(BaseException):
    """The deadline of a test passed. No Exception, so that no test catches it."""


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tests_of(module):
    return [f for name, f in vars(module).items()
            if name.startswith("test_") and inspect.isfunction(f)]


def deadline_of(test):
    return getattr(test, "seconds", TEST_SECONDS) * SLOW


class Child:
    """Inside the child: runs tests one after another and reports each on a pipe."""

    def __init__(self, module, report):
        self.module, self.report = module, report
        self.shared = None

    def tell(self, **event):
        self.report.write(json.dumps(event) + "\n")
        self.report.flush()

    def shared_daemon(self):
        if not self.shared:
            self.shared = Daemon(**getattr(self.module, "SETTINGS", {}))
            self.shared.__enter__()
        return self.shared

    def drop_shared(self, failed=False):
        shared, self.shared = self.shared, None
        if shared:
            shared.__exit__(*((Exception, None, None) if failed else (None, None, None)))

    def call(self, test):
        args = {"daemon": self.shared_daemon()} if "daemon" in inspect.signature(
            test).parameters else {}
        if inspect.iscoroutinefunction(test):
            asyncio.run(test(**args))
        else:
            test(**args)
        if args:
            assert self.shared.process.poll() is None, "the daemon is gone"

    def run(self, test):
        def missed(*_):
            faulthandler.dump_traceback(file=sys.__stderr__)
            raise Missed(f"no end within {deadline_of(test):g} s")

        signal.signal(signal.SIGALRM, missed)
        signal.setitimer(signal.ITIMER_REAL, deadline_of(test))
        try:
            self.call(test)
            return "ok", ""
        except harness.Skip as e:
            return "skip", str(e)
        except (Exception, Missed):  # pylint: disable=broad-except
            return "fail", traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def run_all(self, tests):
        for test in tests:
            self.tell(event="begin", test=test.__name__, seconds=deadline_of(test))
            result, text = self.run(test)
            if result == "fail":
                for d in running:
                    text += f"\nlog of {d.folder}:\n{d.end_of_log()}\n"
                    d.kill()
                self.drop_shared(failed=True)
                running.clear()
            self.tell(event=result, test=test.__name__, text=text)
        try:
            self.drop_shared()
        except Exception:  # pylint: disable=broad-except
            text = traceback.format_exc() + "".join(f"\n{d.end_of_log()}\n" for d in running)
            self.tell(event="fail", test="the shared daemon's stop", text=text)


class Job:
    """One file of tests and the child that runs what is left of it."""

    def __init__(self, path, tests):
        self.path, self.tests = path, tests
        self.module = None
        self.pid = None
        self.current = None
        self.began = self.kill_at = 0

    def start(self):
        """Forks; returns the pipe on which the child reports."""
        reader, writer = os.pipe()
        self.output = tempfile.TemporaryFile("w+")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(reader)
            os.dup2(self.output.fileno(), 1)
            os.dup2(self.output.fileno(), 2)
            Child(self.module, os.fdopen(writer, "w")).run_all(self.tests)
            sys.stdout.flush()
            os._exit(0)
        os.close(writer)
        self.kill_at = time.monotonic() + (TEST_SECONDS + SPARE_SECONDS) * SLOW
        self.partial = b""
        return reader

    def events(self, reader):
        """What the child has reported since; None at its end."""
        chunk = os.read(reader, 65536)
        *lines, self.partial = (self.partial + chunk).split(b"\n")
        return [json.loads(line) for line in lines] if chunk else None

    def end(self):
        """Ends the child and what it started; returns what it printed."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        self.output.seek(0)
        with self.output:
            return self.output.read()


class Runner:
    """Two files at a time, results as they come."""

    def __init__(self, jobs, total):
        self.waiting, self.total = jobs, total
        self.count = {"ok": 0, "fail": 0, "skip": 0}
        self.failed = []
        self.selector = selectors.DefaultSelector()

    def show(self, job, result, test, text):
        self.count[result] += 1
        name = f"{job.path.stem}: {test}"
        took = time.monotonic() - job.began
        note = f" # SKIP {text}" if result == "skip" else f" ({took:.1f} s)"
        print(f"{'not ok' if result == 'fail' else 'ok'} {sum(self.count.values())} - {name}{note}")
        if result == "fail":
            self.failed.append(name)
            print("\n".join("# " + line for line in text.splitlines()))
        sys.stdout.flush()

    def start(self, job):
        self.selector.register(job.start(), selectors.EVENT_READ, job)

    def event(self, job, event):
        if event["event"] == "begin":
            job.current = event["test"]
            job.began = time.monotonic()
            job.kill_at = job.began + event["seconds"] + SPARE_SECONDS * SLOW
            return
        self.show(job, event["event"], event["test"], event["text"])
        job.tests = [t for t in job.tests if t.__name__ != event["test"]]
        job.current = None

    def finish(self, key):
        """The child is gone, or has to go. What it did not come to goes to another one."""
        job = key.data
        self.selector.unregister(key.fileobj)
        os.close(key.fileobj)
        printed = job.end()
        if job.current:
            self.show(job, "fail", job.current, "the test's process died or hung\n" + printed)
            job.tests = [t for t in job.tests if t.__name__ != job.current]
            job.current = None
        if job.tests:
            self.start(job)

    def run(self, at_once):
        while self.waiting or self.selector.get_map():
            while self.waiting and len(self.selector.get_map()) < at_once:
                self.start(self.waiting.pop(0))
            for key, _ in self.selector.select(1):
                events = key.data.events(key.fileobj)
                for event in events or ():
                    self.event(key.data, event)
                if events is None:
                    self.finish(key)
            for key in list(self.selector.get_map().values()):
                if time.monotonic() > key.data.kill_at:
                    self.finish(key)


def choose(filters):
    jobs, total = [], 0
    for path in sorted(Path(__file__).parent.glob("[0-9R]*-*.py")):
        module = load(path)
        tests = [t for t in tests_of(module)
                 if not filters or any(f"{path.stem}:{t.__name__}".startswith(f) for f in filters)]
        if tests:
            job = Job(path, tests)
            job.module = module
            jobs.append(job)
            total += len(tests)
    return jobs, total


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-j", type=int, default=2, metavar="N", help="files at once (2)")
    parser.add_argument("-l", action="store_true", help="list the tests")
    parser.add_argument("filter", nargs="*")
    options = parser.parse_args()
    jobs, total = choose(options.filter)
    if options.l:
        for job in jobs:
            print("\n".join(f"{job.path.stem}:{t.__name__}" for t in job.tests))
        return 0
    if not os.access(binary(), os.X_OK):
        print(f"Bail out! {binary()} is not there: run make first")
        return 2
    if not jobs:
        print("Bail out! no such test")
        return 2
    # Tests open more than the 1,024 files that a shell may have.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print(f"1..{total}")
    began = time.monotonic()
    runner = Runner(jobs, total)
    runner.run(options.j)
    count = runner.count
    print(f"# {count['ok']} passed, {count['fail']} failed, {count['skip']} skipped"
          f" in {time.monotonic() - began:.0f} s")
    for name in runner.failed:
        print(f"# failed: {name}")
    return 1 if count["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
