# SPDX-License-Identifier: MIT
"""Metrics, health, and what the control socket serves."""

import stat
import urllib.parse

from harness import *
from pki import token

SETTINGS = {}

GIVEN = {
    "websocket_active_connections": "gauge", "websocket_total_connections": "counter",
    "websocket_messages_received_total": "counter", "websocket_messages_sent_total": "counter",
    "websocket_binary_messages_total": "counter", "websocket_text_messages_total": "counter",
    "websocket_connection_errors_total": "counter", "websocket_message_errors_total": "counter",
    "websocket_message_latency_seconds": "histogram", "websocket_pongs_missed_total": "counter",
}


# Metrics


def test_names_that_the_contract_gives(daemon):
    text = daemon.get("/metrics").text
    for name, kind in GIVEN.items():
        assert f"# TYPE {name} {kind}\n" in text, name
        assert f"# HELP {name} " in text, name
    for bound in ("0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "+Inf"):
        assert f'websocket_message_latency_seconds_bucket{{le="{bound}"}}' in text, bound
    for name in ("process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes",
                 "process_start_time_seconds", "process_max_fds"):
        assert f"# TYPE {name} " in text, name
    assert re.search(r"^\w*build_info\{.*version=", text, re.M)
    for worker in range(daemon.workers):
        assert f'websocket_worker_connections{{worker="{worker}"}}' in text


def test_every_family_has_help_and_type(daemon):
    text = daemon.get("/metrics").text
    families = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    assert families == set(re.findall(r"^# HELP (\S+) \S", text, re.M))
    for series in parse_metrics(text):
        name = series.split("{")[0]
        assert name in families or re.sub(r"_(bucket|sum|count)$", "", name) in families, series


def test_content_type(daemon):
    assert daemon.get("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_promtool_is_content(daemon):
    if not shutil.which("promtool"):
        raise Skip("promtool is not installed")
    done = subprocess.run(["promtool", "check", "metrics"], input=daemon.get("/metrics").body,
                          capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode().splitlines()
    assert not [line for line in said if "websocket_total_connections" not in line], said


async def test_figures_follow_what_happens():
    with Daemon() as d:
        a, b, c = [await Client.connect(d, "/figures") for _ in range(3)]
        await a.send_chat()
        await a.send_binary(b"x")
        await a.send("text")
        for client in (b, c):
            await client.recv()
            await client.recv()
        await a.expect_error()
        await a.expect_silence()
        assert d.metric("websocket_active_connections") == 3
        assert d.metric("websocket_total_connections") == 3
        assert d.metric("websocket_text_messages_total") == 1
        assert d.metric("websocket_binary_messages_total") == 3  # chat, data, the question
        assert d.metric("websocket_messages_received_total") == 4
        assert d.metric("websocket_channels") == 1
        assert d.metric("websocket_received_bytes_total") > 0
        assert d.metric("websocket_sent_bytes_total") > 0
        assert d.metric("websocket_message_latency_seconds_count") >= 0
        await close_all(a, b)
        c.abort()
        await d.wait_metric("websocket_active_connections", 0)
        await d.wait_metric("websocket_channels", 0)
        assert d.metric("websocket_total_connections") == 3
        assert d.metric("websocket_queue_bytes") == 0
        assert d.metric("websocket_closes_total", code="1000") == 2
        assert d.metric("websocket_closes_total", code="1006") == 1


# Health and the two listeners


def test_health_on_both(daemon):
    for ask in (daemon.get, lambda path: daemon.ask("GET", path)):
        assert ask("/healthz").status == 200
        assert ask("/readyz").status == 200
        assert ask("/metrics").status == 200
        assert ask("/nowhere").status == 404


def test_administration_is_not_on_the_metrics_port(daemon):
    for method, path in [("GET", "/clients"), ("POST", "/reload"), ("POST", "/publish?channel="),
                         ("POST", "/disconnect?id=x")]:
        assert daemon.get(path, method=method).status in (403, 404, 405), path


def test_wrong_methods(daemon):
    for method, path in [("POST", "/metrics"), ("GET", "/reload"), ("GET", "/publish?channel=x"),
                         ("GET", "/disconnect?id=x"), ("POST", "/clients")]:
        assert daemon.ask(method, path).status == 405, path


def test_mode_of_the_control_socket(daemon):
    mode = daemon.control_socket.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660


def test_not_ready_while_it_stops():
    with Daemon(shutdown_timeout="3s", max_send_buffer="64M", message_queue_size=100000) as d:
        with RawClient(d, rcvbuf=4096), RawClient(d) as sender:
            sender.send(*[chat("x" * 100000) for _ in range(100)])
            sender.send(frame(PING, b"through"))
            while sender.recv_frame().payload != b"through":
                pass
            d.signal(signal.SIGTERM)
            sender.expect_close(1012)
            try:
                assert d.get("/readyz").status == 503
            except ConnectionError:
                pass


# Clients


async def test_clients_are_listed():
    with Daemon() as d:
        groups = await spread(d, "/room")
        everyone = {c.id: c for g in groups for c in g}
        a = groups[0][0]
        await a.connect_with(["zstd", "ack"])
        await a.subscribe("extra")
        listed = d.clients()
        assert set(listed) == set(everyone)
        for client_id, c in everyone.items():
            entry = listed[client_id]
            assert entry["user_id"] == c.user_id
            assert entry["address"] == c.user_id.removeprefix("user-")
            for key in ("connected_at", "last_heartbeat", "capabilities", "channels", "messages_in",
                        "messages_out"):
                assert key in entry, key
            assert any("queued" in key for key in entry), entry
        assert set(listed[a.id]["capabilities"]) == {"zstd", "ack"}
        assert set(listed[a.id]["channels"]) == {"room", "extra"}
        await close_all(groups)
        await d.wait_metric("websocket_active_connections", 0)
        assert not d.clients()


async def test_messages_of_each_client_are_counted():
    """Those to it as those from it, through a hand-over too; they add up to the daemon's own."""
    with Daemon(worker_threads=2, notice_limit=0) as d:
        talker = await Client.connect(d, "/room")
        readers = [await Client.connect(d, "/room") for _ in range(6)]

        def counts(c):
            entry = d.clients()[c.id]
            return entry["messages_in"], entry["messages_out"]

        def expect(talker_in, readers_out):
            assert counts(talker) == (talker_in, 2)  # welcome and CONFIG
            assert [counts(c) for c in readers] == [(0, 2 + readers_out)] * 6
            listed = d.clients().values()
            for name, key in (("sent", "messages_out"), ("received", "messages_in")):
                assert d.metric(f"websocket_messages_{name}_total") == sum(c[key] for c in listed)

        for n in range(1, 11):
            await talker.send_chat(str(n))
        for c in readers:
            for n in range(1, 11):
                await c.expect_chat(str(n))
        await asyncio.to_thread(wait_until, lambda: counts(readers[-1])[1] == 12, "all counted")
        expect(10, 10)
        await asyncio.to_thread(d.hand_over)
        expect(10, 10)
        await talker.ask(control(SUBSCRIBE, channels=["more"]))
        assert counts(talker) == (11, 3)
        assert counts(readers[0]) == (0, 12)
        first = d.ask("GET", "/clients?sort=messages_in&limit=1").json["clients"][0]
        assert first["id"] == talker.id
        assert d.ask("GET", "/clients?sort=messages_out").json["clients"][-1]["id"] == talker.id
        await close_all(talker, readers)


async def test_clients_come_in_pages():
    with Daemon() as d:
        clients = [await Client.connect(d) for _ in range(25)]
        page = d.ask("GET", "/clients?offset=0&limit=10").json
        assert len(page["clients"]) == 10 and page["total"] == 25
        assert set(d.clients(page=7)) == {c.id for c in clients}
        await close_all(clients)


async def test_clients_come_in_an_order():
    with Daemon(worker_threads=2) as d:
        clients = [await Client.connect(d, "/room") for _ in range(25)]
        for sort in ("connected_at", "last_heartbeat"):
            whole = d.ask("GET", f"/clients?sort={sort}&limit=1000").json
            values = [entry[sort] for entry in whole["clients"]]
            assert values == sorted(values) and whole["total"] == 25, whole
            # In pages it is the same order: nobody twice, nobody left out.
            paged, offset = [], 0
            while offset is not None:
                page = d.ask("GET", f"/clients?sort={sort}&limit=7&offset={offset}").json
                paged += [entry["id"] for entry in page["clients"]]
                offset = page["next"]
            assert sorted(paged) == sorted(c.id for c in clients)
        page = d.ask("GET", "/clients?sort=queued_bytes&channel=nowhere").json
        assert page == {"clients": [], "total": 0, "next": None}
        answer = d.ask("GET", "/clients?sort=beauty")
        assert answer.status == 400 and b"connected_at" in answer.body, answer
        await close_all(clients)


def test_who_waits_for_most_comes_first():
    with Daemon(tcp_notsent_lowat="16K", max_send_buffer="8M", notice_limit=0) as d:
        deaf = RawClient(d, "/room", rcvbuf=1 << 16)
        sender = RawClient(d, "/room")
        listed = []

        def has_queue():
            sender.send(data(bytes(64 << 10)))
            listed[:] = d.ask("GET", "/clients?sort=queued_bytes").json["clients"]
            return listed[0]["queued_bytes"] > 0

        wait_until(has_queue, "something waits")
        port = deaf.socket.getsockname()[1]
        assert listed[0]["address"].endswith(f":{port}"), listed
        assert [c["queued_bytes"] for c in listed[1:]] == [0], listed
        deaf.close()
        sender.close()


# Channels


async def test_channels_are_listed():
    with Daemon(worker_threads=2) as d:
        names = ["busy", "many", 'a"b\\c\té\x7f', ""]
        clients = []
        for name, n in zip(names, (2, 9, 3, 1)):
            for _ in range(n):
                c = await Client.connect(d, "/elsewhere")
                if name:
                    await c.subscribe(name)
                clients.append(c)
        page = d.ask("GET", "/channels?sort=members").json
        found = {c["name"]: c["members"] for c in page["channels"]}
        assert found == {"elsewhere": 15, "busy": 2, "many": 9, names[2]: 3}, found
        assert page["total"] == 4 and page["next"] is None
        assert [c["members"] for c in page["channels"]] == [15, 9, 3, 2]
        assert page["channels"][0]["lagging"] == 0
        one = d.ask("GET", "/channels?sort=members&offset=1&limit=2").json
        assert [c["name"] for c in one["channels"]] == ["many", names[2]] and one["next"] == 3
        # What goes through one in a second; the busiest comes first.
        busy = clients[0]

        async def is_busy():
            for _ in range(20):
                await busy.send_chat(channel="busy")
            first = d.ask("GET", "/channels").json["channels"][0]
            return first["name"] == "busy" and first["messages_in"] > 0 and \
                first["messages_out"] == first["messages_in"] and first["bytes_in"] > 0

        end = time.monotonic() + DEADLINE
        while not await is_busy():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        answer = d.ask("GET", "/channels?sort=name")
        assert answer.status == 400 and b"busiest" in answer.body, answer
        await close_all(clients)
        wait_until(lambda: d.ask("GET", "/channels").json["total"] == 0, "all channels are gone")


@seconds(120)
def test_very_many_channels_are_listed_in_pieces():
    with Daemon(worker_threads=2, max_channels_per_client=10000,
                max_incoming_frames_per_second=0) as d:
        clients = [RawClient(d, "/") for _ in range(2)]
        for i, c in enumerate(clients):
            request = control(SUBSCRIBE, channels=[f"{i}/{k}" for k in range(9999)])
            request.request_id = new_id()
            c.send(request)
            while (m := c.recv()).request_id != request.request_id:
                pass
            assert m.control.type == ACKNOWLEDGE, describe(m)
        names, offset = set(), 0
        while offset is not None:
            page = d.ask("GET", f"/channels?limit=1000&offset={offset}").json
            names |= {c["name"] for c in page["channels"]}
            offset = page["next"]
        assert len(names) == 2 * 9999 + 1 and page["total"] == len(names)
        for c in clients:
            c.close()


async def test_channel_with_a_strange_name_is_valid_json():
    with Daemon() as d:
        name = 'a"b\\c\té\x7f'
        async with await Client.connect(d) as c:
            await c.subscribe(name)
            assert name in d.clients()[c.id]["channels"]


# Publish and disconnect


async def test_publish_text():
    with Daemon() as d:
        groups = await spread(d, "/news")
        everyone = [c for g in groups for c in g]
        answer = d.ask("POST", "/publish?channel=news", "Extra! ✓".encode(),
                       {"Content-Type": "text/plain"})
        assert answer.status == 200, answer
        assert answer.json["members"] == len(everyone)
        for c in everyone:
            m = await c.expect_chat("Extra! ✓", channel="news")
            assert m.chat.user_id == "system"
        lobby = await Client.connect(d)
        assert d.ask("POST", "/publish?channel=", b"hello",
                     {"Content-Type": "text/plain"}).json["members"] == 1
        await lobby.expect_chat("hello")
        answer = d.ask("POST", "/publish?channel=nobody", b"x", {"Content-Type": "text/plain"})
        assert answer.status == 200 and answer.json["members"] == 0
        await close_all(everyone, lobby)


async def test_publish_a_message():
    with Daemon() as d:
        async with await Client.connect(d, "/news") as c:
            sent = chat("from a program", user_id="program", channel="news")
            answer = d.ask("POST", "/publish?channel=news", sent.SerializeToString(),
                           {"Content-Type": "application/x-protobuf"})
            assert answer.status == 200 and answer.json["members"] == 1, answer
            assert await c.recv() == sent
            bad = d.ask("POST", "/publish?channel=news", b"\xff\xff",
                        {"Content-Type": "application/x-protobuf"})
            assert bad.status == 400, bad
            await c.expect_silence()


def test_publish_what_cannot_be(daemon):
    for path, body in [("/publish?channel=" + "x" * 256, b"x"), ("/publish?channel=%FF", b"x"),
                       ("/publish?channel=ok", b"\xff\xfe")]:
        answer = daemon.ask("POST", path, body, {"Content-Type": "text/plain"})
        assert 400 <= answer.status < 500, (path[:40], answer)


async def test_disconnect():
    with Daemon() as d:
        groups = await spread(d, "/room")
        a, b = groups[0][0], groups[1][0]
        assert d.ask("POST", f"/disconnect?id={a.id}").status == 200
        await b.expect_notice(DISCONNECT, a.id)
        try:
            while True:
                await a.recv()
        except Closed:
            pass
        assert d.ask("POST", f"/disconnect?id={a.id}").status == 404
        assert d.ask("POST", f"/disconnect?id={uuid.uuid4()}").status == 404
        assert d.ask("POST", "/disconnect?id=nonsense").status == 400
        assert d.ask("POST", "/disconnect").status == 400
        assert d.ask("POST", f"/disconnect?id={a.id}&user=x").status == 400
        assert d.ask("POST", "/disconnect?user=").status == 400
        await close_all(groups)


async def test_disconnect_a_user():
    """All connections of one, on every worker, and nobody else's."""
    with tempfile.TemporaryDirectory() as keys:
        secret = Path(keys) / "secret"
        secret.write_bytes(b"0123456789abcdef0123456789abcdef")
        secret.chmod(0o600)
        with Daemon(worker_threads=2, auth="jwt", jwt_key_file=secret) as d:
            def header(sub):
                signed = token(secret.read_bytes(), {"sub": sub})
                return {"extra_headers": {"Authorization": f"Bearer {signed}"}}

            alices = [await Client.connect(d, f"/r{i % 7}", **header("alice & co"))
                      for i in range(40)]
            bob = await Client.connect(d, "/r0", **header("bob"))
            query = f"/disconnect?user={urllib.parse.quote('alice & co')}"
            answer = d.ask("POST", query)
            assert (answer.status, answer.text) == (200, "closing 40 connections\n")
            for a in alices:
                await a.expect_close(1000, "administrator")
            answer = d.ask("POST", query)
            assert answer.status == 404 and "no client of this user" in answer.text
            await bob.expect_silence()
            await bob.close()


def test_hostile_requests(daemon):
    cases = [b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20000,
             b"POST /publish?channel=x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
             b"POST /publish?channel=x HTTP/1.1\r\nHost: x\r\nContent-Length: "
             b"99999999999999999999\r\n\r\n"]
    for raw in cases:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(DEADLINE)
            s.connect(str(daemon.control_socket))
            try:
                s.sendall(raw)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for s in silent:
        s.connect(str(daemon.control_socket))
        s.sendall(b"\x00" * 1000)
    assert daemon.ask("GET", "/healthz").status == 200
    for s in silent:
        s.close()


def test_a_page_of_somebody_else_reads_no_metrics():
    """DNS rebinding: its own name, with this host's address behind it."""
    with Daemon() as d:
        for host, status in ((f"localhost:{d.metrics_port}", 200), ("127.0.0.1", 200), ("LOCALHOST", 200),
                             ("[::1]:9090", 200), ("192.0.2.7:9090", 200), ("evil.example", 421),
                             (f"evil.example:{d.metrics_port}", 421), ("localhost.evil.example", 421),
                             ("127.0.0.1.evil.example", 421)):
            assert d.get("/metrics", headers={"Host": host}).status == status, host
        # The control socket is no page's to reach, and its clients send what they like.
        assert d.ask("GET", "/metrics").status == 200


def test_misspelled_parameters_are_refused():
    with Daemon() as d, RawClient(d, "/") as lobby:
        for method, path, named in (
                ("POST", "/publish?chanel=news", "chanel"), ("POST", "/publish", "channel is missing"),
                ("POST", "/publish?channel=a&channel=b", "channel: stands twice"),
                ("POST", "/publish?channel=a&x", "x: no such parameter; allowed: channel"),
                ("GET", "/clients?channels=a", "channels"), ("GET", "/channels?user=a", "user"),
                ("POST", "/reload?force=1", "force"), ("POST", "/disconnect?name=x", "name")):
            answer = d.ask(method, path, b"hello" if method == "POST" else None,
                           {"Content-Type": "text/plain"})
            assert answer.status == 400 and named in answer.text, (path, answer)
        assert d.get("/healthz?probe=7").status == 200
        lobby.send(frame(PING, b"!"))
        lobby.expect_frame(PONG, b"!")  # nothing came before it


def test_a_user_id_breaks_no_json():
    with tempfile.TemporaryDirectory() as keys:
        secret = Path(keys) / "secret"
        secret.write_bytes(b"0123456789abcdef0123456789abcdef")
        secret.chmod(0o600)
        user = 'a","address":"10.0.0.1","x":"\\'
        with Daemon(auth="jwt", jwt_key_file=secret) as d:
            headers = {"Authorization": "Bearer " + token(secret.read_bytes(), {"sub": user})}
            with RawClient(d, headers=headers):
                listed = json.loads(d.ask("GET", "/clients").text)["clients"]
                assert [c["user_id"] for c in listed] == [user]
                assert listed[0]["address"].startswith("127.0.0.1:")
                done = subprocess.run([str(binary()), "clients", "--config", str(d.config)],
                                      capture_output=True, text=True, check=True).stdout
                assert done.count("10.0.0.1") <= 1, done
