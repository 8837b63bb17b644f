# SPDX-License-Identifier: MIT
"""
What the tests inside a booted machine use: systemctl, the journal, the service, and the clients
of the integration tests.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
sys.dont_write_bytecode = True

from daemon import DEADLINE, UnixConnection, wait_until  # noqa: E402
from threads import Stopped, thread  # noqa: E402
from proto import *  # noqa: E402,F403
from raw import *  # noqa: E402,F403

UNIT = "wsbind.service"
ETC = Path("/etc")
UNITS = Path("/etc/systemd/system")
CONTROL_SOCKET = "/run/wsbind/control.sock"


class Skip(Exception):
    """Raised by a test that cannot run here; the text says why."""


def run(*command, ok=True, timeout=60):
    """Runs a command; returns what it printed (both streams) when it succeeds as expected."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    text = done.stdout.decode(errors="replace")
    if ok is not None:
        assert (done.returncode == 0) == ok, f"{command}: status {done.returncode}\n{text}"
    return text


def systemctl(*arguments, ok=True, timeout=60):
    return run("systemctl", *arguments, ok=ok, timeout=timeout)


def show(prop, unit=UNIT):
    return systemctl("show", "--value", "-p", prop, unit).strip()


def journal(*arguments):
    """What journalctl prints of these as dicts, oldest first."""
    run("journalctl", "--sync")
    text = run("journalctl", "-q", "--no-pager", "-o", "json", "--all", *arguments, ok=None)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def entries(*match, since=None):
    """
    Those after a cursor() that have all the fields. (journalctl 252 itself, told to show what
    matches after a cursor that doesn't, leaves out the first one.)
    """
    fields = [m.split("=", 1) for m in match]
    place = [f"--after-cursor={since}"] if since else []
    return [e for e in journal(*place) if all(e.get(k) == v for k, v in fields)]


def cursor():
    """A place in the journal: what comes after it."""
    run("journalctl", "--sync")
    return run("journalctl", "-q", "-n", "1", "-o", "cat",
               "--show-cursor").rsplit("-- cursor: ", 1)[1].strip()


def lines(pattern, since=None, *match):
    """Messages of wsbind that a pattern is found in."""
    found = [e.get("MESSAGE") for e in entries(*(match or ("SYSLOG_IDENTIFIER=wsbind",)),
                                              since=since)]
    return [m for m in found if isinstance(m, str) and re.search(pattern, m)]


def catalog_ids():
    """MESSAGE_ID by the name of the event."""
    text = (HERE.parents[1] / "src/io/log_events.h").read_text()
    return dict(re.findall(r'EVENT\((\w+), "(\w+)"', text))


class Service:
    """wsbind.service as an administrator has it."""

    host, port = "127.0.0.1", 8080

    def configure(self, **settings):
        """Writes /etc/wsbind.conf anew."""
        (ETC / "wsbind.conf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))

    def drop_in(self, text, name="test.conf", unit=UNIT):
        folder = UNITS / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        systemctl("daemon-reload")

    def example(self, name, unit=UNIT):
        self.drop_in((HERE.parents[1] / "systemd/examples" / name).read_text(), name, unit)

    def start(self):
        systemctl("start", UNIT)
        return self

    def pid(self):
        return int(show("MainPID"))

    def ask(self, path, method="GET", control=CONTROL_SOCKET):
        connection = UnixConnection(control)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def metric(self, name):
        text = self.ask("/metrics")[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if re.match(rf"{name}[{{ ]", line))

    def reset(self):
        """As it was installed, and not running."""
        for unit in ("wsbind.socket", UNIT):
            systemctl("stop", unit, ok=None)
            systemctl("disable", unit, ok=None)
            systemctl("reset-failed", unit, ok=None)
        for folder in UNITS.glob("wsbind*.d"):
            shutil.rmtree(folder)
        shutil.rmtree(ETC / "wsbind", ignore_errors=True)
        shutil.rmtree(ETC / "wsbind.conf.d", ignore_errors=True)
        (ETC / "wsbind.conf").unlink(missing_ok=True)
        systemctl("daemon-reload")
