# SPDX-License-Identifier: MIT
"""A stop that waits for nobody, while requests to the control socket and a reload are open."""

from harness import *

OPEN = 40  # requests
WORKERS = 8  # most requests go through all of them, one after another
REQUESTS = ["GET /clients", "POST /disconnect?id=00000000-0000-4000-8000-000000000000",
            "POST /publish?channel=nobody", "POST /reload"]


def begin_requests(d, n):
    """So many connections with all of a request but its last line."""
    sockets = []
    for i in range(n):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(DEADLINE)
        s.connect(str(d.control_socket))
        s.sendall(f"{REQUESTS[i % len(REQUESTS)]} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                  "Content-Type: text/plain\r\n".encode())
        sockets.append(s)
    # Connections are taken in their order, so these were.
    assert d.ask("GET", "/healthz").status == 200
    return sockets


def read_to_end(s):
    """What came until the end, which may be a reset."""
    came = b""
    try:
        while chunk := s.recv(65536):
            came += chunk
    except ConnectionResetError:
        pass
    s.close()
    return came


def stop_in_the_middle(in_between):
    """
    What happens while the daemon is suspended it finds in that order and all at once: requests,
    which its workers begin to answer, then the signals. in_between() may add to that.
    """
    with Daemon(worker_threads=WORKERS, shutdown_timeout=0, log_connections="no") as d:
        clients = [RawClient(d, f"/{i}") for i in range(20)]
        sockets = begin_requests(d, OPEN)
        d.suspend()
        for s in sockets:
            s.sendall(b"\r\n")
        sockets += in_between(d)
        d.signal(signal.SIGHUP)
        d.signal(signal.SIGTERM)
        d.signal(signal.SIGCONT)
        d.stop()
        answers = [read_to_end(s) for s in sockets]
        for c in clients:
            c.close()
        # What was begun is finished, the rest turned away; one reload runs at a time.
        statuses = [a.split(b" ", 2)[1:2] for a in answers[:OPEN]]
        assert statuses[0::4] == [[b"200"]] * (OPEN // 4), statuses[0::4]
        assert statuses[1::4] == [[b"404"]] * (OPEN // 4), statuses[1::4]
        assert statuses[2::4] == [[b"200"]] * (OPEN // 4), statuses[2::4]
        assert [b"200"] in statuses[3::4], statuses[3::4]
        assert all(s in ([b"200"], [b"503"]) for s in statuses[3::4]), statuses[3::4]
        for a in answers[OPEN:]:
            assert not a or a.startswith(b"HTTP/1.1 "), a[:100]


def test_stop_while_requests_are_open():
    for _ in range(5):
        stop_in_the_middle(lambda d: [])


def test_stop_while_requests_are_not_even_read():
    def knock(d):
        sockets = []
        for request in REQUESTS * 5:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.settimeout(DEADLINE)
            s.connect(str(d.control_socket))
            s.sendall(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            sockets.append(s)
        return sockets

    for _ in range(5):
        stop_in_the_middle(knock)
