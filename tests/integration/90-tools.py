# SPDX-License-Identifier: MIT
"""The other sub-commands: client, benchmark, check-config and those of the control socket."""

import json
import pty
import resource

import old_websockets
from harness import *

SETTINGS = {}


def tool(*args, stdin=None, timeout=30 * SLOW, **options):
    """Runs a sub-command to its end, its input empty unless given."""
    return subprocess.run([str(binary()), *map(str, args)], input=stdin or "", text=True,
                          capture_output=True, timeout=timeout, check=False, **options)


async def start(*args, **options):
    """Starts a sub-command that is to run beside the test."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
               "stderr": subprocess.STDOUT, **options}
    return await asyncio.create_subprocess_exec(str(binary()), *map(str, args), **options)


async def ended(process, status, timeout=30 * SLOW):
    """Waits for the end; returns what it printed."""
    said, _ = await asyncio.wait_for(process.communicate(), timeout)
    text = said.decode() if said else ""
    assert process.returncode == status, f"exit status {process.returncode}: {text}"
    assert not SANITIZER.search(text), text
    return text


def said(done, status=0):
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert not SANITIZER.search(done.stderr), done.stderr
    return done.stdout + done.stderr


# The program itself


def test_version_and_help():
    assert re.search(r"\bwsbind \d", said(tool("--version")))
    text = said(tool("--help"))
    for command in ("server", "client", "benchmark", "check-config", "status", "clients", "reload",
                    "publish", "disconnect"):
        assert re.search(rf"\b{command}\b", text), command


def test_wrong_usage():
    for args in (["no-such-command"], [], ["server", "--no-such-option"], ["server", "extra"]):
        done = tool(*args)
        assert done.returncode not in (0, -6, -11) and done.stderr, (args, done)


# check-config


def test_check_config():
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "some.conf"
        config.write_text("port = 1234\nmax_message_size = 32M\n")
        said(tool("check-config", config))
        dump = said(tool("check-config", config, "--dump"))
        assert re.search(rf"^port\W+1234\b.*{config}:1", dump, re.M), dump
        assert re.search(r"^ping_interval\W+30s?\b.*default", dump, re.M), dump
        for line in ("max_message_size", "welcome", "reconnect_backoff", "echo_path"):
            assert re.search(rf"^{line}\b", dump, re.M), line
        config.write_text("port = many\n")
        text = said(tool("check-config", config), 78)
        for part in (f"{config}:1", "port", "many", "65535"):
            assert part in text, text
        said(tool("check-config", Path(folder) / "none.conf"), 78)


def as_nobody(*args, status):
    """check-config as a user that may do nothing; needs root to become that."""
    if os.geteuid() != 0:
        raise Skip("not root")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        for part in Path(binary()).parents:
            if not part.stat().st_mode & 1:
                raise Skip("nobody may not reach the program")
        done = subprocess.run(
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", str(binary()),
             "check-config", "/dev/null", "--port=0", "--metrics-port=0",
             *(a.replace("FOLDER", folder) for a in args)],
            capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == status, done
        return done.stderr


def test_check_config_tries_the_group_of_the_control_socket():
    at = "--control-socket=FOLDER/control.sock"
    text = as_nobody(at, "--control-group=no-such-group", status=78)
    assert "control_group = no-such-group: there is no such group" in text, text
    for group in ("root", "0"):
        text = as_nobody(at, f"--control-group={group}", status=78)
        assert f"control_group = {group}: this process is not in the group" in text, text
    as_nobody(at, "--control-group=nogroup", status=0)


def test_a_file_that_may_not_be_read_says_what_helps():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        key = Path(folder, "secret")
        key.write_text("0123456789abcdef0123456789abcdef")
        key.chmod(0o600)
        for args in (["--auth=jwt", f"--jwt-key-file={key}"],
                     ["--tls-port=0", f"--tls-certificate={key}"],
                     ["--tls-port=0", f"--tls-certificate={key}", f"--tls-key={key}"]):
            text = as_nobody(*args, status=78)
            assert f"{key}" in text and "SupplementaryGroups=" in text, text


# Through the control socket


def test_status(daemon):
    text = said(tool("status", "--config", daemon.config))
    assert "connections" in text.lower(), text


async def test_clients(daemon):
    async with await Client.connect(daemon, "/listed") as c:
        await c.connect_with([], session_id="mine")
        text = said(tool("clients", "--config", daemon.config))
        assert re.search(rf"^{c.id} mine .* listed$", text, re.M) and c.user_id in text, text
        listed = json.loads(said(tool("clients", "--json", "--config", daemon.config)))
        assert c.id in [entry["id"] for entry in listed["clients"]]


async def test_channels(daemon):
    async with await Client.connect(daemon, "/listed") as c:
        await c.subscribe("evil\x1b[31m\nname")
        text = said(tool("channels", "--config", daemon.config))
        assert re.search(r"^ *MEMBERS .* KEPT +BYTES CHANNEL$", text, re.M), text
        assert re.search(r"^ +1 +0 .* 0 +0 B listed$", text, re.M), text
        assert "\x1b" not in text and "evil" in text, text
        columns = text.splitlines()[0].index("CHANNEL")
        assert columns <= 73 and all(line[columns - 1] == " " for line in text.splitlines()), text
        listed = json.loads(said(tool("channels", "--json", "--sort", "members", "--limit", "1",
                                      "--config", daemon.config)))
        assert len(listed["channels"]) == 1 and listed["total"] >= 2, listed
        said(tool("channels", "--sort", "beauty", "--config", daemon.config), 1)


async def test_channels_show_what_they_keep():
    with Daemon(history_messages=3) as d:
        clients = [await Client.connect(d, "/kept", capabilities=["ack"]) for _ in range(4)]
        for i in range(5):
            await clients[i % 4].ask(chat(f"message {i}"))
        [channel] = d.ask("GET", "/channels").json["channels"]
        assert channel["history_messages"] == 3 and 90 < channel["history_bytes"] < 1000, channel
        assert re.search(rf"^ +4 .* 3 +{channel['history_bytes']} B kept$",
                         said(tool("channels", "--config", d.config)), re.M)
        await close_all(clients)


async def test_clients_in_an_order(daemon):
    clients = [await Client.connect(daemon, "/ordered") for _ in range(3)]
    for limit in (1, 2, 3, 1000):
        listed = json.loads(said(tool(
            "clients", "--json", "--sort", "connected_at", "--limit", str(limit), "--channel",
            "ordered", "--config", daemon.config)))
        assert len(listed["clients"]) == min(limit, 3) and listed["total"] == 3, listed
    await close_all(clients)


async def test_publish(daemon):
    async with await Client.connect(daemon, "/told") as c:
        assert re.search(r"\b1\b", said(tool("publish", "-c", "told", "hello there", "--config",
                                             daemon.config)))
        await c.expect_chat("hello there")
        said(tool("publish", "-c", "told", "-", "--config", daemon.config, stdin="from a pipe"))
        m = await c.recv()
        assert m.chat.content.strip() == "from a pipe" and m.chat.user_id == "system"


async def test_disconnect(daemon):
    async with await Client.connect(daemon) as c:
        said(tool("disconnect", c.id, "--config", daemon.config))
        try:
            while True:
                await c.recv()
        except Closed:
            pass
        await daemon.wait_metric("websocket_active_connections", 0)
        assert said(tool("disconnect", c.id, "--config", daemon.config), 1)


async def test_disconnect_a_user(daemon):
    async with await Client.connect(daemon) as c:
        text = said(tool("disconnect", "--user", c.user_id, "--config", daemon.config))
        assert text == "closing 1 connection\n", text
        await c.expect_close(1000)
    for arguments in ([], [str(uuid.uuid4()), "--user", "x"]):
        text = said(tool("disconnect", *arguments, "--config", daemon.config), 2)
        assert "either ID or --user USER" in text, text


def test_reload():
    with Daemon() as d:
        d.write_config(text_messages="relay")
        said(tool("reload", "--config", d.config))
        d.wait_log("text_messages")
        d.config.write_text(d.config.read_text() + "ping_interval = soon\n")
        text = said(tool("reload", "--config", d.config), 1)
        assert "ping_interval" in text and "soon" in text, text


def test_a_reload_reaches_the_daemon_whose_file_is_wrong():
    with Daemon() as d:
        with d.config.open("ab") as f:
            f.write(b"welcome = \xff\n")
        text = said(tool("reload", "--config", d.config), 1)
        assert "nothing was changed" in text and "welcome = \\xff: " in text, text
        d.wait_log(r"welcome = \\xff: ")
        assert not d.lines("x5c"), d.lines("x5c")


def test_a_file_that_is_not_there_leads_to_no_daemon(daemon):
    for command in (["status"], ["clients", "--json"], ["reload"], ["publish", "x"],
                    ["disconnect", str(uuid.uuid4())]):
        done = tool(*command, "--config", "/no/such/file",
                    f"--control-socket={daemon.control_socket}")
        assert done.returncode == 78 and not done.stdout, done
        assert "/no/such/file: cannot be read" in done.stderr, done


def test_a_relative_socket_counts_from_the_working_directory():
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(binary().resolve(), Path(folder, "wsbind"))
        with Daemon() as d:
            os.symlink(d.control_socket, Path(folder, "here.sock"))
            env = {k: v for k, v in os.environ.items() if k != "RUNTIME_DIRECTORY"}
            options = {"cwd": folder, "env": env, "capture_output": True, "text": True,
                       "timeout": DEADLINE, "check": False}
            said(subprocess.run(["./wsbind", "status", "--config=/dev/null",
                                 "--control-socket=here.sock"], **options))
            text = said(subprocess.run(["./wsbind", "status", "--config=/dev/null",
                                        "--control-socket=elsewhere.sock"], **options), 1)
            assert " elsewhere.sock:" in text, text


def test_no_daemon_there():
    with tempfile.TemporaryDirectory() as folder:
        for command in (["status"], ["clients"], ["reload"], ["publish", "x"],
                        ["disconnect", str(uuid.uuid4())]):
            text = said(tool(*command, f"--control-socket={folder}/none.sock"), 1)
            assert f"{folder}/none.sock" in text, text


# client


async def test_client_sends_at_its_interval(daemon):
    async with await Client.connect(daemon, "/ticks") as c:
        p = await start("client", "-u", daemon.url("/ticks"), "--interval-ms", 20)
        for _ in range(5):
            m = await c.recv()
            assert m.type == CHAT_MESSAGE and m.chat.content, describe(m)
        p.terminate()
        await asyncio.wait_for(p.wait(), DEADLINE)
        await p.communicate()


async def test_many_clients(daemon):
    async with await Client.connect(daemon, "/crowd") as c:
        p = await start("client", "-u", daemon.url("/crowd"), "-c", 5, "--interval-ms", 20)
        senders = set()
        while len(senders) < 5:
            m = await c.recv()
            senders.add(m.chat.user_id or m.chat.id)
        assert len([n for n in c.notices if n.control.type == CONNECT]) == 5
        p.terminate()
        await asyncio.wait_for(p.wait(), DEADLINE)
        await p.communicate()


async def test_channel_option(daemon):
    async with await Client.connect(daemon, "/chosen") as c:
        p = await start("client", "-u", daemon.url("/"), "--channel", "chosen", "--interval-ms", 20)
        await c.recv()
        p.terminate()
        await p.communicate()


class Peer:
    """A server of our own, for what the daemon would not do when asked."""

    def __init__(self, serve):
        self.serve = serve
        self.seen = []  # the first message of each connection
        self.when = []
        self.errors = []

    async def _connection(self, socket_):
        try:
            self.when.append(time.monotonic())
            self.seen.append(Message.FromString(await asyncio.wait_for(socket_.recv(), DEADLINE)))
            await self.serve(self, socket_)
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)

    async def __aenter__(self):
        self.server = await old_websockets.serve(self._connection, "127.0.0.1", 0,
                                                 ping_interval=None)
        host, port = self.server.sockets[0].getsockname()
        self.url = f"ws://{host}:{port}"
        return self

    async def __aexit__(self, kind, *_):
        self.server.close()
        await self.server.wait_closed()
        assert kind or not self.errors, self.errors


async def test_client_begins_with_connect_and_ends_when_closed_with_1000():
    async def serve(_, socket_):
        await socket_.close(1000)

    async with Peer(serve) as peer:
        p = await start("client", "-u", peer.url, "--interval-ms", 1000)
        await ended(p, 0)
        assert len(peer.seen) == 1
        assert peer.seen[0].type == CONTROL and peer.seen[0].control.type == CONNECT
        assert len(peer.seen[0].request_id) == 16


async def test_client_comes_back_when_it_is_told_to():
    async def serve(peer, socket_):
        if len(peer.when) < 3:
            m = control(DISCONNECT)
            m.control.reconnect_after_ms = 600
            await socket_.send(m.SerializeToString())
            await socket_.close(1012)
        else:
            await socket_.close(1000)

    async with Peer(serve) as peer:
        p = await start("client", "-u", peer.url, "--interval-ms", 1000, "--reconnect_attempts=1",
                        "--reconnect_delay_ms=10")
        await ended(p, 0)
        assert len(peer.when) == 3, "attempts count anew after a successful handshake"
        gaps = [b - a for a, b in zip(peer.when, peer.when[1:])]
        assert min(gaps) >= 0.59, gaps


async def test_client_gives_up_when_attempts_are_used_up():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    began = time.monotonic()
    p = await start("client", "-u", f"ws://127.0.0.1:{port}", "--reconnect_attempts=3",
                    "--reconnect_delay_ms=50", "--reconnect_backoff=2", "--interval-ms", 100)
    text = await ended(p, 1)
    assert f"cannot connect to 127.0.0.1:{port}: " in text, text
    assert "giving up after 3 more attempts" in text, text
    assert time.monotonic() - began > 0.1


async def test_client_answers_pings():
    with Daemon(ping_interval="200ms", pong_timeout="200ms", heartbeat_timeout="1s") as d:
        p = await start("client", "-u", d.url("/"), "--interval-ms", 3600000)
        await d.wait_metric("websocket_pings_sent_total", lambda v: v >= 8)
        assert d.metric("websocket_heartbeat_expired_total") == 0
        p.terminate()
        await p.communicate()


async def test_client_says_goodbye_when_it_is_stopped():
    codes = []

    async def serve(_, socket_):
        await socket_.wait_closed()
        codes.append(socket_.close_code)

    for number in (signal.SIGTERM, signal.SIGINT):
        async with Peer(serve) as peer:
            p = await start("client", "-u", peer.url, "--interval-ms", 3600000)
            await until(lambda peer=peer: peer.seen, "CONNECT")
            p.send_signal(number)
            await ended(p, 0)
            await until(lambda: codes, "the end of the connection")
            assert codes.pop() == 1000


async def test_client_goes_on_after_a_restart_of_the_server():
    with Daemon(reconnect_window=0) as first:
        port = first.port
        p = await start("client", "-u", first.url("/kept"), "--interval-ms", 50,
                        "--reconnect_delay_ms=200", "--reconnect_attempts=20")
        async with await Client.connect(first, "/kept") as c:
            await c.recv()
    with Daemon(port=port) as second:
        async with await Client.connect(second, "/kept") as c:
            m = await c.recv()
            assert m.type == CHAT_MESSAGE and re.fullmatch(r"message \d+", m.chat.content)
        p.terminate()
        text = await ended(p, 0)
        assert "1012" in text and "attempt 1 of 20" in text, text


async def test_client_does_not_insist_where_it_is_refused_for_good(daemon):
    p = await start("client", "-u", daemon.url("/" + "x" * 300), "--reconnect_attempts=1000")
    assert "404" in await ended(p, 1)


def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def test_more_clients_than_open_files(daemon):
    for command in (["client", "--interval-ms=10"], ["benchmark"]):
        text = said(tool(*command, "-u", daemon.url("/"), "-c", 1000, preexec_fn=few_files), 1)
        assert "1000" in text and "open files" in text, text


async def send_file(daemon, size):
    """Runs --send-file; returns what a member of the channel got."""
    content = os.urandom(size)
    path = daemon.folder / "to-send"
    path.write_bytes(content)
    async with await Client.connect(daemon, "/files") as c:
        p = await start("client", "-u", daemon.url("/files"), "--send-file", path)
        got, n = b"", 0
        while True:
            m = await c.expect_binary(sequence=n, compression=NONE)
            assert int(m.binary.checksum, 16) == zlib.crc32(m.binary.data)
            assert m.binary.is_last or len(m.binary.data) == 16 << 10
            got += m.binary.data
            n += 1
            if m.binary.is_last:
                break
        await ended(p, 0)
        assert got == content


async def test_send_file():
    with Daemon() as d:
        for size in (1, 16 << 10, 1000000):
            await send_file(d, size)


async def test_send_file_to_a_spool():
    d = Daemon()
    (d.folder / "spool").mkdir()
    d.settings["spool_dir"] = d.folder / "spool"
    with d:
        await send_file(d, 3000000)
        files = list((d.folder / "spool").iterdir())
        assert len(files) == 1
        assert files[0].read_bytes() == (d.folder / "to-send").read_bytes()


async def test_files_of_two_are_received_at_once():
    with Daemon(max_incoming_frames_per_second=0) as d:
        kept = d.folder / "kept"
        kept.mkdir()
        (kept / "b.bin").write_bytes(b"was there before")
        receiver = await start("client", "-u", d.url("/files"), "--receive-dir", kept)
        await d.wait_metric("websocket_active_connections", 1)
        contents = {}
        for name, size in ("a.bin", 3000000), ("b.bin", 2000000), ("c.bin", 0):
            contents[name] = os.urandom(size)
            (d.folder / name).write_bytes(contents[name])
        senders = [await start("client", "-u", d.url("/files"), "--send-file", d.folder / name)
                   for name in contents]
        for p in senders:
            await ended(p, 0)

        def files():
            try:
                return {p.name: p.read_bytes() for p in kept.iterdir()}
            except FileNotFoundError:  # it had its temporary name a moment ago
                return None

        wanted = {"a.bin": contents["a.bin"], "b.bin": b"was there before",
                  "b-2.bin": contents["b.bin"], "c.bin": b""}
        wait_until(lambda: files() == wanted, "all that was sent")
        receiver.send_signal(signal.SIGINT)
        text = await ended(receiver, 0)
        assert f"{kept}/b-2.bin: 2000000 bytes" in text, text


async def test_received_file_leaves_nothing_when_its_sender_goes():
    with Daemon() as d:
        kept = d.folder / "kept"
        kept.mkdir()
        receiver = await start("client", "-u", d.url("/files"), "--receive-dir", kept)
        await d.wait_metric("websocket_active_connections", 1)
        async with await Client.connect(d, "/files") as c:
            m = data(b"half", is_last=False)
            m.binary.name, m.binary.transfer = "../../out", b"id"
            await c.send(m)
            wait_until(lambda: list(kept.iterdir()), "the beginning of a file")
        receiver.send_signal(signal.SIGTERM)
        text = await ended(receiver, 0)
        assert "kept/out: " in text and not list(kept.iterdir()), text
        assert not (d.folder / "out").exists()


async def test_send_file_says_who_left_meanwhile():
    with Daemon(max_incoming_frames_per_second=20) as d:
        path = d.folder / "to-send"
        path.write_bytes(bytes(50 * (16 << 10)))
        async with await Client.connect(d, "/files") as stays:
            goes = await Client.connect(d, "/files")
            p = await start("client", "-u", d.url("/files"), "--send-file", path)
            await stays.expect_binary(sequence=0)
            await goes.close()
            text = await ended(p, 0)
        assert f"1 member left the channel meanwhile, perhaps without all of it: {goes.id}" in text


async def test_send_file_says_what_the_server_refuses():
    d = Daemon()
    d.settings["spool_dir"] = d.folder / "spool"
    (d.folder / "spool").mkdir()
    with d:
        (d.folder / "spool").rmdir()
        path = d.folder / "to-send"
        path.write_bytes(os.urandom(100000))
        text = said(tool("client", "-u", d.url("/"), "--send-file", path), 1)
        assert str(path) in text and "refuses" in text, text


async def test_send_file_to_a_server_that_does_not_acknowledge():
    async def serve(peer, socket_):
        m = control(ACKNOWLEDGE, request_id=peer.seen[-1].request_id, capabilities=["zstd"])
        await socket_.send(m.SerializeToString())
        await socket_.wait_closed()

    async with Peer(serve) as peer:
        p = await start("client", "-u", peer.url, "--send-file", __file__)
        assert "acknowledge" in await ended(p, 1)


def test_send_file_that_is_not_there(daemon):
    text = said(tool("client", "-u", daemon.url("/"), "--send-file", "/no/such/file"), 1)
    assert "/no/such/file" in text


async def test_chat_on_a_terminal(daemon):
    outer, inner = pty.openpty()
    p = await start("client", "-u", daemon.url("/talk"), stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = bytearray()

    def read_terminal():
        try:
            shown.extend(os.read(outer, 4096))
        except OSError:
            asyncio.get_running_loop().remove_reader(outer)

    asyncio.get_running_loop().add_reader(outer, read_terminal)
    async with await Client.connect(daemon, "/talk") as c:
        await until(lambda: len(daemon.clients()) == 2, "the client to connect")
        os.write(outer, "tÿped line\n".encode())
        await c.expect_chat("tÿped line")
        await c.send_chat("an answer \x1b]0;trick\x07", user_id="someone")
        await until(lambda: b"an answer" in shown, "the answer to be shown")
        assert b"someone" in shown
        assert b"\x1b]0;trick" not in shown, "a peer's bytes reached the terminal"
    os.write(outer, b"\x04")
    await asyncio.wait_for(p.wait(), DEADLINE)
    assert p.returncode == 0
    asyncio.get_running_loop().remove_reader(outer)
    os.close(outer)


# benchmark


async def test_benchmark_fan_out(daemon):
    p = await start("benchmark", "-u", daemon.url("/"), "-m", 500, "-c", 5, "--message-size", 200,
                    "--json")
    result = json.loads(await ended(p, 0))
    assert result["sent"] == 500, result
    assert result["delivered"] >= 500, result
    assert result["lost"] == 0 and result["duplicated"] == 0, result
    text = json.dumps(result)
    for word in ("p50", "p90", "p99", "p99.9", "max", "mean"):
        assert word in text or word.replace(".", "") in text or word.replace(".", "_") in text, word


async def test_benchmark_over_all_workers(daemon):
    p = await start("benchmark", "-u", daemon.url("/"), "-m", 400, "-c", 60, "--publishers", 8,
                    "--json")
    result = json.loads(await ended(p, 0))
    assert result["expected"] == result["delivered"] == 400 * 59, result
    assert result["orders"] == 1 and result["out_of_order"] == 0 and result["ok"], result


class Broadcast:
    """
    A server that sends what it gets to all others, with faults: distort(number, receiver, frame)
    returns the frames that this receiver gets now.
    """

    def __init__(self, distort, to_sender=False):
        self.distort, self.to_sender = distort, to_sender
        self.members = []
        self.n = 0

    async def _connection(self, socket_):
        me = len(self.members)
        self.members.append(socket_)
        async for frame_ in socket_:
            number, self.n = self.n, self.n + 1
            for i, other in enumerate(self.members):
                if i != me or self.to_sender:
                    for piece in self.distort(number, i, frame_):
                        await other.send(piece)

    async def __aenter__(self):
        self.server = await old_websockets.serve(self._connection, "127.0.0.1", 0,
                                                 ping_interval=None, compression=None)
        host, port = self.server.sockets[0].getsockname()
        self.url = f"ws://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()


class Swap:
    """Turns the third and fourth of every four messages around, for some receivers."""

    def __init__(self, *receivers):
        self.receivers = receivers
        self.held = {}

    def __call__(self, number, receiver, frame_):
        if receiver not in self.receivers or number % 4 < 2:
            return [frame_]
        if number % 4 == 2:
            self.held[receiver] = frame_
            return []
        return [frame_, self.held.pop(receiver)]


async def faulty(distort, *args, to_sender=False):
    async with Broadcast(distort, to_sender) as server:
        p = await start("benchmark", "-u", server.url, "-m", 40, "-c", 4, "--window", 8, "--json",
                        *args)
        said_, _ = await asyncio.wait_for(p.communicate(), 40 * SLOW)
        result = next(json.loads(line) for line in said_.decode().splitlines() if line[0] == "{")
        return p.returncode, result


async def test_benchmark_finds_nothing_wrong_with_a_plain_broadcast():
    status, result = await faulty(lambda number, receiver, frame_: [frame_])
    assert status == 0 and result["ok"] and result["delivered"] == 120, result


async def test_benchmark_counts_own_messages_by_themselves():
    status, result = await faulty(lambda number, receiver, frame_: [frame_], to_sender=True)
    assert status == 0 and result["ok"], result
    assert (result["delivered"], result["own"], result["lost"]) == (120, 40, 0), result
    async with Broadcast(lambda number, receiver, frame_: [frame_], to_sender=True) as server:
        text = await ended(await start("benchmark", "-u", server.url, "-m", 40, "-c", 4), 0)
        assert "own: 40 messages" in text, text


async def test_benchmark_measures_what_the_server_uses(daemon):
    clock = ~daemon.process.pid << 3 | 2  # as clock_getcpuclockid(3) makes it
    before = time.clock_gettime(clock)
    p = await start("benchmark", "-u", daemon.url("/"), "-m", 2000, "-c", 20, "--json",
                    "--server-pid", daemon.process.pid, stderr=subprocess.DEVNULL)
    result = json.loads(await ended(p, 0))  # stderr may say that the pace looks like a limit's
    used = result["server_seconds"]
    assert used["connecting"] > 0 and used["running"] > 0, result
    assert used["connecting"] + used["running"] <= time.clock_gettime(clock) - before, result
    text = await ended(await start("benchmark", "-u", daemon.url("/"), "-m", 100, "-c", 3,
                                   "--server-pid", daemon.process.pid), 0)
    assert re.search(r"^server: [0-9.]+ us .* for each connection, [0-9.]+ us for each delivery$",
                     text, re.MULTILINE), text


async def test_benchmark_of_a_server_that_is_no_process(daemon):
    text = await ended(await start("benchmark", "-u", daemon.url("/"), "-m", 10, "--server-pid",
                                   4 << 20), 1)
    assert "--server-pid 4194304" in text, text


async def test_benchmark_reports_what_is_lost():
    status, result = await faulty(lambda number, receiver, frame_:
                                  [] if (number, receiver) == (5, 3) else [frame_],
                                  "--publishers", 1)
    assert status == 1 and not result["ok"], result
    assert (result["lost"], result["duplicated"], result["out_of_order"]) == (1, 0, 0), result
    assert result["delivered"] == 119 and result["error"] is None, result


async def test_benchmark_reports_what_comes_twice():
    status, result = await faulty(lambda number, receiver, frame_:
                                  [frame_, frame_] if number == 7 else [frame_])
    assert status == 1, result
    assert (result["lost"], result["duplicated"], result["out_of_order"]) == (0, 3, 0), result


async def test_benchmark_reports_what_is_out_of_order():
    status, result = await faulty(Swap(1, 2, 3), "--publishers", 1)
    assert status == 1, result
    assert (result["lost"], result["duplicated"], result["out_of_order"]) == (0, 0, 30), result
    assert result["orders"] == 1, result


async def test_benchmark_reports_different_orders():
    status, result = await faulty(Swap(2), "--publishers", 2, "--window", 1, "--rate", 100)
    assert (result["lost"], result["duplicated"], result["out_of_order"]) == (0, 0, 0), result
    assert status == 1 and result["orders"] == 2, result


async def test_benchmark_ends_when_nothing_arrives():
    began = time.monotonic()
    status, result = await faulty(lambda number, receiver, frame_: [], "--publishers", 1)
    assert status == 1 and result["lost"] == 8 * 3 and "10 s" in result["error"], result
    assert time.monotonic() - began >= 10


async def test_benchmark_in_words(daemon):
    text = await ended(await start("benchmark", "-u", daemon.url("/"), "-m", 200, "-c", 3), 0)
    for word in ("sent", "delivered", "lost", "duplicated", "p50", "p99", "max", "MB/s"):
        assert word.lower() in text.lower(), (word, text)


async def test_benchmark_echo():
    with Daemon(echo_path="/echo") as d:
        p = await start("benchmark", "-u", d.url("/echo"), "-m", 200, "-c", 2, "--mode", "echo",
                        "--json")
        result = json.loads(await ended(p, 0))
        assert result["lost"] == 0 and result["delivered"] == result["sent"] == 200, result


async def test_benchmark_echo_without_echo_path(daemon):
    text = await ended(await start("benchmark", "-u", daemon.url("/"), "-m", 10, "-c", 1, "--mode",
                                   "echo"), 1)
    assert "echo_path" in text, text


async def test_benchmark_ends_when_the_server_dies():
    with Daemon(max_incoming_frames_per_second=10) as d:
        p = await start("benchmark", "-u", d.url("/"), "-m", 1000000, "-c", 4)
        await d.wait_metric("websocket_messages_received_total", lambda v: v > 10)
        d.kill()
        await ended(p, 1)
        d.process.returncode = 0  # its end was meant
        d.control_socket.unlink(missing_ok=True)


async def test_benchmark_without_a_server():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    await ended(await start("benchmark", "-u", f"ws://127.0.0.1:{port}", "-m", 10), 1)


async def test_client_sends_what_stands_in_its_input():
    """From a pipe and from a file, far more than the queue has room for; then it ends."""
    lines = [f"line {i} " + "x" * (i % 80) for i in range(20000)]
    text = "\n".join(lines)
    with Daemon(max_incoming_frames_per_second=0, notice_limit=0, message_queue_size=100000,
                max_send_buffer="64M", log_connections="no") as d, \
            tempfile.TemporaryFile("w+") as file:
        file.write(text)
        async with await Client.connect(d, "/in") as reader:
            for source in ("pipe", "file", "nothing"):
                options = {"input": text, "text": True}
                if source == "file":
                    file.seek(0)
                    options = {"stdin": file}
                elif source == "nothing":
                    options = {"stdin": subprocess.DEVNULL}
                task = asyncio.to_thread(subprocess.run, [str(binary()), "client", "-u", d.url("/in")],
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         timeout=60 * SLOW, **options)
                running = asyncio.create_task(task)
                for line in lines if source != "nothing" else ():
                    await reader.expect_chat(line)
                assert (await running).returncode == 0
            await reader.expect_silence()
