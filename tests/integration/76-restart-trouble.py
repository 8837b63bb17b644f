# SPDX-License-Identifier: MIT
"""A hand-over that cannot be as it should: what is kept, and who is told what."""

import array
import fcntl

from harness import *
from pki import token
from pki import Folder
from threads import Stopped, thread

WANTS = {"notice_limit": 0, "max_incoming_frames_per_second": 0}


async def talk(*clients, also=()):
    """Each of them is heard by all others, also by those who say nothing themselves."""
    for a in clients:
        content = await a.send_chat()
        for b in (*clients, *also):
            if a is not b:
                await b.expect_chat(content)


def with_spool(**settings):
    d = Daemon(**settings)
    d.spool = d.folder / "spool"
    d.spool.mkdir()
    d.settings["spool_dir"] = d.spool
    return d


# Listeners

async def test_another_address_on_the_same_port():
    with Daemon(host="0.0.0.0", **WANTS) as d:
        port = d.port
        clients = [await Client.connect(d, "/room")]
        for host in ("127.0.0.1", "0.0.0.0", "::", "0.0.0.0", "::1"):
            d.write_config(host=host, port=port)
            d.hand_over()
            assert (d.host, d.port) == (f"[{host}]" if ":" in host else host, port)
            at = "[::1]" if host == "::1" else "127.0.0.1"
            with socket.create_connection((at.strip("[]"), port), DEADLINE):
                pass
            await talk(*clients)
        await close_all(clients)


async def test_who_waits_at_an_old_port_is_nobody_else():
    """Two that came by different ports are told apart by what they publish."""
    with Daemon(**WANTS) as d:
        a = await Client.connect(d, "/room")
        queued = []
        with Stopped(thread(d.process.pid, "worker 0")), \
                Stopped(thread(d.process.pid, "worker 1")):
            for _ in range(4):  # in the listeners' queues; nobody accepts
                s = RawClient(d, handshake=False)
                s.send(request("/room"))
                queued.append(s)
            free = socket.create_server(("127.0.0.1", 0))
            d.write_config(port=free.getsockname()[1])
            free.close()
            since = len(d.log)
            d.signal(signal.SIGUSR2)
            d.wait_log("handing over", since=since)
        # Some may have been let in before, the others are by the next process.
        d.wait_log("took over [1-5] connections", since=since)
        d._note_ready(d.wait_log(READY, since=since))
        for s in queued:
            assert s.recv_head()[0] == 101
            s.recv_message(), s.recv_message()
        await a.send_chat("from the one that was there")
        for s in queued:
            assert s.recv().chat.content == "from the one that was there"
        for i, s in enumerate(queued):
            s.send(chat(f"from {i}"))
            await a.expect_chat(f"from {i}")
            for other in queued:
                if other is not s:
                    assert other.recv().chat.content == f"from {i}"
        for s in queued:
            s.close()
        await a.close()


async def test_who_waits_at_a_port_of_tls_that_goes():
    """There is nothing that could be said; all others go on."""
    with Folder() as f:
        pair = f.certificate("server")
        with Daemon(tls_port=0, tls_certificate=pair[0], tls_key=pair[1], **WANTS) as d:
            a, b = await Client.connect(d, "/room"), await Client.connect(d, "/room")
            port, late = d.tls_port, []
            since = len(d.log)
            with Stopped(thread(d.process.pid, "worker 0")), \
                    Stopped(thread(d.process.pid, "worker 1")):
                d.write_config(tls_port="off", port=d.port)
                d.signal(signal.SIGUSR2)
                d.wait_log("handing over", since=since)
                late = [socket.create_connection((d.host, port), DEADLINE) for _ in range(4)]
            await asyncio.to_thread(d.wait_log, "took over 2 connections", DEADLINE, since)
            d._note_ready(d.wait_log(READY, DEADLINE, since))
            for s in late:
                s.settimeout(DEADLINE)
                try:
                    assert s.recv(1) == b""
                except ConnectionResetError:
                    pass
                s.close()
            await talk(a, b)
            await close_all([a, b])


def unix_client(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(DEADLINE)
    s.connect(str(path))
    s.sendall(request("/room"))
    assert s.recv(4096).startswith(b"HTTP/1.1 101 ")
    return s


def test_a_socket_path_that_was_removed_or_changed():
    d = Daemon()
    path, other = d.folder / "clients", d.folder / "others"
    with d.write_config(listen_unix=path, listen_unix_mode="0660") and d:
        first = unix_client(path)
        d.write_config(listen_unix_mode="0600")
        d.hand_over()
        assert path.stat().st_mode & 0o777 == 0o600
        path.unlink()
        d.hand_over()
        unix_client(path).close()
        d.write_config(listen_unix=other)
        d.hand_over()
        unix_client(other).close()
        assert not path.exists()
        assert len([c for c in d.clients().values()]) >= 1
        first.sendall(frame(9, b"still?"))
        while b"still?" not in first.recv(4096):
            pass
        first.close()


# Descriptors

def few_files(n):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


async def test_few_open_files():
    with Daemon(preexec=few_files(200), **WANTS) as d:
        a, b = await Client.connect(d, "/room"), await Client.connect(d, "/room")
        for _ in range(2):
            d.hand_over()
            await talk(a, b)
        await close_all([a, b])


async def test_no_open_file_left():
    """Nothing can be handed over: everything goes on, with the file that is being received."""
    with with_spool(**WANTS) as d:
        a = await Client.connect(d, "/room", capabilities=["ack"])
        b, c = await Client.connect(d, "/room"), await Client.connect(d, "/room")
        pieces = [data(os.urandom(1000), sequence=i, is_last=i == 2, request_id=new_id())
                  for i in range(3)]
        pid, soft = d.process.pid, resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)
        for i, m in enumerate(pieces):
            assert (await a.ask(m)).control.type == ACKNOWLEDGE
            for other in (b, c):
                await other.expect_binary(m.binary.data)
            if i == 2:
                break
            await until(lambda n=1000 * (i + 1): any(p.stat().st_size == n
                                                     for p in d.spool.iterdir()), "it is written")
            since = len(d.log)
            # The check of the configuration needs none of its own; what is left to the next does.
            resource.prlimit(pid, resource.RLIMIT_NOFILE,
                             (len(os.listdir(f"/proc/{pid}/fd")) + 1, soft[1]))
            d.signal(signal.SIGUSR2)
            d.wait_log("connections cannot be handed over: Too many open files; going on as "
                       "before", since=since)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, soft)
            await talk(b, c, also=[a])
        assert [p.read_bytes() for p in d.spool.iterdir()] == [
            b"".join(m.binary.data for m in pieces)]
        d.hand_over()
        await talk(b, c, also=[a])
        await close_all([a, b, c])


# A disk that doesn't answer

async def test_served_while_the_disk_takes_its_time():
    """Others notice nothing; chunks that the spool did not take any more travel."""
    with with_spool(**WANTS) as d:
        a, b = await Client.connect(d, "/room"), await Client.connect(d, "/room")
        sender = await Client.connect(d, "/files", capabilities=["ack"])
        pieces = [data(os.urandom(1000), sequence=i, is_last=i == 4, request_id=new_id())
                  for i in range(5)]
        assert (await sender.ask(pieces[0])).control.type == ACKNOWLEDGE
        await until(lambda: [p for p in d.spool.iterdir() if p.stat().st_size == 1000],
                    "it is written")
        since = len(d.log)
        with Stopped(thread(d.process.pid, "spool")):
            assert (await sender.ask(pieces[1])).control.type == ACKNOWLEDGE  # queued
            d.signal(signal.SIGUSR2)
            await asyncio.to_thread(d.wait_log, "handing over", DEADLINE, since)
            for m in pieces[2:]:
                await sender.send(m)
            await talk(a, b)
            assert not d.lines("handed over", since)
        await asyncio.to_thread(d.wait_log, "took over 3 connections", DEADLINE, since)
        d._note_ready(d.wait_log(READY, DEADLINE, since))
        for m in pieces[2:]:
            answer = await sender.recv()
            assert answer.control.type == ACKNOWLEDGE, describe(answer)
            assert answer.request_id == m.request_id
        assert [p.read_bytes() for p in d.spool.iterdir()] == [
            b"".join(m.binary.data for m in pieces)]
        await talk(a, b)
        await close_all([a, b, sender])


async def test_a_disk_that_does_not_answer():
    """After half a minute everything goes on as before."""
    with with_spool(**WANTS) as d:
        a, b = await Client.connect(d, "/room"), await Client.connect(d, "/room")
        sender = await Client.connect(d, "/files", capabilities=["ack"])
        pieces = [data(os.urandom(1000), sequence=i, is_last=i == 2, request_id=new_id())
                  for i in range(3)]
        since = len(d.log)
        with Stopped(thread(d.process.pid, "spool")):
            assert (await sender.ask(pieces[0])).control.type == ACKNOWLEDGE  # queued
            d.signal(signal.SIGUSR2)
            await asyncio.to_thread(d.wait_log, "handing over", DEADLINE, since)
            await sender.send(pieces[1])  # held, until the spool takes chunks again
            await asyncio.to_thread(d.wait_log, "cannot be handed over: the disk under spool_dir "
                                    "does not answer; going on as before", 30 + DEADLINE, since)
            await talk(a, b)
        await sender.send(pieces[2])
        for m in pieces[1:]:
            answer = await sender.recv()
            assert answer.control.type == ACKNOWLEDGE and answer.request_id == m.request_id
        assert [p.read_bytes() for p in d.spool.iterdir()] == [
            b"".join(m.binary.data for m in pieces)]
        await asyncio.to_thread(d.hand_over)
        await talk(a, b)
        await close_all([a, b, sender])


async def test_files_have_names_of_their_own():
    """Those of one client, sent in one second, by both processes."""
    with with_spool(**WANTS) as d:
        c = await Client.connect(d, capabilities=["ack"])
        for i in range(8):
            if i % 2:
                d.hand_over()
            answer = await c.ask(data(b"%d" % i, request_id=new_id()))
            assert answer.control.type == ACKNOWLEDGE, describe(answer)
        assert sorted(p.read_bytes() for p in d.spool.iterdir()) == [b"%d" % i for i in range(8)]
        await c.close()


# The service manager

class Manager:
    """The socket of a service manager that keeps what it is given, and may answer nothing."""

    def __init__(self, folder, answers=True):
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(DEADLINE)
        self.answers = answers
        self.stored, self.barriers, self.seen = {}, [], []

    def read(self):
        text, rights, *_ = self.socket.recvmsg(8192, 1 << 16)
        fds = array.array("i")
        for _, _, payload in rights:
            fds.frombytes(payload)
        lines = text.decode().splitlines()
        name = next((line[7:] for line in lines if line.startswith("FDNAME=")), None)
        if "BARRIER=1" in lines:
            self.barriers += fds
            if self.answers:
                self.drop(self.barriers)
        elif "FDSTORE=1" in lines:
            self.stored.setdefault(name, []).extend(fds)
        elif "FDSTOREREMOVE=1" in lines:
            self.drop(self.stored.pop(name, []))
        self.seen += lines

    def wait(self, line):
        while line not in self.seen:
            self.read()

    @staticmethod
    def drop(fds):
        while fds:
            os.close(fds.pop())

    def close(self):
        for fds in (*self.stored.values(), self.barriers):
            self.drop(fds)
        self.socket.close()


def test_a_manager_that_does_not_answer():
    """Whom nobody will go on with is told, and nothing is left in the store."""
    with tempfile.TemporaryDirectory() as folder:
        manager = Manager(Path(folder), answers=False)
        with Daemon(env={"NOTIFY_SOCKET": manager.path}, on_stop="keep", shutdown_timeout=3) as d:
            with RawClient(d, "/room") as a:
                manager.wait("READY=1")
                d.signal(signal.SIGTERM)
                manager.wait("BARRIER=1")
                assert set(manager.stored) == {"wsbind-state", "wsbind-bag", "wsbind-plain",
                                               "wsbind-history"}
                d.wait_log("connections cannot be handed over: .*; closing them")
                assert a.recv().control.type == DISCONNECT
                a.expect_close(1012)
                assert d.wait() == 1
                while manager.stored:
                    manager.read()
            d.process.returncode = 0  # as it should be here
        manager.close()


def test_a_restart_that_nobody_announced():
    """SIGTERM while the service is said to be reloading: systemd asks no ExecStop= then."""
    with tempfile.TemporaryDirectory() as folder:
        manager = Manager(Path(folder))
        with with_spool(env={"NOTIFY_SOCKET": manager.path}) as d:
            with RawClient(d, "/room") as a:
                manager.wait("READY=1")
                since = len(d.log)
                with Stopped(thread(d.process.pid, "spool")):
                    a.send(data(b"x", is_last=False))
                    wait_until(lambda: d.metric("websocket_spool_queue_bytes") > 0, "it waits")
                    d.signal(signal.SIGUSR2)
                    d.wait_log("handing over .SIGUSR2", since=since)
                    d.signal(signal.SIGTERM)
                # It becomes another process, which leaves everything to the manager at once.
                manager.wait("STOPPING=1")
                manager.wait("BARRIER=1")
                d.wait_log("handed over 1 connections", since=since)
                assert len(manager.stored["wsbind-bag"]) >= 2
                assert d.wait() == 0
                a.send(frame(9, b"?"))
                a.socket.settimeout(0.2)
                try:
                    assert not a.socket.recv(100), "nobody is there"
                    raise AssertionError("it was closed")
                except socket.timeout:
                    pass
                assert not d.lines("stopping", since)
        manager.close()


def restart_by_manager(d, manager, **changes):
    """What `systemctl restart` comes to, with a configuration that was changed before."""
    d.signal(signal.SIGTERM)
    manager.wait("BARRIER=1")
    assert d.wait() == 0
    d.write_config(**changes)
    next_ = Daemon(ready=False)
    given = [(name, fd) for name, fds in manager.stored.items() for fd in fds]
    next_.args = [*listen_fds([(name, 100 + i) for i, (name, _) in enumerate(given)]),
                  d.args[0], "server", "--config", str(d.config)]
    copies = [(fcntl.fcntl(fd, fcntl.F_DUPFD, 100 + i), 100 + i) for i, (_, fd) in enumerate(given)]
    assert all(got == wanted for got, wanted in copies)
    next_.fds = tuple(wanted for _, wanted in copies)
    next_.start()
    for fd in next_.fds:
        os.close(fd)
    return next_


MISTAKES = {
    "a key that is gone": lambda f: {"jwt_key_file": "/no/such/key"},
    "a key that is none": lambda f: {"jwt_key_file": "/dev/null"},
    "a line that is none": lambda f: {"max_connections": "many"},
    "a port that is taken": lambda f: {"metrics_port": f},
    "a folder that is not there": lambda f: {"spool_dir": "/no/such/folder/spool"},
}


def test_a_mistake_before_a_restart_costs_no_connection():
    """Its clients go on with the settings, and the key, of the process before."""
    with tempfile.TemporaryDirectory() as folder, \
            socket.create_server(("127.0.0.1", 0)) as taken:
        key = Path(folder) / "key"
        for what, mistake in MISTAKES.items():
            key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
            key.chmod(0o600)
            manager = Manager(Path(tempfile.mkdtemp(dir=folder)))
            headers = {"Authorization": "Bearer " + token(key.read_bytes().strip(), {"sub": "a"})}
            with Daemon(env={"NOTIFY_SOCKET": manager.path}, on_stop="keep", auth="jwt",
                        jwt_key_file=key, shutdown_timeout="200ms") as d:
                manager.wait("READY=1")
                with RawClient(d, "/room", headers=headers) as a, \
                        RawClient(d, "/room", headers=headers) as b:
                    key.unlink()  # what was read of it is enough
                    n = restart_by_manager(d, manager, **mistake(taken.getsockname()[1]))
                    try:
                        n.wait_log("going on with the settings of the process before")
                        n.wait_log("took over 2 connections")
                        assert not n.lines("not started"), (what, n.log)
                        a.send(chat("still here"))
                        while b.recv().chat.content != "still here":
                            pass
                        n._note_ready(n.wait_log(READY))
                        # Who is refused is refused still, and who has a token comes in.
                        with RawClient(n, "/room", handshake=False) as c:
                            c.send(request("/room"))
                            assert c.recv_head()[0] == 403
                        with RawClient(n, "/room", headers=headers):
                            pass
                        # Once it is mended, a reload takes it.
                        key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
                        d.write_config(jwt_key_file=key, max_connections=50, metrics_port=0,
                                       spool_dir=None)
                        since = len(n.log)
                        n.signal(signal.SIGHUP)
                        n.wait_log("configuration reloaded", since=since)
                        n.signal(signal.SIGINT)
                        assert n.wait() == 0
                    finally:
                        n.kill()
                d.process.returncode = 0
            manager.close()


def test_a_mistake_before_a_start_is_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for settings, said in (({"port": port}, f"port = {port}: another program has this port"),
                               ({"metrics_port": port}, "metrics_port = .*another program"),
                               ({"spool_dir": "/no/such/a"}, "spool_dir = .*folder is not there")):
            with Daemon(ready=False, **settings) as d:
                d.wait_log(said)
                assert d.wait() == 78
                d.process.returncode = 0


def test_a_mistake_before_sigusr2_costs_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as taken, Daemon() as d, RawClient(d) as a:
        for mistake in MISTAKES.values():
            since = len(d.log)
            d.write_config(auth="jwt", **mistake(taken.getsockname()[1]))
            d.signal(signal.SIGUSR2)
            d.wait_log("is not executed: .*; going on as before", since=since)
            d.write_config(auth=None, jwt_key_file=None, max_connections=None, metrics_port=0,
                           spool_dir=None)
        a.send(frame(9, b"!"))
        assert a.recv_frame().payload == b"!"
