# SPDX-License-Identifier: MIT
"""Reload: by SIGHUP and over the control socket, what follows at once and what does not."""

from harness import *


async def test_reload_over_the_control_socket_is_done_when_answered():
    with Daemon() as d:
        async with await Client.connect(d) as a, await Client.connect(d) as b:
            await a.send("text goes nowhere")
            await a.expect_error()
            assert d.reload(text_messages="relay").status == 200
            await a.send("text is relayed")
            assert await b.recv() == "text is relayed"
            assert d.reload(text_messages="reject").status == 200
            await a.send("no")
            await a.expect_close(1003)
            d.wait_log("text_messages")


async def test_reload_by_signal():
    with Daemon() as d:
        async with await Client.connect(d) as a:
            since = len(d.log)
            d.write_config(text_messages="reject", log_level="debug").signal(signal.SIGHUP)
            d.wait_log("reloaded", since=since)
            assert d.lines("text_messages", since)
            await a.send("no")
            await a.expect_close(1003)


async def test_new_connections_follow_and_old_ones_stay():
    with Daemon(welcome="before") as d:
        async with await Client.connect(d) as a:
            assert a.welcome.chat.content == "before"
            assert d.reload(welcome="after", max_connections=2).status == 200
            async with await Client.connect(d) as b:
                assert b.welcome.chat.content == "after"
                with RawClient(d, handshake=False) as c:
                    c.send(request())
                    assert c.recv_head()[0] == 503
                await a.expect_nothing_in(b)


async def test_bad_configuration_changes_nothing():
    with Daemon() as d:
        async with await Client.connect(d) as a, await Client.connect(d) as b:
            answer = d.reload(text_messages="reject", ping_interval="soon")
            assert answer.status == 422
            line = next(i for i, text in enumerate(d.config.read_text().splitlines(), 1)
                        if "ping_interval" in text)
            for part in (f"wsbind.conf:{line}", "ping_interval", "soon"):
                assert part in answer.text, answer.text
            d.wait_log(rf"wsbind\.conf:{line}.*ping_interval.*soon")
            await a.send("text still goes nowhere")
            await a.expect_error()
            await b.expect_nothing_in(a)
            since = len(d.log)
            d.signal(signal.SIGHUP)
            d.wait_log("ping_interval", since=since)
            assert d.reload(text_messages="reject", ping_interval="5s").status == 200
            await a.send("no")
            await a.expect_close(1003)


async def test_what_needs_a_restart_is_reported():
    with Daemon() as d:
        async with await Client.connect(d) as a:
            since = len(d.log)
            answer = d.reload(worker_threads=3, text_messages="relay")
            assert answer.status == 200
            d.wait_log("worker_threads.*restart|restart.*worker_threads", since=since)
            assert "websocket_worker_connections{worker=\"2\"}" not in d.metrics()
            await a.expect_silence()


def test_reload_without_changes():
    with Daemon() as d:
        for _ in range(3):
            assert d.reload().status == 200


async def test_heartbeat_settings_reach_open_connections():
    with Daemon() as d:
        with RawClient(d) as c:
            assert d.reload(ping_interval="200ms", pong_timeout="100ms",
                            heartbeat_timeout="1s").status == 200
            while (f := c.recv_frame()).opcode != CLOSE:
                pass
            assert f.payload == struct.pack(">H", 4001) + b"heartbeat timeout"


async def test_limits_reach_open_connections():
    with Daemon() as d:
        with RawClient(d) as c:
            assert d.reload(max_frame_size="4K", max_message_size="8K").status == 200
            c.send(frame(BINARY, bytes(5000)))
            c.expect_close(1009)


async def test_reloads_under_load_lose_nothing():
    with Daemon(max_incoming_frames_per_second=0) as d:
        groups = await spread(d, "/busy")
        a, b = groups[0][0], groups[1][0]

        async def publish():
            for i in range(1000):
                await a.send_chat(str(i))

        async def read():
            for i in range(1000):
                await b.expect_chat(str(i))

        async def reload_often():
            for i in range(20):
                d.write_config(welcome=f"number {i}")
                answer = await asyncio.get_running_loop().run_in_executor(
                    None, d.ask, "POST", "/reload")
                assert answer.status == 200

        await asyncio.gather(publish(), read(), reload_often())
        await close_all(groups)


# What was read before and is missing

def empty(path):
    path.write_text("")


def blank(path):
    path.write_text("\n \n\t\r\n")


def vanish(path):
    path.unlink()


def dangle(path):
    path.unlink()
    path.symlink_to("/no/such/file")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


WAYS_TO_BE_MISSING = (empty, blank, vanish, dangle, pipe, folder)


def refused(d):
    """Whether somebody without a token is."""
    with RawClient(d, handshake=False) as c:
        c.send(request())
        return c.recv_head()[0] == 403


def remove(path):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def test_a_reload_opens_nothing_because_a_file_is_missing():
    with tempfile.TemporaryDirectory() as keys:
        key = Path(keys) / "key"
        key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
        for place in ("file", "drop-in"):
            with Daemon() as d:
                settings = f"auth = jwt\njwt_key_file = {key}\n"
                path = d.config
                if place == "drop-in":
                    path = Path(f"{d.config}.d") / "50-auth.conf"
                    path.parent.mkdir()
                    path.write_text(settings)
                else:
                    d.write_config(auth="jwt", jwt_key_file=key)
                    settings = d.config.read_text()
                assert d.ask("POST", "/reload").status == 200
                assert refused(d)
                for way in WAYS_TO_BE_MISSING:
                    way(path)
                    since = len(d.log)
                    answer = d.ask("POST", "/reload")
                    assert answer.status == 422 and str(path) in answer.text, (way, answer)
                    d.wait_log("not reloaded", since=since)
                    assert refused(d), way
                    # Nor does the program begin anew with less than it had.
                    since = len(d.log)
                    d.signal(signal.SIGUSR2)
                    d.wait_log("is not executed: the configuration has errors", since=since)
                    assert refused(d), way
                    remove(path)
                    path.write_text(settings)
                    assert d.ask("POST", "/reload").status == 200, way


def test_a_reload_that_opens_on_purpose_is_a_warning():
    with tempfile.TemporaryDirectory() as keys:
        key = Path(keys) / "key"
        key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
        with Daemon(auth="jwt", jwt_key_file=key, allowed_origins="https://example.org") as d:
            for change in ({"allowed_origins": "https://example.org *.example.net"},
                           {"auth": None}):
                since = len(d.log)
                answer = d.reload(**change)
                assert answer.status == 200 and "lets in who was kept out" in answer.text
                d.wait_log("lets in who was kept out", since=since)


def test_folders_of_drop_ins_that_are_none_stop_a_start():
    def plain(path):
        path.write_text("port = 1\n")

    def dangling(path):
        path.symlink_to("/no/such/folder")

    for make in (plain, dangling):
        d = Daemon(ready=False)
        make(Path(f"{d.config}.d"))
        d.write_config().start()
        try:
            d.wait_log(re.escape(f"{d.config}.d: is "))
            assert d.wait() == 78
        finally:
            d.kill()


def test_a_pipe_is_read_at_the_start_and_by_no_reload():
    d = Daemon()
    ours, theirs = os.pipe()
    d.write_config()
    os.write(theirs, d.config.read_bytes())
    os.close(theirs)
    d.args[d.args.index(str(d.config))] = f"/dev/fd/{ours}"
    d.fds = (ours,)
    d.start()
    try:
        os.close(ours)
        answer = d.ask("POST", "/reload")
        assert answer.status == 422 and "no regular file" in answer.text, answer
        d.stop()
    finally:
        d.kill()


def test_a_fifo_holds_nobody_up():
    d = Daemon(ready=False)
    os.mkfifo(d.config)
    d.start()
    try:
        d.wait_log("no regular file, and nothing comes")
        assert d.wait() == 78
    finally:
        d.kill()
