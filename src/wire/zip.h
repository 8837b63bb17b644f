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

/* Numbered as CompressionType on the wire. */
enum zip_kind {
	ZIP_NONE = 0,
	ZIP_GZIP = 1,
	ZIP_ZSTD = 2,
	ZIP_LZ4 = 3,
	ZIP_N_KINDS, /* a number from the wire may be this or more */
};

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
 * zip_pack() - compress with zstd
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
