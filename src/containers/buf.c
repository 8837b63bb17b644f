/* SPDX-License-Identifier: MIT */
#include "containers/buf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The first allocation, so that a few small appends do not each move the buffer. */
#define BUF_FIRST_BYTES 256

int buf_reserve(struct buf *b, size_t extra, size_t limit)
{
	size_t cap;
	uint8_t *data;

	/* A buffer may be longer than this call's limit: another one may have allowed more. */
	if (b->len > limit || extra > limit - b->len)
		return -EMSGSIZE;
	if (extra <= b->cap - b->len)
		return 0;
	/* Cannot overflow: an object has at most PTRDIFF_MAX bytes, half of what size_t counts. */
	cap = MAX(2 * b->cap, (size_t)BUF_FIRST_BYTES);
	cap = MAX(MIN(cap, limit), b->len + extra);
	data = realloc(b->data, cap);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_append(struct buf *b, const void *p, size_t n, size_t limit)
{
	int r = buf_reserve(b, n, limit);

	if (r)
		return r;
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	WB_ASSERT(n <= b->len);
	b->len -= n;
	if (n && b->len)
		memmove(b->data, b->data + n, b->len);
}

int buf_vprintf(struct buf *b, const char *format, va_list args)
{
	size_t room = b->cap - b->len;
	va_list again;
	int n, r = 0;

	/* Most texts fit behind what is there; only one that doesn't is formatted twice. */
	va_copy(again, args);
	n = vsnprintf(room ? (char *)b->data + b->len : NULL, room, format, args);
	if (n < 0)
		r = -EINVAL;
	else if ((size_t)n >= room) /* the NUL wants room, too, though it is not queued */
		r = buf_reserve(b, (size_t)n + 1, BUF_NO_LIMIT);
	if (!r && (size_t)n >= room)
		(void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, format, again);
	if (!r)
		b->len += (size_t)n;
	va_end(again);
	return r;
}

int buf_printf(struct buf *b, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = buf_vprintf(b, format, args);
	va_end(args);
	return r;
}

void buf_fini(struct buf *b)
{
	if (!b)
		return;
	free(b->data);
	*b = (struct buf){0};
}

void buf_check(const struct buf *b)
{
	WB_ASSERT(b->len <= b->cap);
	WB_ASSERT(!b->data == !b->cap);
}
