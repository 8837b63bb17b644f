#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What a client that has stopped reading costs the others. One publisher sends messages at a fixed
rate to readers that read, in rounds: without a stopped reader, with one, without, with. Prints the
latency from send to receipt of both kinds of rounds, and the ratio of their p99.
"""

import argparse
import os
import select
import struct
import time

from common import Daemon, fail, field, frame, handshake, open_socket

MAGIC = b"stopped?"
WARM_UP_SECONDS = 0.5 # of each round: the stopped reader's buffers fill meanwhile
DRAIN_SECONDS = 10


class Reader:
    """Reads frames and notes for each of the publisher's messages how long it took."""

    def __init__(self, port):
        self.socket = open_socket(port)
        self.socket.sendall(handshake())
        self.heard = bytearray()
        while b"\r\n\r\n" not in self.heard:
            self.heard += self.socket.recv(65536)
        del self.heard[:self.heard.index(b"\r\n\r\n") + 4]

    def take(self):
        """The numbers of the messages that are complete."""
        self.heard += self.socket.recv(1 << 18)
        numbers = []
        while len(self.heard) >= 4:
            head, n = 2, self.heard[1]
            if n == 126:
                head, n = 4, struct.unpack_from(">H", self.heard, 2)[0]
            elif n == 127:
                if len(self.heard) < 10:
                    break
                head, n = 10, struct.unpack_from(">Q", self.heard, 2)[0]
            if len(self.heard) < head + n:
                break
            at = self.heard.find(MAGIC, head, head + min(n, 64))
            if at >= 0:
                numbers.append(struct.unpack_from(">Q", self.heard, at + len(MAGIC))[0])
            del self.heard[:head + n]
        return numbers


class Run:
    """One publisher and its readers, over all rounds."""

    def __init__(self, daemon, options):
        self.daemon, self.options = daemon, options
        self.poll = select.epoll()
        self.readers = {}
        for _ in range(options.readers):
            r = Reader(daemon.port)
            self.readers[r.socket.fileno()] = r
            self.poll.register(r.socket, select.EPOLLIN)
        self.publisher = Reader(daemon.port)
        self.padding = os.urandom(options.size - len(MAGIC) - 8)
        self.sent = [] # when, by number

    def publish(self):
        data = MAGIC + struct.pack(">Q", len(self.sent)) + self.padding
        message = frame(field(1, 2) + field(4, field(1, data) + field(4, 1)))
        self.sent.append(time.monotonic())
        self.publisher.socket.sendall(message)

    def round(self, seconds):
        """Latencies of what is sent after the warm-up."""
        first, latencies, missing = len(self.sent), [], {}
        begin = time.monotonic()
        warm, end = begin + WARM_UP_SECONDS, begin + WARM_UP_SECONDS + seconds
        due = begin
        while True:
            now = time.monotonic()
            if now < end and now >= due:
                self.publish()
                due += 1 / self.options.rate
            elif now >= end and not any(missing.values()) and len(self.sent) > first:
                break
            if now > end + DRAIN_SECONDS:
                fail(f"{sum(missing.values())} messages have not arrived")
            if now < end:
                missing[len(self.sent) - 1] = missing.get(len(self.sent) - 1,
                                                          len(self.readers))
            wait = max(0, min(due, end) - time.monotonic()) if now < end else 0.1
            for fd, _ in self.poll.poll(wait):
                numbers = self.readers[fd].take()
                at = time.monotonic()
                for number in numbers:
                    missing[number] -= 1
                    if self.sent[number] >= warm:
                        latencies.append(at - self.sent[number])
        return latencies


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def show(name, values):
    print(f"{name:8} {len(values):7} messages   p50 {percentile(values, 50) * 1000:7.3f} ms"
          f"   p99 {percentile(values, 99) * 1000:7.3f} ms   max {max(values) * 1000:7.3f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip())
    parser.add_argument("--readers", type=int, default=8, help="readers that read (8)")
    parser.add_argument("--rate", type=float, default=200, help="messages a second (200)")
    parser.add_argument("--size", type=int, default=16384, help="bytes of a message (16384)")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind (4)")
    parser.add_argument("--seconds", type=float, default=3, help="of a round (3)")
    options = parser.parse_args()
    latencies = {False: [], True: []}
    with Daemon(slow_consumer="skip", notice_limit=0, max_incoming_frames_per_second=0) as daemon:
        run = Run(daemon, options)
        run.round(0.5)
        for _ in range(options.rounds):
            latencies[False] += run.round(options.seconds)
            stopped = open_socket(daemon.port, receive_buffer=4096)
            stopped.sendall(handshake())
            latencies[True] += run.round(options.seconds)
            skipped = daemon.metric("websocket_messages_skipped_total")
            stopped.close()
    show("without", latencies[False])
    show("with", latencies[True])
    ratio = percentile(latencies[True], 99) / percentile(latencies[False], 99)
    print(f"p99 with a stopped reader is {ratio:.2f} times that without; "
          f"it missed {skipped:.0f} messages in all")
    if skipped == 0:
        fail("the stopped reader was never slow: longer rounds, a higher rate or larger messages")


if __name__ == "__main__":
    main()
