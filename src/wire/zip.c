/* SPDX-License-Identifier: MIT */
#include "wire/zip.h"

#include <errno.h>
#include <limits.h>
#include <lz4frame.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "containers/buf.h"

#define FIRST_STEP_BYTES ((size_t)4096)
#define INPUT_STEP ((size_t)2048)   /* most bytes given to a library at once, to unpack … */
#define OUTPUT_STEP ((size_t)16384) /* … and taken from it */
#define PACK_STEP ((size_t)16384)   /* likewise to be packed */
#define MEMBER_COST ((size_t)512)   /* what another frame or member counts as [bytes] */
#define BELIEVED_RATIO 64           /* of a claimed size to the input that claims it */
#define GZIP_WINDOW (15 + 16)       /* zlib: largest window, gzip header and trailer */
#define ZSTD_WINDOW_LOG_MIN 23      /* RFC 8878, 3.1.1.1.2: what decoders should support */
#define ZSTD_WINDOW_LOG_MAX 27

/* What goes into and comes out of one call of a library. */
struct step {
	const uint8_t *in;
	size_t in_bytes; /* then: those that are left */
	uint8_t *out;
	size_t out_bytes; /* likewise */
};

void zip_init(struct zip *z)
{
	*z = (struct zip){0};
}

static void gzip_free(struct z_stream_s *zs)
{
	if (zs)
		(void)inflateEnd(zs); /* cannot fail for a stream that was set up */
	free(zs);
}

void zip_trim(struct zip *z)
{
	/* The libraries' own functions take NULL; zlib's takes a stream that was set up. */
	ZSTD_freeCCtx(z->zstd_out);
	ZSTD_freeDCtx(z->zstd_in);
	LZ4F_freeDecompressionContext(z->lz4_in);
	gzip_free(z->gzip_in);
	zip_init(z);
}

void zip_fini(struct zip *z)
{
	if (z)
		zip_trim(z);
}

/* ---------------------------------------------------------------------------- zstd */

static int zstd_error(size_t code)
{
	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	case ZSTD_error_frameParameter_windowTooLarge:
		return ZIP_E_TOO_BIG;
	default:
		return ZIP_E_CORRUPT;
	}
}

static int zstd_pack_into(struct zip *z, int level, const void *p, size_t n, size_t room,
			  struct buf *out)
{
	size_t packed;

	/* Setting one up costs more than packing a small message: it stays for the next one. */
	if (!z->zstd_out)
		z->zstd_out = ZSTD_createCCtx();
	if (!z->zstd_out || buf_reserve(out, room, BUF_NO_LIMIT) < 0)
		return -ENOMEM;
	packed = ZSTD_compressCCtx(z->zstd_out, out->data + out->len, room, p, n,
				   MIN(MAX(level, 1), 19));
	/* Only room can be lacking: the caller gave as much as the result may have. */
	if (ZSTD_isError(packed))
		return ZSTD_getErrorCode(packed) == ZSTD_error_memory_allocation
			       ? -ENOMEM
			       : ZIP_E_NOT_SMALLER;
	out->len += packed;
	return 0;
}

int zip_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	/* One byte less than it is now: with no more room than that zstd gives up early. */
	if (n < 2)
		return ZIP_E_NOT_SMALLER;
	return zstd_pack_into(z, level, p, n, n - 1, out);
}

static int zstd_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	return zstd_pack_into(z, level, p, n, ZSTD_compressBound(n), out);
}

/* ---------------------------------------------------------------------- gzip and lz4 */

/* For clients and tests alone: a stream for each payload is good enough. */
static int gzip_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	z_stream zs = {.next_in = (Bytef *)(uintptr_t)p, .avail_in = (uInt)n};
	size_t room;
	int r;

	(void)z;
	if (n > INT_MAX || deflateInit2(&zs, MIN(MAX(level, 1), 9), Z_DEFLATED, GZIP_WINDOW, 8,
					Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	/* With that much room one call does for all of it. */
	room = deflateBound(&zs, (uLong)n);
	if (buf_reserve(out, room, BUF_NO_LIMIT) < 0) {
		(void)deflateEnd(&zs);
		return -ENOMEM;
	}
	zs.next_out = out->data + out->len;
	zs.avail_out = (uInt)room;
	r = deflate(&zs, Z_FINISH);
	if (r == Z_STREAM_END)
		out->len += zs.total_out;
	(void)deflateEnd(&zs);
	return r == Z_STREAM_END ? 0 : -ENOMEM;
}

static int lz4_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	/* As lz4(1) makes them: with size and checksum. */
	const LZ4F_preferences_t prefs = {
		.frameInfo = {.contentSize = n, .contentChecksumFlag = LZ4F_contentChecksumEnabled},
		.compressionLevel = MIN(MAX(level, 1), LZ4F_compressionLevel_max()),
	};
	size_t room = LZ4F_compressFrameBound(n, &prefs);
	size_t packed;

	(void)z;
	if (buf_reserve(out, room, BUF_NO_LIMIT) < 0)
		return -ENOMEM;
	packed = LZ4F_compressFrame(out->data + out->len, room, p, n, &prefs);
	if (LZ4F_isError(packed))
		return -ENOMEM;
	out->len += packed;
	return 0;
}

/* A frame may want a window as large as what may come out of it, but need not be allowed more. */
static int zstd_window_log(size_t limit)
{
	int log = ZSTD_WINDOW_LOG_MIN;

	while (log < ZSTD_WINDOW_LOG_MAX && ((size_t)1 << log) < limit)
		log++;
	return log;
}

/* What a frame claims to hold is made room for at once, where the claim is no lie worth telling. */
static int zstd_believe_size(struct zip_unpacking *u, const void *p, size_t n, size_t limit)
{
	unsigned long long claimed = ZSTD_getFrameContentSize(p, n);

	if (claimed == ZSTD_CONTENTSIZE_UNKNOWN || claimed == ZSTD_CONTENTSIZE_ERROR ||
	    claimed == 0 || claimed > limit || claimed / BELIEVED_RATIO > n)
		return 0;
	return buf_reserve(u->out, (size_t)claimed, BUF_NO_LIMIT);
}

static int zstd_begin(struct zip_unpacking *u, const void *p, size_t n, size_t limit)
{
	u->zstd = u->zip->zstd_in ? TAKE_PTR(u->zip->zstd_in) : ZSTD_createDCtx();
	if (!u->zstd)
		return -ENOMEM;
	(void)ZSTD_DCtx_reset(u->zstd, ZSTD_reset_session_only);
	(void)ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, zstd_window_log(limit));
	return zstd_believe_size(u, p, n, limit);
}

static int zstd_step(struct zip_unpacking *u, struct step *s)
{
	ZSTD_inBuffer in = {s->in, s->in_bytes, 0};
	ZSTD_outBuffer out = {s->out, s->out_bytes, 0};
	size_t left = ZSTD_decompressStream(u->zstd, &out, &in);

	if (ZSTD_isError(left))
		return zstd_error(left);
	s->in_bytes -= in.pos;
	s->out_bytes -= out.pos;
	u->is_whole = left == 0;
	return 0;
}

static void zstd_end(struct zip_unpacking *u)
{
	if (u->zip->zstd_in)
		ZSTD_freeDCtx(u->zstd);
	else
		u->zip->zstd_in = u->zstd;
}

static int gzip_begin(struct zip_unpacking *u, const void *p, size_t n, size_t limit)
{
	(void)p;
	(void)n;
	(void)limit;
	u->gzip = TAKE_PTR(u->zip->gzip_in);
	if (u->gzip)
		return inflateReset(u->gzip) == Z_OK ? 0 : -ENOMEM;
	u->gzip = calloc(1, sizeof(*u->gzip));
	if (!u->gzip)
		return -ENOMEM;
	if (inflateInit2(u->gzip, GZIP_WINDOW) == Z_OK)
		return 0;
	free(u->gzip);
	u->gzip = NULL;
	return -ENOMEM;
}

static int gzip_step(struct zip_unpacking *u, struct step *s)
{
	int r;

	if (u->is_whole)
		(void)inflateReset(
			u->gzip); /* the next member; cannot fail for one that was set up */
	u->gzip->next_in = (Bytef *)(uintptr_t)s->in;
	u->gzip->avail_in = (uInt)s->in_bytes;
	u->gzip->next_out = s->out;
	u->gzip->avail_out = (uInt)s->out_bytes;
	r = inflate(u->gzip, Z_NO_FLUSH);
	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	if (r != Z_OK && r != Z_STREAM_END)
		return ZIP_E_CORRUPT;
	s->in_bytes = u->gzip->avail_in;
	s->out_bytes = u->gzip->avail_out;
	u->is_whole = r == Z_STREAM_END;
	return 0;
}

static void gzip_end(struct zip_unpacking *u)
{
	if (u->zip->gzip_in)
		gzip_free(u->gzip);
	else
		u->zip->gzip_in = u->gzip;
}

/* lz4 1.9 has no public function that tells the number of an error. */
static int lz4_error(size_t code)
{
	return strcmp(LZ4F_getErrorName(code), "ERROR_allocation_failed") == 0 ? -ENOMEM
									       : ZIP_E_CORRUPT;
}

static int lz4_begin(struct zip_unpacking *u, const void *p, size_t n, size_t limit)
{
	(void)p;
	(void)n;
	(void)limit;
	u->lz4 = TAKE_PTR(u->zip->lz4_in);
	if (!u->lz4 && LZ4F_isError(LZ4F_createDecompressionContext(&u->lz4, LZ4F_VERSION)))
		return -ENOMEM;
	LZ4F_resetDecompressionContext(u->lz4);
	return 0;
}

static int lz4_step(struct zip_unpacking *u, struct step *s)
{
	size_t used = s->in_bytes, came = s->out_bytes;
	size_t left = LZ4F_decompress(u->lz4, s->out, &came, s->in, &used, NULL);

	if (LZ4F_isError(left))
		return lz4_error(left);
	s->in_bytes -= used;
	s->out_bytes -= came;
	u->is_whole = left == 0;
	return 0;
}

static void lz4_end(struct zip_unpacking *u)
{
	if (u->zip->lz4_in)
		LZ4F_freeDecompressionContext(u->lz4);
	else
		u->zip->lz4_in = u->lz4;
}

static int none_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	(void)z;
	(void)level;
	return buf_append(out, p, n, BUF_NO_LIMIT);
}

static int none_begin(struct zip_unpacking *u, const void *p, size_t n, size_t limit)
{
	(void)u;
	(void)p;
	(void)n;
	(void)limit;
	return 0;
}

static int none_step(struct zip_unpacking *u, struct step *s)
{
	size_t n = MIN(s->in_bytes, s->out_bytes);

	memcpy(s->out, s->in, n);
	s->in_bytes -= n;
	s->out_bytes -= n;
	u->is_whole = true; /* wherever it ends */
	return 0;
}

static void none_end(struct zip_unpacking *u)
{
	(void)u;
}

/* ------------------------------------------------------------------------- choosing */

struct zip_codec {
	const char *name;
	int (*pack)(struct zip *z, int level, const void *p, size_t n, struct buf *out);
	int (*begin)(struct zip_unpacking *u, const void *p, size_t n, size_t limit);
	int (*step)(struct zip_unpacking *u, struct step *s);
	void (*end)(struct zip_unpacking *u);
};

#define CODEC_ROW(NAME, name, number) \
	[ZIP_##NAME] = {#name, name##_pack, name##_begin, name##_step, name##_end},
static const struct zip_codec codecs[ZIP_N_KINDS] = {
	[ZIP_NONE] = {"", none_pack, none_begin, none_step, none_end}, ZIP_CODECS(CODEC_ROW)};

/* NULL for a number that no codec has: it may come from the wire. */
static const struct zip_codec *codec_find(unsigned kind)
{
	return kind < ZIP_N_KINDS ? &codecs[kind] : NULL;
}

const char *zip_kind_name(unsigned kind)
{
	const struct zip_codec *c = codec_find(kind);

	return c ? c->name : NULL;
}

int zip_pack_kind(struct zip *z, enum zip_kind kind, int level, const void *p, size_t n,
		  struct buf *out)
{
	const struct zip_codec *c = codec_find(kind);

	return c ? c->pack(z, level, p, n, out) : ZIP_E_CORRUPT;
}

/* ------------------------------------------------------------------------ unpacking */

void zip_unpacking_init(struct zip_unpacking *u, struct zip *z, unsigned kind, struct buf *out)
{
	*u = (struct zip_unpacking){
		.zip = z, .codec = codec_find(kind), .out = out, .start = out->len};
}

void zip_unpacking_fini(struct zip_unpacking *u)
{
	/* All of the union is one pointer: nothing was begun while it is NULL. */
	if (u->codec && u->zstd)
		u->codec->end(u);
	*u = (struct zip_unpacking){0};
}

/* Room for s->out_bytes, or what there is; for a byte at least. One past @limit is made, to tell
 * reaching it from passing it. */
static int unpacking_make_room(struct zip_unpacking *u, size_t limit, struct step *s)
{
	struct buf *out = u->out;
	size_t came = out->len - u->start;
	size_t left = limit - came < SIZE_MAX ? limit - came + 1 : SIZE_MAX;
	size_t more = MIN(MAX(came, FIRST_STEP_BYTES), left);

	/* The buffer doubles, but not past what may come out of it. */
	if (out->len == out->cap &&
	    buf_reserve(out, more, left < SIZE_MAX - out->len ? out->len + left : BUF_NO_LIMIT))
		return -ENOMEM;
	s->out = out->data + out->len;
	left = MIN(left, out->cap - out->len);
	s->out_bytes = MIN(left, s->out_bytes);
	return 0;
}

/* One call of the library. Return: 0 | -ENOMEM | ZIP_E_CORRUPT | ZIP_E_TOO_BIG. */
static int unpacking_step(struct zip_unpacking *u, const uint8_t *p, size_t n, size_t limit,
			  size_t *budget)
{
	struct step s = {
		.in = p + u->at,
		.in_bytes = MIN(n - u->at, INPUT_STEP),
		.out_bytes = MIN(*budget, OUTPUT_STEP),
	};
	bool was_whole = u->is_whole;
	size_t used = s.in_bytes, came;
	int r = unpacking_make_room(u, limit, &s);

	if (r)
		return r;
	came = s.out_bytes;
	r = u->codec->step(u, &s);
	if (r)
		return r;
	used -= s.in_bytes;
	came -= s.out_bytes;
	u->at += used;
	u->out->len += came;
	*budget -= MIN(used + came + (was_whole ? MEMBER_COST : 0), *budget);
	if (u->out->len - u->start > limit)
		return ZIP_E_TOO_BIG;
	/* It waits for bytes that don't follow. */
	if (!u->is_whole && u->at == n && s.out_bytes > 0)
		return ZIP_E_CORRUPT;
	/*
	 * It gets on with neither side; but a frame may end so, whose last byte was taken before.
	 */
	return used + came > 0 || (u->is_whole && !was_whole) ? 0 : ZIP_E_CORRUPT;
}

int zip_unpacking_run(struct zip_unpacking *u, const void *p, size_t n, size_t limit,
		      size_t *budget)
{
	int r = 0;

	if (!u->codec)
		return ZIP_E_CORRUPT;
	if (n > 0 && u->at == 0 && !u->zstd)
		r = u->codec->begin(u, p, n, limit);
	while (r == 0 && n > 0 && (!u->is_whole || u->at < n)) {
		if (*budget == 0)
			return ZIP_MORE;
		r = unpacking_step(u, p, n, limit, budget);
	}
	/* What came out before the flaw is none of the caller's business. */
	if (r)
		u->out->len = u->start;
	return r;
}

int zip_unpack(struct zip *z, enum zip_kind kind, const void *p, size_t n, size_t limit,
	       struct buf *out)
{
	size_t budget = SIZE_MAX; /* that is never used up */
	struct zip_unpacking u;
	int r;

	zip_unpacking_init(&u, z, kind, out);
	r = zip_unpacking_run(&u, p, n, limit, &budget);
	zip_unpacking_fini(&u);
	return r;
}

/* -------------------------------------------------------------------------- packing */

void zip_packing_init(struct zip_packing *k, struct zip *z, int level, struct buf *out)
{
	*k = (struct zip_packing){.zip = z, .level = level, .out = out, .start = out->len};
}

void zip_packing_fini(struct zip_packing *k)
{
	if (k->zstd && k->zip->zstd_out)
		ZSTD_freeCCtx(k->zstd);
	else if (k->zstd)
		k->zip->zstd_out = k->zstd;
	*k = (struct zip_packing){0};
}

static int packing_begin(struct zip_packing *k, size_t n)
{
	k->zstd = k->zip->zstd_out ? TAKE_PTR(k->zip->zstd_out) : ZSTD_createCCtx();
	if (!k->zstd || buf_reserve(k->out, n - 1, BUF_NO_LIMIT))
		return -ENOMEM;
	(void)ZSTD_CCtx_reset(k->zstd, ZSTD_reset_session_and_parameters);
	(void)ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_compressionLevel, MIN(MAX(k->level, 1), 19));
	(void)ZSTD_CCtx_setPledgedSrcSize(k->zstd, n);
	return 0;
}

/* One step of input. Each but the last ends a block: else zstd would do 128 KiB at once. */
static int packing_step(struct zip_packing *k, const uint8_t *p, size_t n)
{
	size_t room = k->start + (n - 1) - k->out->len;
	ZSTD_inBuffer in = {p + k->at, MIN(n - k->at, PACK_STEP), 0};
	ZSTD_outBuffer out = {k->out->data + k->out->len, room, 0};
	ZSTD_EndDirective end = k->at + in.size == n ? ZSTD_e_end : ZSTD_e_flush;
	size_t left = ZSTD_compressStream2(k->zstd, &out, &in, end);

	if (ZSTD_isError(left))
		return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? -ENOMEM
									       : ZIP_E_NOT_SMALLER;
	k->out->len += out.pos;
	k->at += in.pos;
	/* Something is left to come out, and there is no room for it. */
	return left ? ZIP_E_NOT_SMALLER : 0;
}

int zip_packing_run(struct zip_packing *k, const void *p, size_t n, size_t *budget)
{
	int r = 0;

	if (n < 2)
		return ZIP_E_NOT_SMALLER;
	if (!k->zstd)
		r = packing_begin(k, n);
	while (r == 0 && k->at < n) {
		size_t before = k->at;

		if (*budget == 0)
			return ZIP_MORE;
		r = packing_step(k, p, n);
		*budget -= MIN(k->at - before, *budget);
	}
	if (r)
		k->out->len = k->start;
	return r;
}
