# SPDX-License-Identifier: MIT
"""SIGUSR2: another process goes on with the connections, and nobody notices."""

import array
import errno
import fcntl
import ssl

import old_websockets
from harness import *
from pki import Folder

WANTS = {"notice_limit": 0, "max_incoming_frames_per_second": 0}


def open_files(d):
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


# Nobody notices

async def numbers_into(reader, channel, counts, stop):
    """Takes the numbers that one writer sends, each once and in order."""
    expected = 0
    while not (stop.is_set() and expected == counts[channel]):
        try:
            m = await asyncio.wait_for(reader.recv(), 0.2)
        except asyncio.TimeoutError:
            continue
        assert m.chat.content == str(expected), (m.chat.content, expected)
        expected += 1
    return expected


async def test_nobody_notices_ten_of_them():
    """Traffic in several channels, on several workers, deflated and plain."""
    with Daemon(worker_threads=3, **WANTS) as d:
        descriptors = open_files(d)
        channels = [f"room/{i}" for i in range(4)]
        writers = {c: await Client.connect(d, f"/{c}") for c in channels}
        readers = [(await Client.connect(d, f"/{channels[i % 4]}",
                                         compression="deflate" if i % 3 else None),
                    channels[i % 4]) for i in range(24)]
        counts, stop = dict.fromkeys(channels, 0), asyncio.Event()

        async def write(channel):
            while not stop.is_set():
                await writers[channel].send_chat(str(counts[channel]))
                counts[channel] += 1
                await asyncio.sleep(0)

        reading = [asyncio.create_task(numbers_into(r, c, counts, stop)) for r, c in readers]
        writing = [asyncio.create_task(write(c)) for c in channels]
        for i in range(10):
            said = await asyncio.to_thread(d.hand_over)
            assert re.search(rf"took over 28 connections and 4 channels from wsbind .* 0 "
                             rf"connections lost, a pause of [0-9.]+ ms", said), said
            before = dict(counts)
            await until(lambda: all(counts[c] > before[c] + 5 for c in channels), "it goes on")
        stop.set()
        await asyncio.gather(*writing)
        received = await asyncio.gather(*reading)
        assert received == [counts[c] for _, c in readers] and min(received) > 50, received
        metrics = d.metrics()
        assert metrics["websocket_total_connections"] == 28
        assert metrics["websocket_active_connections"] == 28
        assert metrics["websocket_handovers_total"] == 10
        assert metrics['websocket_handover_connections_total{result="kept"}'] == 280
        assert metrics['websocket_handover_connections_total{result="lost"}'] == 0
        assert metrics["websocket_messages_received_total"] == sum(counts.values())
        assert metrics["websocket_messages_sent_total"] == sum(received) + 2 * 28
        assert metrics["websocket_handover_state_bytes"] > 1000
        assert 0 < metrics["websocket_handover_pause_seconds"] < 10
        assert len(d.clients()) == 28
        await close_all([*writers.values(), *(r for r, _ in readers)])
        await d.wait_metric("websocket_active_connections", 0)
        await until(lambda: open_files(d) == descriptors, "no descriptor is left over")


async def test_who_somebody_is_stays():
    with Daemon() as d:
        async with await Client.connect(d, "/a", capabilities=["zstd", "ack"]) as c:
            await c.subscribe("b", "c")
            before = d.clients()
            d.hand_over()
            after = d.clients()
            for entry in (*before.values(), *after.values()):
                entry.pop("worker")
            assert after == before
            m = await c.ask(chat("to the lobby", channel="", request_id=new_id()))
            assert m.control.type == ERROR and m.control.code == 404, describe(m)
            async with await Client.connect(d, "/b") as other:
                await c.expect_notice(CONNECT, other.id, "b")
                await other.expect_nothing_in(c, channel="b")


# In the middle of something

def test_a_message_half_received():
    payload = os.urandom(8 << 20)
    with Daemon(echo_path="/echo", max_frame_size="16M") as d, RawClient(d, "/echo", greeted=False) as c:
        whole = frame(2, payload)
        half = len(whole) // 2
        c.send(whole[:half])
        wait_until(lambda: d.metric("websocket_received_bytes_total") > half, "half of it is in")
        d.hand_over()
        assert d.metric("websocket_reassembly_bytes") >= half
        sender = threading.Thread(target=c.send, args=(whole[half:],))
        sender.start()
        assert c.recv_message() == payload
        sender.join()


def test_a_message_half_sent():
    """Its reader has stopped; twice the process changes before it goes on."""
    payload = os.urandom(8 << 20)
    with Daemon(**WANTS, max_frame_size="4M", max_send_buffer="32M") as d:
        with RawClient(d, "/room", rcvbuf=4096) as reader, RawClient(d, "/room") as writer:
            m = data(payload[:4 << 20], sequence=0, is_last=False, checksum="")
            n = data(payload[4 << 20:], sequence=1, checksum="")
            for piece in (m, n):
                bytes_ = piece.SerializeToString()
                writer.send(frame(2, bytes_[:1 << 20], fin=False),
                            frame(0, bytes_[1 << 20:]))
            wait_until(lambda: d.metric("websocket_log_memory_bytes") > 8 << 20, "both wait")
            d.hand_over()
            wait_until(lambda: d.metric("websocket_log_memory_bytes") > 8 << 20, "both wait")
            reader.send(frame(9, b"are you there?"))
            d.hand_over()
            got, pongs = b"", 0
            message = b""
            while len(got) < len(payload):
                f = reader.recv_frame()
                if f.opcode == 10:
                    pongs += 1
                    continue
                message += f.payload
                if f.fin:
                    got += Message.FromString(message).binary.data
                    message = b""
            assert got == payload and pongs == 1


def test_a_handshake_half_received():
    with Daemon() as d, RawClient(d, handshake=False) as c, RawClient(d, handshake=False) as e:
        c.send(request("/room")[:40])
        wait_until(lambda: d.metric("websocket_received_bytes_total") == 40, "it is in")
        d.hand_over()
        c.send(request("/room")[40:])
        assert c.recv_head()[0] == 101
        d.hand_over()
        e.send(request("/room"))  # it had said nothing at all
        assert e.recv_head()[0] == 101


async def test_a_file_half_received():
    d = Daemon()
    d.spool = d.folder / "spool"
    d.spool.mkdir()
    d.settings["spool_dir"] = d.spool
    content = os.urandom(10 << 14)
    pieces = [data(content[i << 14:(i + 1) << 14], sequence=i, is_last=i == 9,
                   request_id=new_id()) for i in range(10)]
    with d:
        (d.spool / ".20200101T000000Z-nobody-1.part").write_bytes(b"left by somebody")
        async with await Client.connect(d, capabilities=["ack"]) as c:
            for i, m in enumerate(pieces):
                answer = await c.ask(m)
                assert answer.control.type == ACKNOWLEDGE, describe(answer)
                if i in (0, 4, 8):
                    d.hand_over()
                    parts = [p.name for p in d.spool.iterdir()]
                    await until(lambda: len(list(d.spool.iterdir())) == 1, f"one of {parts}")
        assert [p.read_bytes() for p in d.spool.iterdir()] == [content]


async def test_a_file_that_is_not_as_it_was():
    d = Daemon()
    d.spool = d.folder / "spool"
    d.spool.mkdir()
    d.settings["spool_dir"] = d.spool
    with d:
        async with await Client.connect(d, capabilities=["ack"]) as c:
            assert (await c.ask(data(b"first", is_last=False, request_id=new_id()))
                    ).control.type == ACKNOWLEDGE
            parts = await until(lambda: [p for p in d.spool.iterdir() if p.stat().st_size == 5],
                                "the chunk is written")
            parts[0].write_bytes(b"")
            d.hand_over()
            m = await c.recv()
            # What the server lost is no fault of the transfer: it may be sent again.
            assert m.control.type == ERROR and m.control.code == 503, describe(m)
            await until(lambda: not list(d.spool.iterdir()), "nothing is left of it")


# Another configuration

async def test_another_number_of_workers():
    with Daemon(**WANTS) as d:
        clients = [await Client.connect(d, "/room") for _ in range(12)]
        for workers in (1, 4, 3):
            d.write_config(worker_threads=workers)
            d.hand_over()
            assert d.workers == workers
            clients += [await Client.connect(d, "/room") for _ in range(8)]
            assert len({e["worker"] for e in d.clients().values()}) == workers
            await clients[0].send_chat(f"{workers} workers")
            for c in clients[1:]:
                await c.expect_chat(f"{workers} workers")
        await close_all(clients)


async def test_other_limits_and_another_port():
    with Daemon(**WANTS) as d:
        old_port = d.port
        clients = [await Client.connect(d, "/room") for _ in range(4)]
        waiting = RawClient(d, handshake=False)
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        d.write_config(port=port, max_connections=5, max_send_buffer="64K", max_channels=1)
        d.hand_over()
        assert d.port == port
        waiting.send(request("/room"))
        assert waiting.recv_head()[0] == 101
        waiting.recv_message(), waiting.recv_message()
        with RawClient(d, handshake=False) as surplus:
            surplus.send(request("/room"))
            assert surplus.recv_head()[0] == 503
        await clients[0].send_chat("on both ports")
        for c in clients[1:]:
            await c.expect_chat("on both ports")
        assert Message.FromString(waiting.recv_message()).chat.content == "on both ports"
        with socket.socket() as late:
            assert late.connect_ex(("127.0.0.1", old_port)) == errno.ECONNREFUSED
        waiting.close()
        await close_all(clients)


async def test_an_error_in_the_configuration():
    """The program looks before it leaps."""
    with Daemon() as d:
        async with await Client.connect(d) as a, await Client.connect(d) as b:
            since = len(d.log)
            d.write_config(port="no port")
            d.signal(signal.SIGUSR2)
            d.wait_log("is not executed: the configuration has errors", since=since)
            assert d.lines("wsbind.conf:.*no port", since)
            assert not d.lines("took over|handing over", since)
            await a.expect_nothing_in(b)
            d.write_config(port=0)
            d.hand_over()
            await a.expect_nothing_in(b)


# Who comes, and who goes

async def test_nobody_is_refused_meanwhile():
    with Daemon(**WANTS) as d:
        stop, done, failed = threading.Event(), [], []

        def come(number):
            while not stop.is_set():
                try:
                    with RawClient(d, f"/{number}", greeted=False) as c:
                        assert c.recv_message()
                    done.append(number)
                except (AssertionError, OSError) as e:
                    failed.append(repr(e))
                    return

        threads = [threading.Thread(target=come, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for _ in range(8):
            before = len(done)
            await asyncio.to_thread(d.hand_over)
            await until(lambda: len(done) > before + 20 or failed, "more come")
        stop.set()
        for t in threads:
            await asyncio.to_thread(t.join)
        assert not failed, failed
        assert d.metric("websocket_total_connections") == len(done)


async def connect_by_tls(d, context):
    s = await old_websockets.connect(f"wss://localhost:{d.tls_port}/room", ssl=context,
                                     ping_interval=None, open_timeout=DEADLINE)
    c = Client(s)
    await c.recv()
    c.id = (await c.recv()).control.session_id
    return c


async def test_tls_cannot_go_on():
    with Folder() as pki:
        pair = pki.certificate("server")
        context = ssl.create_default_context(cafile=str(pair[0]))
        with Daemon(tls_port=0, tls_certificate=pair[0], tls_key=pair[1],
                    reconnect_window=20) as d:
            async with await Client.connect(d, "/room") as plain:
                secured = await connect_by_tls(d, context)
                port = d.tls_port
                hand_over = asyncio.create_task(asyncio.to_thread(d.hand_over))
                m = await secured.recv()
                assert m.control.type == DISCONNECT and m.control.reconnect_after_ms <= 20000
                await secured.expect_close(1012)
                await hand_over
                await plain.expect_notice(DISCONNECT, secured.id, "room")
                assert d.tls_port == port
                secured = await connect_by_tls(d, context)
                await plain.expect_notice(CONNECT, secured.id, "room")
                await secured.close()
            assert d.metric("websocket_handover_connections_total", result="tls") == 1


def test_a_stop_is_still_a_stop():
    with Daemon() as d:
        with RawClient(d) as c:
            d.hand_over()
            d.signal(signal.SIGTERM)
            assert Message.FromString(c.recv_message()).control.type == DISCONNECT
            c.expect_close(1012)
        assert d.wait() == 0


# What nobody can read

F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 2, 4


def record_file(content, seals=F_SEAL_SHRINK | F_SEAL_GROW):
    fd = os.memfd_create("records", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def records_of(records=b"", format_=1, length=None, crc=None):
    """As src/wire/record.h lays it out."""
    n = 32 + len(records) if length is None else length
    return struct.pack("=8sIIQII", b"wsbindST", format_,
                       zlib.crc32(records) if crc is None else crc, n, 0, 0) + records


async def a_client_of_nobody():
    """Two ends of a connection, as if one were that of a daemon which has gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        client.settimeout(DEADLINE)
        return client, server.accept()[0]


def parcel_of(*sockets_and_marks):
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    rights = array.array("i", [s.fileno() for s, _ in sockets_and_marks])
    ends[0].sendmsg([bytes(m for _, m in sockets_and_marks)],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    return ends


async def test_what_are_no_records():
    """Those who can be told are told; the others see an end; the daemon serves."""
    cases = {
        "of another version": (records_of(b"", format_=2), "another version"),
        "empty": (b"\0", "damaged"),
        "cut": (records_of(bytes(100))[:60], "damaged"),
        "changed": (records_of(bytes(100), crc=1), "damaged"),
        "too long": (records_of(bytes(10), length=1 << 40), "damaged"),
        "without seals": (None, "damaged"),
    }
    for name, (content, why) in cases.items():
        told, its_end = await a_client_of_nobody()
        cut, its_other_end = await a_client_of_nobody()
        told.send(b"\x82\x80abcd")  # unread when the socket is closed
        memory = record_file(content) if content else record_file(records_of(), seals=0)
        parcel = parcel_of((its_end, ord("c")), (its_other_end, ord("x")))
        its_end.close(), its_other_end.close()
        fds = [("wsbind-state", memory), ("wsbind-bag", parcel[0].fileno()),
               ("wsbind-bag", parcel[1].fileno())]
        with Daemon(prefix=listen_fds(fds), fds=[fd for _, fd in fds]) as d:
            for end in parcel:
                end.close()
            d.wait_log(f"2 connections are not taken over: .*{why}")
            r = RawClient.__new__(RawClient)
            r.socket, r.buffer = told, b""
            m = Message.FromString(r.recv_message())
            assert m.control.type == DISCONNECT and m.control.reconnect_after_ms <= 30000, name
            r.expect_close(1012)
            assert cut.recv(1) == b"", name
            async with await Client.connect(d) as a, await Client.connect(d) as b:
                await a.expect_nothing_in(b)
        os.close(memory)
        told.close(), cut.close()


async def test_records_that_kill_their_readers_are_not_read_for_ever():
    memory = record_file(records_of())
    for attempt in range(4):
        client, its_end = await a_client_of_nobody()
        parcel = parcel_of((its_end, ord("c")))
        its_end.close()
        fds = [("wsbind-state", memory), ("wsbind-bag", parcel[0].fileno()),
               ("wsbind-bag", parcel[1].fileno())]
        with Daemon(prefix=listen_fds(fds), fds=[fd for _, fd in fds]) as d:
            for end in parcel:
                end.close()
            if attempt < 2:  # it can be read, and names nobody
                assert "took over 0 connections" in d.wait_log("took over .*")[0]
            else:
                d.wait_log("1 connections are not taken over")
        client.close()
    os.close(memory)


async def test_a_process_that_does_not_start_says_goodbye():
    """A configuration with an error at a restart: nothing better can be done."""
    client, its_end = await a_client_of_nobody()
    parcel, memory = parcel_of((its_end, ord("c"))), record_file(records_of())
    its_end.close()
    fds = [("wsbind-state", memory), ("wsbind-bag", parcel[0].fileno()),
           ("wsbind-bag", parcel[1].fileno())]
    d = Daemon(prefix=listen_fds(fds), fds=[fd for _, fd in fds], ready=False)
    d.config.write_text("port = no port\n")
    d.start()
    for end in parcel:
        end.close()
    assert d.wait() == 78, d.end_of_log()
    running.remove(d)
    shutil.rmtree(d.folder)
    r = RawClient.__new__(RawClient)
    r.socket, r.buffer = client, b""
    assert Message.FromString(r.recv_message()).control.type == DISCONNECT
    r.expect_close(1012)
    os.close(memory)
    client.close()
