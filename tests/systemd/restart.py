# SPDX-License-Identifier: MIT
"""
`systemctl restart` and what is like it: connections go on. Tests of inside.py, in a file of
their own.
"""

import json
import threading

from machine import *

TRAFFIC = {"notice_limit": 0, "log_connections": "no", "max_incoming_frames_per_second": 0}
TOTAL = "websocket_total_connections"


class Crowd:
    """Clients of `wsbind benchmark` in several channels, with messages all the time."""

    def __init__(self, clients, channels, seconds):
        self.clients = clients
        self.runs = []
        for i in range(channels):
            command = ["wsbind", "benchmark", "-u", f"ws://127.0.0.1:8080/crowd/{i}", "--json",
                       "-c", str(clients // channels), "--rate", "4", "-m", str(4 * seconds),
                       "--message-size", "100"]
            self.runs.append(subprocess.Popen(command, stdout=subprocess.PIPE,
                                              stderr=subprocess.PIPE))

    def wait_open(self, s):
        wait_until(lambda: s.metric("websocket_active_connections") >= self.clients,
                   "all are there", 120)

    def finish(self):
        """All of it arrived: once, in one order, at everybody."""
        for run_ in self.runs:
            out, err = run_.communicate(timeout=180)
            result = json.loads(out)
            assert run_.returncode == 0 and result["ok"], (err, result)
            assert (result["lost"], result["duplicated"], result["out_of_order"]) == (0, 0, 0)
            assert result["orders"] == 1 and result["sent"] == result["messages"], result


def restart_ten_times(s, clients, channels, again, same_process=False):
    s.configure(**TRAFFIC)
    s.start()
    crowd = Crowd(clients, channels, seconds=25)
    crowd.wait_open(s)
    received = s.metric("websocket_messages_received_total")
    since = cursor()
    memory = []
    for i in range(10):
        pid = s.pid()
        again(i)
        assert (s.pid() == pid) == same_process
        assert s.metric(TOTAL) == crowd.clients
        assert s.metric("websocket_active_connections") == crowd.clients
        assert s.metric("websocket_messages_received_total") >= received
        received = s.metric("websocket_messages_received_total")
        memory.append(s.metric("process_resident_memory_bytes"))
    assert s.metric("websocket_handovers_total") == 10
    assert min(memory[5:]) < 1.1 * max(memory[:5]), memory
    assert s.metric("websocket_handover_connections_total") == 10 * crowd.clients
    assert len(lines(rf"took over {crowd.clients} connections and {channels} channels .*, "
                     r"0 connections lost", since)) == 10
    assert not lines("stopping", since)
    assert show("NFileDescriptorStore") == "0" and show("NRestarts") == "0"
    crowd.finish()


def test_ten_restarts_with_5000_clients(s):
    """The manager reloads and executes itself in between."""
    def again(i):
        if i % 3 == 1:
            systemctl("daemon-reload")
        if i % 3 == 2:
            systemctl("daemon-reexec")
        systemctl("restart", UNIT)

    restart_ten_times(s, 5000, 5, again)


def test_a_mistake_costs_no_connection(s):
    """A wrong key, then each way to have it read, with 100 clients."""
    s.configure(**TRAFFIC)
    s.start()
    crowd = Crowd(100, 2, seconds=20)
    crowd.wait_open(s)
    s.configure(auth="jwt", jwt_key_file="/etc/wsbind.key", **TRAFFIC)
    named = r"jwt_key_file: /etc/wsbind\.key: No such file or directory"
    for again, outcome in (("reload", "not reloaded"), ("kill", "is not executed"),
                           ("restart", "going on with the settings of the process before")):
        since = cursor()
        if again == "kill":
            systemctl("kill", "-s", "USR2", "--kill-who=main", UNIT)
        else:
            systemctl(again, UNIT, ok=again == "restart")
        wait_until(lambda: lines(outcome, since) and lines(named, since), again, 30)
        assert s.metric("websocket_active_connections") == 100
        assert s.metric(TOTAL) == 100
    wait_until(lambda: "that of before is in use" in systemctl("status", UNIT), "it says so", 30)
    # Who asks before learns it, while the daemon has the ports and another user's rights.
    checked = subprocess.run(["wsbind", "check-config"], capture_output=True, text=True)
    assert checked.returncode == 78 and re.search(named, checked.stderr), checked
    s.configure(**TRAFFIC)
    checked = subprocess.run(["wsbind", "check-config"], capture_output=True, text=True)
    assert checked.returncode == 0, checked
    systemctl("restart", UNIT)
    crowd.finish()


def test_ten_restarts_with_9000_clients(s):
    restart_ten_times(s, 9000, 3, lambda i: systemctl("restart", UNIT))


def test_ten_times_sigusr2_with_9000_clients(s):
    def again(_):
        since = cursor()
        systemctl("kill", "-s", "USR2", "--kill-who=main", UNIT)
        wait_until(lambda: lines("took over 9000 connections", since), "it goes on", 30)

    restart_ten_times(s, 9000, 3, again, same_process=True)


def hears(a, b):
    content = os.urandom(8).hex()
    a.send(chat(content))
    while b.recv().chat.content != content:
        pass


def test_restart_applies_what_needs_one(s):
    s.configure(**TRAFFIC, worker_threads=2)
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        for workers, buffer in ((1, "64K"), (5, "8M"), (3, "1M")):
            s.configure(**TRAFFIC, worker_threads=workers, max_send_buffer=buffer)
            systemctl("restart", UNIT)
            assert f'worker="{workers - 1}"' in s.ask("/metrics")[1]
            assert f'worker="{workers}"' not in s.ask("/metrics")[1]
            hears(a, b)
            with RawClient(s, "/room") as c:
                hears(b, c)
                hears(c, a)


def test_restart_by_the_socket_unit(s):
    """Sockets of activation come back by themselves."""
    systemctl("start", "wsbind.socket")
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        for _ in range(3):
            systemctl("restart", UNIT)
            hears(a, b)
            RawClient(s).close()
    assert s.metric("websocket_handover_connections_total") >= 6


def test_restart_refuses_nobody(s):
    s.configure(log_connections="no")
    s.start()
    stop, served, lost = threading.Event(), [], []

    def visit():
        while not stop.is_set():
            try:
                with RawClient(s, greeted=False) as c:
                    assert c.recv_message()
                served.append(1)
            except (AssertionError, OSError, EOFError) as e:
                lost.append(repr(e))

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for v in visitors:
        v.start()
    try:
        for _ in range(5):
            before = len(served)
            systemctl("restart", UNIT)
            wait_until(lambda n=before: len(served) > n + 20, "visitors are served again")
    finally:
        stop.set()
        for v in visitors:
            v.join()
    assert not lost, lost


def test_restarts_on_top_of_each_other(s):
    """Whether or not systemd tells of the second one while it waits for the first."""
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        for first in (["restart", UNIT], ["kill", "-s", "USR2", "--kill-who=main", UNIT]) * 2:
            since = cursor()
            also = subprocess.Popen(["systemctl", *first])
            systemctl("restart", UNIT)
            also.wait()
            systemctl("restart", UNIT)
            assert not lines("stopping", since)
            hears(a, b)
            hears(b, a)


def test_restart_on_top_of_a_reload(s):
    """Of that one systemd tells nobody: it runs no ExecStop= then."""
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        since = cursor()
        with Stopped(thread(s.pid(), "worker 0")):
            reload = subprocess.Popen(["wsbind", "reload"], stderr=subprocess.DEVNULL)
            wait_until(lambda: show("ActiveState") == "reloading", "it is under way")
            restart = subprocess.Popen(["systemctl", "restart", UNIT])
            wait_until(lambda: lines("handing over", since), "it ends")
        reload.wait()
        assert restart.wait() == 0
        assert not lines("stopping", since)
        hears(a, b)
        hears(b, a)


def test_restart_without_a_message_bus(s):
    """announce-stop is root, and asks systemd itself."""
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        systemctl("stop", "dbus.socket", "dbus.service")
        try:
            systemctl("restart", UNIT)
            hears(a, b)
        finally:
            systemctl("start", "dbus.socket")


def test_try_restart_and_reload_or_restart(s):
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        pid = s.pid()
        systemctl("try-restart", UNIT)
        assert s.pid() != pid
        hears(a, b)
        systemctl("reload-or-restart", UNIT)
        hears(a, b)


def says_goodbye(c):
    """What came before the Close has a DISCONNECT with a time to come back."""
    told = messages(c.expect_close(1012))[-1]
    assert told.control.type == DISCONNECT and told.control.reconnect_after_ms <= 30000


def test_a_stop_is_a_stop(s):
    for end in (lambda: systemctl("stop", UNIT), lambda: systemctl("kill", "-s", "TERM", UNIT)):
        s.start()
        with RawClient(s) as c:
            end()
            says_goodbye(c)
            wait_until(lambda: show("ActiveState") == "inactive", "it has stopped")
            assert show("Result") == "success" and show("NFileDescriptorStore") == "0"


def test_on_stop_close_and_keep(s):
    s.configure(on_stop="close")
    s.start()
    with RawClient(s) as c:
        systemctl("restart", UNIT)
        says_goodbye(c)
    # Without ExecStop= nobody says what is meant: keep doesn't ask, auto is careful.
    s.drop_in("[Service]\nExecStop=\n")
    s.configure(on_stop="keep")
    systemctl("restart", UNIT)
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        systemctl("restart", UNIT)
        hears(a, b)
    s.configure(on_stop="auto")
    systemctl("reload", UNIT)
    with RawClient(s) as c:
        systemctl("restart", UNIT)
        says_goodbye(c)


def since(position):
    return f"/room?since={position.epoch}.{position.sequence}"


def said_since(s, position):
    """What a client gets that comes back with a position, up to where it is current."""
    with RawClient(s, since(position), greeted=False) as c:
        c.recv_message()
        m = Message.FromString(c.recv_message())
        assert m.control.positions[0].recovered, m
        said = []
        while True:
            m = Message.FromString(c.recv_message())
            if m.type == CONTROL and m.control.type == POSITION:
                return said, m.control.positions[0]
            if m.type != CONTROL:
                said.append(m.chat.content)


def home(s):
    with RawClient(s, "/room", greeted=False) as c:
        c.recv_message()
        return Message.FromString(c.recv_message()).control.positions[0]


def test_history_outlives_crashes_and_restarts(s):
    s.configure(history_messages=1000, on_stop="auto")
    s.start()
    at, said = home(s), []
    assert show("NFileDescriptorStore") == "1"
    for n, end in enumerate(("KILL", "restart", "SEGV", "restart", "ABRT")):
        with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
            for i in range(20):
                said.append(f"{n} {i}")
                a.send(chat(said[-1]))
                while b.recv().chat.content != said[-1]:
                    pass
        begin, pid = cursor(), s.pid()
        if end == "restart":
            systemctl("restart", UNIT)
        else:
            systemctl("kill", "-s", end, "--kill-who=main", UNIT)
            wait_until(lambda: s.pid() not in (0, pid) and show("ActiveState") == "active",
                       "it is there again", 30)
            assert lines(r"ended without handing over: 1 channels keep their \d+ messages, "
                         r"0 of them without some older ones, 0 begin anew", begin)
        assert said_since(s, at)[0] == said
        assert show("NFileDescriptorStore") == "1"
    # Turned off it is nobody's; a stop ends it.
    s.configure(history_messages=0)
    systemctl("reload", UNIT)
    wait_until(lambda: show("NFileDescriptorStore") == "0", "nothing is kept")
    s.configure(history_messages=1000)
    systemctl("reload", UNIT)
    wait_until(lambda: show("NFileDescriptorStore") == "1", "it is kept")
    first = home(s)
    systemctl("stop", UNIT)
    assert show("NFileDescriptorStore") == "0"
    systemctl("start", UNIT)
    assert home(s).epoch != first.epoch


def test_history_is_bounded_by_the_units_memory(s):
    s.configure(history_messages=1000, history_memory="300M")
    s.drop_in("[Service]\nMemoryMax=400M\n")
    begin = cursor()
    s.start()
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        raise Skip("the unified hierarchy has no memory controller here")
    assert lines(r"continuing with history_memory = 100 MiB, a quarter of it, set MemoryMax=1200M",
                 begin)


def test_a_store_that_outlives_a_stop(s):
    """With on_stop = keep; of a unit that is not enabled systemd forgets all, store included."""
    s.drop_in("[Service]\nFileDescriptorStorePreserve=yes\n")
    if show("FileDescriptorStorePreserve") != "yes":
        raise Skip("this systemd has no FileDescriptorStorePreserve=")
    s.configure(on_stop="keep")
    systemctl("enable", UNIT)
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        systemctl("stop", UNIT)
        assert show("ActiveState") == "inactive" and int(show("NFileDescriptorStore")) > 2
        systemctl("start", UNIT)
        hears(a, b)
        systemctl("disable", UNIT)
        systemctl("stop", UNIT)
        wait_until(lambda: show("NFileDescriptorStore") == "0", "it is forgotten")
        b.expect_end()


def test_a_store_that_is_too_small(s):
    s.drop_in("[Service]\nFileDescriptorStoreMax=4\n")
    s.start()
    since = cursor()
    with RawClient(s) as c:
        systemctl("restart", UNIT)
        says_goodbye(c)
    assert lines("systemd keeps 4 descriptors, [0-9]+ are needed.*FileDescriptorStoreMax=", since)
    assert entries("MESSAGE_ID=" + catalog_ids()["HANDOVER_FAILED"],
                   "WSBIND_SETTING=FileDescriptorStoreMax", since=since)


def test_restart_to_a_configuration_with_an_error(s):
    """It goes on as the one before while there is somebody; without anybody it doesn't start."""
    s.configure(port=8080)
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        (ETC / "wsbind.conf").write_text("port = no port\n")
        systemctl("restart", UNIT)
        hears(a, b)
        assert show("ActiveState") == "active"
    wait_until(lambda: s.metric("websocket_active_connections") == 0, "they are gone")
    systemctl("restart", UNIT, ok=False)
    assert show("ActiveState") == "failed" and show("ExecMainStatus") == "78"


def test_sigusr2_under_systemd(s):
    """The same process, as systemd sees it."""
    s.start()
    with RawClient(s, "/room") as a, RawClient(s, "/room") as b:
        pid, since = s.pid(), cursor()
        for _ in range(3):
            systemctl("kill", "-s", "USR2", "--kill-who=main", UNIT)
            wait_until(lambda: lines("took over 2 connections", since), "it goes on")
            since = cursor()
            hears(a, b)
        assert s.pid() == pid and show("ActiveState") == "active"
        systemctl("restart", UNIT)
        assert s.pid() != pid
        hears(a, b)
        wait_until(lambda: "2 connections" in show("StatusText"), "a status text of its own")


def test_restart_is_in_the_journal(s):
    s.start()
    with RawClient(s, "/room"):
        since = cursor()
        systemctl("restart", UNIT)
        for event, field in (("HANDED_OVER", "WSBIND_STATE_BYTES"),
                             ("TAKEN_OVER", "WSBIND_PAUSE_USEC")):
            found, = entries("MESSAGE_ID=" + catalog_ids()[event], since=since)
            assert found["WSBIND_CONNECTIONS"] == "1" and int(found[field]) > 0, found
        assert found["WSBIND_LOST"] == "0"
