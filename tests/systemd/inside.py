#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
The tests that run inside a machine that systemd has booted, with wsbind installed by
`make install`: inside.py [FILTER ...]. Output is TAP.
"""

import ssl
import sys
import threading
import traceback

from machine import *
from restart import *  # noqa: F403  (its tests)


def connects(service, path="/", **options):
    return RawClient(service, path, **options)


def chats(a, b):
    """What a says, b hears."""
    content = os.urandom(8).hex()
    a.send(chat(content))
    while b.recv().chat.content != content:
        pass


# Life

def test_start_stop_restart_status(s):
    s.start()
    assert show("ActiveState") == "active" and show("Type") == "notify"
    with connects(s) as a, connects(s) as b:
        chats(a, b)
    text = systemctl("status", UNIT)
    assert "active (running)" in text and "wsbind server" in text, text
    first = s.pid()
    systemctl("restart", UNIT)
    assert s.pid() not in (0, first)
    since = cursor()
    systemctl("stop", UNIT)
    assert show("ActiveState") == "inactive" and show("Result") == "success"
    assert lines(r"^stopped$", since) and \
        lines("Deactivated successfully", since, "UNIT=" + UNIT)
    systemctl("is-active", UNIT, ok=False)
    assert not Path(CONTROL_SOCKET).exists()


def test_nothing_to_complain_about(s):
    """Neither systemd about the unit, nor the daemon about what it is given."""
    assert not run("systemd-analyze", "verify", UNIT, "wsbind.socket", "wsbind@x.service").strip()
    since = cursor()
    s.configure(host="127.0.0.1")
    s.start()
    bad = [e["MESSAGE"] for e in entries("_SYSTEMD_UNIT=" + UNIT, since=since)
           if int(e["PRIORITY"]) <= 4]
    # More descriptors than this machine may have can't be given.
    assert all("files may be open" in m for m in bad), bad


def test_ready_means_that_clients_can_connect(s):
    s.drop_in("[Service]\nExecStartPost=/bin/bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080'\n"
              "ExecStartPost=/usr/bin/wsbind status\n")
    for _ in range(5):
        systemctl("restart", UNIT)


def test_port_that_is_taken(s):
    with socket.create_server(("0.0.0.0", 8080)):
        since = cursor()
        systemctl("start", UNIT, ok=False)
        assert show("ActiveState") == "failed" and show("ExecMainStatus") == "78"
        assert lines(r"port = 8080: another program has this port", since)
        assert entries("MESSAGE_ID=" + catalog_ids()["NOT_OPENED"], since=since)
        # Not even where systemd would start it again and again for any other failure.
        assert show("NRestarts") == "0"


def test_error_in_the_configuration(s):
    """Failed at once and for good, with a line that tells what to fix."""
    since = cursor()
    (ETC / "wsbind.conf").write_text("# mine\nmax_connections = many\n")
    systemctl("start", UNIT, ok=False)
    assert show("ActiveState") == "failed"
    assert show("ExecMainStatus") == "78" and show("NRestarts") == "0"
    said = lines(r"/etc/wsbind\.conf:2: .*max_connections", since)
    assert said, lines("", since)
    assert entries("MESSAGE_ID=" + catalog_ids()["CONFIG_ERROR"], since=since)
    s.configure(max_connections=5)
    s.start()


def test_crash_is_followed_by_a_start(s):
    s.start()
    for n, number in enumerate((signal.SIGSEGV, signal.SIGKILL), 1):
        first = s.pid()
        os.kill(first, number)
        wait_until(lambda: show("NRestarts") == str(n) and show("ActiveState") == "active",
                   "a restart", 30)
        assert s.pid() != first
        with connects(s) as a, connects(s) as b:
            chats(a, b)


# Watchdog

def test_watchdog_is_content_with_an_idle_daemon(s):
    s.drop_in("[Service]\nWatchdogSec=1\n")
    s.start()
    first, since = s.pid(), show("WatchdogTimestampMonotonic")
    wait_until(lambda: int(show("WatchdogTimestampMonotonic")) > int(since) + 3000000,
               "three intervals", 30)
    assert s.pid() == first and show("NRestarts") == "0"


def test_watchdog_ends_a_daemon_whose_worker_hangs(s):
    s.drop_in("[Service]\nWatchdogSec=2\n")
    s.start()
    first, since = s.pid(), cursor()
    with Stopped(thread(first, "worker 0")) as worker:
        wait_until(worker.has_ended, "the watchdog", 30)
    wait_until(lambda: show("NRestarts") == "1", "a restart", 30)
    wait_until(lambda: show("ActiveState") == "active" and s.pid() not in (0, first),
               "active again", 30)
    assert any("watchdog" in m.lower() for m in lines("", since, "UNIT=" + UNIT))
    with connects(s) as a, connects(s) as b:
        chats(a, b)


def test_watchdog_bears_a_disk_that_hangs(s):
    """A stalled spool shows in /readyz and in a metric, and ends nothing."""
    s.drop_in("[Service]\nWatchdogSec=2\n")
    s.configure(spool_dir="transfers", welcome="hello")
    s.start()
    first = s.pid()
    with connects(s) as a:
        with Stopped(thread(first, "spool")):
            a.send(data(b"x" * 1000, is_last=True, request_id=new_id()))
            wait_until(lambda: s.ask("/readyz")[0] == 503, "not ready", 30)
            assert "spool_dir" in s.ask("/readyz")[1]
            assert s.ask("/healthz")[0] == 200
            assert s.metric("websocket_spool_wait_seconds") >= 10
            assert s.pid() == first
        while (m := a.recv()).type != CONTROL or m.control.type != ACKNOWLEDGE:
            pass
        wait_until(lambda: s.ask("/readyz")[0] == 200, "ready again")
    assert s.pid() == first and show("NRestarts") == "0"
    found = list(Path("/var/lib/wsbind/transfers").iterdir())
    assert [f.read_bytes() for f in found] == [b"x" * 1000], found
    shutil.rmtree("/var/lib/private/wsbind/transfers")


# Status and stop

def test_status_text_has_live_figures(s):
    s.start()
    with connects(s, "/a") as a, connects(s, "/b") as _:
        wait_until(lambda: show("StatusText").startswith("2 connections, 2 channels"),
                   show("StatusText"))
        stop = threading.Event()

        def talk():
            while not stop.wait(0.01):
                a.send(chat("x"))

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            wait_until(lambda: re.search(r"[1-9]\d* messages/s in, \d+ out, 0 slow consumers",
                                         show("StatusText")), "messages in the status text")
        finally:
            stop.set()
            thread.join()


def test_clients_are_told_when_the_daemon_stops(s):
    s.configure(reconnect_window=20)
    s.start()
    clients = [connects(s, f"/{i % 2}") for i in range(20)]
    since = cursor()
    systemctl("stop", UNIT)
    waits = set()
    for c in clients:
        told = messages(c.expect_close(1012))[-1]
        assert told.control.type == DISCONNECT, describe(told)
        assert 0 <= told.control.reconnect_after_ms <= 20000
        waits.add(told.control.reconnect_after_ms)
    assert len(waits) > 10, waits
    assert show("Result") == "success"
    assert lines(r"stopping \(SIGTERM\): 20 connections", since) and lines("stopped", since)


def test_draining_may_take_longer_than_the_units_own_limit(s):
    """A client that reads nothing is waited for during shutdown_timeout, and systemd waits too."""
    s.configure(shutdown_timeout=4, max_send_buffer="64M", message_queue_size=100000,
                slow_consumer_grace="1h", max_incoming_frames_per_second=0)
    s.drop_in("[Service]\nTimeoutStopSec=1\n")
    s.start()
    with connects(s, rcvbuf=4096) as slow, connects(s) as sender:
        for _ in range(200):
            sender.send(chat("x" * 100000))
        sender.send(frame(PING, b"through"))
        while sender.recv_frame().opcode != PONG:
            pass
        wait_until(lambda: s.metric("websocket_queue_bytes") > 1 << 20, "something that waits")
        began = time.monotonic()
        systemctl("stop", UNIT)
        took = time.monotonic() - began
        assert slow.id
    assert show("Result") == "success", show("Result")
    assert took > 1.5, took  # else nothing was waited for


# Reload

def greeting(s):
    with RawClient(s, greeted=False) as c:
        return Message.FromString(c.recv_message()).chat.content


def test_reload(s):
    s.configure(welcome="one")
    s.start()
    first = s.pid()
    with connects(s) as a, connects(s) as b:
        s.configure(welcome="two")
        systemctl("reload", UNIT)
        assert greeting(s) == "two", "when reload returns, it is done"
        s.configure(welcome="three")
        os.kill(first, signal.SIGHUP)
        wait_until(lambda: greeting(s) == "three", "SIGHUP")
        chats(a, b)
    assert s.pid() == first


def test_reload_with_an_error_changes_nothing(s):
    s.configure(welcome="one")
    s.start()
    first, since = s.pid(), cursor()
    (ETC / "wsbind.conf").write_text("welcome = two\nport = x\nno_such_key = 1\n")
    text = systemctl("reload", UNIT, ok=False)
    assert "journalctl" in text, text
    assert show("ActiveState") == "active" and s.pid() == first
    assert greeting(s) == "one"
    for place in (r"/etc/wsbind\.conf:2: .*port", r"/etc/wsbind\.conf:3: .*no_such_key",
                  r"not reloaded"):
        assert lines(place, since), place
    assert entries("MESSAGE_ID=" + catalog_ids()["RELOAD_FAILED"], since=since)
    s.configure(welcome="three")
    systemctl("reload", UNIT)
    assert greeting(s) == "three"


# Sockets

def test_socket_activation(s):
    """Who connects while the daemon is down waits for it."""
    systemctl("start", "wsbind.socket")
    assert show("ActiveState") == "inactive"
    with connects(s) as a, connects(s) as b:
        wait_until(lambda: show("ActiveState") == "active", "it says that it is ready")
        chats(a, b)
    for _ in range(3):
        systemctl("stop", UNIT)
        waiting = [RawClient(s, handshake=False) for _ in range(50)]
        for c in waiting:
            c.send(request())
        for c in waiting:
            assert c.recv_head()[0] == 101
            c.close()


def test_no_connection_is_refused_while_the_socket_unit_holds_the_port(s):
    systemctl("start", "wsbind.socket")
    s.start()
    stop, outcome = threading.Event(), {"served": 0, "told": 0, "lost": []}

    def visit():
        while not stop.is_set():
            try:
                with RawClient(s, handshake=False) as c:
                    c.send(request())
                    status = c.recv_head()[0]
                    outcome["served"] += status == 101
                    outcome["told"] += status == 503
            except (OSError, EOFError) as e:
                outcome["lost"].append(repr(e))

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for v in visitors:
        v.start()
    try:
        for _ in range(5):
            before = outcome["served"]
            systemctl("restart", UNIT)
            wait_until(lambda: outcome["served"] > before + 20, "visitors are served again")
    finally:
        stop.set()
        for v in visitors:
            v.join()
    assert not outcome["lost"], outcome
    assert outcome["served"] > 100


def test_several_sockets(s):
    """Ports and a path; each of them is served by the workers."""
    s.drop_in("[Socket]\nListenStream=8081\nListenStream=/run/test.sock\nSocketMode=0660\n",
              unit="wsbind.socket")
    systemctl("start", "wsbind.socket")
    s.start()
    with connects(s) as a:
        s2 = Service()
        s2.port = 8081
        with connects(s2) as b:
            chats(a, b)
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(DEADLINE)
            local.connect("/run/test.sock")
            local.sendall(request())
            assert local.recv(100).startswith(b"HTTP/1.1 101")
            local.close()
    assert os.stat("/run/test.sock").st_mode & 0o777 == 0o660


# Examples and instances

def test_example_low_port(s):
    s.example("low-port.conf", "wsbind.socket")
    systemctl("start", "wsbind.socket")
    s.port = 80
    try:
        with connects(s) as a, connects(s) as b:
            chats(a, b)
    finally:
        del s.port


def test_example_unix_socket(s):
    s.example("unix-socket.conf", "wsbind.socket")
    systemctl("start", "wsbind.socket")
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(DEADLINE)
    local.connect("/run/wsbind.sock")
    local.sendall(request())
    assert local.recv(100).startswith(b"HTTP/1.1 101")
    local.close()


def test_example_localhost_only(s):
    """A packet to another address of this machine is dropped, to the loopback address not."""
    run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    s.start()
    socket.create_connection(("192.0.2.1", 8080), 5).close()
    systemctl("stop", UNIT)
    s.example("localhost-only.conf")
    s.start()
    with connects(s) as a, connects(s) as b:
        chats(a, b)
    try:
        socket.create_connection(("192.0.2.1", 8080), 2).close()
    except OSError:
        return
    if "IP firewalling" in run("journalctl", "-q", "-b", "--no-pager", "-n", "2000"):
        raise Skip("this kernel has no BPF for IPAddressDeny=")
    raise AssertionError("reached by another address")


def test_example_control_group(s):
    """A back end of another user publishes; nobody else may."""
    s.example("control-group.conf")
    s.configure(control_socket="/run/wsbind-control/control.sock")
    s.start()
    with connects(s, "/room/7") as c:
        as_user = ["setpriv", "--reuid=www-data", "--regid=www-data", "--init-groups"]
        run(*as_user, "wsbind", "publish", "-c", "room/7", "from the back end")
        while c.recv().chat.content != "from the back end":
            pass
        script = ("import socket; s = socket.socket(socket.AF_UNIX); "
                  "s.connect('/run/wsbind-control/control.sock'); "
                  "s.sendall(b'POST /publish?channel=room/7 HTTP/1.1\\r\\nHost: localhost\\r\\n"
                  "Content-Type: text/plain\\r\\nContent-Length: 5\\r\\n\\r\\nhello'); "
                  "print(s.recv(1000))")
        assert "200 OK" in run(*as_user, "/usr/bin/python3", "-c", script)
        while c.recv().chat.content != "hello":
            pass
        run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "wsbind", "status", ok=False)
        # Reload and restart find it there as well.
        systemctl("reload", UNIT)
        systemctl("restart", UNIT)
        run(*as_user, "wsbind", "publish", "-c", "room/7", "after the restart")
        while c.recv().chat.content != "after the restart":
            pass


def test_example_tls_key(s):
    """A pair is replaced as certbot's hook does it, and a reload takes it."""
    (ETC / "wsbind").mkdir(exist_ok=True)
    run("sh", "-c", "getent group ssl-cert || groupadd -r ssl-cert")
    s.example("tls-key.conf")

    def renew():
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", "/tmp/privkey.pem", "-out", "/tmp/fullchain.pem")
        run("install", "-m", "644", "/tmp/fullchain.pem", "/etc/wsbind/tls.pem")
        run("install", "-m", "640", "-g", "ssl-cert", "/tmp/privkey.pem", "/etc/wsbind/tls.key")

    def served():
        context = ssl.create_default_context(cafile="/etc/wsbind/tls.pem")
        with socket.create_connection(("127.0.0.1", 8443)) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as c:
            return c.getpeercert(True)

    renew()
    s.configure(tls_port=8443, tls_certificate="/etc/wsbind/tls.pem", tls_key="/etc/wsbind/tls.key")
    s.start()
    first = served()
    renew()
    systemctl("try-reload-or-restart", UNIT)
    assert served() != first


def test_example_credential(s):
    (ETC / "wsbind").mkdir(exist_ok=True)
    key = ETC / "wsbind/tls.key"
    key.write_text("secret\n")
    key.chmod(0o600)
    s.example("credential.conf")
    s.drop_in("[Service]\nExecStartPre=/bin/sh -c "
              "'test \"$$(cat $$CREDENTIALS_DIRECTORY/tls.key)\" = secret && "
              "! cat /etc/wsbind/tls.key'\n", "zz.conf")
    s.start()
    copy = Path("/run/credentials/wsbind.service/tls.key")
    assert copy.read_text() == "secret\n"
    # From systemd 254 on it is 0440, where the group stands for an ACL with the service's user.
    assert copy.stat().st_mode & 0o777 in (0o400, 0o440)
    run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", copy, ok=False)


def test_tls_with_a_key_that_is_a_credential(s):
    (ETC / "wsbind").mkdir(exist_ok=True)
    key, certificate = ETC / "wsbind/tls.key", ETC / "wsbind/tls.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    key.chmod(0o600)
    s.example("credential.conf")
    s.configure(tls_port=8443, tls_certificate=certificate,
                tls_key="/run/credentials/wsbind.service/tls.key")
    s.start()
    context = ssl.create_default_context(cafile=str(certificate))
    with socket.create_connection(("127.0.0.1", 8443)) as plain, \
            context.wrap_socket(plain, server_hostname="localhost") as c:
        c.sendall(request())
        assert c.recv(12) == b"HTTP/1.1 101"


def test_instances(s):
    (ETC / "wsbind").mkdir(exist_ok=True)
    services = []
    for i, port in enumerate((8101, 8102)):
        (ETC / f"wsbind/{'ab'[i]}.conf").write_text(
            f"port = {port}\nmetrics_port = {port + 100}\nwelcome = {port}\n")
        systemctl("start", f"wsbind@{'ab'[i]}.service")
        one = Service()
        one.port = port
        services.append(one)
    try:
        assert [greeting(one) for one in services] == ["8101", "8102"]
        assert s.ask("/healthz", control="/run/wsbind-a/control.sock")[0] == 200
        (ETC / "wsbind/a.conf").write_text("port = 8101\nmetrics_port = 8201\nwelcome = new\n")
        systemctl("reload", "wsbind@a.service")
        assert [greeting(one) for one in services] == ["new", "8102"]
        systemctl("stop", "wsbind@a.service")
        assert greeting(services[1]) == "8102"
    finally:
        systemctl("stop", "wsbind@a.service", "wsbind@b.service", ok=None)


# What it may not do

def test_writes_nowhere_else(s):
    """Each of these would succeed for root."""
    places = ["/", "/etc", "/usr", "/var/lib", "/run", "/home", "/root", "/opt", "/boot", "/srv",
              "/sys/fs/cgroup", "/proc/sys/net", "/dev"]
    script = "".join(f"touch {p}/wsbind-was-here 2>/dev/null && echo wrote {p}; "
                     for p in places)
    script += "touch /var/lib/wsbind/may /run/wsbind/may || echo could not write its own; true"
    s.drop_in(f"[Service]\nExecStartPost=/bin/sh -c '{script}'\n")
    since = cursor()
    s.start()
    said = [e["MESSAGE"] for e in entries("_SYSTEMD_UNIT=" + UNIT, "_COMM=sh", since=since)]
    assert not said, said
    assert Path("/var/lib/private/wsbind/may").exists() and Path("/run/wsbind/may").exists()
    Path("/var/lib/private/wsbind/may").unlink()
    assert int(Path(f"/proc/{s.pid()}/status").read_text().split("Uid:")[1].split()[0]) > 60000


def test_may_do_nothing_that_takes_privileges(s):
    s.start()
    status = Path(f"/proc/{s.pid()}/status").read_text()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"{name}:\s0+\n", status), status
    assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"Seccomp:\s2", status)
    assert os.stat(CONTROL_SOCKET).st_mode & 0o777 == 0o660


def test_security_score(s):
    s.start()
    text = run("systemd-analyze", "security", "--no-pager", "--threshold=11", UNIT)
    score = float(re.search(r"exposure level for wsbind.service: ([\d.]+)", text)[1])
    assert score <= 1.1, score
    s.example("localhost-only.conf")
    text = run("systemd-analyze", "security", "--no-pager", "--threshold=9", UNIT)
    assert "wsbind.service: 0.9 SAFE" in text, text


# Journal

def test_journal_has_fields_to_filter_by(s):
    since = cursor()  # an earlier client may have had the same port
    s.start()
    with connects(s, "/quotes") as a, connects(s, "/other") as b:
        peer = "%s:%d" % a.socket.getsockname()
        a.send(chat("x", channel="not/mine"))
        a.recv()
        assert b.id
    for match in (f"WSBIND_CLIENT_ID={a.id}", f"WSBIND_PEER={peer}", "WSBIND_CHANNEL=quotes"):
        wait_until(lambda m=match: len(entries(m, since=since)) >= 3, match)
        found = entries(match, since=since)
        assert all(e["WSBIND_PEER"] == peer for e in found), found
        ids = [e["MESSAGE_ID"] for e in found]
        wanted = catalog_ids()
        assert ids == [wanted["CONNECTED"], wanted["MESSAGE_ERROR"], wanted["DISCONNECTED"]], ids
        assert all(e["SYSLOG_IDENTIFIER"] == "wsbind" and e["_SYSTEMD_UNIT"] == UNIT and
                   e["CODE_FILE"].startswith("src/") for e in found)
    assert found[2]["WSBIND_CLOSE_CODE"] == "1006"


def test_catalog_explains(s):
    since = cursor()
    s.configure(max_connections=1)
    s.start()
    with connects(s), RawClient(s, handshake=False) as c:
        c.send(request())
        assert c.recv_head()[0] == 503
    text = run("journalctl", "-q", "--no-pager", "-x", f"--after-cursor={since}",
               "SYSLOG_IDENTIFIER=wsbind")
    for part in ("Subject: wsbind: the daemon is ready", "Subject: wsbind: a handshake was refused",
                 "there was no room (max_connections)", "Subject: wsbind: the daemon is open to"):
        assert part in text, part
    listed = run("journalctl", "--list-catalog", "--no-pager")
    for name, number in catalog_ids().items():
        assert number in listed, name


def test_lines_that_clients_provoke_are_limited_and_counted(s):
    s.start()
    since = cursor()
    for _ in range(200):
        with RawClient(s, handshake=False) as c:
            c.send(b"nonsense\r\n\r\n")
            c.recv_head()
    wait_until(lambda: lines(r"more lines like the ones before were left out", since), "a count",
               30)
    refused = entries("MESSAGE_ID=" + catalog_ids()["REFUSED"], since=since)
    left_out = sum(int(e.get("WSBIND_SUPPRESSED", 0)) for e in refused)
    said = sum("WSBIND_SUPPRESSED" not in e for e in refused)
    assert said + left_out == 200 and said <= 20, (said, left_out)


def test_a_journal_that_hangs_holds_nobody_up(s):
    """Lines are lost, counted and told of; clients are served as before."""
    s.start()
    journald = int(show("MainPID", "systemd-journald.service"))
    since = cursor()
    os.kill(journald, signal.SIGSTOP)
    try:
        with connects(s) as a, connects(s) as b:
            for _ in range(1000):
                RawClient(s).close()  # two lines each
            chats(a, b)
            wait_until(lambda: s.metric("websocket_log_lines_dropped_total") > 0, "lines lost")
            chats(a, b)
    finally:
        os.kill(journald, signal.SIGCONT)

    def told():
        RawClient(s).close()  # the next line says how many are missing before it
        return sum(int(e["WSBIND_DROPPED"]) for e in entries(
            "MESSAGE_ID=" + catalog_ids()["LOG_DROPPED"], since=since))

    wait_until(lambda: told() == s.metric("websocket_log_lines_dropped_total"),
               "all that was lost is told", 30)


def main():
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    if sys.argv[1:]:
        tests = [t for t in tests if any(word in t.__name__ for word in sys.argv[1:])]
    failed = 0
    s = Service()
    for n, test in enumerate(tests, 1):
        began = time.monotonic()
        mark = cursor()
        s.reset()
        try:
            test(s)
            result, text = "ok", ""
        except Skip as e:
            result, text = "ok", f" # SKIP {e}"
        except Exception:  # pylint: disable=broad-except
            result, text = "not ok", ""
            failed += 1
            print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
            log = run("journalctl", "-q", "--no-pager", f"--after-cursor={mark}", ok=None)
            print("".join(f"# {line}\n" for line in log.splitlines()[-60:]), end="")
        print(f"{result} {n} - systemd: {test.__name__} ({time.monotonic() - began:.1f} s){text}",
              flush=True)
    s.reset()
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
