/* SPDX-License-Identifier: MIT */
#include "wire/zip.h"

#include <lz4frame.h>
#include <stdio.h>
#include <zstd.h>

#include "containers/buf.h"
#include "test.h"

#define MIB ((size_t)1 << 20)

#define KIND_OF(NAME, name, number) ZIP_##NAME,
static const enum zip_kind packed_kinds[] = {ZIP_CODECS(KIND_OF)};

/* Half of it random, half of it repetition: shrinks, but not to nothing. */
static uint8_t *make_data(size_t n)
{
	uint64_t rng = 12345;
	uint8_t *p = malloc(n ? n : 1);

	for (size_t i = 0; i < n; i++)
		p[i] = i & 64 ? (uint8_t)(i >> 10) : (uint8_t)test_random(&rng);
	return p;
}

static void pack(struct zip *z, enum zip_kind kind, const void *p, size_t n, struct buf *out)
{
	CHECK_EQ(zip_pack_kind(z, kind, 6, p, n, out), 0);
}

TEST(zip_round_trip_of_all_kinds_and_sizes)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 65536, 300000, 3 * MIB + 1};
	struct zip z;

	zip_init(&z);
	for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
		uint8_t *data = make_data(sizes[k]);

		for (int kind = ZIP_NONE; kind < ZIP_N_KINDS; kind++) {
			struct buf packed = {0}, out = {0};

			pack(&z, (enum zip_kind)kind, data, sizes[k], &packed);
			CHECK_EQ(buf_append(&out, "head", 4, BUF_NO_LIMIT), 0);
			CHECK_EQ(zip_unpack(&z, (enum zip_kind)kind, packed.data, packed.len,
					    sizes[k], &out),
				 0);
			CHECK_EQ(out.len, sizes[k] + 4);
			CHECK_MEM(out.data, "head", 4);
			if (sizes[k])
				CHECK_MEM(out.data + 4, data, sizes[k]);
			buf_fini(&packed);
			buf_fini(&out);
		}
		free(data);
	}
	zip_fini(&z);
}

TEST(zip_pack_takes_only_what_is_smaller)
{
	uint8_t *data = make_data(MIB);
	struct buf out = {0};
	uint64_t rng = 99;
	struct zip z = {0};

	CHECK_EQ(buf_append(&out, "x", 1, BUF_NO_LIMIT), 0);
	CHECK_EQ(zip_pack(&z, 6, data, MIB, &out), 0);
	CHECK(out.len > 1 && out.len < MIB);
	CHECK_EQ(ZSTD_getFrameContentSize(out.data + 1, out.len - 1), MIB);
	out.len = 1;
	CHECK_EQ(zip_pack(&z, -100, data, MIB, &out), 0);
	out.len = 1;
	CHECK_EQ(zip_pack(&z, 100, data, 1000, &out), 0);
	out.len = 1;
	for (size_t i = 0; i < MIB; i++)
		data[i] = (uint8_t)test_random(&rng);
	for (size_t n = 0; n < 5000; n += 1 + n / 3) {
		CHECK_EQ(zip_pack(&z, 6, data, n, &out), ZIP_E_NOT_SMALLER);
		CHECK_EQ(out.len, 1);
	}
	CHECK_EQ(zip_pack(&z, 6, data, MIB, &out), ZIP_E_NOT_SMALLER);
	CHECK_EQ(out.len, 1);
	CHECK_MEM(out.data, "x", 1);
	buf_fini(&out);
	free(data);
	zip_fini(&z);
}

TEST(zip_limit_is_exact)
{
	static const size_t sizes[] = {1, 4096, 70000};
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
		uint8_t *data = make_data(sizes[k]);

		for (int kind = ZIP_NONE; kind < ZIP_N_KINDS; kind++) {
			struct buf packed = {0}, out = {0};

			CHECK_EQ(buf_append(&out, "head", 4, BUF_NO_LIMIT), 0);
			pack(&z, (enum zip_kind)kind, data, sizes[k], &packed);
			CHECK_EQ(zip_unpack(&z, (enum zip_kind)kind, packed.data, packed.len,
					    sizes[k] - 1, &out),
				 ZIP_E_TOO_BIG);
			CHECK_EQ(out.len, 4);
			CHECK_EQ(zip_unpack(&z, (enum zip_kind)kind, packed.data, packed.len,
					    sizes[k], &out),
				 0);
			CHECK_EQ(out.len, sizes[k] + 4);
			out.len = 0;
			CHECK_EQ(zip_unpack(&z, (enum zip_kind)kind, packed.data, packed.len,
					    SIZE_MAX, &out),
				 0);
			buf_fini(&packed);
			buf_fini(&out);
		}
		free(data);
	}
	zip_fini(&z);
}

/* 64 MiB of zeros in a few KiB: neither time nor memory beyond the limit. */
TEST(zip_bombs_stop_at_the_limit)
{
	uint8_t *zeros = calloc(1, 64 * MIB);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out = {0};

		pack(&z, packed_kinds[k], zeros, 64 * MIB, &packed);
		CHECK(packed.len < MIB);
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, packed.len, MIB, &out),
			 ZIP_E_TOO_BIG);
		CHECK_EQ(out.len, 0);
		CHECK(buf_cap(&out) <= MIB + 1);
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(zeros);
	zip_fini(&z);
}

/* A frame head that claims 15 MiB, and nothing behind it. */
TEST(zip_claimed_size_is_not_allocated)
{
	static const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0xf0, 0, 0, 0, 0};
	struct buf out = {0};
	struct zip z = {0};

	CHECK_EQ(ZSTD_getFrameContentSize(head, sizeof(head)), 15 * MIB);
	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, head, sizeof(head), 16 * MIB, &out), ZIP_E_CORRUPT);
	CHECK(buf_cap(&out) <= 65536);
	buf_fini(&out);
	zip_fini(&z);
}

/* Window log 31 (2 GiB) in the frame head, content size unknown. */
TEST(zip_window_is_bounded)
{
	static const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0, 0, 0};
	struct buf out = {0};
	struct zip z = {0};

	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, head, sizeof(head), 16 * MIB, &out), ZIP_E_TOO_BIG);
	buf_fini(&out);
	zip_fini(&z);
}

/* zstd at its highest level, as a stream of unknown length: the window is 128 MiB only if the
 * limit is as large. */
TEST(zip_stream_of_unknown_length)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	uint8_t *data = make_data(MIB);
	size_t room = ZSTD_compressBound(MIB);
	struct buf packed = {0}, out = {0};
	struct zip z = {0};

	CHECK_EQ(buf_reserve(&packed, room, BUF_NO_LIMIT), 0);
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, 3);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	for (size_t at = 0; at < MIB; at += MIB / 4) {
		ZSTD_inBuffer i = {data + at, MIB / 4, 0};
		ZSTD_outBuffer o = {packed.data, room, packed.len};

		ZSTD_compressStream2(c, &o, &i, at + MIB / 4 == MIB ? ZSTD_e_end : ZSTD_e_flush);
		packed.len = o.pos;
	}
	CHECK(ZSTD_getFrameContentSize(packed.data, packed.len) == ZSTD_CONTENTSIZE_UNKNOWN);
	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, packed.data, packed.len, MIB, &out), 0);
	CHECK_EQ(out.len, MIB);
	CHECK_MEM(out.data, data, MIB);
	packed.data[packed.len - 1] ^= 1; /* the frame's own checksum */
	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, packed.data, packed.len, MIB, &out), ZIP_E_CORRUPT);
	CHECK_EQ(out.len, MIB);
	ZSTD_freeCCtx(c);
	buf_fini(&packed);
	buf_fini(&out);
	free(data);
	zip_fini(&z);
}

TEST(zip_frames_in_a_row_are_one)
{
	uint8_t *data = make_data(100000);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out = {0};

		pack(&z, packed_kinds[k], data, 100000, &packed);
		pack(&z, packed_kinds[k], data, 0, &packed);
		pack(&z, packed_kinds[k], data, 7, &packed);
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, packed.len, MIB, &out), 0);
		CHECK_EQ(out.len, 100007);
		CHECK_MEM(out.data + 100000, data, 7);
		buf_clear(&out);
		/* The limit is that of all together. */
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, packed.len, 100006, &out),
			 ZIP_E_TOO_BIG);
		CHECK_EQ(buf_append(&packed, "tail", 4, BUF_NO_LIMIT), 0);
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, packed.len, MIB, &out),
			 ZIP_E_CORRUPT);
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(data);
	zip_fini(&z);
}

/* Cut off anywhere, it is damaged; the contexts are good for the next one all the same. */
TEST(zip_cut_off_is_corrupt)
{
	uint8_t *data = make_data(3000);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out = {0};

		pack(&z, packed_kinds[k], data, 3000, &packed);
		for (size_t n = 1; n < packed.len; n += 1 + n / 50) {
			CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, n, MIB, &out),
				 ZIP_E_CORRUPT);
			CHECK_EQ(out.len, 0);
		}
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], packed.data, packed.len, MIB, &out), 0);
		CHECK_MEM(out.data, data, 3000);
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(data);
	zip_fini(&z);
}

TEST(zip_damage_never_passes_the_limit)
{
	uint64_t rng = test_seed();
	uint8_t *data = make_data(2000);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out = {0};

		pack(&z, packed_kinds[k], data, 2000, &packed);
		for (int i = 0; i < 3000; i++) {
			uint8_t *copy = malloc(packed.len);
			size_t n =
				packed.len - (test_random(&rng) % 4 ? 0 : test_random(&rng) % 50);
			int r;

			memcpy(copy, packed.data, packed.len);
			for (uint64_t flips = 1 + test_random(&rng) % 3; flips; flips--)
				copy[test_random(&rng) % (i % 2 ? 20 : packed.len)] ^=
					(uint8_t)(1 + test_random(&rng) % 255);
			buf_clear(&out);
			r = zip_unpack(&z, packed_kinds[k], copy, n, 3000, &out);
			CHECK(r == 0 || r == ZIP_E_CORRUPT || r == ZIP_E_TOO_BIG);
			CHECK(out.len <= (r == 0 ? 3000u : 0u));
			free(copy);
		}
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(data);
	zip_fini(&z);
}

TEST(zip_kind_must_be_known)
{
	struct buf out = {0};
	struct zip z = {0};

	CHECK_EQ(zip_unpack(&z, ZIP_N_KINDS, "x", 1, 10, &out), ZIP_E_CORRUPT);
	CHECK_EQ(zip_unpack(&z, (enum zip_kind)UINT32_MAX, "", 0, 10, &out), ZIP_E_CORRUPT);
	CHECK_EQ(zip_pack_kind(&z, ZIP_N_KINDS, 1, "x", 1, &out), ZIP_E_CORRUPT);
	CHECK_EQ(zip_unpack(&z, ZIP_LZ4, NULL, 0, 0, &out), 0);
	CHECK_EQ(out.len, 0);
	zip_fini(&z);
	zip_fini(NULL);
}

TEST(zip_contexts_are_kept_until_trimmed)
{
	uint8_t *data = make_data(1000);
	struct buf packed = {0}, out = {0};
	struct zip z = {0};
	struct ZSTD_CCtx_s *kept;

	CHECK_EQ(zip_pack(&z, 3, data, 1000, &packed), 0);
	kept = z.zstd_out;
	CHECK(kept && !z.zstd_in && !z.lz4_in && !z.gzip_in);
	CHECK_EQ(zip_pack(&z, 3, data, 1000, &packed), 0);
	CHECK(z.zstd_out == kept);
	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++)
		CHECK_EQ(zip_unpack(&z, packed_kinds[k], "junk", 4, 10, &out), ZIP_E_CORRUPT);
	CHECK(z.zstd_in && z.lz4_in && z.gzip_in);
	zip_trim(&z);
	CHECK(!z.zstd_out && !z.zstd_in && !z.lz4_in && !z.gzip_in);
	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, packed.data, packed.len, 4000, &out), 0);
	CHECK_EQ(out.len, 2000);
	buf_fini(&packed);
	buf_fini(&out);
	free(data);
	zip_fini(&z);
}

/* Whatever the budget of a call is, what comes out is the same, and no call does much more. */
TEST(zip_unpacks_in_steps)
{
	static const size_t budgets[] = {1000, 5000, 60000};
	uint8_t *data = make_data(700000);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds) * ARRAY_LEN(budgets); k++) {
		enum zip_kind kind = packed_kinds[k % ARRAY_LEN(packed_kinds)];
		size_t budget = budgets[k / ARRAY_LEN(packed_kinds)];
		struct buf packed = {0}, out = {0};
		struct zip_unpacking u;
		int r = ZIP_MORE;

		/* Two in a row, and what is there already stays. */
		pack(&z, kind, data, 300000, &packed);
		pack(&z, kind, data + 300000, 400000, &packed);
		CHECK_EQ(buf_append(&out, "head", 4, BUF_NO_LIMIT), 0);
		zip_unpacking_init(&u, &z, kind, &out);
		while (r == ZIP_MORE) {
			size_t left = budget, at = u.at, len = out.len;
			uint8_t *moved = malloc(packed.len);

			memcpy(moved, packed.data, packed.len);
			r = zip_unpacking_run(&u, moved, packed.len, 700000, &left);
			CHECK_EQ(r == ZIP_MORE, u.at < packed.len || out.len < 700004);
			CHECK(u.at - at + out.len - len <= budget + 2048 + 16384);
			free(moved);
		}
		CHECK_EQ(r, 0);
		zip_unpacking_fini(&u);
		CHECK_EQ(out.len, 700004);
		CHECK_MEM(out.data + 4, data, 700000);
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(data);
	zip_fini(&z);
}

/* One that is left in the middle gives its context back, and spoils nobody's who made his own. */
TEST(zip_unpackings_side_by_side)
{
	uint8_t *data = make_data(200000);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out[3] = {{0}};
		struct zip_unpacking u[3];
		size_t budget;

		pack(&z, packed_kinds[k], data, 200000, &packed);
		for (size_t i = 0; i < 3; i++) {
			zip_unpacking_init(&u[i], &z, packed_kinds[k], &out[i]);
			budget = 1000;
			CHECK_EQ(zip_unpacking_run(&u[i], packed.data, packed.len, 200000, &budget),
				 ZIP_MORE);
		}
		zip_unpacking_fini(&u[1]);
		for (size_t i = 0; i < 3; i += 2) {
			budget = SIZE_MAX;
			CHECK_EQ(zip_unpacking_run(&u[i], packed.data, packed.len, 200000, &budget),
				 0);
			CHECK_EQ(out[i].len, 200000);
			CHECK_MEM(out[i].data, data, 200000);
			zip_unpacking_fini(&u[i]);
		}
		for (size_t i = 0; i < 3; i++)
			buf_fini(&out[i]);
		buf_fini(&packed);
	}
	free(data);
	zip_fini(&z);
}

/* The limit and the end are looked at in each step, not at the end. */
TEST(zip_unpacking_stops_where_it_fails)
{
	uint8_t *zeros = calloc(1, 4 * MIB);
	struct zip z = {0};

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct buf packed = {0}, out = {0};
		struct zip_unpacking u;
		size_t budget, spent = 0;
		int r = ZIP_MORE;

		pack(&z, packed_kinds[k], zeros, 4 * MIB, &packed);
		zip_unpacking_init(&u, &z, packed_kinds[k], &out);
		for (; r == ZIP_MORE; spent += 4096 - budget) {
			budget = 4096;
			r = zip_unpacking_run(&u, packed.data, packed.len, MIB, &budget);
		}
		CHECK_EQ(r, ZIP_E_TOO_BIG);
		CHECK(spent < MIB + MIB / 4);
		zip_unpacking_fini(&u);
		zip_unpacking_init(&u, &z, packed_kinds[k], &out);
		for (r = ZIP_MORE; r == ZIP_MORE;) {
			budget = 4096;
			r = zip_unpacking_run(&u, packed.data, packed.len - 1, 4 * MIB, &budget);
		}
		CHECK_EQ(r, ZIP_E_CORRUPT);
		CHECK_EQ(out.len, 0);
		zip_unpacking_fini(&u);
		buf_fini(&packed);
		buf_fini(&out);
	}
	free(zeros);
	zip_fini(&z);
}

/* 16 KiB are packed at a time, and it ends where it can't get smaller. */
TEST(zip_packs_in_steps)
{
	static const size_t sizes[] = {2, 16384, 16385, 300000};
	uint8_t *data = make_data(300000);
	uint64_t rng = 7;
	struct zip z = {0};
	struct zip_packing k;
	struct buf out = {0};
	size_t budget;
	int r;

	memset(data, 0, 16384);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf back = {0};
		unsigned calls = 0;

		out.len = 0;
		CHECK_EQ(buf_append(&out, "head", 4, BUF_NO_LIMIT), 0);
		zip_packing_init(&k, &z, 6, &out);
		do {
			budget = 1;
			r = zip_packing_run(&k, data, sizes[i], &budget);
			calls++;
		} while (r == ZIP_MORE);
		zip_packing_fini(&k);
		if (sizes[i] == 2) {
			CHECK_EQ(r, ZIP_E_NOT_SMALLER);
			CHECK_EQ(out.len, 4);
			continue;
		}
		CHECK_EQ(r, 0);
		CHECK_EQ(calls, (sizes[i] + 16383) / 16384);
		CHECK(out.len - 4 < sizes[i]);
		CHECK_EQ(ZSTD_getFrameContentSize(out.data + 4, out.len - 4), sizes[i]);
		CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, out.data + 4, out.len - 4, sizes[i], &back), 0);
		CHECK_EQ(back.len, sizes[i]);
		CHECK_MEM(back.data, data, back.len);
		buf_fini(&back);
	}
	for (size_t i = 0; i < 300000; i++)
		data[i] = (uint8_t)(test_random(&rng) >> 56);
	out.len = 0;
	budget = SIZE_MAX;
	zip_packing_init(&k, &z, 6, &out);
	CHECK_EQ(zip_packing_run(&k, data, 300000, &budget), ZIP_E_NOT_SMALLER);
	CHECK_EQ(out.len, 0);
	zip_packing_fini(&k);
	buf_fini(&out);
	free(data);
	zip_fini(&z);
}
