# SPDX-License-Identifier: MIT
"""Commands wsbind-faults: which call fails, and how. tests/unit/fault.h has the layout."""

import errno
import mmap
import struct
import tempfile

from proto import binary

SHORT = -1  # instead of an errno: one byte goes through
FOREVER = 1 << 62
PLAN = struct.Struct("16sQQQqQ")  # name, calls, from, times, error, hits
KINDS = ("alloc", "mmap", "accept4", "epoll_ctl", "epoll_wait", "recv", "send", "eventfd", "open",
         "listen", "write", "pthread_create", "fallocate")


def program():
    """The daemon that was linked with tests/unit/fault.c."""
    return binary().with_name("wsbind-faults")


class Faults:
    """A file that the daemon maps; name it to the daemon as .env."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="wsbind-faults-")
        self.file.truncate(PLAN.size * len(KINDS))
        self.map = mmap.mmap(self.file.fileno(), 0)
        self.env = {"WSBIND_FAULTS": self.file.name}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.map.close()
        self.file.close()

    def _read(self, kind):
        return PLAN.unpack_from(self.map, PLAN.size * KINDS.index(kind))

    def _write(self, kind, field, value):
        offset = PLAN.size * KINDS.index(kind) + 8 + 8 * field
        struct.pack_into("q", self.map, offset, value)

    def check_layout(self):
        """Once it has started: both sides mean the same."""
        names = tuple(self._read(kind)[0].rstrip(b"\0").decode() for kind in KINDS)
        assert names == KINDS, names

    def calls(self, kind):
        return self._read(kind)[1]

    def fail(self, kind, error, nth=1, times=1):
        """Of the calls from now on the nth (1: the next) fails, times in a row."""
        self._write(kind, 3, 0)
        self._write(kind, 5, 0)
        self._write(kind, 4, error)
        self._write(kind, 2, self.calls(kind) + nth - 1)
        self._write(kind, 3, times)

    def end(self, kind):
        """None fails any more; how many did."""
        self._write(kind, 3, 0)
        return self._read(kind)[5]


def name_of(error):
    return "SHORT" if error == SHORT else errno.errorcode[error]
