# SPDX-License-Identifier: MIT
"""Start, refusal to start, stop: exit status, what clients see, what systemd is told."""

from harness import *
from pki import Folder

CONFIG_STATUS = 78


def refused(*args, config, **options):
    """Starts with a configuration text that cannot work; returns the daemon, which has ended."""
    d = Daemon(*args, ready=False, **options)
    d.config.write_text(config)
    d.start()
    return d


def finished(d, status):
    assert d.wait() == status, d.end_of_log()
    running.remove(d)
    shutil.rmtree(d.folder)
    return d


def test_ready_line():
    with Daemon(worker_threads=3) as d:
        assert (d.host, d.workers) == ("127.0.0.1", 3)
        assert d.port > 0 and d.metrics_port > 0
        assert d.get("/readyz").status == 200


def test_a_limit_of_file_sizes_is_an_error_that_says_so():
    limit = (1 << 20, 1 << 20)
    d = Daemon(ready=False, preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    d.write_config().start()
    finished(d, 1)
    assert d.lines("not started: memory for what channels keep: File too large"), d.end_of_log()


def test_ready_line_without_metrics():
    with Daemon(enable_metrics="no") as d:
        assert d.metrics_port is None
        assert d.ask("GET", "/healthz").status == 200


def test_auto_workers_follow_the_affinity_mask():
    cpus = sorted(os.sched_getaffinity(0))
    with Daemon(worker_threads="auto", preexec=lambda: os.sched_setaffinity(0, cpus[:1])) as d:
        assert d.workers == 1


def test_room_for_descriptors_is_there_before_anybody_connects():
    """A table that grows while threads share it holds up whoever accepts."""
    def room(d):
        return int(re.search(r"^FDSize:\s*(\d+)", Path(f"/proc/{d.process.pid}/status").read_text(), re.M)[1])
    with Daemon(max_connections=1500) as d:
        assert 1500 < room(d) < 4000, room(d)
        assert d.reload(max_connections=4000).status == 200
        assert room(d) > 4000, room(d)


def test_command_line_wins_over_drop_in_over_file():
    d = Daemon("--welcome=from-flag", welcome="from-file", text_messages="relay")
    drop_ins = d.folder / "wsbind.conf.d"
    drop_ins.mkdir()
    (drop_ins / "20-b.conf").write_text("text_messages = log\nmax_connections = 7\n")
    (drop_ins / "10-a.conf").write_text("welcome = from-drop-in\nmax_connections = 5\n")
    (drop_ins / "30-ignored.txt").write_text("no_such_key = 1\n")
    with d:
        dump = subprocess.run([binary(), "check-config", str(d.config), "--welcome=from-flag",
                               "--dump"], capture_output=True, text=True, check=True).stdout
        assert re.search(r"^welcome\W+from-flag", dump, re.M), dump
        assert re.search(r"^max_connections\W+7\b.*20-b\.conf:2", dump, re.M), dump
        assert re.search(r"^text_messages\W+log\b.*20-b\.conf:1", dump, re.M), dump


def test_configuration_errors_name_file_line_key_and_value():
    cases = [
        ("port = 99999", 1, "port", "99999", "65535"),
        ("# comment\n\nmax_message_size = lots", 3, "max_message_size", "lots", ""),
        ("ping_interval = 30d", 1, "ping_interval", "30d", ""),
        ("tcp_nodelay = maybe", 1, "tcp_nodelay", "maybe", "yes"),
        ("slow_consumer = ignore", 1, "slow_consumer", "ignore", "disconnect"),
        ("compression_level = 12", 1, "compression_level", "12", "9"),
        ("worker_threads = 0", 1, "worker_threads", "0", ""),
        ("host = nowhere", 1, "host", "nowhere", ""),
        ("prot = 1", 1, "prot", "", ""),
        ("just words", 1, "just words", "", ""),
    ]
    for text, line, key, value, allowed in cases:
        d = finished(refused(config=text + "\n"), CONFIG_STATUS)
        found = d.lines(rf"wsbind\.conf:{line}\b")
        assert found, f"{text!r}: {d.end_of_log()}"
        for part in (key, value, allowed):
            assert part in found[0], f"{text!r}: {part!r} is not in {found[0]!r}"
        assert not d.lines(READY.pattern)


def test_all_configuration_errors_are_reported():
    d = finished(refused(config="port = x\nno_such_key = 1\nlog_level = loud\n"), CONFIG_STATUS)
    for line in (1, 2, 3):
        assert d.lines(rf"wsbind\.conf:{line}\b"), d.end_of_log()


def test_settings_that_contradict_each_other():
    d = finished(refused(config="max_frame_size = 8M\nmax_message_size = 1M\n"), CONFIG_STATUS)
    assert d.lines("max_frame_size.*max_message_size|max_message_size.*max_frame_size")


def test_error_on_the_command_line():
    d = finished(refused("--port=banana", config=""), CONFIG_STATUS)
    assert d.lines("port.*banana"), d.end_of_log()


def test_missing_configuration_file():
    d = Daemon(ready=False)
    d.start()
    assert finished(d, CONFIG_STATUS).lines(r"wsbind\.conf"), d.end_of_log()


def test_taken_port_names_the_key():
    for key in ("port", "metrics_port"):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            settings = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, key: number}
            d = finished(refused(config="".join(f"{k} = {v}\n" for k, v in settings.items())),
                         CONFIG_STATUS)
        found = d.lines(rf"\b{key}\b")
        assert found, d.end_of_log()


def test_taken_control_socket_names_the_key():
    with Daemon() as first:
        d = finished(refused(config="host = 127.0.0.1\nport = 0\nmetrics_port = 0\n"
                                    f"control_socket = {first.control_socket}\n"),
                     CONFIG_STATUS)
        assert d.lines("control_socket"), d.end_of_log()
        assert first.ask("GET", "/healthz").status == 200


def test_taken_port_of_prometheus_itself_is_a_warning():
    try:
        taken = socket.create_server(("127.0.0.1", 9090))
    except OSError:  # somebody else's, which does as well
        taken = socket.socket()
    with taken, Daemon(metrics_port=9090) as d:
        assert d.metrics_port is None
        assert d.lines("^warning: metrics_port = 9090 is taken, perhaps by Prometheus"), d.end_of_log()
        assert d.ask("GET", "/metrics").status == 200


def test_left_over_control_socket_is_replaced():
    d = Daemon()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(d.control_socket))
    with d:
        assert d.ask("GET", "/healthz").status == 200


def test_warns_when_open_to_everyone():
    with Daemon(host="0.0.0.0") as d:
        found = d.lines(r"^warning: .*0\.0\.0\.0")
        assert len(found) == 1, d.end_of_log()


def test_second_daemon_cannot_share_the_port():
    with Daemon() as first:
        d = finished(refused(config=f"host = 127.0.0.1\nport = {first.port}\nmetrics_port = 0\n"),
                     CONFIG_STATUS)
        assert d.lines(r"\bport\b"), d.end_of_log()


async def test_listens_on_ipv6():
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        raise Skip("no IPv6 here")
    with Daemon(host="::") as d:
        for address in ("[::1]", "127.0.0.1"):
            d.host = address
            async with await Client.connect(d):
                pass


async def test_stop_says_goodbye():
    with Daemon(reconnect_window=20) as d:
        groups = await spread(d, each=2)
        clients = [c for g in groups for c in g]
        d.signal(signal.SIGTERM)
        delays = set()
        for c in clients:
            before = await c.expect_close(1012)
            assert len(before) == 1, [describe(m) for m in before]
            goodbye = before[0].control
            assert before[0].type == CONTROL and goodbye.type == DISCONNECT, describe(before[0])
            assert goodbye.reason
            assert 0 <= goodbye.reconnect_after_ms <= 20000
            delays.add(goodbye.reconnect_after_ms)
            assert not [n for n in c.notices if n.control.type == DISCONNECT], "notices at a stop"
        assert len(delays) > 1, f"all are to come back after {delays} ms"


async def test_stop_flushes_what_is_queued():
    with Daemon() as d:
        groups = await spread(d)
        sender, reader = groups[0][0], groups[1][0]
        await sender.connect_with(["ack"])
        for i in range(200):
            await sender.send_chat(f"{i} " + "x" * 1000, request_id=new_id())
        last = await sender.ask(chat("last"))
        assert last.control.type == ACKNOWLEDGE
        d.signal(signal.SIGTERM)
        got = await reader.expect_close(1012)
        texts = [m.chat.content.split(" ")[0] for m in got[:-1]]
        assert texts == [str(i) for i in range(200)] + ["last"], texts
        assert got[-1].control.type == DISCONNECT


def test_stop_does_not_wait_for_a_client_that_does_not_read():
    with Daemon(shutdown_timeout="1s", max_send_buffer="64M", message_queue_size=100000) as d:
        with RawClient(d, rcvbuf=4096), RawClient(d) as sender:
            sender.send(*[chat("x" * 100000) for _ in range(100)])
            sender.send(frame(PING, b"through"))
            while sender.recv_frame().payload != b"through":
                pass
            began = time.monotonic()
            d.stop()
            assert time.monotonic() - began < 1 + 3 * SLOW


def test_stop_with_half_a_handshake_and_half_a_message():
    with Daemon() as d:
        with RawClient(d, handshake=False) as silent, RawClient(d) as partial:
            silent.send(request()[:20])
            partial.send(frame(BINARY, b"abc", fin=False))
            began = time.monotonic()
            d.signal(signal.SIGTERM)
            partial.expect_close(1012)
            d.stop()
            assert time.monotonic() - began < 4 * SLOW


def test_interrupt_stops_too():
    with Daemon() as d:
        d.stop(signal.SIGINT)


def test_second_signal_does_no_harm():
    with Daemon() as d:
        with RawClient(d):
            d.signal(signal.SIGTERM)
            d.stop()


async def test_refuses_connections_while_it_stops():
    with Daemon(shutdown_timeout="2s", max_send_buffer="64M", message_queue_size=100000) as d:
        with RawClient(d, rcvbuf=4096), RawClient(d) as sender:
            sender.send(*[chat("x" * 100000) for _ in range(100)])
            sender.send(frame(PING, b"through"))
            while sender.recv_frame().payload != b"through":
                pass
            d.signal(signal.SIGTERM)
            sender.expect_close(1012)
            try:
                with RawClient(d, handshake=False) as late:
                    late.send(request())
                    assert late.recv_head()[0] == 503
            except (ConnectionError, EOFError):
                pass


class Notify:
    """The socket that a service manager listens on."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(DEADLINE)
        self.seen = []

    def wait(self, variable):
        """The value of the next variable of that name."""
        while True:
            for line in self.socket.recv(4096).decode().splitlines():
                self.seen.append(line)
            found = [line for line in self.seen if line.startswith(variable + "=")]
            if found:
                self.seen = self.seen[self.seen.index(found[0]) + 1:]
                return found[0].split("=", 1)[1]


def test_tells_the_service_manager():
    with tempfile.TemporaryDirectory() as folder:
        notify = Notify(Path(folder))
        with Daemon(env={"NOTIFY_SOCKET": notify.path}) as d:
            assert notify.wait("READY") == "1"
            assert notify.wait("STATUS")
            d.signal(signal.SIGHUP)
            assert notify.wait("RELOADING") == "1"
            assert abs(int(notify.wait("MONOTONIC_USEC")) / 1e6 - time.monotonic()) < DEADLINE
            assert notify.wait("READY") == "1"
            d.signal(signal.SIGTERM)
            assert notify.wait("STOPPING") == "1"
            assert d.wait() == 0
        notify.socket.close()


def test_feeds_the_watchdog():
    with tempfile.TemporaryDirectory() as folder:
        notify = Notify(Path(folder))
        with Daemon(env={"NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "400000"}):
            for _ in range(3):
                assert notify.wait("WATCHDOG") == "1"
        notify.socket.close()


async def test_takes_a_socket_from_the_service_manager():
    with socket.create_server(("127.0.0.1", 0)) as handed:
        number = handed.getsockname()[1]
        take = f'exec 3<&{handed.fileno()}; export LISTEN_PID=$$; exec "$@"'
        with Daemon(prefix=("sh", "-c", take, "sh"), fds=(handed.fileno(),), port=1,
                    env={"LISTEN_FDS": "1"}) as d:
            assert d.port == number
            clients = [await Client.connect(d) for _ in range(8)]
            await clients[1].expect_nothing_in(clients[0])
            await close_all(clients)


def test_a_socket_from_the_service_manager_asks_for_no_certificates():
    with socket.create_server(("127.0.0.1", 0)) as handed, Folder() as f:
        certificate, key = f.certificate("server")
        take = f'exec 3<&{handed.fileno()}; export LISTEN_PID=$$; exec "$@"'
        with Daemon(prefix=("sh", "-c", take, "sh"), fds=(handed.fileno(),), port="off",
                    env={"LISTEN_FDS": "1"}, tls_port=0, tls_certificate=certificate, tls_key=key,
                    tls_client_ca=certificate) as d:
            assert d.port == handed.getsockname()[1]
            assert d.lines("^warning: tls_client_ca asks for certificates on tls_port alone")
