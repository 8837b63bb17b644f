# SPDX-License-Identifier: MIT
"""wss://: as clients see it, as its administrator does, and what is tried against it."""

import json
import ssl

import old_websockets
from harness import *
from pki import Folder, openssl
from tlspeer import TlsPeer

REFUSED = "websocket_handshakes_refused_total"


def trusting(certificate, **options):
    context = ssl.create_default_context(cafile=str(certificate))
    for name, value in options.items():
        setattr(context, name, value)
    return context


def settings(pair, **more):
    return {"tls_port": 0, "tls_certificate": pair[0], "tls_key": pair[1], **more}


async def connect(d, context, path="/", **options):
    """Client over TLS."""
    s = await websockets_connect(d, context, path, **options)
    c = Client(s)
    c.welcome, c.config = await c.recv(), await c.recv()
    c.id = c.config.control.session_id
    return c


async def websockets_connect(d, context, path="/", **options):
    return await old_websockets.connect(f"wss://localhost:{d.tls_port}{path}", ssl=context,
                                        max_size=None, ping_interval=None, open_timeout=DEADLINE,
                                        compression=None, **options)


async def failure_of(d, context):
    try:
        await websockets_connect(d, context)
    except (OSError, ssl.SSLError, EOFError) as e:
        return str(e)
    raise AssertionError("it was let in")


async def test_messages_between_plain_and_tls():
    with Folder() as f, Daemon(**settings(f.certificate("server"))) as d:
        context = trusting(f.path / "server.pem")
        async with await connect(d, context, "/room") as a, \
                await Client.connect(d, "/room") as b, await connect(d, context, "/room") as c:
            for n in (1, 1000, 100000, 1000000):
                payload = os.urandom(n)
                for sender, others in ((a, (b, c)), (b, (a, c))):
                    await sender.send_binary(payload)
                    for other in others:
                        await other.expect_binary(payload)
        d.wait_log("encrypted by")
        assert len(d.lines("encrypted by")) == 1


async def test_a_reader_that_stops_gets_everything_later():
    with Folder() as f, Daemon(**settings(f.certificate("server")), max_send_buffer="64M",
                               message_queue_size=100000, notice_limit=0,
                               max_incoming_frames_per_second=0) as d:
        context = trusting(f.path / "server.pem")
        with socket.create_connection((d.host, d.tls_port)) as plain:
            plain.settimeout(DEADLINE)
            reader = context.wrap_socket(plain, server_hostname="localhost")
            reader.sendall(request("/room"))
            assert reader.recv(4096).startswith(b"HTTP/1.1 101 ")  # a member from here on
            async with await Client.connect(d, "/room") as a:
                for n in range(3000):
                    await a.send_chat(f"#{n} " + "x" * 3000)
                await a.connect_with([])
                seen, at = bytearray(), 0
                for n in range(3000):
                    while (found := seen.find(b"#%d xxx" % n, at)) < 0:
                        more = reader.recv(1 << 20)
                        assert more, n
                        seen += more
                    at = found


async def test_only_tls():
    with Folder() as f, Daemon(port="off", **settings(f.certificate("server"))) as d:
        assert d.port is None
        async with await connect(d, trusting(f.path / "server.pem")) as a:
            await a.expect_silence()


async def test_certificates_by_name():
    with Folder() as f:
        pairs = [f.certificate(n, alt=f"DNS:{n}.example") for n in ("one", "two")]
        with Daemon(tls_port=0, tls_certificate=" ".join(str(p[0]) for p in pairs),
                    tls_key=" ".join(str(p[1]) for p in pairs)) as d:
            for n, known in (("one", "one"), ("two", "two"), ("three", "one")):
                context = trusting(f.path / f"{known}.pem", check_hostname=False)
                with socket.create_connection((d.host, d.tls_port)) as s:
                    context.wrap_socket(s, server_hostname=f"{n}.example").close()


async def test_reload_takes_a_new_certificate_and_drops_nobody():
    with Folder() as f:
        old = f.certificate("old")
        new = f.certificate("new")
        f.write("c.pem", old[0].read_bytes())
        f.write("c.key", old[1].read_bytes())
        with Daemon(**settings((f.path / "c.pem", f.path / "c.key"))) as d:
            async with await connect(d, trusting(old[0])) as a:
                f.write("c.pem", new[0].read_bytes())
                answer = d.reload()  # the key is still the old one
                assert answer.status == 422 and "does not belong to the certificate" in answer.text
                async with await connect(d, trusting(old[0])):
                    pass
                f.write("c.key", new[1].read_bytes())
                assert d.reload().status == 200
                async with await connect(d, trusting(new[0])) as b:
                    await a.send_chat("still here")
                    await b.expect_chat("still here")
                assert "certificate verify failed" in await failure_of(d, trusting(old[0]))


async def test_a_pair_that_does_not_match_is_an_error_at_the_start():
    with Folder() as f:
        pair = f.certificate("a")[0], f.certificate("b")[1]
        with Daemon(ready=False, **settings(pair)) as d:
            assert d.wait() == 78
            d.wait_log("tls_key: .*this key does not belong to the certificate")
            d.process.returncode = 0


async def test_client_certificates_say_who_it_is():
    with Folder() as f:
        server, _ = f.certificate("server"), f.certificate("authority")
        alice = f.certificate("alice", issuer="authority")
        expired = f.expired_certificate("late", "authority")
        stranger = f.certificate("stranger")
        with Daemon(**settings(server, tls_client_ca=f.path / "authority.pem")) as d:
            context = trusting(server[0])
            context.load_cert_chain(*alice)
            async with await connect(d, context) as a, await connect(d, context) as b:
                assert "Welcome alice!" in a.welcome.chat.content
                await a.send_chat("who am I?", user_id="mallory")
                m = await b.expect_chat("who am I?")
                assert m.chat.user_id == "alice"
                assert {c["user_id"] for c in d.clients().values()} == {"alice"}
            # In TLS 1.3 the client is done before the server has looked at its certificate.
            for pair in (None, expired, stranger):
                context = trusting(server[0], maximum_version=ssl.TLSVersion.TLSv1_2)
                if pair:
                    context.load_cert_chain(*pair)
                await failure_of(d, context)
            await d.wait_metric(REFUSED, lambda v: v == 3, reason="tls")
            d.wait_log("TLS failed: peer did not return a certificate")
            d.wait_log("TLS failed: certificate verify failed: certificate has expired")
            d.wait_log("TLS failed: certificate verify failed: self-signed certificate")


async def test_client_certificates_whose_names_are_no_user_ids():
    names = ("system", "alice\n", "a\tb", "\x1b[2J", "a\x7f")
    with Folder() as f:
        server, _ = f.certificate("server"), f.certificate("authority")
        with Daemon(**settings(server, tls_client_ca=f.path / "authority.pem")) as d:
            for n, name in enumerate(names):
                context = trusting(server[0])
                context.load_cert_chain(*f.certificate(f"c{n}", issuer="authority", cn=name))
                try:
                    await websockets_connect(d, context)
                except old_websockets.InvalidStatusCode as e:
                    assert e.status_code == 403, name
                else:
                    raise AssertionError(f"{name!r} was let in")
            assert d.metric(REFUSED, reason="auth") == len(names)
            d.wait_log("403 Forbidden: its certificate has no name that can be used")


def test_warns_when_a_port_asks_for_no_certificates():
    optional = r"^warning: tls_client_ca asks for certificates on tls_port alone: "
    to_all = r"^warning: open to everyone: "
    with Folder() as f:
        base = settings(f.certificate("server"))
        secret = f.write("secret", "0123456789abcdef" * 2)
        ca = {"tls_client_ca": f.certificate("authority")[0]}
        jwt = {"auth": "jwt", "jwt_key_file": secret}
        for more, warned in (({}, ()),
                             (ca, (optional,)),
                             ({**ca, "port": "off"}, ()),
                             ({**ca, **jwt}, ()),
                             ({"host": "0.0.0.0"}, (to_all,)),
                             ({"host": "0.0.0.0", **ca}, (optional, to_all)),
                             ({"host": "0.0.0.0", **ca, "allowed_origins": "null"}, (optional,)),
                             ({"host": "0.0.0.0", **ca, "port": "off"}, ()),
                             ({"host": "0.0.0.0", "port": "off"}, (to_all,)),
                             ({"host": "0.0.0.0", **ca, **jwt}, ())):
            with Daemon(**{**base, **more}) as d:
                assert [len(d.lines(w)) for w in (optional, to_all)] == \
                    [int(w in warned) for w in (optional, to_all)], (more, d.lines("^warning"))


async def test_what_is_no_tls_or_too_old_is_refused():
    with Folder() as f, Daemon(handshake_timeout=1, **settings(f.certificate("server"))) as d:
        def speak(*pieces):
            with socket.create_connection((d.host, d.tls_port)) as s:
                s.settimeout(DEADLINE)
                for p in pieces:
                    s.sendall(p)
                try:
                    while s.recv(4096):
                        pass
                except ConnectionResetError:
                    pass

        speak(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        d.wait_log("TLS failed: plain HTTP, on a port with TLS")
        speak(bytes.fromhex("160301ffff") + os.urandom(100))
        # SSLv3's ClientHello, and a record that promises more than comes.
        speak(bytes.fromhex("1603000031 0100002d 0300") + bytes(32) + bytes.fromhex("0000060035002f000a0100"))
        d.wait_log("TLS failed: version too low")
        refused = d.metric(REFUSED, reason="tls")
        assert refused >= 3, refused
        speak(bytes.fromhex("16030102000100"))  # slow: ends by handshake_timeout
        await d.wait_metric(REFUSED, lambda v: v == 1, reason="timeout")
        said = subprocess.run(["openssl", "s_client", "-connect", f"{d.host}:{d.tls_port}",
                               "-tls1_1", "-cipher", "ALL@SECLEVEL=0"], stdin=subprocess.DEVNULL,
                              capture_output=True).stdout
        assert b"Cipher is (NONE)" in said, said
        for version in ("-tls1_2", "-tls1_3"):
            said = openssl("s_client", "-connect", f"{d.host}:{d.tls_port}", version, stdin=b"")
            assert re.search(rb"Cipher is (TLS_|ECDHE-)", said), said


async def test_a_flood_of_records_without_data_ends_the_connection():
    with Folder() as f, Daemon(**settings(f.certificate("server"))) as d:
        with TlsPeer(d) as p:
            p.update_keys(1000)
            p.send()
            p.expect_end()
        d.wait_log("TLS failed: too many records without data")
        await d.wait_metric(REFUSED, 1, reason="tls")
        with TlsPeer(d) as p:  # as many, but it gets on with its request
            for byte in request("/room"):
                p.update_keys(10)
                p.write(bytes([byte]))
            p.send()
            p.expect_upgrade()
        assert d.metric(REFUSED) == 1


async def test_tiny_records_arrive_all():
    with Folder() as f, Daemon(**settings(f.certificate("server"))) as d:
        async with await Client.connect(d, "/room") as a:
            with TlsPeer(d, "/room") as p:
                content = "x" * 1400
                for byte in frame(BINARY, chat(content).SerializeToString()):
                    p.write(bytes([byte]))
                d.suspend()  # so that nothing tells it of more when it has begun to read
                p.send()
                d.signal(signal.SIGCONT)
                await a.expect_chat(content)


async def test_an_end_behind_data_is_an_end_at_once():
    with Folder() as f, Daemon(ping_interval=600, heartbeat_timeout=3600,
                               **settings(f.certificate("server"))) as d:
        for end, said in ((TlsPeer.spoil, "TLS failed: decryption failed or bad record mac"),
                          (TlsPeer.end, "disconnected with 1006")):
            async with await Client.connect(d, "/room") as a:
                with TlsPeer(d, "/room") as p:
                    since = len(d.log)
                    p.write(frame(BINARY, chat("the last word").SerializeToString()))
                    end(p)
                    d.suspend()
                    p.send()
                    d.signal(signal.SIGCONT)
                    await a.expect_chat("the last word")
                    p.expect_end()
                    d.wait_log(said, since=since)


async def test_the_commands_speak_it():
    with Folder() as f, Daemon(**settings(f.certificate("server"))) as d:
        url = f"wss://localhost:{d.tls_port}/room"

        def run(*args):
            return subprocess.run([str(binary()), *[str(a) for a in args]], text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)

        done = run("benchmark", "-u", url, "--ca", f.path / "server.pem", "-c", 10, "-m", 500,
                   "--message-size", 20000, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["lost"] == 0, done
        done = run("benchmark", "-u", url, "-c", 2, "-m", 10)
        assert done.returncode == 1 and "self-signed certificate" in done.stderr, done
        done = run("benchmark", "-u", url, "--insecure", "-c", 2, "-m", 10)
        assert done.returncode == 0 and "--insecure" in done.stderr, done
        file = f.write("data", os.urandom(100000))
        done = run("client", "-u", url, "--ca", f.path / "server.pem", "--send-file", file)
        assert done.returncode == 0, done
