# SPDX-License-Identifier: MIT
"""The threads of a daemon, and one of them that stands still."""

import ctypes
import os
from pathlib import Path

from daemon import wait_until


def threads(pid):
    """Thread ids by name."""
    return {(task / "comm").read_text().strip(): int(task.name)
            for task in Path(f"/proc/{pid}/task").iterdir()}


def thread(pid, name):
    """The id of the one with this name, which it gives itself a moment after it was started."""
    return wait_until(lambda: threads(pid).get(name), f"a thread has the name {name}")


class Stopped:
    """One thread stopped as under a debugger; the others go on."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, tid):
        self.tid = tid
        self.libc = ctypes.CDLL(None, use_errno=True)

    def _ptrace(self, what):
        if self.libc.ptrace(what, self.tid, None, None) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {what:#x}")

    def __enter__(self):
        self._ptrace(self.SEIZE)
        self._ptrace(self.INTERRUPT)
        os.waitpid(self.tid, 0x40000000)  # __WALL
        return self

    def has_ended(self):
        """Whether the thread was killed. Only when this has been seen its process can end."""
        return self.libc.waitpid(self.tid, None, 0x40000001) == self.tid  # __WALL | WNOHANG

    def __exit__(self, *_):
        try:
            self._ptrace(self.DETACH)
        except OSError:
            pass  # it was ended meanwhile
