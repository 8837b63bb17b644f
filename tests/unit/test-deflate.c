/* SPDX-License-Identifier: MIT */
/* permessage-deflate: what is negotiated, and both directions against zlib itself. */
#include "wire/deflate.h"

#include <errno.h>
#include <stdio.h>
#include <zlib.h>

#include "base/base.h"
#include "fault.h"
#include "test.h"

#define MIB ((size_t)1 << 20)
#define ALL SIZE_MAX

/* ---------------------------------------------------------------- negotiation */

#define OURS "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

/* @lines: values of the header, separated by newlines; NULL: there is none. */
static int negotiate(const char *lines, char *answer, enum deflate_window *window)
{
	struct http_headers h = {0};

	while (lines) {
		const char *end = strchr(lines, '\n');
		size_t n = end ? (size_t)(end - lines) : strlen(lines);

		h.at[h.count++] = (struct http_header){.name = {"sec-websocket-extensions", 24},
						       .value = {lines, n}};
		lines = end ? end + 1 : NULL;
	}
	return deflate_negotiate(&h, answer, window);
}

TEST(deflate_negotiates_what_can_be_kept)
{
	static const struct {
		const char *offer;
		enum deflate_window window;
		const char *answer; /* behind OURS; NULL: nothing is accepted */
	} cases[] = {
		{NULL, DEFLATE_NONE, NULL},
		{"", DEFLATE_NONE, NULL},
		{"permessage-deflate", DEFLATE_32K, ""},
		{"Permessage-DEFLATE", DEFLATE_32K, ""},
		{"permessage-deflate; server_no_context_takeover", DEFLATE_32K, ""},
		{"permessage-deflate; client_no_context_takeover", DEFLATE_32K, ""},
		{OURS, DEFLATE_32K, ""},
		{"permessage-deflate;\tServer_No_Context_Takeover ", DEFLATE_32K, ""},
		/* the client's window */
		{"permessage-deflate; client_max_window_bits", DEFLATE_32K, ""},
		{"permessage-deflate; client_max_window_bits=8", DEFLATE_32K,
		 "; client_max_window_bits=8"},
		{"permessage-deflate; client_max_window_bits=12", DEFLATE_32K,
		 "; client_max_window_bits=12"},
		{"permessage-deflate; client_max_window_bits=\"15\"", DEFLATE_32K,
		 "; client_max_window_bits=15"},
		/* the server's window */
		{"permessage-deflate; server_max_window_bits=15", DEFLATE_32K,
		 "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=14", DEFLATE_4K,
		 "; server_max_window_bits=12"},
		{"permessage-deflate; server_max_window_bits=12", DEFLATE_4K,
		 "; server_max_window_bits=12"},
		{"permessage-deflate; server_max_window_bits=11", DEFLATE_512,
		 "; server_max_window_bits=9"},
		{"permessage-deflate; server_max_window_bits = \"9\"", DEFLATE_512,
		 "; server_max_window_bits=9"},
		{"permessage-deflate; server_max_window_bits=12; client_max_window_bits=10",
		 DEFLATE_4K, "; server_max_window_bits=12; client_max_window_bits=10"},
		/* declined: values that can't be, or can't be kept */
		{"permessage-deflate; server_max_window_bits", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=8", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=7", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=16", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=09", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=015", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=1", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=x", DEFLATE_NONE, NULL},
		{"permessage-deflate; client_max_window_bits=7", DEFLATE_NONE, NULL},
		{"permessage-deflate; client_max_window_bits=16", DEFLATE_NONE, NULL},
		{"permessage-deflate; client_max_window_bits=+9", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_no_context_takeover=1", DEFLATE_NONE, NULL},
		{"permessage-deflate; client_no_context_takeover=true", DEFLATE_NONE, NULL},
		/* declined: unknown, or twice */
		{"permessage-deflate; unknown", DEFLATE_NONE, NULL},
		{"permessage-deflate; client_max_window_bits; unknown=1", DEFLATE_NONE, NULL},
		{OURS "; client_no_context_takeover", DEFLATE_NONE, NULL},
		{OURS "; server_no_context_takeover", DEFLATE_NONE, NULL},
		{"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
		 DEFLATE_NONE, NULL},
		{"permessage-deflate; client_max_window_bits; client_max_window_bits=9",
		 DEFLATE_NONE, NULL},
		/* other extensions */
		{"permessage-bzip2", DEFLATE_NONE, NULL},
		{"x-webkit-deflate-frame", DEFLATE_NONE, NULL},
		{"foo; bar=\"baz\", permessage-deflate, x", DEFLATE_32K, ""},
		/* several offers: the first that can be kept */
		{"permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10, "
		 "permessage-deflate",
		 DEFLATE_512, "; server_max_window_bits=9"},
		{"permessage-deflate; server_max_window_bits=8\npermessage-deflate", DEFLATE_32K,
		 ""},
		{"foo\n\npermessage-deflate; client_max_window_bits=9", DEFLATE_32K,
		 "; client_max_window_bits=9"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char answer[DEFLATE_ANSWER_MAX], wanted[DEFLATE_ANSWER_MAX] = "";
		enum deflate_window window;

		if (cases[i].answer)
			snprintf(wanted, sizeof(wanted), OURS "%s", cases[i].answer);
		CHECK_EQ(negotiate(cases[i].offer, answer, &window), 0);
		CHECK_STR(answer, wanted);
		CHECK_EQ(window, cases[i].window);
	}
}

TEST(deflate_refuses_headers_that_are_no_list_of_extensions)
{
	static const char *const bad[] = {
		"permessage-deflate;",
		"permessage-deflate; ;client_max_window_bits",
		"; x",
		"=1",
		"permessage deflate",
		"permessage-deflate; a=",
		"permessage-deflate; =1",
		"permessage-deflate; a b",
		"permessage-deflate; a=b c",
		"permessage-deflate; a=b=c",
		"permessage-deflate; a=\"b",
		"permessage-deflate; a=\"",
		"permessage-deflate; a=\"\"",
		"permessage-deflate; a=\"b c\"",
		"permessage-deflate; a=\"b;c\"",
		"permessage-deflate, foo bar",
		"permessage-deflate\nfoo@",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char answer[DEFLATE_ANSWER_MAX];
		enum deflate_window window;

		CHECK_EQ(negotiate(bad[i], answer, &window), 400);
		CHECK_STR(answer, "");
		CHECK_EQ(window, DEFLATE_NONE);
	}
}

/* ------------------------------------------------------------------ deflating */

/* Noise in a period that only some windows can look back over, and text. */
static uint8_t *make_data(size_t n, size_t period)
{
	uint64_t random = 4711;
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = i < period ? (uint8_t)(test_random(&random) >> 56) : p[i - period];
	return p;
}

/* What a client with a window of @bits makes of a message; its length, or -1. */
static long inflate_as_client(int bits, const uint8_t *p, size_t n, uint8_t *out, size_t cap)
{
	z_stream zs = {0};
	uint8_t *whole = malloc(n + 4);
	long came = -1;

	memcpy(whole, p, n);
	memcpy(whole + n, "\x00\x00\xff\xff", 4);
	CHECK_EQ(inflateInit2(&zs, -bits), Z_OK);
	zs.next_in = whole;
	zs.avail_in = (uInt)(n + 4);
	zs.next_out = out;
	zs.avail_out = (uInt)cap;
	if (inflate(&zs, Z_SYNC_FLUSH) == Z_OK && zs.avail_in == 0)
		came = (long)zs.total_out;
	inflateEnd(&zs);
	free(whole);
	return came;
}

static const int client_bits[DEFLATE_N_WINDOWS] = {0, 9, 12, 15};

TEST(deflate_is_read_by_clients_with_the_window_they_asked_for)
{
	static const size_t sizes[] = {100, 511, 600, 4096, 5000, 32768, 70000, 300000};
	static const size_t periods[] = {10, 300, 3000, 20000};
	struct deflater d = {0};

	for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(periods); i++) {
		size_t n = sizes[i % ARRAY_LEN(sizes)], period = periods[i / ARRAY_LEN(sizes)];
		uint8_t *data = make_data(n, period), *out = malloc(n + 1);

		for (enum deflate_window w = DEFLATE_512; w < DEFLATE_N_WINDOWS; w++) {
			bool shrinks = n > 2 * period && (1 << client_bits[w]) > 2 * (int)period;
			struct buf packed = {0};
			int r;

			CHECK_EQ(buf_append(&packed, "head", 4, BUF_NO_LIMIT), 0);
			r = deflater_run(&d, w, 6, data, n, &packed);
			CHECK_MEM(packed.data, "head", 4);
			if (r == DEFLATE_E_NOT_SMALLER) {
				CHECK(!shrinks);
				CHECK_EQ(packed.len, 4);
			} else {
				CHECK_EQ(r, 0);
				CHECK(packed.len - 4 < n);
				CHECK_EQ(inflate_as_client(client_bits[w], packed.data + 4,
							   packed.len - 4, out, n + 1),
					 n);
				CHECK_MEM(out, data, n);
			}
			buf_fini(&packed);
		}
		free(out);
		free(data);
	}
	deflater_fini(&d);
}

/* A larger window finds what a smaller one can't, so the sizes tell which one was used. */
TEST(deflate_windows_differ)
{
	static const size_t periods[] = {200, 3000, 20000};
	struct deflater d = {0};

	for (size_t i = 0; i < ARRAY_LEN(periods); i++) {
		uint8_t *data = make_data(60000, periods[i]);

		for (enum deflate_window w = DEFLATE_512; w < DEFLATE_N_WINDOWS; w++) {
			struct buf packed = {0};
			int r = deflater_run(&d, w, 6, data, 60000, &packed);

			/* Noise shrinks by a few bytes whatever the window. */
			CHECK(r == 0 || r == DEFLATE_E_NOT_SMALLER);
			CHECK_EQ(r == 0 && packed.len < 30000, w - DEFLATE_512 >= i);
			buf_fini(&packed);
		}
		free(data);
	}
	deflater_fini(&d);
}

TEST(deflate_leaves_alone_what_would_not_shrink)
{
	static const size_t sizes[] = {0, 1, 2, 3, 10, 1000, 100000};
	struct deflater d = {0};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		uint8_t *noise = make_data(sizes[i], sizes[i]);
		struct buf out = {0};

		CHECK_EQ(deflater_run(&d, DEFLATE_32K, 9, noise, sizes[i], &out),
			 DEFLATE_E_NOT_SMALLER);
		CHECK_EQ(out.len, 0);
		buf_fini(&out);
		free(noise);
	}
	deflater_fini(&d);
}

TEST(deflate_messages_do_not_depend_on_each_other)
{
	struct buf first = {0}, again = {0}, other = {0};
	uint8_t *data = make_data(5000, 100);
	struct deflater d = {0};

	CHECK_EQ(deflater_run(&d, DEFLATE_32K, 6, data, 5000, &first), 0);
	CHECK_EQ(deflater_run(&d, DEFLATE_32K, 1, data, 5000, &other), 0);
	CHECK_EQ(deflater_run(&d, DEFLATE_32K, 6, data, 5000, &again), 0);
	CHECK_EQ(first.len, again.len);
	CHECK_MEM(first.data, again.data, first.len);
	CHECK(other.len != first.len || memcmp(other.data, first.data, first.len) != 0);
	buf_fini(&first);
	buf_fini(&again);
	buf_fini(&other);
	free(data);
	deflater_fini(&d);
}

/* ------------------------------------------------------------------ inflating */

/* Deflated by zlib with these flags, the tail cut off where there is one. */
static struct buf pack(const void *p, size_t n, int level, int bits, int flush)
{
	struct buf out = {0};
	z_stream zs = {0};

	CHECK_EQ(deflateInit2(&zs, level, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
	CHECK_EQ(buf_reserve(&out, deflateBound(&zs, (uLong)n) + 64, BUF_NO_LIMIT), 0);
	zs.next_in = (Bytef *)(uintptr_t)p;
	zs.avail_in = (uInt)n;
	zs.next_out = out.data;
	zs.avail_out = (uInt)out.cap;
	deflate(&zs, flush);
	CHECK_EQ(zs.avail_in, 0);
	out.len = zs.total_out;
	deflateEnd(&zs);
	if (flush == Z_SYNC_FLUSH)
		out.len -= 4;
	return out;
}

/* Runs to the end by budgets of @step; *@ret_calls counts them. */
static int run(struct inflater *z, const void *p, size_t n, size_t limit, size_t step,
	       size_t *ret_calls)
{
	int r;

	*ret_calls = 0;
	do {
		size_t budget = step;

		r = inflater_run(z, p, n, limit, &budget);
		(*ret_calls)++;
		CHECK(r != INFLATE_MORE || budget == 0);
		CHECK(inflater_output(z)->len <= limit + 1);
	} while (r == INFLATE_MORE);
	return r;
}

TEST(inflate_reads_what_zlib_writes)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 65536, 300000, 3 * MIB};
	static const int levels[] = {0, 1, 6, 9};
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(levels); i++) {
		size_t n = sizes[i % ARRAY_LEN(sizes)];
		uint8_t *data = make_data(n, 1000);
		struct buf packed =
			pack(data, n, levels[i / ARRAY_LEN(sizes)], 9 + (int)(i % 7), Z_SYNC_FLUSH);

		CHECK_EQ(run(z, packed.data, packed.len, n, ALL, &calls), 0);
		CHECK_EQ(inflater_output(z)->len, n);
		if (n)
			CHECK_MEM(inflater_output(z)->data, data, n);
		inflater_reset(z);
		CHECK_EQ(inflater_output(z)->len, 0);
		buf_fini(&packed);
		free(data);
	}
	inflater_free(z);
	CHECK_EQ(inflater_free(NULL), NULL);
}

TEST(inflate_stops_when_its_budget_is_used_up)
{
	static const size_t steps[] = {1, 7, 4096, 100000};
	uint8_t *data = make_data(50000, 500);
	struct buf packed = pack(data, 50000, 6, 15, Z_SYNC_FLUSH);
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		CHECK_EQ(run(z, packed.data, packed.len, 50000, steps[i], &calls), 0);
		CHECK_EQ(inflater_output(z)->len, 50000);
		CHECK_MEM(inflater_output(z)->data, data, 50000);
		CHECK(steps[i] > 4096 ? calls == 1 : calls > 1);
		inflater_reset(z);
	}
	inflater_free(z);
	buf_fini(&packed);
	free(data);
}

/* 10 MiB of nothing are 10 KiB; no call lets more out than its budget and one step. */
TEST(inflate_bounds_a_bomb_in_each_call)
{
	uint8_t *data = calloc(1, 10 * MIB);
	struct buf packed = pack(data, 10 * MIB, 9, 15, Z_SYNC_FLUSH);
	struct inflater *z = inflater_new();
	size_t before = 0;
	int r;

	CHECK(packed.len < 12000);
	do {
		size_t budget = 65536;

		r = inflater_run(z, packed.data, packed.len, MIB, &budget);
		CHECK(inflater_output(z)->len - before <= 2 * 65536);
		CHECK(inflater_output(z)->cap <= MIB + 1);
		before = inflater_output(z)->len;
	} while (r == INFLATE_MORE);
	CHECK_EQ(r, INFLATE_E_TOO_BIG);
	inflater_free(z);
	buf_fini(&packed);
	free(data);
}

TEST(inflate_keeps_to_its_limit)
{
	static const size_t sizes[] = {1, 4096, 65536, 100001};
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		size_t n = sizes[i];
		uint8_t *data = make_data(n, 3);
		struct buf packed = pack(data, n, 6, 15, Z_SYNC_FLUSH);

		CHECK_EQ(run(z, packed.data, packed.len, n - 1, ALL, &calls), INFLATE_E_TOO_BIG);
		inflater_reset(z);
		CHECK_EQ(run(z, packed.data, packed.len, n, ALL, &calls), 0);
		inflater_reset(z);
		CHECK_EQ(run(z, packed.data, packed.len, n + 1, ALL, &calls), 0);
		inflater_reset(z);
		buf_fini(&packed);
		free(data);
	}
	inflater_free(z);
}

/* Bytes of a compressed payload and what they stand for; NULL: corrupt. */
TEST(inflate_follows_the_examples_of_the_rfc)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *text;
	} cases[] = {
		/* RFC 7692 section 7.2.3: one block, no compression, BFINAL, two blocks, empty */
		{"\xf2\x48\xcd\xc9\xc9\x07\x00", 7, "Hello"},
		{"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 11, "Hello"},
		{"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8, "Hello"},
		{"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", 13, "Hello"},
		{"\x00", 1, ""},
		/* no bytes at all; BFINAL without the byte behind it; the tail left in */
		{"", 0, ""},
		{"\xf3\x48\xcd\xc9\xc9\x07\x00", 7, "Hello"},
		{"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x00", 12, "Hello"},
		{"\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 15, "HelloHello"},
		/* reserved block type, wrong complement, distance before the beginning */
		{"\x07", 1, NULL},
		{"\x00\x05\x00\xfb\xff\x48\x65\x6c\x6c\x6f\x00", 11, NULL},
		{"\x02\x02\x00", 3, NULL},
		/* cut off, in a block and in its length */
		{"\xf2\x48\xcd\xc9", 4, NULL},
		{"\x00\x05\x00", 3, NULL},
		{"\x00\x05\x00\xfa\xff\x48", 6, NULL},
		/* bytes that are no block behind a whole message */
		{"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x06", 12, NULL},
		{"\xf3\x48\xcd\xc9\xc9\x07\x00\x06", 8, NULL},
	};
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t step = 1; step < 40; step += 13) {
			int r = run(z, cases[i].bytes, cases[i].n, 100, step, &calls);

			if (cases[i].text) {
				CHECK_EQ(r, 0);
				CHECK_EQ(inflater_output(z)->len, strlen(cases[i].text));
				if (*cases[i].text)
					CHECK_MEM(inflater_output(z)->data, cases[i].text,
						  strlen(cases[i].text));
			} else {
				CHECK_EQ(r, INFLATE_E_CORRUPT);
			}
			inflater_reset(z);
		}
	}
	inflater_free(z);
}

/*
 * A message that lost its end is never taken for a shorter one, unless it lost only whole
 * blocks.
 */
TEST(inflate_refuses_messages_that_are_cut_off)
{
	uint8_t *data = make_data(2000, 700);
	struct buf packed = pack(data, 2000, 6, 15, Z_SYNC_FLUSH);
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t n = 1; n < packed.len; n++) {
		CHECK_EQ(run(z, packed.data, n, 4000, ALL, &calls), INFLATE_E_CORRUPT);
		inflater_reset(z);
	}
	CHECK_EQ(run(z, packed.data, packed.len, 4000, ALL, &calls), 0);
	inflater_free(z);
	buf_fini(&packed);
	free(data);
}

/* Thousands of streams that end at once: what they cost is counted, though nothing comes out. */
TEST(inflate_counts_streams_that_bring_nothing)
{
	uint8_t bytes[20000];
	struct inflater *z = inflater_new();
	size_t calls;

	for (size_t i = 0; i < sizeof(bytes); i += 2)
		memcpy(bytes + i, "\x03\x00", 2);
	CHECK_EQ(run(z, bytes, sizeof(bytes), 10, 65536, &calls), 0);
	CHECK_EQ(inflater_output(z)->len, 0);
	CHECK(calls >= 50);
	inflater_free(z);
}

TEST(inflate_gives_back_what_a_large_message_made_grow)
{
	uint8_t *data = make_data(3 * MIB, 100);
	struct buf packed = pack(data, 3 * MIB, 6, 15, Z_SYNC_FLUSH);
	struct inflater *z = inflater_new();
	size_t calls;

	CHECK_EQ(run(z, packed.data, packed.len, 4 * MIB, ALL, &calls), 0);
	CHECK(inflater_output(z)->cap >= 3 * MIB);
	inflater_reset(z);
	CHECK_EQ(inflater_output(z)->cap, 0);
	inflater_free(z);
	buf_fini(&packed);
	free(data);
}

TEST(deflate_survives_the_lack_of_memory)
{
	uint8_t *data = make_data(20000, 300);
	uint64_t n = 0;
	int r = -ENOMEM;

	while (r) {
		struct deflater d = {0};
		struct buf packed = {0};

		fault_fail(FAULT_ALLOC, ++n, 1, ENOMEM);
		r = deflater_run(&d, DEFLATE_4K, 6, data, 20000, &packed);
		(void)fault_end(FAULT_ALLOC);
		CHECK(r == 0 || r == -ENOMEM);
		CHECK_EQ(deflater_run(&d, DEFLATE_4K, 6, data, 20000, &packed), 0);
		deflater_fini(&d);
		buf_fini(&packed);
	}
	CHECK(n > 2); /* the stream and the output, at least */
	free(data);
}

TEST(inflate_survives_the_lack_of_memory)
{
	uint8_t *data = make_data(20000, 300);
	struct buf packed = pack(data, 20000, 6, 15, Z_SYNC_FLUSH);
	uint64_t n = 0;
	int r = -ENOMEM;
	size_t calls;

	while (r) {
		struct inflater *z;

		fault_fail(FAULT_ALLOC, ++n, 1, ENOMEM);
		z = inflater_new();
		r = z ? run(z, packed.data, packed.len, 20000, ALL, &calls) : -ENOMEM;
		(void)fault_end(FAULT_ALLOC);
		CHECK(r == 0 || r == -ENOMEM);
		if (z) {
			inflater_reset(z);
			CHECK_EQ(run(z, packed.data, packed.len, 20000, ALL, &calls), 0);
			CHECK_MEM(inflater_output(z)->data, data, 20000);
		}
		inflater_free(z);
	}
	CHECK(n > 2);
	buf_fini(&packed);
	free(data);
}

/* 8 KiB go in at a time; it comes to the same bytes, and ends where it can't get smaller. */
TEST(deflate_in_steps_comes_to_the_same)
{
	static const size_t sizes[] = {2, 100, 8192, 8193, 100000};
	uint8_t *data = make_data(100000, 7);
	struct deflater d = {0};
	struct deflating k[2];
	uint64_t random = 1;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf whole = {0}, out = {0}, left_alone = {0};
		int r, expected = deflater_run(&d, DEFLATE_4K, 6, data, sizes[i], &whole);
		unsigned calls = 0;
		size_t budget;

		CHECK_EQ(buf_append(&out, "head", 4, BUF_NO_LIMIT), 0);
		deflating_init(&k[0], &d, DEFLATE_4K, 6, &out);
		deflating_init(&k[1], &d, DEFLATE_4K, 6, &left_alone);
		do {
			budget = 1;
			r = deflating_run(&k[0], data, sizes[i], &budget);
			budget = 1;
			if (calls++ == 0)
				CHECK(deflating_run(&k[1], data + 1, sizes[i] - 1, &budget) >= 0);
		} while (r == DEFLATE_MORE);
		CHECK_EQ(r, expected);
		CHECK_EQ(calls, (sizes[i] + 8191) / 8192);
		CHECK_EQ(out.len, 4 + whole.len);
		CHECK_MEM(out.data, "head", 4);
		if (r == 0)
			CHECK_MEM(out.data + 4, whole.data, whole.len);
		deflating_fini(&k[1]);
		deflating_fini(&k[0]);
		buf_fini(&left_alone);
		buf_fini(&whole);
		buf_fini(&out);
	}
	for (size_t i = 0; i < 100000; i++)
		data[i] = (uint8_t)(test_random(&random) >> 56);
	struct buf out = {0};
	size_t budget = SIZE_MAX;

	deflating_init(&k[0], &d, DEFLATE_32K, 6, &out);
	CHECK_EQ(deflating_run(&k[0], data, 100000, &budget), DEFLATE_E_NOT_SMALLER);
	CHECK_EQ(out.len, 0);
	deflating_fini(&k[0]);
	buf_fini(&out);
	free(data);
	deflater_fini(&d);
}
