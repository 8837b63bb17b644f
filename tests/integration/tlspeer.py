# SPDX-License-Identifier: MIT
"""A TLS client by libssl through memory: for what Python's ssl module has no words for, and for
records that are sent together, when the test says so."""

import ctypes
import socket

from daemon import DEADLINE
from raw import request

WANT_READ = 2  # SSL_ERROR_WANT_READ
KEY_UPDATE_NOT_REQUESTED = 0

libssl = ctypes.CDLL("libssl.so.3")


def function(name, result, *arguments):
    f = getattr(libssl, name)
    f.restype, f.argtypes = result, arguments
    return f


P, I, BYTES = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
TLS_client_method = function("TLS_client_method", P)
SSL_CTX_new, SSL_CTX_free = function("SSL_CTX_new", P, P), function("SSL_CTX_free", None, P)
SSL_new, SSL_free = function("SSL_new", P, P), function("SSL_free", None, P)
SSL_set_connect_state = function("SSL_set_connect_state", None, P)
SSL_do_handshake = function("SSL_do_handshake", I, P)
SSL_get_error = function("SSL_get_error", I, P, I)
SSL_read, SSL_write = function("SSL_read", I, P, P, I), function("SSL_write", I, P, BYTES, I)
SSL_key_update, SSL_shutdown = function("SSL_key_update", I, P, I), function("SSL_shutdown", I, P)
SSL_set_bio = function("SSL_set_bio", None, P, P, P)
BIO_s_mem, BIO_new = function("BIO_s_mem", P), function("BIO_new", P, P)
BIO_read, BIO_write = function("BIO_read", I, P, P, I), function("BIO_write", I, P, BYTES, I)


class TlsPeer:
    """A connection to tls_port. What is written waits until send()."""

    def __init__(self, daemon, path=None):
        """With a path: past the opening handshake of WebSocket, too."""
        self.socket = socket.create_connection((daemon.host, daemon.tls_port))
        self.socket.settimeout(DEADLINE)
        self.context = SSL_CTX_new(TLS_client_method())
        self.ssl = SSL_new(self.context)
        self.incoming, self.outgoing = BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())
        SSL_set_bio(self.ssl, self.incoming, self.outgoing)
        SSL_set_connect_state(self.ssl)
        self._finish(lambda: SSL_do_handshake(self.ssl))
        self.send()
        if path:
            self.write(request(path))
            self.send()
            self.expect_upgrade()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        SSL_free(self.ssl)
        SSL_CTX_free(self.context)
        self.socket.close()

    def _finish(self, call):
        """Repeats a call with more of what the daemon sends until it works."""
        while (result := call()) <= 0:
            error = SSL_get_error(self.ssl, result)
            assert error == WANT_READ, error
            self.send()
            came = self.socket.recv(65536)
            assert came, "the connection ended"
            BIO_write(self.incoming, came, len(came))
        return result

    def write(self, data):
        """One record."""
        assert SSL_write(self.ssl, data, len(data)) == len(data)

    def update_keys(self, times):
        for _ in range(times):
            assert SSL_key_update(self.ssl, KEY_UPDATE_NOT_REQUESTED) == 1
            assert SSL_do_handshake(self.ssl) == 1

    def end(self):
        """close_notify, which ends what is written here and not the TCP connection."""
        SSL_shutdown(self.ssl)

    def spoil(self):
        """A record that nobody has encrypted."""
        record = b"\x17\x03\x03\0\x20" + b"z" * 32
        assert BIO_write(self.outgoing, record, len(record)) == len(record)

    def send(self):
        """All that was written, at once."""
        room = ctypes.create_string_buffer(1 << 20)
        n = BIO_read(self.outgoing, room, len(room))
        if n > 0:
            self.socket.sendall(room.raw[:n])

    def recv(self):
        room = ctypes.create_string_buffer(65536)
        n = self._finish(lambda: SSL_read(self.ssl, room, len(room)))
        return room.raw[:n]

    def expect_upgrade(self):
        came = self.recv()
        assert came.startswith(b"HTTP/1.1 101 "), came

    def expect_end(self):
        """The TCP connection ends, whatever comes before."""
        try:
            while self.socket.recv(65536):
                pass
        except socket.timeout:
            raise AssertionError(f"no end within {DEADLINE:g} s") from None
        except ConnectionResetError:
            pass
