# SPDX-License-Identifier: MIT
"""Compression of BinaryData: who gets which form of a payload."""

from codecs_of_others import gzip_pack, gzip_unpack, lz4_pack, zstd_pack, zstd_unpack
from harness import *

SETTINGS = {"max_message_size": "1M", "max_frame_size": "1M"}
TEXT_PAYLOAD = b"the same words over and over, " * 200


async def room(daemon, *capabilities):
    """A sender and one reader for each list of capabilities, in a channel of their own."""
    path = f"/{uuid.uuid4()}"
    return [await Client.connect(daemon, path)] + [
        await Client.connect(daemon, path, capabilities=c) for c in capabilities]


async def expect_sound(client, compression):
    """The next message is binary in that form and its checksum fits; returns the data."""
    m = await client.expect_binary(compression=compression)
    assert int(m.binary.checksum, 16) == zlib.crc32(m.binary.data), describe(m)
    return m.binary.data


async def test_large_payload_is_packed_for_those_that_read_zstd(daemon):
    sender, zstd, also, gzip_only, none = members = await room(
        daemon, ["zstd"], ["lz4", "zstd"], ["gzip"], [])
    request_id = new_id()
    await sender.send_binary(TEXT_PAYLOAD, sequence=7, is_last=False, request_id=request_id)
    for c in (zstd, also):
        m = await c.recv()
        assert m.binary.compression == ZSTD, describe(m)
        assert zstd_unpack(m.binary.data) == TEXT_PAYLOAD
        assert int(m.binary.checksum, 16) == zlib.crc32(m.binary.data)
        assert (m.binary.sequence, m.binary.is_last) == (7, False)
        assert m.request_id == request_id and m.channel
        assert len(m.binary.data) < len(TEXT_PAYLOAD) // 4
    for c in (gzip_only, none):
        assert await expect_sound(c, NONE) == TEXT_PAYLOAD
    assert daemon.metric("websocket_compression_input_bytes_total",
                         operation="compress") >= len(TEXT_PAYLOAD)
    await close_all(members)


async def test_payload_without_checksum_gets_none_when_packed(daemon):
    sender, zstd = await room(daemon, ["zstd"])
    await sender.send_binary(TEXT_PAYLOAD, checksum="")
    m = await zstd.expect_binary(compression=ZSTD)
    assert m.binary.checksum in ("", crc32(m.binary.data))
    await close_all(sender, zstd)


async def test_what_goes_as_it_is(daemon):
    sender, zstd = await room(daemon, ["zstd"])
    threshold = b"x" * 1024
    for payload, compression in [(threshold[:-1], NONE), (threshold, ZSTD),
                                 (os.urandom(5000), NONE), (b"x" * (256 << 10), ZSTD),
                                 (b"x" * ((256 << 10) + 1), NONE)]:
        await sender.send_binary(payload)
        got = await expect_sound(zstd, compression)
        assert compression == ZSTD or got == payload
    await close_all(sender, zstd)


async def test_packed_payload_goes_as_it_is_or_unpacked(daemon):
    forms = {GZIP: ("gzip", gzip_pack(TEXT_PAYLOAD)), ZSTD: ("zstd", zstd_pack(TEXT_PAYLOAD)),
             LZ4: ("lz4", lz4_pack(TEXT_PAYLOAD))}
    for form, (name, packed) in forms.items():
        others = [n for n, _ in forms.values() if n != name and n != "zstd"]
        sender, reader, plain, other = members = await room(daemon, [name], [], others)
        await sender.send_binary(packed, compression=form)
        assert await expect_sound(reader, form) == packed
        for c in (plain, other):
            assert await expect_sound(c, NONE) == TEXT_PAYLOAD
        await close_all(members)
    assert daemon.metric("websocket_compression_output_bytes_total",
                         operation="decompress") >= 3 * len(TEXT_PAYLOAD)


async def test_members_on_both_workers_get_their_form():
    with Daemon() as d:
        readers = await spread(d, "/both", capabilities=["zstd"])
        plain = await spread(d, "/both")
        sender = await Client.connect(d, "/both")
        await sender.send_binary(TEXT_PAYLOAD)
        for group in readers:
            for c in group:
                assert zstd_unpack(await expect_sound(c, ZSTD)) == TEXT_PAYLOAD
        for group in plain:
            for c in group:
                assert await expect_sound(c, NONE) == TEXT_PAYLOAD
        await close_all(readers, plain, sender)


async def test_bomb_and_broken_payload_hurt_nobody(daemon):
    bomb = zstd_pack(bytes(8 << 20))
    cases = [(ZSTD, bomb), (GZIP, gzip_pack(bytes(8 << 20))), (LZ4, lz4_pack(bytes(8 << 20))),
             (ZSTD, b"no zstd frame" * 10), (GZIP, gzip_pack(TEXT_PAYLOAD)[:-5]),
             (LZ4, lz4_pack(TEXT_PAYLOAD)[:-20]), (GZIP, b"")]
    sender, plain = await room(daemon, [])
    for form, packed in cases:
        await sender.send_binary(packed, compression=form)
        fence = await sender.send_chat()
        m = await plain.recv()
        if m.type == BINARY_DATA:
            assert len(m.binary.data) <= 1 << 20
            m = await plain.recv()
        assert m.chat.content == fence, describe(m)
    await close_all(sender, plain)


async def test_compression_off():
    with Daemon(enable_compression="no") as d:
        sender, zstd, plain = await room(d, ["zstd"], [])
        await sender.send_binary(TEXT_PAYLOAD)
        for c in (zstd, plain):
            assert await expect_sound(c, NONE) == TEXT_PAYLOAD
        await close_all(sender, zstd, plain)


async def test_gzip_of_ours_is_read_by_others(daemon):
    sender, reader = await room(daemon, ["gzip"])
    await sender.send_binary(gzip_pack(TEXT_PAYLOAD), compression=GZIP)
    assert gzip_unpack(await expect_sound(reader, GZIP)) == TEXT_PAYLOAD
    await close_all(sender, reader)
