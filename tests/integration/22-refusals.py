# SPDX-License-Identifier: MIT
"""Refusals: what the log says of each, and what a script in a page can read."""

import fcntl
import ssl

from harness import *
from pki import Folder

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = "Sec-WebSocket-Version: 13\r\n"
UPGRADE = "Upgrade: websocket\r\n"
CONNECTION = "Connection: Upgrade\r\n"
HOST = "Host: h\r\n"
GOOD = HOST + UPGRADE + CONNECTION + KEY + VERSION


def head(lines=GOOD, line="GET / HTTP/1.1"):
    return f"{line}\r\n{lines}\r\n".encode()


CAUSES = [
    (head(GOOD.replace(KEY, "")), 400, "no Sec-WebSocket-Key"),
    (head(GOOD.replace(KEY, "Sec-WebSocket-Key: c2hvcnQ=\r\n")), 400, "Sec-WebSocket-Key is not 16"),
    (head(GOOD + KEY), 400, "two lines of Sec-WebSocket-Key"),
    (head(GOOD + VERSION), 400, "two lines of Sec-WebSocket-Version"),
    (head(GOOD + "Origin: a\r\nOrigin: b\r\n"), 400, "two lines of Origin"),
    (head(GOOD + "Content-Length: 5\r\n"), 400, "a body, which no handshake has"),
    (head(GOOD + "Sec-WebSocket-Extensions: a=;\r\n"), 400, "Sec-WebSocket-Extensions is no list"),
    (head(GOOD.replace(CONNECTION, "Connection: close\r\n")), 400, "Connection does not name"),
    (head(GOOD.replace(HOST, "")), 400, "no Host"),
    (head(GOOD + HOST), 400, "two lines of Host"),
    (head(GOOD.replace(HOST, "Host: a b\r\n")), 400, "Host is no name"),
    (head(GOOD + "no colon\r\n"), 400, "a header line without a name"),
    (head(GOOD).replace(b"\r\n", b"\r", 1), 400, ".*does not end with CR LF"),
    (head(line="GET HTTP/1.1"), 400, "no request line of HTTP|the target is neither"),
    (head(line="GET / HTTP/x"), 400, ".*does not end with a version"),
    (head(line="GET nowhere HTTP/1.1"), 400, "the target is neither"),
    (head(line="GET / HTTP/3.0"), 505, "another version than HTTP/1.1"),
    (head(line="POST / HTTP/1.1"), 405, "another method than GET"),
    (head(GOOD.replace(UPGRADE, "")), 426, "no Upgrade: websocket"),
    (head(line="GET / HTTP/1.0"), 426, "HTTP/1.0, which has no upgrade"),
    (head(GOOD.replace(VERSION, "")), 426, "no Sec-WebSocket-Version"),
    (head(GOOD.replace("13", "8")), 426, "another Sec-WebSocket-Version"),
    (head(GOOD + "X: y\r\n" * 60), 431, "more than 64 headers"),
    (head(GOOD + "Cookie: " + "c" * 9000 + "\r\n"), 431, "a head of more than 8192 bytes"),
    (head(line="GET /%FF HTTP/1.1"), 404, ".*can be no channel's name"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS, on a port without it"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2, where HTTP/1.1 is spoken"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + head(), 400, "a PROXY protocol header, and"),
]


def test_each_cause_is_in_the_log():
    for raw, status, why in CAUSES:
        # Lines that clients provoke are limited: each has a daemon of its own.
        with Daemon() as d, RawClient(d, handshake=False) as c:
            c.send(raw)
            assert c.recv_head()[0] == status, why
            d.wait_log(f"was refused: handshake answered with {status} .*: ({why})")


def test_plain_http_on_the_port_of_tls():
    with Folder() as f:
        certificate, key = f.certificate("server")
        with Daemon(tls_port=0, tls_certificate=certificate, tls_key=key) as d:
            with socket.create_connection((d.host, d.tls_port)) as s:
                s.sendall(head())
                d.wait_log("TLS failed: plain HTTP, on a port with TLS")


def test_the_origin_that_came_is_named():
    with Daemon(allowed_origins="https://example.org") as d:
        for origin, shown in (("https://example.com", "https://example.com"), ("null", "null"),
                              ("https://x\x80\x1b[31m", None), ("x" * 300, "x" * 100 + r"\.\.\.")):
            since = len(d.log)
            with RawClient(d, handshake=False) as c:
                c.send(head(GOOD + f"Origin: {origin}\r\n"))
                status = c.recv_head()[0]
            if shown:
                assert status == 403
                d.wait_log(f"pages of its origin may not connect: {shown}", since=since)


def closing(d, path="/", lines=GOOD):
    """The ERROR and the Close of somebody who is let through the handshake to be told."""
    with RawClient(d, handshake=False) as c:
        c.send(head(lines, f"GET {path} HTTP/1.1"))
        assert c.recv_head()[0] == 101
        error = Message.FromString(c.recv_message()).control
        f = c.recv_frame()
        assert f.opcode == CLOSE
        c.expect_end()
        return error, struct.unpack(">H", f.payload[:2])[0], f.payload[2:].decode()


def test_refusals_that_a_page_can_read():
    with Daemon(refuse_by_close="yes", allowed_origins="https://example.org") as d:
        error, code, reason = closing(d, lines=GOOD + "Origin: https://evil.example\r\n")
        assert (error.type, error.code, code) == (ERROR, 403, 4403)
        assert error.reason == reason == "This connection is not allowed."
        assert closing(d, "/%FF")[1] == 4404
        # What is no handshake has nothing to be let through.
        with RawClient(d, handshake=False) as c:
            c.send(head(GOOD.replace(UPGRADE, "")))
            assert c.recv_head()[0] == 426
        wait_until(lambda: d.metric("websocket_active_connections") == 0, "they are gone")
        assert d.reload(refuse_by_close="no").status == 200
        with RawClient(d, handshake=False) as c:
            c.send(head(GOOD + "Origin: https://evil.example\r\n"))
            assert c.recv_head()[0] == 403


def test_limits_that_a_page_can_read():
    for limit, seen in (("max_connections", (503, 4503)), ("max_connections_per_ip", (429, 4429))):
        with Daemon(refuse_by_close="yes", **{limit: 1}) as d, RawClient(d):
            error, code, _ = closing(d)
            assert (error.code, code) == seen
            assert error.reconnect_after_ms == 1000


async def test_a_client_that_is_not_allowed_does_not_come_back():
    with Daemon(refuse_by_close="yes", auth="jwt", jwt_key_file="/dev/null", ready=False) as d:
        assert d.wait() == 78  # no key
        d.process.returncode = 0
    with Folder() as f:
        secret = f.write("secret", b"0123456789abcdef0123456789abcdef")
        secret.chmod(0o600)
        with Daemon(refuse_by_close="yes", auth="jwt", jwt_key_file=secret) as d:
            done = subprocess.run([str(binary()), "client", "-u", d.url()], capture_output=True,
                                  text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)
            assert done.returncode == 1 and "4403" in done.stderr, done


def test_health_checks_on_the_port_of_clients():
    with Daemon() as d:
        for method in ("GET", "HEAD"):
            with RawClient(d, handshake=False) as c:
                c.send(head(HOST, f"{method} /healthz HTTP/1.1"))
                answer = c.recv_all()
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
                assert answer.endswith(b"\r\n\r\n" + (b"ok\n" if method == "GET" else b""))
        assert d.metric("websocket_connection_errors_total") == 0
        assert not d.lines("refused"), d.log
        # The channel of that name is one like any other.
        with RawClient(d, "/healthz"):
            assert d.metric("websocket_active_connections") == 1


def test_standard_streams_that_are_closed():
    """Whoever starts it may have closed them: no other descriptor takes their place."""
    def close_them():
        for fd in (0, 1, 2):
            os.close(fd)

    done = subprocess.run([str(binary()), "check-config", "/dev/null", "--port=0", "--metrics-port=0"],
                          preexec_fn=lambda: os.close(1))
    assert done.returncode == 0
    d = Daemon(ready=False, preexec=close_them)
    d.write_config().start()
    try:
        wait_until(d.control_socket.exists, "the control socket is there")
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{d.process.pid}/fd/{fd}") == "/dev/null"
        d.stop()
    finally:
        d.kill()


def test_nobody_reads_its_lines():
    ours, theirs = os.pipe()
    os.close(ours)
    d = Daemon(ready=False, preexec=lambda: os.dup2(theirs, 2), fds=(theirs,))
    d.write_config().start()
    try:
        wait_until(d.control_socket.exists, "the control socket is there")
        d.stop()
    finally:
        os.close(theirs)
        d.kill()


def test_what_cannot_be_printed_is_an_error():
    with open("/dev/full", "w") as full:
        for command in (["--version"], ["--help"], ["server", "--help"], ["client", "--help"],
                        ["check-config", "--template"], ["status", "--help"]):
            done = subprocess.run([str(binary()), *command], stdout=full, stderr=subprocess.DEVNULL)
            assert done.returncode == 1, command
