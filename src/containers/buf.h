/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Queue of bytes in one piece of memory: append behind, consume in front. It grows by
 * doubling, never past the limit that each call names, so that whoever lets it grow has
 * said how far. An all-zero buf is valid, empty and owns no memory.
 *
 * Consuming moves what is left to the front: meant for buffers that are emptied in a few
 * large steps. Nothing shrinks by itself; buf_fini() gives the memory back and leaves a
 * valid empty buf, which is also how an idle owner gets rid of it.
 */

#include <stdarg.h>

#include "base/base.h"

struct WB_VALUE buf {
	uint8_t *data; /* NULL while cap is 0 */
	size_t len;    /* bytes that are queued */
	size_t cap;    /* bytes of memory */
};

/* What to pass where a buffer needs no bound of its own. */
#define BUF_NO_LIMIT SIZE_MAX

/**
 * buf_reserve() - make room for more bytes, to be written at data + len
 * @extra: bytes that have to fit behind len
 * @limit: largest len the buffer may come to
 *
 * Return: 0 | -EMSGSIZE when len + @extra is past @limit | -ENOMEM; unchanged if it fails.
 * Thread: the owner's.
 * Cost:   amortized O(1) a byte; no allocation when there is room.
 */
int buf_reserve(struct buf *b, size_t extra, size_t limit) WB_NODISCARD;

/**
 * buf_append() - queue a copy of @n bytes
 * @p: not inside the buffer itself; may be NULL when @n is 0
 *
 * Return: as buf_reserve().
 * Thread: the owner's.
 */
int buf_append(struct buf *b, const void *p, size_t n, size_t limit) WB_NODISCARD;

/* Drops the first @n bytes, which must be there. */
void buf_consume(struct buf *b, size_t n);

/**
 * buf_printf() - queue formatted text
 *
 * A NUL follows the text but is not part of len.
 *
 * Return: 0 | -ENOMEM | -EINVAL for a format that cannot be printed; unchanged if it fails.
 * Thread: the owner's.
 */
int buf_printf(struct buf *b, const char *format, ...) WB_PRINTF(2, 3) WB_NODISCARD;

/* As buf_printf(); @args is used up. */
int buf_vprintf(struct buf *b, const char *format, va_list args) WB_PRINTF(2, 0) WB_NODISCARD;

/* Frees the memory; @b is valid and empty afterwards. NULL is allowed. */
void buf_fini(struct buf *b);

/* Bytes of memory the buffer holds, for whoever accounts for it. */
static inline size_t buf_cap(const struct buf *b)
{
	return b->cap;
}

/* Forgets the content and keeps the memory. */
static inline void buf_clear(struct buf *b)
{
	b->len = 0;
}

/* Asserts the invariants, for tests. */
void buf_check(const struct buf *b);
