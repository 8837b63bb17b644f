# SPDX-License-Identifier: MIT
"""Nobody's flood is anybody else's drop: work, memory and time that others would pay for."""

from codecs_of_others import gzip_pack, lz4_pack, zstd_pack
from harness import *
from pki import Folder
from tlspeer import TlsPeer

MIB = 1 << 20
CHUNK = 16 << 10
ELSEWHERE = "127.0.0.2"


def fence(client, payload=b"through"):
    """Reads up to the answer to a ping; returns the frames before it."""
    client.send(frame(PING, payload))
    before = []
    while (f := client.recv_frame()) != Frame(PONG, payload, True, 0):
        before.append(f)
    return before


def answer(client, request_id):
    """Of all that comes, the answer to a request."""
    while (m := client.recv()).request_id != request_id:
        pass
    return m


def ask(client, message):
    message.request_id = new_id()
    client.send(message)
    return answer(client, message.request_id)


def expect_error(m, code, setting=""):
    assert m.control.type == ERROR and m.control.code == code, describe(m)
    assert setting in m.control.reason, describe(m)


# What can't be unpacked, for those that need it unpacked


BROKEN = [(GZIP, gzip_pack(b"words " * 1000)[:-5]), (ZSTD, b"no zstd frame" * 10),
          (LZ4, lz4_pack(b"words " * 1000)[:-20])]


async def test_what_cannot_be_unpacked_is_refused_to_its_sender():
    with Daemon() as d:
        sender = await Client.connect(d, "/room", capabilities=["ack"])
        plain = await Client.connect(d, "/room")
        for kind, payload in BROKEN:
            m = await sender.ask(data(payload, compression=kind))
            expect_error(m, 422)
            await plain.expect_chat(await sender.send_chat())
        assert d.metric("websocket_message_errors_total") == len(BROKEN)
        assert d.metric("websocket_closes_total") == 0
        await close_all(sender, plain)


async def test_what_nobody_needs_unpacked_goes_as_it_is():
    with Daemon() as d:
        sender = await Client.connect(d, "/room", capabilities=["ack"])
        reader = await Client.connect(d, "/room", capabilities=["gzip", "zstd", "lz4"])
        for kind, payload in BROKEN:
            m = await sender.ask(data(payload, compression=kind))
            assert m.control.type == ACKNOWLEDGE, describe(m)
            await reader.expect_binary(payload, compression=kind)
        await close_all(sender, reader)


async def test_a_member_on_another_worker_needs_it_unpacked():
    with Daemon() as d:
        groups = await spread(d, "/room")
        sender, plain = groups[0][0], groups[1][0]
        expect_error(await sender.ask(data(BROKEN[0][1], compression=GZIP)), 422)
        await plain.expect_chat(await sender.send_chat())
        await close_all(groups)


async def test_unpacked_for_others_only_up_to_a_bound():
    with Daemon(compression_max_size="64K") as d:
        sender = await Client.connect(d, "/room", capabilities=["ack"])
        plain = await Client.connect(d, "/room")
        noise = os.urandom(2 * CHUNK)
        for payload in (bytes(65536), 3 * noise):  # the last is below 64 times its packed size
            await sender.send_binary(zstd_pack(payload), compression=ZSTD)
            await plain.expect_binary(payload)
        for pack, kind in ((zstd_pack, ZSTD), (gzip_pack, GZIP), (lz4_pack, LZ4)):
            bomb = pack(bytes(4 * MIB))
            if 64 * len(bomb) < 4 * MIB:
                expect_error(await sender.ask(data(bomb, compression=kind)), 422)
        await plain.expect_chat(await sender.send_chat())
        await close_all(sender, plain)


async def test_bombs_close_no_member():
    with Daemon(log_memory="32M", notice_limit=0) as d:
        members = [await Client.connect(d, "/room") for _ in range(10)]
        sender = await Client.connect(d, "/room", capabilities=["ack"])
        bomb = zstd_pack(bytes(16 * MIB))
        for _ in range(10):
            await sender.send(data(bomb, compression=ZSTD))
        last = await sender.send_chat()
        for c in members:
            await c.expect_chat(last)
        assert d.metric("websocket_closes_total") == 0
        await close_all(members, sender)


# Lists


# Messages as large as they may be are worked on in steps


LARGE = 15 * MIB


def many_mentions():
    m = chat("hello")
    m.chat.mentions.extend(["x"] * 400000)
    return m


@seconds(240)
def test_large_messages_are_read_in_steps():
    """Each comes out as it went in, with a user id stamped or without."""
    group = frame(BINARY, chat("x").SerializeToString() + b"\xfb\x01" + b"\x08\x01" * 4_000_000
                  + b"\xfc\x01")
    unknown = frame(BINARY, chat("y").SerializeToString() + b"\xf8\x01\x05" * 300_000)
    messages = [chat("x" * LARGE), chat("é" * (LARGE // 2)), many_mentions(), data(bytes(LARGE))]
    with tempfile.NamedTemporaryFile("w") as key:
        key.write("k" * 40)
        key.flush()
        token = subprocess.run([os.environ["WSBIND"], "token", "--sub", "alice", "--channels", "**", "--key",
                                key.name], check=True, capture_output=True, text=True).stdout
        for settings, headers in (({}, ()), ({"auth": "jwt", "jwt_key_file": key.name},
                                             [("Authorization", f"Bearer {token.strip()}")])):
            with Daemon(max_frame_size="16M", worker_threads=1, notice_limit=0,
                        max_incoming_frames_per_second=0, **settings) as d:
                sender = RawClient(d, "/room", headers=headers)
                reader = RawClient(d, "/room", headers=headers)
                for m in messages:
                    sender.send(m)
                    got = reader.recv()
                    if headers and m.type == CHAT_MESSAGE:
                        assert got.chat.user_id == "alice"
                        got.chat.user_id = m.chat.user_id
                    got.ClearField("channel")
                    assert got == m
                for raw in (group, unknown):
                    sender.send(raw)
                    assert reader.recv().chat.content in "xy"
                sender.close()
                reader.close()


def test_lists_are_bounded_before_anything_is_looked_up():
    with Daemon() as d, RawClient(d) as c:
        for message in (control(SUBSCRIBE, channels=["a"] * 65),
                        control(UNSUBSCRIBE, channels=["never joined"] * 65),
                        control(CONNECT, capabilities=["ack"] * 65)):
            expect_error(ask(c, message), 429, "max_channels_per_client")
        m = ask(c, control(SUBSCRIBE, channels=["a"] * 64))
        assert m.control.type == ACKNOWLEDGE, describe(m)
        assert d.clients()[c.id]["channels"] in (["", "a"], ["a", ""])


def test_a_list_as_long_as_a_frame():
    with Daemon() as d, RawClient(d) as c:
        m = control(SUBSCRIBE)
        m.control.channels.extend(["n"] * 1_000_000)
        expect_error(ask(c, m), 429)


async def test_mentions_are_not_bounded():
    with Daemon() as d:
        a, b = await Client.connect(d), await Client.connect(d)
        m = chat("to many")
        m.chat.mentions.extend(f"user {i}" for i in range(1000))
        await a.send(m)
        assert len((await b.expect_chat("to many")).chat.mentions) == 1000
        await close_all(a, b)


# What a message costs


def test_each_name_of_a_list_counts_as_a_frame():
    names = [f"n/{i}" for i in range(60)]
    with Daemon(max_incoming_frames_per_second=100, rate_limit_action="close") as d:
        with RawClient(d) as c:
            c.send(control(SUBSCRIBE, channels=names[:40]))
            c.send(control(UNSUBSCRIBE, channels=names[:40]))
            fence(c)
        with RawClient(d) as c:
            c.send(*[control(kind, channels=names) for kind in (SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE)],
                   frame(PING, b"too many"))
            c.expect_close(1008)
        d.wait_log("max_incoming_frames_per_second")


def test_lists_are_throttled_like_frames():
    names = [f"n/{i}" for i in range(60)]
    with Daemon(max_incoming_frames_per_second=100) as d, RawClient(d) as c:
        for kind in 3 * [SUBSCRIBE, UNSUBSCRIBE]:
            c.send(control(kind, channels=names))
        fence(c)
        assert d.metric("websocket_throttles_total") >= 2


# Partly received messages


def test_who_stands_still_longest_is_ended_for_reassembly_memory():
    with Daemon(reassembly_memory="1M", worker_threads=1, notice_limit=0) as d:
        with RawClient(d) as still, RawClient(d) as active:
            still.send(frame(BINARY, bytes(300000), fin=False))
            fence(still)
            for i in range(9):
                active.send(frame(CONTINUATION if i else BINARY, bytes(100000), fin=False))
                fence(active)
            still.expect_close(1013)
            fence(active)


# Time that the process did not see


def stand_still(d, seconds, meanwhile):
    d.suspend()
    meanwhile()
    time.sleep(seconds)  # this is what is tested
    d.signal(signal.SIGCONT)


SHORT = {"ping_interval": "300ms", "pong_timeout": "300ms", "heartbeat_timeout": "1s",
         "handshake_timeout": "1s", "notice_limit": 0}


def test_who_spoke_while_the_process_stood_still_is_there():
    with Daemon(**SHORT) as d:
        clients = [RawClient(d, f"/{i}") for i in range(50)]

        def speak():
            for i, c in enumerate(clients):
                c.send(frame(PING, b"%d" % i))

        stand_still(d, 1.5, speak)
        for i, c in enumerate(clients):
            while (f := c.recv_frame()).opcode == PING:
                c.send(frame(PONG, f.payload))
            assert (f.opcode, f.payload) == (PONG, b"%d" % i), f
        assert d.metric("websocket_closes_total", code="4001") == 0
        for c in clients:
            c.close()


def test_silent_clients_are_pinged_before_they_are_ended_for_a_standstill():
    with Daemon(**SHORT) as d:
        clients = [RawClient(d, f"/{i}") for i in range(50)]
        stand_still(d, 1.5, lambda: None)
        for c in clients:
            f = c.expect_frame(PING)
            c.send(frame(PONG, f.payload))
        for c in clients:
            fence(c)
        assert d.metric("websocket_closes_total", code="4001") == 0
        for c in clients:
            c.close()


def test_handshakes_go_on_after_a_standstill():
    with Daemon(**SHORT) as d:
        accepted = [socket.create_connection((d.host, d.port)) for _ in range(20)]
        with RawClient(d) as c:  # the loops have turned since
            fence(c)

        def ask_for_it():
            for s in accepted:
                s.sendall(request("/"))

        stand_still(d, 1.5, ask_for_it)
        for s in accepted:
            s.settimeout(DEADLINE)
            assert s.recv(4096).startswith(b"HTTP/1.1 101 "), "it was dropped"
            s.close()
        assert d.metric("websocket_handshakes_refused_total", reason="timeout") == 0


def test_messages_are_delivered_after_a_standstill():
    with Daemon(**SHORT) as d:
        with RawClient(d, "/room") as sender, RawClient(d, "/room") as reader:
            def speak():
                for i in range(20):
                    sender.send(chat(f"{i}"))
                reader.send(frame(PONG))

            stand_still(d, 1.5, speak)
            got = []
            while len(got) < 20:
                f = reader.recv_frame()
                if f.opcode == BINARY:
                    got.append(Message.FromString(f.payload).chat.content)
                else:
                    assert f.opcode == PING, f
                    reader.send(frame(PONG, f.payload))
            assert got == [f"{i}" for i in range(20)]


# Memory that somebody else fills


@seconds(120)
def test_who_pins_notices_pays_for_them():
    """They fill log_memory; one for whom a single message waits has nothing to do with it."""
    names = [f"pin/{i}" for i in range(60)]
    with Daemon(log_memory="1M", worker_threads=1, tcp_notsent_lowat="4K",
                max_incoming_frames_per_second=10000) as d:
        pinner = RawClient(d, "/pin", rcvbuf=4096)
        pinner.send(control(SUBSCRIBE, channels=names))
        good = RawClient(d, "/good", rcvbuf=4096)
        publisher = RawClient(d, "/good")
        large = data(os.urandom(400000))
        publisher.send(large)
        fence(publisher)
        churner = RawClient(d, "/churn")
        ask(churner, control(SUBSCRIBE, channels=names))
        for _ in range(250):
            ask(churner, control(UNSUBSCRIBE, channels=names))
            ask(churner, control(SUBSCRIBE, channels=names))
        while (m := good.recv()).type != BINARY_DATA:
            pass
        assert m.binary.data == large.binary.data
        for c in (pinner, good, publisher, churner):
            c.close()


# Tables that all share


def test_an_ipv6_network_is_one_address():
    with Daemon(trusted_proxies="127.0.0.1", max_connections_per_ip=2) as d:
        clients = []
        for address, status in (("2001:db8:1:2::1", 101), ("2001:db8:1:2::2", 101),
                                ("2001:db8:1:2:ffff::3", 429), ("2001:db8:1:3::1", 101),
                                ("192.0.2.1", 101), ("192.0.2.2", 101)):
            c = RawClient(d, handshake=False)
            c.send(request(headers={"X-Forwarded-For": address}))
            assert c.recv_head()[0] == status, address
            clients.append(c)
        for c in clients:
            c.close()


def test_half_requests_do_not_block_the_metrics_port():
    with Daemon() as d:
        address = ("127.0.0.1", d.metrics_port)
        halves = [socket.create_connection(address) for _ in range(100)]
        for s in halves:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        assert d.get("/healthz").status == 200
        for s in halves:
            s.close()


def test_connections_of_one_socket_are_spread():
    folder = tempfile.mkdtemp(prefix="wsbind-test-")
    path = Path(folder) / "clients.sock"
    try:
        with Daemon(worker_threads=4, listen_unix=path) as d:
            clients = []
            for n in range(1, 41):
                s = socket.socket(socket.AF_UNIX)
                s.settimeout(DEADLINE)
                s.connect(str(path))
                s.sendall(request("/"))
                assert s.recv(12) == b"HTTP/1.1 101"
                clients.append(s)
                counts = [d.metric("websocket_worker_connections", worker=i) for i in range(4)]
                assert max(counts) - min(counts) <= 1, f"of {n} connections: {counts}"
            for s in clients:
                s.close()
    finally:
        shutil.rmtree(folder)


# Files


def spooling(**settings):
    d = Daemon(**settings)
    d.spool = d.folder / "spool"
    d.spool.mkdir()
    d.settings["spool_dir"] = d.spool
    return d


def send_file(c, content, compression=NONE, size=CHUNK):
    """Returns the answer to its last chunk, or the first that comes."""
    request_id = new_id()
    for at in range(0, len(content), size):
        c.send(data(content[at:at + size], sequence=at // size, is_last=at + size >= len(content),
                    compression=compression, request_id=request_id))
    return answer(c, request_id)


def kept(d):
    return [p for p in d.spool.rglob("*") if not p.is_dir()]


def test_spool_max_file_size_counts_what_is_unpacked():
    with spooling(spool_max_file_size="1M") as d, RawClient(d) as c:
        expect_error(send_file(c, os.urandom(MIB + CHUNK)), 422, "spool_max_file_size")
        fence(c)
        assert not kept(d)
        chunk = zstd_pack(bytes(200000))
        for i in range(6):
            c.send(data(chunk, compression=ZSTD, sequence=i, is_last=i == 5, request_id=b"r" * 16))
        expect_error(answer(c, b"r" * 16), 422, "spool_max_file_size")
        fence(c)
        assert not kept(d)
        assert send_file(c, os.urandom(MIB)).control.type == ACKNOWLEDGE


def test_spool_max_size_counts_all_files():
    with spooling(spool_max_size="1M") as d, RawClient(d) as c:
        for _ in range(2):
            assert send_file(c, os.urandom(400000)).control.type == ACKNOWLEDGE
        m = send_file(c, os.urandom(400000))
        assert m.control.type == ERROR and m.control.code in (422, 503), describe(m)
        assert "spool_max_size" in m.control.reason, describe(m)
        fence(c)
        assert len(kept(d)) == 2


def test_spool_min_free_leaves_room_on_the_disk():
    with spooling(spool_min_free="99%") as d, RawClient(d) as c:
        disk = os.statvfs(d.spool)
        if disk.f_bavail > 0.98 * disk.f_blocks:
            raise Skip("nearly all of the disk is free")
        m = send_file(c, b"a few words")
        assert m.control.type == ERROR and m.control.code in (422, 503), describe(m)
        assert "spool_min_free" in m.control.reason, describe(m)
        fence(c)
        assert not kept(d)


@seconds(120)
def test_transfers_that_only_begin_lock_nobody_out():
    with spooling(notice_limit=0) as d:
        begun = [RawClient(d, f"/{i}") for i in range(300)]
        for c in begun:
            c.send(data(b"begun", is_last=False))
            fence(c)
        with RawClient(d, "/files", source=ELSEWHERE) as c:
            m = send_file(c, os.urandom(10 * CHUNK))
            assert m.control.type == ACKNOWLEDGE, describe(m)
        for c in begun:
            c.close()


# A hand-over


def test_a_hand_over_is_refused_before_anybody_has_to_go():
    with Folder() as f:
        certificate, key = f.certificate("server")
        with Daemon(tls_port=0, tls_certificate=certificate, tls_key=key) as d:
            with RawClient(d) as plain:
                peers = [TlsPeer(d, "/") for _ in range(5)]
                limit = resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)
                used = {int(fd) for fd in os.listdir(f"/proc/{d.process.pid}/fd")}
                free = [fd for fd in range(len(used) + 2) if fd not in used]
                # One for a look at the configuration, one for the state, none for connections.
                resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (free[1] + 1, limit[1]))
                d.signal(signal.SIGUSR2)
                d.wait_log("going on as before")
                resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, limit)
                fence(plain)
                assert d.metric("websocket_handover_connections_total", result="tls") == 0
                assert d.metric("websocket_active_connections") == 6
                for p in peers:
                    p.__exit__()
