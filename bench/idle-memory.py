#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What an idle connection costs the daemon: opens many, each says CONTROL/CONNECT and hears its
ACKNOWLEDGE, and then nothing happens. Prints by how much resident memory has grown, for each.
"""

import argparse
import select
import time

from common import (CONNECT_REQUEST_ID, Daemon, connect_message, fail, handshake, open_socket,
                    raise_descriptors)

AT_ONCE = 200          # handshakes under way
SPARE_DESCRIPTORS = 100
SETTLE_SECONDS = 3     # the daemon gives back idle memory once a second
STUCK_SECONDS = 30


def open_all(port, n, own_channel):
    """n sockets, each acknowledged."""
    poll = select.epoll()
    waiting, done, opened = {}, [], 0
    progress = time.monotonic()
    while len(done) < n:
        while opened < n and len(waiting) < AT_ONCE:
            s = open_socket(port)
            s.sendall(handshake(f"/channel/{opened}" if own_channel else "/"))
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
                s.sendall(connect_message(b"%036d" % len(done)))
                entry[2] = True
            if CONNECT_REQUEST_ID in heard:
                poll.unregister(s)
                del waiting[fd]
                done.append(s)
                progress = time.monotonic()
        if time.monotonic() > progress + STUCK_SECONDS:
            fail(f"stuck at {len(done)} connections")
    poll.close()
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip())
    parser.add_argument("-n", type=int, default=10000, help="connections (10000)")
    parser.add_argument("--own-channel", action="store_true", help="a channel for each")
    parser.add_argument("--limit", type=float, metavar="BYTES",
                        help="exit status 1 when a connection costs more")
    options = parser.parse_args()
    possible = raise_descriptors() - SPARE_DESCRIPTORS
    if options.n > possible:
        fail(f"at most {possible} connections with this limit of open files (ulimit -Hn)")
    with Daemon(notice_limit=0, max_connections=options.n, max_channels=max(options.n, 100000),
                ping_interval="1h", heartbeat_timeout="24h") as daemon:
        time.sleep(1)
        before = daemon.rss()
        began = time.monotonic()
        sockets = open_all(daemon.port, options.n, options.own_channel)
        took = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        after = daemon.rss()
        there = int(daemon.metric("websocket_active_connections"))
        channels = int(daemon.metric("websocket_channels"))
        for s in sockets:
            s.close()
    if there != options.n:
        fail(f"{there} connections are there, not {options.n}")
    each = (after - before) / options.n
    print(f"{options.n} connections in {channels} channels, opened in {took:.1f} s")
    print(f"Rss {before // 1024} KiB before, {after // 1024} KiB after: {each:.0f} bytes each")
    if options.limit is not None and each > options.limit:
        fail(f"more than {options.limit:g} bytes each")


if __name__ == "__main__":
    main()
