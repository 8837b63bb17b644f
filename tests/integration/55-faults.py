# SPDX-License-Identifier: MIT
"""
Each call that can fail does, one after the other: the n-th of its kind, for every n that a visit
of some clients leads to. The daemon goes on, holds nothing that the visit left behind, and those
who were there before notice nothing.

wsbind-faults is the daemon, linked with tests/unit/fault.c; all calls of its own sources fail
there, none that a library makes inside itself.
"""

import errno
import itertools

from faults import *
from harness import *

FREE = {"max_incoming_frames_per_second": 0, "worker_threads": 1, "ping_interval": "1h",
        "heartbeat_timeout": "2h"}

# Nobody notices these.
HARMLESS = [("recv", errno.EINTR), ("recv", SHORT), ("send", errno.EINTR), ("send", SHORT),
            ("accept4", errno.EINTR), ("accept4", errno.ECONNABORTED), ("accept4", errno.EMFILE),
            ("accept4", errno.ENFILE), ("accept4", errno.ENOBUFS), ("accept4", errno.ENOMEM),
            ("epoll_wait", errno.EINTR)]

# These may cost the visitors something: an error for an answer, or the connection.
HARMFUL = [("alloc", errno.ENOMEM), ("mmap", errno.ENOMEM), ("epoll_ctl", errno.ENOMEM),
           ("epoll_ctl", errno.ENOSPC), ("recv", errno.ECONNRESET), ("recv", errno.ENOMEM),
           ("send", errno.EPIPE), ("send", errno.ECONNRESET), ("send", errno.ENOBUFS),
           ("send", errno.ENOMEM)]


class Gone(Exception):
    """The connection ended."""


def fence(c):
    """
    The messages that came before a request was answered that asks for nothing: c is a member.
    (A Pong would not do: it may overtake messages.)
    """
    mark, came = control(SUBSCRIBE, channels=[c.path_channel], request_id=new_id()), []
    try:
        c.send(mark)
        while (m := c.recv()).request_id != mark.request_id:
            came.append(m)
    except (EOFError, OSError, AssertionError) as e:
        if "nothing came" in str(e):
            raise
        raise Gone(str(e)) from None
    return came


def enter(d, path):
    try:
        c = RawClient(d, path)
        c.path_channel = path[1:]
        return c
    except (EOFError, OSError, AssertionError) as e:
        if "nothing came" in str(e):
            raise
        raise Gone(str(e)) from None


def answered(c, message):
    """Sends a request; whether the answer is an acknowledgement, no error."""
    message.request_id = new_id()
    try:
        c.send(message)
    except OSError as e:
        raise Gone(str(e)) from None
    came = fence(c)
    kinds = [m.control.type for m in came if m.request_id == message.request_id]
    assert len(kinds) == 1 and kinds[0] in (ACKNOWLEDGE, ERROR), [describe(m) for m in came]
    return kinds[0] == ACKNOWLEDGE


def delivered(a, b, *pieces, content):
    """What a sends reaches b, or a is told that it doesn't."""
    try:
        a.send(*pieces)
    except OSError as e:
        raise Gone(str(e)) from None
    if any(m.type == CONTROL and m.control.type == ERROR for m in fence(a)):
        return False
    wait_until(lambda: any(m.chat.content == content for m in fence(b)), "the message, or an error")
    return True


def fragments(message, step):
    raw = message.SerializeToString()
    parts = [raw[i:i + step] for i in range(0, len(raw), step)]
    return [frame(CONTINUATION if i else BINARY, part, fin=i == len(parts) - 1)
            for i, part in enumerate(parts)]


def ask(d, method, path, body=None):
    """A request of an administrator, which may go unanswered."""
    try:
        return d.ask(method, path, body, {"Content-Type": "text/plain"}).status
    except (OSError, http.client.HTTPException):
        return None


def visit(d):
    """A little of everything; whether all of it went as it should."""
    well = []
    with enter(d, "/visit") as a, enter(d, "/visit") as b:
        well.append(answered(b, control(CONNECT, session_id="s", capabilities=["ack"])))
        well.append(answered(a, control(SUBSCRIBE, channels=["more", "and/more"])))
        for length, channel in ((5, None), (3000, None), (70, "visit")):
            content = os.urandom(length // 2 + 1).hex()[:length]
            well.append(delivered(a, b, chat(content, channel=channel), content=content))
        content = os.urandom(10000).hex()
        well.append(delivered(a, b, *fragments(chat(content), 7000), content=content))
        well.append(answered(a, control(UNSUBSCRIBE, channels=["more"])))
        with enter(d, "/visit") as c:
            c.reset()
        well.append(ask(d, "GET", "/clients") == 200)
        well.append(ask(d, "POST", "/publish?channel=visit", b"hello") == 200)
        try:
            b.send(frame(CLOSE, b"\x03\xe8"))
            b.expect_close(1000)
        except (EOFError, OSError, AssertionError) as e:
            if "nothing came" in str(e):
                raise
            raise Gone(str(e)) from None
    return all(well)


class Town:
    """A daemon with two inhabitants, who live through what happens to visitors."""

    def __init__(self, faults, **settings):
        self.faults = faults
        self.daemon = Daemon(program=program(), env=faults.env, **{**FREE, **settings})

    def __enter__(self):
        d = self.daemon
        d.__enter__()
        self.faults.check_layout()
        self.before = self.list_descriptors()
        self.descriptors = len(self.before) + 2
        self.a, self.b = enter(d, "/home"), enter(d, "/home")
        assert visit(d)  # once, for what is made at the first time and kept
        self.check()
        return self

    def __exit__(self, *exception):
        self.a.close()
        self.b.close()
        self.daemon.__exit__(*exception)

    def list_descriptors(self):
        """By number; without what a process reads of itself in passing, sanitizers above all."""
        found = {}
        for entry in Path(f"/proc/{self.daemon.process.pid}/fd").iterdir():
            try:
                found[int(entry.name)] = os.readlink(entry)
            except FileNotFoundError:
                pass  # closed meanwhile
        return {n: name for n, name in found.items() if not name.startswith("/proc/")}

    def left_behind(self):
        m = self.daemon.metrics()
        left = {name: m[name] for name in ("websocket_queue_bytes", "websocket_reassembly_bytes")
                if m[name]}
        if m["websocket_active_connections"] != 2:
            left["connections"] = m["websocket_active_connections"]
        if m["websocket_channels"] != 1:
            left["channels"] = m["websocket_channels"]
        return left

    def settle(self):
        wait_until(lambda: not self.left_behind(), "everything that visitors left is gone")

    def check(self):
        """Nothing is left, everybody is served."""
        self.settle()
        content = os.urandom(20).hex()
        assert delivered(self.a, self.b, chat(content), content=content)
        try:
            wait_until(lambda: len(self.list_descriptors()) == self.descriptors, "descriptors")
        except AssertionError as e:
            raise AssertionError(f"{e}; before: {self.before}, now: {self.list_descriptors()}") \
                from None

    def try_each(self, kind, error, visit_it, times=1):
        """Lets the n-th call fail for each n that there is; returns how many there were."""
        n, is_over = 0, False
        while not is_over:
            n += 1
            self.faults.fail(kind, error, n, times)
            try:
                went_well = visit_it(self.daemon)
            except Gone:
                went_well = False
            except AssertionError as e:
                raise AssertionError(f"{kind} {name_of(error)} at {n}: {e}") from e
            is_over = self.faults.end(kind) == 0
            yield n, went_well, is_over
            self.check()
            assert n < 5000


def summary(counts):
    print("#", ", ".join(f"{kind} {name_of(error)} {n}" for (kind, error), n in counts.items()))


@seconds(300)
def test_what_nobody_notices():
    counts = {}
    with Faults() as faults, Town(faults, worker_threads=2) as town:
        for kind, error in HARMLESS:
            for n, went_well, is_over in town.try_each(kind, error, visit):
                assert went_well, f"{kind} {name_of(error)} at {n}"
                counts[kind, error] = n
    summary(counts)
    assert all(n > 2 for n in counts.values()), counts


@seconds(300)
def test_what_costs_a_visitor_something():
    counts, harmed = {}, 0
    for workers in (1, 2):
        with Faults() as faults, Town(faults, worker_threads=workers) as town:
            for (kind, error), times in itertools.product(HARMFUL, (1, 2, 7)):
                for n, went_well, is_over in town.try_each(kind, error, visit, times):
                    assert went_well or not is_over, f"{kind} {name_of(error)}: none failed"
                    counts[kind, error] = n
                    harmed += not went_well
    summary(counts)
    assert counts["alloc", errno.ENOMEM] > 20 and harmed > 20, (counts, harmed)


@seconds(120)
def test_everything_in_single_bytes():
    with Faults() as faults, Town(faults, worker_threads=2) as town:
        for kinds in (["recv"], ["send"], ["recv", "send"]):
            for kind in kinds:
                faults.fail(kind, SHORT, times=FOREVER)
            assert visit(town.daemon), kinds
            assert sum([faults.end(kind) for kind in kinds]) > 20000
            town.check()


def send_file(d, answers):
    """A transfer, and in answers what came of it by its content; whether it was acknowledged."""
    parts = [os.urandom(3000) for _ in range(3)]
    content = b"".join(parts)
    answers[content] = None
    with enter(d, "/visit") as a:
        try:
            a.send(*[data(p, sequence=i, is_last=i == 2) for i, p in enumerate(parts)])
            while (m := a.recv()).type != CONTROL or m.control.type not in (ACKNOWLEDGE, ERROR):
                pass
        except (EOFError, OSError, AssertionError) as e:
            if "nothing came" in str(e):
                raise
            raise Gone(str(e)) from None
    answers[content] = m.control.type
    return m.control.type == ACKNOWLEDGE


@seconds(120)
def test_a_transfer_is_kept_whole_or_not_at_all():
    counts, answers = {}, {}
    with Faults() as faults, tempfile.TemporaryDirectory() as folder:
        with Town(faults, spool_dir=folder) as town:
            for kind, error in [("write", SHORT), ("write", errno.EINTR), ("write", errno.ENOSPC),
                                ("write", errno.EIO), ("open", errno.EMFILE),
                                ("open", errno.ENOSPC), ("alloc", errno.ENOMEM)]:
                for n, went_well, is_over in town.try_each(
                        kind, error, lambda d: send_file(d, answers)):
                    assert went_well or not (is_over or error in (SHORT, errno.EINTR)), \
                        f"{kind} {name_of(error)} at {n}"
                    counts[kind, error] = n
                    # An error may reach the client before the disk's thread has begun.
                    wait_until(lambda: not list(Path(folder).glob(".*")), "no partial file is left")
        kept = [f.read_bytes() for f in Path(folder).iterdir()]
    summary(counts)
    assert all(content in answers for content in kept), "not whole"
    assert not [content for content in kept if answers[content] == ERROR]
    assert not [c for c, answer in answers.items() if answer == ACKNOWLEDGE and c not in kept]


def starts(faults, kind, error, n):
    """Starts while the n-th call fails. The hits, and whether it got ready."""
    faults.fail(kind, error, n)
    d = Daemon(program=program(), env=faults.env, ready=False, **FREE)
    try:
        d.write_config().start()
        d.wait_log("ready: |error: |emerg: |wsbind")
        wait_until(lambda: d.lines("ready: ws") or d.process.poll() is not None, "ready or gone")
        is_ready = bool(d.lines("ready: ws"))
        hits = faults.end(kind)
        if is_ready:
            d.port = int(READY.search("\n".join(d.lines()))["port"])
            d.host = "127.0.0.1"
            with enter(d, "/a") as a, enter(d, "/a") as b:
                content = os.urandom(20).hex()
                assert delivered(a, b, chat(content), content=content)
            d.stop()
        else:
            assert d.wait() in (1, 78), f"{kind} {name_of(error)} at {n}: {d.process.returncode}"
            assert d.lines(r"error: |wsbind"), "not a word"
    finally:
        d.kill()
    running.remove(d)
    shutil.rmtree(d.folder)
    return hits, is_ready


@seconds(300)
def test_a_start_without_something():
    """It starts without, or says why not and ends with an exit status."""
    counts = {}
    for kind, error in [("eventfd", errno.EMFILE), ("epoll_ctl", errno.ENOMEM),
                        ("open", errno.EMFILE), ("listen", errno.EADDRINUSE),
                        ("mmap", errno.ENOMEM), ("pthread_create", errno.EAGAIN),
                        ("alloc", errno.ENOMEM)]:
        for n in range(1, 5000):
            with Faults() as faults:
                hits, is_ready = starts(faults, kind, error, n)
            counts[kind, error] = n
            if not hits:
                assert is_ready
                break
    summary(counts)


def limit_descriptors(pid, n):
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (n, hard))


@seconds(120)
def test_running_out_of_descriptors_is_waited_out():
    """Who comes waits in the kernel, and accepting doesn't spin meanwhile."""
    with Faults() as faults, Town(faults, worker_threads=2) as town:
        d = town.daemon
        errors = d.metric("websocket_accept_errors_total")
        limit_descriptors(d.process.pid, town.descriptors)
        began, calls = time.monotonic(), faults.calls("accept4")
        waiting = [RawClient(d, "/home", handshake=False) for _ in range(10)]
        asked = socket.create_connection((d.host, d.metrics_port), DEADLINE)
        asked.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        d.wait_log(r"warning: cannot accept connections: .*LimitNOFILE")
        # As many turns of both workers and of main as a pause that doesn't work needs few ms for.
        wait_until(lambda: faults.calls("accept4") - calls > 60, "tries")
        tries, seconds_ = faults.calls("accept4") - calls, time.monotonic() - began
        # Three listeners try every 100 ms each; what comes meanwhile adds a try.
        assert tries <= 3 * (seconds_ * 10 + 1) + 2 * len(waiting) + 10, (tries, seconds_)
        content = os.urandom(20).hex()
        assert delivered(town.a, town.b, chat(content), content=content)
        limit_descriptors(d.process.pid, 1000)
        d.wait_log("notice: connections are accepted again")
        for c in waiting:
            c.send(request("/home"))
            assert c.recv_head()[0] == 101
        assert b"200 OK" in asked.recv(1000)
        assert d.metric("websocket_accept_errors_total") > errors
        for c in waiting:
            c.close()
        asked.close()
        town.check()


@seconds(120)
def test_no_memory_for_a_connection():
    """One is dropped for which there is none; those that are there stay."""
    with Faults() as faults, Town(faults) as town:
        faults.fail("mmap", errno.ENOMEM, times=FOREVER)
        # More than one piece of memory for connections has room for.
        crowd = []
        while len(crowd) < 1100:
            crowd.append(socket.socket())
            try:
                crowd[-1].connect((town.daemon.host, town.daemon.port))
            except ConnectionResetError:
                pass  # so fast
        town.daemon.wait_log("warning: no memory for another connection")
        assert faults.end("mmap")
        with enter(town.daemon, "/home"):
            pass
        for c in crowd:
            c.close()
        town.check()


def test_fewer_descriptors_than_connections():
    """max_connections is lowered to what fits, said so, and kept over a reload."""
    def poor():
        resource.setrlimit(resource.RLIMIT_NOFILE, (74, 74))

    with Daemon(preexec=poor, max_connections=500) as d:
        d.wait_log(r"warning: at most 74 files .*max_connections = 500 .* with max_connections = "
                   r"10, set LimitNOFILE=564")
        inside = [RawClient(d) for _ in range(10)]
        for _ in range(2):
            with RawClient(d, handshake=False) as c:
                c.send(request())
                assert c.recv_head()[0] == 503
            assert d.reload(welcome="again").status == 200
        assert not d.lines("max_connections: ")
        for c in inside:
            c.close()
