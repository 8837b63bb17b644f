/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Compression of BinaryData: zstd, gzip (RFC 1952) and the LZ4 frame format. One struct zip for
 * each thread keeps the libraries' contexts between calls, since making one costs more than
 * packing a small message; zip_trim() gives their memory back.
 *
 * What is unpacked comes from peers: output stops at the caller's limit while it is produced,
 * and no allocation follows a size that the input claims beyond that. Several frames or gzip
 * members in a row count as one; nothing may follow them. Dictionaries are not supported.
 *
 * Work is bounded, too. zip_unpack() and zip_pack() take a whole payload at a time; struct
 * zip_unpacking and struct zip_packing go through one in small steps, stop when a budget of bytes
 * is used up, and go on where they were. A step of unpacking takes 2 KiB at most: input that
 * holds nothing but the tables of a code costs forty times what its bytes do otherwise, so that
 * who has to bound time looks at a clock between steps, and not at bytes alone.
 */

#include "base/base.h"

struct buf;
struct zip_codec;
struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;
struct LZ4F_dctx_s;
struct z_stream_s;

/*
 * The codecs, one row each: X(NAME, name, number). ZIP_NAME has the number that CompressionType
 * has on the wire, which a hand-over carries, too; clients know it by its name, with which its
 * two functions in zip.c begin. Numbers follow each other from 1. In order of preference.
 */
#define ZIP_CODECS(X)    \
	X(ZSTD, zstd, 2) \
	X(GZIP, gzip, 1) \
	X(LZ4, lz4, 3)

#define ZIP_PREFERRED ZIP_ZSTD /* what the server packs with */

#define ZIP_NUMBER(NAME, name, number) ZIP_##NAME = (number),
#define ZIP_COUNT(NAME, name, number) +1

enum zip_kind { ZIP_NONE = 0, ZIP_CODECS(ZIP_NUMBER) };

/* A number from the wire may be this or more. */
#define ZIP_N_KINDS (1 ZIP_CODECS(ZIP_COUNT))

/* Whether a number from the wire is that of a codec. */
static inline bool zip_is_codec(unsigned kind)
{
	return kind > ZIP_NONE && kind < ZIP_N_KINDS;
}

/* "gzip"; "" for ZIP_NONE, NULL for a number that no codec has. */
WB_ANY_THREAD const char *zip_kind_name(unsigned kind);

enum zip_outcome {
	ZIP_E_CORRUPT = 1, /* not what it says it is, damaged, cut off, or of an unknown kind */
	ZIP_E_TOO_BIG,     /* unpacks to more than the limit */
	ZIP_E_NOT_SMALLER, /* packing would not make it smaller */
	ZIP_MORE,          /* the budget is used up: go on later */
};

/* All-zero is valid and empty; contexts are made on first use. */
struct WB_OWNER(user) zip {
	struct ZSTD_CCtx_s *zstd_out;
	struct ZSTD_DCtx_s *zstd_in;
	struct LZ4F_dctx_s *lz4_in;
	struct z_stream_s *gzip_in;
};

void zip_init(struct zip *z);
void zip_fini(struct zip *z);

/* Frees all contexts; the next use makes new ones. For an idle thread. */
void zip_trim(struct zip *z);

/**
 * zip_pack() - compress with ZIP_PREFERRED
 * @level:  zstd's scale, 1 to 19; others are brought into that range
 * @out:    appended to; on failure its content is as before
 *
 * The frame carries its content size and no checksum (BinaryData has its own).
 *
 * Return: 0 | -ENOMEM | ZIP_E_NOT_SMALLER.
 * Cost:   at most @n bytes more in @out; no other allocation once the context exists, unless
 *         a larger payload or another level needs a larger one.
 */
int zip_pack(struct zip *z, int level, const void *p, size_t n, struct buf *out) WB_NODISCARD;

/**
 * zip_pack_kind() - compress with any method, for the client and for tests
 * @level:  zstd's scale; brought into the range of the method
 *
 * ZIP_NONE copies. Unlike zip_pack() it accepts a result that is not smaller.
 *
 * Return: 0 | -ENOMEM | ZIP_E_CORRUPT (no such kind).
 */
int zip_pack_kind(struct zip *z, enum zip_kind kind, int level, const void *p, size_t n,
		  struct buf *out) WB_NODISCARD;

/**
 * zip_unpack() - decompress, bounded
 * @kind:   may be any number from the wire
 * @limit:  most bytes that may come out
 * @out:    appended to; on failure its content is as before
 *
 * Empty input is empty output. ZIP_NONE copies.
 *
 * Return: 0 | -ENOMEM | ZIP_E_CORRUPT | ZIP_E_TOO_BIG.
 * Cost:   memory of @out grows by doubling as bytes come out; a size that a zstd frame claims is
 *         believed up to 64 times the input, and never past @limit. A zstd window may have
 *         8 MiB, or @limit rounded up to a power of two if that is more (at most 128 MiB).
 */
int zip_unpack(struct zip *z, enum zip_kind kind, const void *p, size_t n, size_t limit,
	       struct buf *out) WB_NODISCARD;

/* One payload on its way through a codec. All-zero is good for zip_unpacking_fini(). */
struct WB_OWNER(user) zip_unpacking {
	struct zip
		*zip; /* lends a context, and gets it back; the next that needs one makes its own */
	const struct zip_codec *codec; /* NULL: the number was none of a codec */
	struct buf *out;
	size_t start;  /* of @out, before the first byte came */
	size_t at;     /* bytes that the codec has taken */
	bool is_whole; /* what was taken is a frame or a member to its end */
	union {
		struct ZSTD_DCtx_s *zstd;
		struct LZ4F_dctx_s *lz4;
		struct z_stream_s *gzip;
	};
};

/**
 * zip_unpacking_init() - begin to unpack
 * @kind:   may be any number from the wire
 * @out:    borrowed until zip_unpacking_fini(); appended to
 *
 * @z lives longer than @u.
 */
void zip_unpacking_init(struct zip_unpacking *u, struct zip *z, unsigned kind, struct buf *out);

/**
 * zip_unpacking_run() - unpack a payload, or go on with it
 * @p:      the whole payload, the same bytes in each call; they may have moved
 * @limit:  most bytes that may come out, the same in each call
 * @budget: bytes that may still go in or come out; counted down
 *
 * Return: as zip_unpack(), | ZIP_MORE; only after ZIP_MORE it may be called again.
 * Cost:   as zip_unpack(). A step is 2 KiB in, and out 16 KiB or what is left of the budget,
 *         and what a codec makes of it (a block: of zstd 128 KiB, of lz4 4 MiB).
 */
int zip_unpacking_run(struct zip_unpacking *u, const void *p, size_t n, size_t limit,
		      size_t *budget) WB_NODISCARD;

/* Gives back the context, in any state; @u is all-zero then. What came out stays in its buffer. */
void zip_unpacking_fini(struct zip_unpacking *u);

/* One payload on its way into zstd. All-zero is good for zip_packing_fini(). */
struct WB_OWNER(user) zip_packing {
	struct zip *zip; /* as in zip_unpacking */
	struct ZSTD_CCtx_s *zstd;
	struct buf *out;
	size_t start;
	size_t at;
	int level;
};

/* Begin to pack as zip_pack() does; @out and @z as for zip_unpacking_init(). */
void zip_packing_init(struct zip_packing *k, struct zip *z, int level, struct buf *out);

/**
 * zip_packing_run() - pack a payload, or go on with it
 * @budget: bytes that may still go in; counted down
 *
 * It ends as soon as it can't get smaller any more.
 *
 * Return: as zip_pack(), | ZIP_MORE; only after ZIP_MORE it may be called again.
 * Cost:   as zip_pack(). A call with a budget of 1 takes 16 KiB.
 */
int zip_packing_run(struct zip_packing *k, const void *p, size_t n, size_t *budget) WB_NODISCARD;

/* As zip_unpacking_fini(). */
void zip_packing_fini(struct zip_packing *k);
