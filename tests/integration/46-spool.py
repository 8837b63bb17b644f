# SPDX-License-Identifier: MIT
"""spool_dir: transfers become files, whole or not at all."""

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
