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
#define BELIEVED_RATIO 64      /* of a claimed size to the input that claims it */
#define GZIP_WINDOW (15 + 16)  /* zlib: largest window, gzip header and trailer */
#define ZSTD_WINDOW_LOG_MIN 23 /* RFC 8878, 3.1.1.1.2: what decoders should support */
#define ZSTD_WINDOW_LOG_MAX 27

/* -------------------------------------------------------------------------- output */

/* What one unpacking appends: from `start` of the buffer on, at most `limit` bytes. */
struct sink {
	struct buf *buf;
	size_t start;
	size_t limit;
};

static size_t sink_len(const struct sink *s)
{
	return s->buf->len - s->start;
}

/* One byte past the limit is allowed for, so that reaching it and passing it can be told apart. */
static size_t sink_end(const struct sink *s)
{
	size_t end;

	if (__builtin_add_overflow(s->start, s->limit, &end) || end == SIZE_MAX)
		return SIZE_MAX;
	return end + 1;
}

/* Makes sure that at least one byte more can be written. */
static int sink_make_room(struct sink *s)
{
	size_t step = MAX(sink_len(s), FIRST_STEP_BYTES);

	/* Twice what came so far: memory follows from bytes that are there, not from claims. */
	if (s->buf->len < s->buf->cap)
		return 0;
	return buf_reserve(s->buf, MIN(step, sink_end(s) - s->buf->len), sink_end(s));
}

static size_t sink_room(const struct sink *s)
{
	return MIN(s->buf->cap, sink_end(s)) - s->buf->len;
}

/* ------------------------------------------------------------------------ contexts */

void zip_init(struct zip *z)
{
	*z = (struct zip){0};
}

void zip_trim(struct zip *z)
{
	/* The libraries' own functions take NULL; zlib's takes a stream that was set up. */
	ZSTD_freeCCtx(z->zstd_out);
	ZSTD_freeDCtx(z->zstd_in);
	LZ4F_freeDecompressionContext(z->lz4_in);
	if (z->gzip_in)
		(void)inflateEnd(z->gzip_in); /* cannot fail for a stream that was set up */
	free(z->gzip_in);
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

/* With room for all of it at once, zstd decodes in place and needs no window of its own. */
static int zstd_believe_size(struct sink *s, const void *p, size_t n)
{
	unsigned long long claimed = ZSTD_getFrameContentSize(p, n);

	/* 64 times the input is not far-fetched; past it, memory grows with what comes out. */
	if (claimed == ZSTD_CONTENTSIZE_UNKNOWN || claimed == ZSTD_CONTENTSIZE_ERROR ||
	    claimed == 0 || claimed > s->limit || claimed / BELIEVED_RATIO > n)
		return 0;
	return buf_reserve(s->buf, (size_t)claimed, sink_end(s));
}

static int zstd_unpack(struct zip *z, const void *p, size_t n, struct sink *s)
{
	ZSTD_inBuffer in = {p, n, 0};
	size_t left = 1;
	int r;

	if (!z->zstd_in)
		z->zstd_in = ZSTD_createDCtx();
	if (!z->zstd_in)
		return -ENOMEM;
	/* What a message before left unfinished, and its limit, are none of this one's. */
	(void)ZSTD_DCtx_reset(z->zstd_in, ZSTD_reset_session_only);
	(void)ZSTD_DCtx_setParameter(z->zstd_in, ZSTD_d_windowLogMax, zstd_window_log(s->limit));
	r = zstd_believe_size(s, p, n);
	/* @left is 0 at the end of a frame, behind which another one may follow. */
	while (r == 0 && (left || in.pos < in.size)) {
		ZSTD_outBuffer out = {0};

		r = sink_make_room(s);
		if (r < 0)
			break;
		out.dst = s->buf->data + s->buf->len;
		out.size = sink_room(s);
		left = ZSTD_decompressStream(z->zstd_in, &out, &in);
		if (ZSTD_isError(left))
			return zstd_error(left);
		s->buf->len += out.pos;
		if (sink_len(s) > s->limit)
			return ZIP_E_TOO_BIG;
		/* All is in, and it doesn't come to its end though there was room: cut off. */
		if (left && in.pos == in.size && out.pos < out.size)
			return ZIP_E_CORRUPT;
	}
	return r;
}

static int gzip_begin(struct zip *z)
{
	if (z->gzip_in)
		return inflateReset(z->gzip_in) == Z_OK ? 0 : -ENOMEM;
	z->gzip_in = calloc(1, sizeof(*z->gzip_in));
	if (!z->gzip_in)
		return -ENOMEM;
	if (inflateInit2(z->gzip_in, GZIP_WINDOW) == Z_OK)
		return 0;
	free(z->gzip_in);
	z->gzip_in = NULL;
	return -ENOMEM;
}

/* Z_NEED_DICT too: there are no dictionaries here. */
static int gzip_error(int code)
{
	return code == Z_MEM_ERROR ? -ENOMEM : ZIP_E_CORRUPT;
}

static int gzip_unpack(struct zip *z, const void *p, size_t n, struct sink *s)
{
	bool is_whole = false;
	int r;

	/* zlib counts in unsigned int; what comes from the wire is far smaller. */
	if (n > INT_MAX)
		return ZIP_E_TOO_BIG;
	r = gzip_begin(z);
	if (r < 0)
		return r;
	z->gzip_in->next_in = (Bytef *)(uintptr_t)p;
	z->gzip_in->avail_in = (uInt)n;
	while (!is_whole || z->gzip_in->avail_in) {
		uInt room;

		r = sink_make_room(s);
		if (r < 0)
			return r;
		/* RFC 1952 section 2.2: a file is one member or several, one behind the other. */
		if (is_whole)
			(void)inflateReset(z->gzip_in);
		room = (uInt)MIN(sink_room(s), (size_t)INT_MAX);
		z->gzip_in->next_out = s->buf->data + s->buf->len;
		z->gzip_in->avail_out = room;
		r = inflate(z->gzip_in, Z_NO_FLUSH);
		if (r != Z_OK && r != Z_STREAM_END)
			return gzip_error(r);
		is_whole = r == Z_STREAM_END;
		s->buf->len += room - z->gzip_in->avail_out;
		if (sink_len(s) > s->limit)
			return ZIP_E_TOO_BIG;
		if (!is_whole && z->gzip_in->avail_in == 0 && z->gzip_in->avail_out)
			return ZIP_E_CORRUPT;
	}
	return 0;
}

/* lz4 1.9 has no public function that tells the number of an error. */
static int lz4_error(size_t code)
{
	return strcmp(LZ4F_getErrorName(code), "ERROR_allocation_failed") == 0 ? -ENOMEM
									       : ZIP_E_CORRUPT;
}

static int lz4_unpack(struct zip *z, const void *p, size_t n, struct sink *s)
{
	const uint8_t *in = p;
	size_t left = 1;

	if (!z->lz4_in && LZ4F_isError(LZ4F_createDecompressionContext(&z->lz4_in, LZ4F_VERSION)))
		return -ENOMEM;
	LZ4F_resetDecompressionContext(z->lz4_in);
	/* As with zstd: @left is 0 at the end of a frame, and otherwise a hint. */
	while (left || n) {
		size_t used = n;
		size_t room, came;
		int r = sink_make_room(s);

		if (r < 0)
			return r;
		room = sink_room(s);
		came = room;
		left = LZ4F_decompress(z->lz4_in, s->buf->data + s->buf->len, &came, in, &used,
				       NULL);
		if (LZ4F_isError(left))
			return lz4_error(left);
		s->buf->len += came;
		in += used;
		n -= used;
		if (sink_len(s) > s->limit)
			return ZIP_E_TOO_BIG;
		/* Without room left over it may only wait to give out what it has. */
		if (left && came < room && (n == 0 || used == 0))
			return ZIP_E_CORRUPT;
	}
	return 0;
}

/* ---------------------------------------------------------------------- uncompressed */

static int none_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out)
{
	(void)z;
	(void)level;
	return buf_append(out, p, n, BUF_NO_LIMIT);
}

static int none_unpack(struct zip *z, const void *p, size_t n, struct sink *s)
{
	(void)z;
	if (n > s->limit)
		return ZIP_E_TOO_BIG;
	return buf_append(s->buf, p, n, BUF_NO_LIMIT);
}

/* ------------------------------------------------------------------------- choosing */

static const struct codec {
	const char *name;
	int (*pack)(struct zip *z, int level, const void *p, size_t n, struct buf *out);
	int (*unpack)(struct zip *z, const void *p, size_t n, struct sink *s);
} codecs[ZIP_N_KINDS] = {[ZIP_NONE] = {"", none_pack, none_unpack},
#define CODEC_ROW(NAME, name, number) [ZIP_##NAME] = {#name, name##_pack, name##_unpack},
			 ZIP_CODECS(CODEC_ROW)};

/* NULL for a number that no codec has: it may come from the wire. */
static const struct codec *codec_find(unsigned kind)
{
	return kind < ZIP_N_KINDS ? &codecs[kind] : NULL;
}

const char *zip_kind_name(unsigned kind)
{
	const struct codec *c = codec_find(kind);

	return c ? c->name : NULL;
}

int zip_pack_kind(struct zip *z, enum zip_kind kind, int level, const void *p, size_t n,
		  struct buf *out)
{
	const struct codec *c = codec_find(kind);

	return c ? c->pack(z, level, p, n, out) : ZIP_E_CORRUPT;
}

int zip_unpack(struct zip *z, enum zip_kind kind, const void *p, size_t n, size_t limit,
	       struct buf *out)
{
	struct sink s = {.buf = out, .start = out->len, .limit = limit};
	const struct codec *c = codec_find(kind);
	int r;

	if (!c)
		return ZIP_E_CORRUPT;
	if (n == 0)
		return 0;
	r = c->unpack(z, p, n, &s);
	/* What came out before the flaw is none of the caller's business. */
	if (r != 0)
		out->len = s.start;
	return r;
}
