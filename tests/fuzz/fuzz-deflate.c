/* SPDX-License-Identifier: MIT */
/*
 * permessage-deflate. Input: a byte of which half; then
 *
 *   even: lines that stand in Sec-WebSocket-Extensions. What is answered is itself an
 *         offer that gets the same answer.
 *   odd:  a byte of which limit (in steps of 64 bytes), one of how much work at a time,
 *         and a compressed payload. It inflates to the same bytes in large and small
 *         steps, within the limit and no further; a limit that is met exactly is enough,
 *         one byte less is not. Then it is deflated for each window, and zlib with just
 *         that window reads it.
 *
 * Streams are kept between the runs of one input, as in a worker: one that failed must
 * not spoil the next.
 */
#include "fuzz.h"

#include <zlib.h>

#include "wire/deflate.h"

#define OURS "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
#define MAX_LINES 8
#define MOST_MEMORY (256 * 64 + 1) /* that a limit of at most 255 * 64 may lead to */

static struct inflater *inflater;
static struct deflater deflater;

/* ---------------------------------------------------------------- negotiation */

static int negotiate(const char *p, size_t n, char *answer, enum deflate_window *window)
{
	struct http_headers h = {0};

	while (h.count < MAX_LINES) {
		const char *end = n ? memchr(p, '\n', n) : NULL;
		size_t len = end ? (size_t)(end - p) : n;

		h.at[h.count++] = (struct http_header){.name = {"Sec-WebSocket-Extensions", 24},
						       .value = {p, len}};
		if (!end)
			break;
		p = end + 1;
		n -= len + 1;
	}
	return deflate_negotiate(&h, answer, window);
}

static void check_negotiation(const uint8_t *p, size_t n)
{
	char answer[DEFLATE_ANSWER_MAX], again[DEFLATE_ANSWER_MAX];
	enum deflate_window window, same;
	char *copy = fuzz_copy(p, n);
	int r = negotiate(copy, n, answer, &window);

	free(copy);
	WB_ASSERT(r == 0 || r == 400);
	WB_ASSERT(window < DEFLATE_N_WINDOWS && memchr(answer, '\0', sizeof(answer)));
	WB_ASSERT((window == DEFLATE_NONE) == (answer[0] == '\0'));
	WB_ASSERT(r == 0 || window == DEFLATE_NONE);
	if (window == DEFLATE_NONE)
		return;
	WB_ASSERT(strncmp(answer, OURS, strlen(OURS)) == 0);
	r = negotiate(answer, strlen(answer), again, &same);
	WB_ASSERT(r == 0 && same == window && strcmp(answer, again) == 0);
}

/* ------------------------------------------------------------------ inflating */

/* The result; what came out of it is in inflater_output() until the next call. */
static int run(const uint8_t *p, size_t n, size_t limit, size_t step)
{
	struct buf *out = inflater_output(inflater);
	size_t calls = 0;
	int r;

	inflater_reset(inflater);
	do {
		size_t budget = step;

		r = inflater_run(inflater, p, n, limit, &budget);
		WB_ASSERT(r != INFLATE_MORE || budget == 0);
		WB_ASSERT(out->len <= limit + 1 && out->cap <= MOST_MEMORY);
		/* Each call takes a byte, brings one, or finds out that there is none. */
		WB_ASSERT(++calls <= 3 * (n + limit + 8));
	} while (r == INFLATE_MORE);
	WB_ASSERT(r == 0 || r == INFLATE_E_CORRUPT || r == INFLATE_E_TOO_BIG);
	WB_ASSERT(r != 0 || out->len <= limit);
	WB_ASSERT((r == INFLATE_E_TOO_BIG) == (out->len > limit));
	return r;
}

static void check_inflate(const uint8_t *p, size_t n, size_t limit, size_t step)
{
	int r = run(p, n, limit, SIZE_MAX);
	struct buf *out = inflater_output(inflater);
	struct buf whole = {0};
	int again;

	fuzz_append(&whole, out->data, out->len);
	again = run(p, n, limit, step);
	WB_ASSERT(again == r);
	if (r == 0) {
		WB_ASSERT(out->len == whole.len);
		WB_ASSERT(out->len == 0 || memcmp(out->data, whole.data, out->len) == 0);
		again = run(p, n, whole.len, SIZE_MAX);
		WB_ASSERT(again == 0 && out->len == whole.len);
		again = whole.len ? run(p, n, whole.len - 1, step) : INFLATE_E_TOO_BIG;
		WB_ASSERT(again == INFLATE_E_TOO_BIG);
	}
	buf_fini(&whole);
}

/* ------------------------------------------------------------------ deflating */

static void check_with_zlib(const struct buf *packed, int bits, const uint8_t *p, size_t n)
{
	uint8_t *out = malloc(n + 1), *in = malloc(packed->len + 4);
	z_stream zs = {0};
	int r;

	WB_ASSERT(out && in);
	memcpy(in, packed->data, packed->len);
	memcpy(in + packed->len, "\x00\x00\xff\xff", 4);
	r = inflateInit2(&zs, -bits);
	WB_ASSERT(r == Z_OK);
	zs.next_in = in;
	zs.avail_in = (uInt)(packed->len + 4);
	zs.next_out = out;
	zs.avail_out = (uInt)(n + 1);
	r = inflate(&zs, Z_SYNC_FLUSH);
	WB_ASSERT(r == Z_OK && zs.avail_in == 0 && zs.total_out == n);
	WB_ASSERT(memcmp(out, p, n) == 0);
	inflateEnd(&zs);
	free(in);
	free(out);
}

static void check_deflate(const uint8_t *p, size_t n)
{
	static const int bits[DEFLATE_N_WINDOWS] = {0, 9, 12, 15};

	for (enum deflate_window w = DEFLATE_512; w < DEFLATE_N_WINDOWS; w++) {
		struct buf packed = {0};
		int r = deflater_run(&deflater, w, 1 + (int)(n % 9), p, n, &packed);

		WB_ASSERT(r == 0 || r == DEFLATE_E_NOT_SMALLER);
		WB_ASSERT(r == 0 ? packed.len < n : packed.len == 0);
		if (r == 0) {
			check_with_zlib(&packed, bits[w], p, n);
			r = run(packed.data, packed.len, n, SIZE_MAX);
			WB_ASSERT(r == 0 && inflater_output(inflater)->len == n);
		}
		buf_fini(&packed);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	size_t limit, step;
	uint8_t *p;

	if (fuzz_byte(&in) % 2 == 0) {
		check_negotiation(in.p, in.n);
		return 0;
	}
	limit = (size_t)fuzz_byte(&in) * 64;
	step = 1 + (size_t)fuzz_byte(&in) * 4;
	p = fuzz_copy(in.p, in.n);
	inflater = inflater_new();
	WB_ASSERT(inflater);
	check_inflate(p, in.n, limit, step);
	check_deflate(p, in.n);
	inflater_free(inflater);
	deflater_fini(&deflater);
	free(p);
	return 0;
}
