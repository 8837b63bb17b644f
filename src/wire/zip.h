/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Compression of BinaryData: zstd, gzip (RFC 1952) and the LZ4 frame format, a whole payload at
 * a time. One struct zip for each thread keeps the libraries' contexts between calls, since
 * making one costs more than packing a small message; zip_trim() gives their memory back.
 *
 * What is unpacked comes from peers: output stops at the caller's limit while it is produced,
 * and no allocation follows a size that the input claims beyond that. Several frames or gzip
 * members in a row count as one; nothing may follow them. Dictionaries are not supported.
 */

#include "base/base.h"

struct buf;
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
