/* SPDX-License-Identifier: MIT */
/*
 * Compression. Input: a byte of which method (any number: it comes from the wire), a
 * byte of which limit (in steps of 64 bytes), the payload.
 *
 * The payload is unpacked, which never makes more than the limit and on failure leaves
 * what was there; a limit that is met exactly is enough, one byte less is not. In steps
 * all of it comes to the same. Then it is packed by every method and unpacked again, all with the
 * same contexts, as in a worker: one that failed must not spoil the next.
 */
#include "fuzz.h"

#include "wire/zip.h"

#define BEFORE "before"
#define N_BEFORE (sizeof(BEFORE) - 1)
#define MOST_MEMORY ((size_t)256 * 1024) /* that a limit of at most 16 KiB may lead to */

static struct zip zip;

static void start(struct buf *out)
{
	*out = (struct buf){0};
	fuzz_append(out, BEFORE, N_BEFORE);
}

static int unpack(enum zip_kind kind, const uint8_t *p, size_t n, size_t limit, struct buf *out)
{
	int r;

	start(out);
	r = zip_unpack(&zip, kind, p, n, limit, out);
	WB_ASSERT(r == 0 || r == ZIP_E_CORRUPT || r == ZIP_E_TOO_BIG);
	WB_ASSERT(out->len >= N_BEFORE && memcmp(out->data, BEFORE, N_BEFORE) == 0);
	WB_ASSERT(r == 0 ? out->len - N_BEFORE <= limit : out->len == N_BEFORE);
	WB_ASSERT(out->cap <= MAX(MOST_MEMORY, 4 * limit));
	return r;
}

/* In steps of any budget, from bytes that move between them, it comes to the same. */
static void check_steps(enum zip_kind kind, const uint8_t *p, size_t n, size_t limit, int expected,
			const struct buf *whole)
{
	struct zip_unpacking u;
	struct buf out;
	int r = ZIP_MORE;

	start(&out);
	zip_unpacking_init(&u, &zip, kind, &out);
	for (size_t turn = 1; r == ZIP_MORE; turn++) {
		uint8_t *moved = fuzz_copy(p, n);
		size_t budget = turn * 7 % 1000;

		r = zip_unpacking_run(&u, moved, n, limit, &budget);
		WB_ASSERT(out.len - N_BEFORE <= limit);
		free(moved);
	}
	zip_unpacking_fini(&u);
	WB_ASSERT(r == expected && out.len == whole->len);
	WB_ASSERT(memcmp(out.data, whole->data, out.len) == 0);
	buf_fini(&out);
}

static void check_unpack(enum zip_kind kind, const uint8_t *p, size_t n, size_t limit)
{
	struct buf out, exact;
	size_t len;
	int r = unpack(kind, p, n, limit, &out);

	len = out.len - N_BEFORE;
	check_steps(kind, p, n, limit, r, &out);
	if (r == 0) {
		r = unpack(kind, p, n, len, &exact);
		WB_ASSERT(r == 0 && exact.len == out.len);
		WB_ASSERT(memcmp(exact.data, out.data, out.len) == 0);
		buf_fini(&exact);
	}
	if (r == 0 && len > 0) {
		r = unpack(kind, p, n, len - 1, &exact);
		WB_ASSERT(r == ZIP_E_TOO_BIG);
		buf_fini(&exact);
	}
	buf_fini(&out);
}

static void check_same(enum zip_kind kind, const struct buf *packed, const uint8_t *p, size_t n)
{
	struct buf out;
	int r = unpack(kind, packed->data + N_BEFORE, packed->len - N_BEFORE, n, &out);

	WB_ASSERT(r == 0 && out.len == N_BEFORE + n);
	WB_ASSERT(n == 0 || memcmp(out.data + N_BEFORE, p, n) == 0);
	buf_fini(&out);
}

static void check_pack_in_steps(const uint8_t *p, size_t n, int level)
{
	struct zip_packing k;
	struct buf packed;
	int r = ZIP_MORE;

	start(&packed);
	zip_packing_init(&k, &zip, level, &packed);
	while (r == ZIP_MORE) {
		size_t budget = 1;

		r = zip_packing_run(&k, p, n, &budget);
	}
	zip_packing_fini(&k);
	WB_ASSERT(r == 0 || r == ZIP_E_NOT_SMALLER);
	WB_ASSERT(r == 0 ? packed.len - N_BEFORE < n : packed.len == N_BEFORE);
	if (r == 0)
		check_same(ZIP_ZSTD, &packed, p, n);
	buf_fini(&packed);
}

static void check_pack(const uint8_t *p, size_t n, int level)
{
	struct buf packed;
	int r;

	start(&packed);
	r = zip_pack(&zip, level, p, n, &packed);
	WB_ASSERT(r == 0 || r == ZIP_E_NOT_SMALLER);
	WB_ASSERT(r == 0 ? packed.len - N_BEFORE < n : packed.len == N_BEFORE);
	if (r == 0)
		check_same(ZIP_ZSTD, &packed, p, n);
	buf_fini(&packed);
	check_pack_in_steps(p, n, level);
	for (enum zip_kind kind = ZIP_NONE; kind < ZIP_N_KINDS; kind++) {
		start(&packed);
		r = zip_pack_kind(&zip, kind, level, p, n, &packed);
		WB_ASSERT(r == 0);
		check_same(kind, &packed, p, n);
		buf_fini(&packed);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	enum zip_kind kind = fuzz_byte(&in);
	size_t limit = (size_t)fuzz_byte(&in) * 64;
	uint8_t *p = fuzz_copy(in.p, in.n);

	check_unpack(kind, p, in.n, limit);
	check_pack(p, in.n, (int)(in.n % 6));
	free(p);
	zip_fini(&zip);
	return 0;
}
