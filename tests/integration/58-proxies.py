# SPDX-License-Identifier: MIT
"""Behind reverse proxies: real nginx and HAProxy, and what is tried by those who only say so."""

import ssl

import old_websockets
from harness import *
from pki import Folder

REFUSED = "websocket_handshakes_refused_total"
LOCAL = "127.0.0.0/8"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Proxy:
    """A proxy with a configuration of its own, on a port that was free."""

    def __init__(self, folder, command, configuration):
        self.folder, self.port, self.host = folder, free_port(), "127.0.0.1"
        self.file = folder.write("proxy.conf", configuration.format(
            port=self.port, folder=folder.path) + "\n")
        folder.path.chmod(0o755)  # nginx gives up its rights
        self.command = [c.format(file=self.file, folder=folder.path) for c in command]

    def __enter__(self):
        with (self.folder.path / "proxy.log").open("w") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)

        def answers():
            assert self.process.poll() is None, (self.folder.path / "proxy.log").read_text()
            with socket.socket() as s:
                return s.connect_ex((self.host, self.port)) == 0

        wait_until(answers, "the proxy")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def url(self, path="/"):
        return f"ws://{self.host}:{self.port}{path}"


def nginx(folder, where, options="", listen="", server=""):
    paths = "".join(f"{kind}_temp_path {{folder}}/{kind};" for kind in
                    ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return Proxy(folder, ["nginx", "-c", "{file}", "-p", "{folder}", "-e", "{folder}/error.log"], f"""
        daemon off;
        pid {{folder}}/nginx.pid;
        events {{{{ }}}}
        http {{{{
            access_log off;
            {paths}
            server {{{{
                listen 127.0.0.1:{{port}} {listen};
                {server}
                location / {{{{
                    proxy_pass {where};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    {options}
                }}}}
            }}}}
        }}}}
        """)


def haproxy(folder, where):
    return Proxy(folder, ["haproxy", "-db", "-f", "{file}"], f"""
        defaults
            mode tcp
            timeout connect 10s
            timeout client 60s
            timeout server 60s
        listen front
            bind 127.0.0.1:{{port}}
            server wsbind {where}
        """)


async def talk(d, proxy, path="/room", **options):
    """Two clients through the proxy hear each other; returns their addresses as the daemon has
    them, and as they are."""
    a = Client(await old_websockets.connect(proxy.url(path), compression=None, **options))
    b = Client(await old_websockets.connect(proxy.url(path), compression=None, **options))
    for c in (a, b):
        c.welcome, c.config = await c.recv(), await c.recv()
        c.id = c.config.control.session_id
    payload = os.urandom(300000)
    await a.send_binary(payload)
    await b.expect_binary(payload)
    seen = {c["address"] for c in d.clients().values()}
    own = {"%s:%d" % c.socket.local_address[:2] for c in (a, b)}
    await a.close()
    await b.close()
    return seen, own


async def test_nginx_says_for_whom_it_speaks():
    with Folder() as f, Daemon(trusted_proxies="10.0.0.0/8 127.0.0.1") as d, \
            nginx(f, f"http://{d.host}:{d.port}") as proxy:
        # All hops are trusted here, so the first one named is taken.
        seen, _ = await talk(d, proxy)
        assert {a.rsplit(":", 1)[0] for a in seen} == {"127.0.0.1"}, seen
        seen, _ = await talk(d, proxy, extra_headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.7"})
        assert {a.rsplit(":", 1)[0] for a in seen} == {"192.0.2.7"}, seen


async def test_nginx_through_a_unix_socket():
    with Folder() as f, Daemon(listen_unix=f.path / "ws.sock", listen_unix_mode="0666") as d, \
            nginx(f, f"http://unix:{f.path}/ws.sock") as proxy:
        mode = (f.path / "ws.sock").stat().st_mode
        assert mode & 0o777 == 0o666, oct(mode)
        seen, _ = await talk(d, proxy)
        assert {a.rsplit(":", 1)[0] for a in seen} == {"127.0.0.1"}, seen
        d.stop()
        assert not (f.path / "ws.sock").exists()


async def test_nginx_is_believed_whatever_its_client_says():
    said = ('"', '"203.0.113.9', '203.0.113.9:"', '203.0.113.9:80x', '[203.0.113.9]"',
            '[2001:db8::9]"', '[2001:db8::9]:"', '[2001:db8::9]x', '[', '\\"', '"\\', '"a", "',
            '"203.0.113.9, 127.0.0.1', '', ',', '203.0.113.9,')
    with Folder() as f:
        path = f.path / "ws.sock"
        for settings, where in (({"trusted_proxies": "127.0.0.1"}, "http://{0.host}:{0.port}"),
                                ({"listen_unix": path, "listen_unix_mode": "0666"},
                                 f"http://unix:{path}")):
            with Daemon(**settings) as d, nginx(f, where.format(d)) as proxy:
                for words in said:
                    with RawClient(proxy, headers={"X-Forwarded-For": words}, source="127.0.0.5"):
                        seen = {c["address"].rsplit(":", 1)[0] for c in d.clients().values()}
                        assert seen == {"127.0.0.5"}, (words, seen)


async def test_tls_ends_at_nginx():
    with Folder() as f:
        certificate, key = f.certificate("server")
        with Daemon(trusted_proxies=LOCAL) as d, \
                nginx(f, f"http://{d.host}:{d.port}", listen="ssl",
                      server=f"ssl_certificate {certificate}; ssl_certificate_key {key};"
                      ) as proxy:
            proxy.url = lambda path="/": f"wss://localhost:{proxy.port}{path}"
            seen, _ = await talk(d, proxy, ssl=ssl.create_default_context(cafile=str(certificate)))
            assert {a.rsplit(":", 1)[0] for a in seen} == {"127.0.0.1"}, seen


async def test_haproxy_with_both_versions_of_its_protocol():
    for word in ("send-proxy", "send-proxy-v2"):
        with Folder() as f, Daemon(proxy_protocol="yes", trusted_proxies=LOCAL) as d, \
                haproxy(f, f"{d.host}:{d.port} {word}") as proxy:
            seen, own = await talk(d, proxy)
            assert seen == own, (seen, own)


async def test_haproxy_passes_tls_on():
    with Folder() as f:
        certificate, key = f.certificate("server")
        with Daemon(proxy_protocol="yes", trusted_proxies=LOCAL, tls_port=0,
                    tls_certificate=certificate, tls_key=key) as d, \
                haproxy(f, f"{d.host}:{d.tls_port} send-proxy-v2") as proxy:
            proxy.url = lambda path="/": f"wss://localhost:{proxy.port}{path}"
            seen, own = await talk(d, proxy, ssl=ssl.create_default_context(cafile=str(certificate)),
                                   host="127.0.0.1")
            assert seen == own, (seen, own)


async def test_limits_go_by_the_client_not_by_the_proxy():
    with Daemon(trusted_proxies=LOCAL, max_connections_per_ip=2) as d:
        def enter(address):
            return RawClient(d, handshake=False), request(headers={"X-Forwarded-For": address})

        inside = []
        for address, status in (("192.0.2.1", 101), ("192.0.2.1", 101), ("192.0.2.2", 101),
                                ("192.0.2.1", 429), ("192.0.2.3", 101)):
            c, head = enter(address)
            c.send(head)
            assert c.recv_head()[0] == status, (address, status)
            inside.append(c)
        inside[0].reset()
        await d.wait_metric("websocket_active_connections", lambda v: v == 3)
        c, head = enter("192.0.2.1")
        c.send(head)
        assert c.recv_head()[0] == 101
        assert d.metric(REFUSED, reason="per_ip") == 1
        for c in (*inside[1:], c):
            c.close()
    with Daemon(trusted_proxies=LOCAL, proxy_protocol="yes", max_connections_per_ip=1) as d:
        for status in (101, 429):
            c = RawClient(d, handshake=False)
            c.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n" + request())
            assert c.recv_head()[0] == status
            inside.append(c)
        for c in inside[-2:]:
            c.close()


async def test_what_strangers_say_counts_for_nothing():
    with Daemon(trusted_proxies="10.0.0.0/8") as d, \
            RawClient(d, headers={"X-Forwarded-For": "10.1.1.1"}) as c:
        own = "%s:%d" % c.socket.getsockname()
        assert {x["address"] for x in d.clients().values()} == {own}
    with Daemon(trusted_proxies="10.0.0.0/8", proxy_protocol="yes") as d:
        with RawClient(d, handshake=False) as c:
            c.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n" + request())
            c.expect_end()
        d.wait_log("is not in trusted_proxies, and proxy_protocol is on; dropped")
        await d.wait_metric(REFUSED, lambda v: v == 1, reason="proxy")
    with Daemon() as d, RawClient(d, handshake=False) as c:  # nobody asked for it
        c.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n" + request())
        assert c.recv_head()[0] == 400


async def test_a_proxy_that_does_not_speak_its_protocol_is_dropped():
    with Daemon(trusted_proxies=LOCAL, proxy_protocol="yes", handshake_timeout=1) as d:
        for head in (request(), b"PROXY TCP4 x y 1 2\r\n", b"PROXY " + b"x" * 200):
            with RawClient(d, handshake=False) as c:
                c.send(head)
                c.expect_end()
        await d.wait_metric(REFUSED, lambda v: v == 3, reason="proxy")
        d.wait_log("sent no PROXY protocol header; dropped")
        with RawClient(d, handshake=False) as c:  # byte by byte is slow, but right
            for byte in b"PROXY TCP6 2001:db8::7 ::1 5000 80\r\n" + request():
                c.send(bytes([byte]))
            assert c.recv_head()[0] == 101
            assert {x["address"] for x in d.clients().values()} == {"[2001:db8::7]:5000"}
        with RawClient(d, handshake=False) as c:  # the beginning of one, and nothing more
            c.send(b"PROXY TC")
            c.expect_end()
        await d.wait_metric(REFUSED, lambda v: v == 1, reason="timeout")
