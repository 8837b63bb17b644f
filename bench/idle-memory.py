#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What an idle connection costs a server in resident memory: opens many, waits until nothing happens
any more, and prints by how much it has grown, for each. With wsbind, each says CONTROL/CONNECT with
a session id and two capabilities and hears its ACKNOWLEDGE, in one channel ("wsbind") or each in
one of its own ("wsbind, own"); with the others each has its 101.
A server that closes connections before all are there has no figure.
"""

import argparse
import select
import sys
import time

from common import (CONNECT_REQUEST_ID, READY_SECONDS, connect_message, fail, handshake, open_socket,
                    raise_descriptors)
from peers import FANOUT, Running, Wsbind, memory, print_head, save

AT_ONCE = 200  # handshakes under way
SPARE_DESCRIPTORS = 100
SETTLE_SECONDS = 3  # wsbind gives back idle memory once a second
STUCK_SECONDS = 30
QUIET = {"ping_interval": "1h", "heartbeat_timeout": "24h"}
SERVERS = {"wsbind": lambda: Wsbind(**QUIET), "wsbind, own": lambda: Wsbind(**QUIET),
           **{name: make for name, make in FANOUT.items()
              if name != "wsbind" and not name.startswith("floor")}}


def open_all(port, n, name):
    """n sockets, each acknowledged."""
    is_wsbind = name.startswith("wsbind")
    poll = select.epoll()
    waiting, done, opened = {}, [], 0
    progress = time.monotonic()
    while len(done) < n:
        while opened < n and len(waiting) < AT_ONCE:
            s = open_socket(port)
            s.sendall(handshake(f"/channel/{opened}" if name.endswith("own") else "/room"))
            poll.register(s, select.EPOLLIN)
            waiting[s.fileno()] = [s, b"", False]
            opened += 1
        for fd, _ in poll.poll(1):
            entry = waiting[fd]
            s, heard, said = entry
            more = s.recv(4096)
            if not more:
                fail(f"connection {len(done)} was closed: {heard[:200]!r}")
            entry[1] = heard = heard + more
            if not said and b"\r\n\r\n" in heard:
                if not heard.startswith(b"HTTP/1.1 101 "):
                    fail(f"handshake: {heard[:100]!r}")
                entry[2] = True
                if is_wsbind:
                    s.sendall(connect_message(b"%036d" % len(done)))
            if CONNECT_REQUEST_ID in heard or not is_wsbind and entry[2]:
                poll.unregister(s)
                del waiting[fd]
                done.append(s)
                progress = time.monotonic()
        if time.monotonic() > progress + STUCK_SECONDS:
            fail(f"stuck at {len(done)} connections")
    poll.close()
    return done


def measure_or_not(name, n):
    """Some servers don't hold that many, whatever they are told."""
    try:
        return measure(name, n)
    except ConnectionResetError:
        print(f"{name} does not hold {n} connections", file=sys.stderr)
        return {"server": name, "connections": n, "each": None}


def measure(name, n):
    with Running(SERVERS[name]()) as server:
        time.sleep(1)
        before, _ = memory(server.pid)
        sockets = open_all(server.port, n, name)
        time.sleep(SETTLE_SECONDS)
        after, _ = memory(server.pid)
        if name.startswith("wsbind"):
            end = time.monotonic() + READY_SECONDS
            while (there := server.daemon.metric("websocket_active_connections")) != n:
                if time.monotonic() > end:
                    fail(f"{there} connections are there, not {n}")
        for s in sockets:
            s.close()
    return {"server": name, "connections": n, "before": before, "after": after,
            "each": (after - before) / n}


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, nargs="+", default=[10000, 19000], help="connections")
    parser.add_argument("--servers", nargs="+", default=list(SERVERS))
    parser.add_argument("--limit", type=float, metavar="BYTES",
                        help="exit status 1 when a connection costs more")
    parser.add_argument("--json", metavar="FILE", help="all figures")
    options = parser.parse_args()
    possible = raise_descriptors() - SPARE_DESCRIPTORS
    if max(options.n) > possible:
        fail(f"at most {possible} connections with this limit of open files (ulimit -Hn)")
    rows = []
    print_head(f"{'':>11}", options.servers, "bytes of resident memory for each idle connection")
    for n in options.n:
        row = [measure_or_not(name, n) for name in options.servers]
        print(f"{n:11}  " + "  ".join("-".rjust(20) if r["each"] is None else f"{r['each']:20.0f}"
                                      for r in row), flush=True)
        rows += row
    save(options.json, rows)
    if options.limit is not None and max(r["each"] or 0 for r in rows) > options.limit:
        fail(f"more than {options.limit:g} bytes each")


if __name__ == "__main__":
    main()
