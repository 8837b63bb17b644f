# SPDX-License-Identifier: MIT
"""spool_dir: transfers become files, whole or not at all."""

from codecs_of_others import gzip_pack
from harness import *

CHUNK = 16 << 10


def spooling(**settings):
    d = Daemon(**settings)
    d.spool = d.folder / "spool"
    d.spool.mkdir()
    d.settings["spool_dir"] = d.spool
    return d


def files(d):
    """Everything in the folder, temporary names too."""
    return sorted(p for p in d.spool.rglob("*") if not p.is_dir())


def chunks(content):
    pieces = [content[i:i + CHUNK] for i in range(0, len(content), CHUNK)] or [b""]
    return [data(piece, sequence=i, is_last=i == len(pieces) - 1, request_id=new_id())
            for i, piece in enumerate(pieces)]


async def transfer(client, content):
    """Sends a transfer; returns the answer to its last chunk."""
    *first, last = chunks(content)
    for m in first:
        await client.send(m)
    return await client.ask(last)


async def test_transfer_becomes_a_file():
    with spooling() as d:
        async with await Client.connect(d) as c, await Client.connect(d) as other:
            for n, size in enumerate((100 << 10, 5, CHUNK, 2 * CHUNK, 0), 1):
                content = os.urandom(size)
                before = set(files(d))
                m = await transfer(c, content)
                assert m.control.type == ACKNOWLEDGE, describe(m)
                assert not c.backlog, "one acknowledgement for the whole transfer"
                new = set(files(d)) - before
                assert len(new) == 1, new
                assert new.pop().read_bytes() == content
                assert d.metric("websocket_spool_files_total") == n
            got = b""
            while len(got) < (100 << 10):
                got += (await other.recv()).binary.data
        assert len(files(d)) == 5


async def test_client_with_ack_gets_one_for_each_chunk_and_the_last_after_the_rename():
    with spooling() as d:
        async with await Client.connect(d, capabilities=["ack"]) as c:
            parts = chunks(os.urandom(3 * CHUNK))
            for m in parts:
                await c.send(m)
            for m in parts:
                await c.expect_control(ACKNOWLEDGE, request_id=m.request_id)
            assert len(files(d)) == 1
            await c.expect_silence()


async def test_transfer_that_begins_anew():
    with spooling() as d:
        async with await Client.connect(d) as c:
            await c.send_binary(b"old", is_last=False)
            m = await c.ask(data(b"new"))
            assert m.control.type == ACKNOWLEDGE, describe(m)
            assert [e.control.type for e in c.backlog] == [ERROR], "of the old one"
            assert [f.read_bytes() for f in files(d)] == [b"new"]


async def test_gap_leaves_nothing_and_answers_an_error():
    with spooling() as d:
        async with await Client.connect(d) as c:
            for wrong in ([0, 2], [1], [0, 1, 3], [0, 1, 1]):
                parts = [data(b"x" * 100, sequence=s, is_last=False, request_id=new_id())
                         for s in wrong]
                for m in parts:
                    await c.send(m)
                await c.expect_error(parts[-1].request_id)
                wait_until(lambda: not files(d), "an empty folder")
                m = await transfer(c, b"whole again")
                assert m.control.type == ACKNOWLEDGE, describe(m)
                for f in files(d):
                    assert f.read_bytes() == b"whole again"
                    f.unlink()


async def test_connection_that_ends_leaves_nothing():
    with spooling(notice_limit=0) as d:
        for end in (lambda c: c.reset(), lambda c: c.close()):
            c = RawClient(d)
            c.send(*chunks(os.urandom(4 * CHUNK))[:3])
            c.send(frame(PING, b"through"))
            c.expect_frame(PONG, b"through")
            end(c)
        await d.wait_metric("websocket_active_connections", 0)
        wait_until(lambda: not files(d), "an empty folder")


async def test_stop_leaves_nothing_half_written():
    with spooling() as d:
        c = RawClient(d)
        c.send(*chunks(os.urandom(4 * CHUNK))[:3])
        c.send(frame(PING, b"through"))
        c.expect_frame(PONG, b"through")
        d.stop()
        assert not files(d)
        c.close()


async def test_two_clients_at_once():
    with spooling() as d:
        contents = [os.urandom(20 * CHUNK + i) for i in range(6)]
        clients = [await Client.connect(d, f"/own-{i}") for i in range(6)]
        answers = await asyncio.gather(*(transfer(c, t) for c, t in zip(clients, contents)))
        assert all(m.control.type == ACKNOWLEDGE for m in answers)
        assert sorted(f.read_bytes() for f in files(d)) == sorted(contents)
        await close_all(clients)


async def test_wrong_checksum_breaks_the_transfer():
    with spooling() as d:
        async with await Client.connect(d) as c:
            await c.send_binary(b"first", sequence=0, is_last=False)
            m = await c.ask(data(b"second", sequence=1, checksum="00000001"))
            assert m.control.type == ERROR
            assert (await transfer(c, b"next")).control.type == ACKNOWLEDGE
            assert [f.read_bytes() for f in files(d)] == [b"next"]


async def test_folder_that_cannot_be_written():
    if os.geteuid() == 0:
        raise Skip("root may write anywhere")
    with spooling() as d:
        d.spool.chmod(0o500)
        async with await Client.connect(d) as c:
            assert (await transfer(c, b"nowhere")).control.type == ERROR
            await c.expect_silence()
        d.spool.chmod(0o700)


async def test_folder_that_went_away():
    with spooling() as d:
        d.spool.rmdir()
        async with await Client.connect(d) as c:
            assert (await transfer(c, b"nowhere")).control.type == ERROR
            await c.expect_silence()
        assert d.metric("websocket_spool_errors_total") >= 1


async def refused(client, content, code, name):
    """A transfer is refused; returns nothing, and nothing is left of it."""
    *first, last = chunks(content)
    for m in first:
        await client.send(m)
    await client.send(last)
    m = await client.expect_control(ERROR)
    assert m.control.code == code and name in m.control.reason, describe(m)
    assert (m.control.reconnect_after_ms > 0) == (code == 503)


async def test_file_that_is_too_large_is_refused():
    with spooling(spool_max_file_size="40K") as d:
        async with await Client.connect(d) as c:
            await refused(c, bytes(50 << 10), 422, "spool_max_file_size")
            wait_until(lambda: not files(d), "an empty folder")
            d.wait_log("spool_max_file_size = 40K")
            # What is written counts, not what was sent.
            packed = gzip_pack(bytes(200 << 10))
            m = await c.ask(data(packed, compression=GZIP))
            assert m.control.type == ERROR and m.control.code == 422, describe(m)
            first = data(b"x", sequence=0, is_last=False, request_id=new_id())
            first.binary.size = 1 << 40
            await c.send(first)
            m = await c.expect_error(first.request_id)
            assert m.control.code == 422, describe(m)
            assert (await transfer(c, bytes(40 << 10))).control.type == ACKNOWLEDGE
            assert len(files(d)) == 1
        reason = {"reason": "spool_max_file_size"}
        assert d.metric("websocket_spool_refused_total", **reason) == 3


async def test_folder_has_a_size_and_a_reload_changes_it():
    with spooling(spool_max_size="100K") as d:
        async with await Client.connect(d) as c:
            assert (await transfer(c, bytes(90 << 10))).control.type == ACKNOWLEDGE
            await refused(c, bytes(20 << 10), 503, "spool_max_size")
            assert len(files(d)) == 1
            d.reload(spool_max_size="200K")
            assert (await transfer(c, bytes(20 << 10))).control.type == ACKNOWLEDGE
            assert len(files(d)) == 2
        assert d.metric("websocket_spool_refused_total", reason="spool_max_size") == 1


async def test_disk_keeps_some_room():
    with spooling(spool_min_free="99%") as d:
        async with await Client.connect(d) as c:
            await refused(c, b"little", 503, "spool_min_free")
            assert not files(d)
            d.wait_log("spool_min_free = 99%")
            d.reload(spool_min_free="0")
            assert (await transfer(c, b"little")).control.type == ACKNOWLEDGE


async def test_many_small_files_are_too_many():
    with spooling() as d:
        async with await Client.connect(d) as c:
            for _ in range(600):
                await c.send(data(b"x", request_id=new_id()))
            answers = [await c.recv() for _ in range(600)]
            late = [m for m in answers if m.control.type == ERROR]
            assert late and all(m.control.code == 503 for m in late)
            assert len(files(d)) == len(answers) - len(late) < 600
        assert d.metric("websocket_spool_refused_total", reason="rate") == len(late)


async def test_begun_transfers_keep_nobody_out():
    with spooling(notice_limit=0, max_connections=400) as d:
        idle = [RawClient(d, f"/own-{i}") for i in range(100)]
        for c in idle:
            c.send(data(b"begun", sequence=0, is_last=False))
        wait_until(lambda: d.metric("websocket_spool_refused_total", reason="open") >= 36,
                   "one address to have all that it may have")
        async with await Client.connect(d) as c:
            async def taken():
                return (await transfer(c, b"mine")).control.type == ACKNOWLEDGE
            deadline = time.monotonic() + 10
            while not await taken():
                assert time.monotonic() < deadline, "they keep it out"
                await asyncio.sleep(0.2)
        assert d.metric("websocket_spool_refused_total", reason="open") > 36
        for c in idle:
            c.close()


async def test_file_of_one_does_not_wait_for_all_of_another():
    with spooling(notice_limit=0) as d:
        bomb = gzip_pack(bytes(256 << 10))
        busy = [RawClient(d) for _ in range(20)]
        for c in busy:
            c.send(*[data(bomb, sequence=i, is_last=False, compression=GZIP) for i in range(400)])
        async with await Client.connect(d, "/quiet") as c:
            began = time.monotonic()
            assert (await transfer(c, bytes(100 << 10))).control.type == ACKNOWLEDGE
            assert time.monotonic() - began < 5
        for c in busy:
            c.reset()
